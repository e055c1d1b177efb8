"""Exported files: the same scores as the network, or no file."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import export as export_py
from jobs import exporting
from jobs.exported import Exported
from models.deployed import DeployedStudent, deployed
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import ImageEncoder
from models.gradcam import heat_maps
from models.student import Student
from tests.fixtures import random_batch, student_options
from utils.calibration import probabilities
from utils.errors import UserError
from utils.lock import hold
from utils.registry import Component

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml", "torchscript": "model.pt"}
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "onnxruntime", "openvino")}


def skip_without(name):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"{package}: requirements-export.txt")


def small_student(classifier="linear"):
    torch.manual_seed(0)
    options = student_options()
    return Student((64, 96), True, **{**options, "classif": Component(classifier, {})}).eval()


def nhwc(batch):
    return batch.image.permute(0, 2, 3, 1).contiguous()


def test_the_graph_gives_the_scores_probabilities_and_heat_maps_of_the_student():
    student, batch = small_student(), random_batch()
    with torch.no_grad():
        # Away from saturation, where anything would agree.
        student.classif.main[-1].weight.mul_(0.2)
        score, probability, heat = DeployedStudent(student, 1.7, maps=True)(nhwc(batch))
        torch.testing.assert_close(score, student.score(batch), atol=1e-6, rtol=0)
    assert 0.01 < score.min() < score.max() < 0.99
    expected = probabilities(score.double().numpy(), 1.7)
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(heat, heat_maps(student, batch)[1], atol=1e-5, rtol=1e-4)
    assert heat.max() > 0


def test_probabilities_of_certain_scores_are_those_of_predict():
    student, batch = small_student(), random_batch()
    with torch.no_grad():
        student.classif.main[-1].weight.mul_(1e3)
        score, probability = DeployedStudent(student, 3.0, maps=False)(nhwc(batch))
    assert {0.0, 1.0} & set(score.tolist())
    expected = probabilities(score.double().numpy(), 3.0)
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-6)


ENCODERS = (
    ("timm", {"arch": "test_vit", "pre_trained": "false", "levels": (2, 4)}),
    ("timm", {"arch": "test_convnext2", "pre_trained": "false"}),
    ("torchvision", {"arch": "resnet18", "pre_trained": "false"}),
    ("clip", {"arch": "tiny-RN", "pre_trained": "random"}),
    ("clip", {"arch": "tiny-ViT", "pre_trained": "random"}),
)


def test_every_image_encoder_is_exported():
    assert {name for name, _ in ENCODERS} == set(IMAGE_ENCODERS)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torchscript"])
@pytest.mark.parametrize(
    ("classifier", "head", "shifts"),
    [("linear", {}, 1), ("patches", {"whole_dropout": 0.5}, 1), ("patches", {"pool": "top_k"}, 2)],
)
@pytest.mark.parametrize(("name", "options"), ENCODERS)
def test_a_graph_takes_any_number_of_images(name, options, classifier, head, shifts, to, tmp_path):
    skip_without(to)
    torch.manual_seed(0)
    parts = {"img_enc": Component(name, options), "classif": Component(classifier, head)}
    student = Student((64, 96), True, **parts, map_shifts=shifts).eval()
    maps = type(student.img_enc).places is not ImageEncoder.places  # CLIP's has none
    network, file = deployed(student, 1.0, maps=maps), tmp_path / FORMATS[to]
    about = {"image": {"size": [64, 96]}, "outputs": network.output_names}
    exporting.FORMATS[to][1](network, about, file, None)
    for size in (1, 3):
        pixels = torch.randint(0, 256, (size, 64, 96, 3), dtype=torch.uint8)
        with torch.no_grad():
            expected = network(pixels)
        found = Exported.open(file).run(pixels.numpy())
        for name, wanted in zip(network.output_names, expected, strict=True):
            np.testing.assert_allclose(found[name], wanted.numpy(), atol=1e-4)


def test_what_onnx_does_not_know_is_one_line(tmp_path, monkeypatch):
    skip_without("onnx")

    def fail(*_arguments, **_options):
        raise torch.onnx.errors.UnsupportedOperatorError("aten::new", 18, None)

    monkeypatch.setattr(torch.onnx, "export", fail)
    network = DeployedStudent(small_student(), 1.0, maps=False)
    with pytest.raises(UserError, match=r"not for ONNX: .*aten::new.*; choose --to torchscript"):
        exporting._to_onnx(network, {"image": {"size": [64, 96]}}, tmp_path / "model.onnx", None)


@pytest.fixture
def run(smoke, tmp_path):
    """The finished smoke run; what is written goes to another folder."""
    return smoke / "run", tmp_path


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.slow
def test_a_file_has_the_scores_of_test_py(run, to, capsys):
    skip_without(to)
    folder, out = run
    file = out / FORMATS[to]
    assert export_py.main([str(folder), "--to", to, "--out", str(file)]) == 0
    said = capsys.readouterr().out
    assert "largest difference of a score" in said
    assert said.count("AUROC") == 1
    assert {path.suffix for path in out.iterdir()} <= {file.suffix, ".bin"}  # nothing unfinished
    exported = Exported.open(file)
    assert exported.about["objects"] == ["candle", "pipe_fryum"]
    assert exported.about["image"] == {"size": [32, 64], "resize": "full", "range": "type"}
    assert exported.about["threshold"] == exported.about["verdicts"]["thresholds"][""]["value"]
    for size in (1, 3):  # the batch is free
        found = exported.run(np.zeros((size, 32, 64, 3), dtype=np.uint8))
        assert found["score"].shape == found["probability"].shape == (size,)


def test_the_program_of_the_page_runs_as_it_is_printed(run, capsys, monkeypatch):
    skip_without("onnx")
    folder, out = run
    assert export_py.main([str(folder), "--to", "onnx", "--out", str(out / "model.onnx")]) == 0
    capsys.readouterr()
    page = Path("docs/deploy.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    (out / "inspect_pictures.py").write_text(program, encoding="utf-8")
    scores = pd.read_csv(folder / "student" / "scores.csv").head(5)
    pictures = [str(folder.parent / "visa" / path) for path in scores["path"]]
    monkeypatch.setattr(sys, "argv", ["inspect_pictures.py", str(out / "model.onnx"), *pictures])
    runpy.run_path(str(out / "inspect_pictures.py"), run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows] == pictures
    np.testing.assert_allclose([float(row[1]) for row in rows], scores["score"], atol=1e-5)
    threshold = Exported.open(out / "model.onnx").about["threshold"]
    expected = ["anomalous" if score >= threshold else "normal" for score in scores["score"]]
    assert [row[0] for row in rows] == expected
    imports = set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE))
    assert imports <= {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL"}


def test_a_file_that_differs_is_not_left(run, capsys, monkeypatch):
    folder, out = run
    monkeypatch.setattr(Exported, "score", lambda self, batch: torch.rand(len(batch)))
    file = out / "model.pt"
    file.write_bytes(b"before")
    assert export_py.main([str(folder), "--to", "torchscript", "--out", str(file)]) == 2
    assert "so no file is written" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["model.pt"]
    assert file.read_bytes() == b"before"


@pytest.mark.slow
def test_int8_keeps_the_auroc_or_leaves_no_file(run, capsys, monkeypatch):
    skip_without("onnx")
    folder, out = run
    monkeypatch.setattr(exporting, "INT8_POINTS", 101.0)
    monkeypatch.setattr(exporting, "INT8_VERDICTS", 1.0)
    file = out / "model.onnx"
    assert export_py.main([str(folder), "--to", "onnx", "--int8", "--out", str(file)]) == 0
    assert b"QuantizeLinear" in file.read_bytes()
    assert Exported.open(file).about["int8"]
    monkeypatch.setattr(exporting, "INT8_VERDICTS", -0.1)
    file.unlink()
    assert export_py.main([str(folder), "--to", "onnx", "--int8", "--out", str(file)]) == 2
    assert "of the verdicts, so no file is written" in capsys.readouterr().err
    monkeypatch.setattr(exporting, "INT8_VERDICTS", 1.0)
    monkeypatch.setattr(exporting, "INT8_POINTS", -1.0)
    assert export_py.main([str(folder), "--to", "onnx", "--int8", "--out", str(file)]) == 2
    assert "point of AUROC" in capsys.readouterr().err
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--to", "onnx"], "nowhere: holds no trained student"),
        (["{run}", "--to", "torchscript", "--maps"], "visualize.py draws one by gradients"),
        (["{run}", "--to", "torchscript", "--int8"], "for onnx and openvino only"),
        (["{run}", "--to", "torchscript", "--out", "a.onnx"], "ends with .pt"),
        (["{run}", "--to", "torchscript", "--data", "gone"], "--data FOLDER"),
        (["{run}/teacher", "--to", "torchscript"], "only a student can be exported"),
    ],
)
def test_mistakes_are_one_line(run, capsys, arguments, message):
    folder, out = run
    out = ["--out", str(out / "model.pt")] if "--out" not in arguments else []
    assert export_py.main([text.format(run=folder) for text in arguments] + out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named(run, capsys, monkeypatch):
    folder, out = run
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = out / "model.onnx"
    assert export_py.main([str(folder), "--to", "onnx", "--out", str(file)]) == 2
    assert "pip install -r requirements-export.txt" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS.values())
def test_damaged_and_foreign_files_are_refused(name, tmp_path):
    skip_without(next(to for to, file in FORMATS.items() if file == name))
    (tmp_path / name).write_bytes(json.dumps({"no": "model"}).encode())
    with pytest.raises(exporting.UserError, match=r"is damaged, or not of export\.py"):
        Exported.open(tmp_path / name)


def test_what_a_killed_export_left_is_removed(tmp_path):
    left, other = tmp_path / ".export_a", tmp_path / ".export_b"
    for folder in (left, other):
        folder.mkdir()
        (folder / ".lock").write_bytes(b"")
        os.utime(folder / ".lock", (1, 1))
    with (other / ".lock").open("rb") as lock:
        assert hold(lock)
        with exporting._unfinished(tmp_path / "model.onnx") as part:
            part.write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".export_b", "model.onnx"]
