"""Validation images, carved out of the training images."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from datasets.record import Record
from utils.errors import UserError
from utils.seeding import generator


def carve_validation(
    records: Sequence[Record], fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Splits training images in two, each object and label in the same proportion.

    Args:
        records: All training images.
        fraction: Share to put aside, in ``(0, 1)``; of each object and label at least one image
            where there are two or more.
        seed: Decides which.

    Returns:
        Training and validation images, both in the order of ``records``.

    Raises:
        UserError: If no anomalous image is left on either side, so that nothing could be learned
            or no checkpoint chosen.
    """
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        strata[record.object, record.label].append(i)
    chosen: set[int] = set()
    for (name, label), members in strata.items():
        order = torch.randperm(len(members), generator=generator(seed, "validation", name, label))
        count = max(round(fraction * len(members)), 1) if len(members) > 1 else 0
        chosen.update(members[i] for i in order[:count].tolist())
    train = [record for i, record in enumerate(records) if i not in chosen]
    validation = [record for i, record in enumerate(records) if i in chosen]
    for side, part in (("training", train), ("validation", validation)):
        if len({record.label for record in part}) < 2:
            raise UserError(
                f"dataset: the {side} images hold no {_missing(part)} image; training needs at "
                "least two normal and two anomalous ones of an object (VisA's split 1cls has none)"
            )
    return train, validation


def _missing(part: Sequence[Record]) -> str:
    return "normal" if any(record.label for record in part) else "anomalous"
