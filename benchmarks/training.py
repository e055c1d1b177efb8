"""Training speed: the released recipe's work against ours, on the same networks and pictures.

    python -m benchmarks.training [--quick]

"released": every picture is decoded by Pillow in every epoch, in four loader processes; the text
tower runs over all 77 positions of every caption; the teacher runs at every step of its student;
fp32, channels first, the C library's own memory settings. "exact": what run.py does with
misc.precision=fp32: the same sums, so the same losses. "bf16": with misc.precision=bf16, on
processors that have units for it.

Each variant runs in a process of its own (the memory settings cannot be taken back), in turn.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.common import (
    CPU,
    PRECISIONS,
    RawText,
    child,
    default_recipe,
    peak_memory,
    pictures,
    report,
)
from benchmarks.floor import Step, matmul_peak
from datasets.image import read_image
from datasets.record import Record
from models.encoders.clip_text import ClipTextEncoder, read_words
from models.encoders.tower import ImageEncoder
from models.objectives.base import LiveTeacher
from options.assemble import (
    Data,
    build_learner,
    build_model,
    build_optimizer,
    build_schedule,
    evaluation_batches,
    read_data,
    stage_captions,
    training_batches,
)
from options.schema import Run, Stage
from options.targets import ask_once
from utils.batch import Batch
from utils.device import Machine
from utils.seeding import derive
from utils.training import Source, fit

EPOCHS, VISA_TRAIN = 15, 6493
VARIANTS = ("released", "exact", *(name for name in PRECISIONS if name != "fp32"))
STAGES = ("teacher", "student")


# ------------------------------------------------------------------------------ as it was released


class ReleasedImages(Dataset[dict[str, Any]]):
    """Pillow, Resize(224, bicubic), CenterCrop, ToTensor, every time a picture is asked for."""

    def __init__(self, root: Path, records: Sequence[Record], captions: Sequence[str]) -> None:
        self.root, self.records, self.captions = root, records, captions
        self.transform = v2.Compose(
            [
                v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(224),
                v2.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One picture with its caption and label."""
        record = self.records[index]
        picture = read_image(self.root / record.path)
        pixels = self.transform(picture)
        return {"image": pixels, "label": record.label, "caption": self.captions[index]}


class ReleasedBatches:
    """Its loader: four processes, in the order in which ours sees the pictures."""

    num_workers = 4

    def __init__(self, images: ReleasedImages, order: Sequence[int], batch_size: int) -> None:
        self.loader = DataLoader(images, batch_size, sampler=order, num_workers=self.num_workers)
        self.num_images = len(order)

    def __len__(self) -> int:
        """Steps."""
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches; the same whatever ``number``."""
        for found in self.loader:
            batch = Batch(found["image"], found["label"], [], [], found["caption"])
            yield Batch(**{**vars(batch), "guide": batch})


def whole_text(encoder: ClipTextEncoder, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All 77 positions of every caption, however often it comes."""
    ids = encoder.tokenize(list(captions))
    words = read_words(encoder.text, ids)
    return words, torch.arange(ids.shape[1]) <= ids.argmax(dim=-1).unsqueeze(1)


def channels_first(encoder: ImageEncoder, image: Tensor) -> Tensor:
    """Normalised pixels in PyTorch's own layout, in which all that follows then runs."""
    return image.contiguous().float().div(255).sub(encoder.mean).div(encoder.std)


# ------------------------------------------------------------------------------------ one variant


def released(run: Run, name: str, stage: Stage, data: Data) -> tuple[nn.Module, Source]:
    """The network and its batches as in the released repository."""
    targets = LiveTeacher(build_model(run, "teacher", run.teacher)) if name == "student" else None  # type: ignore[arg-type]
    learner = build_learner(run, name, stage, targets)
    for network in [learner.model, *([targets.model] if targets else [])]:
        for encoder in network.encoders():
            if isinstance(encoder, ImageEncoder):
                encoder.normalize = partial(channels_first, encoder)  # type: ignore[method-assign]
        if network.reads_text:
            network.text_enc.forward = partial(whole_text, network.text_enc)  # type: ignore[union-attr,arg-type]
    captions = stage_captions(run, name, stage)
    images = ReleasedImages(data.root, data.train, [captions(r, 0) for r in data.train])
    ours = training_batches(run, name, stage, data, CPU, None)
    order = [index for _, index in ours.order]
    return learner, ReleasedBatches(images, order, stage.engine.batch_size)


def ours(
    run: Run, name: str, stage: Stage, data: Data, machine: Machine, prepared: dict[str, float]
) -> tuple[nn.Module, Source]:
    """The network and its batches as run.py makes them; notes how long the preparations take."""
    started = time.perf_counter()
    batches = training_batches(run, name, stage, data, machine.device, None)
    prepared["decoding"] = time.perf_counter() - started
    targets = None
    if name == "student":
        teacher_stage: Any = run.teacher
        evaluation_batches(run, teacher_stage, data.train, data.splits["train"], machine.device)
        teacher = machine.place(build_model(run, "teacher", teacher_stage))
        started = time.perf_counter()
        targets = ask_once(
            run, name, stage, data, machine, LiveTeacher(teacher), teacher_stage, "random"
        )
        prepared["asking the teacher"] = time.perf_counter() - started
    return machine.place(build_learner(run, name, stage, targets)), batches


class Watched:
    """Batches that note when each was asked for: between two of them lies a step and a load."""

    def __init__(self, source: Source, steps: int) -> None:
        self.source, self.steps = source, steps
        self.num_images = source.num_images
        self.times: list[float] = []

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return len(self.source)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The first batches of an epoch."""
        for batch in itertools.islice(self.source.epoch(number), self.steps):
            self.times.append(time.perf_counter())
            yield batch
        self.times.append(time.perf_counter())


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


def measure(variant: str, name: str, root: Path, steps: int) -> dict[str, Any]:
    """Seconds per image, seconds per image of what is prepared once, and the losses."""
    precision = "bf16" if variant == "bf16" else "fp32"
    run = default_recipe(
        root,
        "image.resize=center_crop",
        f"misc.precision={precision}",
        is_cached=variant != "released",
    )
    data = read_data(run)
    stage: Stage = getattr(run, name)
    prepared: dict[str, float] = {}
    if variant == "released":
        machine = Machine(CPU, torch.float32)
        learner, batches = released(run, name, stage, data)
    else:
        machine = Machine.choose("cpu", precision)
        learner, batches = ours(run, name, stage, data, machine, prepared)
    watched, noting = Watched(batches, steps), Noting(learner)
    fit(
        noting,
        watched,
        build_optimizer(stage, learner),  # type: ignore[arg-type]
        build_schedule(stage),
        epochs=range(1),
        seed=derive(run.misc.seed, name),
        device=machine.device,
        autocast=machine.autocast,
        on_epoch=lambda _: None,
        name=f"{variant} {name}",
    )
    # The first step also warms up, and the released loader starts its processes in it.
    lasted = [b - a for a, b in itertools.pairwise(watched.times)][1:]
    count = len(data.splits["train"])
    return {
        "per_image": statistics.median(lasted) / stage.engine.batch_size,
        "prepared": {key: value / count for key, value in prepared.items()},
        "losses": noting.losses,
        "memory_gb": peak_memory(),
    }


# ---------------------------------------------------------------------------------------- the whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all variants in turn and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # variant, stage, root, steps
    args = parser.parse_args(arguments)
    if args.one:
        variant, name, root, steps = args.one
        sys.stdout.write(json.dumps(measure(variant, name, Path(root), int(steps))) + "\n")
        return
    steps, rounds = (4, 1) if args.quick else (11, 2)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with pictures(24 * steps * 5 // 4 + 24) as root:
        for _, name, variant in itertools.product(range(rounds), STAGES, VARIANTS):
            one = child("benchmarks.training", "--one", variant, name, str(root), str(steps))
            found.setdefault((name, variant), []).append(one)
    show(found)


def over_floor(per_image: dict[str, float]) -> dict[str, float]:
    """Time of a step over what its operations would take at the speed of a matrix product.

    In bf16 where there are units for it, else in fp32.
    """
    precision, dtype = list(PRECISIONS.items())[-1]
    peak = matmul_peak(dtype)
    figures = {}
    with pictures(48) as root:
        run = default_recipe(root, f"misc.precision={precision}")
        for name in STAGES:
            step = Step(run, name)
            floor = step.flops() / len(step.batch) / peak
            figures[f"{name}_over_floor"] = per_image[f"{name}_{VARIANTS[-1]}"] / floor
    return figures


def show(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Prints milliseconds, hours and losses, and the JSON line."""
    lines = ["| stage | variant | ms an image | x | prepared once, ms an image | peak GB |"]
    lines += ["|:--|:--|--:|--:|:--|--:|"]
    hours = dict.fromkeys(VARIANTS, 0.0)
    per_image: dict[str, float] = {}
    for (name, variant), runs in found.items():
        step = statistics.median(one["per_image"] for one in runs)
        per_image[f"{name}_{variant}"] = step
        once = {
            key: statistics.median(one["prepared"].get(key, 0.0) for one in runs)
            for key in runs[0]["prepared"]
        }
        # Both stages share the decoded pictures: the student finds the teacher's.
        hours[variant] += VISA_TRAIN * (EPOCHS * step + sum(once.values())) / 3600
        ratio = per_image[f"{name}_released"] / step
        said = ", ".join(f"{key} {1000 * value:.1f}" for key, value in once.items()) or "-"
        memory = max(one["memory_gb"] for one in runs)
        lines.append(
            f"| {name} | {variant} | {1000 * step:.1f} | {ratio:.2f} | {said} | {memory:.1f} |"
        )
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
    figures = {
        "speedup_exact": hours["released"] / hours["exact"],
        "speedup_bf16": hours["released"] / hours["bf16"] if "bf16" in hours else None,
        "loss_difference_exact": difference,
        **over_floor(per_image),
        "hours": hours,
        "seconds_per_image": per_image,
    }
    lines.append(
        f"{EPOCHS} epochs of both on VisA's {VISA_TRAIN} training pictures, everything counted: "
        + ", ".join(f"{variant} {value:.1f} h" for variant, value in hours.items())
    )
    report(lines, figures)


if __name__ == "__main__":
    main()
