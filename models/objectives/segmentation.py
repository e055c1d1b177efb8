"""The objective of the trained baselines: anomaly maps against masks."""

import torch
from torch import Tensor

from models.base import Output
from models.objectives.base import Objective, Targets
from models.objectives.cross_entropy import WeightedCrossEntropy
from utils.batch import Batch
from utils.ranges import NotNegative, Positive, check_ranges


def focal_loss(maps: Tensor, mask: Tensor, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    r"""Mean over pixels of :math:`-(1 - p)^\gamma \log p`, p the probability of the true class.

    Source:
        Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 4, smoothed as VAND and AnomalyCLIP
        do it: the one-hot target is clamped to ``[smooth, 1 - smooth]`` and p raised by ``smooth``.

    Args:
        maps: Probabilities, shape ``(B, 2, H, W)``.
        mask: 0 or 1, shape ``(B, H, W)``.
        gamma: The larger, the less pixels count whose class is predicted well.
        smooth: Added so that the logarithm stays finite.

    Returns:
        Scalar.
    """
    target = torch.stack([1 - mask, mask], dim=1).clamp(smooth, 1 - smooth)
    p = (target * maps).sum(dim=1) + smooth
    return (-((1 - p) ** gamma) * p.log()).mean()


def dice_loss(maps: Tensor, mask: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the overlap of each image's map and mask, mean over images.

    Source:
        Milletari et al. 2016, https://arxiv.org/abs/1606.04797, with sums instead of squares, as in
        VAND and AnomalyCLIP.

    Args:
        maps: Probabilities, shape ``(B, H, W)``.
        mask: 0 or 1, shape ``(B, H, W)``.
        smooth: Added to numerator and denominator.

    Returns:
        Scalar between 0 and 1.
    """
    maps, mask = maps.flatten(1), mask.flatten(1)
    overlap = 2 * (maps * mask).sum(dim=1) + smooth
    return (1 - overlap / (maps.sum(dim=1) + mask.sum(dim=1) + smooth)).mean()


class Segmentation(Objective):
    """Focal and dice loss of the maps, summed over levels, and cross-entropy of the image.

    Source:
        VAND, https://arxiv.org/abs/2305.17382: maps only. AnomalyCLIP,
        https://arxiv.org/abs/2310.18961: ``ce_weight 1, map_weight 4, normal_dice true``.

    Args:
        feature_dim: Unused.
        targets: Unused.
        ce_weight: Weight of the image's cross-entropy.
        map_weight: Weight of the maps' losses.
        normal_dice: Whether the map of "normal" has a dice loss, too.

    Raises:
        ValueError: If a weight is negative.
    """

    needs_all_masks = True

    @check_ranges
    def __init__(
        self,
        feature_dim: int,
        targets: Targets | None,
        *,
        ce_weight: NotNegative = 0.0,
        map_weight: Positive = 1.0,
        normal_dice: bool = False,
    ) -> None:
        super().__init__()
        self.ce_weight, self.map_weight, self.normal_dice = ce_weight, map_weight, normal_dice
        self.cross_entropy = WeightedCrossEntropy(1.0, 0.0)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Returns ``loss`` and, unweighted, its terms ``ce``, ``focal`` and ``dice``."""
        if batch.mask is None or not output.maps:
            raise ValueError("segmentation needs masks in the batch and a network with maps")
        mask = (batch.mask == 1).float()
        terms = {"focal": torch.zeros(()).to(mask), "dice": torch.zeros(()).to(mask)}
        for maps in output.maps:
            terms["focal"] = terms["focal"] + focal_loss(maps.float(), mask)
            terms["dice"] = terms["dice"] + dice_loss(maps[:, 1].float(), mask)
            if self.normal_dice:
                terms["dice"] = terms["dice"] + dice_loss(maps[:, 0].float(), 1 - mask)
        loss = self.map_weight * (terms["focal"] + terms["dice"])
        if self.ce_weight:
            terms["ce"] = self.cross_entropy(output.logits, batch.label)
            loss = loss + self.ce_weight * terms["ce"]
        return {"loss": loss, **terms}
