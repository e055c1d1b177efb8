"""Stacked attention between image tokens and word tokens: what such fusions have in common."""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from models.fusion.base import Fused, Fusion, mean_over
from utils.errors import UserError

Direction = Literal["image_to_text", "text_to_image", "both"]


class StackedAttention(Fusion):
    """One modality's tokens ask, the other's answer; layer upon layer, then the askers' mean.

    Args:
        image_dim: Features per image token.
        text_dim: Features per word token.
        dim: Features inside the module.
        out_dim: Features of the fused vector.
        layers: Number of stacked layers.
        direction: Who asks: ``image_to_text`` (places in the image ask words), ``text_to_image``
            (words ask places), or ``both``, side by side.
        make_layer: A new layer. It maps the asking tokens ``(B, N, dim)``, the answering ones
            ``(B, L, dim)`` and their mask ``(B, L)`` to new asking tokens and to the attention
            weights ``(B, heads, N, L)``.

    Raises:
        ValueError: If there are no layers.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int,
        out_dim: int,
        layers: int,
        direction: Direction,
        make_layer: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.out_dim = out_dim
        self.from_image = nn.Sequential(nn.Linear(image_dim, dim), nn.LayerNorm(dim))
        self.from_text = nn.Sequential(nn.Linear(text_dim, dim), nn.LayerNorm(dim))
        asks = ["image_to_text", "text_to_image"] if direction == "both" else [direction]
        self.streams = nn.ModuleDict(
            {name: nn.ModuleList(make_layer() for _ in range(layers)) for name in asks}
        )
        self.norm = nn.LayerNorm(dim * len(asks))
        self.project = nn.Linear(dim * len(asks), out_dim)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuses two sequences into one vector; see :meth:`Fusion.forward`.

        Returns:
            The fused vector ``(B, out_dim)`` and, per direction, the attention weights
            ``(B, layers, heads, asking tokens, answering tokens)``; they sum to 1 over the last.

        Raises:
            UserError: If either side has a single token: its softmax would be 1 whatever the
                other side says.
        """
        if image.shape[1] < 2 or text.shape[1] < 2:
            raise UserError(
                f"attention needs sequences, got {image.shape[1]} image and {text.shape[1]} text "
                "tokens; a larger image.size has more, a fusion of pooled vectors needs none"
            )
        places, words = self.from_image(image), self.from_text(text)
        everywhere = torch.ones(places.shape[:2], dtype=torch.bool, device=places.device)
        sides = {
            "image_to_text": (places, everywhere, words, text_mask),
            "text_to_image": (words, text_mask, places, everywhere),
        }
        pooled, attention = [], {}
        for name, layers in self.streams.items():
            x, x_mask, memory, memory_mask = sides[name]
            maps = []
            for layer in cast("nn.ModuleList", layers):
                x, weights = layer(x, memory, memory_mask)
                maps.append(weights)
            pooled.append(mean_over(x, x_mask))
            attention[name] = torch.stack(maps, dim=1)
        return Fused(self.project(self.norm(torch.cat(pooled, dim=-1))), attention)


def feed_forward(dim: int) -> nn.Sequential:
    """What a layer does to each token by itself: ``(B, N, dim)`` to the same shape."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
    )
