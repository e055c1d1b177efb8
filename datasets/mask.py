"""What is anomalous in a picture, as a network sees the picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops
from torch import Tensor

from datasets.image import SIXTEEN_BITS, MaskResize, View, open_picture, upright, upright_size
from datasets.record import Record
from datasets.scan import find_files, is_picture
from utils.batch import UNKNOWN
from utils.errors import UserError

_MEND = "mend or remove the mask"
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
_PLAIN = ("1", "L", "LA", "RGB", "RGBA", "F")  # modes whose channels are what they say
_NUMBERS = 32  # a mask that is darker holds numbers of defects, whatever its format
_STRIP = 1024  # rows
_WHITE, _MOST_LEVELS = 128, 8  # a mask with more gray levels, up to white, has blurred borders


def read_mask(path: Path) -> Image.Image:
    """The mask in ``path``, mode ``L``: 1 where it is anomalous, else 0; upright as its EXIF says.

    VisA writes the number of the defect, MVTec 255, some exports colors: any channel above 0 means
    anomalous. Of a palette the colors count, not their numbers: white may be number 0. Masks that
    went through a lossy format have gray noise around their regions, also where they are PNG now
    (the magnetic tiles' are): there the limit is half of the brightest value. Where parts of the
    mask are transparent, what is drawn on it is anomalous, in whatever color. Of a folder, what any
    of its pictures marks is anomalous: MVTec LOCO has one picture for each region.

    Raises:
        UserError: If the file is missing, broken, too large or no picture, or if the pictures of a
            folder have different sizes.
    """
    if path.is_dir():
        return _union({file: read_mask(file) for file in _files_of(path)}, path)
    with open_picture(path, mend=_MEND) as image:
        image.load()
        is_lossy = image.format in _LOSSY
        shown = upright(image)
        has_transparent_color = shown.mode in ("L", "RGB") and "transparency" in shown.info
        if has_transparent_color or shown.mode not in (*_PLAIN, *SIXTEEN_BITS):
            shown = shown.convert("RGBA")
        bands = shown.getbands()
    if len(bands) == 1:
        values = np.asarray(shown)
        return Image.fromarray(_marked(values, is_lossy=is_lossy).view(np.uint8))
    color, alpha = _color_and_alpha(shown)
    del image, shown
    marked = _marked(color, is_lossy=is_lossy)
    if bands[-1] == "A":
        marked = _drawn(color, marked, alpha)
    return Image.fromarray(marked.view(np.uint8))


def _color_and_alpha(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The brightest color and the last channel of each pixel, ``(H, W)``.

    Strip by strip: all channels of a large mask at once would take a gigabyte.
    """
    color = np.empty(image.size[::-1], np.uint8)
    last = np.empty_like(color)
    num_colors = len(image.getbands()) - (image.getbands()[-1] == "A")
    for top in range(0, image.height, _STRIP):
        strip = np.asarray(image.crop((0, top, image.width, min(top + _STRIP, image.height))))
        color[top : top + _STRIP] = strip[:, :, :num_colors].max(axis=2)
        last[top : top + _STRIP] = strip[:, :, -1]
    return color, last


def _files_of(mask: Path) -> list[Path]:
    """The pictures that a mask consists of: the file itself, or those in a folder."""
    if not mask.is_dir():
        return [mask]
    files = [mask / name for name in find_files(mask) if is_picture(name)]
    if not files:
        raise UserError(f"{mask}: holds no pictures; {_MEND}")
    return files


def _union(masks: Mapping[Path, Image.Image], folder: Path) -> Image.Image:
    sizes = {mask.size for mask in masks.values()}
    if len(sizes) > 1:
        raise UserError(f"{folder}: its masks have different sizes, {sorted(sizes)}; {_MEND}")
    return reduce(ImageChops.lighter, masks.values())


def _marked(values: NDArray[Any], *, is_lossy: bool) -> NDArray[np.bool_]:
    """Where ``values`` are above 0, or above half of the brightest if their borders are blurred."""
    brightest = values.max()
    is_blurred = is_lossy and brightest >= _NUMBERS
    if brightest >= _WHITE and not is_blurred:
        is_blurred = len(np.unique(values)) > _MOST_LEVELS
    limit: NDArray[np.bool_] = values > (brightest / 2 if is_blurred else 0)
    return limit


def _drawn(
    color: NDArray[Any], marked: NDArray[np.bool_], alpha: NDArray[Any]
) -> NDArray[np.bool_]:
    """What is anomalous of a mask of which parts may be transparent."""
    if alpha.min() > 0:
        return marked
    drawn = _marked(alpha, is_lossy=False)
    if not drawn.any():  # an empty sheet, or an export that forgot to fill in the alpha channel
        return marked if color.min() < color.max() else drawn
    shown = marked[drawn]
    return drawn if shown.all() or not shown.any() else drawn & marked


def check_directions(root: Path, records: Iterable[Record]) -> None:
    """Checks that no mask lies crosswise to its picture; only the files' beginnings are read.

    Tools that ignore EXIF draw masks on pictures as they are stored.

    Raises:
        UserError: If a mask has the proportions of its picture turned by 90 degrees, or if a file
            cannot be read.
    """
    wrong = [record for record in records if record.mask and _is_crosswise(root, record)]
    if wrong:
        more = f" ({len(wrong)} masks in all)" if len(wrong) > 1 else ""
        raise UserError(
            f"{root / wrong[0].mask}: lies crosswise to its picture {wrong[0].path}{more}; it was "
            "drawn without the picture's EXIF orientation: turn the mask"
        )


def _is_crosswise(root: Path, record: Record) -> bool:
    with open_picture(_files_of(root / record.mask)[0], mend=_MEND) as mask:
        size = upright_size(mask)
    with open_picture(root / record.path, mend="replace or remove it") as image:
        return is_crosswise(size, upright_size(image))


def is_crosswise(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a mask has the proportions of its picture turned by 90 degrees, not the picture's.

    Args:
        mask: Width and height.
        image: Width and height.
    """

    def fits(width: int, height: int) -> bool:  # to one pixel of the mask
        return abs(mask[0] * height - mask[1] * width) <= max(width, height)

    return not fits(*image) and fits(*image[::-1])


@dataclass(frozen=True)
class Masks:
    """The masks of a list of records.

    Attributes:
        root: Folder the records' paths are relative to.
        records: The images.
        view: From picture to pixels.
        resize: How masks are brought to the size of the view, see :meth:`View.mask`.
    """

    root: Path
    records: Sequence[Record]
    view: View
    resize: MaskResize = "area"

    def __call__(self, index: int) -> Tensor:
        """Shape ``(H, W)``, uint8: 1 anomalous, 0 normal; see :attr:`utils.batch.Batch.mask`.

        Raises:
            UserError: If the mask cannot be read.
        """
        record = self.records[index]
        if record.mask:
            return self.view.mask(read_mask(self.root / record.mask), self.resize)
        return torch.full(self.view.size, UNKNOWN if record.label else 0, dtype=torch.uint8)
