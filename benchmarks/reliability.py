"""Reliability: runs that are killed or stopped at random moments, and files with a flipped byte.

    python -m benchmarks.reliability [--runs 24] [--flips 200]

Half of the runs have two loader processes. Each one that was ended is resumed and tested; its
weights and scores have to be those of an undisturbed run, byte by byte. A flipped byte is noticed
if it ends in one line, or if the result is the same.
"""

import argparse
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import trange

import run as run_py
import test as test_py
from benchmarks.common import RawText, report
from jobs.data import image_store, read_splits
from options.load import load
from tests.fixtures import write_smoke, write_visa
from utils.checkpoint import load_state, load_weights
from utils.errors import UserError
from utils.store import _read

FIRST = 0.1  # seconds after the start of Python, before which signals mean what they always do
RESULTS = [f"{s}/{f}" for s in ("teacher", "student") for f in ("best.safetensors", "scores.csv")]
STATUS = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
LAST_WORD = re.compile(r"[^|]+; run the same command again to resume")  # a "|": a progress bar


def finish(arguments: Sequence[str]) -> dict[str, bytes]:
    """Resumes and tests a run in this process; the files that count."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert run_py.main(arguments) == 0
        assert test_py.main(arguments) == 0
    folder = Path(arguments[-1].removeprefix("exp.dir="))
    return {name: (folder / name).read_bytes() for name in RESULTS}


def started(arguments: Sequence[str], errors: Path) -> subprocess.Popen[bytes]:
    """``run.py`` in a process group of its own, as a terminal starts it."""
    # A program in the background ignores SIGINT, and its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "run.py", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, before)
    return process


def on_screen(text: str) -> list[str]:
    """The lines that a terminal shows after ``text``; progress bars overwrite each other."""
    rows, row, column = [""], 0, 0
    for piece in re.split(r"(\n|\r|\x1b\[A)", text):
        if piece == "\n":
            row, column = row + 1, 0
            rows += [""] * (row == len(rows))
        elif piece == "\x1b[A":
            row = max(row - 1, 0)
        elif piece == "\r":
            column = 0
        else:
            line = rows[row].ljust(column)
            rows[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in rows if line.strip()]


class Right(NamedTuple):
    """An undisturbed run: its files, and its seconds from a cold start."""

    files: dict[str, bytes]
    seconds: float


def undisturbed(folder: Path) -> Right:
    """Trains and tests in ``folder``."""
    options = [str(folder / "smoke.yaml"), f"exp.dir={folder}/right"]
    start = time.perf_counter()
    assert started(options, folder / "errors.txt").wait() == 0
    duration = time.perf_counter() - start
    return Right(finish(options), duration)


def ended_early(
    folder: Path, right: Right, number: signal.Signals, workers: int, draw: random.Random
) -> str:
    """What is wrong after a run was ended at a random moment and resumed; empty: nothing."""
    name = f"{number.name}, {workers} loader processes"
    shutil.rmtree(folder / "cache", ignore_errors=True)
    options = [str(folder / "smoke.yaml"), f"engine.num_workers={workers}", f"exp.dir={folder}/run"]
    while True:
        shutil.rmtree(folder / "run", ignore_errors=True)
        errors = folder / "errors.txt"
        process, moment = started(options, errors), draw.uniform(FIRST, right.seconds)
        time.sleep(moment)
        if process.poll() is None:
            os.killpg(process.pid, number)
            break  # otherwise it was done before
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"{name} after {moment:.2f} s: did not end within a minute"
    lines = on_screen(errors.read_bytes().decode(errors="replace"))
    # Where the work is done and Python is ending, a signal does what it does without a handler.
    is_done = (folder / "run/student/best.safetensors").is_file() and not lines
    if status not in ((0, -number, STATUS[number]) if is_done else (STATUS[number],)):
        return f"{name} after {moment:.2f} s: exit status {status}: {lines[-1:]}"
    if not is_done and number != signal.SIGKILL and not _is_last_word(lines):
        return f"{name} after {moment:.2f} s: {len(lines)} lines: {lines[-3:]}"
    if finish(options) != right.files:
        return f"{name} after {moment:.2f} s: another result"
    left = [path for path in folder.rglob("*.part") if path.is_relative_to(folder / "run")]
    return f"{name} after {moment:.2f} s: left {left}" if left else ""


def _is_last_word(lines: Sequence[str]) -> bool:
    return len(lines) == 1 and LAST_WORD.fullmatch(lines[0]) is not None


class _Anything:
    """Takes any state: nothing but the checksums notices a change."""

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def readers(folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Kind, file, and what is read out of it, of each kind of file that counts."""
    weights, state = folder / "right/student/best.safetensors", folder / "right/student/last.pt"

    def tensors() -> Any:
        model: Any = _Anything()
        load_weights(model, weights)
        return model.state

    yield "weights", weights, tensors
    yield "training state", state, lambda: load_state(state)
    run = load(folder / "smoke.yaml")
    splits, cache = read_splits(run.dataset), folder / "cache"
    store, image = image_store(run, splits), run.stages["student"].image

    def pixels() -> Any:
        source = store.pixels(splits["train"], image.view)
        return [source(i) for i in range(len(splits["train"]))]

    yield "decoded images", next(cache.glob("*.pixels")), pixels
    yield "checksums", next(cache.glob("*.sqlite")), lambda: store.digests(splits["train"])
    answers = next(cache.glob("*.targets"))
    content = _read(answers)
    # A damaged file is made again.
    yield "teacher's answers", answers, lambda: content if (c := _read(answers)) is None else c


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, tensors included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def flipped(folder: Path, count: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Kind of file, and how each flipped byte ends: one line, the same result, or what is wrong."""
    for kind, file, read in readers(folder):
        right, content = read(), file.read_bytes()
        for _ in range(count):
            bad, place = bytearray(content), draw.randrange(len(content))
            bad[place] ^= 1 << draw.randrange(8)
            file.write_bytes(bad)
            try:
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    found = read()
                outcome = "same result" if same(found, right) else f"WRONG: byte {place} counts"
            except UserError as error:
                outcome = "refused" if "\n" not in str(error) else f"WRONG: {error}"
            except Exception as error:  # noqa: BLE001  any of them would be a traceback
                outcome = f"WRONG: {type(error).__name__} for byte {place}"
            yield kind, outcome
        file.write_bytes(content)


def main() -> None:
    """Prints what went wrong, and how often nothing did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--runs", type=int, default=24, help="with SIGKILL, and as many with both")
    parser.add_argument("--flips", type=int, default=200, help="in each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, lines = random.Random(args.seed), list[str]()  # noqa: S311 - nothing secret
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_smoke(folder, write_visa(folder / "visa"))
        right = undisturbed(folder)
        outcomes = Counter(flipped(folder, args.flips, draw))
        lines += [f"{kind}, a flipped byte: {how}: {n}" for (kind, how), n in outcomes.items()]
        for numbers in ([signal.SIGKILL], [signal.SIGINT, signal.SIGTERM]):
            problems = [
                ended_early(folder, right, numbers[i // 2 % len(numbers)], i % 2 * 2, draw)
                for i in trange(args.runs)
            ]
            found = [problem for problem in problems if problem]
            what = " and ".join(number.name for number in numbers)
            lines += [f"{args.runs} runs ended by {what}, wrong: {len(found)}", *found]
            sys.stderr.write("\n".join([*lines, ""]))
    report(lines, {"lines": lines})


if __name__ == "__main__":
    main()
