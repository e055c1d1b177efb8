"""Where an image's pixels come from: its file, or a device's memory; see also cache.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from datasets.image import View, read_view
from datasets.record import Record


class Pixels(Protocol):
    """The pictures of a list of records, as a network sees them."""

    def __call__(self, index: int) -> Tensor:
        """RGB bytes of one picture, shape ``(3, H, W)``, uint8, channels last in memory.

        Raises:
            UserError: If the picture cannot be read.
        """


@dataclass(frozen=True)
class DecodedPixels:
    """Decodes a picture each time it is asked for.

    Attributes:
        root: Folder the records' paths are relative to.
        records: The pictures.
        view: From picture to pixels.
    """

    root: Path
    records: Sequence[Record]
    view: View

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`."""
        return read_view(self.root / self.records[index].path, self.view)


@dataclass(frozen=True)
class ResidentPixels:
    """All pictures in the memory of a device: no loading at all after the start.

    Attributes:
        pixels: Shape ``(N, H, W, 3)``, uint8.
    """

    pixels: Tensor

    @classmethod
    def of(cls, source: Pixels, count: int, device: torch.device) -> "ResidentPixels":
        """Copies the first ``count`` pictures of ``source`` to ``device``."""
        first = source(0).permute(1, 2, 0)
        pixels = torch.empty(count, *first.shape, dtype=torch.uint8, device=device)
        for i in range(count):
            pixels[i] = source(i).permute(1, 2, 0)
        return cls(pixels)

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`."""
        return self.pixels[index].permute(2, 0, 1)
