"""Anybody's own pictures, sorted into folders: ``good`` and ``bad``, and what may be around."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.record import ANOMALY, NORMAL, Record, Splits, checked, choose_objects
from datasets.scan import BAD, GOOD, MaskIndex, find_files, find_folders, is_picture
from datasets.split import draw_split
from utils.console import say
from utils.errors import UserError

_LEVELS = {
    "train": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
}


def read_folder(
    root: Path,
    *,
    objects: tuple[str, ...] = (),
    good: tuple[str, ...] = GOOD,
    bad: tuple[str, ...] = BAD,
    masks: tuple[str, ...] = ("mask", "masks", "ground_truth"),
    subfolders: Literal["defects", "objects"] = "defects",
    object_name: str = "",
    test_fraction: float = 0.3,
    split_seed: int = 0,
) -> Splits:
    """Folders ``good`` and ``bad`` of pictures; what was assumed about them is said in one line.

    Around them there may be a folder per object and folders ``train`` and ``test``; inside of them
    a folder per defect or per object; beside them a folder of masks.

    Args:
        root: The folder.
        objects: Which objects; empty: all.
        good: Names of the folders of normal pictures.
        bad: Names of the folders of anomalous pictures.
        masks: Names of the folders of masks.
        subfolders: What folders inside of ``good`` and ``bad`` are.
        object_name: What all pictures show, whatever their folders are called; empty: what these
            are called, or the folder of the data where there is none around ``good`` and ``bad``.
        test_fraction: Share of the pictures put aside for the test, where no folder ``test`` does.
        split_seed: Decides which they are.

    Raises:
        UserError: If there are no such folders, or only one of them.
        ValueError: If ``test_fraction`` is out of range.
    """
    good, bad, masks = (tuple(map(str.lower, names)) for names in (good, bad, masks))
    layout = _Layout(good, bad, masks, subfolders, object_name, root.resolve().name)
    files = find_files(root)
    places = {path: layout.place(path) for path in files if is_picture(path)}
    index = MaskIndex((path for path, place in places.items() if place.is_mask), masks)
    found = [
        (place.level, layout.record(path, place, index))
        for path, place in places.items()
        if place.label is not None and not place.is_mask
    ]
    records = [record for _, record in found]
    if {record.label for record in records} != {0, 1}:
        raise UserError(_nothing_found(root, good, bad, records, files))
    left_out = [path for path in files if path not in places]
    left_out += [p for p, place in places.items() if place.label is None and not place.is_mask]
    say(f"{root}: {_assumed(records, subfolders)}")
    index.say_unused(root, records)
    if left_out:
        say(
            f"{root}: left out: {len(left_out)} of {len(files)} files, no pictures or in no folder "
            f"of a known name; the first is {sorted(left_out)[0]}"
        )
    levels = {level for level, _ in found}
    if "test" not in levels:
        checked(root, {"train": records}, (), where=str(root), hint="put the files back")
        splits = draw_split(root, records, test_fraction=test_fraction, split_seed=split_seed)
        return choose_objects(splits, objects, str(root))
    splits = {"train": [], "test": []}
    for level, record in found:
        if not level:
            raise UserError(
                f"{root}: {record.path} is in no folder 'train' or 'test', but other pictures are; "
                "put it into one of them"
            )
        splits[_LEVELS[level]].append(record)
    return checked(root, splits, objects, where=str(root), hint="put the files back")


@dataclass(frozen=True)
class _Place:
    """What the folders above a picture say; ``label`` is ``None`` where none of them names one."""

    object: str = ""
    level: str = ""
    label: int | None = None
    kind: str = ""
    inside: str = ""
    is_mask: bool = False


@dataclass(frozen=True)
class _Layout:
    good: Sequence[str]
    bad: Sequence[str]
    masks: Sequence[str]
    subfolders: str
    object_name: str
    root_name: str

    def place(self, path: str) -> _Place:
        """Reads the folders of a path from the outside to the inside."""
        object_name, level, label, kind, inside = [], "", None, "", []
        for part in PurePosixPath(path).parts[:-1]:
            name = part.lower()
            if name in self.masks:
                return _Place(is_mask=True)
            if label is not None:
                inside.append(part)
            elif name in self.good or name in self.bad:
                label, kind = int(name in self.bad), part
            elif name in _LEVELS and not level:
                level = name
            else:
                object_name.append(part)
        return _Place(" ".join(object_name), level, label, kind, " ".join(inside))

    def record(self, path: str, place: _Place, index: MaskIndex) -> Record:
        has_objects_inside = self.subfolders == "objects"
        names = [place.object, place.inside if has_objects_inside else ""]
        kind = ANOMALY if place.kind.lower() in BAD else place.kind
        defect = (place.inside if not has_objects_inside else "") or kind
        return Record(
            path=path,
            object=self.object_name or " ".join(filter(None, names)) or self.root_name,
            label=int(bool(place.label)),
            defect=defect if place.label else NORMAL,
            mask=index.find(path) if place.label else "",
        )


def _assumed(records: Sequence[Record], subfolders: str) -> str:
    """What was understood, for a person to agree with or to mend."""
    labels = Counter(record.label for record in records)
    objects = sorted({record.object for record in records})
    defects = sorted({record.defect for record in records} - {NORMAL, ANOMALY})
    num_masks = sum(bool(record.mask) for record in records)
    return (
        f"assumed: {labels[0]} normal and {labels[1]} anomalous pictures; "
        f"objects: {_list(objects)}; defects: {_list(defects)}; masks: {num_masks or 'none'}; "
        f"folders inside of good and bad ones name {subfolders}"
    )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more if names else "none named"


def _nothing_found(
    root: Path,
    good: Sequence[str],
    bad: Sequence[str],
    records: Sequence[Record],
    files: Sequence[str],
) -> str:
    others = [path for path in files if not is_picture(path)]
    unread = [
        f"; {len(others)} files are of kinds that are not read, such as {path}"
        for path in others[:1]
    ]
    anomalies = sum(record.label for record in records)
    return (
        f"{root}: {len(records) - anomalies} normal pictures (in folders {', '.join(good)}) and "
        f"{anomalies} anomalous ones (in folders {', '.join(bad)}): there must be both. Other "
        "names can be told: dataset.good=[NAME] dataset.bad=[NAME]; the folders here are "
        f"{', '.join(find_folders(root)) or 'none'}" + "".join(unread)
    )
