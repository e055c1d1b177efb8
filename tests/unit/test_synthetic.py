"""The rendered data set: VisA's layout, its labels, and pictures without a cheap cue."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import demo
from datasets.readers import visa
from demo import files
from demo.__main__ import main
from utils.errors import UserError

OBJECTS = ("candle", "pcb1")
NORMALS, ANOMALIES = 10, 8
SMALL = {"normals": NORMALS, "anomalies": ANOMALIES, "size": (48, 72)}
# The README of the real data set says how many kinds of anomaly there are.
KINDS = {
    "candle": 8,
    "capsules": 5,
    "cashew": 9,
    "chewinggum": 6,
    "fryum": 8,
    "macaroni1": 7,
    "macaroni2": 7,
    "pcb1": 4,
    "pcb2": 4,
    "pcb3": 4,
    "pcb4": 7,
    "pipe_fryum": 9,
}
PAIRS = [(name, label) for name in demo.OBJECTS for label in demo.defects_of(name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    assert demo.write(root, objects=OBJECTS, seed=0, **SMALL)
    return root


def rows(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def twins(name, label, size, seed=0):
    """The same picture without and with a defect, and the mask."""
    normal, empty = demo.render(name, [], np.random.default_rng(seed), size)
    flawed, mask = demo.render(name, [label], np.random.default_rng(seed), size)
    assert not empty.any()
    return normal, flawed, mask


def test_files(folder):
    expected = {Path("README.txt"), Path("synthetic.json")}
    expected |= {Path(f"split_csv/{name}.csv") for name in visa.SPLITS}
    for name in OBJECTS:
        expected.add(Path(f"{name}/image_anno.csv"))
        expected |= {Path(f"{name}/Data/Images/Normal/{i:03}.JPG") for i in range(NORMALS)}
        expected |= {Path(f"{name}/Data/Images/Anomaly/{i:03}.JPG") for i in range(ANOMALIES)}
        expected |= {Path(f"{name}/Data/Masks/Anomaly/{i:03}.png") for i in range(ANOMALIES)}
    assert set(content(folder)) == expected


@pytest.mark.parametrize("split", visa.SPLITS)
def test_the_reader_of_the_real_data_reads_it(folder, split):
    splits = visa.read_visa(folder, split=split)
    assert sum(map(len, splits.values())) == len(OBJECTS) * (NORMALS + ANOMALIES)


def test_tables_are_written_as_in_visa(folder):
    split = (folder / "split_csv/2cls_highshot.csv").read_bytes()
    assert split.startswith(b"object,split,label,image,mask\r\n")
    annotations = (folder / "candle/image_anno.csv").read_bytes()
    assert annotations.startswith(
        b"image,label,mask\r\ncandle/Data/Images/Normal/000.JPG,normal,\r\n"
    )
    for table in (split, annotations):
        assert table.endswith(b"\r\n")
        assert table.count(b"\n") == table.count(b"\r\n")


# Train normal, train anomalous, test normal, test anomalous; the published counts for VisA's sizes.
@pytest.mark.parametrize(
    ("split", "normals", "anomalies", "expected"),
    [
        ("1cls", 1005, 100, (904, 0, 101, 100)),
        ("1cls", 602, 100, (542, 0, 60, 100)),
        ("2cls_highshot", 1006, 100, (604, 60, 402, 40)),
        ("2cls_highshot", 503, 100, (302, 60, 201, 40)),
        ("2cls_fewshot", 1004, 100, (201, 20, 803, 80)),
        ("2cls_fewshot", 602, 100, (120, 20, 482, 80)),
        ("1cls", 100, 50, (90, 0, 10, 50)),
        ("2cls_highshot", 100, 50, (60, 30, 40, 20)),
        ("2cls_fewshot", 100, 50, (20, 10, 80, 40)),
        ("1cls", 5, 3, (4, 0, 1, 3)),
        ("2cls_highshot", 5, 3, (3, 2, 2, 1)),
        ("2cls_fewshot", 5, 3, (1, 1, 4, 2)),
    ],
)
def test_split_counts(split, normals, anomalies, expected):
    samples = demo.plan("pcb1", normals, anomalies, 0)
    counts = Counter((row[1], row[2]) for row in files._split(samples, split, 0))
    sides = [(side, label) for side in ("train", "test") for label in ("normal", "anomaly")]
    assert tuple(counts[side] for side in sides) == expected


def test_every_split_lists_every_image_once_and_few_shot_is_part_of_high_shot(folder):
    tables = {name: rows(folder / f"split_csv/{name}.csv") for name in visa.SPLITS}
    images = {p.relative_to(folder).as_posix() for p in folder.rglob("*.JPG")}
    train = {}
    for name, table in tables.items():
        assert sorted(row["image"] for row in table) == sorted(images)
        train[name] = {row["image"] for row in table if row["split"] == "train"}
    assert train["2cls_fewshot"] < train["2cls_highshot"]


def test_a_thousand_normals_have_four_digits():
    samples = demo.plan("candle", 1000, 3, 0)
    assert samples[0].image == "candle/Data/Images/Normal/0000.JPG"
    assert samples[-1].image == "candle/Data/Images/Anomaly/002.JPG"


def test_masks_show_the_defects_that_the_annotations_name(folder):
    for name in OBJECTS:
        for row in rows(folder / name / "image_anno.csv"):
            assert (row["label"] == "normal") == (not row["mask"])
            if row["mask"]:
                mask = np.asarray(Image.open(folder / row["mask"]))
                ids = {demo.VOCABULARY[name].index(x) + 1 for x in row["label"].split(",")}
                assert mask.shape == (48, 72)
                assert mask.any()
                assert set(np.unique(mask)) <= ids | {0}


def test_labels_are_those_of_visa():
    assert list(demo.OBJECTS) == list(KINDS)
    assert {name: len(labels) for name, labels in demo.VOCABULARY.items()} == KINDS
    assert demo.VOCABULARY["fryum"][:2] == ("burnt", "corner or edge breakage")
    for name in demo.OBJECTS:
        assert set(demo.VOCABULARY[name]) - set(demo.defects_of(name)) <= {"other"}
    assert set(demo.DEFECTS) == {label for _, label in PAIRS}


def test_one_anomaly_in_five_has_two_defects():
    samples = demo.plan("fryum", 5, 1000, 0)[5:]
    counts = Counter(len(sample.defects) for sample in samples)
    assert set(counts) == {1, 2}
    assert 150 < counts[2] < 250


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_a_defect_changes_the_picture_where_the_mask_says(name, label):
    normal, flawed, mask = twins(name, label, (96, 144))
    assert set(np.unique(mask)) == {0, demo.VOCABULARY[name].index(label) + 1}
    assert 0 < (mask > 0).mean() < 0.25
    change = np.abs(flawed.astype(float) - normal).mean(-1)
    assert change[mask > 0].mean() > 8
    assert change[mask > 0].mean() > 5 * change[mask == 0].mean()


@pytest.mark.parametrize("size", [(32, 32), (80, 48), (32, 128)], ids=str)
@pytest.mark.parametrize("name", demo.OBJECTS)
def test_any_size(name, size):
    for seed, label in enumerate(demo.defects_of(name)):
        picture, mask = demo.render(name, [label], np.random.default_rng(seed), size)
        assert (picture.shape, picture.dtype) == ((*size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == (size, np.uint8)
        assert mask.any()


def test_two_defects_have_two_ids():
    rng = np.random.default_rng(0)
    _, mask = demo.render("cashew", ["burnt", "small holes"], rng, (96, 144))
    assert set(np.unique(mask)) == {0, 1, 5}


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("zipper", [], "unknown object 'zipper'; known: candle"),
        ("pcb1", ["burnt"], "pcb1: unknown defect 'burnt'; known: bent, melt, scratch, missing"),
        ("fryum", ["other"], "fryum: unknown defect 'other'"),
    ],
)
def test_render_names_what_it_can_draw(name, labels, message):
    with pytest.raises(ValueError, match=message):
        demo.render(name, labels, np.random.default_rng(0), (32, 48))


@pytest.mark.parametrize("name", demo.DEMO)
def test_overall_color_does_not_give_the_defect_away(name):
    pictures, labels = [], []
    for sample in demo.plan(name, 60, 60, seed=5):
        rng = np.random.default_rng(sample.seed)
        picture, _ = demo.render(name, sample.defects, rng, (64, 96))
        pictures.append(np.concatenate([picture.mean((0, 1)), picture.std((0, 1))]))
        labels.append(bool(sample.defects))
    for statistic in np.array(pictures).T:
        assert 0.25 < roc_auc_score(labels, statistic) < 0.75


def test_same_seed_same_bytes(folder, tmp_path):
    demo.write(tmp_path / "again", objects=OBJECTS, seed=0, **SMALL)
    assert content(tmp_path / "again") == content(folder)


def test_another_seed_gives_other_pictures(folder, tmp_path):
    demo.write(tmp_path / "other", objects=OBJECTS, seed=1, **SMALL)
    ours, others = content(folder), content(tmp_path / "other")
    assert set(ours) == set(others)
    assert not [p for p in ours if p.suffix in {".JPG", ".csv"} and ours[p] == others[p]]


def test_an_object_looks_the_same_whatever_the_others_are(folder, tmp_path):
    demo.write(tmp_path / "alone", objects=("pcb1",), seed=0, **SMALL)
    alone = content(tmp_path / "alone" / "pcb1")
    assert alone == content(folder / "pcb1")


def test_a_second_run_leaves_everything_alone(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert not demo.write(folder, objects=OBJECTS, seed=0, **SMALL)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_other_arguments_are_refused(folder):
    before = content(folder)
    with pytest.raises(UserError, match=r"demo: was rendered with other arguments, .*delete it"):
        demo.write(folder, objects=OBJECTS, seed=1, **SMALL)
    assert before == content(folder)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds something else; name another folder"):
        demo.write(tmp_path, objects=OBJECTS, **SMALL)
    with pytest.raises(UserError, match="holds something else; name another folder"):
        demo.write(tmp_path / "notes.txt", objects=OBJECTS, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    draw = files._draw

    def stop_at_the_third(root, sample, size):
        if sample.image.endswith("002.JPG"):
            raise KeyboardInterrupt
        draw(root, sample, size)

    monkeypatch.setattr(files, "_draw", stop_at_the_third)
    root = tmp_path / "demo"
    root.mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo.write(root, objects=OBJECTS, **SMALL)
    assert list(tmp_path.rglob("*")) == [root]
    monkeypatch.undo()
    assert demo.write(root, objects=OBJECTS, **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": ("candel",)}, "objects: cannot render 'candel'; did you mean 'candle'"),
        ({"objects": ("fryum", "fryum")}, "name at least one, and each once"),
        ({"objects": ()}, "name at least one, and each once"),
        ({"normals": 4}, "normals=4, anomalies=8: too few .* at least 5 and 3"),
        ({"anomalies": 2}, "normals=10, anomalies=2: too few"),
        ({"size": (31, 64)}, "size: 31 x 64 is too small; take at least 32 x 32"),
        ({"seed": -1}, "seed=-1: take 0 or more"),
    ],
)
def test_arguments_that_make_no_data_set(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        demo.write(tmp_path / "demo", **{"objects": OBJECTS, **SMALL, **change})
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    root = tmp_path / "new" / "demo"
    small = ["--root", str(root), "--objects", "fryum", "--normals", "5", "--anomalies", "3"]
    small += ["--size", "32", "48"]
    assert main(small) == 0
    assert capsys.readouterr().out == f"wrote 8 images of fryum in {root}\n"
    assert main(small) == 0
    assert capsys.readouterr().out == f"already there: 8 images of fryum in {root}\n"
    assert main([*small, "--seed", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"{root}: was rendered with other arguments")
    (tmp_path / "file").touch()
    assert main([*small, "--root", str(tmp_path / "file/demo")]) == 2
    assert "file/demo: cannot be written (" in capsys.readouterr().err
