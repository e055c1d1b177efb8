"""Several processes: images per second of the student's training with one and with two.

    python -m benchmarks.scaling [--quick]

On a machine of two cores this shows what the exchange of gradients costs, not what a second
machine brings: one process already uses both cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.common import RANDOM_WEIGHTS, RawText, alternated, pictures, report

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def images_per_second(root: Path, processes: int, epochs: int) -> float:
    """Median speed of a short training, the first epoch left out."""
    options = [
        "options/student.yaml",
        f"dataset.dir={root}",
        f"dataset.cache={root.parent}/cache",
        RANDOM_WEIGHTS[-1],
        "misc.device=cpu",
        f"student.engine.epochs={epochs}",
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, *launcher, "run.py", *options, f"exp.dir={folder}"],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": str(max(CORES // processes, 1))},
        )
        log = pd.read_csv(Path(folder) / "student/log.csv")
    return float(log["images_per_second"].iloc[1:].median())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    args = parser.parse_args(arguments)
    count, epochs, rounds = (60, 3, 1) if args.quick else (120, 4, 3)
    with pictures(count) as root:
        jobs = {str(n): lambda n=n: images_per_second(root, n, epochs) for n in (1, 2)}
        speeds, _ = alternated(jobs, rounds)
    lines = ["| processes | threads each | images/s | x |", "|--:|--:|--:|--:|"]
    for processes, speed in speeds.items():
        threads = max(CORES // int(processes), 1)
        lines.append(f"| {processes} | {threads} | {speed:.1f} | {speed / speeds['1']:.2f} |")
    report(lines, {"two_over_one": speeds["2"] / speeds["1"], "images_per_second": speeds})


if __name__ == "__main__":
    main()
