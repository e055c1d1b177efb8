"""AUROC and AUPR against definitions written out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.visualizing import localization
from utils.batch import Batch
from utils.errors import UserError
from utils.evaluation import num_averaged, per_object, score_images
from utils.tables import caption, pipe_table


def auroc_by_pairs(label, score):
    """Share of (anomalous, normal) pairs in the right order; a tie counts half."""
    wins = [np.sign(a - n) / 2 + 0.5 for a in score[label == 1] for n in score[label == 0]]
    return 100 * float(np.mean(wins))


def aupr_by_steps(label, score):
    """Sum over thresholds of (recall gained) x (precision there)."""
    total, before = 0.0, 0.0
    for threshold in np.unique(score)[::-1]:
        taken = score >= threshold
        recall = label[taken].sum() / label.sum()
        total += (recall - before) * label[taken].mean()
        before = recall
    return 100 * float(total)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_against_the_definitions(seed, ties):
    rng = np.random.default_rng(seed)
    label = np.array([0, 1] * 10)
    score = rng.normal(size=20) + label
    score = score.round() if ties else score
    table = per_object(pd.DataFrame({"object": "a", "label": label, "score": score}))
    assert table.loc["a", "auroc"] == pytest.approx(auroc_by_pairs(label, score))
    assert table.loc["a", "aupr"] == pytest.approx(aupr_by_steps(label, score))


def test_worked_example():
    """Scores 4 3 2 1 with labels 1 0 1 0: 3 of 4 pairs right; AP = 1/2 * 1 + 1/2 * 2/3."""
    frame = pd.DataFrame({"object": "a", "label": [1, 0, 1, 0], "score": [4.0, 3.0, 2.0, 1.0]})
    row = per_object(frame).loc["a"]
    assert row["auroc"] == 75
    assert row["aupr"] == pytest.approx(100 * 5 / 6)


def test_a_constant_score_has_the_prevalence_as_aupr():
    frame = pd.DataFrame({"object": "a", "label": [1] + [0] * 19, "score": 0.5})
    assert per_object(frame).loc["a", "aupr"] == pytest.approx(5.0)  # a trapezoid would say 52.5


def frame_of(**labels):
    rows = [
        {"object": name, "label": y, "score": i + y}
        for name, ys in labels.items()
        for i, y in enumerate(ys)
    ]
    return pd.DataFrame(rows)


def test_the_mean_is_unweighted_and_skips_objects_with_one_label():
    table = per_object(frame_of(b=[0, 1, 0, 1, 1], a=[1, 0], c=[0, 0, 0]))
    assert list(table.index) == ["a", "b", "c", "mean"]
    assert table["n"].tolist() == [2, 5, 3, 10]
    assert table["anomalies"].tolist() == [1, 3, 0, 4]
    assert np.isnan(table.loc["c", "auroc"])
    assert table.loc["mean", "auroc"] == pytest.approx(table.loc[["a", "b"], "auroc"].mean())
    assert table.loc["mean", "prevalence"] == pytest.approx((50 + 60) / 2)
    assert num_averaged(table) == (2, ["c"])
    lines = pipe_table(table).splitlines()
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["c", "3", "0", "0.0", "-", "-"]
    assert lines[-1].startswith("| mean")
    said = caption("student", table, {"seed": 3, "commit": "abc", "nothing": None})
    assert "10 images, 4 anomalous" in said
    assert "Mean over 2 of 3 objects (without c: only one label)" in said
    assert "seed 3, commit abc." in said


def batch(numbers):
    image = torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1)
    names = [str(n) for n in numbers]
    return Batch(image, torch.tensor(numbers) % 2, ["a"] * len(numbers), names)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_score_that_is_not_finite_names_its_image(bad):
    def score(b):
        return torch.where(b.image.flatten() == 1, bad, 0.5)

    with pytest.raises(UserError, match=rf"the score of 1 is {bad}; train with a lower lr"):
        score_images(score, [batch([3, 1]), batch([2])], torch.device("cpu"))


def test_a_name_cannot_break_the_table():
    scores = pd.DataFrame({"object": ["a|b"] * 2, "label": [0, 1], "score": [0.1, 0.9]})
    assert "| a\\|b " in pipe_table(per_object(scores))
    rows = pd.DataFrame({"object": ["a|b"], "mask_area": [0.5]})
    assert "| a\\|b " in localization.localization_text(
        localization.localization_table(rows), "", {}
    )


def test_scores_keep_the_order_and_the_paths():
    frame = score_images(
        lambda b: b.image.flatten().float(), [batch([3, 1]), batch([2])], torch.device("cpu")
    )
    assert frame.to_dict("list") == {
        "path": ["3", "1", "2"],
        "object": ["a"] * 3,
        "label": [1, 1, 0],
        "score": [3.0, 1.0, 2.0],
    }
