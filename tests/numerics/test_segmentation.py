"""What the trained baselines minimise, against numbers worked out by hand."""

import math

import pytest
import torch

from models.base import Output
from models.objectives import OBJECTIVES
from models.objectives.segmentation import dice_loss, focal_loss
from utils.batch import Batch

# Two pixels: 0.8 anomalous and it is, 0.4 anomalous and it is not.
FOUND = torch.tensor([[[0.8, 0.4]]])
MASK = torch.tensor([[[1.0, 0.0]]])
MAPS = torch.stack([1 - FOUND, FOUND], dim=1)
FOCAL = (0.2**2 * 0.223144 + 0.4**2 * 0.510826) / 2  # natural logarithms of 0.8 and 0.6


def test_focal_loss_by_hand():
    assert float(focal_loss(MAPS, MASK)) == pytest.approx(FOCAL, abs=1e-5)
    # Without the focus it is the cross-entropy: (0.223144 + 0.510826) / 2.
    assert float(focal_loss(MAPS, MASK, gamma=0.0)) == pytest.approx(0.366985, abs=2e-5)


def test_a_pixel_that_is_all_wrong_costs_a_finite_amount():
    wrong = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).flip(1)  # surely normal
    # p = 1e-5 * 1 (the clamped target) + 1e-5 = 2e-5
    wanted = (1 - 2e-5) ** 2 * -math.log(2e-5)
    assert float(focal_loss(wrong, torch.ones(1, 1, 1))) == pytest.approx(wanted, rel=1e-4)
    assert wanted == pytest.approx(10.8193, abs=1e-3)


def test_focal_loss_is_a_mean_over_pixels_and_images():
    twice = torch.cat([MAPS, MAPS]), torch.cat([MASK, MASK])
    assert float(focal_loss(*twice)) == pytest.approx(FOCAL, abs=1e-5)


def test_dice_loss_by_hand():
    wanted = 1 - (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1)
    assert wanted == pytest.approx(0.1875)
    assert float(dice_loss(FOUND, MASK)) == pytest.approx(0.1875, abs=1e-6)
    assert float(dice_loss(torch.zeros(1, 4), torch.zeros(1, 4))) == 0
    # Nothing found of three pixels: 1 - 1 / (0 + 3 + 1).
    assert float(dice_loss(torch.zeros(1, 3), torch.ones(1, 3))) == pytest.approx(0.75)


def test_dice_loss_is_a_mean_over_images_not_over_their_union():
    found = torch.cat([FOUND, torch.zeros(1, 1, 2)])
    wanted = torch.cat([MASK, torch.zeros(1, 1, 2)])
    assert float(dice_loss(found, wanted)) == pytest.approx(0.1875 / 2, abs=1e-6)


def batch(mask=MASK):
    return Batch(
        torch.zeros(1, 3, 1, 2), torch.tensor([1]), ["a"], ["b"], mask=mask.to(torch.uint8)
    )


OUTPUT = Output(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 4), maps=(MAPS, MAPS.flip(1)))
CE = math.log(1 + math.exp(-2))
# The second level says the opposite: 0.2 of the anomalous pixel, 0.6 of the normal one.
FOCAL_2 = (0.8**2 * -math.log(0.2) + 0.6**2 * -math.log(0.4)) / 2
DICE_2 = 1 - (2 * 0.2 + 1) / (0.2 + 0.6 + 1 + 1)
# The map of "normal" against what is not in the mask: 0.2, 0.6 and 0.8, 0.4 against 0, 1.
NORMAL = 1 - (2 * 0.6 + 1) / (0.2 + 0.6 + 1 + 1)
NORMAL_2 = 1 - (2 * 0.4 + 1) / (0.8 + 0.4 + 1 + 1)


def test_vand_sums_its_levels():
    terms = OBJECTIVES["segmentation"](4, None)(OUTPUT, batch())
    assert set(terms) == {"loss", "focal", "dice"}
    assert float(terms["focal"]) == pytest.approx(FOCAL + FOCAL_2, abs=1e-4)
    assert float(terms["dice"]) == pytest.approx(0.1875 + DICE_2, abs=1e-5)
    assert float(terms["loss"]) == pytest.approx(FOCAL + FOCAL_2 + 0.1875 + DICE_2, abs=1e-4)


def test_anomalyclip_adds_the_image_and_the_normal_map():
    options = {"ce_weight": 1.0, "map_weight": 4.0, "normal_dice": True}
    terms = OBJECTIVES["segmentation"](4, None, **options)(OUTPUT, batch())
    dice = 0.1875 + DICE_2 + NORMAL + NORMAL_2
    assert float(terms["ce"]) == pytest.approx(CE, abs=1e-5)
    assert float(terms["dice"]) == pytest.approx(dice, abs=1e-5)
    assert float(terms["loss"]) == pytest.approx(CE + 4 * (FOCAL + FOCAL_2 + dice), abs=1e-3)


def test_gradients_go_down_hill():
    low = torch.tensor([0.0, 0.0], requires_grad=True)
    probability = low.sigmoid().view(1, 1, 2)
    maps = torch.stack([1 - probability, probability], dim=1)
    output = Output(torch.zeros(1, 2), torch.zeros(1, 4), maps=(maps,))
    OBJECTIVES["segmentation"](4, None)(output, batch())["loss"].backward()
    assert low.grad[0] < 0  # more of the anomalous pixel
    assert low.grad[1] > 0  # less of the normal one


def test_what_is_missing_is_said():
    objective = OBJECTIVES["segmentation"](4, None)
    silent = Batch(torch.zeros(1, 3, 1, 2), torch.tensor([1]), ["a"], ["b"])
    with pytest.raises(ValueError, match="needs masks in the batch and a network with maps"):
        objective(OUTPUT, silent)
    with pytest.raises(ValueError, match="needs masks in the batch and a network with maps"):
        objective(Output(OUTPUT.logits, OUTPUT.features), batch())
    for options in ({"ce_weight": -1.0}, {"map_weight": 0.0}):
        with pytest.raises(ValueError, match=r"_weight must be (at least|more than) 0, got"):
            OBJECTIVES["segmentation"](4, None, **options)
