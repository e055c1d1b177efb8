"""A batch: the container between a data set and a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from utils.device import moved

UNKNOWN = 255  # in a mask: it is not known whether the pixel is anomalous


@dataclass(frozen=True)
class Batch:
    """B samples.

    Pixels stay bytes until an encoder normalizes them with its own mean and standard deviation.
    This takes a quarter of the memory, and one image can be the input of two networks.

    Attributes:
        image: RGB pixels, shape ``(B, 3, H, W)``, uint8.
        label: 0 normal, 1 anomalous, shape ``(B,)``, int64.
        object: Object class of each image.
        path: Path of each image, relative to the root of the data set.
        caption: Caption of each image; ``None`` for a model that reads no text.
        mask: Shape ``(B, H, W)``, uint8: 1 anomalous, 0 normal; :data:`UNKNOWN` everywhere if an
            anomalous image has no mask. ``None`` if masks were not asked for.
        guide: The same images in the teacher's view, if a teacher guides the training.
    """

    image: Tensor
    label: Tensor
    object: Sequence[str]
    path: Sequence[str]
    caption: Sequence[str] | None = None
    mask: Tensor | None = None
    guide: Optional["Batch"] = None

    def __len__(self) -> int:
        """B."""
        return len(self.label)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies; called by the loader."""
        return replace(
            self,
            image=self.image.pin_memory(),
            label=self.label.pin_memory(),
            mask=self.mask if self.mask is None else self.mask.pin_memory(),
            guide=self.guide and self.guide.pin_memory(),
        )

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return replace(
            self,
            image=moved(self.image, device),
            label=moved(self.label, device),
            mask=self.mask if self.mask is None else moved(self.mask, device),
            guide=self.guide and self.guide.to(device),
        )
