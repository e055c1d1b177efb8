"""Terms of an objective that say where in the image, or what, the defect is."""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.ranks import mean_over_ranks
from utils.seeding import generator


def map_distance(places: Tensor, target: Tensor) -> Tensor:
    r"""One minus the similarity of two maps, :math:`1 - \cos(\bar s, \bar t)`, for each image.

    :math:`s = \log(1 + \exp \text{places})` is the heat of the student. Both maps are normalized,
    as :math:`\bar s`: their mean is 0 and their length 1. So an even map is similar to no other.

    Source:
        e2KD, Parchami-Araghi et al. 2024, https://arxiv.org/abs/2402.03119, :math:`L_{exp}`: one
        minus the similarity of explanations. Normalized maps: CAT-KD, Guo et al. 2023,
        https://openaccess.thecvf.com/content/CVPR2023/html/Guo_Class_Attention_Transfer_Based_Knowledge_Distillation_CVPR_2023_paper.html,
        :math:`L_{CAT}`. Departure: the mean is taken off, because attention is never 0.

    Args:
        places: Logits of the student's places, ``(B, h, w)``.
        target: The map it is drawn to, ``(B, h', w')``, at least 0; resampled to ``(h, w)``.

    Returns:
        Shape ``(B,)``, in ``[0, 2]``.
    """
    target = F.interpolate(target.float().unsqueeze(1), places.shape[-2:], mode="bilinear")
    heat, target = F.softplus(places.float()).flatten(1), target.flatten(1)
    return 1 - F.cosine_similarity(
        heat - heat.mean(dim=1, keepdim=True), target - target.mean(dim=1, keepdim=True), dim=1
    )


def moved_at_random(maps: Tensor, paths: list[str]) -> Tensor:
    """Maps ``(B, h, w)`` moved to another place, which depends on the path of their image only.

    A control: as peaked as before, but somewhere else. What leaves at one edge enters at the other.
    """
    moved = []
    for one, path in zip(maps, paths, strict=True):
        random = generator(0, "random map", path)
        shift = [int(torch.randint(side, (), generator=random)) for side in one.shape]
        moved.append(one.roll(shift, dims=(0, 1)))
    return torch.stack(moved)


def mask_distance(places: Tensor, mask: Tensor) -> Tensor:
    r"""Share of the heat that lies outside of the mask, for each image.

    :math:`1 - \sum_n m_n s_n / \sum_n s_n` with the heat :math:`s_n = \log(1 + \exp
    \text{places}_n)` and the share :math:`m_n` of the place that is anomalous.

    Source:
        The Energy loss of Rao et al. 2023, https://arxiv.org/abs/2303.11932, sec. 3, which is
        minus the share inside, of the positive part of attributions. Departure: softplus for the
        positive part, so that places with a negative logit have a gradient.

    Args:
        places: Logits of the student's places, ``(B, h, w)``.
        mask: 1 where it is anomalous, ``(B, H, W)``; as in :class:`utils.batch.Batch`.

    Returns:
        Shape ``(B,)``, in ``[0, 1]``; 1 where the mask is empty.
    """
    heat, inside = F.softplus(places.float()), _marked(mask, places)
    return 1 - (heat * inside).sum(dim=(1, 2)) / heat.sum(dim=(1, 2))


def mask_cross_entropy(places: Tensor, mask: Tensor) -> Tensor:
    r"""Cross-entropy of the places in the mask and of the others, for each image.

    :math:`\sum_n m_n \log(1 + \exp -s_n) / \sum_n m_n` and the mean of :math:`\log(1 + \exp s_n)`
    over the places with :math:`m_n = 0`, with the logits s and the share :math:`m_n` of the place
    that is anomalous. So a small defect counts as much as a large one, and as all the rest.

    Source:
        The class-balanced cross-entropy of Xie and Tu 2015, https://arxiv.org/abs/1504.06375,
        eq. 2. Departure: each class has weight 1, not the share of the other one, which depends on
        the size of the defect.

    Args:
        places: Logits of the student's places, ``(B, h, w)``.
        mask: As :func:`mask_distance`.

    Returns:
        Shape ``(B,)``, in nats; without one of the two parts where the image has no such place.
    """
    logits, inside = places.float(), _marked(mask, places)
    clean = (inside == 0).float()
    missed = (F.softplus(-logits) * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1e-6)
    false = (F.softplus(logits) * clean).sum(dim=(1, 2)) / clean.sum(dim=(1, 2)).clamp(min=1)
    return missed + false


def _marked(mask: Tensor, places: Tensor) -> Tensor:
    """The share of each place that a mask ``(B, H, W)`` marks as anomalous, ``(B, h, w)``."""
    grid = places.shape[-2], places.shape[-1]
    return F.adaptive_avg_pool2d((mask == 1).float().unsqueeze(1), grid).squeeze(1)


MASK_LOSSES = {"cross_entropy": mask_cross_entropy, "energy": mask_distance}


def words_distance(kinds: Tensor, named: Tensor) -> Tensor:
    """Cross-entropy of each kind of defect, present or not, for each image, mean over the kinds.

    Multiple instances: the logit of a kind is pooled from its places before it is compared.

    Source:
        TeD-Loc, Murtaza et al. 2025, https://arxiv.org/abs/2501.12632: patches against the texts
        of classes, multiple-instance learning with the labels of images. Departure: a detector is
        not tied to the embedding of its name. With the orthogonal embeddings that they use the tie
        :math:`w_k = P t_k` restricts nothing, so that only which images have a name matters.

    Args:
        kinds: Logits of the student's detectors, ``(B, K')``; the first K belong to a name.
        named: 1 where the caption names the kind, else 0, ``(B, K)``.

    Returns:
        Shape ``(B,)``, in nats.
    """
    logits = kinds[:, : named.shape[1]].float()
    return F.binary_cross_entropy_with_logits(logits, named, reduction="none").mean(dim=1)


def mean_where(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of ``(B,)`` values; 0 if all weights are 0.

    With several processes the sum of the weights is taken over the images of all of them.
    """
    weights = weights.to(values.dtype)
    kept = torch.where(weights > 0, values, 0)  # a map that is not known is NaN
    return (kept * weights).sum() / mean_over_ranks(weights.sum()).clamp(min=1e-6)
