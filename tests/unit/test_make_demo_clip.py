"""How the small CLIP of the demo is made: twins, sentences, the loss, a training of two steps."""

import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from demo import DEMO, OBJECTS, clip, defects_of
from demo.picture import render_product
from models.encoders.clip import clip_model


def test_the_objects_of_the_demo_are_never_drawn():
    assert set(clip.TRAINED_ON) == set(OBJECTS) - set(DEMO)
    defects = {label for name in clip.TRAINED_ON for label in defects_of(name)}
    names = {id(product): name for name, product in OBJECTS.items()}
    drawn = Counter()
    for seed in range(300):
        product, labels = clip._product(np.random.default_rng(seed))
        drawn[names.get(id(product), "invented")] += 1
        assert set(labels) <= defects
    assert set(drawn) == {*clip.TRAINED_ON, "invented"}


def test_an_invented_product_can_have_each_of_its_defects():
    for seed in range(12):
        product, labels = clip._product(np.random.default_rng(seed))
        for label in labels:
            _, mask = render_product(product, {label: 7}, np.random.default_rng(seed), (48, 72))
            assert set(np.unique(mask)) == {0, 7}, label


def test_twins_differ_where_the_mask_says_and_nowhere_else():
    twins = clip.Twins(steps=1, batch_size=2)
    for number in range(8):
        pixels, masks, labels = twins[0, number]
        assert pixels.shape == (2, 3, clip.IMAGE_SIZE, clip.IMAGE_SIZE)
        assert not masks[0].any()
        if labels[1]:
            difference = (pixels[0].int() - pixels[1].int()).abs().amax(dim=0)
            near = F.max_pool2d((masks[1:] > 0).float(), 31, 1, 15)[0].bool()
            assert difference[near].max() > 5
            assert (difference[~near] > 40).float().mean() < 0.01  # shadows, parts that stand out


def test_epochs_repeat_themselves_and_differ_from_each_other():
    twins = clip.Twins(steps=2, batch_size=4)
    one, again, other = (list(twins.epoch(number)) for number in (0, 0, 1))
    assert [len(batch) for batch in one] == [4, 4]
    assert torch.equal(one[0].image, again[0].image)
    assert not torch.equal(one[0].image, one[1].image)
    assert not torch.equal(one[0].image, other[0].image)


def test_opposites_differ_in_the_state_alone():
    random.seed(0)
    different = set()
    for _ in range(200):
        normal, anomalous = (set(text.rstrip(".").split()) for text in clip.opposites())
        assert normal | anomalous
        different |= normal ^ anomalous
    assert {"flawless", "damaged", "anomalous", "without"} <= different
    assert not different & {"photo", "dark", "object", "the", "a"}


def test_state_loss_is_the_cross_entropy_of_two_sentences():
    torch.manual_seed(0)
    image = torch.randn(6, 5)
    normal, anomalous = (F.normalize(torch.randn(3, 5), dim=1) for _ in range(2))
    label = torch.tensor([0, 0, 0, 0, 1, 1])
    cosines = torch.stack([F.normalize(image, dim=1) @ s.T for s in (normal, anomalous)], dim=-1)
    each = F.cross_entropy(
        4 * cosines.flatten(0, 1), label.repeat_interleave(3), reduction="none"
    ).view(6, 3)
    way = 4 * (anomalous - normal)
    expected = (each[:4].mean() + each[4:].mean()) / 2  # both labels count the same
    assert torch.allclose(clip.state_loss(image, way, label), expected)
    assert torch.allclose(clip.state_loss(image[:4], way, label[:4]), each[:4].mean())


def test_whitened_patches_are_equally_strong_and_independent():
    torch.manual_seed(0)
    smooth = F.interpolate(torch.randn(64, 3, 9, 9), (32, 32), mode="bicubic")
    convolution = nn.Conv2d(3, 6, 8, stride=8, bias=False)
    clip.whiten_patches(convolution, smooth)
    outputs = convolution(smooth).detach().transpose(0, 1).flatten(1)
    covariance = torch.cov(outputs)
    assert torch.allclose(covariance, covariance[0, 0] * torch.eye(6), atol=0.1 * covariance[0, 0])


def test_everything_learns_but_the_words_that_are_never_shown():
    torch.manual_seed(0)
    random.seed(0)
    learner = clip.StateLearner(clip_model(clip.ARCH, None, pre_trained="random"), pairs=4)
    terms = learner(next(islice(clip.Twins(steps=1, batch_size=8).epoch(0), 1)))
    assert torch.allclose(terms["loss"], terms["state"] + terms["patches"])
    terms["loss"].backward()
    still = [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    shown = learner.clip.text.token_embedding.weight.grad.any(dim=1)
    candle = learner.tokenize(["candle"])[0, 1]
    assert not shown[candle]
    assert 10 < shown.sum() < 200


@pytest.mark.slow
def test_the_same_command_writes_the_same_weights(tmp_path):
    for name in ("a", "b"):
        clip.pretrain(tmp_path / name, epochs=2, steps=2, batch_size=8)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    file = (tmp_path / "a").rename(tmp_path / "a.safetensors")
    weights = clip_model(clip.ARCH, None, pre_trained=str(file)).state_dict()
    assert all(value.isfinite().all() for value in weights.values())
