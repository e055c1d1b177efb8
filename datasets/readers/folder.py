"""Pictures sorted into folders: ``good`` and ``bad``, and what may be around and inside of them."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.record import ANOMALY, NORMAL, Record, Splits, checked, choose_objects
from datasets.scan import BAD, GOOD, MaskIndex, find_files, find_folders, is_picture
from datasets.split import draw_split
from utils.console import say
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store

_LEVELS = {
    "train": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
}
# Folders inside of good and bad that name no defect and no object.
_UNNAMED = ("images", "image", "imgs", "img")


@check_ranges
def read_folder(
    root: Path,
    store: Store = NOWHERE,
    *,
    objects: tuple[str, ...] = (),
    good: tuple[str, ...] = GOOD,
    bad: tuple[str, ...] = BAD,
    masks: tuple[str, ...] = ("mask", "masks", "ground_truth"),
    ignore: tuple[str, ...] = (),
    subfolders: Literal["defects", "objects"] = "defects",
    object_name: str = "",
    defect: str = "",
    test_fraction: Fraction = 0.3,
    split_seed: int = 0,
) -> Splits:
    """Folders ``good`` and ``bad`` of pictures; one line is printed with what was assumed.

    Around them there may be a folder per object and folders ``train`` and ``test``; inside of them
    a folder per defect or per object; beside them a folder of masks. Small and capital letters in
    the names of folders mean the same.

    Args:
        root: The folder.
        store: Where it is remembered what the pictures hold.
        objects: Which objects; empty: all.
        good: Names of the folders of normal pictures.
        bad: Names of the folders of anomalous pictures.
        masks: Names of the folders of masks.
        ignore: Names of folders that are left out, wherever they are.
        subfolders: What folders inside of ``good`` and ``bad`` are.
        object_name: The object that all pictures show; empty: it is read from the folders around
            ``good`` and ``bad``, or is the name of ``root`` where there are none.
        defect: The defect that all anomalous pictures show; empty: it is read from the folders
            inside of ``bad``, or is the name of that folder where there are none.
        test_fraction: Share of the pictures put aside for the test, where there is no folder
            ``test``.
        split_seed: Decides which they are.

    Raises:
        UserError: If there are no such folders, or only one of them.
        ValueError: If ``test_fraction`` is out of range.
    """
    good, bad, masks, ignore = (tuple(map(str.lower, n)) for n in (good, bad, masks, ignore))
    layout = _Layout(good, bad, masks, subfolders, object_name, defect, root.resolve().name)
    files = _without_repeats(
        root, [path for path in find_files(root) if not _is_inside(path, ignore)]
    )
    places = {path: layout.place(path) for path in files if is_picture(path)}
    index = MaskIndex((path for path, place in places.items() if place.is_mask), masks)
    placed = [
        (place.level, layout.record(path, place, index))
        for path, place in places.items()
        if place.label is not None and not place.is_mask
    ]
    records = [record for _, record in placed]
    if {record.label for record in records} != {0, 1}:
        raise UserError(_nothing_found(root, good, bad, records, files), option="good")
    left_out = [path for path in files if path not in places]
    left_out += [p for p, place in places.items() if place.label is None and not place.is_mask]
    say(f"{root}: {_assumed(records, subfolders)}")
    if not objects:  # else they may belong to others
        index.say_unused(root, records)
    if left_out:
        say(
            f"{root}: left out: {len(left_out)} of {len(files)} files, no pictures or in no folder "
            f"of a known name; the first is {sorted(left_out)[0]}"
        )
    return _split(root, placed, objects, store, test_fraction=test_fraction, split_seed=split_seed)


def _is_inside(path: str, names: Sequence[str]) -> bool:
    """Whether one of the folders of ``path`` has one of these names, in small letters."""
    return any(part.lower() in names for part in PurePosixPath(path).parts[:-1])


def _without_repeats(root: Path, files: Sequence[str]) -> list[str]:
    """The files without those of a folder that repeats what lies around it.

    Some archives hold a data set twice. Of ``no/1.jpg``, ``yes/2.jpg``, ``brain/no/1.jpg`` and
    ``brain/yes/2.jpg`` the last two are left out if they are the same, byte by byte.
    """
    inside = defaultdict(list)
    for path in files:
        folder, _, rest = path.partition("/")
        inside[folder].append(rest)
    kept = set(files)
    for folder, paths in inside.items():
        if all(path in kept and _same(root / folder / path, root / path) for path in paths):
            kept -= {f"{folder}/{path}" for path in paths}
            say(f"{root}: left out: {folder}, whose {len(paths)} files lie beside it once more")
    return [path for path in files if path in kept]


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # a later step reports that it cannot be read


def _split(
    root: Path,
    placed: Sequence[tuple[str, Record]],
    objects: Sequence[str],
    store: Store,
    *,
    test_fraction: float,
    split_seed: int,
) -> Splits:
    """The split that the folders ``train`` and ``test`` make, or a drawn one.

    Args:
        root: The folder.
        placed: Each picture with the folder ``train``, ``val`` or ``test`` it lies in; empty: none.
        objects: As in :func:`read_folder`.
        store: Likewise.
        test_fraction: Likewise.
        split_seed: Likewise.
    """
    where, hint = str(root), "put the files back"
    if "test" not in {level for level, _ in placed}:
        records = [record for _, record in placed]
        checked(root, {"train": records}, (), where=where, hint=hint)
        splits = draw_split(
            root, records, store, test_fraction=test_fraction, split_seed=split_seed
        )
        return choose_objects(splits, objects, where)
    splits = {"train": [], "test": []}
    for level, record in placed:
        if not level:
            raise UserError(
                f"{root}: {record.path} is in no folder 'train' or 'test', but other pictures are; "
                "put it into one of them"
            )
        splits[_LEVELS[level]].append(record)
    return checked(root, splits, objects, where=where, hint=hint)


@dataclass(frozen=True)
class _Place:
    """What the folders above a picture name; ``label`` is ``None`` where none is good or bad."""

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
    defect: str
    root_name: str

    def place(self, path: str) -> _Place:
        """Reads the folders of a path from the outside to the inside.

        ``nut/test/bad/dent/7.jpg``: the object ``nut``, the level ``test``, label 1, the kind
        ``bad``, and ``dent`` inside of it.
        """
        object_name, level, label, kind, inside = [], "", None, "", []
        for part in PurePosixPath(path).parts[:-1]:
            name = part.lower()
            if name in self.masks:
                return _Place(is_mask=True)
            if label is not None:
                inside += [part] if name not in _UNNAMED else []
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
        defect = self.defect or (place.inside if not has_objects_inside else "") or kind
        return Record(
            path=path,
            object=self.object_name or " ".join(filter(None, names)) or self.root_name,
            label=int(bool(place.label)),
            defect=defect if place.label else NORMAL,
            mask=index.find(path) if place.label else "",
        )


def _assumed(records: Sequence[Record], subfolders: str) -> str:
    """What was understood, for a person to confirm or to correct."""
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
        f"{anomalies} anomalous ones (in folders {', '.join(bad)}): there must be both (pictures "
        "without labels are for python predict.py MODEL FOLDER). Other names can be "
        "told: good=[NAME] and bad=[NAME]; the folders here are "
        f"{', '.join(find_folders(root)) or 'none'}" + "".join(unread)
    )
