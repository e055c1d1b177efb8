"""Stacked cross-attention between image tokens and word tokens."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from models.fusion.base import Fused, Fusion, mean_over

Direction = Literal["image_to_text", "text_to_image", "both"]


class CrossAttentionFusion(Fusion):
    """One modality's tokens ask, the other's answer; ``layers`` times, each with its own weights.

    Source:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1 and sec. 3.2.2, 3.3.
        Departure: pre-norm (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), which needs no
        long warm-up.

    Args:
        image_dim: Features per image token.
        text_dim: Features per word token.
        dim: Features inside the module; a multiple of ``heads``.
        out_dim: Features of the fused vector.
        layers: Number of stacked layers.
        heads: Attention heads per layer.
        dropout: Probability of dropping an attention weight or a residual, in ``[0, 1)``.
        direction: Who asks: ``image_to_text`` (places in the image ask words), ``text_to_image``
            (words ask places), or ``both``, side by side.

    Raises:
        ValueError: If ``dim`` is not a multiple of ``heads`` or there are no layers.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: int = 512,
        out_dim: int = 1024,
        layers: int = 2,
        heads: int = 8,
        dropout: float = 0.0,
        direction: Direction = "both",
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.out_dim = out_dim
        self.from_image = nn.Sequential(nn.Linear(image_dim, dim), nn.LayerNorm(dim))
        self.from_text = nn.Sequential(nn.Linear(text_dim, dim), nn.LayerNorm(dim))
        asks = ["image_to_text", "text_to_image"] if direction == "both" else [direction]
        self.streams = nn.ModuleDict(
            {
                name: nn.ModuleList(_Layer(dim, heads, dropout) for _ in range(layers))
                for name in asks
            }
        )
        self.norm = nn.LayerNorm(dim * len(asks))
        self.project = nn.Linear(dim * len(asks), out_dim)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuses two sequences into one vector; see :meth:`Fusion.forward`.

        Returns:
            The fused vector ``(B, out_dim)`` and, per direction, the attention weights
            ``(B, layers, heads, asking tokens, answering tokens)``; they sum to 1 over the last.

        Raises:
            ValueError: If either side has a single token: its softmax would be 1 whatever the
                other side says.
        """
        if image.shape[1] < 2 or text.shape[1] < 2:
            raise ValueError(
                f"cross_attention needs sequences, got {image.shape[1]} image and "
                f"{text.shape[1]} text tokens"
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


class _Layer(nn.Module):
    """Cross-attention, then a two-layer network, each with a residual."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ask, self.answer = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor]:
        known = self.answer(memory)
        found, weights = self.attention(
            self.ask(x), known, known, key_padding_mask=~memory_mask, average_attn_weights=False
        )
        x = x + self.dropout(found)
        return x + self.dropout(self.mlp(x)), weights
