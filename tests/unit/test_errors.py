"""What a program says and returns when it is ended early."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tqdm import tqdm

from benchmarks.reliability import on_screen
from utils import errors
from utils.errors import Interrupted, UserError, run_command


class HalfMade:
    def __del__(self):
        raise AttributeError("no attribute 'pos'")


@pytest.fixture
def hook(monkeypatch):
    """Puts back what a program changes when it ends."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


def test_an_interrupted_program_prints_nothing_after_its_last_line(hook, capsys):
    def command():
        bar = HalfMade()
        raise KeyboardInterrupt(bar)

    assert run_command(command) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"
    assert hook == []


def test_no_progress_bar_is_left_beside_the_last_line(hook, capsys):
    bars = []  # as a frame that outlives the interrupt keeps them

    def command():
        bars.extend(tqdm(total=5, desc=title, leave=False) for title in ("outer", "inner"))
        raise KeyboardInterrupt

    assert run_command(command) == 130
    assert on_screen(capsys.readouterr().err) == [
        "interrupted; run the same command again to resume"
    ]


def test_a_bar_that_is_interrupted_in_its_making_is_removed(hook, monkeypatch, capsys):
    def command():
        def drawn(bar, **_):
            bar.display()
            raise KeyboardInterrupt

        monkeypatch.setattr(tqdm, "refresh", drawn)
        tqdm(total=5, desc="looking for copies", leave=False)

    assert run_command(command) == 130
    assert on_screen(capsys.readouterr().err) == [
        "interrupted; run the same command again to resume"
    ]


@pytest.fixture
def heeded():
    """SIGINT is heeded, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_whatever_a_library_does(hook, monkeypatch, capsys, number, status):
    def turned_into_an_error():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise UserError("x: cannot be written ([enforce fail ...])") from None

    def swallowed():
        class Half:
            def __del__(self):
                signal.raise_signal(number)

        Half()
        for _ in range(1000):
            time.sleep(0.01)

    def with_a_text():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise Interrupted("student: stopped after epoch 3") from None

    def lost():
        with suppress(KeyboardInterrupt):  # as some extension modules do
            signal.raise_signal(number)
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setattr(errors, "_AGAIN", 0.05)
    for command in (turned_into_an_error, swallowed, with_a_text, lost):
        text = "student: stopped after epoch 3" if command is with_a_text else "interrupted"
        assert run_command(command) == status
        assert capsys.readouterr().err == f"{text}; run the same command again to resume\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(os.name == "nt", reason="there the interrupt cannot wait")
@pytest.mark.usefixtures("heeded", "hook")
def test_a_module_is_imported_to_its_end(tmp_path, monkeypatch, capsys):
    """One in C++ ends the process with status 134 where an import of its own is interrupted."""
    (tmp_path / "half_imported.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nis_whole = True\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    came_back = []

    def command():
        import half_imported

        came_back.append(half_imported.is_whole)
        time.sleep(10)
        came_back.append("never")

    assert run_command(command) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"
    assert came_back == [True]


def test_an_ignored_signal_stays_ignored(hook):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command(lambda: signal.raise_signal(signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_user_can_fix_is_one_line_and_status_2(capsys):
    def command():
        raise UserError("a.yaml:1: fix this")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "a.yaml:1: fix this\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: cannot be used (Permission den"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: cannot be used (No such f"),
        (OSError(28, "No space left on device"), "cannot be used (No space left on device); fix"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a loader proce"),
        (
            KeyError("getpwuid(): uid not found: 54321"),
            "this user has no name, which PyTorch",
        ),
        (MemoryError(), "not enough memory; a smaller image.size or engine.batch_size needs less"),
    ],
)
def test_what_the_machine_does_to_a_program_is_one_line(capsys, error, message):
    def command():
        raise error

    assert run_command(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1


@pytest.mark.parametrize("file", [errors.__file__, pytest.__file__, os.__file__])
def test_a_file_that_this_program_or_a_library_lacks_is_a_bug(file):
    def command():
        Path(file).with_name("missing.css").read_text(encoding="utf-8")

    with pytest.raises(FileNotFoundError):
        run_command(command)


def test_an_os_error_without_a_file_is_a_bug():
    def command():
        raise OSError("[Errno 9] Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        run_command(command)


def test_a_message_fits_a_screen_and_spoils_no_terminal(capsys):
    def command():
        raise UserError("\n".join(["a\x1b[2J\udce9" + "b" * 5_000] * 100))

    assert run_command(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 31
    assert lines[0].startswith(r"a\x1b[2J\udce9bbb")
    assert max(map(len, lines)) == 1000
    assert lines[-1] == "... and 70 more lines"


def test_names_that_a_terminal_cannot_show_can_be_printed():
    code = "from utils.errors import run_command; run_command(lambda: print('caf\\udce9 \\u2713'))"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True)
    assert done.stdout == rb"caf\udce9 \u2713" + os.linesep.encode()
