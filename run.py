"""Trains what an options file describes: the teacher, then the student; what is done stays done.

    python run.py                                   # options/KDstudent.yaml
    python run.py options/teacher.yaml optimizer.lr=1e-4 exp.dir=logs/slow

A run that was interrupted goes on when the same command is given again.
"""

import sys
from collections.abc import Sequence

from options.command import options_parser, run_from
from options.training import train
from utils.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 interrupted."""
    args = options_parser(__doc__).parse_args(arguments)
    return run_command(lambda: train(run_from(args)[0]))


if __name__ == "__main__":
    sys.exit(main())
