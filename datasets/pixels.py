"""Where an image's pixels come from: its file, a cache, or the memory of a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from datasets.cache import open_cache
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


@dataclass(frozen=True)
class ImageStore:
    """A folder of pictures, and where their decoded pixels are kept.

    Attributes:
        root: Folder the records' paths are relative to.
        cache: Folder of decoded pictures; ``None``: a picture is decoded each time it is read.
        limit: Bytes that all caches may take together.
        lists: Lists that are decoded as a whole, so that a part of one needs no cache of its own.
    """

    root: Path
    cache: Path | None
    limit: int
    lists: Sequence[Sequence[Record]] = ()

    def pixels(
        self, records: Sequence[Record], view: View, *, resident: torch.device | None = None
    ) -> Pixels:
        """The pixels of ``records``; with ``resident``, all of them in that device's memory.

        Raises:
            UserError: As :func:`datasets.cache.open_cache`.
        """
        pixels: Pixels = DecodedPixels(self.root, records, view)
        if self.cache is not None:
            whole = next((one for one in self.lists if set(records) <= set(one)), records)
            pixels = open_cache(
                self.cache, self.root, whole, view, wanted=records, limit=self.limit
            )
        return pixels if resident is None else ResidentPixels.of(pixels, len(records), resident)
