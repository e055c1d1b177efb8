"""The data are checked by a command, and before anything is learned from them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.check.findings import LEVELS, Finding
from datasets.check.inspection import inspect
from datasets.check.report import table, write_report
from datasets.record import Splits
from jobs.build import needs_masks
from jobs.data import Data, read_splits, store_of
from options.schema import Run, Source
from utils.console import say
from utils.errors import UserError
from utils.ranks import is_main, main_first

REPORTS = Path("data/report")
_ERRORS_SHOWN = 20  # before a training that stops
_FINDINGS_SHOWN = 50  # of one level, by the command
_HINT = "python check.py, with the same options, shows all findings"


def check(run: Run, *, out: Path | None = None) -> None:
    """Prints and writes a report of the data set, and of the auxiliary one if there is one.

    Args:
        run: Names the data sets.
        out: Folder of the report; ``None``: :data:`REPORTS`.

    Raises:
        UserError: If errors were found, after everything was reported.
    """
    sources = {"": run.dataset, "auxiliary": run.dataset.auxiliary}
    errors = [
        _report(run, options, (out / name) if out else default_folder(options))
        for name, options in sources.items()
        if options is not None
    ]
    if any(errors):
        raise UserError("; ".join(filter(None, errors)))


def _report(run: Run, options: Source, folder: Path) -> str:
    """Reports on one data set; returns a summary of its errors, or nothing."""
    inspection = inspect(
        options.dir,
        read_splits(options),
        store=store_of(run),
        allow_leak=run.dataset.allow_leak,
    )
    page = write_report(inspection, folder, f"Data of {run.command}")
    say("\n".join([table(inspection), "", *_shortened(inspection.findings)]))
    say(f"{page}: the whole report, with pictures of each object")
    if inspection.errors:
        return f"{options.dir}: {inspection.summary}"
    say(inspection.summary)
    return ""


def _shortened(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines; of each level the first ones."""
    lines = []
    for level in LEVELS:
        named = [str(finding) for finding in findings if finding.level == level]
        lines += named[:_FINDINGS_SHOWN]
        if len(named) > _FINDINGS_SHOWN:
            lines.append(f"... and {len(named) - _FINDINGS_SHOWN} more {level}s")
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


def check_data(run: Run, data: Iterable[Data]) -> None:
    """Prints in one line that nothing is wrong, or stops the run.

    Masks are checked where something is learned from them.

    Raises:
        UserError: If an image cannot be read, is in train and in test, or has two labels.
    """
    with main_first():
        if not is_main():
            return
        for root, splits in _merged(data).items():
            inspection = inspect(
                root,
                splits,
                store=store_of(run),
                allow_leak=run.dataset.allow_leak,
                with_masks=any(needs_masks(stage) for stage in run.stages.values()),
                is_whole=False,  # of auxiliary data, the test images
            )
            summary = f"{root}: {inspection.summary}"
            if inspection.errors:
                more = len(inspection.errors) - _ERRORS_SHOWN
                rest = [f"... and {more} more errors"] if more > 0 else []
                shown = inspection.errors[:_ERRORS_SHOWN]
                raise UserError("\n".join([f"{summary}; {_HINT}", *shown, *rest]))
            say(summary + (f"; {_HINT}" if inspection.findings else ""))


def _merged(data: Iterable[Data]) -> dict[Path, Splits]:
    """Every list once: stages share one, and the parts of ``per_object`` each have a piece."""
    merged: dict[Path, Splits] = {}
    for one in data:
        splits = merged.setdefault(one.root, {"train": [], "test": []})
        for split, records in splits.items():
            before = set(records)
            records += [record for record in one.splits[split] if record not in before]
    return merged
