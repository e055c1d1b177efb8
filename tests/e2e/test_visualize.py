"""The pictures of a small trained run, and what is said where there is nothing to show."""

import shutil

import pandas as pd
import pytest
from PIL import Image

import run as run_py
import visualize as visualize_py
from tests.fixtures import write_smoke
from utils.errors import NothingToShowError


@pytest.fixture
def copy(smoke, tmp_path):
    """A trained run, to write into."""
    shutil.copytree(smoke / "run", tmp_path / "run")
    return write_smoke(tmp_path, smoke / "visa")


@pytest.mark.slow
def test_pictures_and_figures(copy, tmp_path, capsys):
    student, teacher = tmp_path / "run/student", tmp_path / "run/teacher"
    copies = ["--out", tmp_path / "new/fig.png", "--attention-out", tmp_path / "words.png"]
    assert visualize_py.main([str(argument) for argument in (copy, *copies)]) == 0
    said = capsys.readouterr().out
    for made, other in (
        (student / "gradcam.png", tmp_path / "new/fig.png"),
        (teacher / "attention.png", tmp_path / "words.png"),
    ):
        assert made.read_bytes() == other.read_bytes()
        with Image.open(made) as picture:
            assert picture.width == 1245  # 1.5 times what a README has
            assert len(picture.convert("RGB").getcolors(2**24)) > 1000
    table = pd.read_csv(student / "gradcam.csv", index_col="object")
    assert list(table.index) == ["candle", "pipe_fryum", "mean"]
    assert table["n"].tolist() == [2, 2, 4]
    assert table["heat_in_mask"].between(0, 100).all()
    assert 0 < table.loc["mean", "mask_area"] < 10
    text = (student / "gradcam.md").read_text(encoding="utf-8")
    assert text in said
    assert "seed 7" in text
    assert "words up to the object's name" in said


@pytest.mark.slow
def test_without_masks_there_are_dashes(smoke, tmp_path, capsys):
    root = tmp_path / "visa"
    shutil.copytree(smoke / "visa", root)
    for table in (root / "split_csv").iterdir():
        lines = [
            line.rsplit(",", 1)[0] + ","
            for line in table.read_text(encoding="utf-8").splitlines()[1:]
        ]
        table.write_text("\n".join(["object,split,label,image,mask", *lines]), encoding="utf-8")
    shutil.copytree(smoke / "run", tmp_path / "run")
    options = [str(write_smoke(tmp_path, root)), "exp.resume=any_options"]
    alone = ["teacher=null", "student.objective=cross_entropy", "dataset.objects=[candle]"]
    assert visualize_py.main([*options, *alone]) == 0
    table = pd.read_csv(tmp_path / "run/student/gradcam.csv", index_col="object")
    assert table["n"].tolist() == [0, 0]
    assert table["heat_in_mask"].isna().all()
    assert table["peak_anomalous"].notna().all()
    assert (tmp_path / "run/student/gradcam.png").exists()
    assert "| candle   |   0 |              - |" in capsys.readouterr().out


def test_a_teacher_without_attention(copy, tmp_path, capsys, monkeypatch):
    def nothing(*args):
        raise NothingToShowError("the fusion has no attention")

    monkeypatch.setattr("jobs.visualizing.visualizing.word_maps", nothing)
    monkeypatch.setattr("jobs.visualizing.visualizing._draw_maps", lambda *args: b"")
    assert visualize_py.main([str(copy)]) == 0
    assert "run/teacher: the fusion has no attention" in capsys.readouterr().out
    assert visualize_py.main([str(copy), "--attention-out", str(tmp_path / "words.png")]) == 2
    assert "run/teacher: the fusion has no attention" in capsys.readouterr().err
    assert not (tmp_path / "words.png").exists()


def test_several_processes_are_refused(copy, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert visualize_py.main([str(copy)]) == 2
    assert "runs in one process; start it without torchrun" in capsys.readouterr().err


def test_nothing_is_trained(smoke, tmp_path, capsys):
    options = write_smoke(tmp_path, smoke / "visa")
    assert visualize_py.main([str(options)]) == 2
    assert "student: nothing is trained yet; first: python run.py" in capsys.readouterr().err


def test_what_cannot_be_shown(copy, tmp_path, capsys):
    alone = ["teacher=null", "student.objective=cross_entropy", "exp.resume=any_options"]
    assert visualize_py.main([str(copy), *alone, "--attention-out", "words.png"]) == 2
    assert "trains no teacher: nothing to draw there" in capsys.readouterr().err
    assert visualize_py.main([str(copy), "misc.seed=8"]) == 2
    assert "misc.seed is 8, was 7" in capsys.readouterr().err


@pytest.mark.slow
def test_one_model_per_object_makes_one_picture_each(smoke, tmp_path, capsys):
    options = [str(write_smoke(tmp_path, smoke / "visa")), "dataset.per_object=true"]
    options += ["teacher=null", "student.objective=cross_entropy", "engine.epochs=1"]
    assert run_py.main(options) == 0
    assert visualize_py.main(options) == 0
    for name in ("candle", "pipe_fryum"):
        table = pd.read_csv(tmp_path / "run" / name / "student/gradcam.csv", index_col="object")
        assert list(table.index) == [name, "mean"]
    assert visualize_py.main([*options, "--out", str(tmp_path / "fig.png")]) == 2
    assert "one model per object makes many pictures" in capsys.readouterr().err
