"""Serves a trained student: a page for people, POST /predict for programs.

    python serve.py logs/demo
    curl -F file=@picture.jpg http://127.0.0.1:8000/predict

MODEL is the folder of a run or a best.safetensors. Only this machine can reach it, unless --host
says otherwise: there is no password. Ctrl-C ends it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every machine can reach it")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; then 429")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    args = parser.parse_args(arguments)
    from jobs.predicting.predictor import Predictor
    from jobs.serving.serving import serve
    from utils.console import say

    predictor = Predictor.load(args.model, args.device)
    who = "this machine only" if args.host in ("127.0.0.1", "localhost", "::1") else "the network"
    say(f"{predictor.title}: http://{args.host}:{args.port}/ for {who}; Ctrl-C ends it")
    serve(predictor, args.host, args.port, args.queue)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
