"""Trains the networks of an options file: the teacher, then the student; finished ones are kept.

    python run.py                                   # options/KDstudent.yaml
    python run.py options/teacher.yaml optimizer.lr=1e-4 exp.dir=logs/slow
    python run.py options/demo.yaml --seeds 3

The same command resumes an interrupted run.
"""

import sys
from collections.abc import Sequence

from utils.errors import run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    from options.command import add_old_compare, add_seeds, options_parser, run_from

    parser = options_parser(__doc__)
    add_seeds(parser)
    add_old_compare(parser)
    args = parser.parse_intermixed_args(arguments)

    run = run_from(args)
    from jobs.training.training import train_seeds

    train_seeds(run, args.seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
