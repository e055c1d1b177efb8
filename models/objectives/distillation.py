"""Knowledge distillation from a frozen teacher."""

from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.objectives.base import Objective, Targets
from models.objectives.cross_entropy import (
    MaskFraction,
    MaskLoss,
    WeightedCrossEntropy,
    mask_term,
)
from models.objectives.guidance import map_distance, mean_where, moved_at_random, words_distance
from utils.batch import Batch
from utils.ranges import BelowOne, NotNegative, Positive, Range, check_ranges


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Temperature-softened KL divergence, :math:`T^2\, KL(p_t \| p_s)`.

    Source:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2; the :math:`T^2` keeps the
        size of the gradient independent of T. Summed over classes, averaged over the batch.

    Args:
        student: Logits, shape ``(B, C)``.
        teacher: Logits, shape ``(B, C)``; no gradient flows into them.
        temperature: T > 0; 1 leaves the distributions as they are.

    Returns:
        Scalar, in nats.
    """
    target = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    log_p = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_p, target, reduction="batchmean", log_target=True) * temperature**2


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of ``(B, D)`` features, over images and features.

    Source:
        Romero et al. 2015, https://arxiv.org/abs/1412.6550, eq. 3, as a mean.
    """
    return F.mse_loss(student.float(), teacher.detach().float())


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of ``(B, D)`` features, mean over images; between 0 and 2."""
    return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).mean()


FEATURE_LOSSES = {"mse": mse_loss, "cosine": cosine_loss}


class Distillation(Objective):
    r"""A weighted sum of terms: labels, the teacher's probabilities, its features, and guidance.

    .. math:: L = w_{ce}\, CE + w_{kl}\, T^2 KL(p_t \| p_s) + w_f\, d(P f_s, f_t) + \ldots

    The guidance says where the defect is, and what it is; each term is its mean over the images for
    which it is known. It needs ``classif: patches``.

    Source:
        The three losses of the released code are ``ce .5, kl .5, T 5`` (its KL is half of this one,
        see docs/method.md), ``ce .5, feature .5`` and ``ce .1, kl .5, feature .8``; P is a learned
        linear projection (the released code had none and could not run).

    Args:
        feature_dim: Number of features of the student's vector.
        targets: The teacher.
        ce_weight: Weight of the cross-entropy with the labels.
        kl_weight: Weight of the divergence from the teacher's probabilities.
        feature_weight: Weight of the distance from the teacher's fused vector.
        temperature: T > 0, which softens both distributions.
        feature_loss: The distance of the features: ``mse`` or ``cosine``.
        anomaly_weight: Weight of an anomalous image in the cross-entropy; a normal one has 1.
        label_smoothing: Share of each label spread over both classes, in ``[0, 1)``.
        attention_weight: Weight of the distance of the student's map from the teacher's attention
            to the defect's words in the caption, or from the map of a teacher that has one of its
            own, in anomalous images.
        attention_source: ``teacher``; or ``random``: each map is moved to a random place, as a
            control.
        words_weight: Weight of the cross-entropy of the kinds of defect that the captions name,
            each with a detector of its own.
        mask_weight: Weight of the distance of the student's map from the mask; with 0 no mask is
            read.
        mask_loss: This distance. ``energy``: the share of the heat that lies outside of the mask.
            ``cross_entropy``: that of the places, those in the mask and the others with the same
            weight.
        mask_fraction: Share of each object's anomalous training images whose masks are used, at
            least one; drawn by ``misc.seed``: the masks of 1 % are among those of 10 %.

    Raises:
        ValueError: If a weight or the temperature is out of range, or there is no teacher.
    """

    needs_teacher = True

    @check_ranges
    def __init__(
        self,
        feature_dim: int,
        targets: Targets | None,
        *,
        ce_weight: NotNegative = 0.5,
        kl_weight: NotNegative = 0.5,
        feature_weight: NotNegative = 0.0,
        temperature: Annotated[float, Range(0, 1_000, "(]")] = 5.0,
        feature_loss: Literal["mse", "cosine"] = "mse",
        anomaly_weight: Positive = 1.0,
        label_smoothing: BelowOne = 0.0,
        attention_weight: NotNegative = 0.0,
        attention_source: Literal["teacher", "random"] = "teacher",
        words_weight: NotNegative = 0.0,
        mask_weight: NotNegative = 0.0,
        mask_loss: MaskLoss = "energy",
        mask_fraction: MaskFraction = 1.0,
    ) -> None:
        super().__init__()
        if targets is None:
            raise ValueError(
                "needs a teacher: add a teacher section, or the folder of a trained one"
            )
        if not ce_weight + kl_weight:
            raise ValueError("ce_weight or kl_weight must be more than 0")
        self.targets = targets
        self.weights = {"ce": ce_weight, "kl": kl_weight, "feature": feature_weight}
        self.guidance = {
            "attention": (attention_weight, self._attention),
            "words": (words_weight, self._words),
            "mask": (mask_weight, lambda output, _, batch: mask_term(output, batch, mask_loss)),
        }
        self.is_random = attention_source == "random"
        self.temperature = temperature
        self.cross_entropy = WeightedCrossEntropy(anomaly_weight, label_smoothing)
        self.feature_distance = FEATURE_LOSSES[feature_loss]
        self.project = nn.Linear(feature_dim, targets.feature_dim) if feature_weight else None

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Returns ``loss`` and, unweighted, its terms: ``ce``, ``kl``, and others with weights."""
        target = self.targets(batch)
        terms = {
            "ce": self.cross_entropy(output.logits, batch.label),
            "kl": distillation_loss(output.logits, target.logits, self.temperature),
        }
        if self.project is not None:
            terms["feature"] = self.feature_distance(self.project(output.features), target.features)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        for name, (weight, term_of) in self.guidance.items():
            if weight:
                terms[name] = term_of(output, target, batch)
                loss = loss + weight * terms[name]
        return {"loss": loss, **terms}

    def _attention(self, output: Output, target: Output, batch: Batch) -> Tensor:
        """Mean over the anomalous images whose caption has words of a defect."""
        if output.places is None or target.places is None:
            raise ValueError("attention_weight needs places of student and teacher")
        known = target.places.isfinite().flatten(1).all(dim=1) & (batch.label == 1)
        maps = target.places.nan_to_num()
        if self.is_random:
            maps = moved_at_random(maps, list(batch.path))
        return mean_where(map_distance(output.places, maps), known)

    def _words(self, output: Output, target: Output, batch: Batch) -> Tensor:
        """Mean over the images whose kind of defect is known, weighted as the labels are."""
        if output.kinds is None or target.kinds is None:
            raise ValueError("words_weight needs detectors, and the names of kinds of defect")
        known = target.kinds.isfinite().all(dim=1)
        weights = self.cross_entropy.weight[batch.label] * known
        return mean_where(words_distance(output.kinds, target.kinds.nan_to_num()), weights)
