"""Tables for people and for programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.checkpoint import write_bytes
from utils.evaluation import num_averaged

_HEADS = {
    "n": "n",
    "anomalies": "anomalous",
    "prevalence": "prevalence",
    "auroc": "AUROC",
    "aupr": "AUPR",
}
_PERCENT = ("prevalence", "auroc", "aupr")


def pipe_table(table: pd.DataFrame) -> str:
    """The result of ``per_object`` in Markdown: percent, one decimal, ``-`` where there is none."""
    shown = pd.DataFrame({"object": table.index})
    for column, head in _HEADS.items():
        spell = _percent if column in _PERCENT else str
        shown[head] = [spell(value) for value in table[column].to_list()]
    align = ("left", *("right" for _ in _HEADS))
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)


def _percent(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.1f}"


def caption(title: str, table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """One paragraph that says what a table shows: images, seed, options, commit."""
    count, left_out = num_averaged(table)
    objects = table.drop(index="mean")
    mean = f"Mean over {count} of {len(objects)} objects"
    if left_out:
        mean += f" (a single label only: {', '.join(left_out)})"
    facts = ", ".join(f"{key} {value}" for key, value in about.items() if value not in (None, ""))
    images = f"{objects['n'].sum()} images, {objects['anomalies'].sum()} anomalous"
    return f"{title}: {images}. {mean}. Percent; AUPR of chance = prevalence. {facts}."


def write_tables(folder: Path, title: str, table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Writes ``table.md``, ``table.csv`` and ``table.json``.

    Args:
        folder: Where.
        title: What is shown.
        table: The result of ``per_object``.
        about: Where the figures come from.

    Returns:
        The text of ``table.md``.
    """
    text = f"{pipe_table(table)}\n\n{caption(title, table, about)}\n"
    csv = table.rename_axis("object").to_csv(float_format="%.4f")
    write_bytes(text.encode(), folder / "table.md")
    write_bytes(csv.encode(), folder / "table.csv")
    rows = json.loads(table.rename_axis("object").reset_index().to_json(orient="records"))
    document = {"title": title, "about": dict(about), "objects": rows}
    write_bytes(f"{json.dumps(document, indent=1)}\n".encode(), folder / "table.json")
    return text
