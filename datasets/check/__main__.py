"""The command: ``python -m datasets.check [FILE] [a.b=value ...] [--out FOLDER]``.

A program like run.py, and for that reason the one module of ``datasets`` that knows options.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import datasets.check as package
from datasets.check import inspect
from datasets.check.findings import LEVELS, Finding
from datasets.check.report import table, write_report
from options.command import options_parser, run_from
from options.images import read_splits
from options.schema import Run, Source
from utils.errors import UserError, run_command
from utils.runlog import say

REPORTS = Path("data/report")
_SHOWN = 50  # findings of one level that are printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 fine, 2 errors were found or something else the user can fix."""
    parser = options_parser(package.__doc__)
    parser.prog = "python -m datasets.check"
    parser.add_argument("--out", type=Path, help=f"folder of the report; default: {REPORTS}/<name>")
    args = parser.parse_intermixed_args(arguments)

    def command() -> None:
        run, source = run_from(args)
        checked = {"": run.dataset, "auxiliary": run.dataset.auxiliary}
        errors = [
            _check(run, options, (args.out / name) if args.out else default_folder(options), source)
            for name, options in checked.items()
            if options is not None
        ]
        if any(errors):
            raise UserError("; ".join(filter(None, errors)))

    return run_command(command)


def _check(run: Run, options: Source, folder: Path, source: str) -> str:
    """Reports on one data set; returns what is wrong with it, in a few words."""
    inspection = inspect(
        options.dir,
        read_splits(options),
        cache=run.dataset.cache,
        allow_leak=run.dataset.allow_leak,
    )
    page = write_report(inspection, folder, f"Data of {source}")
    say("\n".join([table(inspection), "", *_shortened(inspection.findings)]))
    say(f"{page}: all of it, with pictures of each object")
    if inspection.errors:
        return f"{options.dir}: {inspection.summary}"
    say(inspection.summary)
    return ""


def _shortened(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines, the first of each level only where there are very many."""
    lines = []
    for level in LEVELS:
        named = [str(finding) for finding in findings if finding.level == level]
        lines += named[:_SHOWN]
        if len(named) > _SHOWN:
            lines.append(f"... and {len(named) - _SHOWN} more {level}s")
    return lines


def default_folder(options: Source) -> Path:
    """A folder of reports, named after the data.

    Raises:
        UserError: If it would lie among the data.
    """
    root = options.dir.resolve()
    folder = REPORTS / "_".join(filter(None, (root.name, options.split)))
    if folder.resolve().is_relative_to(root):
        raise UserError(
            f"{folder}: the report would lie among the data; name its folder: --out FOLDER"
        )
    return folder


if __name__ == "__main__":
    sys.exit(main())
