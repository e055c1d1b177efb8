"""What all benchmarks share: pictures of VisA's size, alternation, and one JSON line at the end."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision

import demo
from jobs.data import read_data, read_splits
from jobs.job import Job
from options.load import load
from options.schema import Run
from utils import device
from utils.device import has_units
from utils.provenance import commit

CPU = torch.device("cpu")
# Those that this machine's cores compute in; bf16 without units for it takes many times as long.
PRECISIONS = {name: dtype for name, dtype in device.PRECISIONS.items() if has_units(dtype, CPU)}
RawText = argparse.RawDescriptionHelpFormatter
SIZE = (1000, 1500)  # of VisA's pictures

# The published recipe with weights that need no download: the arithmetic is the same.
RANDOM_WEIGHTS = (
    "teacher.model.img_enc.pre_trained=random",
    "teacher.model.text_enc.pre_trained=random",
    "student.model.img_enc.pre_trained=false",
)


def job_of(run: Run, name: str, machine: device.Machine) -> Job:
    """One stage of a run with its images."""
    splits = read_splits(run.dataset)
    return Job(run, name, splits, read_data(run, name, splits), machine)


@contextmanager
def pictures(count: int) -> Iterator[Path]:
    """A folder in VisA's layout with ``count`` rendered training pictures of VisA's size."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "visa"
        anomalies = max(count // 6, 3)
        normals = count - anomalies
        # 60 % of each label train.
        demo.write(
            root,
            objects=["fryum"],
            normals=round(normals / 0.6),
            anomalies=round(anomalies / 0.6),
            size=SIZE,
        )
        yield root


def published_recipe(root: Path, *overrides: str, is_cached: bool = True) -> Run:
    """``options/published.yaml`` on the pictures in ``root``, with random weights."""
    cache = root.parent / "cache" if is_cached else "null"
    fixed = [f"dataset.dir={root}", f"dataset.cache={cache}", *RANDOM_WEIGHTS]
    return load(Path("options/published.yaml"), [*fixed, *overrides])


def child(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON line that ends ``python -m module arguments``, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class OtherProgram:
    """A program in another environment that says "ready", then answers each line with seconds.

    Args:
        python: Interpreter of that environment.
        script: Its source.
        *arguments: Of the script.
    """

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [python, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.is_ready = self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> float:
        """Seconds that the program took for what ``line`` says."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> str:
        """Ends it; what it had to say last."""
        _, errors = self.process.communicate()
        return errors.strip().splitlines()[-1] if errors.strip() else ""


def alternated(
    jobs: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Medians of numbers measured in turn, and the numbers themselves: drift hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return {name: statistics.median(values) for name, values in found.items()}, found


def seconds(job: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def peak_memory() -> float:
    """Most memory that this process had at once, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [
            line
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def report(lines: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Prints what was measured, for people and then as one JSON line."""
    about = machine()
    sys.stdout.write("\n".join([*lines, f"machine: {about}", ""]))
    sys.stdout.write(json.dumps({**figures, "machine": about}) + "\n")
