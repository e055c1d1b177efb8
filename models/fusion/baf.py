"""Bilinear attention: stacked cross-attention with a bilinear score of query and key."""

from torch import Tensor, nn

from models.fusion.block import BlockTensor
from models.fusion.stacked import Direction, StackedAttention, feed_forward
from utils.ranges import BelowOne, Layers, Size, check_ranges


class BafFusion(StackedAttention):
    r"""``cross_attention`` with one head, in which BLOCK scores each pair of query and key.

    .. math:: s_{ij} = w^\top \mathrm{BLOCK}(Q x_i, K y_j), \quad
        x_i \leftarrow x_i + M \sum_j \mathrm{softmax}_j(s_{ij})\, V y_j

    Source:
        ``modules/fusions/BAFfusion.py`` in https://github.com/lilianoa/Multimodal-guide-AD at
        c9cdd96, which is ``SAF`` with ``Block(key, query)`` in place of the scaled dot product. It
        cannot run: its forward pass reads a list of layers that does not exist, and with one pooled
        vector per side the softmax would always be 1. Here the same idea works on sequences of
        tokens. Bilinear attention in general: Kim et al. 2018, https://arxiv.org/abs/1805.07932;
        BLOCK: :class:`models.fusion.block.BlockFusion`.
        Departure: the pre-norm layers of ``cross_attention``; chunks of one size.

    Args:
        image_dim: Features per image token.
        text_dim: Features per word token.
        dim: Features inside the module; a multiple of ``chunks``.
        out_dim: Features of the fused vector.
        layers: Number of stacked layers.
        chunks: Blocks of the bilinear map.
        rank: Rank of each block.
        dropout: Probability of dropping an attention weight or a residual, in ``[0, 1)``.
        direction: ``image_to_text``: image tokens are the queries, word tokens the keys;
            ``text_to_image``: the other way round; ``both``: side by side.

    Raises:
        ValueError: If ``dim`` is not a multiple of ``chunks``, or a number is below 1.
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
        chunks: Size = 8,
        rank: Size = 5,
        dropout: BelowOne = 0.0,
        direction: Direction = "both",
    ) -> None:
        super().__init__(
            image_dim,
            text_dim,
            dim,
            out_dim,
            layers,
            direction,
            lambda: _Layer(dim, chunks, rank, dropout),
        )


class _Layer(nn.Module):
    """Bilinear attention, then a two-layer network, each with a residual."""

    def __init__(self, dim: int, chunks: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.query_norm, self.memory_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.merge = (nn.Linear(dim, dim) for _ in range(4))
        self.pair = BlockTensor(dim, chunks, rank, normalize=True)
        self.score = nn.Linear(dim, 1, bias=False)  # a bias would not change the softmax
        self.mlp = feed_forward(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memory_norm(memory)
        query = self.query(self.query_norm(x)).unsqueeze(2)  # (B, N, 1, dim)
        key = self.key(memory).unsqueeze(1)  # (B, 1, L, dim)
        scores = self.score(self.pair(query, key)).squeeze(-1)  # (B, N, L)
        weights = scores.masked_fill(~memory_mask.unsqueeze(1), float("-inf")).softmax(dim=-1)
        x = x + self.dropout(self.merge(self.dropout(weights) @ self.value(memory)))
        return x + self.dropout(self.mlp(x)), weights.unsqueeze(1)
