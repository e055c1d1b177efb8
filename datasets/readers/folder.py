"""Pictures sorted into folders: ``good`` and ``bad``, and what may be around and inside of them."""

import filecmp
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.mask_files import MaskIndex, marked_masks
from datasets.record import ANOMALY, NORMAL, Record, Splits, checked, choose_objects
from datasets.scan import (
    BAD,
    GOOD,
    conversion,
    find_files,
    find_folders,
    folded,
    is_picture,
    mentioned_splits,
    of_one_sensor,
    say_left_out,
    split_of,
)
from datasets.split import draw_split, with_groups
from utils.console import say
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store

# Folders inside of good and bad that name no defect and no object.
_UNNAMED = ("images", "image", "imgs", "img", "rgb")


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
    train: tuple[str, ...] = (),
    test: tuple[str, ...] = (),
    labels: Literal["folders", "masks"] = "folders",
    subfolders: Literal["defects", "objects"] = "defects",
    object_name: str = "",
    defect: str = "",
    group: str = "",
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
        train: Names of the folders of training pictures, where they are not called train,
            Training, train_set, validation ...
        test: Names of the folders of test pictures, where they are not called test, Testing,
            test_public, holdout ...
        labels: What makes a picture anomalous: ``folders``: the folder ``bad``; ``masks``: a mask
            that marks something. Then other folders name defects, or objects as ``subfolders``
            says, and pictures without a mask are normal.
        subfolders: What folders inside of ``good`` and ``bad`` are.
        object_name: The object that all pictures show; empty: it is read from the folders around
            ``good`` and ``bad``, or is the name of ``root`` where there are none.
        defect: The defect that all anomalous pictures show; empty: it is read from the folders
            inside of ``bad``, or is the name of that folder where there are none.
        group: Pictures that belong together (of a patient, board, tile), so that a split that is
            drawn never parts them: the number of the folder that names the group, 1 for the
            outermost, -1 for the innermost, or a regular expression for the path, such as
            ``num_([0-9]+)``; empty: none.
        test_fraction: Share of the pictures put aside for the test, where there is no folder
            ``test``.
        split_seed: Decides which they are.

    Raises:
        UserError: If there are no normal pictures.
        ValueError: If ``test_fraction`` is out of range.
    """
    good, bad, masks, ignore, train, test = (
        tuple(map(folded, names)) for names in (good, bad, masks, ignore, train, test)
    )
    sides = {**dict.fromkeys(train, "train"), **dict.fromkeys(test, "test")}
    layout = _Layout(good, bad, sides, subfolders, object_name, defect, root.resolve().name)
    files = _without_repeats(
        root, [path for path in find_files(root) if not _is_inside(path, ignore)]
    )
    index = MaskIndex(root, [path for path in files if is_picture(path)], masks)
    places = {path: layout.place(path) for path in of_one_sensor(index.pictures)}
    if labels == "masks":
        places = {path: layout.without_labels(place) for path, place in places.items()}
        named = index.find_all(places)
        marked = marked_masks(root, named.values(), store)
        found = {path: mask for path, mask in named.items() if mask in marked}
        places = {p: replace(place, label=int(p in found)) for p, place in places.items()}
    else:
        places = {path: place for path, place in places.items() if place.label is not None}
        found = {path: index.find(path) for path, place in places.items() if place.label}
    records = [layout.record(p, place, found.get(p, "")) for p, place in places.items()]
    if all(record.label for record in records):
        raise _nothing_found(root, labels, good, bad, records, files)
    _check_splits(root, places, objects)
    say(f"{root}: {_assumed(records, subfolders)}")
    if not objects:  # else they may belong to others
        index.say_unused(records)
    why = "no pictures or in no folder of a known name"
    say_left_out(root, files, [*places, *index.files], why)
    records = with_groups({"": records}, group, str(root))[""]
    placed = list(zip((place.level for place in places.values()), records, strict=True))
    return _split(root, placed, objects, store, test_fraction=test_fraction, split_seed=split_seed)


def _check_splits(root: Path, places: Mapping[str, "_Place"], objects: Sequence[str]) -> None:
    """Checks that folders which may be a split are not taken for objects or defects.

    Raises:
        UserError: If they are, or if some pictures have a split and others have none.
    """
    splits = {place.level for place in places.values()} - {""}
    doubtful = {
        name: mentioned
        for place in places.values()
        if not place.level and place.object not in objects
        for name in (*place.around, *place.inside)
        if (mentioned := mentioned_splits(name))
    }
    if doubtful and len(splits.union(*doubtful.values())) > 1:
        raise UserError(
            f"{root}: are the folders {_list(sorted(doubtful))} a split? Name them, train=[NAME] "
            "test=[NAME]; or, if they are objects, objects=[NAME]"
        )
    without = next((path for path, place in places.items() if not place.level), "")
    if splits and without:
        raise UserError(
            f"{root}: {without} is in no folder 'train' or 'test', but other pictures are; put it "
            "into one of them, or name its folder, train=[NAME] or test=[NAME]"
        )


def _is_inside(path: str, names: Sequence[str]) -> bool:
    """Whether one of the folders of ``path`` has one of these names, in small letters."""
    return any(folded(part) in names for part in PurePosixPath(path).parts[:-1])


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
        placed: Each picture with its side, ``train``, ``val`` or ``test``; empty: none.
        objects: As in :func:`read_folder`.
        store: Likewise.
        test_fraction: Likewise.
        split_seed: Likewise.
    """
    where, hint = str(root), "put the files back"
    levels = {level for level, _ in placed}
    if "val" in levels and "test" not in levels:
        folders = {f for _, r in placed for f in PurePosixPath(r.path).parts[:-1]}
        named = {side: sorted(f for f in folders if split_of(f) == side) for side in sorted(levels)}
        raise UserError(
            f"{root}: has validation pictures, but no test pictures: name their folder, test=[NAME]"
            f"; to test on the validation ones, test=[{','.join(named['val'])}]; to draw a test "
            f"across all, train=[{','.join(itertools.chain(*named.values()))}]",
            option="test",
        )
    if "test" not in levels:
        records = [record for _, record in placed]
        checked(root, {"train": records}, (), where=where, hint=hint)
        if len(names := sorted({record.object for record in records})) > 1:
            say(
                f"{root}: folders name objects, each with its own share in the test: "
                f"{_list(names)}; if they are a split, write train=[NAME] and test=[NAME]"
            )
        splits = draw_split(
            root, records, store, test_fraction=test_fraction, split_seed=split_seed
        )
        return choose_objects(splits, objects, where)
    splits = {"train": [], "test": []}
    for level, record in placed:
        splits["test" if level == "test" else "train"].append(record)
    return checked(root, splits, objects, where=where, hint=hint)


@dataclass(frozen=True)
class _Place:
    """What the folders above a picture name; ``label`` is ``None`` if no folder is good or bad.

    Attributes:
        level: Its side of a split.
        label: 0 normal, 1 anomalous.
        kind: The folder that says so.
        around: The folders around that one that say nothing else.
        inside: Those inside of it.
    """

    level: str = ""
    label: int | None = None
    kind: str = ""
    around: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        return " ".join(self.around)


@dataclass(frozen=True)
class _Layout:
    good: Sequence[str]
    bad: Sequence[str]
    sides: Mapping[str, str]
    subfolders: str
    object_name: str
    defect: str
    root_name: str

    def place(self, path: str) -> _Place:
        """Reads the folders of a path from the outside to the inside.

        ``nut/test/bad/dent/7.jpg``: ``nut`` around, the level ``test``, label 1, the kind ``bad``,
        and ``dent`` inside of it.
        """
        around, inside, level, label, kind = [], [], "", None, ""
        for part in PurePosixPath(path).parts[:-1]:
            name = folded(part)
            if side := self.sides.get(name) or split_of(part):
                level = level or side
            elif label is not None:
                inside += [part] if name not in _UNNAMED else []
            elif name in self.good or name in self.bad:
                label, kind = int(name in self.bad), part
            elif len(mentioned_splits(part)) < 2:  # not "train_test_split"
                around.append(part)
        return _Place(level, label, kind, tuple(around), tuple(inside))

    def without_labels(self, place: _Place) -> _Place:
        """A place whose folders name no labels, but defects or objects."""
        names = tuple(part for part in place.around if folded(part) not in _UNNAMED)
        if place.label is None and self.subfolders == "defects":
            return replace(place, around=(), inside=names)
        return replace(place, around=names)

    def record(self, path: str, place: _Place, mask: str) -> Record:
        inside, has_objects_inside = " ".join(place.inside), self.subfolders == "objects"
        names = [place.object, inside if has_objects_inside else ""]
        kind = ANOMALY if folded(place.kind) in ("", *BAD) else place.kind
        defect = self.defect or (inside if not has_objects_inside else "") or kind
        return Record(
            path=path,
            object=self.object_name or " ".join(filter(None, names)) or self.root_name,
            label=int(bool(place.label)),
            defect=defect if place.label else NORMAL,
            mask=mask,
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


def _list_folders(root: Path, around: str = "") -> str:
    """The folders below ``root``; archives often have one folder around all others."""
    names = find_folders(root / around)
    if len(names) == 1 and find_folders(root / around / names[0]):
        return _list_folders(root, f"{around}{names[0]}/")
    return ", ".join(f"{around}{name}" for name in names) or "none"


def _nothing_found(
    root: Path,
    labels: str,
    good: Sequence[str],
    bad: Sequence[str],
    records: Sequence[Record],
    files: Sequence[str],
) -> UserError:
    others = [path for path in files if not is_picture(path)]
    unread = [
        f"; {len(others)} files are of kinds that are not read, such as {path}"
        for path in others[:1]
    ]
    normal, anomalous, hint = "without marks", "with a mask that marks something", ""
    if labels == "folders":
        normal, anomalous = f"in folders {', '.join(good)}", f"in folders {', '.join(bad)}"
        hint = (
            " Other names can be told: good=[NAME] and bad=[NAME], or masks tell, labels=masks; "
            f"the folders here are {_list_folders(root)}"
        )
    return UserError(
        f"{root}: 0 normal pictures ({normal}) and {len(records)} anomalous ones ({anomalous}): "
        "there must be normal ones (pictures without labels are for python "
        f"predict.py MODEL FOLDER).{hint}{''.join(unread)}{conversion(root, others)}",
        option="good" if labels == "folders" else "labels",
    )
