"""Scores the test images with what run.py trained, and prints AUROC and AUPR of each object.

    python test.py                                  # options/KDstudent.yaml
    python test.py options/teacher.yaml --oracle-text

The student sees nothing but the image. A teacher is told the object's name and nothing else;
with --oracle-text it is told the truth as well, in a table of its own: an upper bound.
"""

import sys
from collections.abc import Sequence

from options.command import options_parser, run_from
from options.testing import evaluate
from utils.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 interrupted."""
    parser = options_parser(__doc__)
    parser.add_argument("--oracle-text", action="store_true", help="score the teacher twice")
    parser.add_argument(
        "--untrained", action="store_true", help="score the networks as they are before training"
    )
    args = parser.parse_args(arguments)

    def command() -> None:
        run, source = run_from(args)
        evaluate(run, source, oracle_text=args.oracle_text, untrained=args.untrained)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
