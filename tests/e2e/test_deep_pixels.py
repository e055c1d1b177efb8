"""Pictures of 16 bits with a range found on the training images: trained, tested, predicted."""

import numpy as np
import pytest
import yaml
from PIL import Image

import run as run_py
import test as test_py
from jobs.build import load_model
from tests.fixtures import write_smoke, write_visa


def narrow_visa(folder):
    """Pictures of 16 bits that hold about a thousand of the 65,536 gray levels."""
    root = write_visa(folder)
    for file in root.glob("*/Data/Images/*/*.JPG"):
        with Image.open(file) as image:
            gray = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(gray * 4 + 33_000).save(file, format="TIFF")
    return root


@pytest.mark.slow
def test_the_range_is_found_once_and_stored_with_the_model(tmp_path, capsys):
    root = narrow_visa(tmp_path / "visa")
    options = [str(write_smoke(tmp_path, root)), "teacher=null", "student.objective=cross_entropy"]
    assert run_py.main([*options, "image.range=data", "engine.epochs=1"]) == 0
    assert "keep few of their gray levels" not in capsys.readouterr().err
    stored = yaml.safe_load((tmp_path / "run/student/options.yaml").read_text(encoding="utf-8"))
    low, high = stored["student"]["image"]["range"]
    assert 32_500 < low < 33_300
    assert 33_800 < high < 34_600
    assert test_py.main([*options, "image.range=data", "engine.epochs=1"]) == 0
    _, stage, _ = load_model(tmp_path / "run/student/best.safetensors")
    assert stage.image.view.levels == (low, high)
    assert test_py.main([*options, "engine.epochs=1"]) == 2
    assert "image.range" in capsys.readouterr().err
    assert test_py.main([*options, f"image.range=[{high},{low}]"]) == 2
    assert "range: white must be above black" in capsys.readouterr().err


def test_without_training_images_no_range_is_found(tmp_path, capsys):
    root = write_visa(tmp_path / "visa")
    table = root / "split_csv/2cls_highshot.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(line for line in lines if ",train," not in line), encoding="utf-8")
    arguments = ["options/baselines/demo_clip.yaml", f"dataset.dir={root}", "misc.device=cpu"]
    assert test_py.main([*arguments, "image.range=data", f"dataset.cache={tmp_path}/c"]) == 2
    assert "image.range=data is found on training images" in capsys.readouterr().err


def test_a_test_without_training_names_narrow_ranges(tmp_path, capsys):
    root = narrow_visa(tmp_path / "visa")
    arguments = ["options/baselines/demo_clip.yaml", f"dataset.dir={root}", "misc.device=cpu"]
    arguments += ["image.size=32", f"dataset.cache={tmp_path}/c", f"exp.dir={tmp_path}/run"]
    for option, times in ((), 1), (("image.range=data",), 0):
        assert test_py.main([*arguments, *option]) == 0
        assert capsys.readouterr().out.count("keep few of their gray levels in 8 bits") == times
