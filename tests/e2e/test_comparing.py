"""Methods side by side on tiny pictures: what runs, what cannot and why, what is used again."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import compare as compare_py
import run as run_py
import test as test_py
from jobs.build import load_model
from jobs.run_folder import StageFolder
from jobs.session import Session
from models.base import AnomalyModel
from models.methods import METHODS
from tests.fixtures import write_smoke
from tests.layouts import Painter
from utils.checkpoint import read_about, save_weights, state_hash
from utils.evaluation import per_object

COMPARISON = """
dir: {folder}/out
title: Tiny 100%
dataset: {{name: visa, dir: {root}, split: 2cls_highshot, cache: {folder}/cache}}
misc: {{seed: 7, device: cpu, precision: fp32}}
columns:
  ours: {{title: Ours, options: {folder}/smoke.yaml}}
  teacher: {{options: {folder}/smoke.yaml, stage: teacher}}
  oracle: {{options: {folder}/smoke.yaml, stage: teacher, text: oracle}}
  later: {{title: Later, options: {folder}/smoke.yaml, overrides: [exp.dir={folder}/later]}}
"""


class Bright(AnomalyModel):
    """Scores an image by its brightest pixel; its map is the brightness. It learns nothing."""

    has_map = True
    maps = 0

    def __init__(self, image_size, load_weights):
        super().__init__()

    @classmethod
    def needs_training(cls, options):
        return False

    def forward(self, batch):
        raise NotImplementedError

    def encoders(self):
        return ()

    def score(self, batch):
        return batch.image.float().mean(1).flatten(1).amax(1)

    def score_and_map(self, batch):
        Bright.maps += 1
        return self.score(batch), batch.image.float().mean(1)


@pytest.fixture
def folder(smoke, tmp_path):
    """The finished smoke run, with a comparison beside it; no test here changes a file in place."""
    shutil.copytree(smoke / "run", tmp_path / "run", copy_function=os.link)
    write_smoke(tmp_path, smoke / "visa")
    (tmp_path / "compare.yaml").write_text(
        COMPARISON.format(folder=tmp_path, root=smoke / "visa"), encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def bright(folder, monkeypatch):
    """A method with maps that needs no training, and its options file."""
    monkeypatch.setitem(METHODS, "bright", Bright)
    text = (folder / "smoke.yaml").read_text(encoding="utf-8").split("optimizer:")[0]
    path = folder / "bright.yaml"
    path.write_text(
        f"{text}engine: {{eval_batch_size: 5}}\nbaseline: {{model: bright}}\n", encoding="utf-8"
    )
    return path


def compare(folder, *overrides):
    return compare_py.main([str(folder / "compare.yaml"), *map(str, overrides)])


@pytest.mark.slow
def test_what_can_run_runs_and_what_cannot_says_why(folder, smoke, capsys):
    assert compare(folder, "published=docs/published/visa.csv") == 0
    out = capsys.readouterr().out
    text = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert text in out
    for name, stage in (("ours", "student"), ("teacher", "teacher")):
        wanted = (smoke / "run" / stage / "scores.csv").read_text(encoding="utf-8")
        assert (folder / "out" / name / "scores.csv").read_text(encoding="utf-8") == wanted
    oracle = (smoke / "run/teacher/oracle_text/scores.csv").read_text(encoding="utf-8")
    assert (folder / "out/oracle/scores.csv").read_text(encoding="utf-8") == oracle
    mean = per_object(pd.read_csv(folder / "out/ours/scores.csv")).loc["mean"]
    rows = pd.read_csv(folder / "out/comparison.csv").set_index(["method", "object"])
    assert rows.loc[("Ours", "mean"), "aupr"] == pytest.approx(mean["aupr"], abs=1e-4)
    assert "these objects (8 anomalous)" in text
    assert "¹ oracle: its captions tell the label: an upper bound" in text
    said = (
        f"nothing is trained yet; first: python run.py {folder}/smoke.yaml exp.dir={folder}/later"
    )
    assert f"² Later: {folder}/later/student: {said}" in text
    assert "Tiny 100%: (AUROC, AUPR) in percent" in text
    assert "12 test images" in text
    assert "4 anomalous; prevalence (the AUPR of chance) 33.3. Trained on nothing" in text
    assert "Seed 7" in text
    assert "(37.9, 42.9)" in text
    assert "the prevalence, which is the AUPR of chance, differs" in text
    assert {p.name for p in (folder / "out").iterdir() if p.is_file()} == {
        *(f"comparison.{kind}" for kind in ("md", "csv", "tex")),
        "published.csv",
    }


@pytest.mark.slow
def test_scores_are_used_again_only_if_they_would_be_the_same(folder, capsys, monkeypatch):
    scored = []
    original = Session.scores
    monkeypatch.setattr(Session, "scores", lambda *a, **k: scored.append(1) or original(*a, **k))
    only = ["columns.oracle=null", "columns.later=null"]
    assert compare(folder, *only) == 0
    first = (folder / "out/comparison.csv").read_text(encoding="utf-8")
    assert len(scored) == 2
    assert compare(folder, *only) == 0
    assert len(scored) == 2
    assert (
        f"ours: the scores in {folder}/out/ours are used again" in capsys.readouterr().out.lower()
    )
    assert (folder / "out/comparison.csv").read_text(encoding="utf-8") == first
    assert compare(folder, *only, "columns.teacher.text=oracle") == 0
    assert len(scored) == 3
    weights = folder / "run/student/best.safetensors"
    about = read_about(weights)
    model, _, _ = load_model(weights)
    next(model.parameters()).data.mul_(1.01)
    save_weights(model, weights, about)
    assert compare(folder, *only, "columns.teacher.text=oracle") == 0
    assert len(scored) == 4


def test_the_hash_of_weights_covers_what_a_checkpoint_leaves_out():
    network = torch.nn.BatchNorm2d(3)
    network.register_buffer("scale", torch.ones(()), persistent=False)
    hashes = [state_hash(network)]
    for tensor in (network.weight.data, network.running_mean, network.scale):
        tensor.add_(1e-3)
        hashes.append(state_hash(network))
    assert state_hash(network) == hashes[-1]
    assert len(set(hashes)) == 4


@pytest.mark.slow
def test_an_upper_bound_is_never_in_bold(folder):
    again = f"columns.again={{options: {folder}/smoke.yaml, stage: teacher, text: oracle}}"
    assert compare(folder, "columns.ours=null", "columns.later=null", again) == 0
    means = pd.read_csv(folder / "out/comparison.csv").query("object == 'mean'")["aupr"]
    assert means.iloc[1] > means.iloc[0]
    assert "**" not in (folder / "out/comparison.md").read_text(encoding="utf-8")


def test_other_pictures_are_scored_again(folder, bright, smoke):
    shutil.copytree(smoke / "visa", folder / "visa")
    column = [f"dataset.dir={folder}/visa", "columns.ours=null", "columns.later=null"]
    column += ["columns.oracle=null", f"columns.teacher={{options: {bright}, stage: baseline}}"]
    assert compare(folder, *column) == 0
    before = pd.read_csv(folder / "out/teacher/scores.csv")["score"]
    for path in (folder / "visa").rglob("Normal/009.JPG"):
        shutil.copy(path.with_name("008.JPG"), path)
    assert compare(folder, *column) == 0
    assert not before.equals(pd.read_csv(folder / "out/teacher/scores.csv")["score"])


@pytest.mark.slow
def test_scores_are_of_the_content_of_pictures_and_not_of_their_names(folder, smoke, capsys):
    """Another place and other times change nothing; another picture of the same time does."""
    shutil.copytree(smoke / "visa", folder / "visa")
    for path in (folder / "visa").rglob("*.JPG"):
        path.touch()
    column = "{options: options/baselines/winclip.yaml, stage: baseline, overrides: [%s]}"
    shots = ["baseline.model.arch=tiny-ViT", "baseline.model.pre_trained=random"]
    shots += ["baseline.image.size=64", "baseline.image.resize=full", "baseline.model.shots=1"]
    others = [f"columns.{name}=null" for name in ("ours", "oracle", "later")]
    others.append(f"columns.shots={column % ', '.join(shots)}")
    assert compare(folder, *others) == 0
    capsys.readouterr()
    moved = [f"dataset.dir={folder}/visa", *others]
    assert compare(folder, *moved) == 0
    assert capsys.readouterr().out.count("are used again") == 2
    # A test image; then a training image, which only references are taken from.
    for name, used_again in (("009.JPG", 0), ("000.JPG", 1)):
        path = folder / "visa/candle/Data/Images/Normal" / name
        before = path.stat()
        content = path.read_bytes()
        path.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert compare(folder, *moved) == 0
        assert capsys.readouterr().out.count("are used again") == used_again


@pytest.mark.slow
def test_what_was_done_before_an_interruption_stays(folder, capsys, monkeypatch):
    original = Session.scores
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(Session, "scores", interrupted)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards
    assert compare(folder) == 130
    assert compare(folder) == 0
    assert "Ours: the scores in" in capsys.readouterr().out
    assert len(calls) == 4


@pytest.mark.slow
def test_a_bug_in_one_column_does_not_stop_the_others_and_is_not_hidden(
    folder, bright, monkeypatch
):
    monkeypatch.setattr(Bright, "score", lambda self, batch: batch.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        compare(folder, f"columns.a={{options: {bright}, stage: baseline}}")
    text = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert "a: failed (AttributeError" in text
    assert "Ours" in text
    assert (folder / "out/teacher/scores.csv").exists()


def test_nothing_to_show_is_an_error(folder, capsys):
    left_out = [f"columns.{name}=null" for name in ("ours", "teacher", "oracle")]
    assert compare(folder, *left_out) == 2
    assert "no column could be scored; the footnotes say why" in capsys.readouterr().err
    text = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert "nothing is trained yet" in text
    assert [row.split("|")[1].strip() for row in text.splitlines()[3:6]] == [
        "candle",
        "pipe_fryum",
        "mean",
    ]


def test_a_network_that_was_trained_on_other_images_is_refused(folder, capsys):
    assert compare(folder, "dataset.split=1cls", "columns.later=null") == 2
    said = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert "dataset.split is 1cls, was 2cls_highshot" in said


def test_prevalences_that_differ_have_a_range(folder, bright, smoke):
    shutil.copytree(smoke / "visa", folder / "visa")
    table = folder / "visa/split_csv/2cls_highshot.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text(
        "\n".join(line for line in lines if "candle/Data/Images/Anomaly/005" not in line),
        encoding="utf-8",
    )
    others = [f"columns.{name}=null" for name in ("teacher", "oracle", "later")]
    column = f"columns.ours={{options: {bright}, stage: baseline}}"
    assert compare(folder, f"dataset.dir={folder}/visa", *others, column) == 0
    text = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert "prevalence (the AUPR of chance) 26.7 in the mean, 20.0 to 33.3 by object." in text


@pytest.mark.slow
def test_columns_are_trained_and_scored_for_several_seeds(folder, bright):
    student = ["teacher=null", "student.objective=cross_entropy"]
    column = "{title: Alone, options: %s, overrides: [%s]}"
    alone = column % (folder / "smoke.yaml", ", ".join(student))
    extra = [f"columns.alone={alone}", f"columns.b={{options: {bright}, stage: baseline}}"]
    others = [f"columns.{name}=null" for name in ("ours", "teacher", "oracle", "later")]
    arguments = [str(folder / "compare.yaml"), "--train", "--seeds", "2", *extra, *others]
    assert compare_py.main(arguments) == 0
    assert not (folder / "run/seed_7/baseline").exists()  # there is nothing to train
    assert compare(folder, "seeds=2", *extra) == 0
    rows = pd.read_csv(folder / "out/comparison.csv").set_index(["method", "object"])
    found = rows.loc[("Alone", "mean")]
    scores = [pd.read_csv(folder / f"out/alone/seed_{seed}/scores.csv") for seed in (7, 8)]
    means = [per_object(frame).loc["mean", "auroc"] for frame in scores]
    assert not scores[0].equals(scores[1])
    assert found["auroc"] == pytest.approx(sum(means) / 2, abs=1e-4)
    assert found["auroc_spread"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5, abs=1e-4)
    assert (found["seeds"], rows.loc[("b", "mean"), "seeds"]) == (2, 1)  # b draws nothing
    text = (folder / "out/comparison.md").read_text(encoding="utf-8")
    assert f"python run.py {folder}/smoke.yaml --seeds 2" in text  # of the student with a teacher
    assert f"{folder}/run/seed_7/student: was made with other options" in text
    assert "Mean ± standard deviation over the seeds 7, 8" in text


@pytest.mark.slow
def test_each_training_image_is_scored_by_a_network_that_has_not_seen_it(folder, smoke, capsys):
    others = [f"columns.{name}=null" for name in ("ours", "teacher", "oracle", "later")]
    frozen = ["teacher=null", "student.objective=cross_entropy", "student.model.img_enc.train=none"]
    frozen.append("student.engine.epochs=1")
    column = f"columns.alone={{options: {folder}/smoke.yaml, overrides: [{', '.join(frozen)}]}}"
    options = ("folds=3", "seeds=2", f"runs={folder}/cv", column, *others)
    assert compare(folder, *options) == 2
    assert "dataset.fold=[1, 3]" in capsys.readouterr().out
    assert compare_py.main([str(folder / "compare.yaml"), "--train", *options]) == 0
    said = capsys.readouterr().out
    assert "training images, each of 3 folds scored by a network of the others" in said
    lists = pd.read_csv(smoke / "visa/split_csv/2cls_highshot.csv")
    listed = {*lists.loc[lists["split"] == "train", "image"]}
    aurocs = []
    for seed in ("seed_7", "seed_8"):
        parts = []
        for fold in ("fold_1", "fold_2", "fold_3"):
            part = pd.read_csv(folder / f"out/alone/{seed}/{fold}/scores.csv")
            run = folder / f"cv/alone/{seed}/{fold}/student"
            learned = StageFolder(run, "student").learned(smoke / "visa")
            names = {str(path.relative_to((smoke / "visa").resolve())) for path in learned.files}
            assert names | {*part["path"]} == listed
            assert not names & {*part["path"]}
            parts.append(part)
        pooled = pd.concat(parts)
        assert sorted(pooled["path"]) == sorted(listed)
        aurocs.append(per_object(pooled).loc["mean", "auroc"])
    row = pd.read_csv(folder / "out/comparison.csv").set_index(["method", "object"])
    assert row.loc[("alone", "mean"), "auroc"] == pytest.approx(sum(aurocs) / 2, abs=1e-4)
    kept = list((folder / "cache").rglob("*.tokens"))
    assert len(kept) == 2  # one for each seed, whose random encoder is another: of all folds
    assert compare(folder, *options) == 0
    assert capsys.readouterr().out.count("are used again") == 6


def test_maps_are_made_when_asked_for_and_only_then(folder, bright, capsys):
    Bright.maps = 0
    assert test_py.main([str(bright)]) == 0
    assert Bright.maps == 2  # batches: the report shows maps of the hardest images
    Bright.maps = 0
    assert "AUPRO" not in capsys.readouterr().out
    scores = (folder / "run/baseline/scores.csv").read_text(encoding="utf-8")
    assert test_py.main([str(bright), "--maps"]) == 0
    assert Bright.maps == 5
    assert (folder / "run/baseline/scores.csv").read_text(encoding="utf-8") == scores
    text = (folder / "run/baseline/table.md").read_text(encoding="utf-8")
    assert "pixel AUROC |   AUPRO |" in text
    assert "images with a mask: candle 2, pipe_fryum 2." in text
    assert " 4 regions as they were drawn, 4 at this size." in text
    table = pd.read_csv(folder / "run/baseline/table.csv", index_col=0)
    assert table.loc["mean", ["pixel_auroc", "aupro"]].min() > 90  # the squares are bright
    rows = json.loads((folder / "run/baseline/table.json").read_text(encoding="utf-8"))["objects"]
    assert rows[0]["masks"] == 2


@pytest.mark.slow
def test_maps_of_a_network_that_has_none(folder, capsys):
    assert test_py.main([str(folder / "smoke.yaml"), "--maps"]) == 0
    out = capsys.readouterr().out
    assert "student, image only: has no anomaly map; --maps adds nothing" in out
    assert "AUPRO" not in out


def test_regions_that_merge_are_counted_before_and_after(folder, bright, smoke):
    """Two squares, a pixel apart in the file, are one at the size of the network."""
    shutil.copytree(smoke / "visa", folder / "visa")
    mask = next((folder / "visa/candle/Data/Masks/Anomaly").iterdir())
    with Image.open(mask) as image:
        squares = np.zeros(image.size[::-1], np.uint8)
    squares[4:8, 4:8] = squares[4:8, 9:13] = 1
    for file in mask.parent.iterdir():
        Image.fromarray(squares).save(file)
    options = [str(bright), f"dataset.dir={folder}/visa", "image.size=8"]
    assert test_py.main([*options, "--maps"]) == 0
    table = pd.read_csv(folder / "run/baseline/table.csv", index_col=0)
    assert table.loc["candle", ["regions_drawn", "regions"]].tolist() == [4, 2]
    assert table.loc["mean", ["regions_drawn", "regions"]].tolist() == [6, 4]


def test_maps_without_masks(folder, bright, smoke, capsys):
    shutil.copytree(smoke / "visa", folder / "visa")
    for name in ("candle", "pipe_fryum"):
        split = folder / "visa/split_csv/2cls_highshot.csv"
        split.write_text(
            split.read_text(encoding="utf-8").replace(f"{name}/Data/Masks/Anomaly/005.png", ""),
            encoding="utf-8",
        )
    where = f"dataset.dir={folder}/visa"
    assert test_py.main([str(bright), "--maps", where]) == 0
    text = (folder / "run/baseline/table.md").read_text(encoding="utf-8")
    assert "candle 1, pipe_fryum 1; 2 anomalous images without a mask are left out" in text
    split.write_text(
        split.read_text(encoding="utf-8").replace("candle/Data/Masks/Anomaly/004.png", ""),
        encoding="utf-8",
    )
    assert test_py.main([str(bright), "--maps", where]) == 0
    text = (folder / "run/baseline/table.md").read_text(encoding="utf-8")
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[-3:-1]] == ["-", "-"]
    split.write_text(
        split.read_text(encoding="utf-8").replace("pipe_fryum/Data/Masks/Anomaly/004.png", ""),
        encoding="utf-8",
    )
    capsys.readouterr()
    assert test_py.main([str(bright), "--maps", where]) == 0
    assert "no test image has a mask; --maps adds nothing" in capsys.readouterr().out


def test_without_test_images_there_is_nothing_to_compare(folder, smoke, capsys):
    shutil.copytree(smoke / "visa", folder / "visa")
    table = folder / "visa/split_csv/2cls_highshot.csv"
    table.write_text(
        table.read_text(encoding="utf-8").replace(",test,", ",train,"), encoding="utf-8"
    )
    assert compare(folder, f"dataset.dir={folder}/visa") == 2
    assert f"{folder}/visa: no test images; see dataset.split" in capsys.readouterr().err


def test_several_processes_are_refused(folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compare(folder) == 2
    assert "compare.py: scores in one process; start it without torchrun" in capsys.readouterr().err


@pytest.mark.slow
def test_a_baseline_is_not_tested_on_what_it_learned_from(smoke, tmp_path, capsys):
    auxiliary = f"{{name: visa, dir: {smoke}/visa, split: 2cls_highshot, objects: [candle]}}"
    options = [
        "options/baselines/vand.yaml",
        f"dataset.dir={smoke}/visa",
        "dataset.split=2cls_highshot",
        f"dataset.auxiliary={auxiliary}",
        "dataset.cache=null",
        "baseline.model={name: vand, arch: tiny-ViT, pre_trained: random, levels: [1, 2]}",
        "baseline.image.size=64",
        "baseline.engine={epochs: 1, batch_size: 2}",
        f"exp.dir={tmp_path}/vand",
    ]
    assert run_py.main([*options, "dataset.objects=[pipe_fryum]"]) == 0
    assert test_py.main([*options, "dataset.objects=[pipe_fryum]", "--maps"]) == 0
    assert "images with a mask: pipe_fryum 2." in capsys.readouterr().out
    assert test_py.main([*options, "dataset.objects=[]"]) == 2
    assert "dataset.auxiliary: holds images that are to be tested" in capsys.readouterr().err
    # The same pictures, seen from the folder above theirs.
    text = (tmp_path / "vand/meta_visa.json").read_text(encoding="utf-8")
    (tmp_path / "list.json").write_text(
        text.replace('_path": "pipe', '_path": "visa/pipe'), encoding="utf-8"
    )
    auxiliary = f"dataset.auxiliary={{name: meta, dir: {smoke}, file: {tmp_path}/list.json}}"
    options[3] = auxiliary
    for program in (run_py, test_py):
        assert program.main([*options, "dataset.objects=[pipe_fryum]"]) == 2
        assert "dataset.auxiliary: holds images that are to be tested" in capsys.readouterr().err


@pytest.mark.slow
def test_every_column_beside_one_of_them(folder, capsys):
    command = [str(folder / "compare.yaml"), "against=teacher"]
    assert compare_py.main([*command, "columns.later=null"]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(folder / "out/differences.csv").set_index("method")
    assert list(table.index) == ["Ours", "teacher", "oracle"]
    figures = pd.read_csv(folder / "out/comparison.csv").set_index(["method", "object"])
    gap = figures["auroc"]["Ours", "mean"] - figures["auroc"]["teacher", "mean"]
    assert table["auroc"]["Ours"] == pytest.approx(gap, abs=1e-3)
    assert "the difference from teacher" in printed
    for options in (["against=techer"], ["--train", "against=techer"]):  # before any training
        assert compare_py.main([str(folder / "compare.yaml"), *options]) == 2
        assert capsys.readouterr().err.endswith(
            "against: there is no column 'techer'; did you mean 'teacher'?\n"
        )


@pytest.mark.slow
def test_an_image_only_teacher_guides_a_student(folder):
    tower = "img_enc: {name: clip, arch: tiny-RN, pre_trained: random}"
    words = [f"teacher.model={{name: student, {tower}, classif: linear}}"]
    words += [f"exp.dir={folder}/image_teacher", "engine.epochs=1"]
    words += ["teacher.engine.epochs=1", "student.engine.epochs=1"]
    assert run_py.main([str(folder / "smoke.yaml"), *words]) == 0
    assert test_py.main([str(folder / "smoke.yaml"), *words]) == 0
    assert "image only" in (folder / "image_teacher/teacher/table.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_where_the_heat_lies_is_compared_with_another_column(folder, bright, capsys):
    extra = f"columns.bright={{options: {bright}, stage: baseline}}"
    options = (extra, "columns.later=null", "against=ours", "localization=true")
    assert compare(folder, *options) == 0
    scores = pd.read_csv(folder / "out/bright/scores.csv").set_index("path")
    shows = scores["label"] == 1
    assert scores.loc[shows, "heat_in_mask"].between(0, 1, inclusive="neither").all()
    assert scores.loc[~shows, ["pointing", "heat_in_mask"]].isna().all(axis=None)
    table = pd.read_csv(folder / "out/differences.csv").set_index("method")
    mean = scores.groupby("object")["heat_in_mask"].mean().mean() * 100
    assert table.loc["bright", "heat_in_mask_mean"] == pytest.approx(mean, abs=1e-4)
    gap = table.loc["bright", "heat_in_mask_mean"] - table.loc["Ours", "heat_in_mask_mean"]
    assert table.loc["bright", "heat_in_mask"] == pytest.approx(gap, abs=1e-3)
    assert table.loc["teacher"].filter(like="heat").isna().all()  # it has no map
    assert "heat in mask" in capsys.readouterr().out
    before = (folder / "out/differences.csv").read_bytes()
    assert compare(folder, *options) == 0
    assert capsys.readouterr().out.count("are used again") == 4
    assert (folder / "out/differences.csv").read_bytes() == before


@pytest.mark.slow
def test_a_test_list_of_one_label(bright, folder, capsys):
    """What needs no training is scored all the same: figures that do not exist are ``-``."""
    rows = ["image_path,label,split,object,mask_path"]
    for i, name in enumerate(("nut", "nut", "nut", "bolt", "bolt", "bolt")):
        Painter()(folder / f"data/{i}.png", is_bad=True, mask=folder / f"data/m{i}.png")
        rows.append(f"{i}.png,1,test,{name},m{i}.png")
    (folder / "data/labels.csv").write_text("\n".join(rows), encoding="utf-8")
    source = f"dataset={{name: csv, dir: {folder}/data, cache: {folder}/cache}}"
    assert test_py.main([str(bright), source, f"exp.dir={folder}/one", "--maps"]) == 0
    table = pd.read_csv(folder / "one/baseline/table.csv", index_col="object")
    assert table[["auroc", "aupr"]].isna().all(axis=None)
    assert table[["pixel_auroc", "aupro"]].notna().all(axis=None)
    assert "Mean over 0 of 2 objects (without bolt, nut: only one label)" in capsys.readouterr().out
    columns = (
        f"columns={{a: {{options: {bright}, stage: baseline}}, "
        f"b: {{options: {bright}, stage: baseline, title: B}}}}"
    )
    assert compare(folder, source, columns, "against=a") == 0
    said = capsys.readouterr().out
    assert "(without bolt, nut: one label only)" in said
    assert re.search(r"\| B +\| +- \| +- \|\n", said)

    rows += [f"{i}.png,{i % 2},test,ring," for i in range(6, 10)]
    for i in range(6, 10):
        Painter()(folder / f"data/{i}.png", is_bad=bool(i % 2))
    (folder / "data/labels.csv").write_text("\n".join(rows), encoding="utf-8")
    assert compare(folder, source, columns) == 0
    assert "8 anomalous; prevalence (the AUPR of chance) 50.0. " in capsys.readouterr().out
