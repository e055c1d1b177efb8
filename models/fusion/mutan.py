"""A bilinear map whose core tensor has low rank."""

from models.fusion.block import BlockFusion
from utils.ranges import Size, check_ranges


class MutanFusion(BlockFusion):
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
        normalize: Whether the result is power-normalized before P.

    Raises:
        ValueError: If ``rank`` is below 1.
    """

    @check_ranges
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        *,
        dim: Size = 320,
        out_dim: Size = 1024,
        rank: Size = 10,
        normalize: bool = False,
    ) -> None:
        super().__init__(
            image_dim,
            text_dim,
            dim=dim,
            out_dim=out_dim,
            chunks=1,
            rank=rank,
            normalize=normalize,
        )
