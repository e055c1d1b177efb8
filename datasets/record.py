"""One image of a data set, and lists of them in the field's JSON format."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from utils.errors import UserError

Splits = dict[str, list["Record"]]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about one image.

    Attributes:
        path: Image file, relative to the root of the data set, with ``/``.
        object: Object class it shows.
        label: 0 normal, 1 anomalous.
        defect: What is wrong with it, as the data set says it; ``normal`` for a good one. Training
            text only: a model under test never gets it.
        mask: Mask file, relative to the root; empty where there is none.
    """

    path: str
    object: str
    label: int
    defect: str = ""
    mask: str = ""

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
            objects.setdefault(record.object, []).append(
                {
                    "img_path": record.path,
                    "mask_path": record.mask,
                    "cls_name": record.object,
                    "specie_name": record.defect,
                    "anomaly": record.label,
                }
            )
    return meta


def data_hash(splits: Splits) -> str:
    """A short name for exactly these images and labels per split, in any order: 12 hex digits."""
    lines = sorted(
        json.dumps([split, asdict(record)], sort_keys=True)
        for split, records in splits.items()
        for record in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def check_path(path: str, where: str) -> str:
    """``path`` with ``/``, if it stays below the root of the data set.

    Raises:
        UserError: If it is absolute or climbs out; ``where`` says in which file and line.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if not path or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise UserError(f"{where}: path {path!r} must stay below the root of the data set")
    return str(pure)


def check_files(root: Path, records: Iterable[Record], hint: str) -> None:
    """Checks that every image and mask is there, and that no link leads out of ``root``.

    Raises:
        UserError: Saying how many are missing and which is the first; ``hint`` says what to do.
    """
    wanted = sorted({p for record in records for p in (record.path, record.mask) if p})
    missing = [path for path in wanted if not (root / path).is_file()]
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(wanted)} files are missing, the first is "
            f"{missing[0]}; {hint}"
        )
    inside = root.resolve()
    for path in wanted:
        if not (root / path).resolve().is_relative_to(inside):
            raise UserError(
                f"{root / path}: is a link that leads out of {root}; put the file there"
            )


def check_unique(records: Sequence[Record], where: str) -> None:
    """Raises UserError if an image is listed twice, in one split or in two."""
    path, count = next(iter(Counter(r.path for r in records).most_common(1)), ("", 0))
    if count > 1:
        raise UserError(f"{where}: {path} is listed {count} times; each image may stand there once")


def choose_objects(splits: Splits, objects: Sequence[str], where: str) -> Splits:
    """The records of some objects, in the order of the list; of all where ``objects`` is empty.

    Raises:
        UserError: If an object is not there.
    """
    known = sorted({record.object for records in splits.values() for record in records})
    for name in objects:
        if name not in known:
            raise UserError(f"{where}: no object {name!r}; there are {', '.join(known) or 'none'}")
    return {
        split: [record for record in records if not objects or record.object in objects]
        for split, records in splits.items()
    }
