"""By how much methods differ from one of them, with paired bootstrap intervals."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from utils.evaluation import METRICS
from utils.tables import cell

RESAMPLES, LEVEL = 2_000, 0.95
_CAPTION = (
    "Difference from {against}, in percent points of the mean over objects, with its "
    f"{LEVEL:.0%} interval: paired bootstrap ({RESAMPLES} resamples) over images, of each object "
    "and label, and over seeds ({seeds})."
)
_Figure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def weighted_auroc(label: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of each resample, in ``[0, 1]``: ``(R,)``.

    Args:
        label: 0 or 1, shape ``(n,)``.
        score: Higher is more anomalous, shape ``(n,)``.
        weights: How often each resample holds each image, shape ``(R, n)``.

    Source:
        The Mann-Whitney statistic: the share of pairs in order, ties counting half.
    """
    positive, negative = score[label == 1][:, None], score[label == 0][None]
    pairs = (positive > negative) + 0.5 * (positive == negative)
    up, down = weights[:, label == 1], weights[:, label == 0]
    return ((up @ pairs) * down).sum(1) / (up.sum(1) * down.sum(1))


def weighted_aupr(label: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of each resample, in ``[0, 1]``; as :func:`weighted_auroc`."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of the images with one score
    hits = np.cumsum(weights[:, order] * label[order], axis=1)[:, last]
    images = np.cumsum(weights[:, order], axis=1)[:, last]
    precision = hits / np.maximum(images, 1)
    return (np.diff(hits, axis=1, prepend=0) * precision).sum(1) / hits[:, -1]


_FIGURES: Mapping[str, _Figure] = dict(zip(METRICS, (weighted_auroc, weighted_aupr), strict=True))


def difference(
    method: Sequence[pd.DataFrame], against: Sequence[pd.DataFrame]
) -> dict[str, tuple[float, float, float]]:
    """Difference of two methods on the same images, and its interval, in percent points.

    Args:
        method: Scores of the images, as ``score_images`` returns them, for each seed.
        against: The same of the method to compare with; a single one stands for all seeds.

    Returns:
        Difference, lower and upper bound of each metric's mean over objects; NaN if none of them
        has both labels.
    """
    num_seeds = max(len(method), len(against))
    random = np.random.default_rng(0)
    drawn = random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    seeds = np.vstack([np.ones(num_seeds), drawn]) / num_seeds
    total = {name: np.zeros(RESAMPLES + 1) for name in METRICS}
    objects = [group for _, group in method[0].groupby("object", sort=True)]
    objects = [group for group in objects if group["label"].nunique() == 2]
    if not objects:
        return dict.fromkeys(METRICS, (math.nan,) * 3)
    for group in objects:
        label, weights = group["label"].to_numpy(), _weights(group["label"].to_numpy(), random)
        for i in range(num_seeds):
            for name, figure in _FIGURES.items():
                values = [
                    figure(label, _scores(part[i % len(part)], group), weights)
                    for part in (method, against)
                ]
                total[name] += seeds[:, i] * (values[0] - values[1]) / len(objects)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: (100 * values[0], *(100 * np.quantile(values[1:], tails)))
        for name, values in total.items()
    }


def _weights(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How often each image is drawn: once each, then in each resample; ``(1 + R, n)``."""
    weights = np.ones((RESAMPLES + 1, len(label)))
    for value in (0, 1):
        images = np.flatnonzero(label == value)
        share = np.full(len(images), 1 / len(images))
        weights[1:, images] = random.multinomial(len(images), share, RESAMPLES)
    return weights


def _scores(scores: pd.DataFrame, group: pd.DataFrame) -> np.ndarray:
    return scores.set_index("path")["score"].loc[group["path"]].to_numpy()


def differences(scores: Mapping[str, Sequence[pd.DataFrame]], against: str) -> pd.DataFrame:
    """A row for each method but ``against``: ``<metric>``, ``<metric>_low``, ``<metric>_high``.

    Args:
        scores: For each method its scores for each seed; methods without scores have no row.
        against: The method to compare with.
    """
    rows = {}
    for title, own in scores.items():
        if title != against and own:
            figures = difference(own, scores[against])
            rows[title] = {
                f"{name}{suffix}": value
                for name, values in figures.items()
                for suffix, value in zip(("", "_low", "_high"), values, strict=True)
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def differences_markdown(table: pd.DataFrame, against: str, num_seeds: int) -> str:
    """The result of :func:`differences` as a pipe table; bold: the interval excludes zero."""
    heads = {"auroc": "AUROC", "aupr": "AUPR"}
    body = [
        [cell(title), *(_spelled(*(row[f"{n}{s}"] for s in ("", "_low", "_high"))) for n in heads)]
        for title, row in table.iterrows()
    ]
    shown = pd.DataFrame(body, columns=["method", *heads.values()])
    pipes = shown.to_markdown(
        index=False, disable_numparse=True, colalign=("left", "right", "right")
    )
    note = _CAPTION.format(against=cell(against), seeds=num_seeds)
    return f"{pipes}\n\n{note} Bold: the interval does not contain zero.\n"


def _spelled(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:+.1f}"
    return (
        f"**{text}** [{low:+.1f}, {high:+.1f}]"
        if low * high > 0
        else f"{text} [{low:+.1f}, {high:+.1f}]"
    )
