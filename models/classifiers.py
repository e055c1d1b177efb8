"""Classifiers: a feature vector in, two logits out."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from utils.ranges import BelowOne, Size


class MlpClassifier(nn.Module):
    """Two layers with weight normalization and dropout, as in the released code.

    Source:
        The released ``modules/classifier.py``; weight normalization with one length per matrix,
        Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868.

    Args:
        feature_dim: Number of input features.
        hidden: Number of features between the layers.
        dropout: Probability of dropping one of those, in ``[0, 1)``.
    """

    def __init__(self, feature_dim: int, *, hidden: Size = 256, dropout: BelowOne = 0.5) -> None:
        super().__init__()
        self.main = nn.Sequential(
            weight_norm(nn.Linear(feature_dim, hidden), dim=None),  # type: ignore[arg-type]
            nn.ReLU(),
            nn.Dropout(dropout),
            weight_norm(nn.Linear(hidden, 2), dim=None),  # type: ignore[arg-type]
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, feature_dim)`` to logits ``(B, 2)``."""
        return self.main(features)


class LinearClassifier(nn.Module):
    """Dropout and one layer.

    Args:
        feature_dim: Number of input features.
        dropout: Probability of dropping one of them, in ``[0, 1)``.
    """

    def __init__(self, feature_dim: int, *, dropout: BelowOne = 0.2) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, 2))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, feature_dim)`` to logits ``(B, 2)``."""
        return self.main(features)


CLASSIFIERS = {
    "linear": LinearClassifier,
    "mlp": MlpClassifier,
}
