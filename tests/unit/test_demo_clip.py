"""The weights in the repository: those of the small CLIP, and what two baselines learned on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from datasets.image import View
from demo import DEMO, SIZE, defects_of, render
from jobs.build import build_model
from models.baselines.clip import Clip
from models.encoders.clip import OWN_WEIGHTS, clip_model
from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from options.load import load
from tests.fixtures import random_batch
from utils.batch import Batch
from utils.checkpoint import read_about
from utils.download import sha256_of
from utils.errors import UserError

ARCH = "demo-ViT"
FILE, SHA256 = OWN_WEIGHTS[ARCH, "demo"]
OPTIONS = {"arch": ARCH, "pre_trained": "demo"}


def test_the_file_is_the_one_that_was_trained():
    assert sha256_of(FILE) == SHA256
    assert FILE.stat().st_size < 8_000_000
    assert read_about(FILE)["arch"] == ARCH


@pytest.mark.parametrize("name", ["vand", "anomalyclip"])
def test_what_a_baseline_learned_is_in_the_repository(name):
    options = load(Path(f"options/baselines/demo_{name}.yaml"))
    file = options.baseline.model.options["released"]
    assert not options.baseline.needs_training
    assert file.stat().st_size < 150_000
    assert sha256_of(file) in Path("docs/demo_clip.md").read_text(encoding="utf-8")
    weights = build_model(options, "baseline").state_dict()
    assert all(torch.equal(weights[key], value) for key, value in load_file(file).items())


def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "other.safetensors"
    file.write_bytes(FILE.read_bytes()[:-1] + b"?")
    monkeypatch.setitem(OWN_WEIGHTS, (ARCH, "demo"), (file, SHA256))
    with pytest.raises(UserError, match="SHA-256 is"):
        clip_model(ARCH, None, pre_trained="demo")


def test_it_loads_from_anywhere_and_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_tag = clip_model(ARCH, None, pre_trained="demo").state_dict()
    by_path = clip_model(ARCH, None, pre_trained=str(FILE)).state_dict()
    assert all(torch.equal(value, by_path[name]) for name, value in by_tag.items())


def test_an_unknown_tag_names_it():
    with pytest.raises(ValueError, match=r"neither a file nor a tag of demo-ViT \(tags: demo\)"):
        clip_model(ARCH, None, pre_trained="demmo")


def test_golden_embeddings():
    """Both towers with these weights: the values of the day they were made."""
    image = ClipImageEncoder((144, 144), True, True, **OPTIONS).eval()
    sentence = ClipTextEncoder(True, True, **OPTIONS).eval()
    with torch.no_grad():
        seen = image(random_batch(2, 144, 144).image)[0, 0, :4]
        said = sentence(["a photo of a flawless candle."])[0][0, 0, :4]
    assert seen.tolist() == pytest.approx([-0.7465, -0.1303, 0.1253, 0.7682], abs=1e-3)
    assert said.tolist() == pytest.approx([1.0318, -0.1592, 1.4436, 1.0458], abs=1e-3)


def test_it_tells_normal_from_anomalous_on_objects_it_has_never_seen():
    """Weights that are lost on the way, or a tower that runs them in another way, stay below."""
    model = Clip((192, 192), True, **OPTIONS).eval()
    view = View((192, 192), "full")
    labels, scores = [], []
    for name in DEMO:
        for i, label in enumerate(defects_of(name)):
            for defects in ([], [label]):
                rng = np.random.default_rng((2026, i))
                pixels = view(Image.fromarray(render(name, defects, rng, SIZE)[0])).unsqueeze(0)
                batch = Batch(pixels, torch.tensor([len(defects)]), [name], [""])
                with torch.no_grad():
                    scores.append(float(model.score(batch)))
                labels.append(len(defects))
    assert roc_auc_score(labels, scores) > 0.72  # 0.85 when it was made
