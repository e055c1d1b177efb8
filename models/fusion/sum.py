"""The sum of two projections."""

from torch import Tensor

from models.fusion.pointwise import PointwiseFusion


class SumFusion(PointwiseFusion):
    r"""Projects both embeddings into one space and adds them.

    .. math:: f = \sigma_o(P(\sigma(U x) + \sigma(V y)))

    Source:
        ``LinearSum`` in https://github.com/Cadene/block.bootstrap.pytorch at 769a638,
        ``block/models/networks/fusions/fusions.py``, with its defaults; the released code has a
        copy. With ``output_activation: none`` image and text add up and do not interact.

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        dim: Features of the common space.
        out_dim: Features of the fused vector.
        activation: After each projection: ``relu``, ``tanh`` or ``none``.
        output_activation: After P: the same choices.
    """

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Both sides, each ``(B, dim)``, to ``(B, dim)``."""
        return left + right
