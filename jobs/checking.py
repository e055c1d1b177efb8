"""The data are checked by a command, and before anything is learned from them."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.broken import find_broken
from datasets.check.facts import collect, image_facts
from datasets.check.findings import (
    LEVELS,
    Finding,
    ListedImage,
    dark_colors,
    gray_levels,
    masks_of_nothing,
    near_binary,
    single_labels,
)
from datasets.check.inspection import Inspection, inspect
from datasets.check.report import is_report_of_another, table, write_report
from datasets.fix_list import leave_out, read_fix_list, without, write_fix_list
from datasets.image import PixelRange
from datasets.record import Record, Splits
from jobs.build import needs_masks
from jobs.data import Data, read_whole, selected, store_of
from options.schema import Run, Source
from utils.cache_files import hash_of
from utils.console import say
from utils.errors import UserError
from utils.ranks import is_main, main_first

REPORTS = Path("data/report")
_ERRORS_SHOWN = 20  # before a training that stops
_LONGEST_NAME = 80  # of the folder of a report
_FINDINGS_SHOWN = 50  # of one level, by the command
_HINT = "python check.py, with the same options, shows all findings"


def check(run: Run, *, out: Path | None = None, fix_list: Path | None = None) -> None:
    """Prints and writes a report of the data set, and of the auxiliary one if there is one.

    Args:
        run: Names the data sets.
        out: Folder of the report; ``None``: :data:`REPORTS`.
        fix_list: Where a list of the images to leave out is written; ``None``: nowhere.

    Raises:
        UserError: If errors were found, after everything was reported.
    """
    sources = {"": run.dataset, "auxiliary": run.dataset.auxiliary}
    errors = []
    for name, options in sources.items():
        if options is None:
            continue
        file = fix_list and fix_list.with_stem("_".join(filter(None, (fix_list.stem, name))))
        if file and file.exists() and file != options.leave_out:
            raise UserError(f"{file}: exists already; name another file, or remove it")
        inspection = _report(run, options, (out / name) if out else default_folder(options))
        if file:
            _write_fix_list(file, inspection, options, ".".join(filter(None, ("dataset", name))))
        if inspection.errors:
            errors.append(f"{options.dir}: {inspection.summary}")
        else:
            say(inspection.summary)
    if errors:
        raise UserError("; ".join(errors))


def _report(run: Run, options: Source, folder: Path) -> Inspection:
    """Reports on one data set."""
    whole = replace(options, leave_out=None, skip_broken=False)
    everything = read_whole(whole, store_of(run))[0]
    splits = selected(options, everything, store_of(run))
    is_whole = not options.objects and splits == everything
    if options.leave_out is not None:
        splits = leave_out(splits, options.leave_out)
    broken: dict[str, str] = {}
    if options.skip_broken:
        broken = find_broken(options.dir, itertools.chain(*splits.values()), store_of(run))
        splits = without(splits, broken)
    records = [record for part in everything.values() for record in part]
    more = list(masks_of_nothing(options.dir, records, is_whole=not options.objects))
    more += [Finding("warning", f"left out: {r}", leave_out=[p]) for p, r in broken.items()]
    if options is run.dataset:
        more += _single_labels(run, splits)
    inspection = inspect(
        options.dir,
        splits,
        store=store_of(run),
        allow_leak=run.dataset.allow_leak,
        is_whole=is_whole,
        more=more,
    )
    inspection = _with_ranges(inspection, run)
    page = write_report(inspection, folder, f"Data of {run.command}")
    say("\n".join([table(inspection), "", *_shortened(inspection.findings)]))
    say(f"{page}: the whole report, with pictures of each object")
    return inspection


def _with_ranges(inspection: Inspection, run: Run) -> Inspection:
    """Checks the gray levels of deep pictures as each stage reads them."""
    for how in _ranges(run):
        inspection = inspection.with_range(how)
    return inspection


def _ranges(run: Run) -> list[PixelRange]:
    """Each range that a stage reads pictures with, once."""
    return list(dict.fromkeys(stage.image.range for stage in run.stages.values()))


def _write_fix_list(file: Path, inspection: Inspection, options: Source, section: str) -> None:
    """Adds to what is left out already what the findings name."""
    reasons = {}
    if options.leave_out is not None:
        reasons = dict.fromkeys(read_fix_list(options.leave_out), "left out before")
    for finding in inspection.findings:
        reasons |= dict.fromkeys(finding.leave_out, str(finding))
    write_fix_list(file, reasons)
    say(f"{file}: {len(reasons)} images to leave out, and why: {section}.leave_out={file}")


def _single_labels(run: Run, splits: Splits) -> list[Finding]:
    """Objects that cannot be scored: errors where something is trained on both labels."""
    stages = run.stages.values()
    is_error = any(stage.needs_training and not stage.normal_only for stage in stages)
    good, bad = map(run.dataset.reader.options.get, ("good", "bad"))
    return list(single_labels(splits, good=good, bad=bad, is_error=is_error))


def check_scorable(run: Run, splits: Splits) -> None:
    """Raises UserError if an object has test images of one label only, before a training.

    For a network that learns from normal images alone it is printed.
    """
    found = _single_labels(run, splits)
    text = "\n".join(f"{run.dataset.dir}: {finding.text}" for finding in found)
    if any(finding.level == "error" for finding in found):
        raise UserError(text)
    if found:
        say(f"{text}; until then test.py has verdicts to count and no AUROC")


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
    """A folder of reports, named after the data; one for each choice of objects.

    Raises:
        UserError: If it would lie among the data.
    """
    root = options.dir.resolve()
    parts = [part for part in (root.name, options.split, *options.objects) if part]
    name = re.sub(r"[^\w.-]+", "_", "_".join(parts))
    end = f"_{hash_of((str(root), *parts))[:6]}"
    if len(name) > _LONGEST_NAME:
        name = name[:_LONGEST_NAME] + end
    elif is_report_of_another(REPORTS / name, root):
        name += end
    folder = REPORTS / name
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
            inspection = _with_ranges(inspection, run)
            summary = f"{root}: {inspection.summary}"
            if inspection.errors:
                more = len(inspection.errors) - _ERRORS_SHOWN
                rest = [f"... and {more} more errors"] if more > 0 else []
                shown = inspection.errors[:_ERRORS_SHOWN]
                raise UserError("\n".join([f"{summary}; {_HINT}", *shown, *rest]))
            say(summary + (f"; {_HINT}" if inspection.findings else ""))


def say_pixels(run: Run, tested: Sequence[Record]) -> None:
    """Prints what is wrong with the pixels of images that no training has checked."""
    facts = collect(
        run.dataset.dir,
        [record.path for record in tested],
        image_facts,
        store=store_of(run),
        title="checking images",
    )
    images = [ListedImage("test", record, facts[record.path], None) for record in tested]
    found = [*dark_colors(images), *near_binary(images)]
    found += [finding for how in _ranges(run) for finding in gray_levels(images, how)]
    for finding in found:
        say(f"{run.dataset.dir}: {finding}")


def _merged(data: Iterable[Data]) -> dict[Path, Splits]:
    """Every list once: stages share one, and the parts of ``per_object`` each have a piece."""
    merged: dict[Path, Splits] = {}
    for one in data:
        splits = merged.setdefault(one.root, {"train": [], "test": []})
        for split, records in splits.items():
            before = set(records)
            records += [record for record in one.splits[split] if record not in before]
    return merged
