"""predict.py: the scores of test.py, broken files, what was cut off, and what is refused."""

import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import export as export_py
import predict as predict_py
import test as test_py
from jobs.predicting import predicting
from jobs.predicting.table import PredictionTable
from utils.verdicts import Verdicts

EARLIER = Path("tests/data/run_c1b69ef")  # without thresholds
COLUMNS = ["path", "object", "score", "probability", "threshold", "verdict", "model", "error"]


def predict(*arguments):
    return predict_py.main([str(argument) for argument in arguments])


def table_of(out):
    return pd.read_csv(out / "predictions.csv", keep_default_na=False).set_index("path")


def break_files(folder, source):
    """Five files that are no pictures, each in its own way."""
    folder.mkdir()
    content = source.read_bytes()
    (folder / "cut off.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    Image.new("L", (1, 1)).save(folder / "bomb.png")
    header = bytearray((folder / "bomb.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(header)
    (folder / "away.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


@pytest.fixture(scope="module")
def done(smoke, tmp_path_factory):
    """The predictions of all pictures of the smoke run, which are 32, in batches of 5."""
    out = tmp_path_factory.mktemp("predictions")
    photos = smoke / "visa/*/Data/Images/*/*.JPG"
    assert predict(smoke / "run", photos, "--out", out, "--batch-size", 5) == 0
    return out


def test_its_scores_are_those_of_test_py(smoke, done):
    rows = table_of(done)
    assert len(rows) == 32
    tested = pd.read_csv(smoke / "run/student/scores.csv")
    rows = rows.loc[[str(smoke / "visa" / path) for path in tested["path"]]]
    assert rows["score"].to_numpy() == pytest.approx(tested["score"].to_numpy(), abs=1e-6)
    assert rows["object"].tolist() == tested["object"].tolist()
    verdicts = Verdicts.of(smoke / "run/student/best.safetensors")
    assert rows["verdict"].tolist() == verdicts.decide(tested)["verdict"].tolist()
    assert rows["probability"].to_numpy() == pytest.approx(verdicts.probability(tested["score"]))
    assert set(rows["threshold"]) == {verdicts.threshold_of("").value}


def test_broken_files_are_rows(smoke, tmp_path, capsys):
    source = smoke / "visa/candle/Data/Images/Normal"
    broken = break_files(tmp_path / "broken", source / "000.JPG")
    files = [*sorted(source.iterdir()), *sorted(broken.iterdir()), tmp_path / "a\nb.JPG"]
    shutil.copy(source / "000.JPG", files[-1])
    with pytest.MonkeyPatch.context() as patch:
        names = b"".join(os.fsencode(file) + b"\n" for file in files[:-1])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names), encoding="utf-8"))
        arguments = [smoke / "run", "-", files[-1], "--out", tmp_path / "out"]
        assert predict(*arguments, "--batch-size", 4) == 3
    rows = table_of(tmp_path / "out")
    assert len(rows) == 16
    assert (rows["error"] != "").sum() == 5
    assert (rows["verdict"] != "").sum() == 11
    errors = [rows.loc[str(file), "error"] for file in sorted(broken.iterdir())]
    words = ["cannot be read", "too large", "cannot be read", "not a picture", "not a picture"]
    assert all(word in error for word, error in zip(words, errors, strict=True)), errors
    assert rows.index[-1].endswith("a\\nb.JPG")
    assert "error 5, " in capsys.readouterr().out
    assert (
        predict(smoke / "run", broken, "--out", tmp_path / "out") == 3
    )  # nothing new, still wrong


@pytest.mark.parametrize("cut", [0, 3])
@pytest.mark.slow
def test_what_was_cut_off_ends_with_the_same_table(smoke, done, tmp_path, cut):
    photos = smoke / "visa/*/Data/Images/*/*.JPG"
    arguments = [smoke / "run", photos, "--out", tmp_path, "--batch-size", 5]
    add, calls = PredictionTable.add, []

    def dies(self, rows):
        calls.append(rows)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return add(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionTable, "add", dies)
        with pytest.raises(RuntimeError, match="killed"):
            predict(*arguments)
    file = tmp_path / "predictions.csv"
    assert 0 < len(table_of(tmp_path)) < 32
    os.truncate(file, file.stat().st_size - cut)  # in the middle of a row
    assert predict(*arguments) == 0
    assert file.read_bytes() == (done / "predictions.csv").read_bytes()
    assert predict(*arguments) == 0
    assert file.read_bytes() == (done / "predictions.csv").read_bytes()


def test_a_table_of_something_else_is_left_unchanged(smoke, done, tmp_path, capsys):
    shutil.copy(done / "predictions.csv", tmp_path)
    before = (tmp_path / "predictions.csv").read_bytes()
    photos = smoke / "visa/candle/Data/Images/Normal"
    common = [photos, "--out", tmp_path, "--object", "candle"]
    for arguments in (
        [smoke / "run/teacher", *common],
        [smoke / "run", *common, "--threshold", 0.3],
    ):
        assert predict(*arguments) == 2
        assert "holds predictions of another model or threshold" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_bytes() == before
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert predict(smoke / "run", *common) == 2
    assert "is no table of predictions" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"


def test_json_for_other_programs(smoke, tmp_path, capsys):
    broken = break_files(tmp_path / "broken", smoke / "visa/candle/Data/Images/Normal/000.JPG")
    photos = smoke / "visa/candle/Data/Images/Anomaly"
    capsys.readouterr()
    assert predict(smoke / "run", photos, broken, "--json", "--out", tmp_path / "out") == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 11
    assert set(rows[0]) == set(COLUMNS)
    assert rows[0]["verdict"] in ("anomalous", "normal")
    assert rows[0]["error"] is None
    assert rows[-1]["score"] is None


@pytest.mark.slow
def test_one_picture_and_its_heat_map(smoke, tmp_path, monkeypatch, capsys):
    photo = tmp_path / "000.JPG"
    shutil.copy(smoke / "visa/candle/Data/Images/Anomaly/000.JPG", photo)
    monkeypatch.chdir(tmp_path)
    assert predict(smoke / "run", "--show", "000.JPG", "--threshold", 0) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("000.JPG: anomalous, probability 0.")
    assert printed.endswith("predictions/maps/000.JPG.png")
    pixels = np.asarray(Image.open("predictions/maps/000.JPG.png"))
    assert pixels.shape[1] > 480
    assert not Path("predictions/predictions.csv").exists()
    assert predict(smoke / "run", tmp_path / "000.JPG", "--maps") == 0
    assert (tmp_path / "predictions/maps" / str(photo)[1:]).with_suffix(".JPG.png").is_file()
    assert predict(smoke / "run", "../" + tmp_path.name, "--maps") == 0
    assert (tmp_path / "predictions/maps/__" / tmp_path.name / "000.JPG.png").is_file()


def test_pictures_that_arrive(smoke, tmp_path, monkeypatch, capsys):
    inbox, source = tmp_path / "inbox", smoke / "visa/candle/Data/Images/Normal"
    inbox.mkdir()
    polls = []

    def sleep(seconds):
        polls.append(seconds)
        if len(polls) == 2:
            (inbox / "1.JPG").write_bytes((source / "001.JPG").read_bytes()[:99])  # half written
        if len(polls) == 3:
            shutil.copy(source / "001.JPG", inbox / "1.JPG")
        if len(polls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(predicting.time, "sleep", sleep)
    shutil.copy(source / "000.JPG", inbox / "0.JPG")
    assert predict(smoke / "run", "--watch", inbox, "--out", tmp_path / "out") == 130
    rows = table_of(tmp_path / "out")
    assert list(rows.index) == [f"{inbox}/0.JPG", f"{inbox}/1.JPG"]
    assert (rows["error"] == "").all()


@pytest.mark.slow
def test_a_model_of_an_earlier_version_gives_scores(tmp_path, capsys, smoke):
    photos = smoke / "visa/candle/Data/Images/Normal"
    assert predict(EARLIER, photos, "--out", tmp_path / "a") == 0
    assert "has no threshold: scores without verdicts" in capsys.readouterr().out
    rows = table_of(tmp_path / "a")
    assert (rows["verdict"] == "").all()
    assert (rows["score"] == rows["probability"]).all()
    assert predict(EARLIER, photos, "--out", tmp_path / "b", "--threshold", 0) == 0
    assert (table_of(tmp_path / "b")["verdict"] == "anomalous").all()
    baseline = [EARLIER / "baseline", photos, "--out", tmp_path / "c", "--maps"]
    assert predict(*baseline) == 2
    assert "has to be told what the pictures show: --object NAME" in capsys.readouterr().err
    assert predict(*baseline, "--object", "candle") == 0
    assert len(list((tmp_path / "c/maps").rglob("*.png"))) == 10


def test_a_zero_shot_baseline(smoke, tmp_path):
    options = ["options/baselines/demo_clip.yaml", f"dataset.cache={tmp_path}/cache"]
    photos = smoke / "visa/candle/Data/Images/Normal"
    assert predict(*options, photos, "--object", "candle", "--out", tmp_path / "out") == 0
    assert table_of(tmp_path / "out")["score"].between(0, 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "nowhere/*.jpg"], "nowhere/*.jpg: there is no such file, folder or pattern"),
        (["{run}", "{empty}"], "there are no pictures"),
        (["{empty}", "."], "holds no trained model (best.safetensors); train it first"),
        (["{run}/student/log.csv", "."], "is not a checkpoint of this program"),
        (["{run}/teacher", "{run}"], "--object NAME (one of candle, pipe_fryum)"),
        (["options/demo.yaml", "."], "has to be trained; name the folder of its run"),
        (["{run}", ".", "--watch", "-"], "standard input cannot be watched"),
    ],
)
def test_what_is_refused_is_one_line(smoke, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    names = {"run": smoke / "run", "empty": tmp_path / "empty"}
    capsys.readouterr()
    arguments = [argument.format(**names) for argument in arguments]
    assert predict(*arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.slow
def test_an_exported_file_gives_the_same_verdicts(smoke, done, tmp_path, capsys):
    shutil.copytree(smoke / "run", tmp_path / "run")
    assert export_py.main([str(tmp_path / "run"), "--to", "torchscript"]) == 0
    (file,) = (tmp_path / "run/student").glob("model*.pt")
    photos = smoke / "visa/candle/Data/Images/Anomaly"
    assert predict(file, photos, "--out", tmp_path / "out") == 0
    rows, wanted = table_of(tmp_path / "out"), table_of(done)
    wanted = wanted.loc[rows.index]
    assert rows["score"].to_numpy() == pytest.approx(wanted["score"].to_numpy(), abs=1e-5)
    assert rows[["verdict", "model", "object"]].equals(wanted[["verdict", "model", "object"]])
    assert predict(file, photos, "--maps") == 2
    assert "has no heat map" in capsys.readouterr().err


def test_where_labels_are_missed_the_command_is_named(smoke, tmp_path, capsys):
    shutil.copytree(smoke / "visa/candle/Data/Images/Normal", tmp_path / "pictures")
    table = tmp_path / "pictures/labels.csv"
    table.write_text("image_path,label,split\n000.JPG,,test\n", encoding="utf-8")
    for name in ("folder", "csv"):
        arguments = [f"options/{name}.yaml", f"dataset.dir={tmp_path}/pictures"]
        assert test_py.main(arguments) == 2
        assert "are for python predict.py MODEL FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_and_loaders_write_the_same_table(smoke, done, tmp_path):
    photos = str(smoke / "visa/*/Data/Images/*/*.JPG")
    rest = ["predict.py", smoke / "run", photos, "--batch-size", "5", "--workers", "1", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533"]
    for name, start in (("one", []), ("two", torchrun)):
        command = [sys.executable, *start, *map(str, rest), str(tmp_path / name)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        written = (tmp_path / name / "predictions.csv").read_bytes()
        assert written == (done / "predictions.csv").read_bytes()
