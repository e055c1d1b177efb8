"""Fusions that combine two pooled vectors feature by feature."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion.base import Fused, Fusion
from utils.ranges import Size, check_ranges

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "tanh": torch.tanh,
}


class PointwiseFusion(Fusion):
    """Projects both embeddings into one space, combines them there, and projects again.

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        dim: Features of the common space.
        out_dim: Features of the fused vector.
        activation: After each projection: ``relu``, ``tanh`` or ``none``.
        output_activation: After the last projection: the same choices.
    """

    pooled = True

    @check_ranges
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: Size = 1200,
        out_dim: Size = 1024,
        activation: Annotated[str, ACTIVATIONS] = "relu",
        output_activation: Annotated[str, ACTIVATIONS] = "relu",
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.from_image = nn.Linear(image_dim, dim)
        self.from_text = nn.Linear(text_dim, dim)
        self.project = nn.Linear(dim, out_dim)
        self.activation = ACTIVATIONS[activation]
        self.output_activation = ACTIVATIONS[output_activation]

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """``(B, 1, image_dim)`` and ``(B, 1, text_dim)`` to ``(B, out_dim)``."""
        left = self.activation(self.from_image(image[:, 0]))
        right = self.activation(self.from_text(text[:, 0]))
        return Fused(self.output_activation(self.project(self.join(left, right))), {})

    @abstractmethod
    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Both sides, each ``(B, dim)``, to ``(B, dim)``."""
