"""A bilinear map whose core tensor has low rank."""

from torch import Tensor, nn

from models.fusion.base import Fused, Fusion
from models.fusion.block import BlockTensor


class MutanFusion(Fusion):
    r"""Tucker decomposition of the bilinear tensor, its core of rank R.

    .. math:: f = P \sum_{r=1}^{R} (A_r U x + a_r) \circ (B_r V y + b_r)

    Source:
        Ben-younes et al. 2017, "MUTAN: Multimodal Tucker Fusion for Visual Question Answering",
        https://arxiv.org/abs/1705.06676, sec. 3.2; with biases and without activations, as
        ``Mutan`` in https://github.com/Cadene/block.bootstrap.pytorch at 769a638, which the
        released code copies: ``block`` with a single chunk. Departure: smaller defaults (theirs:
        dim 1600, rank 15, 77 million parameters in the core).

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        dim: Features of the common space.
        out_dim: Features of the fused vector.
        rank: R, the rank of the core tensor.
        normalize: Whether the result gets signed square roots and length 1 before P.

    Raises:
        ValueError: If ``rank`` is below 1.
    """

    pooled = True

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: int = 320,
        out_dim: int = 1024,
        rank: int = 10,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.from_image = nn.Linear(image_dim, dim)
        self.from_text = nn.Linear(text_dim, dim)
        self.core = BlockTensor(dim, 1, rank, normalize)
        self.project = nn.Linear(dim, out_dim)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """``(B, 1, image_dim)`` and ``(B, 1, text_dim)`` to ``(B, out_dim)``."""
        left, right = self.from_image(image[:, 0]), self.from_text(text[:, 0])
        return Fused(self.project(self.core(left, right)), {})
