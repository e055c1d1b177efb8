"""BrainMRI: brain scans with and without a tumour; image level, no split of its own.

Source:
    https://www.kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection: 98 normal
    and 155 anomalous pictures of many sizes, 25 of them copies of others.
"""

from pathlib import Path

from datasets.readers.classes import read_classes
from datasets.record import NORMAL, Splits


def read_brainmri(
    root: Path,
    *,
    objects: tuple[str, ...] = (),
    test_fraction: float = 0.3,
    split_seed: int = 0,
) -> Splits:
    """Folders ``no`` and ``yes``, in ``brain_tumor_dataset`` or not.

    Some archives hold them twice; one of the two counts.

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
        at=("", "brain_tumor_dataset"),
        object_name="brain",
        objects=objects,
        test_fraction=test_fraction,
        split_seed=split_seed,
    )
