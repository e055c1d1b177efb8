"""MVTec AD, and whatever else lies on disk as it does: BTAD, MPDD, VisA reorganized, ...

Source:
    Bergmann et al., "MVTec AD - A Comprehensive Real-World Dataset for Unsupervised Anomaly
    Detection", CVPR 2019.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.mask_files import MaskIndex
from datasets.record import ANOMALY, NORMAL, Record, Splits, checked
from datasets.scan import (
    BAD,
    conversion,
    find_files,
    find_folders,
    folded,
    is_picture,
    of_one_sensor,
    say_left_out,
    split_of,
)
from datasets.split import move_anomalies, with_groups
from utils.console import say
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
    group: str = "",
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
        group: As of the reader ``folder``: images that are never parted.
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
    splits = with_groups(splits, group, str(root))
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
    is_one = any(_level(name, levels) for name in names)
    where = {root.resolve().name: ""} if is_one else {n: f"{n}/" for n in names}
    where = {name: s for name, s in where.items() if _levels(root / s, levels)}
    splits: Splits = {split: [] for split in levels.values()}
    files = [path for start in where.values() for path in find_files(root, start)]
    used: list[str] = []
    for name, start in where.items():
        paths = [path for path in files if path.startswith(start) and is_picture(path)]
        outer = {path: path.removeprefix(start).partition("/")[0] for path in paths}
        paths = [p for p in paths if _level(outer[p], levels) or not split_of(outer[p])]
        index = MaskIndex(root, paths, masks)
        records = []
        for path in of_one_sensor(index.pictures):
            level, kind, *_ = (*PurePosixPath(path.removeprefix(start)).parts[:-1], "", "")
            level = _level(level, levels)
            if not level or not kind:
                continue
            label = int(folded(kind) not in map(folded, good))
            defect = ANOMALY if folded(kind) in BAD else kind
            record = Record(
                path=path,
                object=name,
                label=label,
                defect=defect if label else NORMAL,
                mask=index.find(path) if label else "",
            )
            splits[levels[level]].append(record)
            records.append(record)
        if not objects or name in objects:
            index.say_unused(records)
        used += [*(record.path for record in records), *index.files]
    wanted = ", ".join(f"<object>/{level}/<kind>" for level in levels)
    if not any(splits.values()):
        raise _nothing_found(root, levels, wanted, files)
    if others := [] if is_one else sorted({*names} - {*where}):
        say(f"{root}: left out: {', '.join(others[:8])}: no objects, without {wanted}")
    say_left_out(root, files, used, f"no pictures or not in {wanted}")
    return splits


def _nothing_found(
    root: Path, levels: Mapping[str, str], wanted: str, files: Sequence[str]
) -> UserError:
    folders = (root / name for name in find_folders(root))
    inner = [f for f in folders for name in find_folders(f) if _levels(f / name, levels)]
    hint = f", such as {inner[0]}" if inner else ""
    return UserError(
        f"{root}: no pictures in {wanted}; name another folder{hint}, or another reader"
        f"{conversion(root, files)}",
        option="dir",
    )


def _level(name: str, levels: Mapping[str, str]) -> str:
    """The level that a folder is; in whatever spelling."""
    side = split_of(name)
    fits = (level for level in levels if name == level or (side and split_of(level) == side))
    return next(fits, "")


def _levels(folder: Path, levels: Mapping[str, str]) -> list[str]:
    names = find_folders(folder)
    return [level for name in names if (level := _level(name, levels))]
