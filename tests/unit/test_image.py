"""Reading pictures of every legal kind, refusing the rest, and what a network sees of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datasets.image import RESIZES, View, read_image
from utils.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def test_rgb_is_read_as_it_is(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), RGB)


def test_grey_is_repeated(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.stack([GREY] * 3, -1))


def test_sixteen_bits_keep_their_full_range(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 256 + 17).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png"))[..., 0], GREY)


def test_palette(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "a.png")), np.asarray(image.convert("RGB"))
    )


def test_transparency_is_dropped(tmp_path):
    Image.fromarray(np.dstack([RGB, GREY])).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), RGB)


def test_cmyk(tmp_path):
    plain = np.full((40, 60, 3), (200, 60, 30), dtype=np.uint8)
    Image.fromarray(plain).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - plain).max() < 6


@pytest.mark.parametrize("name", ["a.JPG", "ein Bild ä.Png"])
def test_names(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name)
    assert read_image(tmp_path / name).size == (60, 40)


def test_a_truncated_file(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r"a\.jpg: cannot be read as a picture \(image file is trunc"
    ):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_a_file_that_is_no_picture(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=f"a.jpg: is not a picture \\({len(content)} bytes\\)"):
        read_image(tmp_path / "a.jpg")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_image(tmp_path / "a.jpg")


def test_a_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(16, 16), (20, 30), (30, 20), (80, 90)])
def test_the_size_is_what_was_asked_for(resize, size):
    pixels = View(size, resize)(Image.fromarray(RGB))
    assert pixels.shape == (3, *size)
    assert pixels.dtype == torch.uint8


def test_center_crop_is_the_released_transform():
    picture = Image.fromarray(RGB)
    released = v2.Compose(
        [
            v2.Resize(20, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(20),
            v2.PILToTensor(),
        ]
    )
    assert torch.equal(View((20, 20), "center_crop")(picture), released(picture))


def test_full_shows_every_corner_and_center_crop_does_not():
    corner = np.zeros((40, 80, 3), dtype=np.uint8)
    corner[:, :8] = 255
    picture = Image.fromarray(corner)
    assert View((20, 20), "full")(picture)[:, :, 0].min() > 200
    assert View((20, 20), "center_crop")(picture).max() < 60


def test_pad_keeps_the_proportions():
    white = Image.new("RGB", (80, 40), (255, 255, 255))
    pixels = View((20, 20), "pad")(white)
    assert pixels[:, 5:15].min() == 255
    assert pixels[:, :5].max() == 0
    assert pixels[:, 15:].max() == 0
