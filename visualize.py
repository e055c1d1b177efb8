"""Draws heat maps of a trained student, and a teacher's attention for each word.

    python visualize.py                                     # options/KDstudent.yaml
    python visualize.py options/demo.yaml --out docs/fig.png

Writes gradcam.png to the student's folder, with the share of the heat inside the masks and the
pointing game in gradcam.md and gradcam.csv, and attention.png to the teacher's folder. The
teacher's captions tell the label here (oracle text); the student sees only the image.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    from options.command import options_parser, run_from

    parser = options_parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="a copy of the heat maps")
    parser.add_argument(
        "--attention-out", type=Path, metavar="FILE.png", help="a copy of the attention"
    )
    args = parser.parse_intermixed_args(arguments)

    run = run_from(args)
    from jobs.visualizing.visualizing import visualize

    visualize(run, out=args.out, attention_out=args.attention_out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
