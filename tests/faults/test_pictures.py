"""Damaged pictures of every kind: each is read as a picture, or refused in one line, in time."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from datasets.image import RESIZES, View, read_image, read_view
from datasets.mask import read_mask
from tests.faults.damage import damaged, read, tries

KINDS = [
    *((kind, mode) for kind in ("PNG", "TIFF") for mode in ("1", "L", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
    *((kind, mode) for kind in ("BMP", "PPM", "TGA") for mode in ("L", "RGB")),
    *(("GIF", "P"), ("PCX", "L"), ("JPEG2000", "RGB"), ("SGI", "RGB")),
    *((kind, "RGB") for kind in ("WEBP", "AVIF") if features.check(kind.lower())),
]


def picture(kind, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    deep = pixels[..., 0].astype(np.uint16) * 257
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def images(content, file):
    file.write_bytes(content)
    view = View((8, 16), "full")
    found = [read(read_image, file), read(lambda: read_image(file, at_least=8))]
    assert all(image is None or image.mode == "RGB" for image in found)
    mask, pixels = read(read_mask, file), read(read_view, file, view)
    assert mask is None or mask.mode == "L"
    assert pixels is None or pixels.shape == (3, 8, 16)
    return [*found, mask, pixels]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some of the damage
@given(st.sampled_from(KINDS).flatmap(lambda kind: damaged(picture(*kind), st.binary(max_size=9))))
@tries(20)
def test_damaged_pictures(tmp_path_factory, content):
    images(content, tmp_path_factory.getbasetemp() / "picture")


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_whole_pictures(tmp_path, kind, mode):
    assert all(found is not None for found in images(picture(kind, mode), tmp_path / "picture"))


def test_every_view_takes_every_shape(tmp_path):
    for size in ((1, 1), (1, 3000), (3000, 1), (7, 5)):
        Image.new("RGB", size).save(tmp_path / "x.png")
        for resize in RESIZES:
            found = read(read_view, tmp_path / "x.png", View((8, 16), resize))
            assert found is not None or resize == "tiles"
