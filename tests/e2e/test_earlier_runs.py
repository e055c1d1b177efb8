"""What an earlier version trained can still be tested, and gets the scores it had."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import test as test_py
from tests.fixtures import write_visa

RUN = Path("tests/data/run_c1b69ef")  # trained and scored by run.py and test.py of that commit
OPTIONS = """
exp: {{dir: {folder}/run}}
dataset:
  name: visa
  dir: {folder}/visa
  split: 2cls_highshot
  val_fraction: 0.3
  cache: {folder}/cache
  auxiliary: {{name: visa, dir: {folder}/auxiliary, split: 2cls_highshot}}
misc: {{seed: 7, device: cpu, precision: fp32}}
image: {{size: [48, 96]}}
optimizer: {{name: AdamW, lr: 1e-3, head_lr: 5e-3}}
schedule: one_cycle
engine: {{epochs: 2, batch_size: 4, num_workers: 0}}
teacher: {folder}/run/teacher
student:
  model:
    name: student
    img_enc: {{name: clip, arch: demo-ViT, pre_trained: random}}
    classif: linear
  augment: {{horizontal_flip: 0.5}}
  objective: {{name: distillation, feature_weight: 0.5}}
baseline:
  model: {{name: vand, arch: demo-ViT, pre_trained: demo, levels: [2, 4], temperature: 0.07}}
  objective: segmentation
  engine: {{keep: last}}
"""


@pytest.fixture
def folder(tmp_path):
    write_visa(tmp_path / "visa")
    write_visa(tmp_path / "auxiliary", objects=("cashew", "pcb1"))
    for file in (path for path in RUN.rglob("*") if path.is_file()):
        copy = tmp_path / "run" / file.relative_to(RUN)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)  # the repository may be read-only
    (tmp_path / "options.yaml").write_text(OPTIONS.format(folder=tmp_path), encoding="utf-8")
    return tmp_path


def test_the_scores_of_an_earlier_version(folder, capsys):
    for stage in ("student", "baseline"):
        (folder / "run" / stage / "scores.csv").unlink()
    assert test_py.main([str(folder / "options.yaml")]) == 0, capsys.readouterr().err
    for stage in ("student", "baseline"):
        now = pd.read_csv(folder / "run" / stage / "scores.csv")
        before = pd.read_csv(RUN / stage / "scores.csv")
        pd.testing.assert_frame_equal(now, before, rtol=1e-5, check_exact=False)
