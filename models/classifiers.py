"""Classifiers: features of an image in, two logits out."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from utils.errors import UserError
from utils.ranges import BelowOne, Count, Probability, Size, check_ranges
from utils.registry import Component


class Classifier(nn.Module):
    """Logits of "normal" and "anomalous" from the features of an image.

    Attributes:
        of_places: Whether it takes one vector per place, ``(B, N, D)``, and has a map of them.
    """

    of_places: bool = False


class MlpClassifier(Classifier):
    """Two layers with weight normalization and dropout, as in the released code.

    Source:
        The released ``modules/classifier.py``; weight normalization with one length per matrix,
        Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868.

    Args:
        feature_dim: Number of input features.
        hidden: Number of features between the layers.
        dropout: Probability of dropping one of those, in ``[0, 1)``.
    """

    @check_ranges
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


class LinearClassifier(Classifier):
    """Dropout and one layer.

    Args:
        feature_dim: Number of input features.
        dropout: Probability of dropping one of them, in ``[0, 1)``.
    """

    @check_ranges
    def __init__(self, feature_dim: int, *, dropout: BelowOne = 0.2) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, 2))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, feature_dim)`` to logits ``(B, 2)``."""
        return self.main(features)


class Answer(NamedTuple):
    """The answer of a classifier of places for B images.

    Attributes:
        logits: Of "normal" and "anomalous", ``(B, 2)``.
        places: The logit of each place, ``(B, N)``; with ``attention`` times N and its weight.
        kinds: The logit of each detector, pooled over the image, ``(B, K)``; with ``logsumexp`` the
            image's is their log-sum-exp.
    """

    logits: Tensor
    places: Tensor
    kinds: Tensor


class WholeImage(nn.Module):
    """A logit from mean and standard deviation, over all places, of each feature.

    Batch normalization gives them all the same scale: some features vary a hundred times as much
    as others, and a layer that is trained in a few hundred steps would see nothing of the rest.

    Source:
        Statistics pooling, Snyder et al. 2018, https://doi.org/10.1109/ICASSP.2018.8461375, sec. 2;
        Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, without scale and shift.

    Args:
        feature_dim: Number of features of a place.
        dropout: Probability of dropping one of the 2 * ``feature_dim`` numbers, in ``[0, 1)``.
    """

    def __init__(self, feature_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * feature_dim, eps=1e-8, affine=False)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * feature_dim, 1))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, N, feature_dim)`` to logits ``(B,)``."""
        features = features.float()
        both = torch.cat([features.mean(dim=1), features.std(dim=1, correction=0)], dim=1)
        if self.training and len(both) > 1:  # a single image has no variance
            both = self.norm(both)
        else:  # the same as self.norm, in a way that ONNX knows
            norm: Any = self.norm
            both = (both - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        logits: Tensor = self.last(both)
        return logits.squeeze(1)


class PatchesClassifier(Classifier):
    r"""Detectors that look at every place, and whose answers are pooled over the image.

    The logit of place n is that of any of K detectors, linear in its features :math:`h_n` (after a
    LayerNorm without parameters): :math:`s_n = \log \sum_k \exp(w_k h_n + b_k)`. The logit of the
    image is pooled from these: their ``mean``, ``max``, the mean of the ``top_k`` largest, the
    smooth maximum ``logsumexp``, :math:`\log \frac{1}{N} \sum_n \exp s_n`, or the mean weighted by
    an ``attention`` :math:`a_n \propto \exp(u \tanh(V h_n))`. The logit of "normal" is 0.

    Source:
        Multiple-instance learning over places: Pinheiro and Collobert 2015,
        https://arxiv.org/abs/1411.6228, eq. 1 (``logsumexp``, r = 1); Ilse et al. 2018,
        https://arxiv.org/abs/1802.04712, eq. 8 (``attention``).

    Args:
        feature_dim: Number of features of a place.
        detectors: K, kinds of anomaly that can be told apart.
        pool: How the places' logits become one.
        top: Number of places of ``top_k``.
        whole_dropout: With a number, the logit is that of the pool and, added to it, one from the
            mean and deviation over all places, which in training is left out with this probability:
            it sees what no place shows, and must not keep the detectors from learning. ``null``:
            the pool only.
        dropout: Probability of dropping a feature, in ``[0, 1)``.
    """

    of_places = True

    @check_ranges
    def __init__(
        self,
        feature_dim: int,
        *,
        detectors: Size = 8,
        pool: Literal["mean", "max", "top_k", "logsumexp", "attention"] = "logsumexp",
        top: Count = 8,
        whole_dropout: Probability | None = None,
        dropout: BelowOne = 0.2,
    ) -> None:
        super().__init__()
        self.pool, self.top = pool, top
        self.norm = nn.LayerNorm(feature_dim, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.detectors = nn.Linear(feature_dim, detectors)
        self.attention = None
        if pool == "attention":
            hidden = nn.Linear(feature_dim, 128)
            self.attention = nn.Sequential(hidden, nn.Tanh(), nn.Linear(128, 1, bias=False))
        self.whole_dropout = whole_dropout or 0.0
        self.whole = None if whole_dropout is None else WholeImage(feature_dim, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, N, feature_dim)`` to logits ``(B, 2)``."""
        return self.answer(features).logits

    def places(self, features: Tensor) -> Tensor:
        """The logit of each place, ``(B, N)``; see :class:`Answer`."""
        return self.answer(features).places

    def answer(self, features: Tensor) -> Answer:
        """What it says of ``(B, N, feature_dim)``; in training all with the same features left."""
        # Dropout takes the same features from all places of an image.
        normed = self.norm(features)
        features = normed * self.dropout(torch.ones_like(features[:, :1]))
        kinds = self.detectors(features).float()  # (B, N, K)
        places = kinds.logsumexp(dim=-1)
        weights = None
        if self.attention is not None:
            weights = self.attention(features).float().softmax(dim=1)  # (B, N, 1)
        logit = self._pooled(places.unsqueeze(-1), weights).squeeze(-1)
        if self.whole is not None:
            whole = self.whole(normed)
            if self.training:
                whole = whole * (torch.rand_like(whole) >= self.whole_dropout)
            logit = logit + whole
        logits = torch.stack([torch.zeros_like(logit), logit], dim=1)
        if weights is not None:
            places = places * weights.squeeze(-1) * places.shape[1]
        return Answer(logits, places, self._pooled(kinds, weights))

    def _pooled(self, logits: Tensor, weights: Tensor | None) -> Tensor:
        """``(B, N, K)`` to ``(B, K)``."""
        count = logits.shape[1]
        match self.pool:
            case "mean":
                return logits.mean(dim=1)
            case "max":
                return logits.amax(dim=1)
            case "top_k":
                return logits.topk(min(self.top, count), dim=1).values.mean(dim=1)
            case "logsumexp":
                return logits.logsumexp(dim=1) - math.log(count)
        assert weights is not None  # of this pool
        return (logits * weights).sum(dim=1)


CLASSIFIERS: dict[str, type[Classifier]] = {
    "linear": LinearClassifier,
    "mlp": MlpClassifier,
    "patches": PatchesClassifier,
}


def vector_classifier(classif: Component, feature_dim: int) -> Classifier:
    """The classifier of a single vector per image.

    Raises:
        UserError: If it is one of places.
    """
    if CLASSIFIERS[classif.name].of_places:
        raise UserError(
            f"{classif.path or 'classif'}: {classif.name} needs one vector per place, and this "
            "network has one per image; write linear or mlp"
        )
    classifier: Classifier = classif.build(CLASSIFIERS, feature_dim)
    return classifier
