"""Scores several methods on one list of test images and prints them side by side.

    python compare.py                                    # options/comparison/visa.yaml
    python compare.py options/comparison/demo.yaml
    python compare.py options/comparison/ablation_demo.yaml --train   # trains the methods first

FILE is a comparison: docs/comparing.md.
"""

import sys
from collections.abc import Sequence

from utils.errors import run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    from options.command import DEFAULT_COMPARISON, add_seeds, comparison_from, options_parser

    parser = options_parser(__doc__, DEFAULT_COMPARISON)
    add_seeds(parser)
    parser.add_argument(
        "--train", action="store_true", help="train the methods that need it before they are scored"
    )
    args = parser.parse_intermixed_args(arguments)

    comparison = comparison_from(args)
    from jobs.comparing.comparing import compare, train_columns

    if args.train:
        train_columns(comparison)
    compare(comparison)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
