"""Trains the small CLIP of the demo on rendered pictures and published sentences.

    python -m demo.clip

It learns from all rendered objects except the four of the demo, and from products that do not
exist. Each picture is rendered when it is needed and used once. The weights that the demo uses are
in models/encoders/weights; docs/demo_clip.md has their figures.
"""

# ruff: noqa: S311  sentences are drawn here, not secrets

import argparse
import math
import random
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from demo.defects import defects_of
from demo.files import DEMO
from demo.picture import render_product
from demo.products import OBJECTS, Product
from demo.surface import Color, Map, Surface, arc, box, dome, edge, tiled
from models.baselines.prompts import VAND_PROMPTS, WINCLIP_PROMPTS
from models.encoders.clip import RANDOM, clip_model, image_statistics
from models.encoders.tower import normalize
from utils.batch import Batch
from utils.checkpoint import save_weights
from utils.console import say
from utils.device import Machine, num_cores
from utils.errors import run_command
from utils.schedules import OneCycle
from utils.seeding import seed_everything
from utils.training import Epoch, Epochs, fit

ARCH, IMAGE_SIZE = "demo-ViT", 144
SEED, LR = 0, 1.5e-3
RENDERED = (144, 216)  # height and width of a picture, before it is squashed to a square
TRAINED_ON = tuple(name for name in OBJECTS if name not in DEMO)
NORMAL = (*VAND_PROMPTS.normal, "normal {}", "intact {}")
ANOMALOUS = (*VAND_PROMPTS.anomalous, "anomalous {}", "abnormal {}")
TEMPLATES = (*VAND_PROMPTS.templates, *WINCLIP_PROMPTS["mala_lab"].templates, "{}.")
_THINGS = ("object", "product", "item", "part", "thing")
# The patches of the last two blocks learn: in the last one, the class token reads those before.
_BLOCKS = {"indices": [2, 3], "normalize_intermediates": True, "output_fmt": "NLC"}
_COVERED = 0.02  # smallest visible share of a defect, or defective share of a patch, that counts


class Twins(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pairs of pictures without and with a defect: training data of :func:`utils.training.fit`.

    Args:
        steps: Steps per epoch.
        batch_size: Pictures per step, half of them without a defect.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    @property
    def num_images(self) -> int:
        """Pictures per epoch."""
        return self.steps * self.batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``, all of new pictures."""
        pairs = [(number, pair) for pair in range(self.num_images // 2)]
        nameless = [""] * self.batch_size
        for pixels, masks, labels in DataLoader(
            self, self.batch_size // 2, sampler=pairs, num_workers=max(num_cores() // 2, 1)
        ):
            image, label, mask = pixels.flatten(0, 1), labels.flatten(), masks.flatten(0, 1)
            yield Batch(image, label, object=nameless, path=nameless, mask=mask)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """A pair, rendered now: pixels ``(2, 3, S, S)``, masks ``(2, S, S)``, labels ``(2,)``."""
        rng = np.random.default_rng((SEED, *key))
        product, labels = _product(rng)
        defect = labels[int(rng.integers(len(labels)))]
        scene = int(rng.integers(2**63))
        twins = [
            render_product(product, defects, np.random.default_rng(scene), RENDERED)
            for defects in ({}, {defect: 1})
        ]
        pictures, masks = zip(*twins, strict=True)
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
        return _view(pixels, torch.from_numpy(np.stack(masks)).unsqueeze(1).float(), rng)


def _view(pixels: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Both pictures of a pair, cropped, mirrored, resized and lit in the same random way."""
    whole = masks.sum()
    for axis, side in zip((2, 3), RENDERED, strict=True):
        length = round(rng.uniform(0.7, 1) * side)
        start = int(rng.integers(side - length + 1))
        pixels, masks = (values.narrow(axis, start, length) for values in (pixels, masks))
        if rng.random() < 0.5:
            pixels, masks = pixels.flip(axis), masks.flip(axis)
    is_visible = bool(masks.sum() > _COVERED * whole)
    square = (IMAGE_SIZE, IMAGE_SIZE)
    pixels = F.interpolate(pixels, square, mode="bicubic", antialias=True)
    masks = F.interpolate(masks, square, mode="area")[:, 0]
    if rng.random() < 0.5:  # other colors
        pixels = pixels[:, torch.from_numpy(rng.permutation(3))]
    light = rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
    pixels = pixels * torch.from_numpy(light).float().view(3, 1, 1)
    return pixels.clamp(0, 255).to(torch.uint8), masks, torch.tensor([0, int(is_visible)])


def _product(rng: np.random.Generator) -> tuple[Product, list[str]]:
    """A product and its possible defects: two of five are rendered objects, the rest is invented.

    Trained on eight objects alone, the network takes a ninth object for a defect.
    """
    if rng.random() < 0.4:
        name = str(rng.choice(TRAINED_ON))
        return OBJECTS[name], list(defects_of(name))
    grid = _GRIDS[int(rng.integers(len(_GRIDS)))]
    product = Product(
        partial(_shape, grid=grid),
        backdrop=_color(rng, 0.15, 0.7),
        turn=float(rng.choice((0.1, 0.35, math.pi))),
        gloss=float(rng.uniform(0.1, 0.6)),
        rough=float(rng.uniform(0.0002, 0.002)),
    )
    return product, [label for label in _LABELS if grid == (1, 1) or "stuck" not in label]


_GRIDS = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 2), (3, 2))  # columns and rows of pieces
# The defects of boards need parts, and an invented product has none.
_LABELS = sorted(
    {label for name in TRAINED_ON if not name.startswith("pcb") for label in defects_of(name)}
)


def _shape(x: Map, y: Map, rng: np.random.Generator, *, grid: tuple[int, int]) -> Surface:
    """One piece of a random shape and color, or several equal ones."""
    columns, rows = grid
    size = min(1.0, 1.15 / columns, 0.95 / rows)
    pitch = (2.3 / columns, 1.8 / rows)
    u, v, piece, centers = tiled(x, y, rng, grid=grid, pitch=pitch, wander=0.04 * size)
    turns = rng.uniform(-1, 1, len(centers)) * (len(centers) > 1)
    cos, sin = (f(turns).astype(np.float32)[piece] / size for f in (np.cos, np.sin))
    u, v = u * cos + v * sin, v * cos - u * sin
    outline = _outline(u, v, rng) * size
    relief = dome(outline, rng.uniform(0.06, 0.3) * size)
    if rng.random() < 0.3:  # ribs
        relief = relief + rng.uniform(0.003, 0.008) * np.cos(u * rng.uniform(20, 60))
    surface = Surface.bare(x, y, outline, relief * (outline < 0), _color(rng, 0.35, 0.9))
    decorations = (
        edge(u, 0.03),  # one half
        edge(-outline - rng.uniform(0.03, 0.1) * size, 0.03),  # the rim
        edge(np.cos(u * rng.uniform(6, 15)) - 0.3, 0.3),  # stripes
    )
    choice = int(rng.integers(2 * len(decorations)))
    if choice < len(decorations):
        surface.paint(_color(rng, 0.2, 0.9), decorations[choice])
    return surface


def _outline(u: Map, v: Map, rng: np.random.Generator) -> Map:
    """Signed distance to a lobed disc, a slab with or without holes, or a hook."""
    choice = int(rng.integers(4))
    if choice == 0:
        ripple = np.cos(int(rng.integers(2, 8)) * np.arctan2(v, u) + rng.uniform(0, math.tau))
        radius = rng.uniform(0.6, 0.85) * (1 + rng.uniform(0, 0.12) * ripple)
        return np.hypot(u / rng.uniform(1, 1.4), v) - radius
    if choice == 1:
        return arc(u, v + 0.3, rng.uniform(0.4, 0.65), rng.uniform(0.7, 2.4)) - 0.2
    slab = box(u, v, rng.uniform(0.6, 1.15), rng.uniform(0.35, 0.75), rng.uniform(0.03, 0.3))
    if choice == 2:
        return slab
    pitch = rng.uniform(0.35, 0.6)
    return np.maximum(slab, 0.09 - np.hypot(u - np.rint(u / pitch) * pitch, v))


def _color(rng: np.random.Generator, low: float, high: float) -> Color:
    """A color of moderate saturation, its brightness between ``low`` and ``high``."""
    level, spread = rng.uniform(low, high), rng.uniform(0, 0.35)
    red, green, blue = np.clip(level * (1 + spread * rng.standard_normal(3)), 0.03, 0.97).tolist()
    return red, green, blue


class StateLearner(nn.Module):
    """A CLIP that learns which of two sentences is true, as "flawless ..." or "damaged ...".

    Args:
        clip: Trained in place.
        pairs: Pairs of sentences per step.
    """

    def __init__(self, clip: CustomTextCLIP, pairs: int) -> None:
        super().__init__()
        self.clip, self.pairs = clip, pairs
        self.tokenize = open_clip.get_tokenizer(ARCH)
        # The embedding of a word that is not in the training stays zero.
        nn.init.zeros_(clip.text.token_embedding.weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and its terms: state of the pictures and of their patches."""
        assert batch.mask is not None
        visual, scale = self.clip.visual, self.clip.logit_scale.exp().clamp(max=100)
        normal, anomalous = zip(*(opposites() for _ in range(self.pairs)), strict=True)
        texts = self.clip.encode_text(self.tokenize([*normal, *anomalous]), normalize=True)
        directions = scale * (texts[self.pairs :] - texts[: self.pairs])  # (K, D)
        outputs = visual.forward_intermediates(normalized(batch.image), **_BLOCKS)
        cover = F.adaptive_avg_pool2d(batch.mask.float(), visual.grid_size).flatten()
        is_clear = (cover == 0) | (cover > _COVERED)
        label = (cover[is_clear] > 0).long()
        patches = [
            state_loss((tokens @ visual.proj).flatten(0, 1)[is_clear], directions, label)
            for tokens in outputs["image_intermediates"]
        ]
        terms = {
            "state": state_loss(outputs["image_features"], directions, batch.label),
            "patches": torch.stack(patches).mean(),
        }
        return {"loss": terms["state"] + terms["patches"], **terms}


def opposites() -> tuple[str, str]:
    """Two sentences about the same thing: that it is normal, and that it is anomalous.

    States and templates are those of the published prompts. Most things have a made-up name, so
    that a state means the same for every object.
    """
    made_up = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(3, 7)))
    real = random.choice((*_THINGS, *(name.replace("_", " ") for name in TRAINED_ON)))
    thing = made_up if random.random() < 0.6 else real
    template = random.choice(TEMPLATES)
    normal, anomalous = (
        template.replace("{}", random.choice(states).replace("{}", thing))
        for states in (NORMAL, ANOMALOUS)
    )
    return normal, anomalous


def state_loss(features: Tensor, directions: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the choice between two sentences, as in zero-shot scoring.

    Args:
        features: Embeddings of any length, shape ``(B, D)``.
        directions: From the embedding of each normal sentence to that of its opposite, times the
            factor on the cosines; shape ``(K, D)``.
        label: 0 normal, 1 anomalous, shape ``(B,)``.

    Returns:
        Mean over the sentences and, with equal weights, over both labels; in nats.
    """
    logits = F.normalize(features, dim=-1) @ directions.T  # (B, K)
    target = label.to(logits.dtype).unsqueeze(1).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    groups = [losses[label == value] for value in (0, 1)]
    return torch.stack([group.mean() for group in groups if len(group)]).mean()


def normalized(image: Tensor) -> Tensor:
    """Bytes ``(B, 3, H, W)``, normalized for the network."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in image_statistics(ARCH, RANDOM))
    return normalize(image, mean, std)


@torch.no_grad()
def whiten_patches(convolution: nn.Conv2d, pixels: Tensor) -> None:
    """Initializes a patch embedding with the principal components of the patches, whitened.

    Brightness is the largest component. With a random embedding, fine and faint structures such as
    defects would have little effect for a large part of the training.

    Source:
        The first layer of https://arxiv.org/abs/2404.00498, with a random rotation after it.

    Args:
        convolution: A convolution over patches that do not overlap; changed in place.
        pixels: Normalized images, shape ``(B, 3, H, W)``.
    """
    outputs, side = convolution.out_channels, convolution.kernel_size[0]
    patches = F.unfold(pixels.contiguous(), side, stride=side).transpose(1, 2).flatten(0, 1)
    variances, components = torch.linalg.eigh(torch.cov(patches.T.double()))
    variances, components = variances.flip(0)[:outputs], components.flip(1)[:, :outputs]
    whitening = (components / (variances + 0.01 * variances.mean()).sqrt()).T.float()
    rotation = torch.linalg.qr(torch.randn(outputs, outputs)).Q
    convolution.weight.copy_(0.5 * (rotation @ whitening).view_as(convolution.weight))


def pretrain(file: Path, *, epochs: int = 10, steps: int = 400, batch_size: int = 24) -> None:
    """Trains the small CLIP and writes its weights in fp16.

    Args:
        file: The file to write.
        epochs: Length of the training.
        steps: Steps per epoch.
        batch_size: Pictures per step.
    """
    seed_everything(SEED)
    clip = clip_model(ARCH, None, pre_trained=RANDOM)
    learner = StateLearner(clip, pairs=batch_size // 4)
    batches = Twins(steps, batch_size)
    first = torch.cat([batch.image for batch in islice(batches.epoch(0), 12)])
    whiten_patches(clip.visual.conv1, normalized(first))
    groups = [
        {"params": [p for p in learner.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        {"params": [p for p in learner.parameters() if p.ndim > 1], "weight_decay": 0.05},
    ]
    optimizer = torch.optim.AdamW(
        [{**group, "initial_lr": LR} for group in groups], betas=(0.9, 0.98), fused=True
    )

    def report(epoch: Epoch) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in epoch.losses.items())
        say(f"{epoch.number}/{epochs}: {losses}, {epoch.images_per_second:.0f} images/s")

    fit(
        learner,
        batches,
        optimizer,
        OneCycle(epochs, warmup=0.15),
        epochs=Epochs("clip", range(epochs), SEED),
        machine=Machine.choose("cpu", "fp32"),
        on_epoch=report,
    )
    save_weights(clip.half(), file, {"arch": ARCH, "pictures": epochs * batches.num_images})
    say(f"wrote {file}; its figures: docs/demo_clip.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix, 130 or 143 interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("logs/demo_clip/demo_clip.safetensors"))
    args = parser.parse_args(arguments)
    torch.set_num_threads(max(num_cores() // 2, 1))  # the other cores render
    return run_command(lambda: pretrain(args.out))


if __name__ == "__main__":
    sys.exit(main())
