"""Checking a data set: every planted fault is named once, and nothing else is."""

import io
import json
import os
import re
import shlex
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageEnhance
from scipy import ndimage

import check as check_py
import run as run_py
from datasets import digests
from datasets.check import facts, findings
from datasets.check.duplicates import LIMIT, same_picture
from datasets.check.facts import SIDE, Facts, image_facts, range_of
from datasets.check.inspection import inspect
from datasets.check.report import write_report
from datasets.check.sheets import contact_sheet
from datasets.fix_list import leave_out, read_fix_list, write_fix_list
from datasets.image import read_image
from datasets.readers import DATASETS
from datasets.readers.meta import read_meta
from datasets.record import Record
from jobs.checking import check_data, default_folder
from jobs.data import read_splits
from options.load import load
from options.schema import Source
from tests.fixtures import job_of, write_smoke
from utils.device import num_cores
from utils.download import sha256_of
from utils.errors import UserError
from utils.registry import Component
from utils.store import NOWHERE, Store

SIZE = (160, 120)  # width, height


def scene(seed, size=SIZE):
    """A smooth picture that looks like no other."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def photograph(seed, shift):
    """A smooth part with grain, so many pixels beside the middle."""
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    coarse, grain = (
        Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
        for pixels in (noise[:2, :3], noise)
    )
    part = Image.blend(coarse, grain, 0.2)
    return part.crop((20 + shift, 20 + shift, 620 + shift, 460 + shift))


class Folder:
    """A data set with a ``meta.json``: 8 normal and 4 anomalous images of ``nut`` in each split."""

    def __init__(self, root):
        self.root = root
        self.meta = {"train": {"nut": []}, "test": {"nut": []}}
        for i, split in enumerate(self.meta):
            for j in range(12):
                is_bad = j >= 8
                path = self.add(split, f"{split}_{j}.jpg", label=int(is_bad), has_mask=is_bad)
                scene(100 * i + j).save(path, quality=92)

    def add(self, split, name, *, label=0, has_mask=False):
        mask = f"masks/{Path(name).stem}.png" if has_mask else ""
        if mask:
            self.mask(mask)
        entry = {"img_path": f"images/{name}", "cls_name": "nut", "anomaly": label}
        self.meta[split]["nut"].append({**entry, "specie_name": "", "mask_path": mask})
        (self.root / "images").mkdir(parents=True, exist_ok=True)
        return self.root / "images" / name

    def mask(self, name, size=SIZE, marked=9):
        area = np.zeros(size[::-1], dtype=np.uint8)
        area[10 : 10 + marked, 20 : 20 + marked] = 255
        (self.root / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(area).save(self.root / name)

    def write(self):
        (self.root / "meta.json").write_text(json.dumps(self.meta), encoding="utf-8")
        return self.root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Reports are not written into the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "bolts")


def lines(root, *, is_whole=True, **options):
    splits = read_meta(root, split="")
    records = [*splits["train"], *splits["test"]]
    more = list(findings.masks_of_nothing(root, records, is_whole=is_whole))
    found = inspect(root, splits, store=NOWHERE, is_whole=is_whole, more=more, **options)
    return [str(finding) for finding in found.findings]


def test_nothing_is_found_where_nothing_is_wrong(folder):
    assert lines(folder.write()) == []


# -- planted faults: what each does to the folder, and the line that names it


def truncated(folder):
    content = (folder.root / "images/train_3.jpg").read_bytes()
    (folder.root / "images/train_3.jpg").write_bytes(content[:-40])


def no_picture(folder):
    (folder.root / "images/train_3.jpg").write_text("see attachment", encoding="utf-8")


def bomb(folder):
    Image.new("1", (15000, 15000)).save(folder.root / "images/train_3.jpg", "PNG")


def same_bytes(folder):
    path = folder.add("test", "copy.jpg")
    path.write_bytes((folder.root / "images/train_3.jpg").read_bytes())


def saved_anew(folder):
    path = folder.add("test", "copy.jpg")
    Image.open(folder.root / "images/train_3.jpg").resize((80, 60)).save(path, quality=60)


def two_labels(folder):
    path = folder.add("train", "copy.jpg", label=1, has_mask=True)
    path.write_bytes((folder.root / "images/train_3.jpg").read_bytes())


def twice(folder):
    path = folder.add("train", "copy.png")
    Image.open(folder.root / "images/train_3.jpg").save(path)


def other_size(folder):
    folder.mask("masks/train_9.png", size=(80, 60))


def turned_mask(folder):
    folder.mask("masks/train_9.png", size=SIZE[::-1])


def empty_mask(folder):
    folder.mask("masks/train_9.png", marked=0)


def broken_mask(folder):
    (folder.root / "masks/train_9.png").write_bytes(b"\x89PNG")


def mask_of_a_normal_image(folder):
    entry = folder.meta["train"]["nut"][0]
    entry["mask_path"] = "masks/train_0.png"
    folder.mask("masks/train_0.png")


def mask_of_nothing(folder):
    folder.mask("masks/stray.png")


def no_mask(folder):
    folder.meta["train"]["nut"][9]["mask_path"] = ""
    (folder.root / "masks/train_9.png").unlink()


def binary(folder):
    name = folder.meta["train"]["nut"][3]["img_path"]
    Image.fromarray(np.kron(np.eye(4), np.ones((30, 40))) > 0).save(folder.root / name)


def blank(folder):
    Image.new("L", SIZE, 7).save(folder.root / "images/train_3.jpg")


def photographed_again(folder):
    photograph(3, 0).save(folder.root / "images/train_3.jpg")
    photograph(3, 3).save(folder.add("test", "again.jpg"))


def photographed_beside(folder):
    photograph(3, 0).save(folder.root / "images/train_3.jpg")
    photograph(3, 10).save(folder.add("test", "again.jpg"))


FAULTS = {
    truncated: r"error: .*/train_3.jpg: cannot be read as a picture \(.*trunc.*\); replace or remo",
    no_picture: r"error: .*/train_3.jpg: is not a picture \(14 bytes\); replace or remove it, "
    r"or leave out what cannot be read: dataset.skip_broken=true$",
    bomb: r"error: .*/train_3.jpg: is too large, 15000 x 15000 pixels, and may be a decompression ",
    same_bytes: r"error: images/copy.jpg \(test, normal\): leak across train and test: the same "
    r"bytes as images/train_3.jpg \(train, normal\); keep one of them, or allow it: "
    r"dataset.allow_leak=\[images/copy.jpg\]",
    saved_anew: r"error: images/copy.jpg .*leak across train and test: the same picture as images/t"
    r"rain_3.jpg \(train, normal\)",
    two_labels: r"error: images/copy.jpg \(train, anomalous\): two labels: the same bytes as images"
    r"/train_3.jpg \(train, normal\); keep one of them and give it the right label$",
    twice: r"warning: images/copy.png .*there more than once: the same picture as images/train_3.j",
    other_size: r"error: masks/train_9.png: the mask is 80x60, its picture images/train_9.jpg 160x",
    turned_mask: r"error: masks/train_9.png: the mask is 120x160",
    empty_mask: r"warning: masks/train_9.png: the mask is empty, but images/train_9.jpg is anomalo",
    broken_mask: r"error: .*masks/train_9.png: .*; mend or remove the mask, or leave out what",
    mask_of_a_normal_image: r"warning: masks/train_0.png: the mask marks 81 pixels, but images/tra",
    mask_of_nothing: r"warning: masks: stray.png is no listed image's mask",
    no_mask: r"note: 1 of 8 anomalous images have no mask, the first is images/train_9.jpg",
    binary: r"warning: 1 of 24 pictures have one or two gray levels, as masks do: images/train_3.j",
    blank: r"warning: 1 of 24 pictures have one or two gray levels, as masks do: images/train_3.jp",
    photographed_again: r"error: images/again.jpg .*leak across train and test: another photograph "
    r"of the part, or a changed copy, of images/train_3.jpg \(train, normal\); keep those of ",
    photographed_beside: r"note: nearest pictures in train and test: images/again.jpg \(test, norm"
    r"al\) and images/train_3.jpg \(train, normal\), distance 0.0\d\d: no copies, but it may b",
}


def deep(tmp_path, change, how):
    """What is said of 8 gray pictures of more than 8 bits; ``change``: from 0 ... 1 to numbers."""
    records = [Record(path=f"{i}.tif", object="nut", label=0) for i in range(8)]
    for i, record in enumerate(records):
        gray = np.asarray(scene(i).convert("L")) / 255
        Image.fromarray(change(gray)).save(tmp_path / record.path)
    splits = {"train": records[:4], "test": records[4:]}
    return inspect(tmp_path, splits, store=NOWHERE).with_range(how).findings


DEEP = {  # from 0 ... 1 to numbers; what is wrong with them as 16 bits
    "all_bits": (lambda x: (x * 65535).astype(np.uint16), None),
    "twelve_bits": (lambda x: (x * 4095).astype(np.uint16), "warning"),
    "fourteen_bits_used_in_part": (lambda x: (9000 + x * 3000).astype(np.uint16), "warning"),
    "hot_pixel": (
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, 65535, x * 4095).astype("u2"),
        "warning",
    ),
    "hounsfield_units": (lambda x: (x * 3000 - 1000).astype(np.int32), "error"),
    "counts": (lambda x: (x * 1e6).astype(np.int32), "error"),
    "decimal_numbers": (lambda x: x.astype(np.float32), "error"),
}


@pytest.mark.parametrize("name", DEEP)
def test_gray_levels_of_deep_pictures(tmp_path, name):
    change, level = DEEP[name]
    found = deep(tmp_path, change, "type")
    assert [finding.level for finding in found] == [level] * (level is not None)
    for finding in found:
        assert finding.text.startswith("0.tif: 8 of 8 pictures of more than 8 bits")
        assert "write image.range=data" in finding.text
    assert deep(tmp_path, change, "data") == []


def test_a_range_that_is_too_narrow_or_too_wide(tmp_path):
    change, _ = DEEP["decimal_numbers"]
    (found,) = deep(tmp_path, change, (0.45, 0.55))
    assert found.level == "warning"
    assert "outside of 0.45 to 0.55, cut off; write a wider image.range" in found.text
    (found,) = deep(tmp_path, change, (0.0, 100.0))
    assert "keep few of their gray levels in 8 bits; write a narrower image.range" in found.text


def sixteen_bits(kind, pixels):
    """A picture of 16 bits for each channel, as PNG or TIFF; Pillow cannot write such colors."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2")
    if kind == "TIFF":
        entries = [(256, width), (257, height), (258, 16), (259, 1), (262, 2), (273, 8)]
        entries += [(277, channels), (278, height), (279, rows.nbytes)]
        tags = [struct.pack(">HHII", n, 4, 1, v) for n, v in entries]
        end = struct.pack(">H", len(tags)) + b"".join(tags) + bytes(4)
        return struct.pack(">2sHI", b"MM", 42, 8 + rows.nbytes) + rows.tobytes() + end
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), (b"IDAT", lines), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


@pytest.mark.parametrize(("kind", "channels"), [("PNG", 2), ("PNG", 3), ("TIFF", 3)])
def test_colors_of_16_bits_that_hold_12(tmp_path, kind, channels):
    records = [Record(path=f"{i}.{kind.lower()}", object="nut", label=0) for i in range(4)]
    splits = {"train": records[:2], "test": records[2:]}
    for brightest, said in ((4095, 1), (65535, 0)):
        for i, record in enumerate(records):
            gray = np.asarray(scene(i).convert("L")).astype(float)
            deep = (gray - gray.min()) / (gray.max() - gray.min()) * brightest
            content = sixteen_bits(kind, np.stack([deep] * channels, axis=-1))
            (tmp_path / record.path).write_bytes(content)
        found = [str(f) for f in inspect(tmp_path, splits, store=NOWHERE).findings]
        assert len(found) == said
        for line in found:
            assert line.startswith(f"warning: {records[0].path}: 4 color pictures of 16 bits")


def test_a_range_is_found_on_the_pictures_but_for_a_hundredth_of_each():
    numbers = np.linspace(0, 256, 257, dtype=np.float32)
    outlier = np.where(numbers > 254, 1e9, numbers + 100).astype(np.float32)
    facts_of = [Facts(spread=numbers.tobytes()), Facts(), Facts(spread=outlier.tobytes())]
    assert range_of(facts_of) == (3 - 350 / 4, 353 + 350 / 4)  # 3 to 253, and 103 to 353
    assert range_of([Facts()]) is None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_one_line(folder, fault):
    fault(folder)
    found = lines(folder.write())
    assert len(found) == 1
    assert re.match(FAULTS[fault], found[0]), found[0]


def test_a_link_out_of_the_root_is_the_readers_to_refuse(folder, capsys):
    path = folder.add("test", "link.jpg")
    scene(7).save(folder.root.parent / "outside.jpg")
    path.symlink_to(folder.root.parent / "outside.jpg")
    assert run_check(folder.write()) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: is a link that leads out of {folder.root}; put the file there"
    ]


def test_many_copies_are_one_line(folder):
    for i in range(12):
        path = folder.add("train", f"copy_{i:02}.jpg")
        path.write_bytes((folder.root / "images/train_3.jpg").read_bytes())
    (found,) = lines(folder.write())
    assert found.count(".jpg") == 7
    assert "and 6 more; keep one" in found


@pytest.mark.parametrize("allowed", ["all", ("images/copy.jpg",), ("images/train_*",)])
def test_a_leak_that_is_allowed(folder, allowed):
    same_bytes(folder)
    (found,) = lines(folder.write(), allow_leak=allowed)
    assert found.startswith("warning: images/copy.jpg")
    assert "leak across train and test (allowed): the same bytes" in found


def test_the_allowance_that_is_proposed_can_be_typed(folder, capsys):
    """Spaces, commas and brackets mean something to shells, YAML and patterns."""
    path = folder.add("test", "copy, [1].jpg")
    path.write_bytes((folder.root / "images/train_3.jpg").read_bytes())
    (found,) = lines(folder.write())
    (option,) = shlex.split(found.partition("or allow it: ")[2])
    assert option == 'dataset.allow_leak=["images/copy, [1].jpg"]'
    assert run_check(folder.root, option) == 0
    assert "(allowed)" in capsys.readouterr().out


def test_masks_of_objects_that_were_not_asked_for(folder):
    """In a folder named as the object all masks are its own; elsewhere some may be others'."""
    mask_of_nothing(folder)
    folder.write()
    assert lines(folder.root, is_whole=False) == []
    (folder.root / "masks").rename(folder.root / "nut")
    content = (folder.root / "meta.json").read_text(encoding="utf-8").replace("masks/", "nut/")
    (folder.root / "meta.json").write_text(content, encoding="utf-8")
    (found,) = lines(folder.root, is_whole=False)
    assert found.startswith("warning: nut: stray.png is no listed image's mask")


@pytest.mark.parametrize("layout", ["mvtec", "folder"])
def test_nothing_is_said_of_masks_of_objects_that_were_not_asked_for(tmp_path, capsys, layout):
    root = tmp_path / "data"
    for name in ("nut", "screw"):
        for folder in ("train/good", "test/good", "test/bad", "ground_truth/bad"):
            (root / name / folder).mkdir(parents=True)
            scene(len(name + folder)).save(root / name / folder / "1.png")
    scene(0).save(root / "screw/ground_truth/bad/stray.png")
    DATASETS[layout](root, objects=("screw",) if layout == "mvtec" else ())
    assert "stray.png" in capsys.readouterr().out
    DATASETS[layout](root, objects=("nut",))
    assert "stray.png" not in capsys.readouterr().out


def test_masks_that_mark_nothing_are_not_missed(folder):
    """Some programs write one for normal pictures too, all black."""
    folder.mask("masks/test_0.png", marked=0)
    assert lines(folder.write()) == []


def test_two_labels_are_never_allowed(folder):
    path = folder.add("test", "copy.jpg", label=1, has_mask=True)
    path.write_bytes((folder.root / "images/train_3.jpg").read_bytes())
    (found,) = lines(folder.write(), allow_leak="all")
    assert found.startswith("error: images/copy.jpg (test, anomalous): leak across train and test ")
    assert "(allowed) and two labels: the same bytes as" in found


def test_an_allowance_that_names_nothing(folder):
    same_bytes(folder)
    first, second = lines(folder.write(), allow_leak=("images/cpy.jpg",))
    assert first.startswith("error: images/copy.jpg")
    assert second == "warning: dataset.allow_leak: 'images/cpy.jpg' names no leak; remove it"
    allowed = ("images/copy.jpg", "bolt/copy.jpg")  # of an object that was not asked for
    (found,) = lines(folder.root, allow_leak=allowed, is_whole=False)
    assert "(allowed)" in found


def test_a_group_is_named_whole(folder):
    """A copy that was saved again, and twins of both: one line."""
    saved_anew(folder)
    for name, twin in (("copy.jpg", "a.jpg"), ("train_3.jpg", "z.jpg"), ("train_3.jpg", "y.jpg")):
        shutil.copy(folder.root / "images" / name, folder.add("train", twin))
    (found,) = lines(folder.write())
    assert found.startswith("error: images/a.jpg (train, normal): leak across train and test: the ")
    assert re.findall(r"images/(\w+).jpg \(", found) == ["a", "copy", "train_3", "y", "z"]


# -- the same picture saved anew


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


CHANGES = {
    "quality 30": lambda image: encoded(image, quality=30),
    "PNG": lambda image: encoded(image, "PNG"),
    "half": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "square": lambda image: encoded(image.resize((100, 100))),
    "grey": lambda image: encoded(image.convert("L")),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.1)),
    "contrast": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.8)),
    "progressive": lambda image: encoded(image, progressive=True),
}


def thumbnails(tmp_path, contents):
    found = {}
    for name, content in contents.items():
        (tmp_path / "picture").write_bytes(content)
        found[name] = image_facts(tmp_path / "picture").thumbnail
    return found


def test_changed_copies_are_found_and_other_pictures_are_not(tmp_path):
    contents = {f"other {i}": encoded(scene(i, (640, 480))) for i in range(30)}
    contents |= {name: change(scene(3, (640, 480))) for name, change in CHANGES.items()}
    found = thumbnails(tmp_path, contents)
    assert same_picture(found, dict.fromkeys(found, "nut")) == [sorted(["other 3", *CHANGES])]


def test_parts_that_all_look_alike_are_no_copies():
    """A camera that stands still: the scene is the same, noise and a little light are not."""
    rng = np.random.default_rng(0)
    part = rng.normal(120, 40, SIDE**2)
    alike = {str(i): part + rng.normal(0, 1, SIDE**2) for i in range(40)}
    alike["copy"] = alike["3"] + rng.normal(0, 0.1, SIDE**2)
    packed = {name: grey.astype(np.float16).tobytes() for name, grey in alike.items()}
    assert same_picture(packed, dict.fromkeys(packed, "nut")) == [["3", "copy"]]


def test_a_spot_makes_another_picture():
    grey = np.random.default_rng(0).normal(120, 40, (SIDE, SIDE))
    spot = grey.copy()
    spot[4, 5] += 60
    packed = {name: g.astype(np.float16).tobytes() for name, g in (("a", grey), ("b", spot))}
    assert np.linalg.norm(spot - grey) / SIDE / grey.std() < LIMIT
    assert same_picture(packed, dict.fromkeys(packed, "nut")) == []


def test_pictures_of_one_color_are_not_compared():
    flat = {str(i): np.full(SIDE**2, i, np.float16).tobytes() for i in (0, 255)}
    assert same_picture(flat, dict.fromkeys(flat, "nut")) == []


def test_blocks_and_hashes_lose_no_pair():
    """Against a slow loop over all pairs; more pictures than a block holds."""
    rng = np.random.default_rng(1)
    grey = rng.normal(128, 30, (300, SIDE**2))
    wave = np.cos(np.pi * (np.arange(SIDE) + 0.5) * 2 / SIDE)  # changes that a hash sees in full
    grey[280:] = grey[:20] + rng.normal(0, 3, (20, 1)) * np.tile(wave, SIDE)
    grey = grey.astype(np.float16)
    unit = grey.astype(float) - grey.astype(float).mean(axis=1, keepdims=True)
    unit /= unit.std(axis=1, keepdims=True)
    wanted = [
        [str(i), str(j)]
        for i in range(300)
        for j in range(i + 1, 300)
        if np.sqrt(((unit[i] - unit[j]) ** 2).mean()) <= LIMIT
    ]
    assert 3 < len(wanted) < 20
    packed = {str(i): row.tobytes() for i, row in enumerate(grey)}
    assert same_picture(packed, dict.fromkeys(packed, "nut")) == sorted(map(sorted, wanted))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}], ids=str)
def test_a_small_decoding_sees_every_truncation(tmp_path, options):
    content = encoded(scene(0, (640, 480)), **options)
    file = tmp_path / "cut.jpg"
    for missing in (1, 2, 3, 10, 100, 1000, len(content) // 2, len(content) - 30):
        file.write_bytes(content[:-missing])
        for at_least in (None, 4 * SIDE):
            with pytest.raises(UserError, match=r"cut\.jpg: "):
                read_image(file, at_least=at_least)


@pytest.mark.parametrize("size", [(630, 630), (1021, 515), (390, 301), (640, 480)])
def test_a_small_decoding_shows_what_the_whole_one_does(tmp_path, size):
    """A quarter of 630 pixels is 157.5: of the 158 that are decoded, half a column is nothing."""
    noise = np.random.default_rng(0).normal(size=(64, 64))
    shapes = ndimage.zoom(ndimage.gaussian_filter(noise, 1), 10)[: size[1], : size[0]]
    picture = Image.fromarray(np.uint8(np.clip(shapes * 300 + 128, 0, 255))).resize(size)
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    units = []
    for name in ("a.jpg", "a.png"):
        gray = np.frombuffer(image_facts(tmp_path / name).thumbnail, np.float16).astype(float)
        units.append((gray - gray.mean()) / gray.std())
    assert np.sqrt(np.mean((units[0] - units[1]) ** 2)) < LIMIT / 5


def test_facts_are_of_the_whole_picture(tmp_path):
    scene(0, (640, 480)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", at_least=4 * SIDE).size == (320, 240)
    found = image_facts(tmp_path / "a.jpg")
    assert (found.size, found.mode) == ("640x480", "RGB")


def test_a_mask_fits_the_picture_as_a_viewer_shows_it(folder):
    path = folder.root / "images/train_9.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    scene(9, SIZE[::-1]).save(path, exif=exif)
    assert image_facts(path).size == "160x120"
    assert lines(folder.write()) == []


# -- what is remembered


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded."""
    files = []

    def listens(read):
        def reads(path, **options):
            files.append(path.name)
            return read(path, **options)

        return reads

    for name in ("read_image", "read_mask"):
        monkeypatch.setattr(facts, name, listens(getattr(facts, name)))
    return files


def inspected(root, store):
    return inspect(root, read_meta(root, split=""), store=store)


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_second_time_nothing_is_decoded(folder, tmp_path, decoded, is_kept):
    """Without a folder that holds within one process."""
    root, store = folder.write(), Store(tmp_path / "cache") if is_kept else NOWHERE
    first = inspected(root, store)
    assert len(decoded) == len(set(decoded)) == 24 + 8
    assert inspected(root, store) == first
    assert len(decoded) == 32
    assert (tmp_path / "cache").exists() == is_kept


def test_a_data_set_that_was_moved_or_copied_is_not_decoded_again(folder, tmp_path, decoded):
    store = Store(tmp_path / "cache")
    first = inspected(folder.write(), store)
    copy = Path(shutil.copytree(folder.root, tmp_path / "copy"))
    assert inspected(copy, store).images == first.images
    assert inspected(copy.rename(tmp_path / "moved"), store).images == first.images
    assert len(decoded) == 32


def test_pictures_of_equal_names_sizes_and_times_are_not_mixed_up(tmp_path):
    """As an archive with all times at 0 leaves them."""
    store, record = Store(tmp_path / "cache"), Record(path="0.bmp", object="nut", label=0)
    thumbnails = set()
    for i in range(3):
        root = tmp_path / str(i)
        root.mkdir()
        scene(i).save(root / "0.bmp")
        os.utime(root / "0.bmp", (0, 0))
        (image,) = inspect(root, {"train": [record], "test": []}, store=store).images
        assert image.facts.sha256 == sha256_of(root / "0.bmp")
        thumbnails.add(image.facts.thumbnail)
    assert len(thumbnails) == 3


def test_a_file_that_changed_is_looked_at_again(folder, tmp_path):
    root, store = folder.write(), Store(tmp_path / "cache")
    before = inspected(root, store).key
    truncated(folder)
    for _ in range(2):  # errors are not remembered
        after = inspected(root, store)
        assert "train_3.jpg: cannot be read" in after.errors[0]
    assert before != after.key


def test_what_changes_while_it_is_looked_at_is_not_remembered(folder, tmp_path, monkeypatch):
    """Else the facts of one content would be remembered under the digest of another."""
    root, store = folder.write(), Store(tmp_path / "cache")
    file, read = root / "images/train_3.jpg", facts.read_image
    content = file.read_bytes()

    def replaces(path, **options):
        if path == file:
            scene(99).save(file)
        return read(path, **options)

    monkeypatch.setattr(facts, "read_image", replaces)
    inspected(root, store)
    monkeypatch.undo()
    file.write_bytes(content)
    assert inspected(root, store).images == inspected(root, NOWHERE).images


def test_a_check_that_was_interrupted_continues(folder, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(digests, "_SAVED_AT_ONCE", 2)
    root, store = folder.write(), Store(tmp_path / "cache")
    read = facts.read_image

    def is_interrupted(path, **options):
        if len(decoded) >= 12:
            raise KeyboardInterrupt
        return read(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(facts, "read_image", is_interrupted)
        with pytest.raises(KeyboardInterrupt):
            inspected(root, store)
    assert len(decoded) >= 12
    inspected(root, store)
    assert 32 <= len(decoded) <= 32 + num_cores() + 2


def test_a_damaged_row_is_looked_at_again(folder, tmp_path, decoded):
    root, store = folder.write(), Store(tmp_path / "cache")
    first = inspected(root, store)
    for keys, count in (("image%", 24), ("file%", 0), ("%", 32)):
        decoded.clear()
        with closing(sqlite3.connect(store.facts.file)) as table, table:
            query = "UPDATE facts SET checksum = checksum + 1 WHERE CAST(key AS TEXT) LIKE ?"
            assert table.execute(query, [keys]).rowcount >= 24
        assert inspected(root, store).images == first.images
        assert len(decoded) == count


# -- the command, and the training


def written_options(root):
    """An options file, and an argument, that name the data in ``root``."""
    data = f"dataset={{name: meta, dir: {root}, val_fraction: 0.3, cache: {root.parent}/cache}}"
    return write_smoke(root.parent, root), data


def run_check(root, *arguments):
    """Exit status of ``python check.py`` for the folder's data."""
    options, data = written_options(root)
    return check_py.main([str(options), data, "dataset.cache=null", *arguments])


def test_the_command(folder, tmp_path, capsys):
    for path in (folder.root / "images").iterdir():
        Image.open(path).convert("L").save(path)  # what is red in the report is an outline
    twice(folder)
    assert run_check(folder.write()) == 0
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in said.splitlines() if "|" in line]
    assert rows[2][1:8] == ["nut", "train", "13", "9", "4", "30.8 %", "4"]
    assert rows[-1][1:8] == ["all", "", "25", "17", "8", "32.0 %", "8"]
    assert said.count("copy.png") == 1
    assert said.endswith("25 images checked: 1 warning\n")
    page = tmp_path / "data/report/bolts/data_report.md"
    assert "* warning: images/copy.png" in page.read_text(encoding="utf-8")
    assert "1: `images/copy.png`, 2: `images/test_" in page.read_text(
        encoding="utf-8"
    )  # what the sheet shows
    assert not list(tmp_path.glob("**/*.sqlite"))

    with Image.open(page.with_name("nut.jpg")) as sheet:
        pixels = np.asarray(sheet).astype(int)
    is_red = (pixels[..., 0] > 200) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    half = len(is_red) // 2
    assert is_red[half:].sum() > 8 * 50 > is_red[:half].sum() == 0  # anomalous images are below

    time = page.stat().st_mtime_ns
    assert run_check(folder.root) == 0
    assert page.stat().st_mtime_ns == time


def test_a_sheet_knows_letters_of_other_languages(folder):
    """Every letter has a picture of its own, where Pillow's font has one box for all."""
    drawn = set()
    for letter in "äßéЖλ":
        record = Record(path=f"{letter}.jpg", object="nut", label=0)
        scene(1).save(folder.root / record.path)
        image = facts.image_facts(folder.root / record.path)
        drawn.add(
            contact_sheet(folder.root, [[findings.ListedImage("train", record, image, None)]])
        )
    assert len(drawn) == 5


def test_nothing_is_wrong_once_the_list_is_left_out(folder, tmp_path, capsys):
    """Of two labels both images go, of a leak those that train, of a broken mask its image."""
    pictures = folder.root / "images"
    saved_anew(folder)
    other_size(folder)
    Image.new("L", SIZE, 255).save(pictures / "train_6.jpg")
    shutil.copy(pictures / "train_8.jpg", folder.add("test", "b.jpg", label=1, has_mask=True))
    shutil.copy(pictures / "train_5.jpg", folder.add("train", "twin.jpg", label=1))
    (pictures / "train_4.jpg").write_bytes(b"GIF")
    root, first, out = folder.write(), tmp_path / "first.txt", f"--out={tmp_path}/out"
    assert run_check(root, f"--fix-list={first}", out) == 2
    named = {
        line for line in first.read_text(encoding="utf-8").splitlines() if not line.startswith("# ")
    }
    assert named == {f"images/train_{i}.jpg" for i in (3, 4, 5, 6, 8, 9)} | {"images/twin.jpg"}
    assert f"7 images to leave out, and why: dataset.leave_out={first}" in capsys.readouterr().out

    again = [f"dataset.leave_out={first}", out]
    assert run_check(root, *again) == 0
    said = capsys.readouterr().out
    assert f"{first}: 7 images are left out\n" in said
    assert said.endswith("20 images checked: nothing wrong\n")

    (pictures / "train_7.jpg").write_bytes(b"")  # what comes later is added
    assert run_check(root, *again, f"--fix-list={first}") == 2
    assert first.read_text(encoding="utf-8").count("images/train_7.jpg\n") == 1
    assert run_check(root, f"--fix-list={first}", out) == 2
    assert "exists already; name another file, or remove it" in capsys.readouterr().err
    assert run_check(root, *again) == 0


def test_a_list_of_strange_names(tmp_path, capsys):
    names = ["#1.jpg", "a b .jpg", "ä/[1].jpg"]
    write_fix_list(tmp_path / "list.txt", dict.fromkeys(names, "why"))
    with (tmp_path / "list.txt").open("a") as file:
        file.write("\r\n./elsewhere.jpg\r\n")
    records = [Record(path=name, object="nut", label=0) for name in (*names, "kept.jpg")]
    assert leave_out({"train": records, "test": []}, tmp_path / "list.txt") == {
        "train": records[3:],
        "test": [],
    }
    said = capsys.readouterr().out
    assert said == (
        f"{tmp_path}/list.txt: 3 images are left out; 1 of its 4 lines name no image here\n"
    )
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read"):
        leave_out({}, tmp_path / "gone.txt")


def test_a_test_of_one_label_stops_the_training_and_nothing_else(folder, capsys):
    del folder.meta["test"]["nut"][:8]
    root = folder.write()
    said = (
        "nut: all 4 test images are anomalous; AUROC and AUPR need both: give the test normal "
        "images"
    )
    options, data = written_options(root)
    assert run_py.main([str(options), data]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"{root}: {said}"
    assert not (root.parent / "run").exists()
    assert run_check(root, f"--out={root.parent}/out") == 2
    assert f"error: {said}\n" in capsys.readouterr().out
    clip = "baseline={model: {name: clip, arch: tiny-RN, pre_trained: random}}"
    untrained = ["teacher=null", "student=null", clip]
    assert run_check(root, *untrained, f"--out={root.parent}/out") == 0
    assert f"note: {said}\n" in capsys.readouterr().out


def test_the_folder_of_normal_images_is_asked_for(tmp_path, capsys):
    """As MVTec's screw, whose good test images were sorted into a folder 0."""
    for name, kinds in (("screw", ("0", "bent")), ("nut", ("good", "bent"))):
        for folder in ("train/good", *(f"test/{kind}" for kind in kinds)):
            (tmp_path / "data" / name / folder).mkdir(parents=True)
            for i in range(6):
                picture = scene(hash((name, folder, i)) % 10**6)
                picture.save(tmp_path / "data" / name / folder / f"{i}.png")
    options = write_smoke(tmp_path, tmp_path / "data")
    data = f"dataset={{name: mvtec, dir: {tmp_path}/data, split: 2cls, test_fraction: 0.5}}"
    assert run_py.main([str(options), data]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{tmp_path}/data: screw: all 6 test images are anomalous; AUROC and AUPR need both: give "
        "the test normal images, or name the folder of normal ones, now 0, bent: "
        "dataset.good=[good,ok,0], or leave the object out: dataset.objects=[nut]"
    )


@pytest.mark.parametrize("kind", ["", "dent"])  # in bad, dent could not be called normal
def test_no_folder_is_named_that_cannot_be_normal(tmp_path, capsys, kind):
    for i in range(18):
        place = tmp_path / "data" / ("train/good", "train/bad", f"test/bad/{kind}")[i // 6]
        place.mkdir(parents=True, exist_ok=True)
        scene(i).save(place / f"{i}.png")
    options = write_smoke(tmp_path, tmp_path / "data")
    assert run_py.main([str(options), f"dataset={{name: folder, dir: {tmp_path}/data}}"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(
            "data: all 6 test images are anomalous; AUROC and AUPR need both: give the test normal "
            "images; dataset.good and dataset.bad name the folders"
        )
    )


def test_each_choice_of_objects_has_its_report(tmp_path):

    def folder_of(root, objects=()):
        reader = Component("meta", {"split": "", "objects": objects})
        name = default_folder(Source(reader=reader, dir=tmp_path / root))
        page = tmp_path / name / "data_report.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"Images in `{tmp_path / root}`", encoding="utf-8")
        return name.name

    assert folder_of("a/data") == "data"
    assert folder_of("a/data", ("nut",)) == "data_nut"
    assert folder_of("a/data", ("a/b", "c")) == "data_a_b_c"
    assert folder_of("a/data") == "data"
    assert re.fullmatch(r"data_[0-9a-f]{6}", folder_of("b/data"))
    many = [folder_of("a/data", tuple(f"part {i}{end}" for i in range(30))) for end in "xy"]
    assert len({*many}) == 2
    assert max(map(len, many)) < 100


def test_empty_masks_of_normal_pictures_are_theirs(tmp_path):
    """As in KolektorSDD: ``kos01/Part0_label.bmp`` ..., and the same names in each folder."""
    for i in range(4):
        for j in range(3):
            area = np.zeros((60, 80), np.uint8)
            area[10:20, 10:20] = 255 * (i == j)
            path = tmp_path / f"kos{i:02d}/Part{j}.jpg"
            path.parent.mkdir(exist_ok=True)
            scene(10 * i + j, (80, 60)).save(path)
            Image.fromarray(area).save(path.with_name(f"Part{j}_label.bmp"))
    splits = DATASETS["folder"](tmp_path, labels="masks", object_name="part")
    records = [*splits["train"], *splits["test"]]
    assert sum(record.label for record in records) == 3
    (tmp_path / "kos00/Part9_label.bmp").write_bytes(path.read_bytes())
    found = list(findings.masks_of_nothing(tmp_path, records, is_whole=True))
    assert [finding.text for finding in found] == [
        "kos00: Part9_label.bmp is no listed image's mask; list the image, or remove the mask"
    ]


def test_names_that_are_long_and_texts_of_several_lines(tmp_path):
    names = ["n" * 250, "é" * 250, "n" * 251]
    for i in range(6):
        scene(i).save(tmp_path / f"{i}.png")
    records = [
        Record(path=f"{i}.png", object=names[i % 3], label=i // 3, defect="a dent\n|and a scratch")
        for i in range(6)
    ]
    found = inspect(tmp_path, {"train": records, "test": []}, store=NOWHERE)
    page = write_report(found, tmp_path / "out", "Data").read_text(encoding="utf-8")
    assert "| a dent /and a scratch |" in page
    sheets = {path.name for path in (tmp_path / "out").glob("*.jpg")}
    assert sheets == {f"{'n' * 150}.jpg", f"{'n' * 150}.1.jpg", f"{'é' * 75}.jpg"}


@pytest.mark.parametrize("name", ["a\ud800", "a\nb", "a\x00"])
def test_names_that_no_file_can_hold(tmp_path, name):
    entry = {"img_path": "0.png", "mask_path": "", "cls_name": name, "anomaly": 0}
    scene(0).save(tmp_path / "0.png")
    (tmp_path / "meta.json").write_text(
        json.dumps({"train": {name: [entry]}, "test": {}}), encoding="utf-8"
    )
    source = Source(reader=Component("meta", {"split": "", "objects": ()}), dir=tmp_path)
    with pytest.raises(UserError, match=re.escape(f"the name {name!r} is not UTF-8")):
        read_splits(source)


def test_errors_end_with_status_2(folder, tmp_path, capsys):
    truncated(folder)
    other_size(folder)
    assert run_check(folder.write(), f"--out={tmp_path}/out") == 2
    said = capsys.readouterr()
    assert said.err.endswith("24 images checked: 2 errors\n")
    assert said.out.count("train_3.jpg") == said.out.count("train_9.jpg") == 1
    assert (tmp_path / "out/data_report.md").is_file()


def test_a_report_among_the_data(folder, tmp_path, capsys):
    root = folder.write().rename(tmp_path / "outer")
    (tmp_path / "data").symlink_to(root)
    assert run_check(root) == 2
    assert "the report would lie among the data; name its folder: --out" in capsys.readouterr().err


def test_names_of_all_kinds(folder, tmp_path):
    for split in ("train", "test"):
        for i, entry in enumerate(folder.meta[split]["nut"]):
            entry["cls_name"] = ("a/b", "a b", "Mutter ü|", "...")[i % 4]
            entry["specie_name"] = "crack|dent" if entry["anomaly"] else ""
        by_name = {}
        for entry in folder.meta[split]["nut"]:
            by_name.setdefault(entry["cls_name"], []).append(entry)
        folder.meta[split] = by_name
    assert run_check(folder.write(), f"--out={tmp_path}/out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_b.jpg", "a_b.1.jpg", "Mutter_ü_.jpg", "object.jpg", "data_report.md"}


def training_check(root, *overrides):
    options, data = written_options(root)
    run = load(options, [data, *overrides])
    check_data(run, [job_of(run, name).data for name in ("teacher", "student")])


def test_training_is_stopped_by_what_spoils_it(folder, capsys):
    same_bytes(folder)
    other_size(folder)  # of no account: masks are not trained on
    root = folder.write()
    with pytest.raises(UserError) as stopped:
        training_check(root)
    first, *named = str(stopped.value).splitlines()
    assert first.startswith(f"{root}: 25 images checked: 1 error; python check.py")
    assert [line.split(":")[0] for line in named] == ["images/copy.jpg (test, normal)"]


def test_training_continues_with_one_line(folder, capsys):
    root = folder.write()
    for overrides in ((), ("dataset.cache=null",)):
        training_check(root, *overrides)
        assert capsys.readouterr().out == f"{root}: 24 images checked: nothing wrong\n"
    same_bytes(folder)
    folder.write()
    training_check(root, "dataset.allow_leak=all")
    assert "25 images checked: 1 warning; python check" in capsys.readouterr().out
    training_check(root, "dataset.allow_leak=[images/copy.jpg]")


@pytest.mark.parametrize("file", ["/dev/zero", ".", "missing.txt"])
def test_a_list_that_is_no_text_is_one_line(file):
    with pytest.raises(
        UserError, match=r"cannot be read .*; it is a text with a path in each line"
    ):
        read_fix_list(Path(file))
