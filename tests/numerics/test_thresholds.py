"""Thresholds against lists worked by hand, a slow search, and scipy's bootstrap."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from utils.calibration import (
    TEMPERATURES,
    calibration_error,
    fit_temperature,
    probabilities,
    reliability,
)
from utils.evaluation import per_object
from utils.thresholds import figures_at_threshold, find_threshold, wilson
from utils.verdicts import Verdicts


def found(normal, anomalous, rule, limit=None, **options):
    return find_threshold(np.array(normal, float), np.array(anomalous, float), rule, limit=limit)


# Sorted: n.1 n.2 n.3 a.3 n.4 a.4 a.6 a.8. At ".4 and more": 3 hits, 1 false alarm, 1 miss.
NORMAL, ANOMALOUS = [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.6, 0.8]


@pytest.mark.parametrize(
    ("rule", "limit", "value", "false_alarms", "misses"),
    [
        # F1 from .3 on: 8/10, from .4 on: 6/8, from .6 on: 4/6.
        ("f1_max", None, 0.25, 2, 0),
        ("max_false_alarms", 0.0, 0.5, 0, 2),
        ("max_false_alarms", 0.24, 0.5, 0, 2),
        ("max_false_alarms", 0.25, 0.35, 1, 1),
        ("max_false_alarms", 0.5, 0.25, 2, 0),
        ("max_false_alarms", 1.0, 0.1, 4, 0),
        ("max_misses", 0.0, 0.25, 2, 0),
        ("max_misses", 0.25, 0.35, 1, 1),
        ("max_misses", 0.5, 0.5, 0, 2),
        ("max_misses", 0.74, 0.5, 0, 2),
        ("max_misses", 1.0, math.nextafter(0.8, 1), 0, 4),
        ("value", 0.4, 0.4, 1, 1),
    ],
)
def test_a_list_with_ties(rule, limit, value, false_alarms, misses):
    threshold = found(NORMAL, ANOMALOUS, rule, limit)
    assert threshold.value == pytest.approx(value, abs=1e-12)
    assert (threshold.num_false_alarms, threshold.num_misses) == (false_alarms, misses)
    assert (threshold.num_normal, threshold.num_anomalous) == (4, 4)


def test_three_images():
    threshold = found([0.2, 0.4], [0.9], "f1_max")
    assert threshold.value == pytest.approx(0.65)
    assert (threshold.num_false_alarms, threshold.num_misses) == (0, 0)
    low, high = threshold.interval
    assert 0.5 < low <= high < 0.7  # from (0.2, 0.2, 0.9) and (0.4, 0.4, 0.9): .55 and .65


def test_all_scores_are_equal():
    assert found([0.5, 0.5], [0.5], "f1_max").value == 0.5  # all or nothing: all has F1 1/2
    assert found([0.5, 0.5], [0.5], "max_false_alarms", 0.4).value > 0.5
    assert found([0.5, 0.5], [0.5], "max_misses", 0.0).value == 0.5


def test_one_label():
    normal = [k / 100 for k in range(100)]
    threshold = found(normal, [], "max_false_alarms", 0.05)
    assert threshold.value == pytest.approx(0.945)  # .95 to .99 reach it: 5 of 100
    assert threshold.num_false_alarms == 5
    none = found(normal, [], "max_false_alarms", 0.0)
    assert 0.99 < none.value < 0.99 + 1e-9
    for rule in ("f1_max", "max_misses"):
        with pytest.raises(ValueError, match="100 normal and 0 anomalous images"):
            found(normal, [], rule, 0.1)
    with pytest.raises(ValueError, match="0 normal and 1 anomalous images"):
        found([], [0.4], "max_false_alarms", 0.1)
    assert found([], [0.4, 0.5], "max_misses", 0.5).value == pytest.approx(0.45)


@pytest.mark.parametrize("seed", range(6))
def test_against_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    normal, anomalous = rng.normal(0, 1, 30).round(1), rng.normal(1, 1, 20).round(1)
    places = [*np.unique([*normal, *anomalous]), np.inf]
    rates = [(np.mean(normal >= t), np.mean(anomalous < t)) for t in places]

    def f1(t):
        hits = (anomalous >= t).sum()
        return 2 * hits / (20 + hits + (normal >= t).sum())

    wanted = {
        "f1_max": max(places, key=lambda t: (f1(t), -t)),
        "max_false_alarms": min(
            t for t, (false, _) in zip(places, rates, strict=True) if false <= 0.1
        ),
        "max_misses": max(t for t, (_, miss) in zip(places, rates, strict=True) if miss <= 0.1),
    }
    for rule, place in wanted.items():
        threshold = found(normal, anomalous, rule, 0.1)
        assert threshold.num_false_alarms == (normal >= place).sum(), rule
        assert threshold.num_misses == (anomalous < place).sum(), rule


@pytest.mark.parametrize("rule", ["f1_max", "max_false_alarms"])
def test_the_interval_is_that_of_another_bootstrap(rule):
    rng = np.random.default_rng(3)
    normal, anomalous = rng.beta(2, 5, 80), rng.beta(5, 2, 60)

    def value(a, b):
        """The same threshold, found the slow way."""
        scores = np.unique([*a, *b])
        t = (scores[1:] + scores[:-1]) / 2
        hits, false = (b >= t[:, None]).sum(axis=1), (a >= t[:, None]).sum(axis=1)
        if rule == "f1_max":
            return t[np.argmax(2 * hits / (len(b) + hits + false))]
        return t[np.argmax(false / len(a) <= 0.1)]

    wanted = bootstrap(
        (normal, anomalous), value, n_resamples=600, vectorized=False, method="percentile", rng=1
    ).confidence_interval
    threshold = find_threshold(normal, anomalous, rule, limit=0.1, seed=5)
    width = wanted.high - wanted.low
    assert threshold.interval == pytest.approx(tuple(wanted), abs=0.15 * width)
    assert threshold.interval[0] <= threshold.value <= threshold.interval[1]
    assert threshold == find_threshold(normal, anomalous, rule, limit=0.1, seed=5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("digits", [1, 6])
def test_the_band_of_doubt_holds_no_more_than_it_may(share, digits):
    rng = np.random.default_rng(1)
    normal, anomalous = rng.uniform(0, 0.7, 40).round(digits), rng.uniform(0.3, 1, 20).round(digits)
    threshold = find_threshold(normal, anomalous, "f1_max", unsure=share)
    if not share:
        assert threshold.unsure is None
        return
    low, high = threshold.unsure
    scores = np.concatenate([normal, anomalous])
    inside = ((scores >= low) & (scores < high)).sum()
    assert low <= threshold.value <= high
    assert inside <= share * 60
    assert digits == 1 or inside == int(share * 60)  # without ties as many as allowed


def test_figures_at_a_threshold_worked_by_hand():
    rows = pd.DataFrame(
        {
            "object": ["a"] * 5 + ["b"] * 3,
            "label": [1, 1, 1, 0, 0, 0, 0, 0],
            "score": [0.9, 0.2, 0.5, 0.6, 0.1, 0.1, 0.2, 0.5],
        }
    )
    verdicts = Verdicts({"": find_threshold(*np.zeros((2, 0)), "value", limit=0.6)})
    band = Verdicts({"": find_threshold(*np.zeros((2, 0)), "value", limit=0.6, unsure=(0.4, 0.6))})
    table = figures_at_threshold(verdicts.decide(rows))
    assert list(table.index) == ["a", "b", "all"]
    assert table.loc["a", ["tp", "fp", "fn", "tn", "unsure"]].tolist() == [1, 1, 2, 1, 0]
    assert table.loc["b", ["tp", "fp", "fn", "tn", "unsure"]].tolist() == [0, 0, 0, 3, 0]
    assert table.loc["a", "recall"] == pytest.approx(100 / 3)
    assert table.loc["a", "f1"] == pytest.approx(40)
    assert table.loc["b", "false_alarms"] == 0
    assert math.isnan(table.loc["b", "recall"])
    assert math.isnan(table.loc["b", "precision_low"])
    assert table.loc["all", "false_alarms"] == 20
    counts = figures_at_threshold(band.decide(rows)).loc["all"]
    assert counts[["tp", "fp", "fn", "tn", "unsure"]].tolist() == [1, 1, 1, 3, 2]


def test_wilson_by_its_formula():
    """Center (p + z²/2n) / (1 + z²/n), half width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n)."""
    z, p, n = 1.959963984540054, 0.9, 10
    center, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    wanted = ((center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n))
    assert wilson(9, 10) == pytest.approx(wanted)
    assert wilson(0, 5)[0] == 0
    assert math.isnan(wilson(0, 0)[0])


# ---------------------------------------------------------------- calibration


def test_the_temperature_of_scores_that_are_too_sure():
    """Scores made of true probabilities with their logits times three need a temperature of 3."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, 20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-logit))).astype(int)
    score = 1 / (1 + np.exp(-3 * logit))
    temperature = fit_temperature(score, label)
    assert temperature == pytest.approx(3, rel=0.05)
    before = calibration_error(score, label)
    after = calibration_error(probabilities(score, temperature), label)
    assert after < 0.02 < before


def test_images_without_mistakes_do_not_make_it_certain():
    score, label = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert 0.6 < fit_temperature(score, label) < 1


@pytest.mark.parametrize("temperature", [*TEMPERATURES, 1.0, 3.0])
def test_auroc_and_aupr_do_not_change(temperature):
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 8, 500).astype(np.float32)
    label = (logit + rng.normal(0, 8, 500) > 4).astype(int)
    score = (1 / (1 + np.exp(-logit))).astype(float)  # many of them 1 - a few steps of float32
    score[:4] = [0, 1, 2**-149, 1 - 2**-24]
    rows = pd.DataFrame({"object": "a", "label": label, "score": score})
    calibrated = rows.assign(score=probabilities(score, temperature))
    pd.testing.assert_frame_equal(per_object(rows), per_object(calibrated), rtol=0, atol=0)
    assert len(np.unique(score)) == calibrated["score"].nunique()
    assert calibrated["score"].between(0, 1).all()


def test_calibration_error_worked_by_hand():
    """Bins .2-.3: mean .25, 1 of 2 anomalous; .9-1: mean .95, 1 of 1: (2 * .25 + .05) / 3."""
    probability, label = np.array([0.2, 0.3 - 1e-9, 0.95]), np.array([0, 1, 1])
    assert calibration_error(probability, label) == pytest.approx((2 * 0.25 + 0.05) / 3)
    assert reliability(probability, label)["n"].tolist() == [2, 1]
    assert calibration_error(np.array([1.0]), np.array([1])) == 0


# ---------------------------------------------------------------- what is stored


def validation(**objects):
    rows = [(name, label, score) for name, pairs in objects.items() for label, score in pairs]
    return pd.DataFrame(rows, columns=["object", "label", "score"])


def test_thresholds_of_each_object_and_what_is_stored():
    rows = validation(a=[(0, 0.1), (1, 0.3)], b=[(0, 0.5), (1, 0.7)], c=[(0, 0.2)], d=[(1, 0.9)])
    verdicts = Verdicts.find(rows, "auto", per_object=True, unsure=(0.1, 0.55))
    assert verdicts.threshold_of("a").value == pytest.approx(0.2)
    assert verdicts.threshold_of("b").value == pytest.approx(0.6)
    assert verdicts.threshold_of("c").rule == "max_false_alarms"
    assert verdicts.threshold_of("d") == verdicts.threshold_of("unknown")
    assert verdicts.verdict(0.55, "b") == "unsure"
    assert verdicts.verdict(0.6, "b") == "anomalous"
    assert verdicts.verdict(0.05, "b") == "normal"
    assert Verdicts.from_json(json.loads(json.dumps(verdicts.to_json()))) == verdicts
    assert "threshold 0.25" in str(verdicts) or "temperature" in str(verdicts)


def test_normal_images_alone_limit_false_alarms():
    rows = validation(a=[(0, k / 20) for k in range(20)])
    verdicts = Verdicts.find(rows, "auto")
    assert verdicts.threshold_of("a").num_false_alarms == 1
    assert verdicts.temperature is None
    assert verdicts.probability([0.3]).tolist() == [0.3]
    with pytest.raises(ValueError, match="f1_max: 20 normal and 0 anomalous"):
        Verdicts.find(rows, "f1_max")


def test_a_threshold_that_is_named():
    assert Verdicts.at(0.4).verdict(0.4, "") == "anomalous"
    assert Verdicts.at(0.4).verdict(0.39, "") == "normal"
