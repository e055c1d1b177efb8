"""Reading pictures of every legal kind, refusing the rest, and what a network sees of them."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin, features
from torchvision.transforms import v2

from datasets.check.facts import image_facts
from datasets.image import RESIZES, View, allow_pixels, most_pixels, read_image, read_view
from datasets.mask import read_mask
from datasets.mask_files import looks_like_a_mask
from jobs.data import read_splits
from options.load import load
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_says_which_way_is_up(tmp_path, orientation, mode, suffix):
    """Corners as EXIF 2.3, table 4.6.4, has them: where row 0 and column 0 are to be shown."""
    top, left, is_turned = {
        1: ("top", "left", False),
        2: ("top", "right", False),
        3: ("bottom", "right", False),
        4: ("bottom", "left", False),
        5: ("top", "left", True),
        6: ("top", "right", True),
        7: ("bottom", "right", True),
        8: ("bottom", "left", True),
    }[orientation]
    stored = RGB if mode == "RGB" else GREY.astype(np.uint16) * 256
    shown = np.swapaxes(
        RGB if mode == "RGB" else np.stack([GREY] * 3, -1), 0, 1 if is_turned else 0
    )
    shown = shown[:: -1 if top == "bottom" else 1, :: -1 if left == "right" else 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(file, exif=exif)
    assert np.array_equal(np.asarray(read_image(file)), shown)
    assert image_facts(file).size == f"{shown.shape[1]}x{shown.shape[0]}"


def test_damaged_exif_is_no_reason_to_refuse_a_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture of a nut"
    damaged = bytearray(exif.tobytes())
    damaged[17] = 0  # the text's type: Pillow's exif_transpose fails
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=bytes(damaged))
    assert read_image(tmp_path / "a.jpg").size == (40, 60)


def test_black_and_white_and_grey_with_transparency(tmp_path):
    bits = Image.fromarray(GREY > 127)
    bits.save(tmp_path / "a.tiff")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tiff"))[..., 0] > 0, GREY > 127)
    Image.fromarray(np.dstack([GREY, GREY])).save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "b.png"))[..., 2], GREY)


def test_a_palette_with_transparency_is_read_in_silence(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes(range(16)))
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "a.png")), np.asarray(image.convert("RGB"))
    )


def test_decimal_numbers_are_refused(tmp_path):
    """Their white may be 1, 255 or anything: read as 0 to 255, most are nearly black."""
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "a.tif")
    with pytest.raises(
        UserError, match=r"a\.tif: its pixels are decimal numbers.*; save it with 8"
    ):
        read_image(tmp_path / "a.tif")


def test_numbers_that_do_not_fit_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(GREY.astype(np.int32) - 1000).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"reach from -1000 to .*; write image\.range=data, or im"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(UserError, match=r"b\.tif: holds pixels that are not a number"):
        read_image(tmp_path / "b.tif", levels=(0, 1))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_levels_are_black_and_white(tmp_path, kind):
    values = np.array([[0, 100, 120, 200, 300]]).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.tif")
    wanted = np.array([[0, 0, 51, 255, 255]])
    for levels in ((100, 200), lambda numbers: (float(numbers.min()) + 100, 200.0)):
        found = np.asarray(read_image(tmp_path / "a.tif", levels=levels))[..., 1]
        assert np.array_equal(found, wanted)
    view = View((1, 5), "full", (100, 200))
    assert np.array_equal(read_view(tmp_path / "a.tif", view)[2], wanted)
    assert view.at((2, 5)).levels == (100, 200)


def test_eight_bits_have_no_levels(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", levels=(9, 10))), RGB)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp", "a.gif"])
def test_files_of_several_pictures_are_refused(tmp_path, name):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=f"{name}: holds 2 pictures.*; save the one that counts"):
        read_image(tmp_path / name)


def test_a_smaller_version_of_the_picture_is_no_second_one(tmp_path):
    """As scanners and viewers of maps write it; and a telephone's second view."""
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::2, ::2])]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tif")), RGB)
    pages[0].save(tmp_path / "a.mpo", save_all=True, append_images=pages[1:])
    assert read_image(tmp_path / "a.mpo").size == (60, 40)


def test_tiffs_that_cannot_be_read_are_called_so(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with Image.open(tmp_path / "a.tif") as image:
        image.load()
        offset = content.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    content[offset + 8] = 5
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tif: is a TIFF of a kind that cannot be read"):
        read_image(tmp_path / "a.tif")


def test_planes_of_sixteen_bits_are_refused(tmp_path):
    """Pillow reads noise, without a word."""
    planes = np.stack([RGB[..., i].astype("<u2") * 257 for i in range(3)])
    entries = [
        (256, 3, 1, 60), (257, 3, 1, 40), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, 210), (277, 3, 1, 3), (278, 3, 1, 40), (279, 4, 3, 222), (284, 3, 1, 2),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    size = 40 * 60 * 2
    tail = struct.pack("<HHH", 16, 16, 16).rjust(10, b"\0")[4:].ljust(10, b"\0")
    offsets = struct.pack("<III", *(300 + i * size for i in range(3)))
    counts = struct.pack("<III", *[size] * 3)
    body = (head.ljust(200, b"\0") + tail + offsets + counts).ljust(300, b"\0")
    (tmp_path / "a.tif").write_bytes(body + planes.tobytes())
    with pytest.raises(UserError, match=r"a\.tif: is a TIFF with 16 bits and one plane for each"):
        read_image(tmp_path / "a.tif")


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
    monkeypatch.setattr("datasets.image.MAX_PIXELS", 60 * 40)
    Image.new("1", (60, 40)).save(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png").size == (60, 40)
    assert Image.MAX_IMAGE_PIXELS is None  # Pillow would warn of pictures half as large
    Image.new("1", (60, 41)).save(tmp_path / "bomb.png")
    with pytest.raises(
        UserError, match=r"bomb\.png: is too large, 60 x 41 pixels, and may be a de"
    ):
        read_image(tmp_path / "bomb.png")


def test_more_pixels_can_be_allowed(tmp_path, monkeypatch):
    """By an option, for this process and those that it starts."""
    monkeypatch.setattr("datasets.image.MAX_PIXELS", 60 * 40)
    monkeypatch.setenv("MOST_PIXELS_OF_A_PICTURE", str(60 * 40))
    Image.new("1", (60, 41)).save(tmp_path / "line.png")
    with pytest.raises(UserError, match=r"if it is none, dataset\.max_pixels=2460; else replace"):
        read_image(tmp_path / "line.png")
    allow_pixels(2460)
    assert read_image(tmp_path / "line.png").size == (60, 41)
    source = f"dataset={{name: folder, dir: {tmp_path}, max_pixels: 1000000000}}"
    with pytest.raises(UserError, match="0 normal pictures"):
        read_splits(load(Path("options/folder.yaml"), [source]).dataset)
    assert most_pixels() == 10**9


def test_no_more_than_a_hundred_pages_are_looked_at(tmp_path, monkeypatch):
    """A small file could hold a million smaller versions of its picture."""
    pages, seen = [Image.fromarray(GREY) for _ in range(120)], []
    for page in pages[1:]:
        page.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    kind = TiffImagePlugin.TiffImageFile
    seek = kind.seek
    monkeypatch.setattr(kind, "seek", lambda tiff, page: [seen.append(page), seek(tiff, page)])
    assert read_image(tmp_path / "a.tif").size == (60, 40)
    assert max(seen) == 99


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    """Each scan goes over all pixels: a small file could take hours."""
    Image.fromarray(RGB).save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    assert read_image(tmp_path / "a.jpg").mode == "RGB"
    start, end = content.index(b"\xff\xda"), len(content) - 2
    (tmp_path / "a.jpg").write_bytes(content[:start] + 20 * content[start:end] + content[end:])
    with pytest.raises(UserError, match=r"a\.jpg: is a JPEG of \d\d\d scans, and programs"):
        read_image(tmp_path / "a.jpg")
    others = 40 * b"\xff\xda"  # in a segment for a color profile, and in a film behind the picture
    profile = b"\xff\xe2" + (len(others) + 2).to_bytes(2, "big") + others
    (tmp_path / "a.jpg").write_bytes(content[:2] + profile + content[2:] + others)
    assert read_image(tmp_path / "a.jpg").mode == "RGB"


@pytest.mark.parametrize(
    ("name", "content", "times"),
    [
        ("a.ppm", b"P6 20 10 255\n" + bytes(600), 1),
        ("a.ppm", b"P6 20 10 254\n" + bytes(600), 12),
        ("a.pgm", b"P5 20 10 4095\n" + bytes(400), 4),
        ("a.pgm", b"P5 20 10 65535\n" + bytes(400), 1),
        ("a.png", b"P3 20 10 255" + b" 7" * 600, 9),
        ("JPEG2000", "RGB", 3),
        ("AVIF", "RGBA", 4),
        ("TIFF", "RGB", 1),
    ],
)
def test_slow_kinds_of_pictures_may_have_fewer_pixels(tmp_path, monkeypatch, name, content, times):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif features.check("jpg_2000" if name == "JPEG2000" else "avif"):
        Image.new(content, (20, 10)).save(file, name)
    else:
        pytest.skip(f"Pillow has no {name} here")
    monkeypatch.setenv("MOST_PIXELS_OF_A_PICTURE", str(200 * times))
    assert read_image(file).size == (20, 10)
    monkeypatch.setenv("MOST_PIXELS_OF_A_PICTURE", str(200 * times - 1))
    slow = f" of a kind that takes up to {times} times as long" if times > 1 else ""
    with pytest.raises(UserError, match=f"20 x 10 pixels{slow}, and may") as caught:
        read_image(file)
    assert f"dataset.max_pixels={200 * times};" in str(caught.value)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "DDS"])
def test_other_files_are_no_pictures_whatever_they_are_called(tmp_path, monkeypatch, kind):
    """Pillow would start Ghostscript, believe the size that an icon names, or take minutes."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    Image.fromarray(RGB).save(tmp_path / "a.png", kind)
    for look in (read_image, read_mask):
        with pytest.raises(UserError, match=r"a\.png: is not a picture \("):
            look(tmp_path / "a.png")
    assert looks_like_a_mask(tmp_path / "a.png") is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_very_large_pictures_look_the_same_at_a_fraction_of_their_size(
    tmp_path, monkeypatch, mode, suffix
):
    if (mode, suffix) == ("CMYK", "png"):
        pytest.skip("PNG has no CMYK")
    file = tmp_path / f"a.{suffix}"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    noise.resize((1400, 1050), Image.Resampling.BICUBIC).convert(mode).save(file)
    whole = image_facts(file)
    monkeypatch.setattr("datasets.image._LARGE", 1000)
    small = image_facts(file)
    assert read_image(file, at_least=128).height < 300
    assert small.size == whole.size == "1400x1050"
    thumbnails = [np.frombuffer(facts.thumbnail, np.float16) for facts in (whole, small)]
    assert np.abs(thumbnails[0] - thumbnails[1]).max() < 1


@pytest.mark.slow  # ten seconds
@pytest.mark.parametrize("look", ["image_facts", "mask_facts"])
def test_a_very_large_picture_takes_ten_bytes_a_pixel(tmp_path, look):
    """A bomb just under the limit of pixels takes less than two gigabytes."""
    Image.new("RGBA", (9000, 8000), (0, 0, 0, 255)).save(tmp_path / "bomb.png")
    code = (
        "import resource, sys; from pathlib import Path; import scipy.ndimage\n"
        f"from datasets.check.facts import {look} as look\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); facts = look(Path(sys.argv[1])); assert not facts.error\n"
        "print((peak() - before) * 1024 / 72e6)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(16, 32), (20, 40), (30, 65), (80, 190)])
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
