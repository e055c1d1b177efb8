"""Several seeds: each in a folder of its own, and what they say together."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import run as run_py
import test as test_py
from jobs.experiments import of_seeds
from options.load import load
from tests.fixtures import write_smoke
from utils.errors import UserError
from utils.tables import write_seed_tables

pytestmark = pytest.mark.slow
STUDENT = ("teacher=null", "student.objective=cross_entropy", "engine.epochs=1")


def command(program, folder, *arguments):
    return program.main([str(folder / "smoke.yaml"), *STUDENT, *arguments])


@pytest.fixture(scope="module")
def done(smoke, tmp_path_factory):
    """Two seeds of a student, trained and tested."""
    folder = tmp_path_factory.mktemp("seeds")
    write_smoke(folder, smoke / "visa")
    assert command(run_py, folder, "--seeds", "2") == 0
    assert command(test_py, folder, "--seeds", "2") == 0
    return folder


def seed_table(folder, seed):
    return pd.read_csv(folder / f"run/seed_{seed}/student/table.csv", index_col="object")


def test_each_seed_is_the_run_of_that_seed(done, tmp_path):
    assert {path.name for path in (done / "run").glob("seed_*")} == {"seed_7", "seed_8"}
    shutil.copy(done / "smoke.yaml", tmp_path / "smoke.yaml")
    alone = ("misc.seed=8", f"exp.dir={tmp_path}/alone")
    assert command(run_py, tmp_path, *alone) == 0
    assert command(test_py, tmp_path, *alone) == 0
    found = (done / "run/seed_8/student/scores.csv").read_text(encoding="utf-8")
    assert found == (tmp_path / "alone/student/scores.csv").read_text(encoding="utf-8")
    assert found != (done / "run/seed_7/student/scores.csv").read_text(encoding="utf-8")


def test_what_is_finished_is_not_trained_again(done, capsys):
    assert command(run_py, done, "--seeds", "2") == 0
    assert capsys.readouterr().out.count("finished already") == 2


def test_the_table_is_the_mean_and_the_spread(done):
    table = pd.read_csv(done / "run/student_seeds.csv", index_col="object")
    assert list(table.index) == ["candle", "pipe_fryum", "mean"]
    for name in table.index:
        for metric in ("auroc", "aupr"):
            a, b = (seed_table(done, seed).loc[name, metric] for seed in (7, 8))
            assert table.loc[name, metric] == pytest.approx((a + b) / 2, abs=1e-3)
            # of two values: half their difference times the root of two
            spread = abs(a - b) / 2**0.5
            assert table.loc[name, f"{metric}_spread"] == pytest.approx(spread, abs=1e-3)
    assert table["n"].tolist() == [6, 6, 12]


def test_the_caption_says_what_and_how_often(done):
    text = (done / "run/student_seeds.md").read_text(encoding="utf-8")
    assert "student, image only: 12 images, 4 anomalous. Mean over 2 of 2 objects." in text
    assert "split visa 2cls_highshot test, seed 7 to 8, command python test.py" in text
    assert "smoke.yaml teacher=null" in text
    assert "--seeds 2" in text
    assert text.endswith("Mean ± standard deviation (n - 1) over 2 seeds.\n")
    document = json.loads((done / "run/student_seeds.json").read_text(encoding="utf-8"))
    assert [entry["seed"] for entry in document["seeds"]] == [7, 8]
    assert document["seeds"][1]["objects"][0]["object"] == "candle"


def table_of(mean, other):
    frame = pd.DataFrame({"n": 2, "anomalies": 1, "prevalence": 50.0}, index=["a", "b", "mean"])
    return frame.assign(auroc=[mean, np.nan, mean], aupr=[other, np.nan, other])


def test_three_seeds_by_hand(tmp_path):
    tables = {1: table_of(90.0, 50.0), 2: table_of(93.0, 50.0), 3: table_of(96.0, 50.0)}
    text = write_seed_tables(tmp_path / "x_seeds", "x", tables, {"commit": "abc"})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[2] == ["a", "2", "1", "50.0", "93.0 ± 3.0", "50.0 ± 0.0"]
    assert lines[3][4:] == ["- ± -", "- ± -"]
    assert lines[4][4] == "93.0 ± 3.0"
    assert {path.name for path in tmp_path.iterdir()} == {
        "x_seeds.md",
        "x_seeds.csv",
        "x_seeds.json",
    }


def test_one_seed_has_no_spread(tmp_path):
    assert "90.0 ± -" in write_seed_tables(tmp_path / "x", "x", {1: table_of(90.0, 50.0)}, {})


@pytest.mark.parametrize("program", [run_py, test_py])
def test_no_seeds_are_refused(done, capsys, program):
    assert command(program, done, "--seeds", "0") == 2
    assert capsys.readouterr().err == "--seeds: must be in [1, 1000], got 0\n"


def test_a_seed_that_is_not_trained_is_named_with_its_command(done, capsys):
    assert command(test_py, done, "--seeds", "3") == 2
    said = capsys.readouterr().err.strip()
    assert "run/seed_9/student: nothing is trained yet; first: python run.py" in said
    assert said.endswith("engine.epochs=1 --seeds 3")


def test_only_folder_and_seed_differ(done):
    run = load(done / "smoke.yaml")
    first, second = of_seeds(run, 2)
    assert (first.misc.seed, second.misc.seed) == (7, 8)
    assert second.exp.dir == run.exp.dir / "seed_8"
    assert second.student == run.student
    with pytest.raises(UserError, match=r"must be in \[1, 1000\], got -1"):
        of_seeds(run, -1)
