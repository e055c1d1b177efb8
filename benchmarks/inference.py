"""Scoring: pictures per second of the student, by network and precision.

python -m benchmarks.inference [--quick]
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.common import CPU, PRECISIONS, RawText, alternated, report, seconds
from models.student import Student
from utils.batch import Batch
from utils.device import Machine
from utils.registry import Component

BATCH = 32


def logits(model: Student, batch: Batch, machine: Machine) -> torch.Tensor:
    """Logits of one batch: not the scores, which an untrained network saturates."""
    with torch.inference_mode(), machine.autocast():
        return model(batch).logits.float()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch(pixels, torch.zeros(BATCH, dtype=torch.int64), [""] * BATCH, [""] * BATCH)
    Machine.choose("cpu", "fp32")
    lines = ["| network | precision | images/s | x | largest difference of a logit, relative |"]
    lines += ["|:--|:--|--:|--:|--:|"]
    figures: dict[str, Any] = {}
    for arch in ("resnet18", "resnet50", "mobilenet_v2"):
        jobs, found = {}, {}
        for way, dtype in PRECISIONS.items():
            torch.manual_seed(0)
            encoder = Component("torchvision", {"arch": arch, "pre_trained": "false"})
            model: Any = Student(
                (224, 224), True, img_enc=encoder, classif=Component("linear", {})
            ).eval()
            machine = Machine(CPU, dtype)
            machine.place(model)
            found[way] = logits(model, batch, machine)
            jobs[way] = partial(seconds, partial(logits, model, batch, machine))
        times, _ = alternated(jobs, 3 if args.quick else 9)
        for way, time in times.items():
            ratio = times["fp32"] / time
            exact = found["fp32"]
            difference = float((found[way] - exact).abs().max() / exact.abs().max())
            figures[f"{arch}_{way}"] = BATCH / time
            lines.append(
                f"| {arch} | {way} | {BATCH / time:.0f} | {ratio:.2f} | {difference:.1e} |"
            )
    report(lines, {"images_per_second": figures})


if __name__ == "__main__":
    main()
