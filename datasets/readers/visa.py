"""VisA: the three official splits, read from the files that come with the images.

Source:
    Zou et al. 2022, https://arxiv.org/abs/2207.14315; https://github.com/amazon-science/spot-diff.
    The images are CC BY 4.0.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.readers.table import Row, read_rows
from datasets.record import Record, Splits, check_path, checked
from datasets.scan import say_unlisted
from datasets.split import with_groups
from utils.errors import UserError
from utils.registry import did_you_mean
from utils.store import NOWHERE, Store

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
SIZE = 1_929_840_640  # bytes
SPLITS = ("1cls", "2cls_fewshot", "2cls_highshot")
_LABELS = {"normal": 0, "anomaly": 1}


def read_visa(
    root: Path,
    _: Store = NOWHERE,
    *,
    split: str,
    objects: tuple[str, ...] = (),
    group: str = "",
) -> Splits:
    """The images of one official split.

    Args:
        root: Folder with ``split_csv`` and one folder per object.
        split: ``2cls_highshot`` (60 % of both classes train), ``2cls_fewshot`` (20 %), or ``1cls``
            (normal images train).
        objects: Which objects; empty: all that are listed.
        group: As of the reader ``folder``: images that are never parted.

    Returns:
        ``train`` and ``test``; in each, the order of the file. ``defect`` is the label string of
        ``image_anno.csv`` as it stands there ("burnt,corner or edge breakage").

    Raises:
        UserError: If files are missing, or a table says something it may not say.
    """
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise UserError(f"unknown split {split!r} of VisA; {hint}", option="split")
    table = root / "split_csv" / f"{split}.csv"
    if not table.is_file():
        inside = sorted(root.glob(f"*/split_csv/{table.name}"))
        folder = f", such as {inside[0].parent.parent}" if inside else ""
        raise UserError(
            f"{table} is missing: no data in VisA's layout are in {root}; name another folder"
            f"{folder}, "
            "fetch VisA with 'python datasets/visa_json.py --download' (1.93 GB), or render "
            f"images: 'python -m demo --root {root}'",
            option="dir",
        )
    hint = "unpack the archive again, or name the objects that are there (option objects)"
    listed = _read_split(table)
    splits = with_groups(
        checked(root, listed, objects, where=str(table), hint=hint), group, str(root)
    )
    say_unlisted(root, listed, str(table))
    names = {record.object for records in splits.values() for record in records}
    defects = _read_annotations(root, sorted(names))
    return {
        name: [_with_defect(record, defects, root) for record in records]
        for name, records in splits.items()
    }


def _read_split(table: Path) -> Splits:
    splits: Splits = {"train": [], "test": []}

    def add(row: Row, where: str) -> None:
        if row["split"] not in splits:
            raise UserError(f"{where}: split must be train or test, got {row['split']!r}")
        if row["label"] not in _LABELS:
            raise UserError(f"{where}: label must be normal or anomaly, got {row['label']!r}")
        record = Record(
            path=check_path(row["image"], where),
            object=row["object"],
            label=_LABELS[row["label"]],
            mask=check_path(row["mask"], where) if row["mask"] else "",
        )
        splits[row["split"]].append(record)

    read_rows(table, ("object", "split", "label", "image", "mask"), add)
    if not any(splits.values()):
        raise UserError(f"{table}: lists no images; unpack the archive again")
    return splits


def _read_annotations(root: Path, objects: Sequence[str]) -> dict[str, str]:
    """``{image path: label string}`` of all ``objects``."""

    def defect(row: Row, where: str) -> tuple[str, str]:
        return check_path(row["image"], where), row["label"]

    columns = ("image", "label", "mask")
    tables = [root / name / "image_anno.csv" for name in objects]
    return dict(pair for table in tables for pair in read_rows(table, columns, defect))


def _with_defect(record: Record, defects: dict[str, str], root: Path) -> Record:
    defect = defects.get(record.path, "")
    if defect and (defect == "normal") == (record.label == 0):
        return replace(record, defect=defect)
    table = root / record.object / "image_anno.csv"
    if not defect:
        raise UserError(f"{table}: says nothing about {record.path}")
    said = "normal" if record.label == 0 else "anomaly"
    raise UserError(f"{table}: {record.path} is {defect!r}, but the split file says {said}")
