"""Drawing test and validation images: shares, groups, copies."""

import contextlib
import itertools
import shutil
from collections import Counter
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from datasets.copies import group_copies
from datasets.record import Record, hold_out_defects
from datasets.split import carve_validation, draw_split, fewer_anomalies, fold_of, move_anomalies
from options.load import load
from tests.fixtures import job_of, write_smoke
from utils.errors import UserError
from utils.store import NOWHERE, Store


def record(i, label=0, shown="nut", group="", defect=""):
    return Record(path=f"{i}.png", object=shown, label=label, group=group, defect=defect)


def picture(name, size=(16, 12)):
    """A picture that looks like no other; the same for the same name."""
    pixels = np.random.default_rng(crc32(name.encode())).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def write(root, records, content=lambda record: record.path, **options):
    for r in records:
        picture(content(r), **options).save(root / r.path, compress_level=1)
    return root


def tally(records):
    return Counter((r.object, r.label) for r in records)


def test_each_object_and_label_in_its_share(tmp_path):
    records = [record(i, label=i % 3 == 0, shown="ab"[i % 2]) for i in range(120)]
    splits = draw_split(
        write(tmp_path, records), records, NOWHERE, test_fraction=0.25, split_seed=3
    )
    assert tally(splits["test"]) == {("a", 0): 10, ("b", 0): 10, ("a", 1): 5, ("b", 1): 5}
    assert sorted(r.path for part in splits.values() for r in part) == sorted(
        r.path for r in records
    )


def test_what_is_drawn_for_an_object_does_not_depend_on_the_others(tmp_path):
    records = [record(i, label=i % 4 // 2, shown="ab"[i % 2]) for i in range(40)]
    write(tmp_path, records)
    both = draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=0)
    alone = [r for r in records if r.object == "a"]
    assert draw_split(tmp_path, alone, NOWHERE, test_fraction=0.3, split_seed=0) == {
        split: [r for r in part if r.object == "a"] for split, part in both.items()
    }


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_together_and_shares_are_near(seed):
    records = [record(i, label=i % 2, group=f"patient {i // 6}") for i in range(240)]
    train, val = carve_validation(records, 0.3, seed)
    assert not {r.group for r in train} & {r.group for r in val}
    assert all(abs(count - 36) <= 3 for count in tally(val).values())


def test_groups_too_large_for_the_share_still_leave_one_for_each_side():
    records = [record(i, label=i % 2, group=f"{i // 50}") for i in range(150)]
    train, val = carve_validation(records, 0.05, 0)
    assert (len(train), len(val)) == (100, 50)


def test_one_group_of_everything_cannot_be_parted(tmp_path):
    records = [record(i, label=i % 2, group="the same") for i in range(20)]
    write(tmp_path, records)
    with pytest.raises(UserError, match="no group of images may hold them all"):
        draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=0)


def test_copies_are_found_by_content_and_join_the_groups_they_are_in(tmp_path):
    records = [record(i, group=group) for i, group in enumerate(("p", "", "q", "q", "", "", "r"))]
    texts = ["same", "same", "same", "abcd", "efgh", "efgi", "long"]
    content = {r.path: text for r, text in zip(records, texts, strict=True)}
    grouped = group_copies(write(tmp_path, records, lambda r: content[r.path]), records)
    groups = [r.group for r in grouped]
    assert len({groups[0], groups[1], groups[2], groups[3]}) == 1
    assert groups[4:6] == ["", ""]
    assert groups[6] == "r"


@pytest.mark.parametrize("seed", range(10))
def test_copies_never_lie_on_both_sides(tmp_path, seed):
    records = [record(i, label=i % 2) for i in range(60)]
    content = {r.path: f"{i % 2} {i // 4}" for i, r in enumerate(records)}  # pairs
    write(tmp_path, records, lambda r: content[r.path])
    splits = draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=seed)
    sides = [{content[r.path] for r in part} for part in splits.values()]
    assert not sides[0] & sides[1]
    _, val = carve_validation(splits["train"], 0.2, seed)
    left = [r for r in splits["train"] if r not in val]
    assert not {content[r.path] for r in val} & {content[r.path] for r in left}


def half(image):
    return image.resize((image.width // 2, image.height // 2))


def cropped(image):
    return image.crop((1, 1, image.width, image.height))


def brighter(image):
    return image.point(lambda value: 20 + int(0.9 * value))


@pytest.mark.parametrize("seed", range(3))
def test_changed_copies_never_lie_on_both_sides(tmp_path, seed):
    """Saved again, smaller, cropped by a pixel, brighter; also copies of a copy."""
    records = [record(i, label=i % 2) for i in range(32)]
    write(tmp_path, records, size=(320, 240))
    sets = [{f"{i}.png"} for i in range(8)]
    for i, change in enumerate([half, cropped, brighter] * 2 + [half, half]):
        shutil.copy(tmp_path / f"{i}.png", tmp_path / f"{i + 10}.png")
        change(Image.open(tmp_path / f"{i}.png")).save(tmp_path / f"{i + 20}.png")
        sets[i] |= {f"{i + 10}.png", f"{i + 20}.png"}
    splits = draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=seed)
    train, val = carve_validation(group_copies(tmp_path, splits["train"]), 0.3, seed)
    for side in ({r.path for r in part} for part in (splits["test"], train, val)):
        assert all(copies <= side or not copies & side for copies in sets)


def test_anomalies_that_are_like_normal_images_stay_on_their_side(tmp_path):
    """As a defect that is taken out of a picture leaves them."""
    splits = {
        "train": [record(i) for i in range(10)],
        "test": [record(i + 10) for i in range(10)]
        + [record(i + 20, label=1, defect="a") for i in range(20)],
    }
    write(tmp_path, splits["train"] + splits["test"])
    for i in range(6):  # 0, 1, 2 train, 10, 11, 12 are tested
        brighter(picture(f"{i % 3 + i // 3 * 10}.png")).save(tmp_path / f"{20 + i}.png")
    for seed in range(3):
        moved = move_anomalies(splits, tmp_path, NOWHERE, test_fraction=0.5, split_seed=seed)
        train, test = ({r.path for r in moved[split]} for split in ("train", "test"))
        assert {f"{i}.png" for i in (20, 21, 22)} <= train
        assert {f"{i}.png" for i in (23, 24, 25)} <= test
        assert len(train) == 10 + 3 + 7


def test_pictures_that_are_all_alike_are_split_all_the_same(tmp_path, capsys):
    """As those of one film; the check says that they leak."""
    records = [record(i, label=i % 2) for i in range(20)]
    write(tmp_path, records, lambda _: "the same")
    splits = draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=0)
    assert tally(splits["test"]) == {("nut", 0): 3, ("nut", 1): 3}
    assert "so many pictures are alike" in capsys.readouterr().out


def test_pictures_are_looked_at_once_for_all_draws(tmp_path, monkeypatch):
    records = [record(i, label=i % 2) for i in range(8)]
    write(tmp_path, records)
    store = Store(tmp_path / "cache")
    first = draw_split(tmp_path, records, store, test_fraction=0.3, split_seed=0)
    monkeypatch.setattr("datasets.check.facts.read_image", None)
    assert draw_split(tmp_path, records, store, test_fraction=0.3, split_seed=0) == first


@pytest.mark.parametrize("cache", ["null", "cache"])
def test_copies_in_a_split_of_its_own_never_lie_on_both_sides(visa_root, monkeypatch, cache):
    options = write_smoke(visa_root.parent, visa_root)
    run = load(options, ["dataset.val_fraction=0.4", f"dataset.cache={cache}"])
    monkeypatch.chdir(visa_root.parent)
    alone = job_of(run).data
    for first, second in itertools.pairwise(r.path for r in alone.train[:4] + alone.val[:4]):
        shutil.copy(visa_root / first, visa_root / second)
    for _ in range(2):  # the second time from the cache
        data = job_of(run).data
        sides = [
            {(visa_root / r.path).read_bytes() for r in part} for part in (data.train, data.val)
        ]
        assert not sides[0] & sides[1]
        assert data.hash == alone.hash  # the data set's own lists say nothing of copies


def test_some_of_every_defect_is_given_to_the_training(tmp_path):
    splits = {
        "train": [record(i) for i in range(10)],
        "test": [record(i + 10) for i in range(5)]
        + [record(i + 20, label=1, defect="ab"[i // 10]) for i in range(20)],
    }
    write(tmp_path, splits["train"] + splits["test"])
    moved = move_anomalies(splits, tmp_path, NOWHERE, test_fraction=0.4, split_seed=0)
    assert Counter(r.defect for r in moved["train"]) == {"": 10, "a": 6, "b": 6}
    assert Counter(r.defect for r in moved["test"]) == {"": 5, "a": 4, "b": 4}


def test_each_image_is_in_one_fold_and_each_object_and_label_in_all(tmp_path):
    records = [record(i, label=i % 4 == 0, shown="ab"[i % 8 > 3]) for i in range(80)]
    write(tmp_path, records)
    folds = [fold_of(tmp_path, records, NOWHERE, number, 5) for number in range(1, 6)]
    assert sorted(r.path for fold in folds for r in fold["test"]) == sorted(r.path for r in records)
    for fold in folds:
        assert tally(fold["test"]) == {("a", 0): 6, ("b", 0): 6, ("a", 1): 2, ("b", 1): 2}
        assert fold["train"] == [r for r in records if r not in fold["test"]]


def test_groups_and_copies_are_in_one_fold(tmp_path):
    records = [record(i, label=i % 2, group=f"g{i // 4}" if i < 20 else "") for i in range(60)]
    write(tmp_path, records, lambda r: "40.png" if r.path == "50.png" else r.path)
    for number in (1, 2, 3):
        tested = {r.path for r in fold_of(tmp_path, records, NOWHERE, number, 3)["test"]}
        assert ("40.png" in tested) == ("50.png" in tested)
        for group in range(5):
            members = {f"{i}.png" for i in range(4 * group, 4 * group + 4)}
            assert members <= tested or not members & tested


def test_folds_need_images_of_both_kinds(tmp_path):
    records = [record(i, label=i < 2) for i in range(20)]
    write(tmp_path, records)
    said = "fold 1 of 30: 20 training images, 2 of them anomalous, leave no anomalous one for"
    with pytest.raises(UserError, match=said):
        fold_of(tmp_path, records, NOWHERE, 1, 30)
    short = [fold_of(tmp_path, records, NOWHERE, number, 2) for number in (1, 2)]
    assert [sum(r.label for r in fold["test"]) for fold in short] == [1, 1]
    # Of four parts two hold one of the two anomalous images.
    tested = []
    for number in range(1, 5):
        with contextlib.suppress(UserError):
            tested.append(fold_of(tmp_path, records, NOWHERE, number, 4)["test"])
    assert [sum(r.label for r in part) for part in tested] == [1, 1]


def test_a_fold_is_the_same_for_each_seed_and_reads_no_test_image(tmp_path, visa_root):
    path, fold = write_smoke(tmp_path, visa_root), "dataset.fold=[2,3]"
    everything, usual = lists_of(path)
    learned, splits = lists_of(path, fold)
    assert lists_of(path, fold, "misc.seed=99")[1] == splits
    paths = {r.path for r in everything}
    tested = {r.path for r in splits["test"]}
    assert tested < paths
    assert {r.path for r in learned} == paths - tested
    assert not tested & {r.path for r in usual["test"]}
    for wrong in ("[0,3]", "[4,3]", "[1,1]", "[1,101]"):
        with pytest.raises(UserError, match=r"fold: must be \[number, of how many\], as in \[1"):
            load(path, [f"dataset.fold={wrong}"])
    with pytest.raises(UserError, match="fold: tests training images; remove hold_out"):
        load(path, [fold, "dataset.hold_out=[candle]"])


@pytest.mark.parametrize("labels", [(0, 0, 0, 1), (0, 1, 1, 1), (1, 1, 1, 1)])
def test_too_few_to_part(tmp_path, labels):
    records = [record(i, label=label) for i, label in enumerate(labels)]
    write(tmp_path, records)
    with pytest.raises(UserError, match="there must be at least two of each"):
        draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=0)


def test_normal_images_alone_are_parted(tmp_path):
    records = [record(i) for i in range(10)]
    write(tmp_path, records)
    splits = draw_split(tmp_path, records, NOWHERE, test_fraction=0.3, split_seed=0)
    assert [len(part) for part in splits.values()] == [7, 3]
    train, val = carve_validation(splits["train"], 0.3, 0, labels=(0,))
    assert (len(train), len(val)) == (5, 2)
    with pytest.raises(UserError, match="training images hold no normal image"):
        carve_validation([record(i, label=1) for i in range(4)], 0.3, 0, labels=(0,))


def test_fewer_anomalies_are_a_part_of_more_and_all_normal_images_stay():
    records = [record(i, label=i % 2, shown="ab"[i // 20]) for i in range(40)]
    drawn = {k: fewer_anomalies(records, k, 0) for k in (0, 2, 5, 99, None)}
    assert tally(drawn[2]) == {("a", 0): 10, ("b", 0): 10, ("a", 1): 2, ("b", 1): 2}
    assert set(drawn[0]) < set(drawn[2]) < set(drawn[5])
    assert drawn[99] == drawn[None] == records
    assert fewer_anomalies(records[20:], 5, 0) == [r for r in drawn[5] if r.object == "b"]
    assert fewer_anomalies(records[::-1], 5, 0) == drawn[5][::-1]
    assert fewer_anomalies(records, 5, 1) != drawn[5]


def test_fewer_anomalies_leave_the_test_as_it_is(tmp_path, visa_root):
    path = write_smoke(tmp_path, visa_root)
    every = job_of(load(path))
    few = job_of(load(path, ["dataset.max_anomalies=2"]))
    learned = [*few.data.train, *few.data.val]
    assert sum(r.label for r in learned) == 2 * 2
    assert {r.path for r in learned} < {r.path for r in [*every.data.train, *every.data.val]}
    assert few.splits == every.splits
    assert few.data.hash == every.data.hash


def lists_of(path, *overrides):
    """Training images, validation included, and test images, each with its object and label."""
    job = job_of(load(path, overrides))
    return [*job.data.train, *job.data.val], job.splits


def test_a_held_out_object_is_given_back_a_few_anomalies(tmp_path, visa_root):
    path, held = write_smoke(tmp_path, visa_root), "dataset.hold_out=[candle]"
    none, splits = lists_of(path, held)
    assert {r.object for r in none} == {"pipe_fryum"}
    before: set[str] = set()
    for count in (0, 1, 3):
        learned, same = lists_of(path, held, f"dataset.hold_out_anomalies={count}")
        assert same["test"] == splits["test"]
        assert tally(learned) == {
            **tally(none),
            ("candle", 0): 6,
            **({("candle", 1): count} if count else {}),
        }
        paths = {r.path for r in learned if r.label}
        assert before <= paths
        before = paths
    both = ["dataset.hold_out_anomalies=3", "dataset.max_anomalies=2"]
    few, _ = lists_of(path, held, *both)
    assert tally(few) == {**tally(learned), ("pipe_fryum", 1): 2}


def test_held_out_defects_are_not_trained_on_and_tested_alone():
    texts = ["normal", "a", "b", "a,b", "b_c", "b_c,b", "anomaly"]
    records = [record(i, label=int(i > 0), defect=text) for i, text in enumerate(texts)]
    splits = {"train": records, "test": [*records, record(9, shown="without")]}

    def left(*names):
        found = hold_out_defects(splits, names, "here")
        return {side: [r.defect for r in part] for side, part in found.items()}

    assert left("a") == {
        "train": ["normal", "b", "b_c", "b_c,b", "anomaly"],
        "test": ["normal", "a"],  # neither "a,b" nor the object without this defect
    }
    assert left("b_c", "b")["test"] == ["normal", "b", "b_c", "b_c,b"]
    with pytest.raises(UserError, match="here: no defect 'd'; there are a, b, b c"):
        left("d")
    splits["train"] = records[:2]
    with pytest.raises(UserError, match="here: no anomalous image is left to train on; there are"):
        left("a")


def test_held_out_anomalies_need_a_held_out_object(tmp_path, visa_root):
    with pytest.raises(UserError, match="hold_out_anomalies: write hold_out, the objects"):
        load(write_smoke(tmp_path, visa_root), ["dataset.hold_out_anomalies=3"])
