"""The published methods from options to table: trained on another data set, or as they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import run as run_py
import test as test_py
from jobs.build import build_learner, build_model, evaluation_batches, load_model
from jobs.data import image_store
from jobs.session import Network
from models.encoders.clip import clip_model
from options.load import load
from options.schema import Stage
from tests.fixtures import job_of, session_of, write_visa
from utils.checkpoint import load_state

OPTIONS = """
exp: {{dir: {folder}/run}}
dataset:
  name: visa
  dir: {data}/visa
  split: 1cls
  cache: {folder}/cache
  val_fraction: 0
misc: {{seed: 7, device: cpu, precision: fp32}}
baseline:
  model: {{arch: tiny-ViT, pre_trained: {weights}, {model}}}
  image: {{size: 64}}
  engine: {{epochs: 4, batch_size: 4, num_workers: 0, keep: last}}
"""
TRAINING = """
  objective: {{name: segmentation, {objective}}}
  optimizer: {{name: Adam, lr: {lr}, betas: [0.5, 0.999]}}
  schedule: constant
  augment: {{mosaic: 0.2}}
"""
LAYERS = {f"layers.{i}.{part}" for i in range(4) for part in ("weight", "bias")}
TRAINED = {
    "vand": {
        "model": "name: vand, levels: [1, 2, 3, 4]",
        "objective": "map_weight: 1",
        "lr": "1e-2",
        "moves": LAYERS,
    },
    "anomalyclip": {
        "model": "name: anomalyclip, levels: [4], depth: 2, dual_blocks: 3",
        "objective": "ce_weight: 1, map_weight: 4, normal_dice: true",
        "lr": "2e-2",
        "moves": {f"prompts_of_states.{part}" for part in ("normal", "anomalous", "deep.0")},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A VisA to test, another one to learn from, and a small CLIP in a file."""
    folder = tmp_path_factory.mktemp("data")
    write_visa(folder / "visa")
    write_visa(folder / "other", objects=("bolt", "nut"), normals=10, anomalies=10)
    torch.manual_seed(3)
    clip = clip_model("tiny-ViT", None, pre_trained="random")
    save_file(clip.state_dict(), folder / "clip.safetensors")
    return folder


def write(folder, data, name, weights, text=""):
    """An options file for ``name``."""
    case = TRAINED[name]
    model = case["model"].format(data=data)
    text += OPTIONS.format(folder=folder, data=data, weights=weights, model=model)
    text += TRAINING.format(**case)
    auxiliary = f"  auxiliary: {{name: visa, dir: {data}/other, split: 1cls}}\n"
    text = text.replace("  val_fraction: 0\n", "  val_fraction: 0\n" + auxiliary)
    (folder / "options.yaml").write_text(text, encoding="utf-8")
    return folder / "options.yaml"


@pytest.fixture(
    scope="module",
    params=[
        *((name, "random") for name in TRAINED),
        *(pytest.param((name, "file"), marks=pytest.mark.slow) for name in TRAINED),
    ],
)
def done(request, data, tmp_path_factory):
    """A method's name, where its CLIP comes from, and its finished and tested run."""
    name, source = request.param
    weights = data / "clip.safetensors" if source == "file" else source
    folder = tmp_path_factory.mktemp(f"{name}_{source}")
    options = write(folder, data, name, weights)
    assert run_py.main([str(options)]) == 0
    assert test_py.main([str(options)]) == 0
    return name, source, folder


@pytest.mark.slow
def test_the_loss_falls(done):
    log = pd.read_csv(done[2] / "run/baseline/log.csv")
    assert log["epoch"].tolist() == [1, 2, 3, 4]
    assert log["loss"].iloc[-1] < 0.9 * log["loss"].iloc[0]
    terms = {"vand": {"focal", "dice"}, "anomalyclip": {"ce", "focal", "dice"}}
    assert terms[done[0]] <= set(log)


def test_only_what_should_move_moves(done, data):
    name, source, folder = done
    run = load(folder / "options.yaml")
    before = dict(build_model(run, "baseline").named_parameters())
    model, _, _ = load_model(folder / "run/baseline/best.safetensors")
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    moved = {n for n, value in after.items() if not torch.equal(value, before[n])}
    assert moved == TRAINED[name]["moves"]
    assert {n for n, value in before.items() if value.requires_grad} == moved
    if source == "file":
        official = load_file(data / "clip.safetensors")
        same = model.clip.state_dict()["visual.proj"]
        assert torch.equal(same, official["visual.proj"])


def test_a_checkpoint_holds_no_weights_of_clip_that_have_a_file(done):
    name, source, folder = done
    with safe_open(folder / "run/baseline/best.safetensors", "pt") as content:
        stored = set(content.keys())
    assert stored >= TRAINED[name]["moves"]
    assert {n for n in stored if not n.startswith("clip.")} == TRAINED[name]["moves"]
    assert any(n.startswith("clip.") for n in stored) == (source == "random")
    state = load_state(folder / "run/baseline/last.pt")["learner"]
    assert any(".clip." in n for n in state) == (source == "random")


def test_a_checkpoint_gives_the_scores_and_maps_of_the_training(done):
    _, _, folder = done
    run = load(folder / "options.yaml")
    model, stage, _ = load_model(folder / "run/baseline/best.safetensors")
    job = job_of(run, "baseline")
    learner = build_learner(job, None).eval()
    learner.load_state_dict(load_state(folder / "run/baseline/last.pt")["learner"])
    batches = evaluation_batches(
        image_store(run, job.splits), stage, job.splits["test"], torch.device("cpu")
    )
    scores = pd.read_csv(folder / "run/baseline/scores.csv").set_index("path")["score"]
    for batch in batches:
        with torch.inference_mode():
            found, maps = model.score_and_map(batch)
            wanted, others = learner.model.score_and_map(batch)
        assert torch.equal(found, wanted)
        assert torch.equal(maps, others)
        assert found.tolist() == pytest.approx(scores[list(batch.path)].tolist(), abs=1e-5)


def test_the_tested_images_are_not_the_trained_ones(done, data):
    lists = json.loads((done[2] / "run/baseline/meta.json").read_text(encoding="utf-8"))
    assert set(lists["train"]) == {"bolt", "nut"}
    assert not any(lists["val"].values())
    scores = pd.read_csv(done[2] / "run/baseline/scores.csv")
    assert set(scores["object"]) == {"candle", "pipe_fryum"}
    trained = [entry["img_path"] for entries in lists["train"].values() for entry in entries]
    table = pd.read_csv(data / "other/split_csv/1cls.csv")
    assert sorted(trained) == sorted(table.loc[table["split"] == "test", "image"])


# ---------------------------------------------------------------- what is refused


def refused(program, capsys, options, *overrides):
    capsys.readouterr()
    assert program.main([str(options), *overrides]) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    return message


def test_images_that_are_to_be_tested_are_not_trained_on(data, tmp_path, capsys):
    options = write(tmp_path, data, "vand", "random")
    same = [f"dataset.auxiliary.dir={data}/visa"]
    message = refused(run_py, capsys, options, *same)
    assert "dataset.auxiliary: holds images that are to be tested" in message
    (tmp_path / "link").symlink_to(data / "visa")
    message = refused(run_py, capsys, options, f"dataset.auxiliary.dir={tmp_path}/link")
    assert "dataset.auxiliary: holds images that are to be tested" in message
    apart = ["dataset.objects=[candle]", "dataset.auxiliary.objects=[pipe_fryum]"]
    assert run_py.main([str(options), *same, *apart, "engine.epochs=1"]) == 0
    layers = 4 * (128 * 128 + 128)
    assert f"M parameters ({layers:,} trained), " in capsys.readouterr().out


@pytest.mark.parametrize("name", TRAINED)
def test_anomalies_without_masks_are_refused(data, tmp_path, capsys, name):
    options = write(tmp_path, data, name, "random")
    shutil.copytree(data / "other", tmp_path / "other")
    for table in (tmp_path / "other").rglob("*.csv"):
        text = table.read_text(encoding="utf-8").replace("bolt/Data/Masks/Anomaly/009.png", "")
        table.write_text(text, encoding="utf-8")
    message = refused(run_py, capsys, options, f"dataset.auxiliary.dir={tmp_path}/other")
    assert (
        "1 anomalous images have no mask, the first is bolt/Data/Images/Anomaly/009.JPG" in message
    )
    assert "leave these images out" in message


def test_masks_that_are_learned_from_are_checked_first(data, tmp_path, capsys):
    options = write(tmp_path, data, "vand", "random")
    shutil.copytree(data / "other", tmp_path / "other")
    mask = tmp_path / "other/bolt/Data/Masks/Anomaly/009.png"
    Image.fromarray(np.ones((5, 5), np.uint8)).save(mask)
    capsys.readouterr()
    assert run_py.main([str(options), f"dataset.auxiliary.dir={tmp_path}/other"]) == 2
    *_, summary, message = capsys.readouterr().err.strip().splitlines()
    assert "1 error" in summary
    assert message.startswith("bolt/Data/Masks/Anomaly/009.png: the mask is 5x5, its picture")
    assert not list(tmp_path.rglob("last.pt"))


@pytest.mark.parametrize("name", TRAINED)
def test_methods_are_trained_on_another_data_set_or_not_at_all(data, tmp_path, capsys, name):
    options = write(tmp_path, data, name, "random")
    message = refused(run_py, capsys, options, "dataset.auxiliary=null")
    assert "is trained on another data set; write a section dataset.auxiliary" in message
    message = refused(test_py, capsys, options)
    assert "nothing is trained yet; first: python run.py" in message
    file = {"vand": "mvtec_pretrained.pth", "anomalyclip": "epoch_15.pth"}[name]
    assert f"or use its authors' weights: baseline.model.released=FILE ({file} of" in message


def test_what_is_wrong_with_the_other_data_set_is_said_of_it(data, tmp_path, capsys):
    options = write(tmp_path, data, "vand", "random")
    message = refused(run_py, capsys, options, f"dataset.auxiliary.dir={tmp_path}/none")
    assert message.startswith("dataset.auxiliary.dir: ")
    assert "name another folder, fetch VisA with" in message
    message = refused(run_py, capsys, options, "dataset.auxiliary.split=3cls")
    assert message.startswith("dataset.auxiliary.split: unknown split '3cls'")


def test_a_released_file_that_does_not_fit_is_one_line(data, tmp_path, capsys):
    options = write(tmp_path, data, "vand", "random")
    torch.save({"trainable_linearlayer": {"fc.0.weight": torch.zeros(2, 2)}}, tmp_path / "a.pth")
    message = refused(test_py, capsys, options, f"baseline.model.released={tmp_path}/a.pth")
    assert "a.pth does not fit" in message
    message = refused(test_py, capsys, options, f"baseline.model.released={tmp_path}/none.pth")
    assert "none.pth: cannot be read as weights" in message


# ---------------------------------------------------------------- as they are

UNTRAINED = {
    "clip": ["baseline.model={name: clip, arch: tiny-ViT, pre_trained: random}"],
    "winclip": [
        "baseline.model={name: winclip, arch: tiny-ViT, pre_trained: random, shots: 2}",
        "baseline.image={size: [64, 128], resize: tiles}",
    ],
    "vand": [],
    "anomalyclip": [],
}


def released(name, folder):
    """The option that names a file of the authors, and the file."""
    content = {
        "vand": {
            "trainable_linearlayer": {
                f"fc.{i}.{part}": torch.randn(size)
                for i in range(4)
                for part, size in (("weight", (128, 128)), ("bias", (128,)))
            }
        },
        "anomalyclip": {
            "prompt_learner": {
                "ctx_pos": torch.randn(1, 1, 12, 64),
                "ctx_neg": torch.randn(1, 1, 12, 64),
                "compound_prompts_text.0": torch.randn(4, 64),
                "token_prefix_pos": torch.randn(1, 1, 1, 64),
            }
        },
    }.get(name)
    if content is None:
        return []
    torch.save(content, folder / "released.pth")
    return [f"baseline.model.released={folder}/released.pth"]


def scores_of(folder):
    return pd.read_csv(folder / "baseline/scores.csv").set_index("path")["score"]


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_method_as_it_is_needs_no_training(data, tmp_path, capsys, name):
    source = write(tmp_path, data, name if name in TRAINED else "vand", "random")
    overrides = [*UNTRAINED[name], *released(name, tmp_path)]
    assert run_py.main([str(source), *overrides]) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert test_py.main([str(source), *overrides]) == 0
    how = "2 normal references per object" if name == "winclip" else "zero-shot"
    assert f"{name}, {how}" in capsys.readouterr().out
    first = scores_of(tmp_path / "run")
    assert len(first) == 12
    assert first.between(0, 1).all()
    assert first.nunique() > 6
    assert (tmp_path / "run/baseline/table.md").is_file()
    small = [f"exp.dir={tmp_path}/again", "baseline.engine.eval_batch_size=5"]
    assert test_py.main([str(source), *overrides, *small]) == 0
    assert scores_of(tmp_path / "again").tolist() == pytest.approx(first.tolist(), abs=1e-5)


def winclip_plus(tmp_path, data, *more):
    overrides = [*UNTRAINED["winclip"], *released("winclip", tmp_path), *more]
    assert test_py.main([str(write(tmp_path, data, "vand", "random")), *overrides]) == 0
    return scores_of(tmp_path / "run").tolist()


@pytest.mark.slow
def test_references_are_drawn_by_the_seed(data, tmp_path, capsys):
    weights = f"baseline.model.pre_trained={data}/clip.safetensors"
    common = (weights, "dataset.objects=[candle]")
    first = winclip_plus(tmp_path, data, *common)
    assert winclip_plus(tmp_path, data, *common) == first
    assert winclip_plus(tmp_path, data, *common, "misc.seed=8") != first
    six = "baseline.model.shots=6"  # all there are: the seed has nothing to choose
    every = winclip_plus(tmp_path, data, *common, six)
    assert winclip_plus(tmp_path, data, *common, six, "misc.seed=8") == pytest.approx(every)
    assert "winclip, 6 normal references per object" in capsys.readouterr().out
    winclip_plus(tmp_path, data, *common, "baseline.model.shots=1")
    assert "winclip, 1 normal reference per object" in capsys.readouterr().out


def test_every_process_sees_all_references(data, tmp_path, monkeypatch):
    source = write(tmp_path, data, "vand", "random")
    run = load(source, [*UNTRAINED["winclip"], *released("winclip", tmp_path)])
    session = session_of(run)

    def references_of(rank, world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        model = build_model(run, "baseline")
        seen = []
        monkeypatch.setattr(model, "remember", lambda batch: seen.extend(batch.path))
        session.show_references(Network(model, run.baseline, "winclip"))
        return seen

    alone = references_of(0, 1)
    assert len(alone) == 4
    assert references_of(0, 2) == references_of(1, 2) == alone


def test_too_few_references(data, tmp_path, capsys):
    source = write(tmp_path, data, "vand", "random")
    overrides = [*UNTRAINED["winclip"], *released("winclip", tmp_path), "baseline.model.shots=7"]
    message = refused(test_py, capsys, source, *overrides)
    assert "shots is 7, but candle has 6 normal training images" in message


def test_an_object_that_is_tested_and_has_no_references(data, tmp_path, capsys):
    root = tmp_path / "visa"
    shutil.copytree(data / "visa", root)
    table = root / "split_csv/1cls.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text(
        "\n".join(line for line in lines if "pipe_fryum,train,normal" not in line), encoding="utf-8"
    )
    source = write(tmp_path, data, "vand", "random")
    overrides = [*UNTRAINED["winclip"], *released("winclip", tmp_path), f"dataset.dir={root}"]
    message = refused(test_py, capsys, source, *overrides)
    assert "shots is 2, but pipe_fryum has 0 normal training images" in message


# ---------------------------------------------------------------- the files of options/baselines

FILES = Path("options/baselines")


def published(name) -> Stage:
    return load(FILES / f"{name}.yaml").baseline


def test_the_options_are_the_published_ones():
    for name in ("clip", "winclip", "vand", "anomalyclip"):
        run = load(FILES / f"{name}.yaml")
        assert (run.dataset.name, run.dataset.split) == ("visa", "1cls")
        if name != "winclip":
            assert run.baseline.image.height_width == (518, 518)
            assert run.baseline.image.resize == "full"
            assert run.baseline.model.options["arch"] == "ViT-L-14-336-quickgelu"
            assert run.baseline.model.options["pre_trained"] == "openai"
    winclip = published("winclip")
    assert winclip.model.options["arch"] == "ViT-B-16-plus-240"
    assert winclip.model.options["pre_trained"] == "laion400m_e31"
    assert (winclip.image.height_width, winclip.image.resize) == ((240, 480), "tiles")


@pytest.mark.parametrize(
    ("name", "epochs", "mosaic", "objective"),
    [
        ("vand", 3, 0.2, {"ce_weight": 0.0, "map_weight": 1.0, "normal_dice": False}),
        ("anomalyclip", 15, 0.0, {"ce_weight": 1.0, "map_weight": 4.0, "normal_dice": True}),
    ],
)
def test_the_trainings_are_the_published_ones(name, epochs, mosaic, objective):
    run, stage = load(FILES / f"{name}.yaml"), published(name)
    assert (stage.engine.epochs, stage.engine.batch_size, stage.engine.keep) == (epochs, 8, "last")
    assert stage.augment.mosaic == mosaic
    assert stage.schedule.name == "constant"
    assert stage.optimizer.name == "Adam"
    assert float(stage.optimizer.options["lr"]) == 1e-3
    assert [float(b) for b in stage.optimizer.options["betas"]] == [0.5, 0.999]
    assert stage.objective.name == "segmentation"
    defaults = {"ce_weight": 0.0, "map_weight": 1.0, "normal_dice": False}
    assert {**defaults, **stage.objective.options} == objective
    assert run.dataset.val_fraction == 0
    assert run.dataset.auxiliary.dir == Path("data/mvtec")
    assert stage.needs_training
