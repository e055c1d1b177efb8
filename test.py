"""Scores the test images with what run.py trained, and prints AUROC and AUPR of each object.

    python test.py                                  # options/KDstudent.yaml
    python test.py options/teacher.yaml --oracle-text
    python test.py options/baselines/winclip.yaml --maps
    python test.py options/demo.yaml --seeds 3      # mean and spread, after run.py --seeds 3
    python test.py --compare                        # options/comparison/visa.yaml

The student sees nothing but the image. A teacher is told the object's name and nothing else;
with --oracle-text it is told the truth as well, in a table of its own: an upper bound.
--compare takes a comparison file instead and puts its methods side by side (docs/comparing.md).
"""

import sys
from collections.abc import Sequence

from options.command import DEFAULT_COMPARISON, add_seeds, comparison_from, options_parser, run_from
from options.comparing import compare
from options.seeds import evaluate_seeds
from options.testing import evaluate
from utils.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 interrupted."""
    parser = options_parser(__doc__)
    add_seeds(parser)
    parser.add_argument("--oracle-text", action="store_true", help="score the teacher twice")
    parser.add_argument(
        "--untrained", action="store_true", help="score the networks as they are before training"
    )
    parser.add_argument(
        "--maps", action="store_true", help="pixel AUROC and AUPRO too, where there are masks"
    )
    parser.add_argument(
        "--compare", action="store_true", help=f"FILE is a comparison ({DEFAULT_COMPARISON})"
    )
    args = parser.parse_intermixed_args(arguments)
    if args.compare and (args.oracle_text or args.untrained or args.maps):
        parser.error("--compare goes alone: the comparison file says what is scored, and how")

    def command() -> None:
        if args.compare:
            compare(*comparison_from(args))
            return
        run, source = run_from(args)
        flags = {
            "oracle_text": args.oracle_text,
            "untrained": args.untrained,
            "maps": args.maps,
        }
        if args.seeds is None:
            evaluate(run, source, **flags)
        else:
            evaluate_seeds(run, source, args.seeds, **flags)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
