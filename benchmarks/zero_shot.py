"""Zero-shot methods: images per second with and without maps, and WinCLIP against others' ways.

    python -m benchmarks.zero_shot [--quick] [--anomalib PYTHON]

Random weights: the arithmetic is the same. Three ways of WinCLIP are measured in turn: ours, a
plain loop over windows around the same network, and anomalib's, as shipped, in a process of its
own. anomalib wants an older open_clip than this repository, so it needs an environment of its own;
PYTHON is the interpreter there (``pip install anomalib[clip]``).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import CPU, PRECISIONS, OtherProgram, RawText, alternated, report, seconds
from models.base import AnomalyModel
from models.baselines.vit import embed, project
from models.baselines.winclip import WinClip
from models.methods import METHODS
from utils.batch import Batch
from utils.device import Machine

LARGE = {"arch": "ViT-L-14-336-quickgelu", "pre_trained": "random"}
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "winclip": (240, {"arch": "ViT-B-16-plus-240", "pre_trained": "random"}),
    "clip": (518, LARGE),
    "vand": (518, LARGE),
    "anomalyclip": (518, LARGE),
}

# Runs in anomalib's environment: says it is ready, then the seconds of each batch it is asked for.
ANOMALIB = """
import sys, time, torch, open_clip
make = open_clip.create_model_and_transforms
open_clip.create_model_and_transforms = lambda name, pretrained: make(name)
from anomalib.models.image.winclip.torch_model import WinClipModel
model = WinClipModel(class_name="fryum").eval()
batch = torch.rand(int(sys.argv[1]), 3, 240, 240)
model(batch[:1])
torch.set_num_threads(int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    with torch.inference_mode():
        model(batch)
    print(time.perf_counter() - started, flush=True)
"""


def build(name: str) -> AnomalyModel:
    """A method with random weights, always the same."""
    size, options = MODELS[name]
    torch.manual_seed(0)
    model: AnomalyModel = METHODS[name]((size, size), True, **options)
    return model.eval()


def random_images(size: int, count: int) -> Batch:
    """Random pixels of one object."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return Batch(pixels, torch.zeros(count, dtype=torch.int64), ["fryum"] * count, [""] * count)


def run(job: Callable[[Batch], Any], batch: Batch, machine: Machine) -> Any:
    """What ``job`` says about ``batch``."""
    with torch.inference_mode(), machine.autocast():
        return job(batch)


def looped(model: WinClip, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores and maps with one pass through the whole network per window."""
    visual: Any = model.clip.visual
    x = embed(visual, model.normalize(batch.image))
    scales = []
    for windows in model.windows:
        rows = []
        for window in windows:
            tokens = torch.cat([x[:, :1], x[:, window + 1]], dim=1)
            rows.append(project(visual, visual.transformer(tokens)[:, 0]))
        scales.append(torch.stack(rows, dim=1))
    texts = model.texts_of(batch.object)
    score = model._probability(project(visual, visual.transformer(x)[:, :1]), texts)[:, 0]
    maps = model._zero_shot_map(score, scales, texts)
    size = (model.side, model.side)
    return score, torch.nn.functional.interpolate(maps.unsqueeze(1), size, mode="bilinear")[:, 0]


def compare_winclip(python: str, images: int, rounds: int) -> tuple[list[str], dict[str, Any]]:
    """WinCLIP three ways, in turn."""
    model = build("winclip")
    assert isinstance(model, WinClip)
    batch = random_images(240, images)
    machines = {name: Machine(CPU, dtype) for name, dtype in PRECISIONS.items()}
    ways: dict[str, Callable[[], Any]] = {
        f"{what}, {name}": partial(run, job, batch, machine)
        for what, job in (("scores", model.score), ("maps", model.score_and_map))
        for name, machine in machines.items()
    }
    found = {name: job() for name, job in ways.items()}  # warms up, too
    loop, by_loop = "maps, loop over windows, fp32, once", list[tuple[Tensor, Tensor]]()
    loop_time = seconds(
        lambda: by_loop.append(run(partial(looped, model), batch, machines["fp32"]))
    )
    loop_error = float((found["maps, fp32"][1] - by_loop[0][1]).abs().max())
    low = found.get("scores, bf16")
    bf16_error = None if low is None else float((found["scores, fp32"] - low).abs().max())
    other = OtherProgram(python, ANOMALIB, str(images), str(torch.get_num_threads()))
    jobs: dict[str, Callable[[], float]] = {n: partial(seconds, job) for n, job in ways.items()}
    if other.is_ready:
        jobs["anomalib, scores and maps, fp32"] = partial(other.ask, "go")
    times, _ = alternated(jobs, rounds)
    times[loop] = loop_time
    missing = other.close()
    lines = [f"WinCLIP, {images} images of 240 x 240, medians of {rounds}", ""]
    lines += ["| way | images/s |", "|:--|--:|"]
    lines += [f"| {name} | {images / time:.2f} |" for name, time in times.items()]
    if not other.is_ready:
        lines += ["", f"anomalib is not there: {missing}"]
    theirs = times.get("anomalib, scores and maps, fp32")
    best_maps = min(times[f"maps, {name}"] for name in PRECISIONS)
    best_scores = min(times[f"scores, {name}"] for name in PRECISIONS)
    lines += ["", f"largest difference: maps from the loop's, fp32, {loop_error:.1e}"]
    if bf16_error is not None:
        lines += [f"largest difference: bf16 scores from fp32 ones, {bf16_error:.1e}"]
    return lines, {
        "winclip_maps_vs_anomalib": theirs and theirs / best_maps,
        "winclip_scores_vs_anomalib": theirs and theirs / best_scores,
        "winclip_maps_fp32_vs_anomalib": theirs and theirs / times["maps, fp32"],
        "winclip_maps_vs_loop": times[loop] / times["maps, fp32"],
        "winclip_maps_difference_from_loop": loop_error,
        "winclip_scores_bf16_difference": bf16_error,
    }


def each_method(images: int, rounds: int) -> tuple[list[str], dict[str, float]]:
    """Images per second of each method, with and without maps."""
    lines = ["", "| method | image | precision | scores, images/s | with maps, images/s |"]
    lines += ["|:--|:--|:--|--:|--:|"]
    figures: dict[str, float] = {}
    for name, (size, _) in MODELS.items():
        model, batch = build(name), random_images(size, images)
        for precision, dtype in PRECISIONS.items():
            machine = Machine(CPU, dtype)
            jobs = {"scores": partial(run, model.score, batch, machine)}
            if model.has_map:
                jobs["maps"] = partial(run, model.score_and_map, batch, machine)
            run(model.score, batch, machine)  # embeds the sentences, too
            times, _ = alternated({n: partial(seconds, job) for n, job in jobs.items()}, rounds)
            speed = {what: images / time for what, time in times.items()}
            figures |= {f"{name}_{precision}_{what}": value for what, value in speed.items()}
            maps = f"{speed['maps']:.2f}" if "maps" in speed else "-"
            lines.append(
                f"| {name} | {size} x {size} | {precision} | {speed['scores']:.2f} | {maps} |"
            )
    return lines, figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument("--quick", action="store_true", help="under five minutes on two cores")
    parser.add_argument(
        "--anomalib",
        metavar="PYTHON",
        default=sys.executable,
        help="interpreter that has anomalib (default: this one)",
    )
    args = parser.parse_args(arguments)
    Machine.choose("cpu", "fp32")
    images, rounds = (1, 3) if args.quick else (8, 5)
    lines, figures = compare_winclip(args.anomalib, images, rounds)
    more, speed = each_method(1 if args.quick else 4, 1 if args.quick else 3)
    report([*lines, *more], {**figures, "images_per_second": speed})


if __name__ == "__main__":
    main()
