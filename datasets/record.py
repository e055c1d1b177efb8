"""One image of a data set, and lists of them in the field's JSON format."""

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from utils.errors import UserError

Splits = dict[str, list["Record"]]
NORMAL, ANOMALY = "normal", "anomaly"  # what is said of an image where a data set says nothing more
_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    partial(unicodedata.normalize, "NFC"),
    partial(unicodedata.normalize, "NFD"),
)
_PLAIN = re.compile(r"(?:(?!\.\.?/)[\w .-]+/)*(?!\.\.?$)[\w .-]+")  # stays below the root
# Signs that break lines, and bytes that are no UTF-8, as Python shows them.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about one image.

    Attributes:
        path: Image file, relative to the root of the data set, with ``/``.
        object: Object class it shows.
        label: 0 normal, 1 anomalous.
        defect: What is wrong with it, as the data set says it; ``normal`` for a good one. Training
            text only: a model under test never gets it.
        mask: Mask file, or a folder of several, relative to the root; empty where there is none.
        group: Images of one group (a patient, a board, copies of one file) are never parted by a
            split that this program draws; empty: the image stands alone.
    """

    path: str
    object: str
    label: int
    defect: str = ""
    mask: str = ""
    group: str = ""

    @property
    def defects(self) -> list[str]:
        """The kinds of defect of "burnt,small scratches", each once; empty: it does not say."""
        parts = dict.fromkeys(part.strip().replace("_", " ") for part in self.defect.split(","))
        return [part for part in parts if self.label and part not in ("", ANOMALY)]

    def without_text(self) -> "Record":
        """The same image with nothing said about it."""
        return replace(self, defect="")


def to_meta(
    splits: Mapping[str, Iterable[Record]],
) -> dict[str, dict[str, list[dict[str, object]]]]:
    """Records as ``meta.json`` has them: ``{split: {object: [{img_path, mask_path, ...}]}}``.

    Source:
        The format of AnomalyCLIP, APRIL-GAN and ADer (``generate_dataset_json`` of
        https://github.com/zqhang/AnomalyCLIP).
    """
    meta: dict[str, dict[str, list[dict[str, object]]]] = {}
    for split, records in splits.items():
        objects = meta.setdefault(split, {})
        for record in records:
            entry = {
                "img_path": record.path,
                "mask_path": record.mask,
                "cls_name": record.object,
                "specie_name": record.defect,
                "anomaly": record.label,
            }
            extra = {"group": record.group} if record.group else {}  # not in the field's format
            objects.setdefault(record.object, []).append({**entry, **extra})
    return meta


def data_hash(splits: Splits) -> str:
    """A short name for exactly these images and labels per split, in any order: 12 hex digits."""
    lines = []
    for split, records in splits.items():
        for record in records:
            facts = asdict(record)
            if not record.group:
                del facts["group"]
            lines.append(json.dumps([split, facts], sort_keys=True))
    lines.sort()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def check_name(path: str, where: str) -> None:
    """Raises UserError if lists and tables could not hold the file's name."""
    if _UNWRITABLE.search(path):
        raise UserError(
            f"{where}: the name {path!r} is not UTF-8 or breaks the line; rename the file or folder"
        )


def check_path(path: str, where: str, root: Path | None = None) -> str:
    """``path`` with ``/``, if it stays below the root of the data set.

    Args:
        path: As it was written.
        where: In which file and line.
        root: The root, where absolute paths below it are welcome too; they come out relative.

    Raises:
        UserError: If it is absolute or climbs out, or as :func:`check_name`.
    """
    if _PLAIN.fullmatch(path):  # nearly all are, and a table may have a million
        return path
    check_name(path, where)
    # Only for absolute paths: resolve() takes longer than all the rest.
    for base in (root.absolute(), root.resolve()) if root and Path(path).is_absolute() else ():
        if Path(path).is_relative_to(base):
            path = Path(path).relative_to(base).as_posix()
    pure = PurePosixPath(path.replace("\\", "/"))
    has_drive = bool(PureWindowsPath(path).drive)
    if not path or not pure.parts or pure.is_absolute() or ".." in pure.parts or has_drive:
        raise UserError(
            f"{where}: path {path!r} must stay below the root of the data set; write it relative "
            "to that folder"
        )
    return str(pure)


def check_files(root: Path, records: Iterable[Record], hint: str) -> None:
    """Checks that every image and mask is there, and that no link leads out of ``root``.

    Raises:
        UserError: Saying how many are missing and which is the first; ``hint`` says what to do.
    """
    records = list(records)
    listed = {path for record in records for path in (record.path, record.mask) if path}
    folders = {path.rpartition("/")[0] for path in listed}
    plain = _plain_files(root, folders)  # the others need a closer look, each by itself
    masks = {record.mask for record in records if record.mask} - plain
    inner = {path for mask in masks for path in _mask_files(root, mask)}
    wanted = sorted(listed - masks | inner)
    # os.path: pathlib takes three times as long, which counts with 100,000 files.
    missing = [p for p in wanted if p not in plain and not os.path.isfile(f"{root}/{p}")]  # noqa: PTH113
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(wanted)} files are missing, the first is "
            f"{missing[0]}; {hint}"
        )
    inside = root.resolve()
    folders |= {path.rpartition("/")[0] for path in inner}
    is_inside = {folder: (root / folder).resolve().is_relative_to(inside) for folder in folders}
    for path in wanted:
        is_link = path not in plain and os.path.islink(f"{root}/{path}")  # noqa: PTH114
        if not is_inside[path.rpartition("/")[0]] or (
            is_link and not (root / path).resolve().is_relative_to(inside)
        ):
            raise UserError(
                f"{root / path}: is a link that leads out of {root}; put the file there"
            )


def _plain_files(root: Path, folders: Iterable[str]) -> set[str]:
    """The files in some folders that are no links: one question for each folder, not each file."""
    found: set[str] = set()
    for folder in folders:
        start = f"{folder}/" if folder else ""
        # A folder that is missing or cannot be read has no files that are known to be there.
        with suppress(OSError), os.scandir(root / folder) as entries:
            found |= {f"{start}{e.name}" for e in entries if e.is_file(follow_symlinks=False)}
    return found


def _mask_files(root: Path, mask: str) -> list[str]:
    """The mask, or what is in it if it is a folder of several."""
    try:
        return [f"{mask}/{file.name}" for file in (root / mask).iterdir()] if mask else []
    except OSError:  # a file, or missing
        return [mask]


def _as_on_disk(root: Path, record: Record) -> Record:
    """The record with accents as its files' names have them: macOS writes them as two signs."""
    if record.path.isascii() and record.mask.isascii():
        return record
    found = [
        next((p for form in _FORMS if os.path.exists(f"{root}/{(p := form(path))}")), path)  # noqa: PTH110
        for path in (record.path, record.mask)
    ]
    return replace(record, path=found[0], mask=found[1])


def check_unique(records: Sequence[Record], where: str) -> None:
    """Raises UserError if an image is listed twice, in one split or in two."""
    path, count = next(iter(Counter(r.path for r in records).most_common(1)), ("", 0))
    if count > 1:
        raise UserError(f"{where}: {path} is listed {count} times; each image may stand there once")


def choose_objects(splits: Splits, objects: Sequence[str], where: str) -> Splits:
    """The records of some objects, in the order of the list; of all where ``objects`` is empty.

    Names are compared with accents of one sign and of two.

    Raises:
        UserError: If an object is not there.
    """
    known = sorted({record.object for records in splits.values() for record in records})
    composed = {unicodedata.normalize("NFC", name): name for name in known}
    objects = [composed.get(unicodedata.normalize("NFC", name), name) for name in objects]
    for name in objects:
        if name not in known:
            raise UserError(f"{where}: no object {name!r}; there are {', '.join(known) or 'none'}")
    return {
        split: [record for record in records if not objects or record.object in objects]
        for split, records in splits.items()
    }


def hold_out(
    splits: Splits, objects: Sequence[str], where: str, *, give_back: bool = False
) -> Splits:
    """The training images of all objects but ``objects``, and the test images of those alone.

    Args:
        splits: The images.
        objects: Names of the objects.
        where: The option that names them.
        give_back: Whether their own training images stay, too.

    Raises:
        UserError: If an object is not there, or no other is left.
    """
    tested = choose_objects(splits, objects, where)["test"]
    trained = [record for record in splits["train"] if give_back or record.object not in objects]
    if {record.object for record in trained} <= {*objects}:
        raise UserError(f"{where}: no object is left to train on; there are {', '.join(objects)}")
    return {"train": trained, "test": tested}


def hold_out_defects(splits: Splits, names: Sequence[str], where: str) -> Splits:
    """Training images without some kinds of defect; test images that are normal or have only those.

    An image with a held-out kind and another one is in neither list, and no object is tested
    without one of these kinds.

    Args:
        splits: The images.
        names: The kinds, as in "burnt,small scratches".
        where: The option that names them.

    Raises:
        UserError: If a kind is not there, or nothing anomalous is left to train on or to test.
    """
    held = {name.replace("_", " ") for name in names}
    known = {name for records in splits.values() for record in records for name in record.defects}
    if missing := sorted(held - known):
        there = ", ".join(sorted(known)) or "none"
        raise UserError(f"{where}: no defect {missing[0]!r}; there are {there}")
    trained = [record for record in splits["train"] if held.isdisjoint(record.defects)]
    found = [r for r in splits["test"] if r.defects and held.issuperset(r.defects)]
    objects = {record.object for record in found}
    normal = (r for r in splits["test"] if not r.label and r.object in objects)
    for side, records in (("train on", trained), ("test", found)):
        if not any(record.label for record in records):
            raise UserError(
                f"{where}: no anomalous image is left to {side}; there are "
                f"{', '.join(sorted(known))}, and images with several defects are left out"
            )
    chosen = {record.path for record in (*found, *normal)}
    return {"train": trained, "test": [r for r in splits["test"] if r.path in chosen]}


def checked(root: Path, splits: Splits, objects: Sequence[str], *, where: str, hint: str) -> Splits:
    """The records of ``objects``, after the checks that any list of images has to pass.

    Raises:
        UserError: As :func:`choose_objects`, :func:`check_unique` and :func:`check_files`.
    """
    splits = {
        split: [_as_on_disk(root, record) for record in records]
        for split, records in choose_objects(splits, objects, where).items()
    }
    everything = [record for records in splits.values() for record in records]
    check_unique(everything, where)
    check_files(root, everything, hint)
    return splits
