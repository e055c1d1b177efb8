"""The VisA reader against the published counts, and against tables that are wrong."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from datasets.readers import visa
from datasets.record import check_path, data_hash, to_meta
from tests.fixtures import write_csv, write_visa
from utils.errors import UserError

NORMALS = {
    "candle": 1000,
    "capsules": 602,
    "cashew": 500,
    "chewinggum": 503,
    "fryum": 500,
    "macaroni1": 1000,
    "macaroni2": 1000,
    "pcb1": 1004,
    "pcb2": 1001,
    "pcb3": 1006,
    "pcb4": 1005,
    "pipe_fryum": 500,
}
# Published counts: train normal, train anomalous, test normal, test anomalous.
COUNTS = {
    "1cls": {
        "candle": (900, 0, 100, 100),
        "capsules": (542, 0, 60, 100),
        "cashew": (450, 0, 50, 100),
        "chewinggum": (453, 0, 50, 100),
        "fryum": (450, 0, 50, 100),
        "macaroni1": (900, 0, 100, 100),
        "macaroni2": (900, 0, 100, 100),
        "pcb1": (904, 0, 100, 100),
        "pcb2": (901, 0, 100, 100),
        "pcb3": (905, 0, 101, 100),
        "pcb4": (904, 0, 101, 100),
        "pipe_fryum": (450, 0, 50, 100),
    },
    "2cls_highshot": {
        "candle": (600, 60, 400, 40),
        "capsules": (361, 60, 241, 40),
        "cashew": (300, 60, 200, 40),
        "chewinggum": (302, 60, 201, 40),
        "fryum": (300, 60, 200, 40),
        "macaroni1": (600, 60, 400, 40),
        "macaroni2": (600, 60, 400, 40),
        "pcb1": (602, 60, 402, 40),
        "pcb2": (601, 60, 400, 40),
        "pcb3": (604, 60, 402, 40),
        "pcb4": (603, 60, 402, 40),
        "pipe_fryum": (300, 60, 200, 40),
    },
    "2cls_fewshot": {
        "candle": (200, 20, 800, 80),
        "capsules": (120, 20, 482, 80),
        "cashew": (100, 20, 400, 80),
        "chewinggum": (101, 20, 402, 80),
        "fryum": (100, 20, 400, 80),
        "macaroni1": (200, 20, 800, 80),
        "macaroni2": (200, 20, 800, 80),
        "pcb1": (201, 20, 803, 80),
        "pcb2": (200, 20, 801, 80),
        "pcb3": (201, 20, 805, 80),
        "pcb4": (201, 20, 804, 80),
        "pipe_fryum": (100, 20, 400, 80),
    },
}


def counts(splits):
    tally = Counter(
        (record.object, split, record.label)
        for split, records in splits.items()
        for record in records
    )
    return {
        name: tuple(tally[name, split, label] for split in ("train", "test") for label in (0, 1))
        for name in sorted({record.object for records in splits.values() for record in records})
    }


@pytest.fixture(scope="module")
def whole_visa(tmp_path_factory) -> Path:
    """All 10,821 rows of the three tables, over files without content.

    Four digits where an object has a thousand normal images or more, CRLF, and anomalous label
    strings with commas, as in the real tables.
    """
    root = tmp_path_factory.mktemp("visa")
    tables = {split: [] for split in visa.SPLITS}
    for name, normals in NORMALS.items():
        digits = 4 if normals >= 1000 else 3
        annotations = []
        for folder in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            (root / name / "Data" / folder).mkdir(parents=True)
        for label, folder, total in ((0, "Normal", normals), (1, "Anomaly", 100)):
            for i in range(total):
                stem = f"{i:0{digits}d}" if label == 0 else f"{i:03d}"
                image = f"{name}/Data/Images/{folder}/{stem}.JPG"
                mask = f"{name}/Data/Masks/Anomaly/{stem}.png" if label else ""
                (root / image).touch()
                if mask:
                    (root / mask).touch()
                annotations.append([image, "bent,melt" if label else "normal", mask])
                for split, wanted in COUNTS.items():
                    side = "train" if i < wanted[name][label] else "test"
                    tables[split].append([name, side, ("normal", "anomaly")[label], image, mask])
        write_csv(root / name / "image_anno.csv", ["image", "label", "mask"], annotations, "\r\n")
    for split, rows in tables.items():
        header = ["object", "split", "label", "image", "mask"]
        write_csv(root / "split_csv" / f"{split}.csv", header, rows, "\r\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("split", visa.SPLITS)
def test_published_counts(whole_visa, split):
    assert counts(visa.read_visa(whole_visa, split=split)) == COUNTS[split]


@pytest.mark.parametrize("split", visa.SPLITS)
@pytest.mark.skipif("VISA_DIR" not in os.environ, reason="VISA_DIR names no real VisA")
def test_published_counts_in_the_real_tables(split):
    table = Path(os.environ["VISA_DIR"]) / "split_csv" / f"{split}.csv"
    assert counts(visa._read_split(table)) == COUNTS[split]


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_records(tmp_path, newline):
    root = write_visa(tmp_path, newline=newline)
    splits = visa.read_visa(root, split="2cls_highshot", objects=["candle"])
    assert [len(splits["train"]), len(splits["test"])] == [10, 6]
    good, bad = splits["train"][0], splits["train"][7]
    assert good.path == "candle/Data/Images/Normal/000.JPG"
    assert (good.label, good.defect, good.mask) == (0, "normal", "")
    assert (bad.label, bad.object) == (1, "candle")
    assert bad.defect == "burnt,corner or edge breakage"
    assert bad.mask == "candle/Data/Masks/Anomaly/001.png"
    assert good.without_text().defect == ""


def test_meta_is_the_fields_format(visa_root):
    meta = to_meta(visa.read_visa(visa_root, split="2cls_highshot"))
    assert list(meta) == ["train", "test"]
    assert list(meta["train"]) == ["candle", "pipe_fryum"]
    assert meta["train"]["candle"][6] == {
        "img_path": "candle/Data/Images/Anomaly/000.JPG",
        "mask_path": "candle/Data/Masks/Anomaly/000.png",
        "cls_name": "candle",
        "specie_name": "burnt",
        "anomaly": 1,
    }


def test_the_hash_names_the_list(visa_root):
    all_of_it = visa.read_visa(visa_root, split="2cls_highshot")
    backwards = {split: records[::-1] for split, records in all_of_it.items()}
    swapped = {"train": all_of_it["test"], "test": all_of_it["train"]}
    assert data_hash(all_of_it) == data_hash(backwards)
    assert data_hash(all_of_it) != data_hash(swapped)


def error(root, **options):
    with pytest.raises(UserError) as caught:
        visa.read_visa(root, **{"split": "2cls_highshot", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "")


def test_data_that_are_not_there(tmp_path):
    message = error(tmp_path / "none")
    assert "python datasets/visa_json.py --download" in message
    assert "python -m demo" in message


def test_missing_files_are_counted(visa_root):
    (visa_root / "candle/Data/Images/Normal/003.JPG").unlink()
    (visa_root / "pipe_fryum/Data/Masks/Anomaly/001.png").unlink()
    message = error(visa_root)
    assert "2 of 44 files are missing, the first is candle/Data/Images/Normal/003.JPG" in message
    assert "name the objects that are there" in message


def test_unknown_names(visa_root):
    assert "did you mean '2cls_highshot'?" in error(visa_root, split="2cls_highsho")
    assert "no object 'fryum'; there are candle, pipe_fryum" in error(visa_root, objects=["fryum"])


ROW = "candle,train,normal,candle/Data/Images/Normal/000.JPG,"
TABLE = "split_csv/2cls_highshot.csv"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW, f"{TABLE}: candle/Data/Images/Normal/000.JPG is listed 2 times"),
        (ROW.replace("normal", "bad"), f"{TABLE}:34: label must be normal or anomaly, got 'bad'"),
        (ROW.replace("train", "val"), f"{TABLE}:34: split must be train or test, got 'val'"),
        (ROW.replace("candle/D", "../D"), f"{TABLE}:34: path '../Data"),
        (ROW.replace("candle/D", "/etc/D"), f"{TABLE}:34: path '/etc/Data"),
        ("candle,train,normal,,", f"{TABLE}:34: path '' must stay below the root"),
        ("candle,train", f"{TABLE}:34: expected 5 columns"),
        (ROW + ",more", f"{TABLE}:34: expected 5 columns"),
    ],
)
def test_rows_that_are_wrong(visa_root, row, message):
    with (visa_root / TABLE).open("a") as file:
        file.write(f"{row}\r\n")
    assert message in error(visa_root)


def test_empty_table(visa_root):
    (visa_root / TABLE).write_text("", encoding="utf-8")
    assert f"{TABLE}:1: no column 'object'" in error(visa_root)
    (visa_root / TABLE).write_text("object,split,label,image,mask\n", encoding="utf-8")
    assert f"{TABLE}: lists no images" in error(visa_root)


def test_annotations_that_are_wrong(visa_root):
    table = visa_root / "candle/image_anno.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("000.JPG,normal", "000.JPG,burnt"), encoding="utf-8")
    assert "000.JPG is 'burnt', but the split file says normal" in error(visa_root)
    table.write_text("\n".join(text.splitlines()[:1] + text.splitlines()[2:]), encoding="utf-8")
    assert "says nothing about candle/Data/Images/Normal/000.JPG" in error(visa_root)
    table.unlink()
    assert "image_anno.csv: cannot be read" in error(visa_root)


def test_files_of_a_table_are_found_by_folders(visa_root, monkeypatch):
    """Asking for each of a million files takes longer than reading the table."""
    right = visa.read_visa(visa_root, split="2cls_highshot")
    files = {path for path in visa_root.rglob("*") if path.suffix == ".JPG"}
    asked = []
    monkeypatch.setattr("os.path.isfile", lambda path: bool(asked.append(path)))
    monkeypatch.setattr("os.path.islink", lambda path: bool(asked.append(path)))
    assert visa.read_visa(visa_root, split="2cls_highshot") == right
    assert files.isdisjoint(map(Path, asked))


def test_a_link_that_leads_out(visa_root, tmp_path):
    image = visa_root / "candle/Data/Images/Normal/000.JPG"
    image.rename(tmp_path / "secret.JPG")
    image.symlink_to(tmp_path / "secret.JPG")
    assert "000.JPG: is a link that leads out of" in error(visa_root)


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../../b", "C:/a", "a\\..\\..\\b"])
def test_paths_stay_below_the_root(path):
    with pytest.raises(UserError, match="must stay below the root"):
        check_path(path, "x.csv:3")


def test_csv_of_the_fixture_is_quoted_like_the_real_one(visa_root):
    text = (visa_root / "candle/image_anno.csv").read_bytes().decode()
    assert '"burnt,corner or edge breakage"' in text
    assert "\r\n" in text
    assert len(list(csv.reader(text.splitlines()))) == 17
