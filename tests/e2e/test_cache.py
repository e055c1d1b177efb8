"""What commands keep between runs, and that they keep nothing where nothing is to be kept."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

import check as check_py
import compare as compare_py
import run as run_py
import test as test_py
from options.load import load
from tests.fixtures import session_of, write_smoke, write_visa
from utils.store import Store

COMPARISON = """
dir: {folder}/out
dataset: {{name: visa, dir: {root}, split: 2cls_highshot, cache: {cache}}}
misc: {{seed: 7, device: cpu, precision: fp32}}
columns:
  clip: {{options: options/baselines/clip.yaml, stage: baseline, overrides: [
    baseline.model.arch=tiny-ViT, baseline.model.pre_trained=random, baseline.image.size=64]}}
  student: {{options: {folder}/smoke.yaml, overrides: ["engine.epochs=1"]}}
"""


def comparison(folder, root, cache):
    path = folder / "comparison.yaml"
    path.write_text(COMPARISON.format(folder=folder, root=root, cache=cache), encoding="utf-8")
    return str(path)


def tree(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_without_a_cache_nothing_is_written_outside_the_folder_of_the_run(
    tmp_path, monkeypatch, capsys
):
    """Neither in the working folder nor among the data, which cannot be written."""
    root, work, runs = write_visa(tmp_path / "visa"), tmp_path / "work", tmp_path / "runs"
    for folder in (work, runs):
        folder.mkdir()
    shutil.copytree("options", work / "options")
    options = str(write_smoke(runs, root))
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.chdir(work)
    before = {folder: tree(folder) for folder in (root, work)}
    none = ["dataset.cache=null", "engine.epochs=1"]
    assert run_py.main([options, *none]) == 0
    assert test_py.main([options, *none, "--oracle-text"]) == 0
    assert check_py.main([options, *none, f"--out={runs}/report"]) == 0
    assert compare_py.main([comparison(runs, root, "null")]) == 0
    assert {folder: tree(folder) for folder in (root, work)} == before
    names = ["comparison.yaml", "out", "report", "run", "smoke.yaml"]
    assert sorted(path.name for path in runs.iterdir()) == names
    assert not [path for path in runs.rglob("*") if path.suffix in (".pixels", ".sqlite", ".lock")]


def test_every_network_keeps_its_sentences_where_the_run_keeps_everything(smoke):
    run = load(smoke / "smoke.yaml", [f"dataset.cache={smoke}/cache", "dataset.cache_gb=2"])
    session = session_of(run)
    for network in (session.network("student"), session.untrained("student")):
        assert network.model.store == Store(smoke / "cache", 2 * 10**9)


def write_line(root, brightness):
    """Pictures whose names, sizes and times are the same for each line of a factory."""
    random = np.random.default_rng(brightness)
    for kind, count in (("good", 10), ("bad", 6)):
        (root / kind).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, brightness, (20, 30, 3), dtype=np.uint8)
            pixels[5:10, 5:10] += 20 if kind == "bad" else 0
            Image.fromarray(pixels).save(root / kind / f"{i:03}.bmp")
            os.utime(root / kind / f"{i:03}.bmp", (0, 0))
    return root


@pytest.mark.slow
def test_two_lines_with_equal_names_sizes_and_times(tmp_path):
    """Trained, guided and tested on the second one's pictures, whatever was decoded before."""
    results = {}
    for name, root, cache in (
        ("first", write_line(tmp_path / "line_a", 100), tmp_path / "cache"),
        ("second", write_line(tmp_path / "line_b", 200), tmp_path / "cache"),
        ("alone", tmp_path / "line_b", "null"),
    ):
        options = write_smoke(tmp_path, root)
        data = f"dataset={{name: folder, dir: {root}, val_fraction: 0.4, cache: {cache}}}"
        arguments = [str(options), data, "engine.epochs=1", f"exp.dir={tmp_path}/{name}"]
        assert run_py.main(arguments) == 0
        assert test_py.main(arguments) == 0
        results[name] = [
            (tmp_path / name / stage / "scores.csv").read_text(encoding="utf-8")
            for stage in ("teacher", "student")
        ]
    assert results["second"] == results["alone"] != results["first"]
