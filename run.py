"""Trains what an options file describes: the teacher, then the student; what is done stays done.

    python run.py                                   # options/KDstudent.yaml
    python run.py options/teacher.yaml optimizer.lr=1e-4 exp.dir=logs/slow
    python run.py options/demo.yaml --seeds 3
    python run.py --compare options/comparison/ablation_demo.yaml   # each column's options in turn

A run that was interrupted goes on when the same command is given again.
"""

import sys
from collections.abc import Sequence

from options.command import (
    DEFAULT_COMPARISON,
    add_seeds,
    comparison_from,
    options_parser,
    run_from,
)
from options.comparing import train_columns
from options.seeds import train_seeds
from options.training import train
from utils.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 interrupted."""
    parser = options_parser(__doc__)
    add_seeds(parser)
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"FILE is a comparison ({DEFAULT_COMPARISON}): train its columns",
    )
    args = parser.parse_intermixed_args(arguments)

    def command() -> None:
        if args.compare:
            train_columns(comparison_from(args)[0])
            return
        run, _ = run_from(args)
        if args.seeds is None:
            train(run)
        else:
            train_seeds(run, args.seeds)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
