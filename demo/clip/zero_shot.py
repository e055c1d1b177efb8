"""What a CLIP makes of rendered pictures without another training: two small tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from datasets.image import View
from datasets.image_text import Batches, ImageText
from datasets.pixels import DecodedPixels
from datasets.readers.visa import read_visa
from demo import DEMO, SIZE, defects_of, render, write
from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from models.methods import METHODS
from utils.evaluation import per_object, score_images
from utils.seeding import derive

# Methods whose image score needs nothing but CLIP and a list of prompts, with their own options.
_METHODS: Mapping[str, Mapping[str, Any]] = {
    "clip": {},
    "winclip": {},
    "vand": {"levels": (1, 2, 3, 4), "temperature": 0.07},
}


def detection(arch: str, weights: Path, side: int, root: Path) -> pd.DataFrame:
    """AUROC and AUPR of the demo's test images, by three published lists of prompts.

    Args:
        arch: Architecture of the weights.
        weights: The file.
        side: Side of the square it sees, in pixels.
        root: The rendered data of the demo; made if it is not there.

    Returns:
        Index: objects and ``mean``. Columns: ``<method>``, as "81.2 / 79.0", in percent.
    """
    write(root, objects=DEMO)
    records = read_visa(root, split="2cls_highshot")["test"]
    pixels, cpu = DecodedPixels(root, records, View((side, side), "full")), torch.device("cpu")
    batches = Batches(
        ImageText(pixels, records), batch_size=32, sampler=None, num_workers=0, device=cpu
    )
    columns = {}
    for name, options in _METHODS.items():
        shared: dict[str, Any] = {"arch": arch, "pre_trained": str(weights)}
        model = METHODS[name]((side, side), True, **shared, **options).eval()
        table = per_object(score_images(model.score, batches, cpu))
        columns[name] = [
            f"{auroc:.1f} / {aupr:.1f}"
            for auroc, aupr in zip(table["auroc"], table["aupr"], strict=True)
        ]
    return pd.DataFrame(columns, index=table.index)


@torch.inference_mode()
def retrieval(
    arch: str, weights: Path, side: int, objects: Sequence[str], *, count: int, seed: int
) -> pd.DataFrame:
    """How often the right one of several sentences is the closest to a fresh picture, in percent.

    Args:
        arch: Architecture of the weights.
        weights: The file.
        side: Side of the square it sees, in pixels.
        objects: Objects to render, none of them seen in just this way before.
        count: Flawless pictures per object, and flawed ones.
        seed: What they are drawn from.

    Returns:
        Index: objects and ``mean``. Columns: ``state`` (out of 2: both sides), ``object`` (out of
        all), ``defect`` (out of the object's own; flawed pictures only).
    """
    options: dict[str, Any] = {"arch": arch, "pre_trained": str(weights)}
    image = ClipImageEncoder((side, side), True, True, **options).eval()
    sentence = ClipTextEncoder(True, True, **options).eval()

    def closest(pixels: Tensor, sentences: Sequence[str]) -> Tensor:
        texts = F.normalize(sentence(sentences)[0][:, 0], dim=-1)
        return (image(pixels)[:, 0] @ texts.T).argmax(dim=1)

    rows = {}
    for number, name in enumerate(objects):
        labels = defects_of(name)
        flawed = torch.arange(count) % len(labels)
        pixels = torch.stack(list(_pictures(name, count, side, seed)))
        state = closest(pixels, ["a photo of a normal object.", "a photo of an anomalous object."])
        spoken = [other.replace("_", " ") for other in objects]
        which = closest(pixels, [f"a photo of a {other}." for other in spoken])
        defect = closest(pixels[count:], [f"a photo of an object with {d}." for d in labels])
        rows[name] = {
            "state": (state == (torch.arange(2 * count) >= count)),
            "object": which == number,
            "defect": defect == flawed,
        }
    table = pd.DataFrame(
        {
            name: {key: 100 * float(hits.float().mean()) for key, hits in row.items()}
            for name, row in rows.items()
        }
    ).T
    table.loc["mean"] = table.mean()
    return table


def _pictures(name: str, count: int, side: int, seed: int) -> Iterator[Tensor]:
    """Flawless pictures, then as many flawed ones, each defect in its turn."""
    view, labels = View((side, side), "full"), defects_of(name)
    for i in range(2 * count):
        defects = [labels[i % count % len(labels)]] if i >= count else []
        rng = np.random.default_rng(derive(seed, "retrieval", name, i))
        yield view(Image.fromarray(render(name, defects, rng, SIZE)[0]))
