"""Rendered pairs, sentences about them, the losses, and a training that was cut off."""

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from demo import DEMO, OBJECTS, defects_of, picture
from demo.clip import __main__ as pretrain_py
from demo.clip import inventions, pairs
from demo.clip.contrastive import WordTable, contrastive_loss, state_loss, whiten_patches
from demo.clip.muon import muon
from demo.clip.pairs import PairBatches, render_pairs
from demo.clip.pretraining import TRAINED_ON, ContrastiveLearner, Recipe, pretrain
from demo.clip.sentences import (
    ANOMALOUS,
    CONDITIONS,
    NORMAL,
    Fact,
    Sentence,
    describe,
    opposites,
    truth,
    words,
)
from utils.errors import UserError

SMALL = Recipe(pairs=8, epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render_pairs(tmp_path_factory.mktemp("pairs"), objects=TRAINED_ON, count=8, seed=0)


def batches(rendered, **changes):
    options = {"image_size": 144, "grid": 9, "batch_size": 8, "seed": 3} | changes
    return PairBatches(rendered, **options)


def test_the_objects_of_the_demo_are_never_drawn(monkeypatch):
    assert set(TRAINED_ON) == set(OBJECTS) - set(DEMO)
    drawn, defects = Counter(), Counter()

    def count(product, wanted, rng, size):
        draw = product.draw
        while hasattr(draw, "func"):
            drawn[draw.func.__name__] += 1
            drawn[draw.keywords.get("name", "")] += 1
            draw = draw.keywords.get("draw", draw.func)
        drawn[draw.__name__] += 1
        defects.update(wanted)
        return np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)

    monkeypatch.setattr(pairs, "render_product", count)
    for number in range(300):
        pairs.draw_pair(number, objects=TRAINED_ON, seed=1)
    assert {"_recoloured", "_shape", "_board", "_capsules", "_pipe", "pcb4"} <= set(drawn)
    assert not {"_candle", "_cashew", "_fryum", "pcb1"} & set(drawn)
    assert not {"weird candle wick", "small holes", "fryum stuck together"} & set(defects)


def test_twins_differ_where_the_mask_says_and_nowhere_else(rendered):
    flawless, flawed = rendered.pictures[:, 0].astype(int), rendered.pictures[:, 1].astype(int)
    difference = np.abs(flawless - flawed).max(axis=-1)
    assert (difference.max(axis=(1, 2)) > 5).all()
    for marked, different in zip(rendered.masks > 0, difference > 40, strict=True):
        near = F.max_pool2d(torch.from_numpy(marked).float()[None], 31, 1, 15)[0].bool().numpy()
        assert different[~near].mean() < 0.01  # shadows and what hangs over


def test_every_invention_can_have_each_of_its_defects():
    for seed in range(12):
        invention = inventions.invent(np.random.default_rng(seed), TRAINED_ON)
        for label in invention.defects:
            rng = np.random.default_rng(seed)
            _, mask = picture.render_product(invention.product, {label: 7}, rng, (48, 72))
            assert set(np.unique(mask)) == {0, 7}, label


def test_pairs_are_rendered_once(rendered, tmp_path, monkeypatch):
    options = {"objects": TRAINED_ON, "count": 2, "seed": 0}
    first = render_pairs(tmp_path, **options)
    assert np.array_equal(first.pictures, rendered.pictures[:2])
    monkeypatch.setattr(pairs, "_render_all", lambda *a, **k: pytest.fail("rendered again"))
    assert render_pairs(tmp_path, **options).facts == first.facts
    (tmp_path / "pairs.json").write_text(json.dumps({"count": 3}))
    with pytest.raises(pytest.fail.Exception, match="rendered again"):
        render_pairs(tmp_path, **options)


def test_batches_repeat_themselves_and_change_with_the_epoch(rendered):
    source = batches(rendered)
    one, again, other = (next(source.epoch(n)) for n in (0, 0, 1))
    assert torch.equal(one.image, again.image)
    assert one.caption == again.caption
    assert one.caption != other.caption
    assert (len(source), source.num_images, len(one)) == (2, 16, 8)


def test_a_batch_says_what_its_pictures_show(rendered):
    for batch in batches(rendered).epoch(0):
        assert (batch.truth.diagonal() == 1).all()  # every sentence is true of its own picture
        assert (batch.cover[batch.label == 0] == 0).all()
        assert (batch.cover[batch.label == 1].flatten(1).amax(dim=1) > 0).all()
        assert batch.image.shape == (8, 3, 144, 144)
        assert batch.cover.shape == (8, 9, 9)
        assert len(batch.opposites) == 2


def test_a_sentence_is_true_of_what_it_was_written_about():
    draw = random.Random(0)
    for name in ("", "pcb2"):
        for condition in ("", *CONDITIONS):
            for state, defects in ((NORMAL, ()), (ANOMALOUS, ("bent",))):
                fact = Fact(name, state, defects, condition)
                said = [describe(fact, draw) for _ in range(50)]
                assert (truth([fact], said) == 1).all()
                assert all("{" not in sentence.text for sentence in said)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Sentence("", state=ANOMALOUS), 1),
        (Sentence("", state=NORMAL), 0),
        (Sentence("", object="pcb2", state=ANOMALOUS), 0),
        (Sentence("", condition="dark"), 0),
        (Sentence("", defect="small scratches"), 1),
        (Sentence("", defect="small cracks"), -1),  # both are grooves
        (Sentence("", defect="burnt"), 0),
    ],
)
def test_truth(said, expected):
    fact = Fact("macaroni1", ANOMALOUS, ("small scratches",))
    assert truth([fact], [said]).tolist() == [[expected]]


def test_opposites_differ_in_the_state_alone():
    draw = random.Random(0)
    states = set()
    for _ in range(200):
        normal, anomalous = (set(text.rstrip(".").split()) for text in opposites(draw))
        states |= normal ^ anomalous
    assert {"flawless", "damaged", "anomalous", "without"} <= states
    assert not states & {"photo", "dark", "inspection", "object", "the"}


def test_every_word_but_the_names_is_known():
    known, draw = set(words(TRAINED_ON)), random.Random(0)
    for name in TRAINED_ON:
        for label in (*defects_of(name), ""):
            fact = Fact(name, int(bool(label)), (label,) if label else ())
            for _ in range(20):
                said = describe(fact, draw).text.rstrip(".").split()
                strange = [word for word in said if word not in known]
                assert len(strange) <= 1, said  # at most the name


def slow_contrastive_loss(image, text, said, scale):
    def one_way(rows, columns, table):
        losses = []
        for i, row in enumerate(rows):
            kept = [j for j in range(len(columns)) if table[i][j] >= 0]
            total = sum(torch.exp(scale * row @ columns[j]) for j in kept)
            right = [j for j in kept if table[i][j] == 1]
            logs = [scale * row @ columns[j] - torch.log(total) for j in right]
            if right:
                losses.append(-sum(logs) / len(right))
        return sum(losses) / len(losses)

    return (one_way(image, text, said) + one_way(text, image, said.T)) / 2


def test_contrastive_loss_is_that_of_a_slow_loop():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(n, 5), dim=1) for n in (4, 6))
    said = torch.randint(-1, 2, (4, 6))
    said[2] = 0  # a picture that nothing was said about
    found = contrastive_loss(image, text, said, torch.tensor(3.0))
    assert torch.allclose(found, slow_contrastive_loss(image, text, said, 3.0), atol=1e-4)


def test_state_loss_is_the_cross_entropy_of_two_sentences():
    torch.manual_seed(0)
    image = F.normalize(torch.randn(6, 5), dim=1)
    normal, anomalous = (F.normalize(torch.randn(3, 5), dim=1) for _ in range(2))
    label = torch.tensor([0, 0, 0, 0, 1, 1])
    logits = 4 * torch.stack([image @ normal.T, image @ anomalous.T], dim=-1)  # (B, K, 2)
    each = F.cross_entropy(logits.flatten(0, 1), label.repeat_interleave(3), reduction="none")
    each = each.view(6, 3)
    expected = (each[:4].mean() + each[4:].mean()) / 2  # both labels count the same
    found = state_loss(image, anomalous - normal, label, torch.tensor(4.0))
    assert torch.allclose(found, expected)
    one_sided = state_loss(image[:4], anomalous - normal, label[:4], torch.tensor(4.0))
    assert torch.allclose(one_sided, each[:4].mean())


def test_words_without_an_embedding_share_one():
    table = WordTable([2, 5], vocabulary=8, width=3)
    full = table.expanded()
    assert full.shape == (8, 3)
    assert torch.equal(table(torch.tensor([[0, 2, 5, 7]]))[0], full[[0, 2, 5, 7]])
    assert len(torch.unique(full, dim=0)) == 3
    assert torch.equal(full[0], full[7])


def test_whitened_patches_are_equally_loud_and_independent():
    torch.manual_seed(0)
    smooth = F.interpolate(torch.randn(64, 3, 9, 9), (32, 32), mode="bicubic")
    convolution = nn.Conv2d(3, 6, 8, stride=8, bias=False)
    whiten_patches(convolution, smooth)
    found = convolution(smooth).detach().transpose(0, 1).flatten(1)
    covariance = torch.cov(found)
    assert torch.allclose(covariance, covariance[0, 0] * torch.eye(6), atol=0.1 * covariance[0, 0])


def test_every_parameter_learns_and_both_optimisers_step(rendered):
    torch.manual_seed(0)
    learner = ContrastiveLearner(words(TRAINED_ON))
    matrices, others = learner.parts()
    assert len(matrices) + len(others) == len(list(learner.parameters()))
    assert {p.ndim for p in matrices} == {2}
    optimizer = muon(matrices, others, lr=1e-2, weight_decay=0.0)
    before = {name: value.clone() for name, value in learner.named_parameters()}
    terms = learner(next(batches(rendered).epoch(0)))
    assert torch.allclose(terms["loss"], sum(terms[n] for n in ("sentences", "state", "patches")))
    terms["loss"].backward()
    optimizer.step()
    still = [n for n, value in learner.named_parameters() if torch.equal(value, before[n])]
    assert still == []


@pytest.mark.parametrize(
    ("option", "least"), [("--pairs=3", 24), ("--epochs=0", 1), ("--seed=-1", 0)]
)
def test_a_number_that_is_too_small(tmp_path, capsys, option, least):
    assert pretrain_py.main([option, "--dir", str(tmp_path), "--cache", str(tmp_path)]) == 2
    assert f"{option[:6]}" in (said := capsys.readouterr().err)
    assert f"must be at least {least}, got" in said


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = pretrain(tmp_path / "whole", tmp_path / "pairs", SMALL)
    keep = "demo.clip.pretraining.RunLog.update"
    with monkeypatch.context() as patch:
        patch.setattr(keep, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(tmp_path / "cut", tmp_path / "pairs", SMALL)
    again = pretrain(tmp_path / "cut", tmp_path / "pairs", SMALL)
    assert again.read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match=r"holds the training of .*choose another --dir"):
        pretrain(tmp_path / "cut", tmp_path / "pairs", Recipe(pairs=8, epochs=3, batch_size=8))
