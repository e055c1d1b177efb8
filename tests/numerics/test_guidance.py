"""The terms that say where the defect is, and what it is, worked by hand."""

import math

import pytest
import torch

from models.base import Output
from models.objectives import OBJECTIVES
from models.objectives.base import TableTargets
from models.objectives.guidance import (
    MASK_LOSSES,
    map_distance,
    mask_cross_entropy,
    mask_distance,
    mean_where,
    moved_at_random,
    words_distance,
)
from tests.fixtures import random_batch


def logit_of(heat):
    """The logits whose softplus is ``heat``."""
    return torch.tensor(heat).expm1().log()


def test_the_distance_of_two_maps_by_hand():
    # Without their means: (-1, -1, 1, 1) and (0, -2, 0, 2), whose cosine is 4 / (2 * sqrt 8).
    places = logit_of([[[1.0, 1], [3, 3]]])
    target = torch.tensor([[[2.0, 0], [2, 4]]])
    found = map_distance(places, target).item()
    assert found == pytest.approx(1 - 4 / (2 * math.sqrt(8)), abs=1e-5)
    assert map_distance(places, 7 * target + 3).item() == pytest.approx(found, abs=1e-5)
    assert map_distance(places, 5 - target).item() == pytest.approx(2 - found, abs=1e-5)
    assert map_distance(places, torch.ones(1, 2, 2)).item() == 1  # an even map says nothing


def test_maps_of_another_grid_are_resampled():
    places = logit_of([[[1.0, 1, 3, 3], [1, 1, 3, 3]]])
    assert map_distance(places, torch.tensor([[[0.0, 1]]])).item() < 0.1


def test_random_maps_are_the_same_map_elsewhere_and_depend_on_the_path_only():
    maps = torch.rand(2, 6, 9)
    moved = moved_at_random(maps, ["a", "b"])
    assert moved.shape == maps.shape
    for one, before in zip(moved, maps, strict=True):
        assert one.flatten().sort().values.equal(before.flatten().sort().values)
        assert not one.equal(before)
    assert moved_at_random(maps[1:], ["b"])[0].equal(moved[1])


def test_the_share_of_heat_outside_of_the_mask_by_hand():
    places = logit_of([[[1.0, 2.0], [3.0, 4.0]]])
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, :2, 2:] = 1  # the place with heat 2
    mask[0, 2, :2] = 1  # half of the one with heat 3
    assert mask_distance(places, mask).item() == pytest.approx(1 - (2 + 1.5) / 10, abs=1e-5)
    mask[:] = 1
    assert mask_distance(places, mask).item() == pytest.approx(0, abs=1e-6)
    mask[:] = 255  # not known
    assert mask_distance(places, mask).item() == 1


def test_the_cross_entropy_of_the_places_by_hand():
    places = torch.tensor([[[-1.0, 2.0], [3.0, -4.0]]])
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, :2, 2:] = 1  # the place with logit 2
    mask[0, 2, :2] = 1  # half of the one with logit 3

    def of(logit):
        return math.log1p(math.exp(-logit))

    missed, false = (of(2) + 0.5 * of(3)) / 1.5, (of(1) + of(4)) / 2
    assert mask_cross_entropy(places, mask).item() == pytest.approx(missed + false, abs=1e-6)
    mask[:] = 1
    all_missed = (of(-1) + of(2) + of(3) + of(-4)) / 4
    assert mask_cross_entropy(places, mask).item() == pytest.approx(all_missed, abs=1e-6)
    mask[:] = 0
    all_false = (of(1) + of(-2) + of(-3) + of(4)) / 4
    assert mask_cross_entropy(places, mask).item() == pytest.approx(all_false, abs=1e-6)


def test_a_small_defect_counts_as_much_as_a_large_one():
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 0, 0], masks[1, :4] = 1, 1
    places = torch.zeros(2, 8, 8, requires_grad=True)
    mask_cross_entropy(places, masks).sum().backward()
    inside = (places.grad * (masks == 1)).sum(dim=(1, 2))
    assert inside.tolist() == pytest.approx([-0.5, -0.5])


def test_the_kinds_of_defect_by_hand():
    kinds = torch.tensor([[2.0, -1.0, 50.0]])  # the third detector has no name
    named = torch.tensor([[1.0, 0.0]])
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert words_distance(kinds, named).item() == pytest.approx(by_hand, abs=1e-6)


def test_unknown_values_do_not_count():
    values = torch.tensor([1.0, torch.nan, 4.0])
    assert mean_where(values, torch.tensor([2.0, 0, 1])).item() == pytest.approx(2)
    assert mean_where(values, torch.zeros(3)).item() == 0


@pytest.fixture
def output():
    torch.manual_seed(0)
    tensors = {
        "logits": torch.randn(4, 2),
        "features": torch.randn(4, 8),
        "places": torch.randn(4, 4, 6),
        "kinds": torch.randn(4, 5),
    }
    return Output(**{name: tensor.requires_grad_() for name, tensor in tensors.items()})


def test_the_terms_are_weighted_and_see_their_images_only(output):
    batch = random_batch(4)  # labels 0, 1, 0, 1
    places, kinds = torch.rand(4, 4, 6), torch.zeros(4, 3)
    places[3], kinds[1] = torch.nan, torch.nan
    kinds[3, 1] = 1
    targets = TableTargets(
        batch.path, torch.randn(4, 2), torch.randn(4, 8), places=places, kinds=kinds
    )
    options = {"ce_weight": 1.0, "kl_weight": 0.0, "anomaly_weight": 3.0}
    plain = OBJECTIVES["distillation"](8, targets, **options)(output, batch)
    assert plain.keys() == {"loss", "ce", "kl"}
    weights = {"attention_weight": 2.0, "words_weight": 0.5}
    terms = OBJECTIVES["distillation"](8, targets, **options, **weights)(output, batch)
    first = map_distance(output.places[1:2], places[1:2])  # the other anomaly has no map
    assert terms["attention"].item() == pytest.approx(first.item(), abs=1e-6)
    each = words_distance(output.kinds, kinds.nan_to_num())
    wanted = (each[0] + each[2] + 3 * each[3]) / 5  # as the labels are weighted
    assert terms["words"].item() == pytest.approx(wanted.item(), abs=1e-6)
    loss = plain["loss"] + 2 * terms["attention"] + 0.5 * terms["words"]
    assert terms["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    terms["loss"].backward()
    gradient = output.places.grad.flatten(1).abs().amax(dim=1)
    assert (gradient > 0).tolist() == [False, True, False, False]
    assert output.kinds.grad[:, 3:].abs().max() == 0

    random = OBJECTIVES["distillation"](8, targets, **weights, attention_source="random")
    assert random(output, batch)["attention"].item() != terms["attention"].item()


@pytest.mark.parametrize("loss", MASK_LOSSES)
@pytest.mark.parametrize("name", ["cross_entropy", "distillation"])
def test_masks_guide_with_a_teacher_and_without(output, name, loss):
    batch = random_batch(4)
    targets = TableTargets(batch.path, torch.randn(4, 2), torch.randn(4, 8))
    mask = torch.zeros(4, 64, 96, dtype=torch.uint8)
    mask[1, :32, :16] = 1
    mask[3] = 255
    batch = batch.__class__(**{**vars(batch), "mask": mask})
    terms = OBJECTIVES[name](8, targets, mask_weight=2.0, mask_loss=loss)(output, batch)
    wanted = MASK_LOSSES[loss](output.places[1:2], mask[1:2])
    assert terms["mask"].item() == pytest.approx(wanted.item(), abs=1e-6)
    plain = OBJECTIVES[name](8, targets)(output, batch)
    assert terms["loss"].item() == pytest.approx((plain["loss"] + 2 * wanted).item(), abs=1e-5)
