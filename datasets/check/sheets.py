"""Contact sheets: what an object looks like, good and bad."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from datasets.check.findings import ListedImage
from datasets.image import own_levels, read_image
from datasets.mask import read_mask
from utils.errors import UserError

_COLUMNS, _ROWS = 5, 2  # of each label
_CELL = (240, 180)  # width and height of a picture in pixels
_CAPTION = 16  # height of a line of text
_GAP = 6
_RED = (255, 32, 32)
# Pillow's own font has only English letters, this one most alphabets. The page lists all names.
_FONT = "fonts/ttf/DejaVuSans.ttf"
_LETTERS = 11  # size in pixels


def samples(images: Sequence[ListedImage]) -> list[list[ListedImage]]:
    """Which images of an object are shown, row by row: normal ones above, anomalous ones below."""
    rows: list[list[ListedImage]] = []
    for label in (0, 1):
        chosen = _evenly_spaced(
            [i for i in images if i.record.label == label and not i.facts.error]
        )
        rows += [chosen[k : k + _COLUMNS] for k in range(0, len(chosen), _COLUMNS)]
    return rows


def contact_sheet(root: Path, rows: Sequence[Sequence[ListedImage]]) -> bytes:
    """The samples, numbered, with the outlines of their masks, as a JPEG."""
    width, height = _CELL[0] + _GAP, _CELL[1] + 2 * _CAPTION + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, max(len(rows), 1) * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.font = ImageFont.truetype(f"{matplotlib.get_data_path()}/{_FONT}", _LETTERS)
    number = 0
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            number += 1
            left, top = x * width + _GAP, y * height + _GAP
            picture = _picture(root, image)
            sheet.paste(picture, (left, top + _CELL[1] - picture.height))
            what = image.record.defect or ("anomalous" if image.record.label else "normal")
            name = f"{image.split} {Path(image.record.path).name}"
            for line, text in enumerate((f"{number}: {what}", name)):
                place = (left, top + _CELL[1] + line * _CAPTION)
                draw.text(place, _fitted(draw, text), fill="black")
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _evenly_spaced(images: Sequence[ListedImage]) -> list[ListedImage]:
    """At most two rows of them, evenly out of the list, those with other defects first."""
    first = {image.record.defect: image for image in reversed(images)}
    kinds = [first[defect] for defect in sorted(first)] if len(first) > 1 else []
    count = min(_COLUMNS * _ROWS, len(images))
    even = [images[i * len(images) // count] for i in range(count)]
    chosen = list(dict.fromkeys([*kinds, *even]))[:count]
    return sorted(chosen, key=lambda image: (image.record.defect, image.record.path))


def _picture(root: Path, image: ListedImage) -> Image.Image:
    """A picture that fits a cell, in its own proportions."""
    picture = read_image(root / image.record.path, at_least=max(_CELL), levels=own_levels)
    scale = min(_CELL[0] / picture.width, _CELL[1] / picture.height)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    if image.record.mask:
        try:
            mask = read_mask(root / image.record.mask)
        except UserError:  # a finding of its own
            return picture
        picture.paste(_RED, mask=_outline(mask, size))
    return picture


def _outline(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A line around what is marked, so that the smallest spot can be seen."""
    full = Image.fromarray(np.asarray(mask) * np.uint8(255))
    small = full.resize(size, Image.Resampling.BOX).point(lambda value: 255 * (value > 0))
    return ImageChops.subtract(small.filter(ImageFilter.MaxFilter(5)), small)


def _fitted(draw: ImageDraw.ImageDraw, text: str) -> str:
    """As much of ``text`` as there is room for, on one line."""
    text = " ".join(text.split())
    while draw.textlength(text) > _CELL[0]:
        text = text.removesuffix("...")[:-1] + "..."
    return text
