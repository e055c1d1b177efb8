"""Looks at every image of a data set before anything is trained on it.

    python check.py                                # options/KDstudent.yaml
    python check.py options/demo.yaml dataset.objects=[pcb1]
    python check.py options/mvtec.yaml --fix-list leave_out.txt

Prints one table, and one line for each thing that is wrong; writes the same, with a contact sheet
of each object, as data_report.md. --fix-list writes the images without which there are no errors
about images. docs/check.md says what is looked for and how.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import run_command


def command(arguments: Sequence[str] | None) -> None:
    """Reads the command line and does the work."""
    from options.command import options_parser, run_from

    parser = options_parser(__doc__)
    parser.add_argument(
        "--out", type=Path, help="folder of the report; default: data/report/<name>"
    )
    parser.add_argument(
        "--fix-list",
        type=Path,
        metavar="FILE",
        help="a list of the images to leave out: dataset.leave_out=FILE",
    )
    args = parser.parse_intermixed_args(arguments)

    run = run_from(args)
    from jobs.checking import check

    check(run, out=args.out, fix_list=args.fix_list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing wrong, 2 errors found or something to fix, 130 or 143 interrupted."""
    return run_command(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
