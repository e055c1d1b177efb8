"""The folder of caches: what is made once, what is removed, and what damage does."""

import json
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import cache as cache_py
from utils.cache_files import hash_of
from utils.errors import UserError
from utils.fact_table import FactTable
from utils.lock import hold
from utils.store import Store

PARTS = ("weights", "sentences")


class Maker:
    """Content, and how often it was made."""

    def __init__(self, content=b"what took long to make"):
        self.content, self.calls = content, 0

    def __call__(self):
        self.calls += 1
        return self.content


def kept(folder, make, parts=PARTS, suffix="prompts"):
    return Store(folder).load_or_make(parts, suffix, make, "embeddings of two sentences")


def files(folder, suffix):
    return sorted(folder.glob(f"*.{suffix}"))


def test_it_is_made_once(tmp_path):
    make = Maker()
    for _ in range(3):
        assert kept(tmp_path / "a" / "b", make) == make.content
    assert make.calls == 1


@pytest.mark.parametrize(
    "other",
    [("weights", "sentence"), ("weightssentences",), ("sentences", "weights"), (*PARTS, "")],
    ids=str,
)
def test_what_it_depends_on_is_its_name(tmp_path, other):
    kept(tmp_path, Maker(b"one"))
    assert kept(tmp_path, Maker(b"other"), other) == b"other"
    assert kept(tmp_path, Maker(b"third"), suffix="targets") == b"third"
    assert kept(tmp_path, None) == b"one"


def test_names_do_not_change_from_run_to_run(tmp_path):
    kept(tmp_path, Maker())
    assert [file.name for file in files(tmp_path, "prompts")] == ["69a323b399e0216b-ccb6.prompts"]


def test_without_a_folder_it_is_made_each_time_and_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, make = Store(None), Maker()
    for _ in range(2):
        assert kept(None, make) == make.content
    assert store.load(PARTS, "prompts") is None
    store.facts.put({"a test:": b"fact"})
    assert store.facts.get(["a test:"]) == {"a test:": b"fact"}
    assert make.calls == 2
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_is_loaded(tmp_path):
    assert Store(tmp_path).load(PARTS, "prompts") is None
    kept(tmp_path, Maker())
    assert Store(tmp_path).load(PARTS, "prompts") == Maker().content


def _make_slowly(folder, started, queue):
    def make():
        started.set()
        time.sleep(0.5)
        queue.put("made")
        return b"content"

    queue.put(kept(folder, make))


def test_of_several_processes_one_makes_it(tmp_path):
    context = multiprocessing.get_context("fork")
    queue, started = context.Queue(), context.Event()
    both = [context.Process(target=_make_slowly, args=(tmp_path, started, queue)) for _ in range(2)]
    both[0].start()
    assert started.wait(60)
    both[1].start()
    assert sorted(str(queue.get(timeout=60)) for _ in range(3)) == ["b'content'"] * 2 + ["made"]
    for process in both:
        process.join()


# -- damage


@pytest.mark.parametrize("position", [*range(0, 32, 5), *range(32, 54, 3), -1])
def test_a_flipped_byte_is_found_and_the_file_made_again(tmp_path, capsys, position):
    make = Maker()
    kept(tmp_path, make)
    (file,) = files(tmp_path, "prompts")
    whole = file.read_bytes()
    content = bytearray(whole)
    content[position] ^= 1
    file.write_bytes(content)
    assert kept(tmp_path, make) == make.content
    assert make.calls == 2
    assert capsys.readouterr().err == f"{file}: is damaged: made again\n"
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"\0", b"garbage" * 99, bytes(54)])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    make = Maker()
    kept(tmp_path, make)
    (file,) = files(tmp_path, "prompts")
    file.write_bytes(damage)
    assert Store(tmp_path).load(PARTS, "prompts") is None
    assert kept(tmp_path, make) == make.content
    assert Store(tmp_path).load(PARTS, "prompts") == make.content


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert kept(tmp_path / "file" / "cache", Maker()) == Maker().content
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(".prompts: is not kept (Not a directory)")


def test_what_has_no_room_is_not_kept(tmp_path, capsys):
    make = Maker()
    assert Store(tmp_path, limit=10).load_or_make(PARTS, "prompts", make, "") == make.content
    assert "is not kept" in capsys.readouterr().err
    assert files(tmp_path, "prompts") == []


def test_errors_of_the_maker_are_its_own(tmp_path):
    def make():
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        kept(tmp_path, make)


# -- list and clear


OTHERS = {
    "holiday.part": b"film",
    "notes.json": b'{"images": 1, "size": [1, 1], "resize": "full", "root": "/"}',
    "my.sqlite": b"",
    "photo.pixels": b"raw",
    "0123456789abcdef.txt": b"a list",
    "0123456789abcdef.pixels": b"raw",
    "0123456789abcdef.json": b'{"images": 1}',
    "0123456789abcdef.targets": b"\x10" + bytes(7) + b'{"weights": {}} ',
    "0123456789abcdef.pixels.lock": b"not empty",
    "0123456789abcdef-0123.prompts": b"",
    "0123456789abcdef-0123456789abcdef.prompts": b"[" * 5000,
    "fedcba9876543210.json": b"[" * 100_000,
    "fedcba9876543210.pixels": b"raw",
}


def others(folder):
    """Files of the user's own, some with names much like those of caches."""
    folder.mkdir(exist_ok=True)
    for name, content in OTHERS.items():
        (folder / name).write_bytes(content)
    with closing(sqlite3.connect(folder / "checked.sqlite")) as table, table:
        table.execute("CREATE TABLE facts_2 (x)")
        table.execute("CREATE TABLE invoices (x)")
    (folder / "photos").mkdir()
    (folder / "photos" / "a.pixels").write_bytes(b"raw")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def former(folder):
    """Files as earlier versions of this program wrote them; returns how many."""
    names = [f"{i:016x}" for i in range(3)]
    about = {"images": 2, "size": [4, 4], "resize": "full", "root": "data/visa"}
    (folder / f"{names[0]}.pixels").write_bytes(bytes(96))
    (folder / f"{names[0]}.pixels.lock").write_bytes(b"")
    (folder / f"{names[0]}.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    (folder / f"{names[1]}.part").write_bytes(bytes(50))  # of a killed process
    (folder / f"{names[1]}.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    outputs = {"logits": torch.zeros(2, 2), "features": torch.zeros(2, 8)}
    (folder / f"{names[2]}.targets").write_bytes(save(outputs))
    texts = {"texts": torch.zeros(2, 8)}
    (folder / f"{names[0]}-{names[1]}.prompts").write_bytes(save(texts))
    with closing(sqlite3.connect(folder / "checked.sqlite")) as table, table:
        table.execute("CREATE TABLE facts_2 (file TEXT PRIMARY KEY)")
    return 8


def own(folder):
    """Files as this version writes them, some damaged; returns how many."""
    store, before = Store(folder), list(folder.glob("*"))
    store.load_or_make(["a"], "prompts", Maker(), "embeddings of two sentences")
    store.load_or_make(["b"], "targets", Maker(), "outputs of a teacher")
    store.open(["c"], "pixels", 10, lambda out: out.write(bytes(10)), "2 decoded images")
    store.facts.put({"key:": b"fact"})
    fresh = {file.suffix: file for file in folder.iterdir() if file not in before}
    prompts, targets, pixels = fresh[".prompts"], fresh[".targets"], fresh[".pixels"]
    prompts.write_bytes(b"")
    targets.with_suffix(".txt").write_bytes(b"\xff\0\n" * 99)
    pixels.with_suffix(".txt").unlink()
    Path(f"{pixels}.part").write_bytes(b"of a killed process")
    return 3 + 2 + 4 + 2  # with descriptions, locks, part and the table


def command(capsys, *arguments):
    status = cache_py.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_clear_removes_what_the_program_wrote_and_nothing_else(tmp_path, capsys):
    folder = tmp_path / "cache"
    before = others(folder)
    count = own(folder)
    status, out, err = command(capsys, "--clear", "--dir", folder)
    assert (status, err) == (0, "")
    left = len(OTHERS) + 2
    assert out == f"{folder}: removed {count} files, 0.000 GB; {left} others are left\n"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_clear_removes_caches_of_earlier_versions(tmp_path, capsys):
    count = former(tmp_path) + own(tmp_path)
    _, out, _ = command(capsys, "--clear", "--dir", tmp_path)
    assert out == f"{tmp_path}: removed {count} files, 0.000 GB\n"
    assert list(tmp_path.iterdir()) == []
    assert command(capsys, "--clear", "--dir", tmp_path / "none")[1].endswith(
        "none: removed 0 files, 0.000 GB\n"
    )


def test_clear_follows_no_link(tmp_path, capsys):
    own(tmp_path / "cache")
    (file,) = files(tmp_path / "cache", "targets")
    file.replace(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    command(capsys, "--clear", "--dir", tmp_path / "cache")
    assert (tmp_path / "elsewhere").exists()
    assert list((tmp_path / "cache").iterdir()) == [file]


def test_list_shows_each_file_whatever_is_wrong_with_it(tmp_path, capsys):
    others(tmp_path / "cache")
    count = own(tmp_path / "cache")
    (tmp_path / "cache/checked.sqlite").unlink()
    count += former(tmp_path / "cache")
    status, out, _ = command(capsys, "--list", "--dir", tmp_path / "cache")
    assert status == 0
    *lines, total = out.splitlines()
    assert total == f"{tmp_path}/cache: {count} files, 0.000 GB"
    shown = [line.split("  ")[-2:] for line in lines]
    assert {Path(name).suffix for name, _ in shown} == {
        ".pixels",
        ".prompts",
        ".sqlite",
        ".targets",
    }
    assert sorted(what for _, what in shown) == [
        *["checksums of images and results of checks", "decoded images"],
        "embeddings of two sentences",
        *["of an earlier version, not used any more"] * 4,
        "\N{REPLACEMENT CHARACTER}\0 " * 66 + "\N{REPLACEMENT CHARACTER}\0",
    ]


def test_files_of_earlier_versions_make_room_and_nothing_else_does(tmp_path):
    before = others(tmp_path)
    (tmp_path / "checked.sqlite").unlink()
    former(tmp_path)
    store = Store(tmp_path, limit=20)
    store.facts.put({"key:": b"fact"})
    (tmp_path / "0000000000000000.txt").write_text("of the user", encoding="utf-8")
    store.open(["c"], "pixels", 10, lambda out: out.write(bytes(10)), "")
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {path.name for path in before if path.parent == tmp_path}
    assert left >= {store.facts.file.name, "0000000000000000.txt", "checked.sqlite"}
    names = {"0000000000000000.pixels", "0000000000000002.targets"}
    assert not left & {*names, "0000000000000000-0000000000000001.prompts"}


def test_help_loads_no_network():
    code = (
        "import sys, cache\n"
        "try: cache.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "python cache.py --clear" in done.stdout


def test_the_former_command_names_the_new_one():
    done = subprocess.run(
        [sys.executable, "-m", "datasets.cache", "--list"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m datasets.cache: the command is now: python cache.py --list\n"


# -- facts


FACTS = {f"file:/data/{i}.jpg": b"%d" % i * 50 for i in range(1200)}


@pytest.fixture(params=["file", "memory"])
def table(request, tmp_path):
    return FactTable(tmp_path / "facts.sqlite" if request.param == "file" else None)


def test_facts_come_back(table):
    table.put({**FACTS, "file:/data0": b"", "file:/dat\udcff/a": b"no UTF-8"})
    table.put({"file:/data/0.jpg": b"new"})
    assert table.get([*FACTS, "nothing"]) == {**FACTS, "file:/data/0.jpg": b"new"}
    assert table.get([]) == {}
    assert table.get(FACTS, start="file:/data/") == {**FACTS, "file:/data/0.jpg": b"new"}
    some = ["file:/data/1.jpg", "file:/data/nothing"]
    assert table.get(some, start="file:/data/") == {some[0]: FACTS[some[0]]}
    name = "file:/dat\udcff/a"
    assert table.get([name], start=name[:-1]) == table.get([name]) == {name: b"no UTF-8"}
    assert table.keys("file:/data/1") == {key for key in FACTS if key.startswith("file:/data/1")}
    table.put({})


def test_facts_without_a_file_are_those_of_the_process():
    FactTable(None).put({"a": b"1"})
    assert FactTable(None).get(["a"]) == {"a": b"1"}


@pytest.mark.slow
def test_a_flipped_byte_makes_no_fact_wrong(tmp_path, capsys):
    """At many places of the file: a fact is right or absent; other errors are one line."""
    file = tmp_path / "facts.sqlite"
    some = dict(list(FACTS.items())[:200])
    FactTable(file).put(some)
    whole = file.read_bytes()
    absent = made_again = refused = 0
    for position in [*range(100), *range(100, len(whole), 211)]:
        content = bytearray(whole)
        content[position] ^= 0x41
        file.write_bytes(content)
        table = FactTable(file)
        try:
            found = table.get(some)
            assert table.get(some, start="file:/data/").items() <= some.items()
            table.keys("file:")
            table.put({"file:/data/0.jpg": some["file:/data/0.jpg"]})
        except UserError as error:
            refused += (
                re.fullmatch(rf"{file}: cannot be used \(.*\); remove it, .*", str(error))
                is not None
            )
        else:
            assert found.items() <= some.items()
            absent += len(found) < len(some)
        made_again += "is damaged" in capsys.readouterr().err
    assert absent > 10
    assert made_again > 10
    assert refused < 5


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "NULL", "7"])
def test_a_row_of_another_type_is_absent(tmp_path, value):
    table = FactTable(tmp_path / "facts.sqlite")
    table.put({"a": b"1", "b": b"2"})
    with closing(sqlite3.connect(table.file)) as database, database:
        database.execute(f"UPDATE facts SET value = {value} WHERE key = x'61'")
    assert table.get(["a", "b"]) == {"b": b"2"}


@pytest.mark.parametrize("damage", [b"", b"\0", b"garbage" * 999, "cut"])
def test_a_damaged_table_is_made_again(tmp_path, damage):
    file = tmp_path / "facts.sqlite"
    FactTable(file).put(FACTS)
    file.write_bytes(file.read_bytes()[:30_000] if damage == "cut" else damage)
    table = FactTable(file)
    assert table.get(FACTS).items() <= FACTS.items()
    table.put(FACTS)
    assert table.get(FACTS) == FACTS


def test_hashes_have_sixteen_digits():
    assert hash_of(["a"]) == hash_of(["a"]) != hash_of(["a", ""])
    assert len(hash_of(["\ud800"])) == 16


def test_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / "cache"
    kept(folder, Maker())
    (first,) = folder.glob("*.prompts")
    parts = [Path(f"{first}.part"), folder / "holiday.part", folder / f"{first.stem}.part"]
    for part in parts:
        part.write_bytes(b"half")
        os.utime(part, (1, 1))
    with parts[0].open("rb") as other:
        assert hold(other)
        kept(folder, Maker(), parts=("b",))
    assert parts[0].exists()
    kept(folder, Maker(), parts=("c",))
    assert [part.exists() for part in parts] == [False, True, True]
