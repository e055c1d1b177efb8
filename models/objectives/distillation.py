"""Knowledge distillation from a frozen teacher."""

from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.objectives.base import Objective, Targets
from models.objectives.cross_entropy import WeightedCrossEntropy
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
    r"""A weighted sum of three terms: labels, the teacher's probabilities, and its features.

    .. math:: L = w_{ce}\, CE + w_{kl}\, T^2 KL(p_t \| p_s) + w_f\, d(P f_s, f_t)

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
        self.temperature = temperature
        self.cross_entropy = WeightedCrossEntropy(anomaly_weight, label_smoothing)
        self.feature_distance = FEATURE_LOSSES[feature_loss]
        self.project = nn.Linear(feature_dim, targets.feature_dim) if feature_weight else None

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Returns ``loss`` and, unweighted, its terms ``ce``, ``kl`` and ``feature``."""
        target = self.targets(batch)
        terms = {
            "ce": self.cross_entropy(output.logits, batch.label),
            "kl": distillation_loss(output.logits, target.logits, self.temperature),
        }
        if self.project is not None:
            terms["feature"] = self.feature_distance(self.project(output.features), target.features)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        return {"loss": loss, **terms}
