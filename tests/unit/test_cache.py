"""Decoded pictures on disk: the same bytes, made once, whoever else comes or is killed."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from datasets import cache
from datasets.cache import CachedPixels, list_caches, open_cache
from datasets.image import RESIZES, View
from datasets.pixels import DecodedPixels, ResidentPixels
from datasets.readers import visa
from utils.errors import UserError

VIEW = View((16, 24), "full")


@pytest.fixture
def train(visa_root):
    return visa.read_visa(visa_root, split="2cls_highshot")["train"]


def same(pixels, decoded, count):
    return all(torch.equal(pixels(i), decoded(i)) for i in range(count))


@pytest.mark.parametrize("resize", RESIZES)
def test_cached_pixels_are_the_decoded_ones(visa_root, train, tmp_path, resize):
    view = View((17, 51), resize)
    cached = open_cache(tmp_path / "cache", visa_root, train, view)
    decoded = DecodedPixels(visa_root, train, view)
    assert same(cached, decoded, len(train))
    assert cached(0).stride() == decoded(0).stride() == (1, 51 * 3, 3)
    assert [p.suffix for p in sorted((tmp_path / "cache").iterdir())] == [
        ".json",
        ".pixels",
        ".lock",
    ]


def test_some_of_them_in_another_order(visa_root, train, tmp_path):
    wanted = train[7:2:-1]
    cached = open_cache(tmp_path, visa_root, train, VIEW, wanted=wanted)
    assert same(cached, DecodedPixels(visa_root, wanted, VIEW), len(wanted))


def test_it_is_made_once_whatever_the_order(visa_root, train, tmp_path, monkeypatch):
    open_cache(tmp_path, visa_root, train, VIEW)
    monkeypatch.setattr(cache, "read_view", None)
    again = open_cache(tmp_path, visa_root, train[::-1], VIEW)
    monkeypatch.undo()
    assert same(again, DecodedPixels(visa_root, train[::-1], VIEW), len(train))


def test_a_picture_that_changed_is_decoded_again(visa_root, train, tmp_path):
    open_cache(tmp_path, visa_root, train, VIEW)
    shutil.copy(visa_root / train[1].path, visa_root / train[0].path)
    now = open_cache(tmp_path, visa_root, train, VIEW)
    assert torch.equal(now(0), now(1))
    assert len(list(tmp_path.glob("*.pixels"))) == 2


def test_it_travels_to_other_processes(visa_root, train, tmp_path):
    pixels = open_cache(tmp_path, visa_root, train, VIEW)
    twin = pickle.loads(pickle.dumps(pixels))
    assert torch.equal(twin(3), pixels(3))


def _open(folder, root, queue):
    records = visa.read_visa(root, split="2cls_highshot")["train"]
    pixels = open_cache(folder, root, records, VIEW)
    queue.put([pixels(i).numpy().tobytes() for i in range(len(records))])


def test_two_processes_at_once(visa_root, train, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_open, args=(tmp_path, visa_root, queue)) for _ in range(2)]
    for process in both:
        process.start()
    results = [queue.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    decoded = DecodedPixels(visa_root, train, VIEW)
    wanted = [decoded(i).numpy().tobytes() for i in range(len(train))]
    assert results == [wanted, wanted]
    assert len(list(tmp_path.glob("*.pixels"))) == 1
    assert not list(tmp_path.glob("*.part"))


SLOW = """
import sys, time
from pathlib import Path
from datasets import cache
from datasets.readers import visa
from datasets.image import View
read = cache.read_view
def slowly(*args):
    time.sleep(0.2)
    return read(*args)
cache.read_view = slowly
root, folder = map(Path, sys.argv[1:])
records = visa.read_visa(root, split="2cls_highshot")["train"]
cache.open_cache(folder, root, records, View((16, 24), "full"))
"""


def test_one_that_was_killed_is_made_anew(visa_root, train, tmp_path):
    builder = subprocess.Popen(
        [sys.executable, "-c", SLOW, visa_root, tmp_path], stderr=subprocess.DEVNULL
    )
    while not any(part.stat().st_size for part in tmp_path.glob("*.part")):
        assert builder.poll() is None
        time.sleep(0.01)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert not list(tmp_path.glob("*.pixels"))
    pixels = open_cache(tmp_path, visa_root, train, VIEW)
    assert same(pixels, DecodedPixels(visa_root, train, VIEW), len(train))
    assert not list(tmp_path.glob("*.part"))


def test_broken_pictures_are_counted_and_nothing_is_left(visa_root, train, tmp_path):
    for record in train[3:6]:
        (visa_root / record.path).write_bytes(b"")
    with pytest.raises(UserError, match=r"is not a picture \(0 bytes\).* \(and 2 more like it\)"):
        open_cache(tmp_path, visa_root, train, VIEW)
    assert not list(tmp_path.glob("*.pixels")) + list(tmp_path.glob("*.part"))


def test_the_longest_unused_goes_first(visa_root, train, tmp_path):
    size = len(train) * 16 * 24 * 3
    for age, resize in enumerate(("full", "pad", "center_crop")):
        made = open_cache(tmp_path, visa_root, train, View((16, 24), resize))
        os.utime(made.file, (age, age))
    open_cache(tmp_path, visa_root, train, View((16, 24), "full"))  # used again
    other = View((24, 16), "full")
    open_cache(tmp_path, visa_root, train, other, limit=3 * size)
    left = {(row["resize"], row["size"]) for _, row in list_caches(tmp_path).iterrows()}
    assert left == {("full", "16x24"), ("center_crop", "16x24"), ("full", "24x16")}


def test_what_this_process_reads_is_never_removed(visa_root, train, tmp_path):
    size, other = len(train) * 16 * 24 * 3, View((24, 16), "full")
    pixels = open_cache(tmp_path, visa_root, train, VIEW, limit=size)
    with pytest.raises(
        UserError, match=r"need 4.61e-05 GB, dataset.cache_gb allows 2.3e-05; datas"
    ):
        open_cache(tmp_path, visa_root, train, other, limit=size)
    assert same(pixels, DecodedPixels(visa_root, train, VIEW), len(train))
    del pixels
    open_cache(tmp_path, visa_root, train, other, limit=size)
    assert list_caches(tmp_path)["size"].tolist() == ["24x16"]


def test_one_that_is_larger_than_all_may_be(visa_root, train, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.cache_gb=0\.1, or name another folder with d"):
        open_cache(tmp_path, visa_root, train, VIEW, limit=1000)
    assert not list(tmp_path.glob("*.pixels"))


def test_one_that_was_cut_off_is_made_anew(visa_root, train, tmp_path):
    file = open_cache(tmp_path, visa_root, train, VIEW).file
    os.truncate(file, 1000)
    pixels = open_cache(tmp_path, visa_root, train, VIEW)
    assert same(pixels, DecodedPixels(visa_root, train, VIEW), len(train))


def test_a_full_disk(visa_root, train, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 5))
    with pytest.raises(UserError, match=r"need 0\.0 GB, 0\.0 are free; name another folder with d"):
        open_cache(tmp_path, visa_root, train, VIEW)


def test_a_folder_that_cannot_be_written(visa_root, train, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot keep decoded images \(Not a dir.*cache=null$"):
        open_cache(tmp_path / "file" / "cache", visa_root, train, VIEW)


def test_a_disk_that_is_full_before_its_time(visa_root, train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(View, "__call__", full)
    with pytest.raises(UserError, match=r"cannot keep decoded images \(No space left on device"):
        open_cache(tmp_path, visa_root, train, VIEW)
    assert not list(tmp_path.glob("*.pixels")) + list(tmp_path.glob("*.part"))


def test_one_that_was_removed_meanwhile(tmp_path):
    with pytest.raises(UserError, match="was removed while in use"):
        CachedPixels(tmp_path / "gone.pixels", [0], (2, 2))(0)


def test_resident_pixels_are_the_same(visa_root, train):
    decoded = DecodedPixels(visa_root, train, VIEW)
    resident = ResidentPixels.of(decoded, len(train), torch.device("cpu"))
    assert same(resident, decoded, len(train))


def test_command(visa_root, train, capsys):
    folder = visa_root / "cache"
    open_cache(folder, visa_root, train, VIEW)
    (folder / "answers.targets").write_bytes(b"")
    assert cache.main(["--list", "--dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "| 16x24  | full" in said
    assert said.endswith(f"{folder}: in all 1 caches, 0.000 GB\n")
    assert cache.main(["--clear", "--dir", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: removed 1 caches, 0.000 GB\n"
    assert [p.suffix for p in folder.iterdir()] == [".lock"]
    assert cache.main(["--list", "--dir", str(folder / "nowhere")]) == 0
