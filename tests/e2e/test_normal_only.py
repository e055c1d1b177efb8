"""Normal images only: from a folder of good pictures to verdicts, maps and an exported file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import check as check_py
import export as export_py
import predict as predict_py
import run as run_py
import test as test_py
import visualize as visualize_py
from jobs.comparing.comparing import _trained_on
from jobs.data import read_splits
from jobs.exported import Exported
from jobs.predicting.predictor import Predictor
from jobs.serving.serving import make_app
from options.load import load
from tests.fixtures import random_batch, write_visa
from tests.layouts import Painter
from utils.checkpoint import read_about
from utils.verdicts import Verdicts

FILE = "options/normal_only.yaml"
ENCODER = "{name: timm, arch: test_vit, pre_trained: false, train: none}"


def options(folder, root, *more):
    """The options file, with an encoder of random weights on small pictures."""
    place = [f"dataset.dir={root}", f"dataset.cache={folder}/cache", f"exp.dir={folder}/run"]
    small = [f"student.model.img_enc={ENCODER}", "image.size=[48, 64]", "misc.device=cpu"]
    return [FILE, *place, *small, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of 20 good pictures, tested; new pictures are beside it."""
    folder, paint = tmp_path_factory.mktemp("normal"), Painter()
    for i in range(20):
        paint(folder / f"parts/good/{i}.png", is_bad=False)
    for i in range(6):
        paint(folder / f"new/{i}.png", is_bad=i % 2 == 0)
    assert run_py.main(options(folder, folder / "parts")) == 0
    assert test_py.main(options(folder, folder / "parts")) == 0
    return folder


def test_good_pictures_are_enough(trained, capsys, tmp_path):
    command = options(trained, trained / "parts")
    assert check_py.main([*command, f"--out={tmp_path}"]) == 0
    assert "note: parts: all 4 test images are normal" in capsys.readouterr().out
    assert run_py.main(command) == 0
    said = capsys.readouterr().out
    assert "until then test.py has verdicts to count and no AUROC" in said
    assert "student: finished already" in said
    file = trained / "run/student/best.safetensors"
    threshold = Verdicts.of(file).threshold_of("")
    assert (threshold.rule, threshold.limit, threshold.num_normal) == ("max_false_alarms", 0.05, 3)
    assert read_about(file)["objects"] == ["parts"]
    assert len(pd.read_csv(trained / "run/student/log.csv")) == 1


def test_others_are_refused_with_a_hint(trained, capsys):
    data = f"dataset={{name: folder, dir: {trained}/parts, cache: null}}"
    assert run_py.main(["options/student.yaml", data, f"exp.dir={trained}/other"]) == 2
    error = capsys.readouterr().err
    assert "or take options/normal_only.yaml, which learns from normal images alone" in error


def test_a_page_shows_its_verdict_and_map(trained):
    client = pytest.importorskip("fastapi.testclient", reason="requirements-serve.txt")
    predictor = Predictor.load(trained / "run", "cpu")
    page = client.TestClient(make_app(predictor, 4))
    content = (trained / "new/0.png").read_bytes()
    found = page.post("/predict?map=true", files={"file": content}).json()
    assert found["verdict"] == predictor.verdicts.verdict(found["score"], "")
    assert found["map"].startswith("data:image/png;base64,")


def test_the_test_counts_verdicts(trained):
    folder = trained / "run/student"
    assert pd.read_csv(folder / "table.csv", index_col="object")["auroc"].isna().all()
    counts = pd.read_csv(folder / "threshold.csv", index_col="object").loc["all"]
    assert counts["fp"] + counts["tn"] == 4
    assert (folder / "report.html").is_file()


def test_untrained_it_has_no_scores(trained, capsys):
    assert test_py.main([*options(trained, trained / "parts"), "--untrained"]) == 2
    assert "student: patchcore gives no scores before its training" in capsys.readouterr().err


def predictions(out):
    rows = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    return rows.assign(path=[Path(path).name for path in rows["path"]]).set_index("path")


@pytest.mark.slow
def test_verdicts_and_maps(trained, tmp_path):
    out = ["--out", str(tmp_path), "--maps"]
    assert predict_py.main([str(trained / "run"), str(trained / "new"), *out]) == 0
    rows = predictions(tmp_path)
    assert rows["verdict"].loc[["0.png", "2.png", "4.png"]].tolist() == ["anomalous"] * 3
    assert rows["score"].between(0, 1, inclusive="neither").all()
    assert (rows["score"] == rows["probability"]).all()  # nothing to calibrate with
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 6
    tested = pd.read_csv(trained / "run/student/scores.csv")
    pictures = [str(trained / "parts" / path) for path in tested["path"]]
    assert predict_py.main([str(trained / "run"), *pictures, f"--out={tmp_path}/again"]) == 0
    again = predictions(tmp_path / "again")["score"]
    np.testing.assert_allclose(again, tested["score"], atol=1e-6)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript"])
@pytest.mark.slow
def test_the_exported_file_has_its_scores_and_maps(trained, tmp_path, to, capsys):
    suffix = {"onnx": "onnx", "openvino": "xml", "torchscript": "pt"}[to]
    if to != "torchscript":
        pytest.importorskip(to, reason="requirements-export.txt")
    file = tmp_path / f"model.{suffix}"
    assert export_py.main([str(trained / "run"), "--to", to, "--maps", "--out", str(file)]) == 0
    said = capsys.readouterr().out
    assert "3 validation images: largest difference of a score" in said
    assert "AUROC" not in said
    batch = random_batch(3, 48, 64)  # the batch is free: the graph was made with two
    predictor = Predictor.load(trained / "run", "cpu")
    found = Exported.open(file).run(batch.image.permute(0, 2, 3, 1).contiguous().numpy())
    np.testing.assert_allclose(found["score"], predictor.scores(batch), atol=1e-5)
    np.testing.assert_allclose(found["map"], predictor.maps(batch).numpy(), atol=1e-4)


@pytest.mark.slow
def test_with_anomalous_images_there_are_all_figures(tmp_path, capsys):
    root = write_visa(tmp_path / "visa")
    reader = ["dataset.name=visa", "dataset.split=2cls_highshot", "threshold.rule=auto"]
    command = options(tmp_path, root, *reader)
    assert run_py.main(command) == 0
    said = capsys.readouterr().out
    assert "anomalous training images are left out: only normal ones count" in said
    assert "temperature" in said  # the validation images have both labels
    assert test_py.main([*command, "--maps"]) == 0
    table = pd.read_csv(tmp_path / "run/student/table.csv", index_col="object")
    assert table.loc["mean", "auroc"] > 90
    assert table.loc["mean", "pixel_auroc"] > 90
    assert visualize_py.main(command) == 0
    assert (tmp_path / "run/student/maps.png").is_file()
    places = pd.read_csv(tmp_path / "run/student/maps.csv", index_col="object").loc["mean"]
    assert places["pointing"] > 50
    assert places["peak_normal"] < places["peak_anomalous"] <= 1
    assert "Anomaly maps of patchcore" in (tmp_path / "run/student/maps.md").read_text(
        encoding="utf-8"
    )
    run = load(Path(command[0]), command[1:])
    splits = read_splits(run.dataset)
    assert _trained_on(run, "student", splits) == "these objects (normal images only)"
