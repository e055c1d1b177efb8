"""Writers of small data sets in their true layouts, and small networks."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.data import read_data, read_splits
from jobs.job import Job
from jobs.session import Session
from options.schema import Run
from utils.batch import Batch
from utils.device import Machine
from utils.registry import Component

OBJECTS = ("candle", "pipe_fryum")
TINY_CLIP = {"arch": "tiny-RN", "pre_trained": "random"}
CAPTIONS = ("a photo of a fryum", "a photo of a fryum with small scratches", "normal", "a photo")


def write_visa(
    root: Path,
    objects: Sequence[str] = OBJECTS,
    normals: int = 10,
    anomalies: int = 6,
    newline: str = "\r\n",
) -> Path:
    """VisA in its own layout; an anomalous picture has a bright square, so it can be learned."""
    rng = np.random.default_rng(0)
    rows = []
    for name in objects:
        annotations = []
        for label, folder, count in ((0, "Normal", normals), (1, "Anomaly", anomalies)):
            for i in range(count):
                image = f"{name}/Data/Images/{folder}/{i:03d}.JPG"
                mask = f"{name}/Data/Masks/Anomaly/{i:03d}.png" if label else ""
                _picture(root / image, root / mask if mask else None, rng)
                defect = ("burnt", "burnt,corner or edge breakage")[i % 2] if label else "normal"
                annotations.append([image, defect, mask])
                split = "train" if i < 0.6 * count else "test"
                rows.append([name, split, ("normal", "anomaly")[label], image, mask])
        write_csv(root / name / "image_anno.csv", ["image", "label", "mask"], annotations, newline)
    for split in ("1cls", "2cls_fewshot", "2cls_highshot"):
        header = ["object", "split", "label", "image", "mask"]
        write_csv(root / "split_csv" / f"{split}.csv", header, rows, newline)
    return root


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], newline: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=newline).writerows([header, *rows])


def _picture(image: Path, mask: Path | None, rng: np.random.Generator) -> None:
    pixels = rng.integers(60, 120, (32, 48, 3), dtype=np.uint8)
    image.parent.mkdir(parents=True, exist_ok=True)
    if mask is not None:
        y, x = rng.integers(4, 20, 2)
        pixels[y : y + 10, x : x + 10] = 230
        area = np.zeros((32, 48), dtype=np.uint8)
        area[y : y + 10, x : x + 10] = 1
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(area).save(mask)
    Image.fromarray(pixels).save(image, quality=95)


def teacher_options(fusion: str = "cross_attention", **options: object) -> dict[str, Component]:
    """Keyword arguments of a tiny ``Teacher``."""
    sizes = {"saf_released": {"dim": 32, "heads": 4}, "concat": {"out_dim": 32}}
    small = sizes.get(fusion, {"dim": 32, "out_dim": 24, "heads": 4})
    return {
        "img_enc": Component("clip", TINY_CLIP),
        "text_enc": Component("clip", TINY_CLIP),
        "fusion": Component(fusion, {**small, **options}),
        "classif": Component("mlp", {"hidden": 16}),
    }


def student_options(name: str = "torchvision", arch: str = "resnet18") -> dict[str, Component]:
    """Keyword arguments of a small ``Student``; ``arch=""``: an encoder without that option."""
    pre_trained = "random" if name == "clip" else "false"
    return {
        "img_enc": Component(name, {"arch": arch, "pre_trained": pre_trained} if arch else {}),
        "classif": Component("linear", {}),
    }


def random_batch(size: int = 4, height: int = 64, width: int = 96, seed: int = 0) -> Batch:
    """Random pixels with captions, labels in turn."""
    random = torch.Generator().manual_seed(seed)
    return Batch(
        image=torch.randint(0, 256, (size, 3, height, width), generator=random, dtype=torch.uint8),
        label=torch.arange(size) % 2,
        object=["fryum"] * size,
        path=[f"{i}.JPG" for i in range(size)],
        caption=[CAPTIONS[i % len(CAPTIONS)] for i in range(size)],
    )


def job_of(run: Run, name: str = "student", machine: Machine | None = None) -> Job:
    """One stage of a run with its images, on the CPU."""
    splits = read_splits(run.dataset)
    machine = machine or Machine.choose("cpu", "fp32")
    return Job(run, name, splits, read_data(run, name, splits), machine)


def session_of(run: Run) -> Session:
    """An experiment under test, on the CPU."""
    return Session(run, read_splits(run.dataset), Machine.choose("cpu", "fp32"))


SMOKE = """
exp: {{dir: {folder}/run}}
dataset:
  {{name: visa, dir: {root}, split: 2cls_highshot, val_fraction: 0.3, cache: {folder}/cache}}
misc: {{seed: 7, device: cpu, precision: fp32}}
image: {{size: [32, 64]}}
optimizer: {{name: AdamW, lr: 1e-3, head_lr: 5e-3}}
schedule: {{name: one_cycle}}
engine: {{epochs: 3, batch_size: 4, num_workers: 0}}
objective: cross_entropy
teacher:
  model:
    name: teacher
    img_enc: {{name: clip, arch: tiny-RN, pre_trained: random}}
    text_enc: {{name: clip, arch: tiny-RN, pre_trained: random}}
    fusion: {{name: cross_attention, dim: 32, out_dim: 24, heads: 4}}
    classif: {{name: mlp, hidden: 16}}
student:
  model:
    name: student
    img_enc: {{name: clip, arch: tiny-RN, pre_trained: random}}
    classif: {{name: linear}}
  augment: {{horizontal_flip: 0.5}}
  objective: {{name: distillation, feature_weight: 0.5}}
"""


def write_smoke(folder: Path, root: Path) -> Path:
    """An options file that trains a tiny teacher and student on ``root`` in seconds."""
    path = folder / "smoke.yaml"
    path.write_text(SMOKE.format(folder=folder, root=root), encoding="utf-8")
    return path
