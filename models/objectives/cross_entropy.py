"""Plain classification."""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.objectives.base import Objective, Targets
from models.objectives.guidance import MASK_LOSSES, mean_where
from utils.batch import Batch
from utils.ranges import BelowOne, NotNegative, Positive, Range, check_ranges
from utils.ranks import mean_over_ranks

MaskFraction = Annotated[float, Range(0, 1, "(]")]
MaskLoss = Literal["cross_entropy", "energy"]  # of MASK_LOSSES


class CrossEntropy(Objective):
    """Cross-entropy between the logits and the labels.

    Args:
        feature_dim: Unused.
        targets: Unused.
        anomaly_weight: Weight of an anomalous image; a normal one has weight 1. Anomalies are rare:
            the number of normal images per anomalous one balances the classes.
        label_smoothing: Share of each target spread over both classes, in ``[0, 1)``.
        mask_weight: Weight of the distance of the student's map from the mask; with 0 no mask is
            read.
        mask_loss: This distance. ``energy``: the share of the heat that lies outside of the mask.
            ``cross_entropy``: that of the places, those in the mask and the others with the same
            weight.
        mask_fraction: Share of each object's anomalous training images whose masks are used, at
            least one; drawn by ``misc.seed``: the masks of 1 % are among those of 10 %.

    Raises:
        ValueError: If a number is out of range.
    """

    @check_ranges
    def __init__(
        self,
        feature_dim: int,
        targets: Targets | None,
        *,
        anomaly_weight: Positive = 1.0,
        label_smoothing: BelowOne = 0.0,
        mask_weight: NotNegative = 0.0,
        mask_loss: MaskLoss = "energy",
        mask_fraction: MaskFraction = 1.0,
    ) -> None:
        super().__init__()
        self.cross_entropy = WeightedCrossEntropy(anomaly_weight, label_smoothing)
        self.mask_weight, self.mask_loss = mask_weight, mask_loss

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Returns ``loss``, the weighted mean over the batch in nats; its terms if there are two.

        With ``mask_weight`` these are ``ce`` and, unweighted, ``mask``.
        """
        ce = self.cross_entropy(output.logits, batch.label)
        if not self.mask_weight:
            return {"loss": ce}
        mask = mask_term(output, batch, self.mask_loss)
        return {"loss": ce + self.mask_weight * mask, "ce": ce, "mask": mask}


def mask_term(output: Output, batch: Batch, mask_loss: MaskLoss) -> Tensor:
    """Mean of one of ``MASK_LOSSES`` over the images whose mask shows a defect."""
    if batch.mask is None or output.places is None:
        raise ValueError("mask_weight needs masks in the batch and a classifier of places")
    shows = (batch.mask == 1).flatten(1).any(dim=1)
    return mean_where(MASK_LOSSES[mask_loss](output.places, batch.mask), shows)


class WeightedCrossEntropy(nn.Module):
    """The weighted mean of the images' cross-entropies: their sum by the sum of the weights.

    With several processes the sum of the weights is taken over the images of all of them.

    Args:
        anomaly_weight: Weight of an anomalous image; a normal one has weight 1.
        label_smoothing: Share of each target spread over both classes.

    Raises:
        ValueError: If a number is out of range.
    """

    weight: Tensor

    def __init__(self, anomaly_weight: float, label_smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, anomaly_weight]), persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits ``(B, 2)`` and labels ``(B,)`` to a scalar, in nats."""
        total = F.cross_entropy(
            logits.float(),
            label,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / mean_over_ranks(self.weight[label].sum())
