"""From a file to pixels."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from utils.errors import UserError

Resize = Literal["full", "pad", "center_crop"]

# A truncated file is an error, whatever another library asked of Pillow.
ImageFile.LOAD_TRUNCATED_IMAGES = False
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_image(path: Path) -> Image.Image:
    """The picture in ``path`` as 8-bit RGB.

    Grey, palette, CMYK and RGBA pictures are converted (transparency is dropped); 16-bit ones are
    scaled from their full range.

    Raises:
        UserError: If the file is missing, empty, truncated, too large or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in _SIXTEEN_BITS:
                high_byte = np.clip(np.asarray(image), 0, 65535) // 256
                return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise UserError(f"{path}: is not a picture ({size} bytes); replace or remove it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


class View:
    """How a picture becomes the pixels that a network sees: always the same for the same picture.

    Args:
        size: Height and width in pixels.
        resize: ``full``: all of the picture, stretched to the size. ``pad``: all of it in its own
            proportions, black borders. ``center_crop``: the released way, the shorter side fitted
            and the rest cut off.
    """

    def __init__(self, size: tuple[int, int], resize: Resize) -> None:
        self.size, self.resize = size, resize

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB bytes, shape ``(3, H, W)``, uint8, channels last; bicubic with antialiasing."""
        pixels = np.array(RESIZES[self.resize](image, self.size))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _full(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size[::-1], Image.Resampling.BICUBIC)


def _pad(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = min(size[0] / image.height, size[1] / image.width)
    inner = max(round(image.height * scale), 1), max(round(image.width * scale), 1)
    canvas = Image.new("RGB", size[::-1])
    canvas.paste(_full(image, inner), ((size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2))
    return canvas


def _center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = max(size[0] / image.height, size[1] / image.width)
    height, width = size[0] / scale, size[1] / scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return image.resize(size[::-1], Image.Resampling.BICUBIC, box=box)


RESIZES = {"full": _full, "pad": _pad, "center_crop": _center_crop}
