"""The released fusion with its defects, for an ablation."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion.base import Fused, Fusion
from utils.ranges import BelowOne, Layers, Size, check_ranges


class SafReleasedFusion(Fusion):
    """The released ``SAF``, with the same result: **the image has no effect**.

    The attention has a single key, the one image vector, so that its softmax is always 1 and the
    result depends on the text alone. The weights of query and key exist, as in the original, but
    never get a gradient. All layers are one module and share their weights.

    Source:
        https://github.com/lilianoa/Multimodal-guide-AD at c9cdd96,
        ``modules/fusions/SAFfusion.py``.
        Departure: a batch of one image works, which fails in the original.

    Args:
        image_dim: Features of the image embedding; must equal ``text_dim``.
        text_dim: Features of the sentence embedding.
        dim: Features inside the attention; a multiple of ``heads``.
        layers: How many times the one layer is applied.
        heads: Attention heads.
        dropout: Probability of dropping an attention weight, in ``[0, 1)``.

    Raises:
        ValueError: If the embeddings differ in size, or ``dim`` is not a multiple of ``heads``.
    """

    pooled = True

    @check_ranges
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: Size = 512,
        layers: Layers = 2,
        heads: Size = 8,
        dropout: BelowOne = 0.0,
    ) -> None:
        super().__init__()
        if image_dim != text_dim:
            raise ValueError(f"needs embeddings of one size, got {image_dim} and {text_dim}")
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.out_dim, self.layers, self.heads = text_dim, layers, heads
        self.linear_v = nn.Linear(text_dim, dim)
        self.linear_k = nn.Linear(text_dim, dim)
        self.linear_q = nn.Linear(image_dim, dim)
        self.linear_merge = nn.Linear(dim, text_dim)
        self.norm = nn.BatchNorm1d(text_dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear_v, self.linear_k, self.linear_q, self.linear_merge):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """``(B, 1, D)`` and ``(B, 1, D)`` to ``(B, D)``."""
        query, state = image[:, 0], text[:, 0]
        for _ in range(self.layers):
            # The original passes (v, q, k) to the parameters (v, k, q): the image is the key.
            attended = self._attend(value=state, key=query, query=state)
            state = F.relu(self.norm(attended)) + state
        return Fused(state, {})

    def _attend(self, *, value: Tensor, key: Tensor, query: Tensor) -> Tensor:
        v, k, q = (
            linear(x).unflatten(-1, (self.heads, 1, -1))  # (B, heads, 1, dim / heads)
            for linear, x in ((self.linear_v, value), (self.linear_k, key), (self.linear_q, query))
        )
        scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5  # (B, heads, 1, 1)
        attended = self.dropout(scores.softmax(dim=-1)) @ v
        return self.linear_merge(attended.flatten(1))
