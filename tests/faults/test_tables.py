"""Damaged tables and lists of every reader: each is read, or refused in one line, in time."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data import read_splits
from options.load import load
from tests.faults.damage import damaged, read, tries
from tests.fixtures import write_csv, write_visa

PIECES = (
    *(b",", b";", b"\t", b'"', b"'", b"\n", b"\r", b"\r\n", b" ", b"\0", b"\x1b[2J", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\xe9", b"sep=;\n", b"../", b"/etc/passwd", b"C:\\x", b"\\ud800", b"\\"),
    *(b"1e999", b"nan", b"-1", b"9" * 5000, b"[" * 5000, b"{", b"}", b"null", b"LONG", b"0"),
    *(b"mean", b"train", b"anomaly", b"normal", b"#", b"=1+1", "\u202e".encode(), b"~", b"."),
)
TABLES = {
    "csv": "labels.csv",
    "visa": "split_csv/2cls_highshot.csv",
    "visa, annotations": "candle/image_anno.csv",
    "meta": "meta.json",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set that each of the readers can read; the tables are damaged, and put back."""
    root = write_visa(tmp_path_factory.mktemp("tables") / "visa", normals=3, anomalies=2)
    rows = [
        [path.relative_to(root).as_posix(), path.parent.name, "candle", split, "", "a text"]
        for path in sorted(root.glob("candle/Data/Images/*/*"))
        for split in ["train" if path.stem == "000" else "test"]
    ]
    header = ["image_path", "label", "object", "split", "mask_path", "text"]
    write_csv(root / "labels.csv", header, rows, "\n")
    entries = [
        {"img_path": path, "mask_path": "", "cls_name": name, "specie_name": "", "anomaly": 0}
        for path, _, name, *_ in rows
    ]
    (root / "meta.json").write_text(
        json.dumps({"train": {"candle": entries[:3]}, "test": {"candle": entries[3:]}}, indent=1),
        encoding="utf-8",
    )
    return root


SPLITS = {"visa": "2cls_highshot", "meta": ""}


def splits(root, table):
    name = table.partition(",")[0]
    split = f", split: '{SPLITS[name]}'" if name in SPLITS else ""
    options = f"dataset={{name: {name}, dir: {root}, val_fraction: 0.3{split}}}"
    return read_splits(load(Path("options/student.yaml"), [options]).dataset)


@pytest.mark.parametrize("table", TABLES)
def test_whole_tables(root, table):
    assert all(read(splits, root, table).values())


@given(st.data())
@tries(10)
def test_damaged_tables(root, data):
    table = data.draw(st.sampled_from(sorted(TABLES)))
    file = root / TABLES[table]
    content = file.read_bytes()
    bad = data.draw(damaged(content, st.sampled_from(PIECES)))
    file.write_bytes(bad.replace(b"LONG", b"a" * 200_000))
    before = set(root.rglob("*"))
    try:
        found = read(splits, root, table)
    finally:
        file.write_bytes(content)
    assert set(root.rglob("*")) == before
    assert found is None or set(found) == {"train", "test"}
