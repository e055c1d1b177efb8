"""From scores to verdicts: what a trained model is stored with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.calibration import calibration_error, fit_temperature, probabilities
from utils.checkpoint import read_about
from utils.thresholds import ANOMALOUS, NORMAL, UNSURE, Threshold, find_threshold

Scores = NDArray[np.float64]
EVERY = ""  # the key of the threshold of objects without one of their own


@dataclass(frozen=True)
class Verdicts:
    """Thresholds and calibration of one network.

    Attributes:
        thresholds: By object; :data:`EVERY`: for all others.
        temperature: Of the calibration; ``None``: the scores are taken as probabilities.
        errors: Expected calibration error on the validation images before and after.
        options: What was asked for, as the options file says it.
    """

    thresholds: Mapping[str, Threshold]
    temperature: float | None = None
    errors: tuple[float, float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path) -> "Verdicts | None":
        """Those that are stored with a network; ``None`` if there are none.

        Raises:
            UserError: As :func:`utils.checkpoint.read_about`.
        """
        content = read_about(file).get("verdicts")
        return None if content is None else cls.from_json(content)

    @classmethod
    def at(cls, value: float) -> "Verdicts":
        """One threshold that was chosen on no images, without calibration."""
        none = np.empty(0)
        return cls({EVERY: find_threshold(none, none, "value", limit=value)})

    @classmethod
    def find(
        cls,
        rows: pd.DataFrame,
        rule: str,
        *,
        limit: float | None = None,
        per_object: bool = False,
        unsure: float | tuple[float, float] = 0.0,
        seed: int = 0,
    ) -> "Verdicts":
        """Those that a rule finds on the validation images.

        Args:
            rows: Columns ``object``, ``label`` and ``score``, one row per image.
            rule: As in :func:`utils.thresholds.find_threshold`; ``auto``: ``f1_max`` or, without
                anomalous images, ``max_false_alarms`` with a limit of 5 %; objects without normal
                images then get no threshold of their own.
            limit: Number of the rule.
            per_object: Whether each object has a threshold of its own.
            unsure: The band of doubt.
            seed: Of the bootstrap.

        Raises:
            ValueError: If the rule needs images of a label that there are none of.
        """
        groups = {EVERY: rows}
        if per_object:
            groups |= {str(name): group for name, group in rows.groupby("object", sort=True)}
        thresholds = {}
        for name, group in groups.items():
            normal, anomalous = (
                group.loc[group["label"] == label, "score"].to_numpy(float) for label in (0, 1)
            )
            chosen, number = rule, limit
            if rule == "auto" and name != EVERY and not len(normal):
                continue
            if rule == "auto":
                chosen, number = ("f1_max", None) if len(anomalous) else ("max_false_alarms", 0.05)
            thresholds[name] = find_threshold(
                normal, anomalous, chosen, limit=number, unsure=unsure, seed=seed
            )
        score, label = rows["score"].to_numpy(float), rows["label"].to_numpy(int)
        if len(set(label.tolist())) < 2:
            return cls(thresholds)
        temperature = fit_temperature(score, label)
        after = calibration_error(probabilities(score, temperature), label)
        return cls(thresholds, temperature, (calibration_error(score, label), after))

    def threshold_of(self, name: str) -> Threshold:
        """The threshold of an object."""
        return self.thresholds.get(name, self.thresholds[EVERY])

    def verdict(self, score: float, name: str) -> str:
        """``anomalous``, ``normal`` or ``unsure``; ``name``: of the object."""
        threshold = self.threshold_of(name)
        if threshold.unsure is not None and threshold.unsure[0] <= score < threshold.unsure[1]:
            return UNSURE
        return ANOMALOUS if score >= threshold.value else NORMAL

    def decide(self, rows: pd.DataFrame) -> pd.DataFrame:
        """``rows``, which have columns ``object`` and ``score``, with a column ``verdict``."""
        pairs = zip(rows["score"], rows["object"], strict=True)
        return rows.assign(verdict=[self.verdict(score, name) for score, name in pairs])

    def probability(self, scores: Scores | Sequence[float]) -> Scores:
        """Calibrated probabilities of "anomalous", in the same order as the scores."""
        found = np.asarray(scores, dtype=np.float64)
        return found if self.temperature is None else probabilities(found, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Numbers, text, lists and dicts; :meth:`from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Verdicts":
        """What :meth:`to_json` wrote."""
        thresholds = {
            name: replace(
                Threshold(**one), interval=_pair(one["interval"]), unsure=_pair(one["unsure"])
            )
            for name, one in content["thresholds"].items()
        }
        errors = _pair(content["errors"])
        return cls(thresholds, content["temperature"], errors, content["options"])

    def __str__(self) -> str:
        """As in "threshold 0.41 (...); temperature 1.3, calibration error 8.1 -> 4.0 %"."""
        parts = [f"threshold {self.thresholds[EVERY]}"]
        parts += [
            f"{name} {one.value:.3g}" for name, one in self.thresholds.items() if name != EVERY
        ]
        if self.temperature is not None and self.errors is not None:
            before, after = (100 * error for error in self.errors)
            parts.append(
                f"temperature {self.temperature:.2f}, calibration error {before:.1f} -> "
                f"{after:.1f} %"
            )
        return "; ".join(parts)


def _pair(value: Sequence[float] | None) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[1])
