"""Memory: the most that a training process takes, for a short list of pictures and a long one.

    python -m benchmarks.memory [--quick]

Both are made of copies of one small picture: reading and listing cost the same as for different
ones.
"""

import argparse
import csv
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import demo
from benchmarks.common import RawText, child, job_of, peak_memory, report
from jobs.build import build_learner, build_optimizer, training_batches
from options.load import load
from utils.device import Machine

STEPS = 20


def multiply(root: Path, count: int) -> None:
    """Adds ``count`` copies of the first training picture."""
    table = root / "split_csv/2cls_highshot.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = next(row for row in rows if row["split"] == "train" and row["label"] == "normal")
    folder = root / "many"
    folder.mkdir()
    copies = [f"many/{i:06}.JPG" for i in range(count)]
    for copy in copies:
        shutil.copyfile(root / first["image"], root / copy)
    rows += [{**first, "image": copy} for copy in copies]
    annotations = root / "fryum/image_anno.csv"
    with annotations.open("a", newline="") as file:
        csv.writer(file).writerows([copy, "normal", ""] for copy in copies)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def measure(count: int) -> float:
    """Peak GB of a process that decodes, trains for some steps and loads two whole epochs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "visa"
        demo.write(root, objects=["fryum"], normals=30, anomalies=30, size=(96, 144))
        multiply(root, count)
        options = [
            f"dataset.dir={root}",
            f"dataset.cache={folder}/cache",
            "image.size=64",
            "student.model.img_enc={name: torchvision, arch: resnet18, pre_trained: false}",
        ]
        run = load(Path("options/student.yaml"), options)
        job = job_of(run, "student", Machine.choose("cpu", "fp32"))
        batches = training_batches(job)
        learner = job.machine.place(build_learner(job, None))
        optimizer = build_optimizer(job.stage, learner)
        for epoch in range(2):
            for batch in itertools.islice(batches.epoch(epoch), STEPS):
                learner(batch)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
            for _ in batches.epoch(epoch):
                pass
        shutil.rmtree(root)
    return peak_memory()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one is not None:
        sys.stdout.write(json.dumps({"peak_gb": measure(args.one)}) + "\n")
        return
    counts = (1_000, 20_000 if args.quick else 100_000)
    peaks = [float(child("benchmarks.memory", "--one", str(n))["peak_gb"]) for n in counts]
    lines = ["| pictures | peak GB | x |", "|--:|--:|--:|"]
    lines += [
        f"| {n:,} | {gb:.2f} | {gb / peaks[0]:.2f} |" for n, gb in zip(counts, peaks, strict=True)
    ]
    report(
        lines,
        {"long_over_short": peaks[1] / peaks[0], "peak_gb": dict(zip(counts, peaks, strict=True))},
    )


if __name__ == "__main__":
    main()
