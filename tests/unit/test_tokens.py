"""A frozen encoder is asked once, and training from its answers is the same training."""

import json

import pandas as pd
import pytest
import torch

import compare as compare_py
import run as run_py
import test as test_py
from datasets.pixels import CachedPixels
from jobs.training import tokens
from jobs.training.tokens import TokenFile, row_bytes, token_row
from models.encoders.clip_image import ClipImageEncoder
from tests.fixtures import write_smoke
from utils.store import Entry

ALONE = ("teacher=null", "student.objective=cross_entropy", "student.augment.horizontal_flip=0")
FROZEN = (*ALONE, "student.model.img_enc.train=none")


def kept(tmp_path, features):
    file = tmp_path / "x.tokens"
    file.write_bytes(b"".join(map(token_row, features)))
    shape = features.shape[1:]
    assert file.stat().st_size == len(features) * row_bytes(shape)
    again = dict(zip("abc", features + 1, strict=True))  # told from what is in the file
    return file, TokenFile(Entry(file), {"a": 0, "b": 1, "c": 2}, tuple(shape), again.get)


def test_kept_features_are_off_by_at_most_half_a_thousandth(tmp_path):
    torch.manual_seed(0)
    features = torch.randn(3, 5, 8) * torch.logspace(-6, 6, 8)
    features[1] *= 1e6  # more than fp16 can hold
    features[2] = 0
    _, tokens_of = kept(tmp_path, features)
    found = tokens_of(["b", "a", "c"])
    wanted = features[[1, 0, 2]]
    smallest = wanted.abs().amax((1, 2), keepdim=True) * 2.0**-25
    assert (
        (found - wanted).abs() <= torch.maximum(wanted.abs() * 2.0**-11, smallest) * 1.001
    ).all()


def test_unknown_images_are_not_made_up_and_damaged_ones_are_encoded_again(tmp_path):
    features = torch.randn(3, 5, 8)
    file, tokens_of = kept(tmp_path, features)
    assert tokens_of(["a", "other"]) is None
    content = bytearray(file.read_bytes())
    content[row_bytes((5, 8)) + 20] ^= 1
    file.write_bytes(content)
    found = tokens_of(["a", "b"])
    assert torch.allclose(found[0], features[0], rtol=1e-2)
    assert torch.equal(found[1], features[1] + 1)
    file.write_bytes(content[:-1])  # cut off
    assert torch.equal(tokens_of(["c"])[0], features[2] + 1)
    file.unlink()
    assert torch.equal(tokens_of(["a"])[0], features[0] + 1)


def train(tmp_path, visa_root, name, *overrides):
    path = write_smoke(tmp_path, visa_root)
    assert run_py.main([str(path), *overrides, f"exp.dir={tmp_path / name}"]) == 0
    return pd.read_csv(tmp_path / name / "student" / "log.csv").set_index("epoch")


@pytest.fixture
def looks(monkeypatch):
    """How many images the encoder was shown."""
    counts, forward = [], ClipImageEncoder.forward

    def counted(self, image):
        counts.append(len(image))
        return forward(self, image)

    monkeypatch.setattr(ClipImageEncoder, "forward", counted)
    return counts


@pytest.mark.slow
def test_training_from_kept_features_is_the_same_training(tmp_path, visa_root, looks):
    columns = ["loss", "val_loss", "val_aupr"]
    once = train(tmp_path, visa_root, "once", *FROZEN)[columns]
    # For the size; all, in pieces; for the size, by the finished network.
    assert looks == [1, 8, 8, 4, 1]
    looks.clear()
    again = train(tmp_path, visa_root, "again", *FROZEN, "dataset.val_fraction=0.2")
    assert looks == [1, 1]  # other validation images, but the same features
    assert not again["loss"].equals(once["loss"])
    looks.clear()
    live = train(tmp_path, visa_root, "live", *FROZEN, "dataset.cache=null")[columns]
    assert sum(looks) >= 3 * (12 + 6)
    pd.testing.assert_frame_equal(once, live, rtol=1e-3)


MASKS = (
    "student.model.classif={name: patches, pool: logsumexp}",
    "student.objective.mask_weight=1",
)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), MASKS])
def test_pixels_that_nobody_looks_at_are_not_read_and_change_nothing(
    tmp_path, visa_root, monkeypatch, more
):
    train(tmp_path, visa_root, "first", *FROZEN, *more)
    read, call = [], CachedPixels.__call__
    monkeypatch.setattr(CachedPixels, "__call__", lambda *a: read.append(1) or call(*a))
    unseen = train(tmp_path, visa_root, "unseen", *FROZEN, *more)
    assert not read
    monkeypatch.setattr(tokens, "replace", lambda store, **_: store)
    seen = train(tmp_path, visa_root, "seen", *FROZEN, *more)
    assert len(read) >= 3 * (12 + 6)
    times = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(
        unseen.drop(columns=times), seen.drop(columns=times), check_exact=True
    )
    assert ("mask" in unseen) == bool(more)
    weights = [tmp_path / name / "student/best.safetensors" for name in ("first", "unseen", "seen")]
    assert len({file.read_bytes() for file in weights}) == 1


@pytest.mark.slow
def test_features_that_are_lost_meanwhile_are_encoded_again(tmp_path, visa_root, monkeypatch):
    wanted = train(tmp_path, visa_root, "kept", *FROZEN)["loss"]
    monkeypatch.setattr(TokenFile, "_read", lambda *_: False)
    found = train(tmp_path, visa_root, "lost", *FROZEN)["loss"]
    pd.testing.assert_series_equal(found, wanted, rtol=1e-3)


@pytest.mark.parametrize(
    "overrides", [(*FROZEN, "student.augment.vertical_flip=0.5"), (*ALONE, "engine.epochs=1")]
)
def test_an_encoder_that_learns_or_sees_changes_is_asked_each_time(
    tmp_path, visa_root, looks, overrides
):
    train(tmp_path, visa_root, "live", *overrides)
    assert not list((tmp_path / "cache").glob("*.tokens"))


@pytest.mark.slow
def test_a_comparison_scores_students_with_one_encoder_from_its_features(
    tmp_path, visa_root, looks
):
    head = "student.model.classif={name: patches, pool: max}"
    train(tmp_path, visa_root, "one", *FROZEN, head)
    options = [str(tmp_path / "smoke.yaml"), *FROZEN, head, f"exp.dir={tmp_path}/one"]
    assert test_py.main(options) == 0
    (tmp_path / "compare.yaml").write_text(
        f"dir: {tmp_path}/out\n"
        f"dataset: {{name: visa, dir: {visa_root}, split: 2cls_highshot, cache: {tmp_path}/cache}}"
        "\n"
        "misc: {seed: 7, device: cpu, precision: fp32}\n"
        "columns:\n"
        + "".join(
            f"  {name}: {{options: {options[0]}, overrides: {json.dumps(options[1:])}}}\n"
            for name in ("a", "b")
        ),
        encoding="utf-8",
    )
    looks.clear()
    assert compare_py.main([str(tmp_path / "compare.yaml"), "localization=true", "against=a"]) == 0
    assert sorted(looks) == [1, 1, 1, 1, 4, 8]  # both: grid and size; once: the test images
    wanted = pd.read_csv(tmp_path / "one/student/scores.csv")["score"]
    found = pd.read_csv(tmp_path / "out/a/scores.csv")["score"]
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
