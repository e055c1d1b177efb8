"""The table that is printed, and the page that is written."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from datasets.check.findings import LABELS, ListedImage
from datasets.check.inspection import Inspection
from datasets.check.sheets import contact_sheet, samples
from utils.checkpoint import write_bytes

_PAGE = "data_report.md"
_LONGEST = 150  # bytes of the name of a sheet; file systems allow 255
_FORMAT = 3  # raise it when the same data give another page
_SHOWN = 2  # values named in a cell, the most frequent ones
_WIDTH = 28  # characters of a value in a cell


def table(inspection: Inspection) -> str:
    """One row per object and split, and one of all, as a pipe table."""
    groups: dict[tuple[str, str], list[ListedImage]] = {}
    for image in sorted(inspection.images, key=lambda image: image.record.object):
        groups.setdefault((image.record.object, image.split), []).append(image)
    rows = [_row(*key, images) for key, images in groups.items()]
    rows.append(_row("all", "", inspection.images))
    frame = pd.DataFrame(rows)
    align = ["right" if name in _NUMBERS else "left" for name in frame.columns]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


_NUMBERS = ("images", "normal", "anomalous", "prevalence = AUPR of chance", "masks")


def _row(name: str, split: str, images: Sequence[ListedImage]) -> dict[str, str]:
    anomalous = [image for image in images if image.record.label]
    good = [image.facts for image in images if not image.facts.error]
    return {
        "object": name,
        "split": split,
        "images": str(len(images)),
        "normal": str(len(images) - len(anomalous)),
        "anomalous": str(len(anomalous)),
        "prevalence = AUPR of chance": f"{100 * len(anomalous) / max(len(images), 1):.1f} %",
        "masks": str(sum(bool(image.record.mask) for image in anomalous)),
        "defects": _counted(image.record.defect for image in anomalous),
        "sizes": _counted(facts.size for facts in good),
        "modes": _counted(facts.mode for facts in good),
    }


def _counted(values: Iterable[str]) -> str:
    """The most frequent values with their counts; a count where there is only one says nothing."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return _cell(counts[0][0])
    num_shown = len(counts) if len(counts) <= _SHOWN + 1 else _SHOWN
    shown = ", ".join(f"{_cell(value)} {count}" for value, count in counts[:num_shown])
    return shown + (f", {len(counts) - _SHOWN} more kinds" if len(counts) > num_shown else "")


def _cell(value: str) -> str:
    value = " ".join(value.split())
    short = value if len(value) <= _WIDTH else f"{value[: _WIDTH - 3]}..."
    return short.replace("|", "/")


def write_report(inspection: Inspection, folder: Path, title: str) -> Path:
    """Writes ``data_report.md`` and a contact sheet per object, unless they are there already.

    Args:
        inspection: What was found.
        folder: Where.
        title: Which data these are.

    Returns:
        The page.

    Raises:
        UserError: If the folder cannot be written.
    """
    page = folder / _PAGE
    sheets = _sheet_names({image.record.object for image in inspection.images})
    shown = {
        name: samples([image for image in inspection.images if image.record.object == name])
        for name in sheets
    }
    text = _page(inspection, title, sheets, shown)
    is_there = all((folder / name).is_file() for name in sheets.values())
    if is_there and page.is_file() and page.read_text(encoding="utf-8") == text:
        return page
    for name, file in sheets.items():
        write_bytes(contact_sheet(inspection.root, shown[name]), folder / file)
    write_bytes(text.encode(), page)
    return page


def is_report_of_another(folder: Path, root: Path) -> bool:
    """Whether ``folder`` holds a report of data in another folder than ``root``."""
    page = folder / _PAGE
    return page.is_file() and _place(root) not in page.read_text(encoding="utf-8", errors="replace")


def _place(root: Path) -> str:
    return f"Images in `{root.resolve()}`"


def _sheet_names(objects: Iterable[str]) -> dict[str, str]:
    """A file for each object, whatever signs its name has."""
    names: dict[str, str] = {}
    for name in sorted(objects):
        plain = re.sub(r"[^\w.-]+", "_", name).strip(".") or "object"
        plain = plain.encode()[:_LONGEST].decode(errors="ignore")
        number = sum(file.startswith(f"{plain}.") for file in names.values())
        names[name] = f"{plain}.{number}.jpg" if number else f"{plain}.jpg"
    return names


def _page(
    inspection: Inspection,
    title: str,
    sheets: Mapping[str, str],
    shown: Mapping[str, Sequence[Sequence[ListedImage]]],
) -> str:
    parts = [f"# {title}", f"{_place(inspection.root)}. {inspection.summary}."]
    parts += [table(inspection), "## Findings"]
    parts.append("\n".join(f"* {finding}" for finding in inspection.findings) or "None.")
    for name, file in sheets.items():
        paths = [image.record.path for row in shown[name] for image in row]
        named = ", ".join(f"{number}: `{path}`" for number, path in enumerate(paths, 1))
        parts += [f"## {name}", f"![samples of {name}](<{file}>)", named]
        parts.append(_defects(inspection, name))
    parts.append(f"<!-- {_FORMAT}-{inspection.key} -->")
    return "\n\n".join(parts) + "\n"


def _defects(inspection: Inspection, name: str) -> str:
    """How often the data set says what about an object, by split."""
    said = pd.DataFrame(
        [
            (image.record.defect, LABELS[image.record.label], image.split)
            for image in inspection.images
            if image.record.object == name
        ],
        columns=["defect", "label", "split"],
    )
    counts = said.groupby(["label", "defect"])["split"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=list(inspection.splits), fill_value=0)
    frame = counts.sort_index(ascending=[False, True]).reset_index()
    frame["defect"] = frame["defect"].map(lambda text: " ".join(text.split()).replace("|", "/"))
    return frame.to_markdown(index=False)
