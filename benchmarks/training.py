"""Training speed: the released recipe's work against ours, on the same networks and pictures.

    python -m benchmarks.training [--quick | --losses]

"released": as in benchmarks/released.py, with the C library's own memory settings. "exact": what
run.py does with misc.precision=fp32: the same sums, so the same losses. "bf16": with
misc.precision=bf16, on processors that have units for it.

After each epoch the released recipe scores VisA's test pictures; as many are counted for ours.
Each variant runs in a process of its own (the memory settings cannot be taken back), in turn.

In fp32 the losses drift apart: Adamax's first step is the sign of each gradient, and rounding
decides on those of nearly zero. --losses compares ten steps of four pictures in float64.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    CPU,
    PRECISIONS,
    RawText,
    child,
    job_of,
    peak_memory,
    pictures,
    published_recipe,
    report,
)
from benchmarks.floor import matmul_peak
from benchmarks.released import ReleasedBatches, released
from jobs.build import (
    build_learner,
    build_model,
    build_optimizer,
    build_schedule,
    evaluation_batches,
    training_batches,
)
from jobs.job import Job
from jobs.training.teacher import compute_once
from models.objectives.base import Learner, LiveTeacher
from options.schema import Stage
from utils.batch import Batch
from utils.device import Machine
from utils.seeding import derive
from utils.training import Epochs, EpochSource, fit

EPOCHS, VISA_TRAIN, VISA_TEST = 15, 6493, 4328
VARIANTS = ("released", "exact", *(name for name in PRECISIONS if name != "fp32"))
STAGES = ("teacher", "student")


# ------------------------------------------------------------------------------------ one variant


def ours(
    job: Job, prepared: dict[str, float], dtype: torch.dtype = torch.float32
) -> tuple[Learner, EpochSource]:
    """The network and its batches as run.py makes them; notes seconds per image of preparation."""
    data, machine = job.data, job.machine
    started = time.perf_counter()
    batches = training_batches(job)
    prepared["decoding"] = (time.perf_counter() - started) / len(data.splits["train"])
    targets = None
    if job.name == "student":
        teacher_stage: Any = job.run.teacher
        evaluation_batches(data.store, teacher_stage, data.train, machine.device)
        teacher = LiveTeacher(machine.place(build_model(job.run, "teacher")).to(dtype))
        started = time.perf_counter()
        targets = compute_once(job, teacher, teacher_stage, f"random {dtype}")
        prepared["running the teacher"] = (time.perf_counter() - started) / len(data.train)
    learner = machine.place(build_learner(job, targets))
    learner.model.to(dtype)
    return learner, batches


class Timed:
    """The first batches of an epoch, and how long they and the work on them last took."""

    def __init__(self, source: EpochSource, steps: int) -> None:
        self.source, self.steps = source, steps
        self.num_images = source.num_images
        self.seconds = 0.0

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return len(self.source)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The first batches of an epoch."""
        started = time.perf_counter()
        yield from itertools.islice(self.source.epoch(number), self.steps)
        self.seconds = time.perf_counter() - started


class Noting:
    """A learner that notes its losses."""

    def __init__(self, learner: Any) -> None:
        self.learner, self.losses = learner, list[float]()

    def train(self, mode: bool = True) -> nn.Module:
        """Switches to training mode."""
        mover: nn.Module = self.learner.train(mode)
        return mover

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss."""
        terms: dict[str, Tensor] = self.learner(batch)
        self.losses.append(float(terms["loss"].detach()))
        return terms


class Training:
    """One stage of the published recipe, ready to be trained in one of the ways.

    Attributes:
        networks: Those that a test runs: its own and, as released, the teacher beside its student.
        losses: Of each step so far.
        prepared: Seconds per image of what was done before.
    """

    def __init__(
        self,
        variant: str,
        name: str,
        root: Path,
        *overrides: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        precision = "bf16" if variant == "bf16" else "fp32"
        fixed = ("image.resize=center_crop", f"misc.precision={precision}", *overrides)
        self.run = published_recipe(root, *fixed, is_cached=variant != "released")
        self.stage: Stage = getattr(self.run, name)
        self.title, self.seed = f"{variant} {name}", derive(self.run.misc.seed, name)
        self.prepared: dict[str, float] = {}
        beside: LiveTeacher | None = None
        self.batches: EpochSource
        if variant == "released":
            self.machine = Machine(CPU, torch.float32)
            job = job_of(self.run, name, self.machine)
            learner, beside, self.batches = released(job, dtype)
        else:
            self.machine = Machine.choose("cpu", precision)
            learner, self.batches = ours(job_of(self.run, name, self.machine), self.prepared, dtype)
        self.networks = [learner.model, *([beside.model] if beside else [])]
        self.learner, self.optimizer = Noting(learner), build_optimizer(self.stage, learner)
        self.losses = self.learner.losses

    def first(self, steps: int) -> "Timed":
        """The first batches of an epoch."""
        source = self.batches
        return Timed(source.first(steps) if isinstance(source, ReleasedBatches) else source, steps)

    def __call__(self, steps: int) -> float:
        """Trains with the first batches; returns how long that took."""
        timed = self.first(steps)
        fit(
            self.learner,
            timed,
            self.optimizer,
            build_schedule(self.stage),
            epochs=Epochs(self.title, range(1), self.seed),
            machine=self.machine,
            on_epoch=lambda _: None,
        )
        return timed.seconds

    @torch.inference_mode()
    def score(self, steps: int) -> float:
        """Runs the networks as a test does; returns how long that took."""
        for network in self.networks:
            network.eval()
        timed = self.first(steps)
        for batch in timed.epoch(0):
            with self.machine.autocast():
                for network in self.networks:
                    network(batch)
        return timed.seconds


def measure(variant: str, name: str, root: Path, steps: int) -> dict[str, Any]:
    """Seconds per image of training, of scoring and of what is prepared once, and the losses."""
    training, scored = Training(variant, name, root), max(steps // 2, 1)
    with FlopCounterMode(display=False) as counter:  # the first step, which warms up as well
        training(1)
    size = training.stage.engine.batch_size
    return {
        "training": training(steps) / (steps * size),
        "scoring": training.score(scored) / (scored * size),
        "prepared": training.prepared,
        "flops": counter.get_total_flops() / size,
        "losses": training.losses,
        "memory_gb": peak_memory(),
    }


def compare_losses(steps: int) -> None:
    """Prints the losses of the first steps in float64, where rounding hides no difference."""
    lines, differences = [], {}
    with pictures(6 * steps) as root:
        for name in STAGES:
            losses = []
            for variant in ("released", "exact"):
                training = Training(variant, name, root, "engine.batch_size=4", dtype=torch.float64)
                training(steps)
                losses.append(training.losses)
                shown = " ".join(f"{loss:.6f}" for loss in training.losses)
                lines.append(f"{name:7} {variant:8}: {shown}")
            pairs = zip(*losses, strict=True)
            differences[f"{name}_loss_difference"] = max(abs(a - b) / abs(a) for a, b in pairs)
    report(lines, differences)


# ---------------------------------------------------------------------------------------- the whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all variants in turn and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    parser.add_argument("--losses", action="store_true", help="compare ten losses in float64")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # variant, stage, root, steps
    args = parser.parse_args(arguments)
    if args.one:
        variant, name, root, steps = args.one
        sys.stdout.write(json.dumps(measure(variant, name, Path(root), int(steps))) + "\n")
        return
    if args.losses:
        compare_losses(10)
        return
    steps, rounds = (2, 1) if args.quick else (10, 2)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with pictures(24 * steps * 5 // 4 + 6) as root:
        for _, name, variant in itertools.product(range(rounds), STAGES, VARIANTS):
            one = child("benchmarks.training", "--one", variant, name, str(root), str(steps))
            found.setdefault((name, variant), []).append(one)
    show(found)


def show(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Prints milliseconds, hours and losses, and the JSON line."""
    lines = ["| stage | variant | training, ms an image | x | scoring | x | once | peak GB |"]
    lines += ["|:--|:--|--:|--:|--:|--:|:--|--:|"]
    hours = dict.fromkeys(VARIANTS, 0.0)
    per_image: dict[str, dict[str, float]] = {"training": {}, "scoring": {}}
    for (name, variant), runs in found.items():
        cells = []
        for what, each in per_image.items():
            took = each[f"{name}_{variant}"] = statistics.median(one[what] for one in runs)
            cells += [f"{1000 * took:.1f}", f"{each[f'{name}_released'] / took:.2f}"]
        once = {
            key: statistics.median(one["prepared"][key] for one in runs)
            for key in runs[0]["prepared"]
        }
        # Both stages share the decoded pictures: the student finds the teacher's.
        spent = (
            VISA_TRAIN * EPOCHS * per_image["training"][f"{name}_{variant}"]
            + VISA_TEST * EPOCHS * per_image["scoring"][f"{name}_{variant}"]
            + (VISA_TRAIN + VISA_TEST) * once.get("decoding", 0.0)
            + VISA_TRAIN * once.get("running the teacher", 0.0)
        )
        hours[variant] += spent / 3600
        cells.append(", ".join(f"{key} {1000 * value:.1f}" for key, value in once.items()) or "-")
        cells.append(f"{max(one['memory_gb'] for one in runs):.1f}")
        lines.append(f"| {name} | {variant} | {' | '.join(cells)} |")
    lines.append("")
    for name, variant in itertools.product(STAGES, VARIANTS):
        losses = " ".join(f"{loss:.5f}" for loss in found[name, variant][0]["losses"])
        lines.append(f"losses of the first steps, {name:7} {variant:8}: {losses}")
    difference = max(
        abs(a - b) / abs(a)
        for name in STAGES
        for a, b in zip(
            found[name, "released"][0]["losses"], found[name, "exact"][0]["losses"], strict=True
        )
    )
    # In bf16 where there are units for it, else in fp32.
    peak = matmul_peak(list(PRECISIONS.values())[-1])
    figures = {
        "speedup_exact": hours["released"] / hours["exact"],
        "speedup_bf16": hours["released"] / hours["bf16"] if "bf16" in hours else None,
        "loss_difference_exact": difference,
        **{
            f"{name}_over_floor": per_image["training"][f"{name}_{VARIANTS[-1]}"]
            / (found[name, VARIANTS[-1]][0]["flops"] / peak)
            for name in STAGES
        },
        "hours": hours,
        "seconds_per_image": per_image,
    }
    lines.append(
        f"{EPOCHS} epochs of both on VisA's {VISA_TRAIN} training and {VISA_TEST} test pictures, "
        "everything counted: "
        + ", ".join(f"{variant} {value:.1f} h" for variant, value in hours.items())
    )
    report(lines, figures)


if __name__ == "__main__":
    main()
