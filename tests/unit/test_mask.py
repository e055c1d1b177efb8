"""Masks, mosaics and tiles: what is anomalous stays where it is seen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import v2

from datasets.augment import Augment, Augmentation
from datasets.image import View, read_view
from datasets.image_text import ImageText, Mosaic
from datasets.mask import Masks, check_directions, read_mask
from datasets.record import Record
from utils.batch import UNKNOWN
from utils.errors import UserError

AREA = np.zeros((8, 12), dtype=np.uint8)
AREA[2:5, 3:9] = 1


def grey(value):
    return Image.fromarray(AREA * value)


def palette(numbers, colours):
    image = Image.fromarray(numbers)
    image.putpalette(colours)
    return image


def colour(channel, mode):
    pixels = np.zeros((*AREA.shape, len(mode)), dtype=np.uint8)
    pixels[..., channel] = AREA * 40
    if mode.endswith("A"):
        pixels[..., -1] = 255
    return Image.fromarray(pixels)


MASKS = {
    "number_of_a_defect": grey(1),
    "another_number": grey(6),
    "white": grey(255),
    "palette": palette(AREA * 3, [0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 0, 200]),
    "palette_that_begins_with_white": palette(1 - AREA, [255, 255, 255, 0, 0, 0]),
    "one_bit": grey(255).convert("1"),
    "red": colour(0, "RGB"),
    "blue": colour(2, "RGB"),
    "opaque": colour(1, "RGBA"),
    "grey_and_opaque": colour(0, "LA"),
    "sixteen_bits": Image.fromarray(AREA.astype(np.uint16) * 300),
}


@pytest.mark.parametrize("name", MASKS)
def test_any_value_above_zero_is_anomalous(tmp_path, name):
    MASKS[name].save(tmp_path / "a.png")
    found = read_mask(tmp_path / "a.png")
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), AREA)


def test_the_modes_are_what_they_should_be(tmp_path):
    modes = {}
    for name, image in MASKS.items():
        image.save(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as saved:
            modes[name] = saved.mode
    assert modes["palette"] == "P"
    assert modes["one_bit"] == "1"
    assert modes["opaque"] == "RGBA"
    assert modes["grey_and_opaque"] == "LA"
    assert modes["sixteen_bits"].startswith("I")


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_mask_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: (is not a picture|cannot be read as a picture)"):
        read_mask(tmp_path / "a.png")


def disk(side=(160, 200), radius=11):
    y, x = np.mgrid[: side[0], : side[1]]
    return ((y - 70) ** 2 + (x - 90) ** 2 < radius**2).astype(np.uint8)


def drawn(color, ground, *, alpha=255):
    """The disk in one color on transparent ground."""
    pixels = np.full((160, 200, 4), (*ground, 0), dtype=np.uint8)
    pixels[disk() == 1] = (*color, alpha)
    return Image.fromarray(pixels)


def holed():
    """White on opaque black, with a transparent border."""
    pixels = np.dstack([disk() * 255] * 3 + [np.full_like(disk(), 255)])
    pixels[:, :20, 3] = 0
    return Image.fromarray(pixels)


TRANSPARENT = {
    "white": drawn((255, 255, 255), (255, 255, 255)),
    "black": drawn((0, 0, 0), (0, 0, 0)),
    "red_on_white": drawn((255, 0, 0), (255, 255, 255)),
    "brush": drawn((0, 0, 0), (0, 0, 0), alpha=90),
    "gray": drawn((0, 0, 0), (0, 0, 0)).convert("LA"),
    "border": holed(),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_drawn_on_a_transparent_sheet_is_anomalous(tmp_path, name):
    TRANSPARENT[name].save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "a.png")), disk())


def test_transparent_palettes_and_empty_sheets(tmp_path):
    numbers = palette(1 - disk(), [0, 0, 0, 255, 255, 255])
    numbers.save(tmp_path / "a.png", transparency=1)  # white is transparent, black is drawn
    assert np.array_equal(np.asarray(read_mask(tmp_path / "a.png")), disk())
    Image.new("RGBA", (9, 9), (255, 255, 255, 0)).save(tmp_path / "b.png")
    assert not np.asarray(read_mask(tmp_path / "b.png")).any()
    forgotten = np.dstack([disk() * 255] * 3 + [disk() * 0])
    Image.fromarray(forgotten).save(tmp_path / "c.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "c.png")), disk())


@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize(
    ("suffix", "white"), [("jpg", 255), ("jpg", 100), ("webp", 255), ("avif", 255), ("png", 255)]
)
def test_gray_noise_of_lossy_formats_is_no_anomaly(tmp_path, suffix, white, quality):
    """Also where a JPEG was saved as PNG later."""
    file = tmp_path / f"a.{suffix}"
    picture = Image.fromarray(disk() * np.uint8(white))
    picture.save(tmp_path / "a.jpg", quality=quality)
    if suffix == "png":
        with Image.open(tmp_path / "a.jpg") as picture:
            picture.save(file)
    elif suffix != "jpg":
        picture.save(file, quality=quality)
    found = np.asarray(read_mask(file))
    assert np.count_nonzero(found != disk()) <= (0.01 if quality > 20 else 0.1) * disk().sum()


def test_numbers_of_defects_are_no_noise(tmp_path):
    numbers = np.repeat(np.arange(12, dtype=np.uint8), 5)[None].repeat(4, axis=0)
    for name, scale in (("a.png", 1), ("b.webp", 1)):
        Image.fromarray(numbers * np.uint8(scale)).save(tmp_path / name, lossless=True)
        assert np.array_equal(np.asarray(read_mask(tmp_path / name)), numbers > 0)
    few = np.where(numbers < 6, numbers * 50, 255).astype(np.uint8)  # 0, 50, 100, ... 255
    Image.fromarray(few).save(tmp_path / "c.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "c.png")), few > 0)


def test_damaged_masks_are_one_line(tmp_path):
    """Pillow's AVIF decoder raises RuntimeError."""
    file, random = tmp_path / "a.avif", np.random.default_rng(1)
    Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(file)
    whole, refused = np.frombuffer(file.read_bytes(), np.uint8), 0
    for _ in range(100):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
        file.write_bytes(damaged.tobytes())
        try:
            read_mask(file)
        except UserError:
            refused += 1
    assert refused > 5


# ---------------------------------------------------------------- to the size of the network


def resized(mask, size, how="area", resize="full"):
    return View(size, resize).mask(Image.fromarray(mask), how).numpy()


def regions(mask):
    return ndimage.label(mask, structure=np.ones((3, 3)))[1]


@pytest.mark.parametrize("resize", ["full", "pad", "center_crop", "tiles"])
def test_thin_regions_keep_the_pixels_that_they_fill_most(resize):
    mask = np.zeros((1000, 1000), np.uint8)
    mask[103:105, 300:500] = 1  # a scratch: a fifth of row 10, columns 30 to 49
    mask[600:602, 704:706] = 1  # a pinhole: a 25th of row 60, column 70
    mask[899:901, 899:901] = 1  # one between four pixels
    mask[300:405, 600:804] = 1  # a thick one: half of row 40, less than half of column 80
    wanted = np.zeros((100, 100), np.uint8)
    wanted[10, 30:50] = wanted[60, 70] = wanted[89:91, 89:91] = wanted[30:41, 60:80] = 1
    found = resized(mask, (100, 100), resize=resize)
    assert np.array_equal(found, wanted)
    assert found.dtype == np.uint8
    assert regions(found) == regions(mask) == 4


def test_a_single_pixel_of_a_large_picture_is_kept():
    mask = np.zeros((3000, 4000), np.uint8)
    mask[1234, 2345] = 1
    assert resized(mask, (64, 64)).sum() == 1


def test_masks_as_the_authors_resize_them():
    """VAND: torchvision's Resize of the white mask, then ToTensor, then more than 0.5."""
    random = np.random.default_rng(0)
    mask = (ndimage.gaussian_filter(random.normal(size=(100, 150)), 3) > 0.05).astype(np.uint8)
    theirs = v2.Resize((37, 41), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    wanted = np.asarray(theirs(Image.fromarray(mask * np.uint8(255)))) / 255 > 0.5
    assert np.array_equal(resized(mask, (37, 41), "bilinear"), wanted)
    assert 0 < np.mean(resized(mask, (37, 41)) != wanted) < 0.1


@pytest.mark.parametrize(
    ("mask", "is_right"),
    [
        ((160, 120), True),
        ((120, 160), False),
        ((80, 60), True),
        ((60, 80), False),
        ((121, 161), False),
        ((256, 256), True),  # of no direction
    ],
)
def test_masks_that_lie_crosswise(tmp_path, mask, is_right):
    """The picture is stored lying and shown upright: EXIF 8; the mask was drawn by another tool."""
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (120, 160)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", mask).save(tmp_path / "m.png")
    record = Record(path="a.jpg", object="a", label=1, mask="m.png")
    if is_right:
        check_directions(tmp_path, [record])
        return
    with pytest.raises(
        UserError, match=r"m\.png: lies crosswise to its picture a\.jpg; .*: turn the mask"
    ):
        check_directions(tmp_path, [record])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_mask_with_exif_of_its_own_is_turned_as_its_picture_is(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in (f"a.{suffix}", f"m.{suffix}"):
        Image.fromarray(disk() * np.uint8(255)).save(tmp_path / name, exif=exif)
    found = np.asarray(read_mask(tmp_path / f"m.{suffix}"))
    assert found.shape == (200, 160)
    assert np.mean(found != np.rot90(disk(), -1)) < 0.001
    record = Record(path=f"a.{suffix}", object="a", label=1, mask=f"m.{suffix}")
    check_directions(tmp_path, [record])


def test_masks_of_records(tmp_path):
    grey(255).save(tmp_path / "a.png")
    records = [
        Record(path="0.png", object="a", label=1, mask="a.png"),
        Record(path="1.png", object="a", label=1),
        Record(path="2.png", object="a", label=0),
    ]
    masks = Masks(tmp_path, records, View((8, 12), "full"))
    assert torch.equal(masks(0), torch.from_numpy(AREA))
    assert masks(1).unique().tolist() == [UNKNOWN]
    assert masks(2).unique().tolist() == [0]
    larger = Masks(tmp_path, records, View((30, 50), "full"))(0)
    assert larger.shape == (30, 50)
    assert larger.dtype == torch.uint8
    assert larger.unique().tolist() == [0, 1]  # nothing in between


# ---------------------------------------------------------------- mosaics


def numbered(names):
    """Records, and pictures and masks that say which is which: value i, mask i % 2."""
    records = [
        Record(path=f"{name}/{folder}/{i}.png", object=name, label=i % 2)
        for i, (name, folder) in enumerate(names)
    ]
    pixels = lambda i: torch.full((3, 8, 12), i, dtype=torch.uint8)  # noqa: E731
    masks = lambda i: torch.full((8, 12), i % 2, dtype=torch.uint8)  # noqa: E731
    return records, pixels, masks


NAMES = [(name, "good") for name in "abab"] + [(name, "bad") for name in "abaabb"]


def quarters(image):
    """The value of each quarter, which must be of one value but for the seams."""
    inner = [p for half in image.chunk(2, dim=-2) for p in half.chunk(2, dim=-1)]
    height, width = inner[0].shape[-2:]
    inner = [p[..., 1 : height - 1, 2 : width - 2] for p in inner]
    assert all(part.unique().numel() == 1 for part in inner)
    return [int(part.flatten()[0]) for part in inner]


def test_a_mosaic_is_four_images_of_the_object_with_their_masks():
    records, pixels, masks = numbered(NAMES)
    mosaic, seen = Mosaic(1.0, records), set()
    for seed in range(60):
        for index in (0, 1):
            image, mask, label = mosaic(index, pixels, masks, seed)
            assert image.shape == (3, 8, 12)
            assert mask.shape == (8, 12)
            assert image.dtype == mask.dtype == torch.uint8
            numbers = quarters(image)
            assert {records[i].object for i in numbers} == {records[index].object}
            assert quarters(mask) == [i % 2 for i in numbers]
            assert label == max(i % 2 for i in numbers)
            seen |= set(numbers)
    assert seen == set(range(len(records)))


def test_a_mosaic_follows_from_its_seed():
    records, pixels, masks = numbered(NAMES)
    mosaic = Mosaic(1.0, records)
    found = [quarters(mosaic(0, pixels, masks, seed)[0]) for seed in range(20)]
    again = [quarters(mosaic(0, pixels, masks, seed)[0]) for seed in range(20)]
    assert found == again
    assert len({tuple(numbers) for numbers in found}) > 10


def test_as_many_mosaics_as_asked_for():
    records, pixels, masks = numbered(NAMES)
    mosaic, count = Mosaic(0.2, records), 0
    for seed in range(1000):
        image, mask, label = mosaic(3, pixels, masks, seed)
        if quarters(image) != [3] * 4:
            count += 1
        else:
            assert mask.unique().tolist() == [label] == [1]
    assert 150 < count < 250


def test_a_folder_is_drawn_before_its_images():
    """The official mosaic: one good image among many bad ones comes up half the time."""
    records, pixels, masks = numbered([("a", "good")] + [("a", "bad")] * 19)
    mosaic = Mosaic(1.0, records)
    drawn = [n for seed in range(200) for n in quarters(mosaic(0, pixels, masks, seed)[0])]
    assert 0.4 < drawn.count(0) / len(drawn) < 0.6


def test_a_mosaic_shows_whole_pictures():
    """A bright square in each picture is there four times, and its mask lies on it."""
    records, _, _ = numbered([("a", "good")] * 3)
    area = torch.zeros(16, 24, dtype=torch.uint8)
    area[4:12, 8:16] = 1
    bright = lambda _: area.expand(3, -1, -1) * 200  # noqa: E731
    image, mask, _ = Mosaic(1.0, records)(0, bright, lambda _: area, 0)
    assert mask.sum() == area.sum()
    assert (image[0][mask == 1] > 100).all()
    assert (image[0][mask == 0] < 100).all()
    assert mask[:8, :12].sum() == mask[8:, 12:].sum() == area.sum() / 4


MOSAIC = Augmentation(Augment(mosaic=1.0), (16, 24), seed=5)


def test_a_data_set_makes_mosaics_by_epoch_and_image():
    records, pixels, masks = numbered(NAMES)
    data = ImageText(pixels, records, masks=masks, augmentation=MOSAIC)
    first, again, other = data[0, 2], data[0, 2], data[1, 2]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert quarters(first.mask) == [i % 2 for i in quarters(first.image)]
    assert not torch.equal(first.image, other.image)


def test_the_label_of_a_mosaic_is_that_of_what_it_shows():
    """Of an anomalous image, and with none of its four anomalous, or the other way round."""
    records, pixels, masks = numbered(NAMES)
    data = ImageText(pixels, records, masks=masks, augmentation=MOSAIC)
    samples = [data[epoch, i] for epoch in range(10) for i in range(len(records))]
    labels = [sample.record.label for sample in samples]
    assert labels == [int(sample.mask.any()) for sample in samples]
    assert labels != [record.label for record in records] * 10


# ---------------------------------------------------------------- tiles


def positions(width, height, room):
    """Where the tiles of a picture of this size start, read off its pixels; -1: black."""
    y, x = np.mgrid[:height, :width] + 1
    picture = Image.fromarray(np.stack([x % 256, y % 256, x // 256], axis=2).astype(np.uint8))
    side = min(width, height)
    found = View((side, room * side), "tiles")(picture)
    starts = []
    for tile in found.split(side, dim=2):
        assert tile.shape == (3, side, side)
        left = int(tile[0, 0, 0]) + 256 * int(tile[2, 0, 0]) - 1
        top = int(tile[1, 0, 0]) - 1
        if left >= 0:
            cut = picture.crop((left, top, left + side, top + side))
            assert torch.equal(tile, torch.from_numpy(np.array(cut)).permute(2, 0, 1))
        else:
            assert tile.max() == 0
        starts.append(max(left, top))
    return starts


@pytest.mark.parametrize(
    ("size", "room", "starts"),
    [
        ((100, 100), 1, [0]),
        ((100, 100), 2, [0, -1]),
        ((150, 100), 2, [0, 50]),
        ((100, 150), 2, [0, 50]),
        ((150, 100), 3, [0, 50, -1]),
        ((180, 100), 2, [0, 80]),
        ((181, 100), 3, [0, 80, 81]),
        ((200, 100), 3, [0, 80, 100]),
        ((100, 200), 3, [0, 80, 100]),
        ((340, 100), 4, [0, 80, 160, 240]),
        ((101, 100), 2, [0, 1]),
        ((114, 30), 5, [0, 24, 48, 72, 84]),
        ((102, 30), 4, [0, 24, 48, 72]),
    ],
)
def test_tiles_are_squares_four_fifths_apart_and_the_last_is_flush(size, room, starts):
    assert positions(*size, room) == starts


@pytest.mark.parametrize("size", [(200, 100), (100, 200)])
def test_a_picture_too_long_for_its_tiles(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    message = rf"a\.png: {size[0]} x {size[1]} pixels are 3 tiles; .* image\.size=\[50, 150\]"
    with pytest.raises(UserError, match=message):
        read_view(tmp_path / "a.png", View((50, 100), "tiles"))


def test_a_mask_is_tiled_as_its_picture():
    mask = Image.fromarray(np.kron(AREA, np.ones((5, 5), dtype=np.uint8)))  # 60 x 40
    found = View((40, 80), "tiles").mask(mask)
    whole = torch.from_numpy(np.array(mask))
    assert torch.equal(found, torch.cat([whole[:, :40], whole[:, 20:]], dim=1))


def test_visa_is_two_tiles_as_the_options_say():
    assert "[240, 480]" in Path("options/baselines/winclip.yaml").read_text(encoding="utf-8")
    View((240, 480), "tiles")(Image.new("RGB", (1500, 1000)))
    View((240, 480), "tiles")(Image.new("RGB", (1284, 1168)))
