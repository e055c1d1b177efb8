"""How far a training step is from what the machine's arithmetic allows.

    python -m benchmarks.floor [--quick]

The floor is the step's floating-point operations (counted by PyTorch) over the fastest matrix
product that the machine shows in the same precision.
"""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    PRECISIONS,
    RawText,
    alternated,
    job_of,
    pictures,
    published_recipe,
    report,
    seconds,
)
from jobs.build import build_learner, build_model, build_optimizer, training_batches
from jobs.training.teacher import compute_once
from models.objectives.base import LiveTeacher
from options.schema import Run
from utils.device import Machine


def matmul_peak(dtype: torch.dtype, rounds: int = 5) -> float:
    """Floating-point operations per second of the fastest product of two square matrices."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a = torch.randn(size, size).to(dtype)
        b = a.clone()
        fastest = min(seconds(partial(torch.mm, a, b)) for _ in range(rounds))
        best = max(best, 2 * size**3 / fastest)
    return best


class Step:
    """One training step of a stage of the published recipe, again and again on one batch."""

    def __init__(self, run: Run, name: str) -> None:
        self.machine = Machine.choose("cpu", run.misc.precision)
        job, targets = job_of(run, name, self.machine), None
        if name == "student":
            teacher_stage: Any = run.teacher
            teacher = LiveTeacher(self.machine.place(build_model(run, "teacher")))
            targets = compute_once(job, teacher, teacher_stage, "random")
        self.learner = self.machine.place(build_learner(job, targets))
        self.optimizer = build_optimizer(job.stage, self.learner)
        self.batch = next(training_batches(job).epoch(0))
        self.learner.train()

    def __call__(self) -> None:
        """Forward, backward, update."""
        with self.machine.autocast():
            loss = self.learner(self.batch)["loss"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def flops(self) -> int:
        """Operations of one step, a multiplication and an addition counting two."""
        with FlopCounterMode(display=False) as counter:
            self()
        return int(counter.get_total_flops())


def measure(rounds: int) -> tuple[list[str], dict[str, Any]]:
    """The table's lines, and ``{teacher_over_floor_fp32: ...}``."""
    lines = [
        "| stage | precision | GFLOP a step | peak GFLOP/s | floor ms | step ms | step/floor |"
    ]
    lines += ["|:--|:--|--:|--:|--:|--:|--:|"]
    figures: dict[str, Any] = {}
    with pictures(48) as root:
        for name, (precision, dtype) in itertools.product(
            ("teacher", "student"), PRECISIONS.items()
        ):
            step = Step(published_recipe(root, f"misc.precision={precision}"), name)
            flops = step.flops()
            times, _ = alternated(
                {
                    "peak": partial(matmul_peak, dtype),
                    "step": partial(seconds, step),
                },
                rounds,
            )
            floor = flops / times["peak"]
            ratio = times["step"] / floor
            figures[f"{name}_over_floor_{precision}"] = ratio
            figures[f"{name}_gflop"] = flops / 1e9
            lines.append(
                f"| {name} | {precision} | {flops / 1e9:.0f} | {times['peak'] / 1e9:.0f} | "
                f"{1000 * floor:.0f} | {1000 * times['step']:.0f} | {ratio:.2f} |"
            )
    return lines, figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    args = parser.parse_args(arguments)
    report(*measure(3 if args.quick else 9))


if __name__ == "__main__":
    main()
