"""Checking a data set: how long the first time takes and the second, and how much memory.

    python -m benchmarks.check [--quick]

Each is a process of its own. The pictures are rolled and mirrored copies of some rendered ones,
each saved as a JPEG of its own; one in ten has a mask.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.common import SIZE, RawText, child, peak_memory, pictures, report, seconds
from check import main as check
from utils.device import num_cores

BASES = 24


def write(root: Path, count: int) -> None:
    """``count`` pictures with a ``meta.json``, three quarters of them to train on."""
    with pictures(BASES) as rendered:
        files = sorted(rendered.glob("fryum/Data/Images/*/*.JPG"))[:BASES]
        bases = [np.asarray(Image.open(file)) for file in files]
        root.mkdir()
        shutil.copy(next(rendered.glob("fryum/Data/Masks/Anomaly/*.png")), root / "mask.png")
    meta: dict[str, dict[str, list[dict[str, object]]]] = {"train": {"fryum": []}, "test": {}}
    meta["test"]["fryum"] = []

    def save(i: int) -> None:
        random = np.random.default_rng(i)
        picture = np.roll(bases[random.integers(BASES)], random.integers(0, SIZE), axis=(0, 1))
        mirrored = picture[:, :: random.choice((-1, 1))]
        Image.fromarray(mirrored).save(root / f"{i:06}.jpg", quality=90)
        if i % 10 == 0:
            shutil.copy(root / "mask.png", root / f"{i:06}.png")

    with ThreadPoolExecutor(num_cores()) as pool:
        list(tqdm(pool.map(save, range(count)), total=count, desc="writing", leave=False))
    for i in range(count):
        meta["test" if i % 4 == 0 else "train"]["fryum"].append(
            {
                "img_path": f"{i:06}.jpg",
                "mask_path": f"{i:06}.png" if i % 10 == 0 else "",
                "cls_name": "fryum",
                "anomaly": int(i % 10 == 0),
            }
        )
    (root / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def measure(folder: Path) -> dict[str, float]:
    """Seconds and peak GB of one check, without the start of Python."""
    options = [
        "options/student.yaml",
        f"dataset={{name: meta, dir: {folder}/data, cache: {folder}/cache}}",
        f"--out={folder}/report",
    ]
    took = seconds(lambda: check(options))
    return {"seconds": took, "peak_gb": peak_memory()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.write is not None:  # elsewhere: a process counts as large as the one that started it
        write(args.write / "data", args.count)
        sys.stdout.write("{}\n")
        return
    if args.one is not None:
        sys.stdout.write(json.dumps(measure(args.one)) + "\n")
        return
    count = 1_000 if args.quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child("benchmarks.check", "--write", str(folder), "--count", str(count))
        found = {}
        for turn in ("first", "second"):
            started = time.perf_counter()
            found[turn] = child("benchmarks.check", "--one", str(folder))
            found[turn]["process_seconds"] = time.perf_counter() - started
    first = found["first"]["seconds"]
    lines = [
        f"| {count:,} pictures | seconds | of the first | with the start of Python | peak GB |",
        "|:--|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {turn} time | {f['seconds']:.1f} | {100 * f['seconds'] / first:.1f} % | "
        f"{f['process_seconds']:.1f} | {f['peak_gb']:.2f} |"
        for turn, f in found.items()
    ]
    report(
        lines,
        {"second_over_first": found["second"]["seconds"] / first, "count": count, "turns": found},
    )


if __name__ == "__main__":
    main()
