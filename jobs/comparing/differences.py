"""By how much methods differ from one of them, with paired bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from utils.tables import cell

RESAMPLES, LEVEL = 2_000, 0.95
_CAPTION = (
    "Mean ± standard deviation over the seeds, in percent, mean over objects; then the difference "
    "from {against}, in percent points, with its "
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


def weighted_mean(_label: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of each resample, of the images that have a value; as :func:`weighted_auroc`."""
    known = ~np.isnan(values)
    total: np.ndarray = weights[:, known] @ values[known] / weights[:, known].sum(1)
    return total


# For each figure its column in the scores, its head in the table, and how it is computed.
_FIGURES: Mapping[str, tuple[str, str, _Figure]] = {
    "auroc": ("score", "AUROC", weighted_auroc),
    "aupr": ("score", "AUPR", weighted_aupr),
    "pointing": ("pointing", "pointing game", weighted_mean),
    "pointing_near": ("pointing_near", "within 15 px", weighted_mean),
    "heat_in_mask": ("heat_in_mask", "heat in mask", weighted_mean),
}
_SUFFIXES = ("_mean", "_spread", "", "_low", "_high")


def difference(
    method: Sequence[pd.DataFrame], against: Sequence[pd.DataFrame]
) -> dict[str, tuple[float, float, float]]:
    """Difference of two methods on the same images, and its interval, in percent points.

    Args:
        method: Scores of the images, as ``score_images`` returns them, for each seed; with the
            figures of :func:`jobs.comparing.localizing.located`, if they are compared, too.
        against: The same of the method to compare with; a single one stands for all seeds.

    Returns:
        Difference, lower and upper bound of each figure's mean over objects; NaN where one of the
        methods has none.
    """
    num_seeds = max(len(method), len(against))
    random = np.random.default_rng(0)
    drawn = random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    seeds = np.vstack([np.ones(num_seeds), drawn]) / num_seeds
    figures = {name: figure for name, figure in _FIGURES.items() if figure[0] in method[0]}
    of_objects: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for _, group in method[0].groupby("object", sort=True):
        label = group["label"].to_numpy()
        if len(set(label)) < 2:
            continue
        weights = _weights(label, random)
        for name, (column, _, figure) in figures.items():
            if group[column].notna().any():
                gaps = [
                    figure(label, _values(method[i % len(method)], column, group), weights)
                    - figure(label, _values(against[i % len(against)], column, group), weights)
                    for i in range(num_seeds)
                ]
                of_objects[name].append(sum(seeds.T * np.array(gaps)))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    result = {}
    for name, parts in of_objects.items():
        values = np.mean(parts, axis=0) if parts else np.full(RESAMPLES + 1, np.nan)
        result[name] = (100 * values[0], *(100 * np.quantile(values[1:], tails)))
    return result


def _of_seeds(scores: Sequence[pd.DataFrame]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (n - 1) of each figure over the seeds, in percent."""
    result = {}
    for name, (column, _, figure) in _FIGURES.items():
        values = []
        for frame in scores if column in scores[0] else ():
            groups = [g for _, g in frame.groupby("object") if g["label"].nunique() == 2]
            parts = [
                figure(g["label"].to_numpy(), g[column].to_numpy(), np.ones((1, len(g))))[0]
                for g in groups
                if g[column].notna().any()
            ]
            values.append(100 * np.mean(parts) if parts else np.nan)
        if values:
            spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
            result[name] = (float(np.mean(values)), float(spread))
    return result


def _weights(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How often each image is drawn: once each, then in each resample; ``(1 + R, n)``."""
    weights = np.ones((RESAMPLES + 1, len(label)))
    for value in (0, 1):
        images = np.flatnonzero(label == value)
        share = np.full(len(images), 1 / len(images))
        weights[1:, images] = random.multinomial(len(images), share, RESAMPLES)
    return weights


def _values(scores: pd.DataFrame, column: str, group: pd.DataFrame) -> np.ndarray:
    return scores.set_index("path")[column].loc[group["path"]].to_numpy()


def differences(scores: Mapping[str, Sequence[pd.DataFrame]], against: str) -> pd.DataFrame:
    """A row for each method: of each figure mean, spread over seeds, and difference with interval.

    Args:
        scores: For each method its scores for each seed; methods without scores have no row.
        against: The method to compare with; it has no differences.

    Returns:
        Columns ``<figure>_mean``, ``<figure>_spread``, ``<figure>``, ``<figure>_low``,
        ``<figure>_high``.
    """
    rows = {}
    nothing = (np.nan,) * 3
    for title, own in scores.items():
        if own:
            figures = difference(own, scores[against]) if title != against else {}
            rows[title] = {
                f"{name}{suffix}": value
                for name, mean in _of_seeds(own).items()
                for suffix, value in zip(
                    _SUFFIXES, (*mean, *figures.get(name, nothing)), strict=True
                )
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def differences_markdown(table: pd.DataFrame, against: str, num_seeds: int) -> str:
    """The result of :func:`differences` as a pipe table; bold: the interval excludes zero."""
    heads = {name: head for name, (_, head, _) in _FIGURES.items() if f"{name}_mean" in table}
    body = [
        [cell(title), *(_spelled(*(row[f"{name}{s}"] for s in _SUFFIXES)) for name in heads)]
        for title, row in table.iterrows()
    ]
    shown = pd.DataFrame(body, columns=["method", *heads.values()])
    pipes = shown.to_markdown(
        index=False, disable_numparse=True, colalign=("left", *("right" for _ in heads))
    )
    note = _CAPTION.format(against=cell(against), seeds=num_seeds)
    return f"{pipes}\n\n{note} Bold: the interval does not contain zero.\n"


def _spelled(mean: float, spread: float, value: float, low: float, high: float) -> str:
    """As in "63.3 ± 3.1, **+8.2** [+1.0, +15.4]"; "-" where there is no figure."""
    if np.isnan(mean):
        return "-"
    text = f"{mean:.1f}" + ("" if np.isnan(spread) else f" ± {spread:.1f}")
    if np.isnan(value):
        return text
    gap = f"**{value:+.1f}**" if low * high > 0 else f"{value:+.1f}"
    return f"{text}, {gap} [{low:+.1f}, {high:+.1f}]"
