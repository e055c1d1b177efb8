"""One page about a tested network: tables, curves, its hardest images, and where it comes from."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from jobs.reporting.plot import Plot
from utils.calibration import calibration_error, reliability
from utils.checkpoint import write_bytes
from utils.tables import HEADS
from utils.thresholds import ANOMALOUS, UNSURE, figures_at_threshold
from utils.verdicts import EVERY, Verdicts

NUM_HARDEST = 4  # images of each label
_LABELS = ("normal", "anomalous")
_BINS = np.linspace(0, 1, 26)


@dataclass(frozen=True)
class Picture:
    """A test image and where the network looks.

    Attributes:
        row: Its number among the scores.
        image: RGB bytes, ``(h, w, 3)``.
        heat: The image under its heat map, in the same form; ``None``: it has none.
    """

    row: int
    image: NDArray[np.uint8]
    heat: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Evidence:
    """What a report shows besides scores and tables.

    Attributes:
        pictures: The hardest images.
        verdicts: Threshold and calibration; ``None``: there are none.
        tsne: A place in the plane for each test image, ``(N, 2)``; ``None``: not asked for.
        options: The options of the run, as YAML.
    """

    pictures: Sequence[Picture] = ()
    verdicts: Verdicts | None = None
    tsne: NDArray[np.float32] | None = None
    options: str = ""


def hardest(scores: pd.DataFrame) -> list[int]:
    """Rows of the anomalous images of lowest score, then of the normal ones of highest score."""
    rows = scores.reset_index(drop=True)
    low = rows[rows["label"] == 1].nsmallest(NUM_HARDEST, "score").index
    high = rows[rows["label"] == 0].nlargest(NUM_HARDEST, "score").index
    return [int(i) for i in (*low, *high)]


def write_report(
    folder: Path,
    title: str,
    scores: pd.DataFrame,
    table: pd.DataFrame,
    about: Mapping[str, Any],
    evidence: Evidence,
) -> None:
    """Writes ``report.html``: one file that loads nothing; sections without data are left out.

    Args:
        folder: Of the file; losses are read from ``log.csv`` in it.
        title: What was scored, and what it was told.
        scores: One row per image, with a column ``verdict`` where there is a threshold.
        table: The result of ``per_object``.
        about: Where the figures come from.
        evidence: What else is shown.
    """
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    sections = [
        ("Results", [_table(table), _note("Percent. AUPR of chance is the prevalence.")]),
        ("At the threshold", _threshold(scores, evidence.verdicts)),
        ("Curves", _plots(_curves(scores, evidence, folder / "log.csv"))),
        ("The hardest images", _pictures(scores, evidence.pictures)),
        ("Features", _plots(_tsne(scores, evidence.tsne))),
        ("Where this comes from", _origin(about, evidence.options)),
    ]
    body = "".join(
        f"<section><h2>{name}</h2>{''.join(parts)}</section>" for name, parts in sections if parts
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{css}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )
    write_bytes(page.encode(), folder / "report.html")


def _note(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(table: pd.DataFrame) -> str:
    """Counts as they are, other figures with one decimal."""
    shown = table.rename_axis(None).rename(columns=_head)
    html = shown.to_html(float_format="{:.1f}".format, na_rep="-", border=0, justify="unset")
    return f'<div class="wide">{html}</div>'


def _head(name: str) -> str:
    is_short = len(name) == 2  # TP, FP, FN, TN, F1
    return name.upper() if is_short else HEADS.get(name, name.replace("_", " "))


def _threshold(scores: pd.DataFrame, verdicts: Verdicts | None) -> list[str]:
    if "verdict" not in scores:
        return []
    figures = figures_at_threshold(scores)
    figures = figures[[name for name in figures if not str(name).endswith(("_low", "_high"))]]
    if not figures["unsure"].any():
        figures = figures.drop(columns="unsure")
    note = (
        "Counts are images, positive is anomalous; shares in percent. threshold.md has intervals."
    )
    return [_table(figures), _note(f"{verdicts}. {note}" if verdicts else note)]


def _plots(plots: Iterable[Plot]) -> list[str]:
    figures = "".join(plot.html() for plot in plots)
    return [f'<div class="plots">{figures}</div>'] if figures else []


def _curves(scores: pd.DataFrame, evidence: Evidence, log: Path) -> Iterable[Plot]:
    groups = [*scores.groupby("object", sort=True)]
    groups = [(str(name), group) for name, group in groups if group["label"].nunique() == 2]
    if groups:
        roc = Plot("ROC", "false-alarm rate", "recall")
        curve = Plot("Precision and recall", "recall", "precision")
        for i, (name, group) in enumerate(groups):
            false_alarms, recall, _ = roc_curve(group["label"], group["score"])
            roc.line(false_alarms, recall, name, i)
            precision, recall, _ = precision_recall_curve(
                group["label"], group["score"], drop_intermediate=True
            )
            curve.line(recall, precision, name, i)
        yield roc
        yield curve
    yield _histogram(scores, evidence.verdicts)
    if evidence.verdicts is not None and scores["label"].nunique() == 2:
        yield _calibration(scores, evidence.verdicts)
    with suppress(OSError, ValueError):  # a log that is missing or damaged
        if "loss" in (losses := pd.read_csv(log)) and len(losses):
            yield _losses(losses)


def _histogram(scores: pd.DataFrame, verdicts: Verdicts | None) -> Plot:
    shares = {
        name: np.histogram(group, _BINS)[0] / len(group)
        for label, name in enumerate(_LABELS)
        if len(group := scores.loc[scores["label"] == label, "score"])
    }
    top = max(float(share.max()) for share in shares.values())
    plot = Plot("Scores", "score", "share of the images of a label", y_range=(0.0, top))
    for name, share in shares.items():
        plot.bars(_BINS.tolist(), share.tolist(), name, _LABELS.index(name))
    if verdicts is not None:
        value = verdicts.threshold_of(EVERY).value
        plot.line([value, value], [0, top], f"threshold {value:.3g}", 7, dash=True)
    return plot


def _calibration(scores: pd.DataFrame, verdicts: Verdicts) -> Plot:
    label = scores["label"].to_numpy(int)
    plot = Plot("Calibration on the test images", "predicted probability", "share of anomalous")
    plot.line([0, 1], [0, 1], "ideal", 7, dash=True)
    raw = scores["score"].to_numpy(float)
    for i, (name, found) in enumerate(
        {"score": raw, "probability": verdicts.probability(raw)}.items()
    ):
        error = 100 * calibration_error(found, label)
        bins = reliability(found, label)
        points = (bins["probability"].tolist(), bins["anomalous"].tolist())
        plot.line(*points, f"{name}, error {error:.1f} %", i)
    return plot


def _losses(log: pd.DataFrame) -> Plot:
    columns = [name for name in ("loss", "val_loss") if name in log]
    top = float(np.nanmax(log[columns].to_numpy(float)))
    last = float(log["epoch"].max())
    plot = Plot("Loss", "epoch", "loss", x_range=(min(1.0, last), last), y_range=(0.0, top))
    for i, name in enumerate(columns):
        plot.line(log["epoch"].tolist(), log[name].tolist(), "validation" if i else "training", i)
    return plot


def _tsne(scores: pd.DataFrame, places: NDArray[np.float32] | None) -> Iterable[Plot]:
    if places is None:
        return
    x, y = places.T
    for column in ("label", "object"):
        plot = Plot(
            f"t-SNE of the features, by {column}",
            "",
            "",
            x_range=(float(x.min()), float(x.max())),
            y_range=(float(y.min()), float(y.max())),
        )
        for i, (name, rows) in enumerate(scores.reset_index(drop=True).groupby(column, sort=True)):
            shown = _LABELS[int(str(name))] if column == "label" else str(name)
            plot.dots(x[rows.index], y[rows.index], shown, i)
        yield plot


def _pictures(scores: pd.DataFrame, pictures: Sequence[Picture]) -> list[str]:
    if not pictures:
        return []
    figures = []
    for picture in pictures:
        row = scores.iloc[picture.row]
        parts = [picture.image, *([] if picture.heat is None else [picture.heat])]
        images = "".join(f'<img alt="" src="{_data_url(part)}">' for part in parts)
        figures.append(
            f"<figure><figcaption>{_LABELS[row['label']]}, score {row['score']:.3f}{_judged(row)}"
            f"<small>{escape(str(row['path']))}</small></figcaption>{images}</figure>"
        )
    note = (
        "The anomalous images of lowest score and the normal ones of highest score; below each "
        "where the network sees an anomaly, on one scale."
    )
    return [_note(note), f'<div class="pictures">{"".join(figures)}</div>']


def _judged(row: "pd.Series[Any]") -> str:
    if "verdict" not in row:
        return ""
    if row["verdict"] == UNSURE:
        return ": unsure"
    if (row["verdict"] == ANOMALOUS) == bool(row["label"]):
        return ": right"
    return ": missed" if row["label"] else ": false alarm"


def _data_url(pixels: NDArray[np.uint8]) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def _origin(about: Mapping[str, Any], options: str) -> list[str]:
    facts = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in about.items()
        if value not in (None, "")
    )
    details = f"<details><summary>All options</summary><pre>{escape(options)}</pre></details>"
    return [f"<dl>{facts}</dl>", details if options else ""]
