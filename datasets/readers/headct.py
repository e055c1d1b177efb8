"""HeadCT: head scans with and without a hemorrhage; image level, no split of its own.

Source:
    https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage: 100 normal and 100 anomalous
    pictures, RGB and RGBA, of many sizes.
"""

from pathlib import Path

from datasets.readers.table import Row, read_rows
from datasets.record import NORMAL, Record, Splits, checked, choose_objects
from datasets.scan import say_unlisted
from datasets.split import draw_split, with_groups
from utils.errors import UserError
from utils.ranges import Fraction, check_ranges
from utils.store import NOWHERE, Store


@check_ranges
def read_headct(
    root: Path,
    store: Store = NOWHERE,
    *,
    objects: tuple[str, ...] = (),
    group: str = "",
    test_fraction: Fraction = 0.3,
    split_seed: int = 0,
) -> Splits:
    """``labels.csv`` with the columns ``id`` and ``hemorrhage``, pictures ``head_ct/000.png`` ...

    Args:
        root: The folder of the data set.
        store: Where it is remembered what the pictures hold.
        objects: ``[brain]`` or empty.
        group: As of the reader ``folder``: pictures that are never parted.
        test_fraction: Share of the pictures put aside for the test.
        split_seed: Decides which they are.

    Raises:
        UserError: If the table cannot be read, or pictures are missing.
        ValueError: If ``test_fraction`` is out of range.
    """
    table = root / "labels.csv"
    is_nested = (root / "head_ct" / "head_ct").is_dir()  # as some archives unpack
    folder = "head_ct/head_ct" if is_nested else "head_ct"
    if not table.is_file() and any((*root.glob("test"), *root.glob("*/test"))):
        raise UserError(
            f"{root}: holds no labels.csv, but folders 'test': the reader for those is mvtec",
            option="name",
        )

    def record(row: Row, where: str) -> Record:
        if not row["id"].isdecimal() or row["hemorrhage"] not in ("0", "1"):
            raise UserError(f"{where}: expected a number, and 0 or 1")
        label = int(row["hemorrhage"])
        path, defect = f"{folder}/{int(row['id']):03d}.png", "hemorrhage" if label else NORMAL
        return Record(path=path, object="brain", label=label, defect=defect)

    records = read_rows(table, ("id", "hemorrhage"), record)
    listed = checked(root, {"": records}, (), where=str(table), hint="unpack the data set again")
    say_unlisted(root, listed, str(table))
    records = with_groups(listed, group, str(root))[""]
    splits = draw_split(root, records, store, test_fraction=test_fraction, split_seed=split_seed)
    return choose_objects(splits, objects, str(table))
