"""The interface of every fusion."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Fused(NamedTuple):
    """One vector per image, and the attention weights behind it.

    Attributes:
        vector: Shape ``(B, out_dim)``.
        attention: Attention weights by direction, empty where a fusion has none.
    """

    vector: Tensor
    attention: dict[str, Tensor]


class Fusion(nn.Module, ABC):
    """Joins image features and text features; built with ``(image_dim, text_dim, *, options)``.

    Attributes:
        pooled: Whether it takes one vector per image and per sentence, not sequences of tokens.
        out_dim: Features of the fused vector.
    """

    pooled: bool = False
    out_dim: int

    @abstractmethod
    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """The fused vectors of B images and their captions.

        Args:
            image: Image tokens, shape ``(B, N, image_dim)``; N is 1 if :attr:`pooled`.
            text: Word tokens, shape ``(B, L, text_dim)``; L is 1 if :attr:`pooled`.
            text_mask: ``True`` where there is a word, shape ``(B, L)``.
        """


def mean_over(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens that ``mask`` keeps: ``(B, L, D)`` and ``(B, L)`` to ``(B, D)``."""
    weight = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)
