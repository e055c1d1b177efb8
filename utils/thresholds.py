"""The threshold of a score: how it is chosen, how sure it is, and what comes out at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

Scores = NDArray[np.float64]
Counts = NDArray[np.int64]
ANOMALOUS, NORMAL, UNSURE = "anomalous", "normal", "unsure"
COUNTS = ("tp", "fp", "fn", "tn", "unsure")
RATES = {"recall": ("tp", "fn"), "false_alarms": ("fp", "tn"), "precision": ("tp", "fp")}
_RESAMPLES, _LARGEST = 1000, 2_000_000


@dataclass(frozen=True)
class Threshold:
    """A threshold and the images that it rests on. An image is anomalous if its score reaches it.

    Attributes:
        value: The score.
        rule: The rule that chose it, a key of :data:`RULES` or ``value``.
        limit: The number of the rule; ``None``: it has none.
        num_normal: Number of normal images that it was chosen on.
        num_anomalous: Number of anomalous ones.
        num_false_alarms: How many of the normal ones reach it.
        num_misses: How many of the anomalous ones do not.
        interval: 95 % bootstrap interval of ``value``; ``None``: it was not chosen on images.
        unsure: The band ``[low, high)`` of scores whose verdict is :data:`UNSURE`; ``None``: none.
    """

    value: float
    rule: str
    limit: float | None
    num_normal: int
    num_anomalous: int
    num_false_alarms: int
    num_misses: int
    interval: tuple[float, float] | None = None
    unsure: tuple[float, float] | None = None

    def __str__(self) -> str:
        """As in "0.412 (f1_max; 24 normal images, 1 false alarm; 9 anomalous, 2 missed ...)"."""
        limit = "" if self.limit is None or self.rule == "value" else f" {self.limit:g}"
        parts = [
            f"{self.rule}{limit}",
            f"{self.num_normal} normal images, {self.num_false_alarms} false alarms",
            f"{self.num_anomalous} anomalous, {self.num_misses} missed",
        ]
        if self.interval is not None:
            parts.append("95 % interval {:.3g} to {:.3g}".format(*self.interval))
        if self.unsure is not None:
            parts.append("unsure from {:.3g} to {:.3g}".format(*self.unsure))
        return f"{self.value:.3g} ({'; '.join(parts)})"


def _f1_max(false_alarms: Counts, misses: Counts, limit: float) -> Counts:
    """The highest F1; of several the lowest threshold, which misses least."""
    hits = misses[:, -1:] - misses
    return np.argmax(2 * hits / (misses[:, -1:] + hits + false_alarms), axis=1)


def _max_false_alarms(false_alarms: Counts, misses: Counts, limit: float) -> Counts:
    """The lowest threshold at which no more than this share of the normal images reaches it."""
    return np.argmax(false_alarms / false_alarms[:, :1] <= limit, axis=1)


def _max_misses(false_alarms: Counts, misses: Counts, limit: float) -> Counts:
    """The highest threshold at which no more than this share of the anomalous ones does not."""
    is_fine = misses / misses[:, -1:] <= limit
    return is_fine.shape[1] - 1 - np.argmax(is_fine[:, ::-1], axis=1)


# From the numbers of false alarms and misses, shape ``(R, K + 1)``, to a place for each of R lists:
# at place k, the k lowest of K scores do not reach the threshold.
RULES: Mapping[str, Callable[[Counts, Counts, float], Counts]] = {
    "f1_max": _f1_max,
    "max_false_alarms": _max_false_alarms,
    "max_misses": _max_misses,
}
NEEDS_NORMAL, NEEDS_ANOMALOUS = ("f1_max", "max_false_alarms"), ("f1_max", "max_misses")


def find_threshold(
    normal: Scores,
    anomalous: Scores,
    rule: str,
    *,
    limit: float | None = None,
    unsure: float | tuple[float, float] = 0.0,
    seed: int = 0,
) -> Threshold:
    """The threshold that a rule chooses on images of known label.

    Args:
        normal: Scores of the normal images.
        anomalous: Scores of the anomalous ones.
        rule: ``f1_max``, ``max_false_alarms``, ``max_misses``, or ``value``: ``limit`` itself.
        limit: The largest share of false alarms or misses; nothing to ``f1_max``.
        unsure: The band of doubt ``(low, high)``, or the largest share of the images that may lie
            in it; it then reaches half as many images to each side, or more where ties allow none
            on the other; 0: no band.
        seed: Of the bootstrap: 1000 times as many normal and as many anomalous images are drawn
            with replacement, and the interval reaches from the 2.5th to the 97.5th percentile.

    Raises:
        ValueError: If the rule needs images of a label that there are none of.
    """
    is_missing = (rule in NEEDS_NORMAL and not len(normal)) or (
        rule in NEEDS_ANOMALOUS and not len(anomalous)
    )
    if is_missing:
        raise ValueError(f"{rule}: {len(normal)} normal and {len(anomalous)} anomalous images")
    number = 0.0 if limit is None else limit
    value, interval = number, None
    if rule != "value":
        value = float(_choose(normal, anomalous, rule, number)[0])
        draws = _choose(normal, anomalous, rule, number, np.random.default_rng(seed))
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        interval = (low, high)
    if isinstance(unsure, float):
        band = _band(np.concatenate([normal, anomalous]), value, unsure) if unsure else None
    else:
        band = (min(unsure[0], value), max(unsure[1], value))
    return Threshold(
        value=value,
        rule=rule,
        limit=limit,
        num_normal=len(normal),
        num_anomalous=len(anomalous),
        num_false_alarms=int((normal >= value).sum()),
        num_misses=int((anomalous < value).sum()),
        interval=interval,
        unsure=band,
    )


def _choose(
    normal: Scores,
    anomalous: Scores,
    rule: str,
    limit: float,
    random: np.random.Generator | None = None,
) -> Scores:
    """The threshold of the images or, with ``random``, of each of 1000 draws of as many."""
    scores = np.unique(np.concatenate([normal, anomalous]))
    one, other = (
        np.bincount(np.searchsorted(scores, part), minlength=len(scores))[None]
        for part in (normal, anomalous)
    )
    if random is None:
        return _place(scores, (one, other), rule, limit)
    step = max(_LARGEST // len(scores), 1)  # of the 1000, so that memory holds their counts
    return np.concatenate(
        [
            _place(scores, (_drawn(one, size, random), _drawn(other, size, random)), rule, limit)
            for start in range(0, _RESAMPLES, step)
            if (size := min(step, _RESAMPLES - start))
        ]
    )


def _drawn(counts: Counts, size: int, random: np.random.Generator) -> Counts:
    """How often each score comes up in ``size`` draws of as many images, with replacement."""
    total = counts.sum()
    return random.multinomial(total, counts[0] / max(total, 1), size)


def _place(scores: Scores, counts: tuple[Counts, Counts], rule: str, limit: float) -> Scores:
    """The thresholds of R lists: how many normal and anomalous images have each score, ``(R, K)``.

    A threshold lies midway between two scores of its list, so that a score that differs by a
    rounding error gets the same verdict. If all reach it, it is the lowest of them; if none does,
    it is the next number above the highest.
    """
    normal_below, misses = (np.pad(part.cumsum(axis=1), ((0, 0), (1, 0))) for part in counts)
    places = RULES[rule](normal_below[:, -1:] - normal_below, misses, limit)
    is_there, lists = counts[0] + counts[1] > 0, np.arange(len(places))
    steps = np.arange(len(scores))
    below = np.maximum.accumulate(np.where(is_there, steps, -1), axis=1)
    above = np.minimum.accumulate(np.where(is_there, steps, len(scores))[:, ::-1], axis=1)[:, ::-1]
    lower = np.pad(below, ((0, 0), (1, 0)), constant_values=-1)[lists, places]
    upper = np.pad(above, ((0, 0), (0, 1)), constant_values=len(scores))[lists, places]
    low, high = scores[lower], scores[np.minimum(upper, len(scores) - 1)]
    between = np.where(lower < 0, high, _middle(low, high))
    return np.where(upper == len(scores), np.nextafter(low, np.inf), between)


def _middle(low: Scores, high: Scores) -> Scores:
    middle = (low + high) / 2
    return np.where(middle > low, middle, high)  # between neighboring numbers there is none


def _band(scores: Scores, threshold: float, share: float) -> tuple[float, float]:
    """The widest band around a threshold that holds no more than a share of the scores."""
    if not len(scores):
        return threshold, threshold
    most = int(np.flatnonzero(np.arange(len(scores) + 1) / len(scores) <= share)[-1])
    ordered, different = np.sort(scores), np.unique(scores)
    edges = np.append(different[:1], _middle(different[:-1], different[1:]))
    edges = np.append(edges, np.nextafter(different[-1], np.inf))
    place = np.searchsorted(ordered, threshold)
    below = np.append(edges[edges < threshold], threshold)
    above = np.append(threshold, edges[edges > threshold])
    num_below = place - np.searchsorted(ordered, below)
    num_above = np.searchsorted(ordered, above) - place
    room = most - num_above[num_above <= most // 2].max()
    low, num_low = below[num_below <= room][0], num_below[num_below <= room][0]
    return float(low), float(above[num_above <= most - num_low][-1])


def figures_at_threshold(rows: pd.DataFrame) -> pd.DataFrame:
    """What comes out at the threshold, for each object and over all images.

    Args:
        rows: Columns ``object``, ``label`` and ``verdict``, one row per image.

    Returns:
        Index: the objects in alphabetical order, then ``all``. Columns: the counts of
        :data:`COUNTS` ("positive" is anomalous; images with the verdict :data:`UNSURE` are in the
        last one alone), the shares of :data:`RATES` in percent, each with ``_low`` and ``_high``
        of its 95 % Wilson interval, and ``f1`` in percent. NaN where a share is 0 / 0.
    """
    groups = [*rows.groupby("object", sort=True), ("all", rows)]
    table = pd.DataFrame([_figures(group) for _, group in groups])
    return table.set_index(pd.Index([str(name) for name, _ in groups]))


def _figures(rows: pd.DataFrame) -> dict[str, float]:
    label, verdict = rows["label"] == 1, rows["verdict"]
    counts = {
        "tp": int((label & (verdict == ANOMALOUS)).sum()),
        "fp": int((~label & (verdict == ANOMALOUS)).sum()),
        "fn": int((label & (verdict == NORMAL)).sum()),
        "tn": int((~label & (verdict == NORMAL)).sum()),
        "unsure": int((verdict == UNSURE).sum()),
    }
    figures: dict[str, float] = dict(counts)
    for name, (part, rest) in RATES.items():
        whole = counts[part] + counts[rest]
        low, high = wilson(counts[part], whole)
        figures[name] = 100 * counts[part] / whole if whole else float("nan")
        figures |= {f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    whole = 2 * counts["tp"] + counts["fp"] + counts["fn"]
    figures["f1"] = 200 * counts["tp"] / whole if whole else float("nan")
    return figures


def wilson(part: int, whole: int) -> tuple[float, float]:
    """95 % interval of a share; NaN for 0 / 0.

    Source:
        Wilson 1927, as ``scipy.stats`` computes it.
    """
    if not whole:
        return float("nan"), float("nan")
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
