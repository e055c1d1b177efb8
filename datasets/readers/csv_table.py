"""A table of pictures, ``image_path,label``, as spreadsheets and databases export it."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from datasets.mask_files import marked_masks
from datasets.readers.table import Row, read_rows
from datasets.record import ANOMALY, NORMAL, Record, Splits, check_path, checked, choose_objects
from datasets.scan import BAD, GOOD, say_unlisted, split_of
from datasets.split import draw_split, with_groups
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store

_OPTIONAL = ("object", "split", "mask_path", "text")
_LABELS = {
    **dict.fromkeys((*GOOD, "0", "0.0", "false", "i.o.", "io", "pass", "passed", "healthy"), 0),
    **dict.fromkeys(
        (*BAD, "1", "1.0", "true", "n.i.o.", "nio", "nok", "fail", "failed", "reject", "rejected"),
        1,
    ),
}


@check_ranges
def read_csv(
    root: Path,
    store: Store = NOWHERE,
    *,
    objects: tuple[str, ...] = (),
    file: Path = Path("labels.csv"),
    encoding: str = "",
    labels: Literal["column", "masks"] = "column",
    threshold: float | None = None,
    group: str = "",
    object_name: str = "object",
    test_fraction: Fraction = 0.3,
    split_seed: int = 0,
) -> Splits:
    """A table with the columns ``image_path`` and ``label``, and optional ones.

    ``label`` is 0 or 1, good or bad, OK or NOK ...; ``split`` is train or test;
    ``object``, ``mask_path`` and ``text`` (what a person wrote about the picture) may be empty.
    Columns may be parted by comma, semicolon, tab, bar or spaces; others are passed over.

    Args:
        root: Folder to which the paths are relative; absolute ones have to lie in it.
        store: Where it is remembered what the pictures hold.
        objects: Which objects; empty: all.
        file: The table, in that folder or elsewhere.
        encoding: Its code page, such as ``cp1252``; empty: UTF-8, or UTF-16 as Excel writes it.
        labels: What makes a picture anomalous: the ``column`` label; or ``masks``: a mask in the
            column ``mask_path`` that marks something. No mask, or an empty one, means normal.
        threshold: The number in the column ``label`` from which on a picture is anomalous, where
            labels are probabilities; ``null``: they are 0 and 1.
        group: Column whose images belong together (patient, board, tile), so that a split that is
            drawn never parts them; or, as of the reader ``folder``, a level of folders or a
            pattern for the path; empty: none.
        object_name: What the pictures show, where no column ``object`` says so.
        test_fraction: Share of the pictures put aside for the test, where no column ``split`` does.
        split_seed: Decides which they are.

    Raises:
        UserError: If the table cannot be read or says something it may not say.
        ValueError: If ``test_fraction`` is out of range.
    """
    table = root / file
    is_name = re.fullmatch(r"[\w -]*[^\W\d][\w -]*", group)  # otherwise it may be a pattern
    columns = ["image_path", *(["label"] if labels == "column" else ["mask_path"])]
    columns += [group] if is_name else []
    optional = [*_OPTIONAL, *([group] if group else [])]

    def record(row: Row, where: str) -> tuple[str, Record]:
        split = split_of(row.get("split", ""))
        if row.get("split") and not split:
            raise UserError(f"{where}: split must be train or test, got {row['split']!r}")
        label = 0 if labels == "masks" else _label(row["label"], threshold, where)
        return split, _record(row, where, root, label, group=group, object_name=object_name)

    splits: dict[str, list[Record]] = {"": [], "train": [], "test": []}
    for split, found in read_rows(table, columns, record, optional=optional, encoding=encoding):
        splits["train" if split == "val" else split].append(found)
    undecided = splits.pop("")
    hint = f"fix {table}, or name the folder that its paths are relative to: dir"
    if not undecided and not any(splits.values()):
        raise UserError(f"{table}: lists no images")
    if undecided and any(splits.values()):
        raise UserError(
            f"{table}: {undecided[0].path} has no split, but other images have one; give each of "
            "them one, or none"
        )
    listed = {"": undecided} if undecided else splits
    splits = checked(root, listed, () if undecided else objects, where=str(table), hint=hint)
    say_unlisted(root, listed, str(table))
    if labels == "masks":
        splits = _by_masks(root, splits, store)
    if not any(record.group for records in splits.values() for record in records):
        splits = with_groups(splits, group, str(root))
    if not undecided:
        return splits
    splits = draw_split(root, splits[""], store, test_fraction=test_fraction, split_seed=split_seed)
    return choose_objects(splits, objects, str(table))


def _label(text: str, threshold: float | None, where: str) -> int:
    plain = text.lower().replace(",", ".")  # of a decimal comma
    label = _LABELS.get(plain)
    try:
        number = float(plain)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and threshold is not None:
        return int(number >= threshold)
    if label is None:
        hint = (
            "" if math.isnan(number) else "; with threshold=0.5, numbers from 0.5 on are anomalous"
        )
        raise UserError(
            f"{where}: label must be 0 or 1, normal or anomalous, good or bad ..., got "
            f"{text!r}{hint}; pictures without labels are for python predict.py MODEL FOLDER"
        )
    return label


def _record(
    row: Row, where: str, root: Path, label: int, *, group: str, object_name: str
) -> Record:
    mask, member = row.get("mask_path", ""), row.get(group, "")
    return Record(
        path=check_path(row["image_path"], where, root),
        object=row.get("object") or object_name,
        label=label,
        defect=row.get("text") or (ANOMALY if label else NORMAL),
        mask=check_path(mask, where, root) if mask else "",
        group=f"{group} {member}" if member else "",
    )


def _by_masks(root: Path, splits: Splits, store: Store) -> Splits:
    """The splits with labels that say whether the mask marks something."""
    masks = (record.mask for records in splits.values() for record in records)
    marked = marked_masks(root, masks, store)

    def labeled(record: Record) -> Record:
        if record.mask not in marked:
            return replace(record, mask="", defect=NORMAL)
        return replace(
            record, label=1, defect=ANOMALY if record.defect == NORMAL else record.defect
        )

    return {split: [labeled(record) for record in records] for split, records in splits.items()}
