"""Changes that a camera, a lamp or a gripper makes: how pictures of tomorrow may differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage
from torch import Tensor

from datasets.digests import in_threads
from datasets.image import View, read_image
from datasets.pixels import ImageStore, Pixels
from datasets.record import Record
from utils.errors import UserError
from utils.seeding import derive

Change = Callable[[Image.Image, int], Image.Image]


def _unchanged(image: Image.Image, seed: int) -> Image.Image:
    return image


def _brightness(image: Image.Image, seed: int, *, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, seed: int, *, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _white_balance(image: Image.Image, seed: int, *, red: float) -> Image.Image:
    """Red times ``red``, blue divided by it."""
    return _bytes(np.asarray(image) * np.array([red, 1, 1 / red]))


def _jpeg(image: Image.Image, seed: int, *, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _blur(image: Image.Image, seed: int, *, share: float) -> Image.Image:
    """Gaussian; its standard deviation is a share of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def _noise(image: Image.Image, seed: int, *, levels: float) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, levels, (image.height, image.width, 3))
    return _bytes(np.asarray(image) + noise)


def _moved(
    image: Image.Image, seed: int, *, shift: float = 0.0, degrees: float = 0.0
) -> Image.Image:
    """Shifted right and down by a share of the sides, or turned; what comes in repeats the edge."""
    margin = max(image.size) // 5
    pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    turned = Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC)
    left, top = (margin - round(shift * side) for side in image.size)
    return turned.crop((left, top, left + image.width, top + image.height))


def without_background(image: Image.Image, seed: int) -> Image.Image:
    """The background in its mean color; the same picture where no object is found."""
    pixels = np.asarray(image)
    inside = object_mask(pixels)
    if inside is None:
        return image
    return _bytes(np.where(inside[..., None], pixels, pixels[~inside].mean(axis=0)))


CHANGES: Mapping[str, Change] = {
    "20 % brighter": partial(_brightness, factor=1.2),
    "20 % darker": partial(_brightness, factor=0.8),
    "contrast + 20 %": partial(_contrast, factor=1.2),
    "contrast - 20 %": partial(_contrast, factor=0.8),
    "white balance 10 % warmer": partial(_white_balance, red=1.1),
    "white balance 10 % colder": partial(_white_balance, red=1 / 1.1),
    "JPEG quality 50": partial(_jpeg, quality=50),
    "blur, 0.3 % of the side": partial(_blur, share=0.003),
    "noise, 8 of 255": partial(_noise, levels=8),
    "shifted by 5 %": partial(_moved, shift=0.05),
    "turned by 5 degrees": partial(_moved, degrees=5),
}
BACKGROUND = "background in its mean color"  # where :func:`object_mask` finds the object


def object_mask(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Where the object is in a picture with a plain background; ``None`` where that is not clear.

    A pixel belongs to the object if its color is further from that of the border than Otsu's
    threshold of this distance; holes are filled. It is clear if the object covers 2 to 80 % of the
    picture and no more than a tenth of its border.

    Args:
        pixels: RGB, ``(H, W, 3)``.
    """
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.linalg.norm(pixels - np.median(border, axis=0), axis=2)
    inside = ndimage.binary_fill_holes(distance > _otsu(distance))
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    is_clear = 0.02 <= inside.mean() <= 0.8 and edge.mean() <= 0.1
    return np.asarray(inside, dtype=bool) if is_clear else None


def num_objects_found(images: ImageStore, records: Sequence[Record]) -> int:
    """In how many pictures :func:`object_mask` finds an object."""

    def is_found(path: str) -> bool:
        return object_mask(np.asarray(read_image(images.root / path))) is not None

    paths = [record.path for record in records]
    return sum(is_there for _, is_there in in_threads(is_found, paths, "looking for objects"))


def _otsu(values: NDArray[np.float64]) -> float:
    """The threshold that parts values into two classes with the largest variance between them.

    Source:
        Otsu 1979, with a histogram of 256 bins.
    """
    counts, edges = np.histogram(values, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2
    weight, total = counts.cumsum(), (counts * centers).cumsum()
    rest = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        between = weight * rest * (total / weight - (total[-1] - total) / rest) ** 2
    return float(edges[1 + int(np.argmax(np.nan_to_num(between[:-1])))])


def _bytes(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class ChangedPixels:
    """Pictures that are changed at their full size, before they become the input of a network."""

    root: Path
    records: Sequence[Record]
    view: View
    change: Change

    def __call__(self, index: int) -> Tensor:
        """As :class:`datasets.pixels.Pixels`."""
        path = self.records[index].path
        image = self.change(read_image(self.root / path), derive(0, "change", path))
        try:
            return self.view(image)
        except ValueError as error:
            raise UserError(f"{self.root / path}: {error}") from error


@dataclass(frozen=True)
class ChangedImages(ImageStore):
    """The pictures of a store, changed each time they are read; nothing is kept."""

    change: Change = _unchanged

    def pixels(
        self, records: Sequence[Record], view: View, *, resident: torch.device | None = None
    ) -> Pixels:
        """The changed pixels of ``records``."""
        return ChangedPixels(self.root, records, view, self.change)
