"""Inference: latency and throughput of students, by network and by what runs it.

    python -m benchmarks.inference [--quick] [--anomalib PYTHON]

Random weights: the arithmetic is the same. Pictures are rendered JPEGs of 1500 x 1000. PaDiM and
PatchCore of anomalib run in an environment of their own on the same pixels, if PYTHON is the
interpreter of one (``pip install anomalib``).
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import (
    CPU,
    PRECISIONS,
    OtherProgram,
    RawText,
    alternated,
    pictures,
    report,
    seconds,
)
from datasets.image import View, read_view
from jobs.exported import Exported
from jobs.exporting import FORMATS
from models.deployed import DeployedStudent
from models.student import Student
from utils.device import Machine
from utils.registry import Component

BATCH, SIDE = 32, 224
NETWORKS = {
    "mobilenet_v2": ("torchvision", {"pre_trained": "false"}),
    "resnet18": ("torchvision", {"pre_trained": "false"}),
    "resnet50": ("torchvision", {"pre_trained": "false"}),
    "tf_efficientnet_lite0": ("timm", {"pre_trained": "false"}),
    "vit_small_patch14_dinov2": ("timm", {"pre_trained": "false"}),
}
EXPORTS = {
    "ONNX, fp32": ("onnx", False),
    "ONNX, int8": ("onnx", True),
    "OpenVINO, fp32": ("openvino", False),
    "OpenVINO, int8": ("openvino", True),
}
Scores = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Runs in anomalib's environment: "padim 32" asks for the seconds of a batch of 32.
ANOMALIB = """
import sys, time, numpy, torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(0)
images = torch.from_numpy(numpy.load(sys.argv[1])).permute(0, 3, 1, 2).float() / 255
layers = ["layer1", "layer2", "layer3"]
models = {
    "padim": PadimModel(backbone="resnet18", layers=layers, pre_trained=False),
    "patchcore": PatchcoreModel(
        layers=["layer2", "layer3"], backbone="wide_resnet50_2", pre_trained=False
    ),
}
for name, model in models.items():
    model.train()
    with torch.inference_mode():
        model(images)
    model.fit() if name == "padim" else model.subsample_embedding(0.1)
    model.eval()
print("ready", flush=True)
for line in sys.stdin:
    name, count = line.split()
    started = time.perf_counter()
    with torch.inference_mode():
        models[name](images[: int(count)])
    print(time.perf_counter() - started, flush=True)
"""


class _Calibration:
    """Pictures, one by one, as onnxruntime reads them to find the ranges of int8."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.rest = list(pixels)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next picture; ``None`` after the last."""
        return {"image": self.rest.pop()[None]} if self.rest else None


def student(arch: str, pixels: NDArray[np.uint8]) -> Student:
    """A student with random weights, whose logits differ by about 1 between the pictures."""
    name, options = NETWORKS[arch]
    torch.manual_seed(0)
    encoder = Component(name, {"arch": arch, **options})
    model = Student((SIDE, SIDE), True, img_enc=encoder, classif=Component("linear", {})).eval()
    with torch.inference_mode():
        features = model.img_enc(torch.from_numpy(pixels).permute(0, 3, 1, 2)).mean(dim=1)
    last: Any = model.classif
    with torch.no_grad():
        last.main[-1].weight /= features.std(dim=0).norm() * last.main[-1].weight.std() * 2
    return model


def by_torch(network: Any, machine: Machine, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scores of RGB bytes ``(B, H, W, 3)``."""
    with torch.inference_mode(), machine.autocast():
        scores: NDArray[np.float32] = network(torch.from_numpy(image))[0].numpy()
    return scores


def by_file(exported: Exported, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same from an exported file."""
    return exported.run(image)["score"]


def timed(way: Scores, pixels: NDArray[np.uint8], count: int) -> float:
    """Seconds that the first ``count`` pictures take."""
    return seconds(lambda: way(pixels[:count]))


def ways(arch: str, pixels: NDArray[np.uint8], folder: Path) -> tuple[dict[str, Scores], list[str]]:
    """What runs a network, by name; and what cannot, with the reason."""
    found: dict[str, Scores] = {}
    missing: list[str] = []

    for precision, dtype in PRECISIONS.items():
        machine = Machine(CPU, dtype)
        network = machine.place(DeployedStudent(student(arch, pixels), 1.0, maps=False))
        found[f"torch, {precision}"] = partial(by_torch, network, machine)
    compiled = Machine(CPU, torch.float32).place(
        DeployedStudent(student(arch, pixels), 1.0, maps=False)
    )
    compiled.compile(dynamic=False)
    found["torch, compiled"] = partial(by_torch, compiled, Machine(CPU, torch.float32))
    for title, (to, is_int8) in EXPORTS.items():
        suffix, write = FORMATS[to]
        file = folder / f"{arch}_{to}_{is_int8}" / f"model{suffix}"
        file.parent.mkdir()
        network = DeployedStudent(student(arch, pixels), 1.0, maps=False)
        about = {"image": {"size": [SIDE, SIDE]}, "outputs": network.output_names}
        calibration: Any = _Calibration(pixels) if is_int8 else None
        write(network, about, file, calibration)
        found[title] = partial(by_file, Exported.open(file))
    for title, way in list(found.items()):
        try:
            way(pixels), way(pixels[:1])  # warms up, and compiles
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a runtime raises
            missing.append(f"{arch}: {title}: {str(error).splitlines()[0]}")
            del found[title]
    return found, missing


def decoded(files: Sequence[Path]) -> NDArray[np.uint8]:
    """The pictures in the files at the size of the networks, shape ``(B, H, W, 3)``."""
    view = View((SIDE, SIDE), "full", None)
    return np.stack([read_view(file, view).permute(1, 2, 0).numpy() for file in files])


def measure(
    jobs: Mapping[str, Callable[[int], float]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of one picture and of :data:`BATCH`, by what runs the network."""
    one, _ = alternated({name: partial(job, 1) for name, job in jobs.items()}, 5 * rounds)
    many, _ = alternated({name: partial(job, BATCH) for name, job in jobs.items()}, rounds)
    return one, many


def row(title: str, one: float, many: float, decode: float, about: str) -> str:
    """A line of the table; ``decode``: seconds that a picture takes before the network sees it."""
    cells = [title, f"{1e3 * one:.1f}", f"{1e3 * (one + decode):.1f}", f"{BATCH / many:.0f}"]
    return f"| {' | '.join([*cells, f'{BATCH / (many + BATCH * decode):.0f}', about])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawText)
    parser.add_argument(
        "--quick", action="store_true", help="three networks, a third of the rounds"
    )
    parser.add_argument("--anomalib", metavar="PYTHON", help="interpreter that has anomalib")
    args = parser.parse_args(arguments)
    rounds = 3 if args.quick else 9
    Machine.choose("cpu", "fp32")
    lines = ["| network | runs with | one, ms | with decoding | batch of 32, images/s |"]
    lines[0] += " with decoding | x | largest difference of a score |"
    lines += [f"|:--|:--|{'--:|' * 6}"]
    figures: dict[str, Any] = {}
    missing: list[str] = []
    with pictures(20) as root, tempfile.TemporaryDirectory() as folder:
        files = sorted(root.rglob("*.JPG"))[:BATCH]
        pixels = decoded(files)
        decode = seconds(lambda: decoded(files)) / BATCH
        for arch in list(NETWORKS)[:: 2 if args.quick else 1]:
            found, problems = ways(arch, pixels, Path(folder))
            missing += problems
            exact = found["torch, fp32"](pixels)
            jobs = {title: partial(timed, way, pixels) for title, way in found.items()}
            one, many = measure(jobs, rounds)
            for title, way in found.items():
                ratio = many["torch, fp32"] / many[title]
                about = f"{ratio:.2f} | {np.abs(way(pixels) - exact).max():.0e}"
                lines.append(row(f"{arch} | {title}", one[title], many[title], decode, about))
                figures[f"{arch}, {title}"] = {"ms": 1e3 * one[title], "x": ratio}
        if args.anomalib:
            more, problem = of_anomalib(args.anomalib, pixels, Path(folder), rounds)
            lines += [row(f"{n} | anomalib", *both, decode, "- | -") for n, both in more.items()]
            figures |= {f"{n}, anomalib": {"ms": 1e3 * one} for n, (one, _) in more.items()}
            missing += problem
    lines += ["", f"decoding a picture of 1500 x 1000: {1e3 * decode:.1f} ms, one core"]
    report([*lines, *(f"left out: {each}" for each in missing)], figures)


def asked(other: OtherProgram, name: str, count: int) -> float:
    """Seconds that a network of another program takes for ``count`` pictures."""
    return other.ask(f"{name} {count}")


def of_anomalib(
    python: str, pixels: NDArray[np.uint8], folder: Path, rounds: int
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """As :func:`measure`, both for each of two networks of anomalib; and why there are none."""
    file = folder / "pixels.npy"
    np.save(file, pixels)
    other = OtherProgram(python, ANOMALIB, str(file), str(torch.get_num_threads()))
    found = {}
    if other.is_ready:
        jobs = {name: partial(asked, other, name) for name in ("padim", "patchcore")}
        one, many = measure(jobs, rounds)
        found = {name: (one[name], many[name]) for name in jobs}
    error = other.close()
    return found, [] if found else [f"anomalib: {error}"]


if __name__ == "__main__":
    main()
