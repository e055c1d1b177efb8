"""A bilinear map whose tensor is made of low-rank blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion.base import Fused, Fusion
from utils.ranges import Size, check_ranges


class BlockTensor(nn.Module):
    r"""Bilinear map of two vectors, chunk by chunk, each chunk of low rank.

    Chunk c of the result is made of chunk c of both sides:
    :math:`z_c = \sum_{r=1}^{R} (A_{cr} x_c + a_{cr}) \circ (B_{cr} y_c + b_{cr})`.

    Args:
        dim: Features of either side and of the result.
        chunks: Number of blocks along the tensor's diagonal; a divisor of ``dim``.
        rank: R of each block.
        normalize: Whether each chunk of the result is power-normalized.

    Raises:
        ValueError: If ``dim`` is not a multiple of ``chunks``.
    """

    def __init__(self, dim: int, chunks: int, rank: int, *, normalize: bool) -> None:
        super().__init__()
        if dim % chunks:
            raise ValueError(f"dim ({dim}) must be a multiple of chunks ({chunks})")
        self.size, self.rank, self.normalize = dim // chunks, rank, normalize
        self.left, self.right = (
            nn.ModuleList(nn.Linear(self.size, rank * self.size) for _ in range(chunks))
            for _ in range(2)
        )

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Two sides ``(..., dim)``, whose other dimensions may broadcast, to ``(..., dim)``."""
        chunks = zip(
            self.left,
            self.right,
            left.split(self.size, dim=-1),
            right.split(self.size, dim=-1),
            strict=True,
        )
        return torch.cat([self._chunk(a(x), b(y)) for a, b, x, y in chunks], dim=-1)

    def _chunk(self, left: Tensor, right: Tensor) -> Tensor:
        shape = (self.rank, self.size)
        product = (left.unflatten(-1, shape) * right.unflatten(-1, shape)).sum(dim=-2)
        return power_normalize(product) if self.normalize else product


def power_normalize(x: Tensor) -> Tensor:
    """Signed square roots, then division by the length, over the last dimension.

    Of the products of features a few are much larger than the rest; this makes them comparable.

    Source:
        Perronnin et al. 2010, "Improving the Fisher Kernel for Large-Scale Image Classification",
        sec. 3. Departure: the derivative at 0 is 0, not infinite.
    """
    return F.normalize(torch.sqrt(F.relu(x)) - torch.sqrt(F.relu(-x)), dim=-1)


class BlockFusion(Fusion):
    """Block-superdiagonal bilinear fusion.

    Source:
        Ben-younes et al. 2019, "BLOCK: Bilinear Superdiagonal Fusion for Visual Question Answering
        and Visual Relationship Detection", https://arxiv.org/abs/1902.00038, sec. 3; with biases
        and normalization as ``Block`` in https://github.com/Cadene/block.bootstrap.pytorch at
        769a638, which the released code copies. Departure: all chunks have the same size, and the
        defaults are smaller (theirs: dim 1600, chunks 20, rank 15).

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        dim: Features of the common space; a multiple of ``chunks``.
        out_dim: Features of the fused vector.
        chunks: Number of blocks.
        rank: Rank of each block.
        normalize: Whether the result of each block is power-normalized.

    Raises:
        ValueError: If ``dim`` is not a multiple of ``chunks``, or a number is below 1.
    """

    pooled = True

    @check_ranges
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: Size = 640,
        out_dim: Size = 1024,
        chunks: Size = 20,
        rank: Size = 15,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.from_image = nn.Linear(image_dim, dim)
        self.from_text = nn.Linear(text_dim, dim)
        self.tensor = BlockTensor(dim, chunks, rank, normalize=normalize)
        self.project = nn.Linear(dim, out_dim)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """``(B, 1, image_dim)`` and ``(B, 1, text_dim)`` to ``(B, out_dim)``."""
        left, right = self.from_image(image[:, 0]), self.from_text(text[:, 0])
        return Fused(self.project(self.tensor(left, right)), {})
