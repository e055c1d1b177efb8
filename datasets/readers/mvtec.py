"""MVTec AD, and whatever else lies on disk as it does: BTAD, MPDD, VisA reorganized, ...

Source:
    Bergmann et al., "MVTec AD - A Comprehensive Real-World Dataset for Unsupervised Anomaly
    Detection", CVPR 2019.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.record import ANOMALY, NORMAL, Record, Splits, checked
from datasets.scan import BAD, MaskIndex, find_folders, find_pictures
from datasets.split import move_anomalies
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store


@check_ranges
def read_mvtec(
    root: Path,
    store: Store = NOWHERE,
    *,
    split: Literal["1cls", "2cls"] = "1cls",
    objects: tuple[str, ...] = (),
    good: tuple[str, ...] = ("good", "ok"),
    test_fraction: Fraction = 0.3,
    split_seed: int = 0,
) -> Splits:
    """Folders ``<object>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Args:
        root: The folder of the objects, or that of one object.
        store: Where it is remembered what the pictures hold.
        split: ``1cls``: the official one, which trains on normal images only; ``2cls``: the same,
            but anomalous test images of every defect are given to the training.
        objects: Which objects; empty: all.
        good: Names of the folders of normal images; every other name is a defect.
        test_fraction: Share of the anomalous test images that ``2cls`` leaves in the test.
        split_seed: Decides which they are.

    Returns:
        ``train`` and ``test``; ``defect`` is the folder's name.

    Raises:
        UserError: If the folders are not laid out like that.
        ValueError: If ``test_fraction`` is out of range.
    """
    levels = {"train": "train", "test": "test"}
    splits = read_levels(root, levels, good=good, masks=("ground_truth",), objects=objects)
    splits = checked(root, splits, objects, where=str(root), hint="unpack the archive again")
    if split == "1cls":
        return splits
    return move_anomalies(splits, root, store, test_fraction=test_fraction, split_seed=split_seed)


def read_levels(
    root: Path,
    levels: Mapping[str, str],
    *,
    good: Sequence[str],
    masks: Sequence[str],
    objects: Sequence[str],
) -> Splits:
    """The pictures of ``<object>/<level>/<kind>``.

    Args:
        root: The folder of the objects, or that of one object.
        levels: ``{folder: split}``; an object is what has one of these folders.
        good: Kinds that are normal, in small letters.
        masks: Names of folders that hold masks, in small letters.
        objects: Those of whose unused masks a line is printed; empty: all.

    Raises:
        UserError: If there is no object, or no picture.
    """
    names = find_folders(root)
    where = {root.resolve().name: ""} if set(names) & set(levels) else {n: f"{n}/" for n in names}
    where = {name: start for name, start in where.items() if _has_level(root / start, levels)}
    splits: Splits = {split: [] for split in levels.values()}
    for name, start in where.items():
        paths = find_pictures(root, start)
        is_mask = {p: any(part.lower() in masks for part in PurePosixPath(p).parts) for p in paths}
        index = MaskIndex((path for path in paths if is_mask[path]), masks)
        for path in paths:
            level, kind, *_ = (*PurePosixPath(path.removeprefix(start)).parts[:-1], "", "")
            if is_mask[path] or level not in levels or not kind:
                continue
            label = int(kind.lower() not in good)
            defect = ANOMALY if kind.lower() in BAD else kind
            record = Record(
                path=path,
                object=name,
                label=label,
                defect=defect if label else NORMAL,
                mask=index.find(path) if label else "",
            )
            splits[levels[level]].append(record)
        if not objects or name in objects:
            records = [r for found in splits.values() for r in found if r.object == name]
            index.say_unused(root, records)
    if not any(splits.values()):
        wanted = ", ".join(f"<object>/{level}/<kind>" for level in levels)
        raise UserError(
            f"{root}: no pictures in {wanted}; name another folder, or another reader", option="dir"
        )
    return splits


def _has_level(folder: Path, levels: Mapping[str, str]) -> bool:
    return any((folder / level).is_dir() for level in levels)
