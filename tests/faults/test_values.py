"""Extreme values of every option in run.py and test.py: they work, or one line says why not."""

import io
import os
import random
import shutil
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import run as run_py
import test as test_py
from options.dump import plain
from options.load import load
from tests.faults.limits import MANY, limited, wrong_with
from tests.fixtures import write_smoke, write_visa

COUNT = 60 * min(MANY, 10)
SECONDS = 120  # of computing, for one value; a good one takes less than five
NUMBERS = (
    *("-1", "0", "1", "2", "0.5", "1e-320", "1e-45", "1e308", "100", "65536", "100000", "1000000"),
    *("9223372036854775807", "1" + "0" * 400),
)
TEXTS = (
    *("", "x", "a" * 300, "../../x", "é", "local-dir:/tmp", "\x01", " ", "/dev/null", "/dev/zero"),
    *("~", "~nobody-/x", "{}", "[]", "null", "x.pt", "1", "/proc/self/mem", "file:///etc/passwd"),
)
LISTS = (
    *("[]", "[0]", "[1, 1]", "[100000, 100000]", "[a]", "[-1]", "[3, 1]", "[../x]", "[1000000]"),
    f"[{', '.join(map(str, range(1, 30)))}]",
)
METHODS = {
    "vand": "levels: [2, 4]",
    "anomalyclip": "depth: 2, dual_blocks: 3, levels: [4]",
    "winclip": "shots: 1",
}
BASELINE = """
exp: {{dir: run}}
dataset:
  name: visa
  dir: visa
  split: 2cls_highshot
  cache: cache
  auxiliary: {{name: visa, dir: auxiliary, split: 2cls_highshot}}
misc: {{device: cpu, precision: fp32}}
image: {{size: [48, 96]}}
engine: {{epochs: 1, batch_size: 4, num_workers: 0, keep: last}}
baseline:
  model: {{name: {name}, arch: demo-ViT, pre_trained: demo, {options}}}
  objective: segmentation
  optimizer: Adam
  schedule: {{name: warmup_step_decay}}
"""
STUDENT = """
exp: {dir: run}
dataset: {name: visa, dir: visa, split: 2cls_highshot, val_fraction: 0.3, cache: cache}
misc: {device: cpu, precision: fp32}
image: {size: [32, 64]}
engine: {epochs: 1, batch_size: 4, num_workers: 0}
student:
  model:
    name: student
    img_enc: {name: torchvision, arch: mobilenet_v3_small, pre_trained: false}
    classif: {name: mlp, hidden: 8}
  objective: cross_entropy
  optimizer: SGD
  schedule: {name: cosine, warmup_epochs: 0}
"""


@contextmanager
def inside(folder):
    """Whatever a value makes of the current folder, it is this one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def write_files(folder):
    """Small data sets, and options files of every kind of network."""
    write_visa(folder / "visa")
    write_visa(folder / "auxiliary", objects=("cashew", "pcb1"))
    write_smoke(folder, folder / "visa")
    (folder / "student.yaml").write_text(STUDENT, encoding="utf-8")
    for name, options in METHODS.items():
        (folder / f"{name}.yaml").write_text(
            BASELINE.format(name=name, options=options), encoding="utf-8"
        )
    return sorted(folder.glob("*.yaml"))


def leaves(value, path=""):
    """``(dotted path, value)`` of every option."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, part in value.items():
        yield from leaves(part, f"{path}.{key}".lstrip("."))


def values_for(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return NUMBERS
    if isinstance(value, list):
        return LISTS
    return TEXTS if value is not None else (*NUMBERS, *TEXTS, *LISTS)


def outcome(file, argument):
    """What is wrong with how run.py and test.py end; empty if they end well."""
    arguments = [str(file), argument]
    if not argument.startswith("engine.epochs="):
        arguments.append("engine.epochs=1")
    programs = [test_py] if file.stem == "winclip" else [run_py, test_py]
    messages = io.StringIO()
    try:
        with limited(SECONDS), redirect_stderr(messages), redirect_stdout(io.StringIO()):
            status = next((s for p in programs if (s := p.main(arguments))), 0)
    except TimeoutError:
        return "hangs"
    except Exception as error:  # noqa: BLE001  any of them would be a traceback
        return f"{type(error).__name__}: {error}"
    if status == 0:
        return ""
    lines = [line.rpartition("\r")[2] for line in messages.getvalue().splitlines()]  # after a bar
    lines = [line for line in lines if line.strip()]
    if status != 2 or not lines:
        return f"status {status}, {len(lines)} lines"
    return wrong_with("\n".join(lines))


def problems(count, folder, seed=0):
    """Descriptions of what went wrong for ``count`` values."""
    with inside(folder):
        cases = [
            (file, f"{path}={value}")
            for file in write_files(folder)
            for path, written in leaves(plain(load(file)))
            for value in values_for(written)
            # Training for long is no fault.
            if not (path.endswith(".epochs") and value.isdigit() and int(value) > 2)
        ]
        for file, argument in random.Random(seed).sample(cases, min(count, len(cases))):
            shutil.rmtree("run", ignore_errors=True)
            if wrong := outcome(file, argument):
                yield f"{file.name}, {argument[:200]!r}: {wrong}"


@pytest.mark.slow
def test_no_value_ends_in_a_traceback(tmp_path):
    assert list(problems(COUNT, tmp_path)) == []
