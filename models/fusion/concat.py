"""Concatenation: the simplest fusion, for comparison with the others."""

import torch
from torch import Tensor, nn

from models.fusion.base import Fused, Fusion
from utils.ranges import Size, check_ranges


class ConcatFusion(Fusion):
    """Concatenates the image embedding and the sentence embedding, and projects.

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        out_dim: Features of the fused vector.
    """

    pooled = True

    @check_ranges
    def __init__(self, image_dim: int, text_dim: int, *, out_dim: Size = 1024) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.project = nn.Linear(image_dim + text_dim, out_dim)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """``(B, 1, image_dim)`` and ``(B, 1, text_dim)`` to ``(B, out_dim)``."""
        return Fused(self.project(torch.cat([image[:, 0], text[:, 0]], dim=-1)), {})
