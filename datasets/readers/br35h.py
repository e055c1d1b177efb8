"""Br35H: brain scans with and without a tumour; image level, no split of its own.

Source:
    https://www.kaggle.com/datasets/ahmedhamada0/brain-tumor-detection: 1500 normal and 1500
    anomalous pictures; those in its folder ``pred`` have no label.
"""

from pathlib import Path

from datasets.readers.classes import read_classes
from datasets.record import NORMAL, Splits


def read_br35h(
    root: Path,
    *,
    objects: tuple[str, ...] = (),
    test_fraction: float = 0.3,
    split_seed: int = 0,
) -> Splits:
    """Folders ``no`` and ``yes``; ``pred`` is passed over.

    Args:
        root: The folder of the data set.
        objects: ``[brain]`` or empty.
        test_fraction: Share of the pictures put aside for the test.
        split_seed: Decides which they are.

    Raises:
        UserError: If the folders are not there.
        ValueError: If ``test_fraction`` is out of range.
    """
    return read_classes(
        root,
        {"no": NORMAL, "yes": "tumor"},
        at=("",),
        object_name="brain",
        objects=objects,
        test_fraction=test_fraction,
        split_seed=split_seed,
    )
