"""Heat maps against what is known by hand, by construction, or by another way of computing it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from jobs.visualizing.localization import (
    Chosen,
    center_heat,
    heat_in_mask,
    localization_table,
    localization_text,
    locate,
    pointing,
    typical,
    widened,
)
from models.encoders import IMAGE_ENCODERS
from models.encoders.tower import ImageEncoder, as_tokens
from models.gradcam import _Logits, heat_maps
from models.methods import METHODS
from models.places import pixel_maps, stride_and_first
from models.student import Student
from models.word_maps import word_maps
from tests.fixtures import TINY_CLIP, random_batch, student_options, teacher_options
from utils.batch import Batch
from utils.errors import NothingToShowError
from utils.registry import Component

SIZE = (96, 160)
PLACES = [(y, x) for y in (24, 72) for x in (24, 88, 136)]
TOWERS = {  # how much denser the heat must be around a patch than elsewhere; see below
    ("torchvision", "resnet18"): 1.4,
    ("torchvision", "mobilenet_v2"): 1.05,
    ("clip", "tiny-RN"): 3.0,
    ("clip", "tiny-ViT"): 5.0,
    ("timm", "test_vit"): 1.4,
    ("timm", "test_efficientnet"): 1.4,
}


def test_every_image_encoder_is_tested():
    assert {tower for tower, _ in TOWERS} == set(IMAGE_ENCODERS)


class Pixels(ImageEncoder):
    """A linear encoder: its two maps are twice the red and the green minus the blue channel."""

    def __init__(self):
        super().__init__((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.layer = nn.Conv2d(3, 2, 1, bias=False)
        self.layer.weight.data = torch.tensor([[2.0, 0, 0], [0, 1, -1]]).reshape(2, 3, 1, 1)

    def forward(self, image):
        return as_tokens(self.layer(self.normalize(image))).mean(dim=1, keepdim=True)

    def cam_layer(self):
        return self.layer


class Linear(Student):
    """Anomalous logit: 3 times the first map's mean, minus the second's, plus a bias."""

    def __init__(self):
        nn.Module.__init__(self)
        self.img_enc, self.classif = Pixels(), nn.Linear(2, 2)
        self.classif.weight.data = torch.tensor([[5.0, 7.0], [3.0, -1.0]])
        self.classif.bias.data = torch.tensor([0.5, -0.25])


def by_hand(image):
    red, green, blue = (image[:, i].double() / 255 for i in range(3))
    return (3 * 2 * red - (green - blue)) / (image.shape[-2] * image.shape[-1])


def test_heat_of_a_linear_network_is_what_each_place_adds_to_the_logit():
    student, batch = Linear(), random_batch(3, 4, 6)
    added = by_hand(batch.image)
    assert (added < 0).any()
    scores, heat = heat_maps(student, batch)
    np.testing.assert_allclose(heat.numpy(), added.clamp(min=0).numpy(), atol=1e-6)
    logits = student(batch).logits
    np.testing.assert_allclose(added.sum((1, 2)) - 0.25, logits[:, 1].detach(), atol=1e-5)
    torch.testing.assert_close(scores, logits.softmax(-1)[:, 1].detach())


def test_the_library_agrees_after_scaling_each_image():
    student, batch = Linear(), random_batch(3, 4, 6)
    theirs = GradCAM(_Logits(student, batch), [student.img_enc.layer])(
        batch.image.float(), [ClassifierOutputTarget(1)] * 3
    )
    ours = heat_maps(student, batch)[1].numpy()
    low = ours.min((1, 2), keepdims=True)
    stretched = (ours - low) / (ours - low).max((1, 2), keepdims=True)
    np.testing.assert_allclose(stretched, theirs, atol=1e-4)


def test_a_place_that_the_network_does_not_look_at_is_cold():
    """The mean gradient of Grad-CAM would spread the heat of the left half over the right one."""

    class Left(Pixels):
        def forward(self, image):
            maps = self.layer(self.normalize(image))
            looks = torch.arange(maps.shape[-1]) < maps.shape[-1] // 2
            return as_tokens(maps * looks).mean(dim=1, keepdim=True)

    student, batch = Linear(), random_batch(3, 4, 6)
    student.img_enc = Left()
    heat = heat_maps(student, batch)[1].numpy()
    expected = by_hand(batch.image).clamp(min=0).numpy()
    np.testing.assert_allclose(heat[..., :3], expected[..., :3], atol=1e-6)
    assert heat[..., 3:].max() == 0


def test_one_scale_a_normal_image_does_not_glow():
    """An image with a tenth of the evidence has a tenth of the heat; one with none has none."""
    batch = random_batch(3, 4, 6)
    batch.image[:, 1:] = 0
    batch.image[0] = 200
    batch.image[1] = 20
    batch.image[2, 1], batch.image[2, 0] = 100, 0
    _, heat = heat_maps(Linear(), batch)
    assert heat[1].max().item() == pytest.approx(heat[0].max().item() / 10, rel=1e-5)
    assert heat[2].max() == 0


def student(tower, arch, train="all"):
    torch.manual_seed(0)
    options = student_options(tower, arch)
    options["img_enc"].options["train"] = train
    model = METHODS["student"](SIZE, True, **options)
    for parameter in model.parameters():  # CLIP's ResNet starts with dead residual branches
        if parameter.abs().sum() == 0:
            nn.init.normal_(parameter, std=0.1)
    return model


def patches(places):
    """Noise, with a bright square at each of ``places``."""
    count = len(places)
    random = torch.Generator().manual_seed(1)
    image = torch.randint(60, 120, (count, 3, *SIZE), generator=random, dtype=torch.uint8)
    for picture, place in zip(image, places, strict=True):
        if place is not None:
            picture[:, place[0] - 8 : place[0] + 8, place[1] - 8 : place[1] + 8] = 250
    names = [str(i) for i in range(count)]
    return Batch(image=image, label=torch.zeros(count).long(), object=names, path=names)


@torch.no_grad()
def look_for_the_patch(model):
    """Makes the anomalous logit ask: how much is this like a picture with a patch?"""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    plain = patches([None] * len(PLACES))
    model.train()(patches([*PLACES, *([None] * len(PLACES))]))
    model.eval()
    without = model(plain).features
    direction = (model(patches(PLACES)).features - without).mean(0)
    linear = next(m for m in model.classif.modules() if isinstance(m, nn.Linear))
    linear.weight[:] = torch.stack([0 * direction, direction / direction.norm()])
    linear.bias[:] = torch.tensor([0.0, -float((without @ linear.weight[1]).mean())])
    return model


@pytest.mark.parametrize(
    ("tower", "arch"),
    [pytest.param(*both, marks=[pytest.mark.slow] * (both[0] == "torchvision")) for both in TOWERS],
    ids=lambda name: name,
)
def test_every_tower_is_hot_where_the_patch_is(tower, arch):
    model = look_for_the_patch(student(tower, arch))
    batch = patches(PLACES)
    scores, heat = heat_maps(model, batch)
    assert heat.shape == (len(PLACES), *SIZE)
    assert heat.isfinite().all()
    assert heat.min() >= 0
    torch.testing.assert_close(scores, model.score(batch).detach())
    density = [
        float(h[max(y - 20, 0) : y + 20, max(x - 20, 0) : x + 20].mean() / h.mean())
        for h, (y, x) in zip(heat, PLACES, strict=True)
    ]
    assert np.mean(density) > TOWERS[tower, arch]
    _, cold = heat_maps(model, patches([None] * len(PLACES)))
    assert cold.amax((1, 2)).mean() < 0.8 * heat.amax((1, 2)).mean()
    _, alone = heat_maps(model, patches(PLACES[:1]))
    torch.testing.assert_close(alone[0], heat[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("tower", "arch"), sorted({*TOWERS} - {("torchvision", "resnet18")}), ids=lambda name: name
)
def test_a_frozen_tower_has_the_same_heat(tower, arch):
    free, frozen = student(tower, arch), student(tower, arch, "none")
    frozen.load_state_dict(free.state_dict())
    heat = heat_maps(free, patches(PLACES[:2]))[1]
    torch.testing.assert_close(heat_maps(frozen, patches(PLACES[:2]))[1], heat)
    assert all(p.grad is None for p in free.parameters())  # nothing is left behind


def test_an_unknown_layer_of_a_tower_is_an_error():
    encoder = student("clip", "tiny-ViT").img_enc
    encoder.visual = nn.Identity()
    with pytest.raises(ValueError, match="known for CLIP's ResNets and ViTs, not for this arch"):
        encoder.cam_layer()


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "mobilenet_v2")),
        *("tiny-RN", "tiny-ViT"),
    ],
)
def test_places_lie_in_the_middle_of_what_they_see(name):
    """Against the gradient: with equal weights everywhere its center of mass is that middle.

    Of equal values a maximum takes the first, which moves a ResNet's by 2 pixels.
    """
    size, row, column = 512, 8, 7
    tower = "clip" if name.startswith("tiny") else "torchvision"
    weights = "random" if tower == "clip" else "false"
    encoder = IMAGE_ENCODERS[tower]((size, size), True, True, arch=name, pre_trained=weights)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    encoder.eval()
    chain = encoder.visual if tower == "clip" else encoder.trunk
    parts = {
        "tiny-RN": lambda x: chain.layer4(chain.layer3(chain.layer2(chain.layer1(chain.stem(x))))),
        "tiny-ViT": lambda x: chain.conv1(x),
    }
    image = torch.full((1, 3, size, size), 1e-4, requires_grad=True)
    parts.get(name, chain)(image)[0, :, row, column].sum().backward()
    seen = image.grad[0].sum(0).double()
    pixels = torch.arange(size, dtype=torch.float64)
    middle = [float((seen.sum(side) * pixels).sum() / seen.sum()) for side in (1, 0)]
    stride, first = stride_and_first(encoder)
    assert [first + stride * row, first + stride * column] == pytest.approx(middle, abs=2.5)


def test_spreading_puts_each_value_where_its_place_lies():
    network = nn.Conv2d(3, 1, 3, stride=4, padding=1)  # places at pixels 0, 4, 8
    maps = torch.tensor([[[[1.0, 5.0, 2.0]]]])
    wide = pixel_maps(maps, network, (1, 12), "bicubic")[0, 0, 0]
    assert wide[[0, 4, 8]].tolist() == pytest.approx([1, 5, 2])
    flat = pixel_maps(maps, network, (1, 12), "nearest")[0, 0, 0]
    assert flat[[0, 1, 3, 4, 5, 7, 8, 11]].tolist() == [1, 1, 5, 5, 5, 2, 2, 2]


HEAT = np.array([[1.0, 2.0, 0.0], [4.0, 0.0, 1.0]])
MASK = np.array([[False, True, False], [True, False, False]])


def test_share_and_pointing_by_hand():
    assert heat_in_mask(HEAT, MASK) == pytest.approx(6 / 8)
    assert pointing(HEAT, MASK) == 1
    assert pointing(HEAT, ~MASK) == 0
    assert pointing(np.array([[2.0, 2.0, 1.0, 2.0]]), np.array([[1, 0, 1, 0]]) > 0) == 1 / 3
    even = np.ones((2, 3))
    assert heat_in_mask(even, MASK) == pointing(even, MASK) == pytest.approx(2 / 6)
    assert heat_in_mask(0 * even, MASK) == pointing(0 * even, MASK) == 0


def test_a_widened_mask_by_hand():
    mask = np.zeros((40, 60), dtype=bool)
    mask[20, 30:32] = True
    near = widened(mask)
    for row, column in ((20, 15), (20, 46), (5, 30), (35, 31), (29, 18), (32, 40)):
        assert near[row, column]  # 12 and 9 pixels away are 15
    for row, column in ((20, 14), (20, 47), (4, 30), (36, 31), (30, 18), (29, 17)):
        assert not near[row, column]
    heat = np.zeros(mask.shape)
    heat[29, 18] = 1
    assert (pointing(heat, mask), pointing(heat, near)) == (0, 1)
    heat[29, 17] = 2
    assert locate(heat, mask, 1)["pointing_near"] == 0


def test_the_center_by_hand():
    center = center_heat(2, 4)  # middles of pixels at -1, 1 and -1.5, -0.5, 0.5, 1.5 deviations
    wanted = [math.exp(-(1 + x * x) / 2) for x in (-1.5, -0.5, 0.5, 1.5)]
    np.testing.assert_allclose(center, [wanted, wanted])


def test_figures_per_object():
    rows = [
        {"object": "a", **locate(HEAT, MASK, 1)},
        {"object": "a", **locate(0 * HEAT, MASK, 1)},
        {"object": "a", **locate(HEAT, None, 1)},  # no mask: only its peak counts
        {"object": "a", **locate(HEAT / 8, 0 * MASK, 0)},
        {"object": "b", **locate(HEAT, 0 * MASK, 0)},
    ]
    table = localization_table(pd.DataFrame(rows))
    assert list(table.index) == ["a", "b", "mean"]
    assert table["n"].tolist() == [2, 0, 2]
    assert table.loc["a", "heat_in_mask"] == pytest.approx(37.5)
    assert table.loc["a", "pointing"] == table.loc["a", "pointing_near"] == 50
    assert table.loc["a", "mask_area"] == pytest.approx(100 / 3)
    assert table.loc["a", "peak_anomalous"] == pytest.approx(8 / 3)
    assert table.loc["a", "peak_normal"] == 0.5
    assert np.isnan(table.loc["b", "heat_in_mask"])
    assert table.loc["mean", "heat_in_mask"] == pytest.approx(37.5)
    text = localization_text(table, "Title", {"seed": 7})
    row = next(line for line in text.splitlines() if line.startswith("| b"))
    assert [cell.strip() for cell in row.split("|")[1:4]] == ["b", "0", "-"]
    assert "Title. n: anomalous test images" in text


def test_images_are_chosen_by_rank():
    rows = pd.DataFrame(
        {
            "object": ["a"] * 7 + ["b"],
            "label": [1, 1, 1, 1, 0, 0, 0, 1],
            "score": [0.9, 0.1, 0.5, 0.7, 0.3, 0.2, 0.1, 0.5],
            "has_mask": [True, True, True, False, False, False, False, False],
        }
    )
    assert typical(rows, 1) == [Chosen(2, 5), Chosen(7, None)]
    assert typical(rows, 2) == [Chosen(1, 6), Chosen(0, 4), Chosen(7, None)]


@pytest.mark.parametrize("arch", ["tiny-RN", "tiny-ViT"])
def test_word_maps_against_the_weights_themselves(arch):
    torch.manual_seed(0)
    image = {"img_enc": Component("clip", {**TINY_CLIP, "arch": arch})}
    teacher = METHODS["teacher"](SIZE, True, **{**teacher_options(), **image}).eval()
    batch = random_batch(2, *SIZE)
    stride = stride_and_first(teacher.img_enc)[0]
    rows, columns = SIZE[0] // stride, SIZE[1] // stride
    with torch.no_grad():
        output = teacher(batch)
    weights = output.attention["text_to_image"]  # (B, layers, heads, L, N)
    scores, found = word_maps(teacher, batch)
    torch.testing.assert_close(scores, output.logits.softmax(-1)[:, 1])
    assert found[1].words == ["a", "photo", "of", "a", "fryum", "with", "small", "scratches"]
    places = [slice(1, 2), slice(2, 3), slice(3, 4), slice(4, 5), slice(5, 7), slice(7, 8)]
    for word, pieces in enumerate(places):
        even = 1 / (rows * columns)
        for y, x in ((0, 0), (rows - 1, 1), (1, columns - 1)):
            mean = weights[1, :, :, pieces, y * columns + x].mean() / even
            pixel = found[1].maps[word, y * stride + stride // 2, x * stride + stride // 2]
            assert pixel.item() == pytest.approx(mean.item(), rel=1e-4)


def test_a_caption_without_words_has_nothing_to_show():
    teacher = METHODS["teacher"](SIZE, True, **teacher_options()).eval()
    batch = replace(random_batch(2, *SIZE), caption=["a photo", ""])
    with pytest.raises(NothingToShowError, match="the caption '' has no words"):
        word_maps(teacher, batch)


def test_a_fusion_without_attention_has_nothing_to_show():
    teacher = METHODS["teacher"](SIZE, True, **teacher_options("concat")).eval()
    with pytest.raises(ValueError, match="no attention text_to_image: there is nothing to show"):
        word_maps(teacher, random_batch(2, *SIZE))
