"""The rendered data set on disk, in VisA's layout."""

import csv
import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from demo.defects import defects_of
from demo.picture import render
from demo.products import OBJECTS
from utils.errors import UserError
from utils.registry import did_you_mean

# Raise it with every change of a pixel: folders of an older renderer are then refused.
VERSION = 1
DEMO = ("candle", "cashew", "fryum", "pcb1")
NORMALS, ANOMALIES = 100, 50
SIZE = (192, 288)

# Share of training images of each label, per split file.
SPLITS = {
    "1cls": {"normal": 0.9, "anomaly": 0.0},
    "2cls_highshot": {"normal": 0.6, "anomaly": 0.6},
    "2cls_fewshot": {"normal": 0.2, "anomaly": 0.2},
}

README = """\
Every image and mask in this folder was rendered by the folder demo of this project.
None of them is a photograph and none comes from VisA: only the folder layout, the object names
and the defect labels follow it (Zou et al. 2022, arXiv 2207.14315).
Released under CC0 1.0: https://creativecommons.org/publicdomain/zero/1.0/
"""


@dataclass(frozen=True)
class Sample:
    """One image of the data set, with paths relative to its root.

    Attributes:
        object: Object class.
        defects: Labels of its defects; empty for a normal image.
        image: Path of the image.
        mask: Path of the mask; empty for a normal image.
        seed: Seed of the image.
    """

    object: str
    defects: tuple[str, ...]
    image: str
    mask: str
    seed: tuple[int, ...]


def plan(object_name: str, normals: int, anomalies: int, seed: int) -> list[Sample]:
    """The samples of one object, normal ones first; they do not depend on the other objects.

    Each defect occurs equally often. One anomalous image in five has a second defect.
    """
    key, folder = zlib.crc32(object_name.encode()), f"{object_name}/Data"
    digits = 4 if normals >= 1000 else 3
    samples = [
        Sample(object_name, (), f"{folder}/Images/Normal/{i:0{digits}}.JPG", "", (seed, key, 0, i))
        for i in range(normals)
    ]
    labels = defects_of(object_name)
    rng = np.random.default_rng((seed, key, 1))
    for i in range(anomalies):
        first, further = i % len(labels), int(rng.integers(1, len(labels)))
        chosen = {first, (first + further) % len(labels)} if rng.random() < 0.2 else {first}
        samples.append(
            Sample(
                object_name,
                tuple(labels[label] for label in sorted(chosen)),
                f"{folder}/Images/Anomaly/{i:03}.JPG",
                f"{folder}/Masks/Anomaly/{i:03}.png",
                (seed, key, 2, i),
            )
        )
    return samples


def write(
    root: Path,
    *,
    objects: Sequence[str] = DEMO,
    normals: int = NORMALS,
    anomalies: int = ANOMALIES,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> bool:
    """Renders a data set into ``root``, unless the same one is there already.

    The folder gets its name when it is complete: a killed run leaves no folder of that name.

    Args:
        root: New folder, or an empty one.
        objects: Keys of :data:`OBJECTS`.
        normals: Normal images per object.
        anomalies: Anomalous images per object.
        size: Height and width in pixels.
        seed: The same seed and arguments give the same bytes, with the same library versions.

    Returns:
        Whether it was rendered; ``False`` if it was there already.

    Raises:
        UserError: If an argument is wrong, or ``root`` holds something else.
    """
    _check(objects, normals, anomalies, size, seed)
    arguments = {"objects": list(objects), "normals": normals, "anomalies": anomalies}
    record = json.dumps(arguments | {"size": list(size), "seed": seed, "renderer": VERSION}) + "\n"
    if _is_there(root, record):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        unfinished = Path(scratch) / root.name
        plans = [plan(name, normals, anomalies, seed) for name in objects]
        for sample in tqdm(list(chain.from_iterable(plans)), unit="image", desc="rendering"):
            _draw(unfinished, sample, size)
        _write_tables(unfinished, plans, seed)
        (unfinished / "README.txt").write_text(README)
        (unfinished / "synthetic.json").write_text(record)
        if root.exists():
            root.rmdir()
        unfinished.rename(root)
    return True


def _check(
    objects: Sequence[str], normals: int, anomalies: int, size: tuple[int, int], seed: int
) -> None:
    """Raises UserError if an argument is wrong."""
    for name in objects:
        if name not in OBJECTS:
            hint = did_you_mean(name, OBJECTS)
            raise UserError(f"objects: cannot render {name!r}; {hint}")
    if not objects or len(set(objects)) < len(objects):
        raise UserError(f"objects: got {list(objects)}; name at least one, and each once")
    # With fewer images, a split may have no training or test image of a label.
    if normals < 5 or anomalies < 3:
        raise UserError(
            f"normals={normals}, anomalies={anomalies}: too few to share out between training and "
            "test in every split; take at least 5 and 3"
        )
    if min(size) < 32:
        raise UserError(f"size: {size[0]} x {size[1]} is too small; take at least 32 x 32")
    if seed < 0:
        raise UserError(f"seed={seed}: take 0 or more")


def _is_there(root: Path, record: str) -> bool:
    """Whether ``root`` holds the data set that ``record`` describes.

    Raises:
        UserError: If it holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    file = root / "synthetic.json"
    if not file.is_file():
        raise UserError(f"{root}: holds something else; name another folder with --root")
    if file.read_text() != record:
        raise UserError(
            f"{root}: was rendered with other arguments, {file.read_text().strip()}; delete it, or "
            "name another folder with --root"
        )
    return True


def _draw(root: Path, sample: Sample, size: tuple[int, int]) -> None:
    picture, mask = render(sample.object, sample.defects, np.random.default_rng(sample.seed), size)
    image = root / sample.image
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(image, "JPEG", quality=92)
    if sample.mask:
        file = root / sample.mask
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file)


def _write_tables(root: Path, plans: Sequence[Sequence[Sample]], seed: int) -> None:
    for samples in plans:
        rows = [[s.image, ",".join(s.defects) or "normal", s.mask] for s in samples]
        _write_csv(root / samples[0].object / "image_anno.csv", ["image", "label", "mask"], rows)
    for name in SPLITS:
        rows = [row for samples in plans for row in _split(samples, name, seed)]
        header = ["object", "split", "label", "image", "mask"]
        _write_csv(root / "split_csv" / f"{name}.csv", header, rows)


def _split(samples: Sequence[Sample], name: str, seed: int) -> list[list[str]]:
    """The rows of one object in one split file, training images first, in random order."""
    # As in VisA, both 2cls splits have the same order, so the few-shot training images are among
    # the high-shot ones. The split 1cls has an order of its own.
    key = zlib.crc32(samples[0].object.encode())
    rng = np.random.default_rng((seed, key, 3, name == "1cls"))
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    for label, share in SPLITS[name].items():
        group = [s for s in samples if (label == "anomaly") == bool(s.defects)]
        for place, i in enumerate(rng.permutation(len(group)).tolist()):
            split = "train" if place < round(share * len(group)) else "test"
            rows[split].append([group[i].object, split, label, group[i].image, group[i].mask])
    return rows["train"] + rows["test"]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No newline translation: the csv module ends lines with CRLF, and so do VisA's files.
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
