"""BMAD: six medical benchmarks in one layout, some with masks.

Source:
    Bao et al. 2023, https://arxiv.org/abs/2306.11876.
"""

from pathlib import Path
from typing import Literal

from datasets.readers.mvtec import read_levels
from datasets.record import Splits, checked
from datasets.split import with_groups
from utils.store import NOWHERE, Store


def read_bmad(
    root: Path,
    _: Store = NOWHERE,
    *,
    split: Literal["1cls", "2cls"] = "2cls",
    objects: tuple[str, ...] = (),
    group: str = "",
) -> Splits:
    """Folders ``<benchmark>/{train/good, valid/{good,Ungood}, test/{good,Ungood}}``.

    The pictures lie in the last folder or in its ``img``, their masks in ``anomaly_mask`` or
    ``label`` beside ``img``.

    Args:
        root: The folder of the benchmarks, or that of one of them.
        split: ``1cls``: ``train`` alone, all normal, is for training; ``2cls``: ``valid`` too,
            which holds anomalous images. The test images are the official ones in both.
        objects: Which benchmarks; empty: all.
        group: As of the reader ``folder``: images that are never parted.

    Raises:
        UserError: If the folders are not laid out like that.
    """
    levels = {"train": "train", "valid": {"1cls": "valid", "2cls": "train"}[split], "test": "test"}
    masks = ("anomaly_mask", "label")
    splits = read_levels(root, levels, good=("good",), masks=masks, objects=objects)
    splits.pop("valid", None)
    splits = checked(root, splits, objects, where=str(root), hint="unpack the archive again")
    return with_groups(splits, group, str(root))
