"""Rendered pictures in pairs, flawless and flawed, and sentences: what a small CLIP learns from."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from demo.clip.inventions import Invention, invent
from demo.clip.sentences import ANOMALOUS, NORMAL, Fact, describe, opposites, truth
from demo.defects import defects_of
from demo.files import SIZE, VERSION
from demo.picture import render_product
from demo.products import OBJECTS
from demo.surface import Pixels
from utils.batch import Batch
from utils.checkpoint import write_bytes
from utils.device import num_cores
from utils.seeding import derive

STORED = (144, 216)  # height and width of what is kept, three quarters of what is rendered
_KNOWN = 0.4  # share of pairs that show an object with a name
_VISIBLE = 0.02  # share of a defect that has to be in view
_WORTH_IT = 200  # pairs that take longer to render than another process takes to start
_PAIRS = 1  # raise it with every change that moves a pixel
Drawn = tuple[Pixels, Pixels, tuple[str, str]]


@dataclass(frozen=True)
class PairBatch(Batch):
    """Half of the pictures are flawless, the others their flawed twins.

    Attributes:
        truth: 1 where the sentence of the column is true of the picture of the row, 0 where it is
            not, -1 where neither can be said; shape ``(B, B)``.
        cover: Share of each place that a defect covers, shape ``(B, grid, grid)``.
        opposites: Pairs of sentences that call any product normal, and anomalous.
    """

    truth: Tensor = field(kw_only=True)
    cover: Tensor = field(kw_only=True)
    opposites: Sequence[tuple[str, str]] = field(kw_only=True)

    def to(self, device: torch.device) -> "PairBatch":
        """The same batch with its tensors on ``device``."""
        moved = super().to(device)
        assert isinstance(moved, PairBatch)
        return replace(moved, truth=self.truth.to(device), cover=self.cover.to(device))


@dataclass(frozen=True)
class Pairs:
    """Pairs on disk.

    Attributes:
        pictures: Flawless and flawed, shape ``(N, 2, H, W, 3)``, uint8.
        masks: 255 where the second one is flawed, shape ``(N, H, W)``, uint8.
        facts: Object and defect of each pair.
    """

    pictures: Pixels
    masks: Pixels
    facts: Sequence[tuple[str, str]]


def render_pairs(folder: Path, *, objects: Sequence[str], count: int, seed: int) -> Pairs:
    """The pairs in ``folder``, rendered there first unless they are there already.

    Args:
        folder: Holds nothing else.
        objects: Keys of ``OBJECTS``; no other object is ever drawn.
        count: Pairs.
        seed: The same seed gives the same pairs.
    """
    record: dict[str, Any] = {"objects": list(objects), "count": count, "seed": seed}
    record["renderer"] = [VERSION, _PAIRS]
    about, pictures, masks = (folder / name for name in ("pairs.json", "pictures.npy", "masks.npy"))
    known = json.loads(about.read_text()) if about.is_file() else {}
    if {key: known.get(key) for key in record} != record:
        about.unlink(missing_ok=True)
        record["facts"] = _render_all(pictures, masks, objects=objects, count=count, seed=seed)
        write_bytes(json.dumps(record).encode(), about)  # last: without it, there is nothing
        known = record
    facts = [(name, defect) for name, defect in known["facts"]]
    return Pairs(np.load(pictures, mmap_mode="r"), np.load(masks, mmap_mode="r"), facts)


def _render_all(
    pictures: Path, masks: Path, *, objects: Sequence[str], count: int, seed: int
) -> list[tuple[str, str]]:
    pictures.parent.mkdir(parents=True, exist_ok=True)
    make = np.lib.format.open_memmap
    images = make(pictures, mode="w+", dtype=np.uint8, shape=(count, 2, *STORED, 3))
    covers = make(masks, mode="w+", dtype=np.uint8, shape=(count, *STORED))
    draw = partial(draw_pair, objects=tuple(objects), seed=seed)
    facts = []
    with _workers(count) as run:
        drawn = run(draw, range(count))
        for i, pair in enumerate(tqdm(drawn, total=count, unit="pair", desc="rendering")):
            images[i], covers[i], fact = pair
            facts.append(fact)
    images.flush()
    covers.flush()
    return facts


@contextmanager
def _workers(count: int) -> Iterator[Callable[..., Iterator[Drawn]]]:
    """Something like ``map``, in as many processes as are worth their start."""
    if count < _WORTH_IT:
        yield map
        return
    # A fresh interpreter each: a copy of this one could inherit locks that nobody will open.
    with ProcessPoolExecutor(num_cores(), get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=16)


def draw_pair(number: int, *, objects: Sequence[str], seed: int) -> Drawn:
    """Pair ``number``: pictures ``(2, H, W, 3)``, mask ``(H, W)``, and object and defect."""
    rng = np.random.default_rng((seed, number))
    name = str(rng.choice(objects)) if rng.random() < _KNOWN else ""
    what = Invention(OBJECTS[name], defects_of(name)) if name else invent(rng, objects)
    defect = what.defects[int(rng.integers(len(what.defects)))]
    scene = int(rng.integers(2**63))
    pictures = []
    for defects in ({}, {defect: 255}):
        picture, mask = render_product(what.product, defects, np.random.default_rng(scene), SIZE)
        pictures.append(_stored(picture))
    return np.stack(pictures), _stored(mask), (name, defect)


def _stored(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize(STORED[::-1], Image.Resampling.BICUBIC))


class PairBatches:
    """Batches of any epoch: each view of a pair is drawn anew, the same for both pictures.

    Args:
        pairs: Where from.
        image_size: Side of the square that the network sees.
        grid: Places along each side for which :attr:`PairBatch.cover` is given.
        batch_size: Pictures, a multiple of 8.
        seed: Every draw follows from it and the epoch.
    """

    def __init__(
        self, pairs: Pairs, *, image_size: int, grid: int, batch_size: int, seed: int
    ) -> None:
        self.pairs, self.image_size, self.grid = pairs, image_size, grid
        self.group, self.seed = batch_size // 8, seed

    @property
    def num_images(self) -> int:
        """Pictures per epoch."""
        return len(self) * 8 * self.group

    def __len__(self) -> int:
        """Steps per epoch; what does not fill a batch is left out."""
        return len(self.pairs.facts) // (4 * self.group)

    def epoch(self, number: int) -> Iterator[PairBatch]:
        """The batches of epoch ``number``: four groups each, with a view of their own."""
        draw = random.Random(derive(self.seed, "pairs", number))  # noqa: S311
        order = list(range(len(self.pairs.facts)))
        draw.shuffle(order)
        for step in range(len(self)):
            first = 4 * self.group * step
            groups = [
                self._view(sorted(order[start : start + self.group]), draw)
                for start in range(first, first + 4 * self.group, self.group)
            ]
            yield self._batch(groups, draw)

    def _batch(
        self, groups: Sequence[tuple[Tensor, Tensor, list[Fact]]], draw: random.Random
    ) -> PairBatch:
        facts = [fact for group in groups for fact in group[2]]
        said = [describe(fact, draw) for fact in facts]
        return PairBatch(
            image=torch.cat([group[0] for group in groups]),
            label=torch.tensor([fact.state for fact in facts]),
            object=[fact.object for fact in facts],
            path=[""] * len(facts),
            caption=[sentence.text for sentence in said],
            truth=torch.from_numpy(truth(facts, said)),
            cover=torch.cat([group[1] for group in groups]),
            opposites=[opposites(draw) for _ in range(len(facts) // 4)],
        )

    def _view(
        self, numbers: Sequence[int], draw: random.Random
    ) -> tuple[Tensor, Tensor, list[Fact]]:
        """Pixels, covers and facts of some pairs, photographed in the same way."""
        pixels = torch.from_numpy(self.pairs.pictures[numbers]).flatten(0, 1).permute(0, 3, 1, 2)
        mask = torch.from_numpy(self.pairs.masks[numbers]).unsqueeze(1).float() / 255
        whole = mask.sum(dim=(1, 2, 3))
        condition = draw.choices([name for name, _ in _VIEWS], [share for _, share in _VIEWS])[0]
        rows, columns = _crop(condition, draw)
        mirrored = [axis for axis in (2, 3) if draw.random() < 0.5]
        pixels = pixels[:, :, rows, columns].flip(mirrored).contiguous()
        mask = mask[:, :, rows, columns].flip(mirrored)
        size = (self.image_size, self.image_size)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
        visible = (mask.sum(dim=(1, 2, 3)) > _VISIBLE * whole).tolist()
        cover = F.adaptive_avg_pool2d(mask, self.grid)
        facts = []
        for number, is_flawed in zip(numbers, visible, strict=True):
            name, defect = self.pairs.facts[number]
            flawless = Fact(name, NORMAL, (), condition)
            flawed = Fact(name, ANOMALOUS, (defect,), condition) if is_flawed else flawless
            facts += [flawless, flawed]
        covers = torch.cat([torch.zeros_like(cover), cover], dim=1).flatten(0, 1)
        return _expose(pixels, condition, draw), covers, facts


# How often a group is photographed how; close-up and cropped are the same thing.
_VIEWS = (
    ("", 0.64),
    ("dark", 0.08),
    ("bright", 0.08),
    ("blurry", 0.03),
    ("black and white", 0.05),
    ("close-up", 0.06),
    ("cropped", 0.06),
)


def _crop(condition: str, draw: random.Random) -> tuple[slice, slice]:
    """The rows and columns in view: all, a square as high as the picture, or a part."""
    height, width = STORED
    if condition in ("close-up", "cropped"):
        share = draw.uniform(0.45, 0.65)
        size = round(share * height), round(share * width)
    else:
        chance, share = draw.random(), draw.uniform(0.7, 1)
        size = (height, height) if chance < 0.25 else (height, width)
        if chance > 0.85:
            size = round(share * height), round(share * width)
    top, left = draw.randint(0, height - size[0]), draw.randint(0, width - size[1])
    return slice(top, top + size[0]), slice(left, left + size[1])


def _expose(pixels: Tensor, condition: str, draw: random.Random) -> Tensor:
    """Light and colour: bytes to bytes."""
    gain = torch.tensor([draw.uniform(0.85, 1.15) for _ in range(3)]).view(3, 1, 1)
    light = {"dark": draw.uniform(0.3, 0.55), "bright": draw.uniform(1.35, 1.8)}
    found = pixels * (gain * light.get(condition, 1.0))
    if condition == "black and white":
        found = found.mean(dim=1, keepdim=True).expand_as(found)
    if condition == "blurry":
        found = F.avg_pool2d(found, 5, 1, 2, count_include_pad=False)
    return found.clamp(0, 255).to(torch.uint8)
