"""Low-rank bilinear pooling: the product of two projections."""

from torch import Tensor

from models.fusion.pointwise import PointwiseFusion


class MlbFusion(PointwiseFusion):
    r"""Projects both embeddings into one space and multiplies them, feature by feature.

    .. math:: f = \sigma_o(P(\sigma(U x) \circ \sigma(V y)))

    Source:
        Kim et al. 2017, "Hadamard Product for Low-rank Bilinear Pooling",
        https://arxiv.org/abs/1610.04325, sec. 3; the number of features ``dim`` is the rank.
        Defaults: ``MLB`` in https://github.com/Cadene/block.bootstrap.pytorch at 769a638, which the
        released code copies. The paper itself has ``activation: tanh, output_activation: none``.

    Args:
        image_dim: Features of the image embedding.
        text_dim: Features of the sentence embedding.
        dim: Features of the common space: the rank.
        out_dim: Features of the fused vector.
        activation: After each projection: ``relu``, ``tanh`` or ``none``.
        output_activation: After P: the same choices.
    """

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Both sides, each ``(B, dim)``, to ``(B, dim)``."""
        return left * right
