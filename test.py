"""Scores the test images with the trained networks, and prints AUROC and AUPR of each object.

    python test.py                                  # options/KDstudent.yaml
    python test.py options/teacher.yaml --oracle-text
    python test.py options/baselines/winclip.yaml --maps
    python test.py options/demo.yaml --stress       # under small changes of the pictures, too
    python test.py options/demo.yaml --seeds 3      # mean and spread, after run.py --seeds 3

The student sees only the image. The teacher's captions are the names of the objects. With
--oracle-text a second table has captions that tell the label: an upper bound.
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
    parser.add_argument("--oracle-text", action="store_true", help="score the teacher twice")
    parser.add_argument(
        "--untrained", action="store_true", help="score the networks as they are before training"
    )
    parser.add_argument(
        "--maps", action="store_true", help="pixel AUROC and AUPRO too, where there are masks"
    )
    parser.add_argument(
        "--stress", action="store_true", help="the same under small changes of the pictures, too"
    )
    parser.add_argument(
        "--tsne", action="store_true", help="a plot of the features in report.html, too"
    )
    args = parser.parse_intermixed_args(arguments)

    run = run_from(args)
    from jobs.testing import Extras, evaluate

    extras = Extras(
        oracle_text=args.oracle_text,
        untrained=args.untrained,
        maps=args.maps,
        stress=args.stress,
        tsne=args.tsne,
    )
    evaluate(run, extras, args.seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
