"""From a file to pixels."""

import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from utils.errors import UserError

Resize = Literal["full", "pad", "center_crop", "tiles"]
MaskResize = Literal["area", "bilinear"]
Levels = tuple[float, float]  # the numbers that are black and white
PixelRange = Literal["type", "data"] | Levels

# The end of a message about a picture of a data set.
SKIP_BROKEN = "or leave out what cannot be read: dataset.skip_broken=true"
# A truncated file is an error, whatever another library asked of Pillow.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow's limit, above which a small file could fill the memory. Pillow also warns of half of it,
# which microscopes and scanners make: the limit is kept here instead.
MAX_PIXELS = 178_956_970
_LARGE = 2**24  # pixels; above, one thread at a time decodes: it may take two gigabytes
_VARIABLE = "MOST_PIXELS_OF_A_PICTURE"  # loader processes inherit it, however they are started
_TURN = threading.RLock()
# What is read, whatever a file is called. Pillow knows more: EPS starts Ghostscript, an ICO may
# hold a picture of another size than it says, and some decoders are slow.
FORMATS = (
    *("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP"),  # JPEG with MPO
    *("AVIF", "GIF", "JPEG2000", "PCX", "SGI", "TGA"),
)
# Codecs and formats of which a pixel takes, for each channel, so many times as long as one of the
# others: Python decodes PNM whose white is not 255, PNM written as text, and run lengths in BMP.
_SLOW = {"ppm": 4, "ppm_plain": 3, "bmp_rle": 3, "jpeg2k": 1, "AVIF": 1}
_SCAN, _MOST_SCANS = b"\xda", 30  # of a JPEG; programs write at most a dozen
_SEGMENT = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # begins so; between them are the pixels
_MOST_PAGES = 100  # of a TIFF that are looked at: a small file could hold a million
_SUBFILE, _BITS, _PLANES = 254, 258, 284  # numbers of TIFF's tags
Image.MAX_IMAGE_PIXELS = None
_TURNS = {  # EXIF's orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
DEEP = (*SIXTEEN_BITS, "F")  # modes of more than 8 bits
_SIXTEEN = ";16"  # in the name of a layout of colors of 16 bits, of which Pillow keeps 8
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # what its files begin with


@contextmanager
def open_picture(path: Path, *, mend: str) -> Iterator[Image.Image]:
    """The picture in ``path``, of which only the beginning has been read.

    Args:
        path: The file.
        mend: What to do if it cannot be read, here or in the block that follows.

    Raises:
        UserError: If the file is missing, empty, truncated, too large or no picture.
    """
    try:
        # Without its name: Pillow would map it into memory, and mixes up the rows of turned TIFFs.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            count, times = image.width * image.height, _slowness(image)
            if count * times > most_pixels():
                slow = f" of a kind that takes up to {times} times as long" if times > 1 else ""
                raise UserError(
                    f"{path}: is too large, {image.width} x {image.height} pixels{slow}, and may "
                    "be a decompression bomb; if it is none, dataset.max_pixels="
                    f"{count * times}; else {mend}"
                )
            _check_kind(image, path)
            with _TURN if count > _LARGE else nullcontext():
                yield image
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) in _TIFF:
                raise UserError(
                    f"{path}: is a TIFF of a kind that cannot be read: other channels than gray or "
                    f"RGB, decimal numbers of 16 bits, or damaged; save it as PNG, or {mend}"
                ) from error
        raise UserError(f"{path}: is not a picture ({size} bytes); {mend}") from error
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise UserError(f"{path}: cannot be read as a picture ({error}); {mend}") from error


def allow_pixels(count: int) -> None:
    """Lets this process, and those that it starts, read pictures of up to ``count`` pixels."""
    os.environ[_VARIABLE] = str(max(count, most_pixels()))


def kind_of_pixels(image: ImageFile.ImageFile) -> str:
    """Pillow's mode; with ``;16`` behind it, as in ``RGB;16``, if colors lose 8 of 16 bits."""
    is_cut = image.mode not in DEEP and any(_SIXTEEN in str(tile[3]) for tile in image.tile)
    return image.mode + _SIXTEEN * is_cut


def most_pixels() -> int:
    """The number of pixels above which a picture is refused."""
    return int(os.environ.get(_VARIABLE, MAX_PIXELS))


def _slowness(image: ImageFile.ImageFile) -> int:
    """How many times as long as of other kinds a pixel may take to decode."""
    kinds = {image.format, *(tile[0] for tile in image.tile)}
    return max(1, len(image.getbands()) * max(_SLOW.get(str(kind), 0) for kind in kinds))


def _num_scans(content: bytes) -> int:
    """The scans of a JPEG itself, without those of a thumbnail or of what lies behind it.

    0 if there cannot be too many.
    """
    if content.count(b"\xff" + _SCAN) <= _MOST_SCANS:  # a look at each segment takes longer
        return 0
    at, count = 2, 0
    while (segment := _SEGMENT.search(content, at)) and segment[1] != b"\xd9":
        count += segment[1] == _SCAN
        at = segment.end() + int.from_bytes(content[segment.end() : segment.end() + 2], "big")
    return count


def _check_kind(image: Image.Image, path: Path) -> None:
    """Raises UserError for files of which a part would be left out, or misread."""
    # Smaller versions of the first page of a TIFF do not count.
    count = _num_pages(image) if image.format == "TIFF" else getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":  # of a telephone: the first one is the picture
        raise UserError(
            f"{path}: holds {count} pictures, as pages or an animation; save the one that counts "
            "as a file of its own"
        )
    if image.info.get("progressive") and (scans := _num_scans(path.read_bytes())) > _MOST_SCANS:
        raise UserError(  # each of them goes over all pixels: a small file would take hours
            f"{path}: is a JPEG of {scans} scans, and programs write at most a dozen; save it anew"
        )
    tags: Any = getattr(image, "tag_v2", {})
    bits, planes = tags.get(_BITS, (8,)), tags.get(_PLANES, 1)
    if planes == 2 and len(bits) > 1 and max(bits) > 8:  # Pillow reads noise
        raise UserError(
            f"{path}: is a TIFF with {max(bits)} bits and one plane for each color, which cannot "
            "be read; save it with interleaved colors"
        )


def _num_pages(image: Image.Image) -> int:
    """How many of the first pages of a TIFF are pictures of their own."""
    count, tiff = 0, cast("Any", image)
    with suppress(EOFError):
        for page in range(_MOST_PAGES):
            tiff.seek(page)
            count += not tiff.tag_v2.get(_SUBFILE, 0) & 1
    tiff.seek(0)
    return count


def read_image(
    path: Path,
    *,
    at_least: int | None = None,
    levels: Levels | Callable[[NDArray[Any]], Levels] | None = None,
) -> Image.Image:
    """The picture in ``path`` as 8-bit RGB, upright as its EXIF data say.

    Gray, palette, CMYK and RGBA pictures are converted (transparency is dropped).

    Args:
        path: The file.
        at_least: Side in pixels that is enough: a JPEG may come out smaller by 2, 4 or 8, any very
            large picture by more, but no smaller than this. All of the file is read and checked
            all the same.
        levels: Which numbers are black and white in a gray picture of more than 8 bits, or what
            finds them in its numbers; what lies outside is cut off. ``None``: 0 and 65,535.

    Raises:
        UserError: As :func:`open_picture`, or if ``levels`` are needed: for decimal numbers, and
            for numbers that do not fit 16 bits.
    """
    with open_picture(path, mend="replace or remove it") as image:
        drafted = None if at_least is None else image.draft(None, (at_least, at_least))
        image.load()
        if drafted is not None:  # 630 pixels become 158, of which 157.5 show the picture
            box = drafted[1]
            whole = int(box[2]), int(box[3])
            if whole != image.size:
                image = image.resize(whole, Image.Resampling.BICUBIC, box=box)
        shown = upright(image)
        shown.info.pop("transparency", None)  # dropped; Pillow warns of some kinds of it
        if shown.mode in DEEP:
            shown = Image.fromarray(_bytes_of(np.asarray(shown), levels, path))
        if at_least is not None:
            shown = _reduced(shown, at_least)
        return shown if shown.mode == "RGB" else shown.convert("RGB")


def _reduced(image: Image.Image, at_least: int) -> Image.Image:
    """A large picture at a fraction of its size: each copy of the whole takes a gigabyte."""
    factor = min(image.size) // at_least
    if image.width * image.height <= _LARGE or factor < 2:
        return image
    plain = image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")
    smaller = image.width // factor, image.height // factor
    return plain.resize(smaller, Image.Resampling.BOX)


def _bytes_of(
    values: NDArray[Any], levels: Levels | Callable[[NDArray[Any]], Levels] | None, path: Path
) -> NDArray[np.uint8]:
    """Gray levels, 0 to 255, of numbers of more than 8 bits."""
    low, high = values.min(), values.max()
    if np.isnan(low):
        raise UserError(f"{path}: holds pixels that are not a number (NaN); replace or remove it")
    if levels is None:
        if values.dtype.kind == "f":
            raise UserError(
                f"{path}: its pixels are decimal numbers, and nobody says which of them is white; "
                "save it with 8 or 16 bits, or write image.range=data"
            )
        if low < 0 or high > 65535:
            raise UserError(
                f"{path}: its pixels reach from {low} to {high}, and 16 bits hold 0 to 65535; "
                "write image.range=data, or image.range=[BLACK,WHITE]"
            )
        return (values >> 8).astype(np.uint8)
    black, white = levels(values) if callable(levels) else levels
    gray = np.empty(values.shape, np.uint8)
    for row, numbers in zip(gray, values, strict=True):  # all at once would take 8 bytes a pixel
        scaled = (numbers.astype(np.float64) - black) * (255 / (white - black))
        row[:] = np.clip(scaled, 0, 255).round()
    return gray


def own_levels(values: NDArray[Any]) -> Levels:
    """Black and white of a single picture, so that people and comparisons see what is in it."""
    low, high = np.percentile(values[:: max(len(values) // 512, 1)], (1, 99))
    return (float(low), float(high)) if low < high else (float(low) - 1, float(low) + 1)


def read_view(path: Path, view: "View") -> Tensor:
    """The picture in ``path`` as a network sees it.

    Raises:
        UserError: As :func:`read_image`, or if the picture does not go into the view.
    """
    try:
        return view(read_image(path, levels=view.levels))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it.

    Departure: Pillow's own ``exif_transpose`` also writes the rest of the EXIF data anew, and fails
    where they are damaged.
    """
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the picture as a viewer shows it, without decoding most formats."""
    if image.format == "TIFF":  # Pillow turns it by itself, some versions on opening it
        image.load()
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Image.Image) -> Any:
    """As EXIF says it; damaged data are anything."""
    return image.getexif().get(ExifTags.Base.Orientation)


class View:
    """How a picture becomes the pixels that a network sees: always the same for the same picture.

    Args:
        size: Height and width in pixels.
        resize: ``full``: all of the picture, stretched to the size. ``pad``: all of it in its own
            proportions, black borders. ``center_crop``: the released way, the shorter side fitted
            and the rest cut off. ``tiles``: as many squares side by side as fit the size, see
            :func:`_tiles`.
        levels: Black and white of pictures of more than 8 bits, see :func:`read_image`.
    """

    def __init__(self, size: tuple[int, int], resize: Resize, levels: Levels | None = None) -> None:
        self.size, self.resize, self.levels = size, resize, levels

    def at(self, size: tuple[int, int]) -> "View":
        """The same at another size."""
        return View(size, self.resize, self.levels)

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB bytes, shape ``(3, H, W)``, uint8, channels last; bicubic with antialiasing."""
        pixels = np.array(RESIZES[self.resize](image, self.size, Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def mask(self, image: Image.Image, how: MaskResize = "area") -> Tensor:
        """The same for a mask of 0 and 1: ``(H, W)``, uint8, 0 and 1.

        Args:
            image: Mode ``L``.
            how: ``area``: 1 where at least half of a pixel is marked. A region that fills half of
                no pixel, such as a scratch or a pinhole, keeps the pixels of which it fills at
                least half as much as of the one that it fills most. ``bilinear``: interpolated
                with antialiasing and cut at 0.5, as VAND, AnomalyCLIP and Accurate-WinCLIP do;
                thin regions vanish.
        """
        if how == "bilinear":
            white = image.point(lambda value: 255 * value)
            resized = RESIZES[self.resize](white, self.size, Image.Resampling.BILINEAR)
            return torch.from_numpy((np.asarray(resized) > 127).astype(np.uint8))
        from scipy import ndimage  # here: options are checked without it

        resized = RESIZES[self.resize](image.convert("F"), self.size, Image.Resampling.BOX)
        share = np.asarray(resized)  # that is marked, of each pixel
        areas, count = ndimage.label(share > 0, structure=np.ones((3, 3)))
        most = ndimage.maximum(share, areas, np.arange(count + 1))
        limit = np.where(most < 0.5, most / 2, 0.5)
        return torch.from_numpy(((share > 0) & (share >= limit[areas])).astype(np.uint8))


def _full(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return image.resize(size[::-1], how)


def _pad(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    scale = min(size[0] / image.height, size[1] / image.width)
    inner = max(round(image.height * scale), 1), max(round(image.width * scale), 1)
    canvas = Image.new(image.mode, size[::-1])
    canvas.paste(_full(image, inner, how), ((size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2))
    return canvas


def _center_crop(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    scale = max(size[0] / image.height, size[1] / image.width)
    # Rounding must not push the box over the border.
    height, width = min(size[0] / scale, image.height), min(size[1] / scale, image.width)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return image.resize(size[::-1], how, box=box)


def _tiles(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Square tiles of the picture's shorter side, along the longer one, 0.8 of a side apart.

    The last is flush with the border. Where ``size`` has room for more, it stays black.

    Source:
        mala-lab/WinCLIP, 4880fc4, for pictures that are not square.
    """
    height, width = size
    side, length = sorted(image.size)
    count = math.ceil((length / side - 1) / 0.8) + 1
    if count > width // height:
        raise ValueError(
            f"{image.width} x {image.height} pixels are {count} tiles; make room for them: "
            f"image.size=[{height}, {count * height}]"
        )
    canvas = Image.new(image.mode, size[::-1])
    for i in range(count):
        start = min(round(0.8 * side * i), length - side)
        x, y = (start, 0) if image.width >= image.height else (0, start)
        tile = image.resize((height, height), how, box=(x, y, x + side, y + side))
        canvas.paste(tile, (i * height, 0))
    return canvas


RESIZES = {"full": _full, "pad": _pad, "center_crop": _center_crop, "tiles": _tiles}
