"""The one container that travels from a data set to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from utils.device import moved

UNKNOWN = 255  # in a mask: nobody said whether this pixel is anomalous


@dataclass(frozen=True)
class Batch:
    """B samples.

    Pixels stay bytes until the encoder that knows its own mean and standard deviation turns them
    into numbers: a quarter of the memory and of the copies, and one image can feed two networks.

    Attributes:
        image: RGB pixels, shape ``(B, 3, H, W)``, uint8.
        label: 0 normal, 1 anomalous, shape ``(B,)``, int64.
        object: Object class of each image.
        path: Image path of each image, relative to the data set's root.
        caption: What a text-reading model is told about each image; ``None`` for all others.
        mask: What is anomalous in each image, shape ``(B, H, W)``, uint8: 1 where it is, 0 where it
            is not, :data:`UNKNOWN` all over an anomalous image that has no mask. ``None`` where
            nobody asked.
        guide: The same images as the teacher sees them, where a teacher guides the training.
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
        """The same batch in memory that a GPU copies from directly; called by the loader."""
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
