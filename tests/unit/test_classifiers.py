"""The head of places, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.classifiers import PatchesClassifier, WholeImage
from models.deployed import DeployedStudent
from models.gradcam import heat_maps
from models.methods import METHODS
from models.places import shifted_places
from tests.fixtures import random_batch, student_options, teacher_options
from utils.errors import UserError
from utils.registry import Component


def head(pool, **options):
    """Four features; its two detectors are twice the first and three times the second."""
    made = PatchesClassifier(4, pool=pool, detectors=2, **options).eval()
    made.detectors.weight.data = torch.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 0]])
    made.detectors.bias.data = torch.tensor([0.0, 1.0])
    return made


# Mean 0 and variance 1, so that the LayerNorm leaves them as they are.
PLACES = torch.tensor([[[1.0, -1, 1, -1], [-1.0, 1, -1, 1], [1.0, 1, -1, -1]]])
LOGITS = [math.log(math.exp(a) + math.exp(b)) for a, b in ((2, -2), (-2, 4), (2, 4))]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", sum(LOGITS) / 3),
        ("max", LOGITS[2]),
        ("top_k", (LOGITS[1] + LOGITS[2]) / 2),
        ("logsumexp", math.log(sum(math.exp(s) for s in LOGITS) / 3)),
    ],
)
def test_pools_by_hand(pool, expected):
    found = head(pool, top=2)
    assert found.places(PLACES)[0].tolist() == pytest.approx(LOGITS, abs=1e-4)
    assert found(PLACES)[0].tolist() == pytest.approx([0, expected], abs=1e-4)


def test_attention_by_hand():
    found = head("attention")
    hidden, _, weight = found.attention
    hidden.weight.data.zero_()
    hidden.bias.data.zero_()
    weight.weight.data.zero_()
    hidden.weight.data[0, 0] = 1.0  # tanh of the first feature
    weight.weight.data[0, 0] = 2.0
    raw = [math.exp(2 * math.tanh(x)) for x in (1, -1, 1)]
    parts = [a / sum(raw) * s for a, s in zip(raw, LOGITS, strict=True)]
    assert found(PLACES)[0].tolist() == pytest.approx([0, sum(parts)], abs=1e-4)
    assert found.places(PLACES)[0].tolist() == pytest.approx([3 * p for p in parts], abs=1e-3)


def test_the_logit_of_the_whole_image_is_added_and_left_out_in_training():
    found = head("max", whole_dropout=1.0, dropout=0.0)
    whole = found.whole
    whole.norm.running_mean[0], whole.norm.running_var[0] = 0.5, 4.0
    last = whole.last[1]
    last.weight.data.zero_()
    last.weight.data[0, 0], last.weight.data[0, 4] = 3.0, 2.0  # mean, deviation of the first
    last.bias.data = torch.tensor([0.5])
    mean, deviation = 1 / 3, math.sqrt(8 / 9)  # of 1, -1, 1
    logit = 3 * (mean - 0.5) / 2 + 2 * deviation + 0.5
    assert found(PLACES)[0, 1].item() == pytest.approx(LOGITS[2] + logit, abs=1e-4)
    assert found.places(PLACES)[0].tolist() == pytest.approx(LOGITS, abs=1e-4)
    assert found.train()(PLACES)[0, 1].item() == pytest.approx(LOGITS[2], abs=1e-4)


def test_the_whole_image_is_standardized_over_the_batch():
    torch.manual_seed(0)
    whole = WholeImage(3, 0.0).train()
    features = torch.randn(5, 7, 3) * torch.tensor([1e-2, 1, 100])
    both = np.concatenate([features.numpy().mean(1), features.numpy().std(1)], axis=1)
    standardized = (both - both.mean(0)) / both.std(0)
    wanted = standardized @ whole.last[1].weight.detach().numpy()[0] + whole.last[1].bias.item()
    np.testing.assert_allclose(whole(features).detach().numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert whole(features[:1]).isfinite().all()  # a batch of one, in training


@pytest.mark.parametrize(("tower", "arch"), [("timm", "test_vit"), ("torchvision", "resnet18")])
def test_the_heat_of_a_student_is_that_of_its_places(tower, arch):
    torch.manual_seed(0)
    options = {**student_options(tower, arch), "classif": Component("patches", {})}
    student, batch = METHODS["student"]((64, 96), True, **options).eval(), random_batch(2, 64, 96)
    scores, heat = heat_maps(student, batch)
    torch.testing.assert_close(scores, student.score(batch).detach())
    deployed = DeployedStudent(student, 1.0, maps=True)(batch.image.permute(0, 2, 3, 1))
    torch.testing.assert_close((deployed[0], deployed[2]), (scores, heat))
    logits = student.classif.places(student.img_enc(batch.image)).detach()
    stride = {"test_vit": 16, "resnet18": 32}[arch]
    first = {"test_vit": 7.5, "resnet18": 0}[arch]
    maps = student.score_and_map(batch)[1].detach()
    assert maps.shape == heat.shape == (2, 64, 96)
    torch.testing.assert_close(heat, torch.log1p(maps.exp()))
    row, column = 1, 2
    y, x = (round(first + stride * place) for place in (row, column))
    wanted = logits[:, row * (96 // stride) + column]
    near = maps[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))
    torch.testing.assert_close(near, wanted, rtol=0.1, atol=0.05)


def test_a_network_with_one_vector_has_no_places():
    options = {**teacher_options(), "classif": Component("patches", {})}
    with pytest.raises(UserError, match="patches needs one vector per place, and this network has"):
        METHODS["teacher"]((64, 96), True, **options)


@pytest.mark.parametrize(("shifts", "moves"), [(2, (1, -1)), (3, (1, 0, -2)), (4, (1, 0, -1, -2))])
def test_shifted_places_look_at_the_patches_between_and_are_smoothed(shifts, moves):
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)

    def look(pixels):  # the mean of each patch of 4 pixels
        return torch.nn.functional.avg_pool2d(pixels.float(), 4).mean(dim=1)

    wide = np.pad(image.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    raw = np.empty((2, 4 * shifts, 6 * shifts))
    for row, column in np.ndindex(raw.shape[1:]):
        top = 2 + 4 * (row // shifts) - moves[row % shifts]
        left = 2 + 4 * (column // shifts) - moves[column % shifts]
        raw[:, row, column] = wide[:, :, top : top + 4, left : left + 4].mean((1, 2, 3))
    wanted = [gaussian_filter(map_, shifts / 3, mode="nearest", truncate=3) for map_ in raw]
    found = shifted_places(look, image, (4, 6), shifts).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_map_of_shifted_copies_is_finer_and_does_not_change_the_score():
    torch.manual_seed(0)
    options = {**student_options("timm", "test_vit"), "classif": Component("patches", {})}
    plain = METHODS["student"]((64, 96), True, **options).eval()
    colors = 255 * torch.rand(2, 3, 3, 4)  # a smooth image, so that maps can be compared
    image = torch.nn.functional.interpolate(colors, (64, 96), mode="bilinear").to(torch.uint8)
    batch = replace(random_batch(2, 64, 96), image=image)
    fine = METHODS["student"]((64, 96), True, **options, map_shifts=4).eval()
    fine.load_state_dict(plain.state_dict())
    (score, coarse), (scores, heat) = heat_maps(plain, batch), heat_maps(fine, batch)
    torch.testing.assert_close(scores, score)
    deployed = DeployedStudent(fine, 1.0, maps=True)(batch.image.permute(0, 2, 3, 1))
    torch.testing.assert_close((deployed[0], deployed[2]), (scores, heat))
    assert (heat - coarse).abs().mean() > 0.01
    moves = [(0, 0), (8, 0), (-8, 0), (0, 8), (0, -8)]  # by half a patch

    def agreement(move):  # of the fine map with the plain one, moved
        moved = coarse.roll(move, dims=(1, 2))
        return torch.corrcoef(torch.stack([heat.flatten(), moved.flatten()]))[0, 1].item()

    assert max(moves, key=agreement) == (0, 0)
    options["classif"] = Component("linear", {})
    with pytest.raises(UserError, match="linear has no map of places; write map_shifts: 1"):
        METHODS["student"]((64, 96), True, **options, map_shifts=2)
