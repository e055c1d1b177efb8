"""Differences between methods against scikit-learn and a slow bootstrap."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.comparing import differences as module
from jobs.comparing.differences import (
    difference,
    differences,
    differences_markdown,
    weighted_aupr,
    weighted_auroc,
)
from utils.evaluation import per_object


def frame(rng, strength, objects=("candle", "fryum"), n=40):
    """Scores with ties; the higher the strength, the better."""
    parts = []
    for name in objects:
        label = np.arange(n) % 4 == 0
        score = np.round(rng.normal(size=n) + strength * label, 1)
        path = [f"{name}/{i}" for i in range(n)]
        parts.append(
            pd.DataFrame({"path": path, "object": name, "label": label.astype(int), "score": score})
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(weighted_auroc, roc_auc_score), (weighted_aupr, average_precision_score)],
)
def test_figures_of_resamples_are_those_of_repeated_images(ours, theirs):
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 30), rng.integers(0, 8, 30).astype(float)
    weights = rng.multinomial(30, np.full(30, 1 / 30), 20)
    expected = [theirs(np.repeat(label, w), np.repeat(score, w)) for w in weights]
    np.testing.assert_allclose(ours(label, score, weights), expected, rtol=1e-12)


def test_the_difference_is_that_of_the_tables():
    rng = np.random.default_rng(1)
    good, bad = ([frame(rng, s) for _ in range(3)] for s in (2.0, 0.5))
    figures = difference(good, bad)
    for metric in ("auroc", "aupr"):
        means = [np.mean([per_object(f)[metric]["mean"] for f in frames]) for frames in (good, bad)]
        value, low, high = figures[metric]
        assert value == pytest.approx(means[0] - means[1])
        assert low < value < high


@pytest.mark.slow
def test_the_interval_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(2)
    ours, theirs = ([frame(rng, s, ("candle",)) for _ in range(2)] for s in (1.5, 1.0))
    label = ours[0]["label"].to_numpy()
    drawn = []
    for _ in range(400):
        images = np.concatenate(
            [rng.choice(np.flatnonzero(label == v), (label == v).sum()) for v in (0, 1)]
        )
        seeds = rng.integers(0, 2, 2)
        gaps = [
            roc_auc_score(label[images], ours[s]["score"].to_numpy()[images])
            - roc_auc_score(label[images], theirs[s]["score"].to_numpy()[images])
            for s in seeds
        ]
        drawn.append(100 * np.mean(gaps))
    _, low, high = difference(ours, theirs)["auroc"]
    width = high - low
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.25 * width)


def test_a_method_does_not_differ_from_itself_whatever_the_order(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 50)
    scores = [frame(np.random.default_rng(3), 1.0)]
    mixed = [scores[0].sample(frac=1, random_state=0)]
    assert difference(scores, mixed) == {"auroc": (0, 0, 0), "aupr": (0, 0, 0)}


def test_the_table_marks_what_excludes_zero_and_leaves_out_what_has_no_scores(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 200)
    rng = np.random.default_rng(4)
    scores = {"A": [frame(rng, 0.0)], "B|2": [frame(rng, 4.0)], "C": [frame(rng, 0.0)], "D": []}
    table = differences(scores, "A")
    assert list(table.index) == ["A", "B|2", "C"]
    assert table.loc["A"].filter(like="_low").isna().all()
    lines = differences_markdown(table, "A", 1).splitlines()
    better = next(line for line in lines if r"B\|2" in line)
    assert better.count("**+") == 2
    assert "**" not in next(line for line in lines if line.startswith("| C"))
    assert "seeds (1)" in lines[-1]


def test_where_the_heat_lies_is_compared_over_images_that_have_a_mask(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 300)
    rng = np.random.default_rng(5)
    theirs = [frame(rng, 1.0) for _ in range(2)]
    for scores in theirs:
        has_mask = (scores["label"] == 1) & (scores.index % 8 == 0)
        scores["pointing"] = np.where(has_mask, rng.integers(0, 2, len(scores)), np.nan)
        scores["heat_in_mask"] = np.where(has_mask, rng.random(len(scores)), np.nan)
    ours = [scores.assign(pointing=scores["pointing"] * 0 + 1) for scores in theirs]
    table = differences({"A": theirs, "B": ours}, "A")
    means = [scores.groupby("object")["pointing"].mean().mean() * 100 for scores in theirs]
    assert table.loc["A", "pointing_mean"] == pytest.approx(np.mean(means))
    assert table.loc["A", "pointing_spread"] == pytest.approx(np.std(means, ddof=1))
    assert table.loc["B", "pointing"] == pytest.approx(100 - np.mean(means))
    assert 0 < table.loc["B", "pointing_low"] < table.loc["B", "pointing"]
    assert table.loc["B", ["heat_in_mask", "heat_in_mask_low"]].tolist() == [0, 0]
    text = differences_markdown(table, "A", 2)
    assert "| pointing game |" in text.splitlines()[0].replace("  ", "")
    assert "100.0 ± 0.0, **+" in text
    table = differences({"A": theirs, "B": [s.assign(pointing=np.nan) for s in ours]}, "A")
    assert "nan" not in differences_markdown(table, "A", 2)
