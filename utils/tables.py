"""Result tables in Markdown, CSV and JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.checkpoint import write_bytes
from utils.evaluation import METRICS, num_averaged
from utils.pixel_evaluation import FPR_LIMIT, PIXEL_METRICS
from utils.thresholds import COUNTS, RATES

HEADS = {
    "n": "n",
    "anomalies": "anomalous",
    "prevalence": "prevalence",
    "auroc": "AUROC",
    "aupr": "AUPR",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
}
_FIGURES = (*METRICS, *PIXEL_METRICS)
_PERCENT = ("prevalence", *_FIGURES)


def cell(text: object) -> str:
    """``text`` escaped for a cell of a pipe table."""
    return str(text).replace("|", "\\|")


def spelled(about: Mapping[str, Any]) -> str:
    """As in "seed 3, commit abc"; empty values are left out."""
    return ", ".join(f"{key} {value}" for key, value in about.items() if value not in (None, ""))


def pipe_table(table: pd.DataFrame, spread: pd.DataFrame | None = None) -> str:
    """The result of ``per_object`` in Markdown: percent, one decimal, ``-`` for NaN.

    Args:
        table: The figures.
        spread: The numbers after ``±``, with the same rows; only for the columns that it has.
    """
    shown = pd.DataFrame({"object": [cell(name) for name in table.index]})
    heads = {column: head for column, head in HEADS.items() if column in table}
    for column, head in heads.items():
        spell = _percent if column in _PERCENT else str
        cells = [spell(value) for value in table[column].to_list()]
        if spread is not None and column in spread:
            cells = [f"{a} ± {_percent(b)}" for a, b in zip(cells, spread[column], strict=True)]
        shown[head] = cells
    align = ("left", *("right" for _ in heads))
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)


def _percent(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.1f}"


def caption(title: str, table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """A paragraph below a table: number of images, seed, options, commit."""
    count, left_out = num_averaged(table)
    objects = table.drop(index="mean")
    mean = f"Mean over {count} of {len(objects)} objects"
    if left_out:
        mean += f" (without {', '.join(left_out)}: only one label)"
    images = f"{objects['n'].sum()} images, {objects['anomalies'].sum()} anomalous"
    percent = f"Percent; AUPR of chance = prevalence. {_masks(objects)}"
    return f"{title}: {images}. {mean}. {percent}{spelled(about)}."


def _masks(objects: pd.DataFrame) -> str:
    """On how many masks the pixel figures were computed; empty if there are none."""
    if "masks" not in objects:
        return ""
    counts = ", ".join(f"{name} {count}" for name, count in objects["masks"].items())
    without = int(objects["without_mask"].sum())
    left_out = f"; {without} anomalous images without a mask are left out" if without else ""
    return (
        f"Pixel figures at the size of the maps, AUPRO up to {FPR_LIMIT:.0%} false positives; "
        f"images with a mask: {counts}{left_out}. {objects['regions_drawn'].sum()} regions as they "
        f"were drawn, {objects['regions'].sum()} at this size. "
    )


def write_tables(folder: Path, title: str, table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Writes ``table.md``, ``table.csv`` and ``table.json``.

    Args:
        folder: The folder of the files.
        title: What the table shows.
        table: The result of ``per_object``.
        about: The origin of the figures.

    Returns:
        The text of ``table.md``.
    """
    text = f"{pipe_table(table)}\n\n{caption(title, table, about)}\n"
    csv = table.rename_axis("object").to_csv(float_format="%.4f")
    write_bytes(text.encode(), folder / "table.md")
    write_bytes(csv.encode(), folder / "table.csv")
    document = {"title": title, "about": dict(about), "objects": _rows(table)}
    write_bytes(f"{json.dumps(document, indent=1)}\n".encode(), folder / "table.json")
    return text


def write_threshold_tables(folder: Path, figures: pd.DataFrame, title: str) -> str:
    """Writes ``threshold.md`` and ``threshold.csv``.

    Args:
        folder: The folder of the files.
        figures: The result of ``figures_at_threshold``.
        title: Of which network, and at which threshold.

    Returns:
        The text of ``threshold.md``.
    """
    counts = [name for name in COUNTS if name != "unsure" or figures[name].any()]
    shown = pd.DataFrame({"object": [cell(name) for name in figures.index]})
    for name in counts:
        shown[name.upper() if len(name) == 2 else name] = [str(n) for n in figures[name]]
    for name in (*RATES, "f1"):
        shown[name.replace("_", " ").replace("f1", "F1")] = [
            _with_interval(row, name) for _, row in figures.iterrows()
        ]
    align = ("left", *("right" for _ in shown.columns[1:]))
    table = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    doubt = " Images without a verdict (unsure) count in no share." if "unsure" in counts else ""
    text = (
        f"{table}\n\n{title}. Counts are images, positive is anomalous; shares in percent, with "
        f"95 % Wilson intervals.{doubt}\n"
    )
    csv = figures.rename_axis("object").to_csv(float_format="%.4f")
    write_bytes(text.encode(), folder / "threshold.md")
    write_bytes(csv.encode(), folder / "threshold.csv")
    return text


def remove_threshold_tables(folder: Path) -> None:
    """Removes what :func:`write_threshold_tables` wrote."""
    for name in ("threshold.md", "threshold.csv"):
        (folder / name).unlink(missing_ok=True)


def _with_interval(row: "pd.Series[Any]", name: str) -> str:
    if pd.isna(row[name]) or f"{name}_low" not in row:
        return _percent(row[name])
    return f"{row[name]:.1f} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"


def write_seed_tables(
    stem: Path, title: str, tables: Mapping[int, pd.DataFrame], about: Mapping[str, Any]
) -> str:
    """Writes ``<stem>.md``, ``.csv`` and ``.json``: mean and spread over seeds.

    The spread is the standard deviation over the seeds, with n - 1 in the denominator. In the row
    ``mean`` it is the standard deviation of the seeds' means, not over objects.

    Args:
        stem: Path of the files without their suffix.
        title: What the table shows.
        tables: For each seed the result of ``per_object``, of the same images.
        about: The origin of the figures.

    Returns:
        The text of ``<stem>.md``.
    """
    first, *_ = tables.values()
    figures = [name for name in first if name in _FIGURES]
    seeds = pd.concat({seed: table[figures] for seed, table in tables.items()})
    means, spreads = (seeds.groupby(level=1, sort=False).agg(f) for f in ("mean", "std"))
    table = first.drop(columns=figures).join(means)
    over = f"Mean ± standard deviation (n - 1) over {len(tables)} seeds."
    text = f"{pipe_table(table, spreads)}\n\n{caption(title, table, about)} {over}\n"
    summary = table.join(spreads.add_suffix("_spread"))
    csv = summary.rename_axis("object").to_csv(float_format="%.4f")
    write_bytes(text.encode(), stem.with_suffix(".md"))
    write_bytes(csv.encode(), stem.with_suffix(".csv"))
    document = {
        "title": title,
        "about": dict(about),
        "objects": _rows(summary),
        "seeds": [{"seed": seed, "objects": _rows(table)} for seed, table in tables.items()],
    }
    write_bytes(f"{json.dumps(document, indent=1)}\n".encode(), stem.with_suffix(".json"))
    return text


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        table.rename_axis("object").reset_index().to_json(orient="records")
    )
    return rows
