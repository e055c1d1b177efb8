"""Stacked cross-attention between image tokens and word tokens."""

from torch import Tensor, nn

from models.fusion.stacked import Direction, StackedAttention, feed_forward
from utils.ranges import BelowOne, Layers, Size, check_ranges


class CrossAttentionFusion(StackedAttention):
    """Cross-attention between image and text, ``layers`` times, each with its own weights.

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
        direction: ``image_to_text``: image tokens are the queries, word tokens the keys;
            ``text_to_image``: the other way round; ``both``: side by side.

    Raises:
        ValueError: If ``dim`` is not a multiple of ``heads`` or there are no layers.
    """

    @check_ranges
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: Size = 512,
        out_dim: Size = 1024,
        layers: Layers = 2,
        heads: Size = 8,
        dropout: BelowOne = 0.0,
        direction: Direction = "both",
    ) -> None:
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        super().__init__(
            image_dim,
            text_dim,
            dim,
            out_dim,
            layers,
            direction,
            lambda: _Layer(dim, heads, dropout),
        )


class _Layer(nn.Module):
    """Cross-attention, then a two-layer network, each with a residual."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query_norm, self.memory_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.mlp = feed_forward(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor]:
        query, memory = self.query_norm(x), self.memory_norm(memory)
        attended, weights = self.attention(
            query, memory, memory, key_padding_mask=~memory_mask, average_attn_weights=False
        )
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(x)), weights
