"""The threshold of a trained network: found, stored, found again by another rule, and tested."""

import shutil

import pandas as pd
import pytest

import run as run_py
import test as test_py
from options.load import load
from tests.fixtures import write_smoke
from utils.checkpoint import identity, read_about
from utils.verdicts import Verdicts


@pytest.fixture
def copy(smoke, tmp_path):
    shutil.copytree(smoke / "run", tmp_path / "run")
    write_smoke(tmp_path, smoke / "visa")
    return tmp_path


def command(program, folder, *overrides):
    return program.main([str(folder / "smoke.yaml"), *overrides])


def test_it_is_stored_with_the_weights(smoke):
    file = smoke / "run/student/best.safetensors"
    verdicts = Verdicts.of(file)
    threshold = verdicts.threshold_of("candle")
    assert threshold.rule == "f1_max"
    assert (threshold.num_normal, threshold.num_anomalous) == (4, 2)
    assert threshold.interval[0] <= threshold.value <= threshold.interval[1]
    assert read_about(file)["objects"] == ["candle", "pipe_fryum"]


def test_the_table_at_the_threshold_is_that_of_the_scores(smoke):
    folder = smoke / "run/student"
    scores = pd.read_csv(folder / "scores.csv")
    value = Verdicts.of(folder / "best.safetensors").threshold_of("").value
    taken = scores["score"] >= value
    table = pd.read_csv(folder / "threshold.csv", index_col="object")
    assert list(table.index) == ["candle", "pipe_fryum", "all"]
    assert table.loc["all", "tp"] == (taken & (scores["label"] == 1)).sum()
    assert table.loc["all", "fp"] == (taken & (scores["label"] == 0)).sum()
    assert table.loc["all", ["tp", "fp", "fn", "tn"]].sum() == 12
    text = (folder / "threshold.md").read_text(encoding="utf-8")
    assert "student, image only: threshold" in text
    assert "95 % Wilson intervals" in text
    assert not (smoke / "run/teacher/oracle_text/threshold.md").exists()


@pytest.mark.slow
def test_another_rule_needs_no_training(copy, capsys):
    files = [copy / "run" / stage / "best.safetensors" for stage in ("teacher", "student")]
    before = [identity(file) for file in files]
    scores = (copy / "run/student/scores.csv").read_bytes()
    weights = [read_about(file) for file in files]
    rule = ["threshold.rule.max_false_alarms=0.3", "student.threshold.unsure=[0, 1]"]
    assert command(test_py, copy, *rule) == 0
    assert "its threshold was found with other options; python run.py" in capsys.readouterr().out
    assert command(run_py, copy, *rule) == 0
    printed = capsys.readouterr().out
    assert "student: finished already" in printed
    assert "student: threshold" in printed
    assert "max_false_alarms 0.3" in printed
    assert [identity(file) for file in files] == before
    assert [read_about(file)["epoch"] for file in files] == [one["epoch"] for one in weights]
    assert command(test_py, copy, *rule) == 0
    assert "other options" not in capsys.readouterr().out
    table = pd.read_csv(copy / "run/student/threshold.csv", index_col="object")
    assert table.loc["all", "unsure"] == 12
    assert (copy / "run/student/scores.csv").read_bytes() == scores


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("threshold.rule=f1_max", "teacher: threshold.rule f1_max needs anomalous validation"),
        ("student.threshold.rule.max_misses=0", "write threshold.rule.max_false_alarms=0.05"),
        ("threshold.rule.max_false_alarms=0", "max_false_alarms needs normal validation images"),
    ],
)
def test_a_rule_that_cannot_be_followed_stops_before_the_training(
    smoke, tmp_path, capsys, rule, message
):
    write_smoke(tmp_path, smoke / "visa")
    none = ["dataset.val_fraction=0", "engine.keep=last"]
    assert command(run_py, tmp_path, *none, rule) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_without_validation_images_there_is_a_note(smoke, tmp_path, capsys):
    write_smoke(tmp_path, smoke / "visa")
    options = ["dataset.val_fraction=0", "engine={keep: last, epochs: 1}", "teacher=null"]
    options += ["student.objective=cross_entropy"]
    assert command(run_py, tmp_path, *options) == 0
    assert "student: no threshold: there are no normal validation" in capsys.readouterr().out
    assert command(test_py, tmp_path, *options) == 0
    assert "no threshold was found yet" in capsys.readouterr().out
    assert not (tmp_path / "run/student/threshold.md").exists()
    assert command(run_py, tmp_path, *options, "threshold.rule.value=0.5") == 0
    assert "threshold 0.5 (value; 0 normal images" in capsys.readouterr().out


def test_rules_replace_each_other(tmp_path):
    path = write_smoke(tmp_path, tmp_path)
    path.write_text(
        path.read_text(encoding="utf-8") + "threshold: {rule: {max_misses: 0.1}}\n",
        encoding="utf-8",
    )
    assert load(path).student.threshold.rule.chosen == ("max_misses", 0.1)
    other = load(path, ["threshold.rule.max_false_alarms=0.2"]).student.threshold
    assert other.rule.chosen == ("max_false_alarms", 0.2)
    assert load(path, ["threshold.rule=f1_max"]).student.threshold.rule == "f1_max"


@pytest.mark.slow
def test_under_small_changes(copy, capsys):
    assert command(test_py, copy, "--stress") == 0
    assert "Worst: " in capsys.readouterr().out
    table = pd.read_csv(copy / "run/student/stress.csv", index_col="change")
    assert list(table.columns) == ["auroc", "aupr", "recall", "false_alarms"]
    assert len(table) >= 12
    before = pd.read_csv(copy / "run/student/table.csv", index_col="object").loc["mean"]
    assert table.loc["unchanged", "auroc"] == pytest.approx(before["auroc"])
    assert table["auroc"].nunique() > 1
    assert (copy / "run/teacher/stress.md").is_file()
