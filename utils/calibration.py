"""From scores to probabilities that hold: one temperature, and how well they are calibrated."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

Scores = NDArray[np.float64]
# At 0.5 the highest score below 1 that float32 can hold still gives a float64 below 1.
TEMPERATURES = (0.5, 100.0)
_BINS = 10
_SPREAD = 0.5  # of the logarithm of a temperature, before any image is seen


def logits(scores: Scores) -> Scores:
    """``log(p / (1 - p))`` of scores in ``[0, 1]``; 0 and 1 as if half a float32 step inside."""
    inside = np.clip(scores, 2.0**-150, 1 - 2.0**-25)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def probabilities(scores: Scores, temperature: float) -> Scores:
    """Calibrated probabilities of "anomalous"; in the same order as the scores."""
    return np.asarray(expit(logits(scores) / temperature))


def fit_temperature(scores: Scores, label: NDArray[np.int64]) -> float:
    """The most probable temperature, in :data:`TEMPERATURES`.

    Source:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599, sec. 4.2: the lowest cross-entropy.
        Departure: before the images are seen, the logarithm of the temperature is normal around 0
        with a standard deviation of 0.5. Next to hundreds of images this counts for nothing; a few
        that are parted without a mistake do not make a network certain.

    Args:
        scores: Probabilities, shape ``(N,)``.
        label: 0 or 1, shape ``(N,)``; both must occur.
    """
    signed = np.where(label == 1, 1, -1) * logits(scores)

    def loss(log_temperature: float) -> float:
        cross_entropy = -log_expit(signed / np.exp(log_temperature)).sum()
        return float(cross_entropy + 0.5 * (log_temperature / _SPREAD) ** 2)

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def reliability(probability: Scores, label: NDArray[np.int64]) -> pd.DataFrame:
    """A reliability diagram: ten bins of equal width, without the empty ones.

    Returns:
        Columns ``n`` (images), ``probability`` (their mean) and ``anomalous`` (share of them).
    """
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    rows = pd.DataFrame({"bin": bins, "probability": probability, "anomalous": label})
    groups = rows.groupby("bin")
    return groups.mean().assign(n=groups.size())[["n", "probability", "anomalous"]]


def calibration_error(probability: Scores, label: NDArray[np.int64]) -> float:
    """Expected calibration error of the probability of "anomalous", in ``[0, 1]``.

    Source:
        Naeini et al. 2015; Guo et al. 2017, eq. 3, with the bins of :func:`reliability`.
    """
    bins = reliability(probability, label)
    gaps = (bins["probability"] - bins["anomalous"]).abs()
    return float((gaps * bins["n"]).sum() / len(label))
