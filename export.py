"""Exports a trained student to one file: pictures in, scores, probabilities and heat maps out.

    python export.py logs/demo --to onnx
    python export.py logs/fryum_cpu --to openvino --maps

It ends by scoring the validation images with both, and leaves no file if the scores differ.
docs/deploy.md has a program of 15 lines that runs an ONNX file.
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
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or of its student")
    parser.add_argument("--to", required=True, choices=["onnx", "openvino", "torchscript"])
    parser.add_argument("--maps", action="store_true", help="heat maps as a third output")
    parser.add_argument("--int8", action="store_true", help="8 bits, fitted to training images")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/student/model.*")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the data set, if it was moved")
    args = parser.parse_args(arguments)
    from jobs.exporting import Export, export

    export(args.run, Export(args.to, args.maps, args.int8, args.out), args.data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
