"""Image-level sets that are two folders of pictures, one normal, one anomalous."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.record import NORMAL, Record, Splits, checked, choose_objects
from datasets.scan import find_pictures
from datasets.split import draw_split
from utils.errors import UserError


def read_classes(
    root: Path,
    folders: Mapping[str, str],
    *,
    at: Sequence[str],
    object_name: str,
    objects: Sequence[str],
    test_fraction: float,
    split_seed: int,
) -> Splits:
    """The pictures of one folder per class; a split is drawn.

    Args:
        root: The data set's folder.
        folders: ``{folder: what its pictures show}``; ``normal`` for the normal ones.
        at: Where in ``root`` the folders may lie; the first place that has them all is taken, so
            that a copy of them further down counts for nothing.
        object_name: What all pictures show.
        objects: Which objects; empty: all.
        test_fraction: Share of the pictures put aside for the test.
        split_seed: Decides which they are.

    Raises:
        UserError: If the folders are not there.
        ValueError: If ``test_fraction`` is out of range.
    """
    place = next((p for p in at if all((root / p / name).is_dir() for name in folders)), None)
    if place is None:
        raise UserError(
            f"{root}: the folders {' and '.join(folders)} are not there; unpack the data set, or "
            "name its folder with dataset.dir=FOLDER"
        )
    records = [
        Record(path=path, object=object_name, label=int(shown != NORMAL), defect=shown)
        for name, shown in folders.items()
        for path in find_pictures(root, f"{place}/{name}" if place else name)
    ]
    checked(root, {"": records}, (), where=str(root), hint="unpack the data set again")
    splits = draw_split(root, records, test_fraction=test_fraction, split_seed=split_seed)
    return choose_objects(splits, objects, str(root))
