"""Trains the small CLIP of the demo on rendered pictures and sentences, and says how good it is.

    python pretrain.py

It learns from every rendered object but the four of the demo. The file that comes out is in the
repository already, in models/encoders/weights; docs/demo_clip.md says what it is. A training that
was interrupted goes on when the same command is given again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.clip.pretraining import Recipe, pretrain, report
from utils.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Recipe()
    parser.add_argument("--dir", type=Path, default=Path("logs/demo_clip"), help="folder to make")
    parser.add_argument(
        "--cache", type=Path, default=Path("data/pairs"), help="where the pictures are kept"
    )
    parser.add_argument(
        "--demo", type=Path, default=Path("data/demo"), help="the demo's data, to be tested on"
    )
    parser.add_argument("--pairs", type=int, default=default.pairs, help="pairs of pictures")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--seed", type=int, default=default.seed)
    args = parser.parse_args(arguments)

    def command() -> None:
        recipe = Recipe(pairs=args.pairs, epochs=args.epochs, seed=args.seed)
        report(pretrain(args.dir, args.cache, recipe), args.demo, args.seed)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
