"""Lists that other projects wrote."""

import json

import pytest

from datasets.readers import visa
from datasets.readers.meta import read_meta
from datasets.record import to_meta
from utils.errors import UserError


@pytest.fixture
def root(visa_root):
    meta = to_meta(visa.read_visa(visa_root, split="2cls_highshot"))
    (visa_root / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return visa_root


def change(root, edit):
    file = root / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    edit(meta)
    file.write_text(json.dumps(meta), encoding="utf-8")


def test_the_same_records_as_the_reader_that_wrote_it(root):
    assert read_meta(root, split="") == visa.read_visa(root, split="2cls_highshot")


def test_an_empty_specie_name_is_filled_in(root):
    change(root, lambda m: [e.update(specie_name="") for e in m["train"]["candle"]])
    found = {r.defect for r in read_meta(root, split="", objects=["candle"])["train"]}
    assert found == {"normal", "anomaly"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["train"]["candle"][0].update(anomaly=2), "anomaly must be 0 or 1, got 2"),
        (lambda m: m["train"]["candle"][0].pop("cls_name"), "expected an object with img_path"),
        (lambda m: m["train"]["candle"][0].update(img_path="../x"), "must stay below the root"),
        (lambda m: m["train"]["candle"][0].update(img_path="x.JPG"), "1 of 44 files are missing"),
        (lambda m: m["test"].update(candle=m["train"]["candle"]), "is listed 2 times"),
        (lambda m: m.update(train=[1]), "expected {object: [images]}"),
        (lambda m: (m.pop("train"), m.pop("test")), "expected {'train': ..., 'test': ...}"),
    ],
)
def test_lists_that_are_wrong(root, edit, message):
    change(root, edit)
    with pytest.raises(UserError) as caught:
        read_meta(root, split="")
    assert message in str(caught.value)
    assert "meta.json" in str(caught.value) or "missing" in message


def test_files_that_are_wrong(root):
    with pytest.raises(UserError, match=r"meta_x\.json: cannot be read"):
        read_meta(root, split="x")
    (root / "meta.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        read_meta(root, split="")
