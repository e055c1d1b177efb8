"""A table of pictures, ``image_path,label``, as spreadsheets and databases export it."""

from pathlib import Path

from datasets.readers.table import read_rows
from datasets.record import ANOMALY, NORMAL, Record, Splits, check_path, checked, choose_objects
from datasets.scan import BAD, GOOD
from datasets.split import draw_split
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store

_COLUMNS = ("image_path", "label")
_OPTIONAL = ("object", "split", "mask_path", "text")
_LABELS = {
    **dict.fromkeys((*GOOD, "0", "0.0", "false"), 0),
    **dict.fromkeys((*BAD, "1", "1.0", "true"), 1),
}
_SPLITS = {"train": "train", "val": "train", "valid": "train", "test": "test"}


@check_ranges
def read_csv(
    root: Path,
    store: Store = NOWHERE,
    *,
    objects: tuple[str, ...] = (),
    file: Path = Path("labels.csv"),
    group: str = "",
    object_name: str = "object",
    test_fraction: Fraction = 0.3,
    split_seed: int = 0,
) -> Splits:
    """A table with the columns ``image_path`` and ``label``, and more if it likes.

    ``label`` is 0 or 1, good or bad, normal or anomalous ...; ``split`` is train or test;
    ``object``, ``mask_path`` and ``text`` (what a person wrote about the picture) may be empty.
    Columns may be parted by comma, semicolon or tab; others are passed over.

    Args:
        root: Folder to which the paths are relative; absolute ones have to lie in it.
        store: Where it is remembered what the pictures hold.
        objects: Which objects; empty: all.
        file: The table, in that folder or elsewhere.
        group: Column whose images belong together (patient, board, tile), so that a split that is
            drawn never parts them; empty: none.
        object_name: What the pictures show, where no column ``object`` says so.
        test_fraction: Share of the pictures put aside for the test, where no column ``split`` does.
        split_seed: Decides which they are.

    Raises:
        UserError: If the table cannot be read or says something it may not say.
        ValueError: If ``test_fraction`` is out of range.
    """
    table = root / file
    columns = (*_COLUMNS, *([group] if group else []))
    splits: dict[str, list[Record]] = {"": [], "train": [], "test": []}
    for where, row in read_rows(table, columns, _OPTIONAL):
        split = row.get("split", "").lower()
        if split and split not in _SPLITS:
            raise UserError(f"{where}: split must be train or test, got {row['split']!r}")
        splits[_SPLITS.get(split, "")].append(_record(row, where, root, group, object_name))
    undecided = splits.pop("")
    hint = f"fix {table}, or name the folder that its paths are relative to: dir"
    if not undecided and not any(splits.values()):
        raise UserError(f"{table}: lists no images")
    if undecided and any(splits.values()):
        raise UserError(
            f"{table}: {undecided[0].path} has no split, but other images have one; give each of "
            "them one, or none"
        )
    if not undecided:
        return checked(root, splits, objects, where=str(table), hint=hint)
    checked(root, {"train": undecided}, (), where=str(table), hint=hint)
    splits = draw_split(root, undecided, store, test_fraction=test_fraction, split_seed=split_seed)
    return choose_objects(splits, objects, str(table))


def _record(row: dict[str, str], where: str, root: Path, group: str, object_name: str) -> Record:
    label = _LABELS.get(row["label"].lower())
    if label is None:
        raise UserError(
            f"{where}: label must be 0 or 1, normal or anomalous, good or bad ..., got "
            f"{row['label']!r}; pictures without labels are for python predict.py MODEL FOLDER"
        )
    mask = row.get("mask_path", "")
    member = row.get(group, "")
    return Record(
        path=check_path(row["image_path"], where, root),
        object=row.get("object") or object_name,
        label=label,
        defect=row.get("text") or (ANOMALY if label else NORMAL),
        mask=check_path(mask, where, root) if mask else "",
        group=f"{group} {member}" if member else "",
    )
