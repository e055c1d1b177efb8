"""Decoded pictures on disk: the same bytes, known by content, made once, repaired if damaged."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from datasets import digests, pixels
from datasets.image import RESIZES, View
from datasets.pixels import DecodedPixels, ImageStore, ResidentPixels
from datasets.readers import visa
from datasets.record import Record
from utils.errors import UserError
from utils.store import Store

VIEW = View((16, 24), "full")
ROW_BYTES = 16 * 24 * 3 + 4


@pytest.fixture
def train(visa_root):
    return visa.read_visa(visa_root, split="2cls_highshot")["train"]


def cached(folder, root, records, view=VIEW, *, of=(), limit=None):
    return ImageStore(root, Store(folder, limit), [of]).pixels(records, view)


def contents(source, count):
    return [source(i).numpy().tobytes() for i in range(count)]


def is_decoded(found, root, records, view=VIEW):
    """Whether pixels are those of the files as they are now."""
    wanted = contents(DecodedPixels(root, records, view), len(records))
    return contents(found, len(records)) == wanted


def decoded_files(monkeypatch):
    """The files that are decoded from now on."""
    files, read = [], pixels.read_view

    def read_view(path, view):
        files.append(path)
        return read(path, view)

    monkeypatch.setattr(pixels, "read_view", read_view)
    return files


@pytest.mark.parametrize("resize", RESIZES)
def test_cached_pixels_are_the_decoded_ones(visa_root, train, tmp_path, resize):
    view = View((17, 51), resize)
    found = cached(tmp_path / "cache", visa_root, train, view)
    assert is_decoded(found, visa_root, train, view)
    assert found(0).stride() == DecodedPixels(visa_root, train, view)(0).stride() == (1, 51 * 3, 3)


def test_a_part_of_a_list_in_another_order_is_read_from_the_file_of_the_list(
    visa_root, train, tmp_path
):
    found = cached(tmp_path, visa_root, train[7:2:-1], of=train)
    assert is_decoded(found, visa_root, train[7:2:-1])
    (file,) = tmp_path.glob("*.pixels")
    assert file.stat().st_size == len(train) * ROW_BYTES


def test_it_is_made_once_whatever_the_order(visa_root, train, tmp_path, monkeypatch):
    cached(tmp_path, visa_root, train)
    files = decoded_files(monkeypatch)
    again = cached(tmp_path, visa_root, train[::-1])
    contents(again, len(train))
    assert files == []
    monkeypatch.undo()
    assert is_decoded(again, visa_root, train[::-1])


def test_it_travels_to_other_processes(visa_root, train, tmp_path):
    found = cached(tmp_path, visa_root, train)
    twin = pickle.loads(pickle.dumps(found))
    assert torch.equal(twin(3), found(3))


def test_resident_pixels_are_the_same(visa_root, train):
    decoded = DecodedPixels(visa_root, train, VIEW)
    resident = ResidentPixels.of(decoded, len(train), torch.device("cpu"))
    assert is_decoded(resident, visa_root, train)


# -- known by content


def uniform(root, grey, count=6):
    """Pictures of one name, size and time each, whatever they show: no cache may mix them up."""
    records = []
    for i in range(count):
        records.append(Record(path=f"{i}.bmp", object="nut", label=0))
        root.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (grey, i, 0)).save(root / f"{i}.bmp")
        os.utime(root / f"{i}.bmp", (0, 0))
    return records


def test_data_sets_with_equal_names_sizes_and_times_share_nothing(tmp_path):
    records = uniform(tmp_path / "line_a", 10)
    uniform(tmp_path / "line_b", 200)
    for name in ("line_a", "line_b", "line_a"):
        found = cached(tmp_path / "cache", tmp_path / name, records)
        assert is_decoded(found, tmp_path / name, records)


@pytest.mark.parametrize("how", ["rewritten", "renamed over"])
def test_a_picture_that_was_replaced_in_place_is_decoded_again(tmp_path, how):
    root, cache = tmp_path / "line", tmp_path / "cache"
    records = uniform(root, 10)
    cached(cache, root, records)
    before = (root / "0.bmp").stat()
    other = tmp_path / "other.bmp"
    Image.new("RGB", (30, 20), (99, 99, 99)).save(other)
    if how == "rewritten":
        (root / "0.bmp").write_bytes(other.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    if how == "renamed over":
        other.replace(root / "0.bmp")
    os.utime(root / "0.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (root / "0.bmp").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert is_decoded(cached(cache, root, records), root, records)


def test_moved_copied_and_renamed_pictures_are_not_decoded_again(
    visa_root, train, tmp_path, monkeypatch
):
    cached(tmp_path / "cache", visa_root, train)
    files = decoded_files(monkeypatch)
    copy = tmp_path / "copy"
    records = []
    for i, record in enumerate(train):
        (copy / f"{i}.jpg").parent.mkdir(exist_ok=True)
        shutil.copyfile(visa_root / record.path, copy / f"{i}.jpg")
        records.append(Record(path=f"{i}.jpg", object="other", label=1))
    found = cached(tmp_path / "cache", copy, records)
    contents(found, len(train))
    assert files == []
    moved = copy.rename(tmp_path / "moved")
    found = cached(tmp_path / "cache", moved, records)
    contents(found, len(train))
    assert files == []
    monkeypatch.undo()
    assert is_decoded(found, moved, records)


def test_copies_in_a_list_share_a_row(visa_root, train, tmp_path):
    shutil.copyfile(visa_root / train[1].path, visa_root / train[0].path)
    found = cached(tmp_path, visa_root, train)
    assert is_decoded(found, visa_root, train)
    (file,) = tmp_path.glob("*.pixels")
    assert file.stat().st_size == (len(train) - 1) * ROW_BYTES


def test_pictures_that_change_while_they_are_decoded_are_no_cache(
    visa_root, train, tmp_path, monkeypatch
):
    read = pixels.read_view

    def read_view(path, view):
        shutil.copyfile(visa_root / train[1].path, visa_root / train[0].path)
        return read(path, view)

    monkeypatch.setattr(pixels, "read_view", read_view)
    with pytest.raises(UserError, match="images changed while they were decoded; run it again"):
        cached(tmp_path, visa_root, train)
    assert not list(tmp_path.glob("*.pixels*[!k]"))
    monkeypatch.undo()
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)


# -- damaged


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize("position", [0, 1, 500, ROW_BYTES - 5, ROW_BYTES - 4, ROW_BYTES - 1, -1])
def test_a_flipped_byte_is_repaired(visa_root, train, tmp_path, capsys, position):
    file = cached(tmp_path, visa_root, train).entry.file
    whole = file.read_bytes()
    flip(file, position)
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)
    assert capsys.readouterr().out.count(f"{file}: damaged or removed; decoded again where") == 1
    assert file.read_bytes() == whole
    contents(cached(tmp_path, visa_root, train), len(train))
    assert capsys.readouterr().out == ""


def test_every_byte_of_a_row_is_checked(visa_root, train, tmp_path):
    found = cached(tmp_path, visa_root, train)
    file, whole = found.entry.file, found.entry.file.read_bytes()
    wanted = contents(found, 1)
    row = int(found.rows[0]) * ROW_BYTES
    for position in range(row, row + ROW_BYTES, 37):
        flip(file, position)
        assert contents(cached(tmp_path, visa_root, train), 1) == wanted
        assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"\0", b"garbage" * 999])
def test_a_file_that_is_garbage_is_repaired(visa_root, train, tmp_path, damage):
    file = cached(tmp_path, visa_root, train).entry.file
    whole = file.read_bytes()
    file.write_bytes(damage[: len(whole)].ljust(len(whole), b"\0"))
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 1, ROW_BYTES - 1, 3 * ROW_BYTES + 7])
def test_a_file_that_was_cut_is_made_again(visa_root, train, tmp_path, capsys, size):
    file = cached(tmp_path, visa_root, train).entry.file
    os.truncate(file, size)
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)
    assert f"{file}: is damaged: made again\n" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, ROW_BYTES - 1, 3 * ROW_BYTES + 7])
def test_a_file_that_is_cut_while_it_is_read(visa_root, train, tmp_path, capsys, size):
    """Rows that are not there must not come out as whatever was in memory."""
    found = cached(tmp_path, visa_root, train)
    assert is_decoded(found, visa_root, train)
    os.truncate(found.entry.file, size)
    assert is_decoded(found, visa_root, train)
    assert capsys.readouterr().out.count("damaged or removed") == 1
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)


def test_a_file_that_is_removed_while_it_is_read(visa_root, train, tmp_path, capsys):
    found = cached(tmp_path, visa_root, train)
    found.entry.file.unlink()
    assert is_decoded(found, visa_root, train)
    assert capsys.readouterr().out.count("damaged or removed") == 1
    assert not found.entry.file.exists()


def test_another_picture_is_never_written_into_the_row_of_the_one_before(
    visa_root, train, tmp_path
):
    found = cached(tmp_path, visa_root, train)
    file, row = found.entry.file, int(found.rows[0]) * ROW_BYTES
    whole = file.read_bytes()
    shutil.copyfile(visa_root / train[1].path, visa_root / train[0].path)
    flip(file, row)
    damaged = file.read_bytes()
    assert torch.equal(found(0), DecodedPixels(visa_root, train, VIEW)(0))
    assert file.read_bytes() == damaged != whole


# -- made once


def _read(folder, root, queue):
    records = visa.read_visa(root, split="2cls_highshot")["train"]
    queue.put(contents(cached(folder, root, records), len(records)))


def test_two_processes_at_once(visa_root, train, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_read, args=(tmp_path, visa_root, queue)) for _ in range(2)]
    for process in both:
        process.start()
    results = [queue.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    wanted = contents(DecodedPixels(visa_root, train, VIEW), len(train))
    assert results == [wanted, wanted]
    assert len(list(tmp_path.glob("*.pixels"))) == 1
    assert not list(tmp_path.glob("*.part"))


SLOW = """
import sys, time
from pathlib import Path
from datasets import pixels
from datasets.readers import visa
from datasets.image import View
from utils.store import Store
read = pixels.read_view
def slowly(*args):
    time.sleep(0.2)
    return read(*args)
pixels.read_view = slowly
root, folder = map(Path, sys.argv[1:])
records = visa.read_visa(root, split="2cls_highshot")["train"]
pixels.ImageStore(root, Store(folder)).pixels(records, View((16, 24), "full"))
"""


@pytest.mark.slow
def test_one_that_was_killed_is_made_again(visa_root, train, tmp_path):
    builder = subprocess.Popen(
        [sys.executable, "-c", SLOW, visa_root, tmp_path], stderr=subprocess.DEVNULL
    )
    while not any(part.stat().st_size for part in tmp_path.glob("*.part")):
        assert builder.poll() is None
        time.sleep(0.01)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert not list(tmp_path.glob("*.pixels"))
    assert is_decoded(cached(tmp_path, visa_root, train), visa_root, train)
    assert not list(tmp_path.glob("*.part"))


def test_broken_pictures_are_counted_and_nothing_is_left(visa_root, train, tmp_path):
    for i, record in enumerate(train[3:6]):
        (visa_root / record.path).write_bytes(b"no" * i)
    with pytest.raises(UserError, match=r"is not a picture \(\d bytes\).* \(and 2 more like it\)"):
        cached(tmp_path, visa_root, train)
    assert not list(tmp_path.glob("*.pixels")) + list(tmp_path.glob("*.part"))


def test_a_picture_that_is_missing(visa_root, train, tmp_path):
    (visa_root / train[0].path).unlink()
    with pytest.raises(UserError, match=r"000.JPG: cannot be read as a picture \(.*No such file"):
        cached(tmp_path, visa_root, train)


# -- how much is kept


def test_the_longest_unused_goes_first(visa_root, train, tmp_path):
    size = len(train) * ROW_BYTES
    for age, resize in enumerate(("full", "pad", "center_crop")):
        made = cached(tmp_path, visa_root, train, View((16, 24), resize))
        os.utime(made.entry.file, (age, age))
    cached(tmp_path, visa_root, train, View((16, 24), "full"))  # used again
    cached(tmp_path, visa_root, train, View((24, 16), "full"), limit=3 * size)
    left = {file.read_text(encoding="utf-8").split(", of ")[0] for file in tmp_path.glob("*.txt")}
    views = ("16x24, full", "16x24, center_crop", "24x16, full")
    assert left == {f"{len(train)} decoded images, {view}" for view in views}


def test_what_this_process_reads_is_never_removed(visa_root, train, tmp_path):
    size, other = len(train) * ROW_BYTES, View((24, 16), "full")
    found = cached(tmp_path, visa_root, train, limit=size)
    with pytest.raises(
        UserError, match=r"4.62e-05 GB are needed at once, dataset.cache_gb allows 2.31e-05; write"
    ):
        cached(tmp_path, visa_root, train, other, limit=size)
    assert is_decoded(found, visa_root, train)
    file = found.entry.file
    del found
    cached(tmp_path, visa_root, train, other, limit=size)
    assert not file.exists()


def test_what_this_process_reads_stays_even_if_it_is_the_longest_unused(visa_root, train, tmp_path):
    found = cached(tmp_path, visa_root, train)
    os.utime(found.entry.file, (0, 0))
    other = cached(tmp_path, visa_root, train, View((16, 24), "pad")).entry.file
    cached(tmp_path, visa_root, train, View((24, 16), "full"), limit=2 * len(train) * ROW_BYTES)
    assert found.entry.file.exists()
    assert not other.exists()


def test_a_file_larger_than_the_limit_is_refused(visa_root, train, tmp_path):
    with pytest.raises(UserError, match=r"write dataset\.cache_gb=0\.1, or name another folder wi"):
        cached(tmp_path, visa_root, train, limit=1000)
    assert not list(tmp_path.glob("*.pixels"))


def test_a_full_disk(visa_root, train, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 5))
    with pytest.raises(UserError, match=r"0\.0 GB are needed, 0\.0 are free; name another folder"):
        cached(tmp_path, visa_root, train)


def test_a_folder_that_cannot_be_written(visa_root, train, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be used \(Not a directory\); .*cache=null$"):
        cached(tmp_path / "file" / "cache", visa_root, train)


def test_a_disk_that_is_full_before_its_time(visa_root, train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(View, "__call__", full)
    with pytest.raises(UserError, match=r"pixels: cannot be written \(No space left on device\)"):
        cached(tmp_path, visa_root, train)
    assert not list(tmp_path.glob("*.pixels")) + list(tmp_path.glob("*.part"))


# -- digests


@pytest.fixture
def hashed(monkeypatch):
    """The files whose content is hashed."""
    files, original = [], digests.sha256_of

    def sha256_of(path):
        files.append(path.name)
        return original(path)

    monkeypatch.setattr(digests, "sha256_of", sha256_of)
    return files


@pytest.mark.parametrize("folder", ["cache", None])
def test_a_file_is_hashed_once_until_something_of_it_changes(tmp_path, hashed, folder):
    root, store = tmp_path / "line", Store(tmp_path / folder if folder else None)
    records = uniform(root, 10, count=3)
    images = ImageStore(root, store)
    first = images.digests(records)
    assert sorted(hashed) == ["0.bmp", "1.bmp", "2.bmp"]
    assert ImageStore(root.parent / "line" / ".." / "line", store).digests(records) == first
    assert len(hashed) == 3
    (root / "0.bmp").chmod(0o600)  # changes the ctime alone
    os.utime(root / "1.bmp", (1, 1))
    shutil.copyfile(root / "2.bmp", tmp_path / "2")
    (tmp_path / "2").replace(root / "2.bmp")
    assert images.digests(records) == first
    assert sorted(hashed[3:]) == ["0.bmp", "1.bmp", "2.bmp"]
    images.digests(records)
    assert len(hashed) == 6


@pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_each_property_of_a_file_counts(tmp_path, hashed, monkeypatch, field):
    images = ImageStore(tmp_path / "line", Store(tmp_path / "cache"))
    records = uniform(images.root, 10, count=1)
    images.digests(records)
    change_stat(monkeypatch, **{field: getattr((images.root / "0.bmp").stat(), field) + 1})
    images.digests(records)
    assert len(hashed) == 2


def change_stat(monkeypatch, **changes):
    """Lets files have other properties."""

    def stat(path):
        true = os.stat(path)  # noqa: PTH116
        fields = ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        return SimpleNamespace(**{field: getattr(true, field) for field in fields} | changes)

    monkeypatch.setattr(digests, "os", SimpleNamespace(path=os.path, stat=stat))


@pytest.mark.parametrize("ctime", [0, 10**9, 315_532_800 * 10**9])
def test_a_file_system_without_times_is_trusted_for_one_process(
    tmp_path, hashed, monkeypatch, ctime
):
    """Another image may be mounted there the next time, with the same names, sizes and inodes."""
    images = ImageStore(tmp_path / "line", Store(tmp_path / "cache"))
    records = uniform(images.root, 10, count=1)
    change_stat(monkeypatch, st_ctime_ns=ctime)
    first = [images.digests(records) for _ in range(2)]
    assert len(hashed) == 1
    monkeypatch.setattr(digests, "_PROCESS", b"another!")
    assert [images.digests(records), images.digests(records)] == first
    assert len(hashed) == 2
