"""What is anomalous in a picture, as a network sees the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.image import View, open_picture
from datasets.record import Record
from utils.batch import UNKNOWN


def read_mask(path: Path) -> Image.Image:
    """The mask in ``path``, mode ``L``: 1 where any channel is more than 0, else 0.

    VisA writes the number of the defect, MVTec 255, some exports colors: all mean anomalous. Of a
    palette the colors count, not their numbers: white may be number 0.

    Raises:
        UserError: If the file is missing, broken, too large or no picture.
    """
    with open_picture(path, mend="mend or remove the mask") as image:
        values = np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)
    if values.ndim == 3:  # an opaque fourth channel says nothing
        values = values[:, :, : 1 if values.shape[2] == 2 else 3].max(axis=2)
    return Image.fromarray((values > 0).astype(np.uint8))


@dataclass(frozen=True)
class Masks:
    """The masks of a list of records.

    Attributes:
        root: Folder the records' paths are relative to.
        records: The images.
        view: From picture to pixels.
    """

    root: Path
    records: Sequence[Record]
    view: View

    def __call__(self, index: int) -> Tensor:
        """Shape ``(H, W)``, uint8: 1 anomalous, 0 normal; see :attr:`utils.batch.Batch.mask`.

        Raises:
            UserError: If the mask cannot be read.
        """
        record = self.records[index]
        if record.mask:
            return self.view.mask(read_mask(self.root / record.mask))
        return torch.full(self.view.size, UNKNOWN if record.label else 0, dtype=torch.uint8)
