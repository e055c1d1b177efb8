"""Every reader on a data set in its true layout, and what only one of them does."""

import io
import json
import os
import re
import shutil
import tracemalloc
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.digests import digests
from datasets.image import read_image
from datasets.mask import read_mask
from datasets.readers import DATASETS
from datasets.record import check_path, data_hash, to_meta
from datasets.scan import split_of
from jobs.data import read_splits
from options.load import load
from tests.fixtures import write_visa
from tests.layouts import (
    LAYOUTS,
    SORTED,
    Painter,
    save,
    write_br35h,
    write_brainmri,
    write_covid19,
    write_folder,
    write_headct,
    write_meta,
    write_mvtec,
    write_table,
)
from utils.errors import UserError
from utils.registry import options_of
from utils.store import Store


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """One data set per reader; not to be changed."""
    folder = tmp_path_factory.mktemp("layouts")
    return {name: write(folder / name) for name, (write, _) in LAYOUTS.items()}


def read(name, root, **options):
    return DATASETS[name](root, **{**LAYOUTS[name][1], **options})


def everything(splits):
    return [record for records in splits.values() for record in records]


def error(name, root, **options):
    with pytest.raises(UserError) as caught:
        read(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "").replace(f"{root}", "ROOT")


def test_every_reader_has_a_layout():
    assert sorted(LAYOUTS) == sorted(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_both_labels_on_both_sides_and_every_file_is_there(name, roots):
    splits = read(name, roots[name])
    assert sorted(splits) == ["test", "train"]
    for records in splits.values():
        for shown in {record.object for record in records}:
            assert {r.label for r in records if r.object == shown} == {0, 1}
    records = everything(splits)
    assert len({record.path for record in records}) == len(records)
    for record in records:
        assert read_image(roots[name] / record.path).mode == "RGB"
        assert not record.mask or (roots[name] / record.mask).is_file()
        assert (record.defect == "normal") == (record.label == 0)
        assert not record.mask or record.label


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_again_and_one_object_of_it(name, roots):
    splits = read(name, roots[name])
    assert data_hash(read(name, roots[name])) == data_hash(splits)
    shown = sorted({record.object for record in everything(splits)})
    assert "objects" in options_of(DATASETS[name])
    part = read(name, roots[name], objects=(shown[0],))
    wanted = {s: [r for r in records if r.object == shown[0]] for s, records in splits.items()}
    assert part == wanted
    assert "no object 'none of them'" in error(name, roots[name], objects=("none of them",))


@pytest.mark.parametrize("name", DATASETS)
def test_through_meta_and_back(name, roots, tmp_path):
    splits = read(name, roots[name])
    (tmp_path / "list.json").write_text(json.dumps(to_meta(splits)), encoding="utf-8")
    again = DATASETS["meta"](roots[name], file=tmp_path / "list.json")
    assert data_hash(again) == data_hash(splits)


DRAWN = [name for name, reader in DATASETS.items() if "split_seed" in options_of(reader)]


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_split_follows_its_seed_and_fraction(name, roots):
    here = roots[name]
    assert data_hash(read(name, here)) != data_hash(read(name, here, split_seed=1))
    few, many = (len(read(name, here, test_fraction=f)["test"]) for f in (0.2, 0.6))
    assert few < many
    with pytest.raises(ValueError, match=r"test_fraction must be in \(0, 1\)"):
        read(name, here, test_fraction=1.0)


@pytest.mark.parametrize("name", DATASETS)
def test_data_that_are_not_there(name, tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nothing"))):
        read(name, tmp_path / "nothing")


def test_mvtec_official_and_for_two_classes(tmp_path):
    root = write_mvtec(tmp_path / "mvtec")
    official, ours = (DATASETS["mvtec"](root, split=split) for split in ("1cls", "2cls"))
    assert not any(record.label for record in official["train"])
    assert len(official["test"]) == 12 + 20
    normal = {s: [r.path for r in official[s] if not r.label] for s in official}
    assert normal == {s: [r.path for r in ours[s] if not r.label] for s in ours}
    tested = Counter((r.object, r.defect) for r in ours["test"] if r.label)
    assert tested == dict.fromkeys(
        [
            ("01", "anomaly"),
            ("metal_nut", "bent"),
            ("metal_nut", "scratch_head"),
            ("screw", "bent"),
            ("screw", "scratch_head"),
        ],
        1,
    )
    masks = {r.path: r.mask for r in official["test"] if r.label}
    assert masks["screw/test/bent/002.png"] == "screw/ground_truth/bent/002_mask.png"
    assert masks["01/test/ko/0001.bmp"] == "01/ground_truth/ko/0001.png"


def test_one_object_alone_in_mvtecs_layout(tmp_path):
    write_mvtec(tmp_path)
    splits = DATASETS["mvtec"](tmp_path / "screw", split="1cls")
    assert {record.object for record in everything(splits)} == {"screw"}
    assert splits["train"][0].path == "train/good/000.png"
    assert splits["test"][0].mask == "ground_truth/bent/000_mask.png"


def test_bmad_official_training_is_normal_and_validation_can_be_learned(roots):
    official = read("bmad", roots["bmad"], split="1cls")
    assert not any(record.label for record in official["train"])
    ours = read("bmad", roots["bmad"])
    assert official["test"] == ours["test"]
    assert {r.path.split("/")[1] for r in ours["train"]} == {"train", "valid"}
    masks = {r.path: r.mask for r in everything(ours) if r.mask}
    assert masks["Brain_AD/test/Ungood/img/0.png"] == "Brain_AD/test/Ungood/label/0.png"
    assert len(masks) == 12


def test_headct_labels_are_the_tables(roots):
    for record in everything(read("headct", roots["headct"])):
        assert record.label == int(int(Path(record.path).stem) < 10)
        assert record.defect == ("normal", "hemorrhage")[record.label]


def read_set(name, root, *options):
    """A data set that options/<name>.yaml reads with the reader folder."""
    return read_splits(
        load(Path(f"options/{name}.yaml"), [f"dataset.dir={root}", *options]).dataset
    )


@pytest.mark.parametrize(
    ("name", "objects", "defects", "digest"),
    [
        ("brainmri", {"brain"}, {"normal", "tumor"}, "efe6a4414ba4"),
        ("br35h", {"brain"}, {"normal", "tumor"}, "86e174414810"),
        ("covid19", {"chest"}, {"normal", "COVID-19"}, "d63f16e6fba0"),
    ],
)
def test_sets_that_are_sorted_into_folders(name, objects, defects, digest, tmp_path):
    """The digest is that of the readers these sets had of their own: same images, same split."""
    splits = read_set(name, SORTED[name](tmp_path))
    records = everything(splits)
    assert {record.object for record in records} == objects
    assert {record.defect for record in records} == defects
    assert not any(record.mask for record in records)
    alone = {s: [replace(r, group="") for r in records] for s, records in splits.items()}
    assert data_hash(alone) == digest


def test_brainmri_counts_each_picture_once_and_never_parts_copies(tmp_path, capsys):
    root = write_brainmri(tmp_path)
    splits = read_set("brainmri", root)
    said = "left out: brain_tumor_dataset, whose 24 files lie beside it once more"
    assert said in capsys.readouterr().out
    assert Counter(r.label for r in everything(splits)) == {0: 11, 1: 13}
    side = defaultdict(set)
    for split, records in splits.items():
        for record in records:
            side[(root / record.path).read_bytes()].add(split)
    assert {len(splits) for splits in side.values()} == {1}
    assert not any(r.path.startswith("brain_tumor_dataset") for r in everything(splits))
    for kind in ("no", "yes"):
        shutil.rmtree(root / kind)
    nested = everything(read_set("brainmri", root))
    assert len(nested) == 24
    assert {record.object for record in nested} == {"brain"}


def test_a_folder_that_repeats_a_part_only_is_kept(tmp_path):
    """As many bytes under the same names are not the same pictures."""
    root = write_brainmri(tmp_path)
    content = bytearray((root / "no/N1.JPG").read_bytes())
    content[-3] ^= 1
    (root / "brain_tumor_dataset/no/N1.JPG").write_bytes(content)
    assert len(everything(read_set("brainmri", root))) == 48


def test_br35h_leaves_out_what_has_no_label(tmp_path, capsys):
    splits = read_set("br35h", write_br35h(tmp_path))
    assert {r.path.split("/")[0] for r in everything(splits)} == {"no", "yes"}
    assert "left out" not in capsys.readouterr().out


def test_covid19_leaves_out_lungs_and_other_classes(tmp_path):
    root = write_covid19(tmp_path)
    found = everything(read_set("covid19", root))
    assert {r.path.rsplit("/", 1)[0] for r in found} == {"COVID/images", "Normal/images"}
    more = read_set("covid19", root, "dataset.bad=[covid, lung_opacity]", "dataset.defect=")
    assert Counter(r.defect for r in everything(more)) == {
        "normal": 8,
        "COVID": 8,
        "Lung_Opacity": 8,
    }
    with pytest.raises(UserError, match="the folders here are COVID, Lung_Opacity, Normal"):
        read_set("covid19", root, "dataset.good=[healthy]")


# A person's own folders: (files, options, objects, defects, masks found, is the split drawn?)
FOLDERS = {
    "two folders": (["good/1.png", "bad/2.png"], {}, {"own"}, {"anomaly"}, 0),
    "capital letters": (["Normal/1.png", "ABNORMAL/2.PNG"], {}, {"own"}, {"anomaly"}, 0),
    "yes and no": (["no/1.png", "yes/2.png"], {}, {"own"}, {"anomaly"}, 0),
    "own names": (
        ["i.O./1.png", "Riss/2.png", "Delle/2.png"],
        {"good": ("i.O.",), "bad": ("Riss", "Delle")},
        {"own"},
        {"Riss", "Delle"},
        0,
    ),
    "objects outside": (
        ["nut/good/1.png", "nut/bad/2.png", "gear/good/1.png", "gear/bad/dent/2.png"],
        {},
        {"nut", "gear"},
        {"anomaly", "dent"},
        0,
    ),
    "objects inside": (
        ["good/nut/1.png", "bad/nut/2.png"],
        {"subfolders": "objects"},
        {"nut"},
        {"anomaly"},
        0,
    ),
    "defects inside": (["good/1.png", "bad/dent/2.png"], {}, {"own"}, {"dent"}, 0),
    "a named object": (["ok/1.png", "ng/2.png"], {"object_name": "nut"}, {"nut"}, {"anomaly"}, 0),
    "a named defect": (
        ["good/1.png", "bad/2.png", "bad/dent/3.png"],
        {"defect": "scratch"},
        {"own"},
        {"scratch"},
        0,
    ),
    "folders that only hold pictures": (
        ["good/images/1.png", "bad/dent/Images/2.png", "Riss/img/3.png"],
        {"bad": ("bad", "riss")},
        {"own"},
        {"dent", "Riss"},
        0,
    ),
    "folders to ignore": (
        ["good/1.png", "bad/2.png", "Old/bad/3.png", "good/old/4.png"],
        {"ignore": ("old",)},
        {"own"},
        {"anomaly"},
        0,
    ),
    "a named object in a folder": (
        ["Images/good/1.png", "Images/bad/2.png"],
        {"object_name": "nut"},
        {"nut"},
        {"anomaly"},
        0,
    ),
    "masks by name": (["good/1.png", "bad/2.png", "masks/2.png"], {}, {"own"}, {"anomaly"}, 1),
    "masks in folders": (
        ["good/1.png", "bad/a/2.png", "bad/b/2.png", "mask/a/2_mask.png", "mask/b/2_mask.png"],
        {},
        {"own"},
        {"a", "b"},
        2,
    ),
    "masks of an object": (
        ["nut/good/1.png", "nut/bad/1.png", "nut/ground_truth/bad/1.png"],
        {},
        {"nut"},
        {"anomaly"},
        1,
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("has_levels", [False, True])
def test_folders_of_a_persons_own(case, has_levels, tmp_path, capsys):
    files, options, objects, defects, num_masks = FOLDERS[case]
    root = tmp_path / "own"
    paint = Painter()
    levels = ("train", "test") if has_levels else ("",)
    for level in levels:
        for file in files:
            is_mask = any(part in ("mask", "masks", "ground_truth") for part in file.split("/"))
            is_good = file.startswith(("good", "no", "No", "ok", "i.O.")) or "/good/" in file
            for i in range(1 if is_mask or num_masks else 4):  # four of each, to part
                path = (root / level / file).with_stem(Path(file).stem + "x" * i)
                paint(path, is_bad=not is_good)
    if num_masks and not has_levels:
        for i in range(3):  # a split needs more than one
            paint(root / Path(files[0]).with_stem(f"more {i}"), is_bad=False)
            paint(root / Path(files[1]).with_stem(f"more {i}"), is_bad=True)
    splits = DATASETS["folder"](root, **options)
    records = everything(splits)
    assert {record.object for record in records} == objects
    assert {record.defect for record in records if record.label} == defects
    assert sum(bool(record.mask) for record in records) == num_masks * len(levels)
    said = capsys.readouterr().out
    assert "assumed: " in said
    assert ("no split of its own" in said) == (not has_levels)
    if has_levels:
        assert {r.path.split("/")[0] for r in splits["test"]} == {"test"}


def test_what_is_left_out_is_said(tmp_path, capsys):
    write_folder(tmp_path)
    Painter()(tmp_path / "other/1.png", is_bad=False)
    DATASETS["folder"](tmp_path)
    assert "left out: 2 of 20 files" in capsys.readouterr().out


def test_folders_that_cannot_be_understood(tmp_path):
    paint = Painter()
    for i in range(3):
        paint(tmp_path / f"fine/{i}.png", is_bad=False)
        paint(tmp_path / f"bad/{i}.png", is_bad=True)
    message = error("folder", tmp_path)
    assert "0 normal pictures (in folders good, normal, no, ok) and 3 anomalous" in message
    assert "good=[NAME] and bad=[NAME]" in message
    assert message.endswith("the folders here are bad, fine")
    paint(tmp_path / "good/1.png", is_bad=False)
    message = error("folder", tmp_path)
    assert "4 images, 3 of them anomalous, leave no normal one for testing" in message
    paint(tmp_path / "test/good/1.png", is_bad=False)
    assert "is in no folder 'train' or 'test', but other" in error("folder", tmp_path)


def test_pictures_of_a_kind_that_is_not_read(tmp_path):
    for kind in ("good", "bad"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "IMG_1.HEIC").write_bytes(b"heic")
    message = error("folder", tmp_path)
    assert message.endswith(
        "; 2 files are of kinds that are not read, such as bad/IMG_1.HEIC; HEIC is not read: "
        "convert it to JPEG"
    )
    for kind in ("good", "bad"):
        (tmp_path / kind / "IMG_1.HEIC").unlink()
        (tmp_path / kind / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    assert "such as bad/IM0001; DICOM is not read: convert it to PNG" in error("folder", tmp_path)


@pytest.mark.parametrize("name", [b"gr\xf6\xdfe.png", b"a\nb.png"])
def test_names_that_no_table_can_hold(tmp_path, name):
    """Archives that were packed elsewhere leave such names; names in all scripts are welcome."""
    paint = Painter()
    for i in range(3):
        paint(tmp_path / f"good/Größe 寸法\u202f{i}.png", is_bad=False)
        paint(tmp_path / f"bad/{i}.png", is_bad=True)
    DATASETS["folder"](tmp_path)
    try:
        (tmp_path / "bad/0.png").rename(Path(os.fsdecode(bytes(tmp_path / "bad") + b"/" + name)))
    except OSError:
        pytest.skip("this file system refuses such names")
    message = error("folder", tmp_path)
    assert message.startswith(f"ROOT: the name {'bad/' + os.fsdecode(name)!r} is not UTF-8 or br")
    with pytest.raises(
        UserError, match=r"meta.json: train.nut\[0\]: the name 'a\\nb.png' is not U"
    ):
        check_path("a\nb.png", "meta.json: train.nut[0]")


def test_masks_that_are_no_pictures(tmp_path, capsys):
    """Masks under other names would otherwise count as none at all."""
    paint = Painter()
    for i in range(3):
        paint(tmp_path / f"good/g{i}.png", is_bad=False, mask=tmp_path / f"masks/g{i}.png")
        paint(tmp_path / f"bad/b{i}.png", is_bad=True, mask=tmp_path / f"masks/b{i}_area.png")
    DATASETS["folder"](tmp_path)
    said = capsys.readouterr().out
    assert "masks: none" in said
    assert "3 of 6 masks are no picture's, the first is masks/b0_area.png; name a mask as" in said
    write_mvtec(tmp_path / "mvtec")
    DATASETS["mvtec"](tmp_path / "mvtec")
    assert "no picture's" not in capsys.readouterr().out
    masks = tmp_path / "mvtec/screw/ground_truth/bent"
    (masks / "000_mask.png").rename(masks / "000_area.png")
    DATASETS["mvtec"](tmp_path / "mvtec")
    assert (
        "1 of 8 masks are no picture's, the first is screw/ground_truth/be"
        in capsys.readouterr().out
    )


def test_a_mask_that_fits_two_images_is_refused(tmp_path):
    paint = Painter()
    for file in ("good/1.png", "bad/a/2.png", "bad/b/2.png", "masks/2.png"):
        paint(tmp_path / file, is_bad=True)
    message = error("folder", tmp_path)
    assert message.startswith("masks/2.png: is the mask of bad/a/2.png or of bad/b/2.png?")
    paint(tmp_path / "masks/2.bmp", is_bad=True)
    assert "masks/2.bmp is a mask of the same picture" in error("folder", tmp_path)
    (tmp_path / "masks/2.bmp").unlink()
    paint(tmp_path / "masks/a/2.png", is_bad=True)
    paint(tmp_path / "masks/bad/2.png", is_bad=True)
    assert "bad/a/2.png: two masks fit, masks/a/2.png and masks/bad/2.png" in error(
        "folder", tmp_path
    )


@pytest.mark.parametrize("name", ["mvtec", "folder"])
def test_masks_of_several_files_as_in_mvtec_loco(name, tmp_path, capsys):
    """``ground_truth/<kind>/<stem>/000.png``; the pictures of a folder are one mask."""
    paint = Painter()
    for kind in ("train/good", "test/good", "test/logical", "test/structural"):
        for i in range(3):
            paint(tmp_path / f"box/{kind}/{i:03d}.png", is_bad=False)
    for kind in ("logical", "structural"):
        for i in range(3):
            for j in range(i + 1):
                area = np.zeros((40, 60), np.uint8)
                area[10 * j : 10 * j + 5, :5] = 255 - j
                path = tmp_path / f"box/ground_truth/{kind}/{i:03d}/{j:03d}.png"
                save(Image.fromarray(area), path)
    options = {} if name == "mvtec" else {"bad": ("logical", "structural")}
    splits = DATASETS[name](tmp_path, **options)
    found = {r.path: r.mask for r in splits["test"] if r.label}
    assert found == {
        f"box/test/{kind}/{i:03d}.png": f"box/ground_truth/{kind}/{i:03d}{'/000.png' * (i == 0)}"
        for kind in ("logical", "structural")
        for i in range(3)
    }
    marked = [np.asarray(read_mask(tmp_path / mask)).sum() for mask in found.values()]
    assert marked == [25, 50, 75] * 2
    said = capsys.readouterr().out
    assert "no picture's" not in said
    assert "left out" not in said
    folder = tmp_path / "box/ground_truth/logical/001"
    store = Store(tmp_path / "cache")
    before = digests(folder.parent, ["001"], store, title="")
    (folder / "000.png").write_bytes((folder / "001.png").read_bytes())
    assert digests(folder.parent, ["001"], store, title="") != before
    assert np.asarray(read_mask(folder)).sum() == 25
    save(Image.new("L", (9, 9)), folder / "002.png")
    with pytest.raises(UserError, match=r"001: its masks have different sizes, \[\(9, 9\), \(60"):
        read_mask(folder)


def test_folders_of_masks_that_are_named_as_a_picture_and_as_a_defect(tmp_path):
    paint = Painter()
    paint_all(tmp_path, "good")
    for i in range(2):
        paint(tmp_path / f"bad/7/{i}.png", is_bad=True, mask=tmp_path / f"masks/7/{i}.png")
    paint(tmp_path / "bad/7.png", is_bad=True)
    masks = [r.mask for r in everything(DATASETS["folder"](tmp_path)) if r.label]
    assert sorted(masks) == ["", "masks/7/0.png", "masks/7/1.png"]


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dent"):  # pytest clears up by file descriptors
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    write_folder(tmp_path)
    monkeypatch.setattr(os, "scandir", refuse)
    assert "bad/dent: cannot be read (Permission denied); mend" in error("folder", tmp_path)
    assert "ROOT: cannot be read (Permission denied); mend" in error("mvtec", tmp_path / "bad/dent")


def test_a_link_to_a_folder_is_refused(tmp_path):
    write_folder(tmp_path / "data")
    (tmp_path / "secret").mkdir()
    (tmp_path / "data/good").symlink_to(tmp_path / "secret")
    assert error("folder", tmp_path / "data") == (
        "good: is a link to a folder; put the folder itself there"
    )


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "visa"])
def test_a_link_that_leads_out_is_refused(name, tmp_path):
    root = LAYOUTS[name][0](tmp_path / "data")
    path = root / everything(read(name, root))[0].path
    path.rename(tmp_path / "secret.png")
    path.symlink_to(tmp_path / "secret.png")
    assert "is a link that leads out of" in error(name, root)


def table(root, *lines, header="image_path,label"):
    (root / "labels.csv").write_text("\n".join([header, *lines]), encoding="utf-8")


def test_a_table_with_everything(tmp_path):
    paint = Painter()
    rows = []
    for i in range(4):
        paint(tmp_path / f"{i}.png", is_bad=bool(i % 2), mask=tmp_path / f"m{i}.png")
        mask = f"m{i}.png" if i % 2 else ""
        rows.append([f"{i}.png", i % 2, "nut", ("train", "Test")[i // 2], mask, "a dent, deep"])
    header = ["image_path", "label", "object", "split", "mask_path", "text"]
    write_table(tmp_path / "list.csv", header, rows)
    splits = DATASETS["csv"](tmp_path, file=Path("list.csv"))
    assert [r.path for r in splits["train"]] == ["0.png", "1.png"]
    assert vars(splits["test"][1]) == {
        "path": "3.png",
        "object": "nut",
        "label": 1,
        "defect": "a dent, deep",
        "mask": "m3.png",
        "group": "",
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "list.csv", elsewhere / "list.csv")
    assert DATASETS["csv"](tmp_path, file=elsewhere / "list.csv") == splits


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_names_that_are_not_ascii(tmp_path, delimiter):
    lines, paint = [], Painter()
    for i in range(6):
        name = f"Bild {i} ä é.PNG"
        paint(tmp_path / "ordner ü" / name, is_bad=bool(i % 2))
        lines.append(f"ordner ü\\{name}{delimiter} {'ng' if i % 2 else 'OK'}")
    table(tmp_path, *lines, header=f"\ufeffimage_path{delimiter} label")
    found = everything(DATASETS["csv"](tmp_path))
    assert len(found) == 6
    assert all(record.label == int(record.path[14]) % 2 for record in found)


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["0.png,perhaps"], "image_path,label", "labels.csv:2: label must be 0 or 1, normal or"),
        (
            ["0.png"],
            "image_path",
            "labels.csv:1: no column 'label'; expected image_path,label, got i",
        ),
        (["0.png,0,x"], "image_path,label", "labels.csv:2: expected 2 columns"),
        (["../0.png,0"], "image_path,label", "labels.csv:2: path '../0.png' must stay below"),
        (["/etc/0.png,0"], "image_path,label", "labels.csv:2: path '/etc/0.png' must stay"),
        (["0.png,0", "0.png,1"], "image_path,label", "0.png is listed 2 times"),
        (["0.png,0,train", "1.png,1,"], "image_path,label,split", "1.png has no split, but"),
        (["0.png,0,later"], "image_path,label,split", "split must be train or test, got 'later'"),
        (["0.png,0", "x.png,1"], "image_path,label", "1 of 2 files are missing, the first is x"),
        ([], "image_path,label", "labels.csv: lists no images"),
    ],
)
def test_tables_that_are_wrong(tmp_path, lines, header, message):
    for i in range(2):
        Painter()(tmp_path / f"{i}.png", is_bad=False)
    table(tmp_path, *lines, header=header)
    assert message in error("csv", tmp_path, group="")


def test_a_table_in_another_encoding(tmp_path):
    paint = Painter()
    for i in range(8):
        paint(tmp_path / f"ä{i}.png", is_bad=bool(i % 2))
    lines = "\n".join(["image_path,label", *(f"ä{i}.png,{i % 2}" for i in range(8))])
    (tmp_path / "labels.csv").write_bytes(lines.encode("utf-16"))
    expected = DATASETS["csv"](tmp_path)
    (tmp_path / "labels.csv").write_bytes(lines.encode("cp1252"))
    assert re.fullmatch(
        r"labels.csv: is not UTF-8 \(.*\); save it as 'CSV UTF-8', or .*encoding=cp1252",
        error("csv", tmp_path, group=""),
    )
    assert DATASETS["csv"](tmp_path, encoding="cp1252") == expected
    assert "unknown encoding: cp9" in error("csv", tmp_path, group="", encoding="cp9")
    assert "labels.csv: is not undefined (" in error(
        "csv", tmp_path, group="", encoding="undefined"
    )


# Tables as other programs write them: (header, row of a normal picture, of an anomalous one, end)
TABLES = {
    "Excel": ("sep=;\nIMAGE_PATH;Label;\n", "{};OK;\n", "{};NOK;\n", ";;\n;;\n"),
    "ELPV": ("", "{}  0.33 mono\n", "{}     0.67 poly\n", ""),
    "Pandas": (",image_path,label\n", "0,{},False\n", "1,{},True\n", ""),
    "bars": ('"image_path"|"label"\n', '"{}"|"Pass"\n', '"{}"|"Fail"\n', "\n"),
    "titles": ("Image Path,LABEL\n", "{},passed\n", "{},Rejected\n", ""),
    "decimal commas": ("image_path;label\n", "{};0,33\n", "{};0,67\n", ""),
    "tabs": ("Label\timage_path\n", "0.2\t{}\n", "0.50\t{}\n", ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_programs(name, tmp_path):
    head, *rows, end = TABLES[name]
    paint = Painter()
    for i in range(8):
        paint(tmp_path / f"{i}.png", is_bad=bool(i % 2))
    text = head + "".join(rows[i % 2].format(f"{i}.png") for i in range(8)) + end
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    found = everything(DATASETS["csv"](tmp_path, threshold=0.5))
    assert {r.path: r.label for r in found} == {f"{i}.png": i % 2 for i in range(8)}


def test_tables_that_are_too_large_or_never_end(tmp_path, monkeypatch):
    for file, said in (("/dev/zero", "is a folder or a device"), (".", "is a folder or a dev")):
        for reader in ("csv", "meta"):
            assert said in error(reader, tmp_path, file=Path(file))
    monkeypatch.setattr("datasets.readers.table._MOST_BYTES", 30)
    table(tmp_path, "1.png,1", "2.png,0")
    assert error("csv", tmp_path) == (
        "labels.csv: has 32 bytes, and tables of up to 30 are read: leave out columns, or split it"
    )


def test_all_refused_rows_are_counted(tmp_path):
    for i in range(6):
        Painter()(tmp_path / f"{i}.png", is_bad=False)
    table(tmp_path, "0.png,0.33", "1.png,1", "2.png", "3.png,0.5", "4.png,0", "../5.png,0")
    message = error("csv", tmp_path, group="")
    assert "labels.csv:2: label must be 0 or 1" in message
    assert "with threshold=0.5, numbers from 0.5 on are anomalous" in message
    assert message.endswith("; 4 of 6 rows are refused, lines 2, 4, 5, 7")


def test_refused_rows_do_not_fill_the_memory(tmp_path):
    table(tmp_path, *["1.png,maybe"] * 5000)
    tracemalloc.start()
    assert "5000 of 5000 rows are refused, lines 2, 3, 4" in error("csv", tmp_path, group="")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000


def test_a_column_that_groups_has_to_be_there(tmp_path):
    table(tmp_path, "0.png,0")
    assert "no column 'patient'" in error("csv", tmp_path)


def test_groups_are_never_parted(roots):
    for seed in range(20):
        splits = read("csv", roots["csv"], split_seed=seed)
        patients = {s: {record.group for record in records} for s, records in splits.items()}
        assert not patients["train"] & patients["test"]


def test_absolute_paths_below_a_root_that_is_a_link(roots, tmp_path):
    if os.name == "nt":
        pytest.skip("links need rights there")
    (tmp_path / "link").symlink_to(roots["meta"])
    assert read("meta", tmp_path / "link") == read("meta", roots["meta"])


def test_accents_of_one_sign_or_two(tmp_path):
    """macOS writes names in two signs, tables have one."""
    paint = Painter()
    for i in range(8):
        name = unicodedata.normalize("NFD", f"Gerät/ä{i}.png")
        paint(tmp_path / name, is_bad=bool(i % 2))
    rows = (f"Gerät/ä{i}.png,{i % 2},Gerät" for i in range(8))
    table(tmp_path, *rows, header="image_path,label,object")
    splits = DATASETS["csv"](tmp_path, objects=(unicodedata.normalize("NFD", "Gerät"),))
    assert len(everything(splits)) == 8
    assert all((tmp_path / record.path).is_file() for record in everything(splits))


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Training", "train"),
        ("train_set", "train"),
        ("TrainImages", "train"),
        ("01 TRAIN", "train"),
        ("Trainingsdaten", "train"),
        ("validation", "val"),
        ("Valid", "val"),
        ("Testing", "test"),
        ("test_public", "test"),
        ("testset2", "test"),
        ("hold-out", "test"),
        ("HoldOut", "test"),
        ("seg_train", ""),
        ("train_test_split", ""),
        ("images", ""),
        ("contest", ""),
        ("latest", ""),
        ("strain", ""),
    ],
)
def test_names_that_mean_a_split(name, side):
    assert split_of(name) == side


def paint_all(root, *files):
    paint = Painter()
    for file in files:
        for i in range(4):
            is_bad = not {"good", "0"} & {*file.split("/")}
            paint(root / file / f"{i}.png", is_bad=is_bad)


@pytest.mark.parametrize("sides", [("Training", "Testing"), ("set/train", "set/test_public")])
def test_folders_that_are_a_split_in_other_words(sides, tmp_path):
    paint_all(tmp_path, *(f"{side}/{kind}" for side in sides for kind in ("good", "bad")))
    splits = DATASETS["folder"](tmp_path)
    assert {r.path.rsplit("/", 2)[0] for r in splits["test"]} == {sides[1]}
    assert len(splits["train"]) == len(splits["test"]) == 8


def test_a_validation_without_a_test_is_not_drawn_across(tmp_path):
    for side in ("Train", "valid"):
        paint_all(tmp_path / side, "good", "bad")
    assert error("folder", tmp_path) == (
        "ROOT: has validation pictures, but no test pictures: name their folder, test=[NAME]; to "
        "test on the validation ones, test=[valid]; to draw a test across all, train=[Train,valid]"
    )
    tested = DATASETS["folder"](tmp_path, test=("valid",))["test"]
    assert {record.path.partition("/")[0] for record in tested} == {"valid"}
    drawn = DATASETS["folder"](tmp_path, train=("Train", "valid"))["test"]
    assert {record.path.partition("/")[0] for record in drawn} == {"Train", "valid"}


def test_a_split_inside_of_good_and_bad(tmp_path):
    paint_all(tmp_path, "good/Train", "good/Test", "bad/Train", "bad/Test/dent")
    splits = DATASETS["folder"](tmp_path)
    assert {r.path.split("/")[1] for r in splits["test"]} == {"Test"}
    assert {r.defect for r in everything(splits)} == {"normal", "anomaly", "dent"}


def test_folders_that_may_be_a_split_are_not_objects(tmp_path, capsys):
    sides = ("seg_train", "seg_test")
    paint_all(tmp_path, *(f"{side}/{kind}" for side in sides for kind in ("good", "bad")))
    message = error("folder", tmp_path)
    assert "are the folders 'seg_test', 'seg_train' a split? Name them, train=[NAME]" in message
    named = DATASETS["folder"](tmp_path, train=("seg_train",), test=("SEG_TEST",))
    assert {r.path.split("/")[0] for r in named["test"]} == {"seg_test"}
    as_objects = DATASETS["folder"](tmp_path, objects=sides)
    assert {r.object for r in everything(as_objects)} == {*sides}
    said = capsys.readouterr().out
    assert "folders name objects, each with its own share in the test: 'seg_test', 'seg_tr" in said


def test_folders_of_network_drives_and_windows(tmp_path):
    windows = ("$RECYCLE.BIN/good", "System Volume Information/good")
    drives = ("bad/@eaDir/0.png", "#recycle/bad", "good/@Recently-Snapshot", "bad/@SynoResource")
    paint_all(tmp_path, "good", "bad", *windows, *drives)
    records = everything(DATASETS["folder"](tmp_path))
    assert {record.path.rpartition("/")[0] for record in records} == {"good", "bad"}


@pytest.mark.parametrize("suffix", [".jfif", ".jpe"])
def test_other_suffixes_of_jpeg(suffix, tmp_path):
    paint_all(tmp_path, "good", "bad")
    for i in range(2):
        save(Image.new("RGB", (40, 40), (i, 9, 90)), tmp_path / f"good/x{i}.jpg")
        (tmp_path / f"good/x{i}.jpg").rename(tmp_path / f"good/x{i}{suffix}")
    assert len(everything(DATASETS["folder"](tmp_path))) == 10


# Masks as other programs name them: (picture, mask)
MASKS = {
    "KolektorSDD2": ("bad/7.png", "bad/7_GT.png"),
    "DAGM": ("bad/7.PNG", "bad/Label/7_label.PNG"),
    "ISIC": ("bad/7.jpg", "bad/7_segmentation.png"),
    "BUSI": ("bad/benign (7).png", "bad/benign (7)_mask_1.png"),
    "CVAT": ("bad/7.jpg", "masks/7.jpg.png"),
    "magnetic tiles": ("bad/MT_Crack/7.jpg", "bad/MT_Crack/7.png"),
    "prefix": ("bad/7.png", "masks/mask_7.png"),
    "capital letters": ("bad/b7.jpg", "masks/B7_MASK.PNG"),
    "bitmap": ("bad/7.png", "bad/7.bmp"),
    "inside": ("bad/rgb/7.png", "bad/gt/7.png"),
    "accents": ("bad/a\u0308.png", "masks/\xe4.png"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_under_other_names(name, tmp_path):
    picture, mask = MASKS[name]
    paint_all(tmp_path, "good", "bad/more")
    Painter()(tmp_path / picture, is_bad=True, mode="L", mask=tmp_path / mask)
    records = everything(DATASETS["folder"](tmp_path))
    assert len(records) == 9
    assert {record.path: record.mask for record in records if record.mask} == {picture: mask}


def test_several_masks_beside_a_picture(tmp_path):
    """As BUSI has them: never pictures, and one folder makes them one mask."""
    paint_all(tmp_path, "good", "bad")
    paint = Painter()
    names = ("benign (7)_mask.png", "benign (7)_mask_1.png")
    for name in names:
        paint(tmp_path / "bad/benign (7).png", is_bad=True, mask=tmp_path / "bad" / name)
    assert error("folder", tmp_path).endswith(
        "is a mask of the same picture; put all masks of one picture into a folder with its name: "
        "masks/benign (7)/"
    )
    (tmp_path / "masks/benign (7)").mkdir(parents=True)
    for name in names:
        (tmp_path / "bad" / name).rename(tmp_path / "masks/benign (7)" / name)
    found = {r.path: r.mask for r in everything(DATASETS["folder"](tmp_path)) if r.mask}
    assert found == {"bad/benign (7).png": "masks/benign (7)"}


def test_photographs_that_are_named_like_masks(tmp_path):
    """A photograph of a label, the same picture in two formats, a folder of faulty labels."""
    paint_all(tmp_path, "good")
    paint = Painter()
    for file in ("bad/7.png", "bad/7_label.png", "bad/8.jpg", "bad/8.png", "bad/label/9.png"):
        paint(tmp_path / file, is_bad=True)
    assert len(everything(DATASETS["folder"](tmp_path))) == 9


def test_what_lies_inside_of_a_kind_in_mvtec_3d(tmp_path, capsys):
    paint = Painter()
    for kind in ("train/good", "validation/good", "test/good", "test/hole"):
        for i in range(2):
            folder = tmp_path / "bagel" / kind
            mask = folder / f"gt/{i}.png"
            paint(folder / f"rgb/{i}.png", is_bad="hole" in kind, mask=mask)
            paint(folder / f"xyz/{i}.tiff", is_bad=False)
    splits = DATASETS["mvtec"](tmp_path)
    assert {r.path.split("/")[-2] for r in everything(splits)} == {"rgb"}
    assert [r.mask for r in splits["test"] if r.label] == [
        f"bagel/test/hole/gt/{i}.png" for i in range(2)
    ]
    said = capsys.readouterr().out
    assert "left out: 12 of 24 files" in said
    assert "no picture's" not in said


def test_labels_from_masks(tmp_path):
    """As KolektorSDD2 comes: a mask beside each picture, empty where there is no defect."""
    paint = Painter()
    for side in ("train", "test"):
        for i in range(8):
            mask = tmp_path / side / f"{i}_GT.png"
            paint(tmp_path / side / f"{i}.png", is_bad=i % 4 == 0, mask=mask)
        (tmp_path / side / "7_GT.png").unlink()
    splits = DATASETS["folder"](tmp_path, labels="masks", object_name="plate")
    labels = {r.path: r.label for r in splits["test"]}
    assert labels == {f"test/{i}.png": int(i % 4 == 0) for i in range(8)}
    assert {(r.object, r.label, r.defect, bool(r.mask)) for r in everything(splits)} == {
        ("plate", 0, "normal", False),
        ("plate", 1, "anomaly", True),
    }
    assert "labels=masks" in error("folder", tmp_path)
    rows = [f"test/{i}.png,test/{i}_GT.png" for i in range(7)] + ["test/7.png,"]
    table(tmp_path, *rows, header="image_path,mask_path")
    listed = everything(DATASETS["csv"](tmp_path, labels="masks", object_name="plate"))
    assert {r.path: r.label for r in listed} == labels


def test_labels_from_masks_that_belong_to_no_picture(tmp_path):
    for i in range(4):
        Painter()(tmp_path / f"x{i}.png", is_bad=i > 1, mask=tmp_path / f"masks/{i}.png")
    assert error("folder", tmp_path, labels="masks").startswith(
        "ROOT: none of 4 masks is named as its picture, the first is masks/0.png; name it"
    )


def test_labels_from_masks_of_kinds(tmp_path):
    paint = Painter()
    for kind, has_defect in (("MT_Free", False), ("MT_Crack", True)):
        for i in range(4):
            path = tmp_path / kind / f"Imgs/{i}.jpg"
            paint(path, is_bad=has_defect, mask=path.with_suffix(".png"))
    records = everything(DATASETS["folder"](tmp_path, labels="masks", object_name="tile"))
    assert Counter((r.object, r.label, r.defect) for r in records) == {
        ("tile", 0, "normal"): 4,
        ("tile", 1, "MT_Crack"): 4,
    }


def test_masks_that_cannot_be_read_are_masks_all_the_same(tmp_path):
    """As the files named like them; else their pictures would be normal, and they pictures."""
    paint, cut = Painter(), {}
    for folder, name in (("a", "{}.png"), ("b", "{}_GT.png"), ("c", "GT_{}.png"), ("gt", "{}.png")):
        for i in range(4):
            picture = tmp_path / (f"{i}.jpg" if folder == "gt" else f"{folder}/{i}.jpg")
            mask = tmp_path / folder / name.format(i)
            paint(picture, is_bad=i < 2, mask=mask)
            if i == 1:
                cut[picture.relative_to(tmp_path).as_posix()] = mask
    for mask in cut.values():
        mask.write_bytes(mask.read_bytes()[:-30])
    for i in (7, 8, 9):  # two photographs
        paint(tmp_path / f"d/{i}.jpg", is_bad=False)
        paint(tmp_path / f"d/{i}.png", is_bad=False)
    (tmp_path / "d/8.png").write_bytes((tmp_path / "d/8.png").read_bytes()[:-30])
    splits = DATASETS["folder"](tmp_path, labels="masks", object_name="plate")
    masks = {r.path: tmp_path / r.mask for r in everything(splits) if r.label}
    assert {path: masks.get(path) for path in cut} == cut
    assert len(everything(splits)) == 22


@pytest.mark.parametrize("name", DATASETS)
def test_groups_by_a_pattern_and_by_a_folder(name, roots, capsys):
    records = everything(read(name, roots[name], group=r"([0-9])[^0-9]*$"))
    for record in records:
        digits = re.findall(r"\d", record.path)
        assert not digits or record.group == f"group {digits[-1]}"
    assert "groups of images by" in capsys.readouterr().out
    assert "fits no path; name a level" in error(name, roots[name], group="99")
    assert "unterminated subpattern" in error(name, roots[name], group="(x")


def test_a_group_is_never_parted(tmp_path):
    kinds = (f"board{board}/{kind}" for board in range(6) for kind in ("good", "bad"))
    paint_all(tmp_path, *kinds)
    for group in ("1", r"board\d"):
        splits = DATASETS["folder"](tmp_path, group=group, object_name="board")
        boards = {s: {r.path.split("/")[0] for r in records} for s, records in splits.items()}
        assert len(boards["test"]) == 2
        assert not boards["train"] & boards["test"]


def test_pictures_that_no_list_names_are_counted(tmp_path, capsys):
    write_headct(tmp_path)
    Painter()(tmp_path / "head_ct/777.png", is_bad=False)
    DATASETS["headct"](tmp_path)
    said = capsys.readouterr().out
    assert "left out: 1 of 21 pictures, which" in said
    assert "the first is head_ct/777.png" in said


def test_archives_with_a_folder_around(tmp_path):
    for name, write in (("headct", write_headct), ("meta", write_meta)):
        write(tmp_path / name / "archive")
        assert "; there is archive/" in error(name, tmp_path / name)
    write_mvtec(tmp_path / "mvtec/archive")
    assert "name another folder, such as archive, or" in error("mvtec", tmp_path / "mvtec")
    write_visa(tmp_path / "visa/VisA")
    assert "name another folder, such as VisA, fetch" in error("visa", tmp_path / "visa")
    assert "the reader for those is mvtec" in error("headct", tmp_path / "mvtec/archive")


def test_normal_folders_by_other_names_in_mvtecs_layout(tmp_path):
    paint_all(tmp_path, "screw/Train/good", "screw/Test/0", "screw/Test/1")
    splits = DATASETS["mvtec"](tmp_path, good=("good", "0"))
    assert Counter((r.label, r.defect) for r in splits["test"]) == {(0, "normal"): 4, (1, "1"): 4}


def test_a_console_that_cannot_show_all_signs(tmp_path, monkeypatch):
    paint_all(tmp_path / "寸法", "good", "bad")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert len(everything(DATASETS["folder"](tmp_path / "寸法"))) == 8
