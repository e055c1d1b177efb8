"""VAND (APRIL-GAN): linear layers project patch tokens into the space of the sentences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.baselines.base import ClipBaseline, cosines_with, in_fp32
from models.baselines.prompts import VAND_PROMPTS
from models.baselines.vit import check_plain, embed, grid_of, last_block, project, run_block
from utils.batch import Batch
from utils.ranges import Count, Positive, check_ranges
from utils.weights import read_state


class Vand(ClipBaseline):
    """CLIP for the image score; four trained linear layers for the map.

    Source:
        Chen, Han, Zhang 2023, https://arxiv.org/abs/2305.17382; ByChelsea/VAND-APRIL-GAN, f13b8a6.
        The official code runs OpenAI's weights with the exact GELU, although they were trained with
        QuickGELU; so does this class.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load ``released``; ``False`` if a checkpoint follows.
        arch: Any architecture of open_clip with CLIP's own ViT.
        pre_trained: A tag, a file, ``demo``, or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        levels: The blocks, counted from 1, after which patch tokens are taken.
        released: File with trained layers, so that nothing has to be trained: the authors'
            ``visa_pretrained.pth`` or ``mvtec_pretrained.pth``, or ``best.safetensors`` of a run of
            this program; ``null``: none.
        temperature: Of the softmax over the two cosines of the image. The published one suits
            OpenAI's weights; with weights whose cosines differ by more than 0.15, many scores would
            be exactly 1.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, if there is no such block, or if
            ``released`` does not fit.
    """

    has_map = True
    exact_gelu = True
    released_as = "mvtec_pretrained.pth of github.com/ByChelsea/VAND-APRIL-GAN, exps/pretrained"

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        levels: tuple[Count, ...] = (6, 12, 18, 24),
        released: Path | None = None,
        temperature: Positive = 0.01,
    ) -> None:
        super().__init__(
            image_size,
            arch=arch,
            pre_trained=pre_trained,
            sha256=sha256,
            prompts=VAND_PROMPTS,
        )
        check_plain(self.clip.visual, arch)
        check_levels(levels, self.clip.visual)
        self.image_size, self.levels = image_size, levels
        self.temperature = temperature
        width = self.clip.visual.conv1.out_channels
        self.layers = nn.ModuleList(nn.Linear(width, self.feature_dim) for _ in levels)
        if load_weights and released is not None:
            names = {"fc.": "", "layers.": ""}  # in the authors' files and in ours
            load_released(self.layers, released, "trainable_linearlayer", names)

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:
        """Yes, unless the authors' weights are given."""
        return options.get("released") is None

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, image embeddings ``(B, D)`` and a map of each level."""
        with torch.no_grad():
            image, tokens = self._embed(batch.image)
        return Output(self.image_logits(image, batch), image, maps=self._maps(tokens, batch))

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``; from CLIP alone, without the layers."""
        image = self.embed_image(self.normalize(batch.image))
        return self.image_logits(image, batch).softmax(dim=-1)[:, 1]

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As :meth:`AnomalyModel.score_and_map`: the sum of the levels' probabilities."""
        output = self(batch)
        maps = torch.stack([level[:, 1] for level in output.maps])
        return output.logits.softmax(dim=-1)[:, 1], maps.sum(dim=0)

    def _embed(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image embeddings ``(B, D)`` and the patch tokens of each level ``(B, N, width)``."""
        visual = self.clip.visual
        x, tokens = embed(visual, self.normalize(image)), []
        *blocks, last = visual.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            x = run_block(block, x)
            if number in self.levels:
                tokens.append(x[:, 1:])
        whole = project(visual, last_block(last, x))
        if len(blocks) + 1 in self.levels:
            tokens.append(run_block(last, x)[:, 1:])
        return whole, tokens

    def _maps(self, tokens: list[Tensor], batch: Batch) -> tuple[Tensor, ...]:
        texts, grid = self.texts_of(batch.object), grid_of(self.clip.visual)
        maps = []
        for layer, level in zip(self.layers, tokens, strict=True):
            cosines = cosines_with(layer(level), texts)
            with in_fp32(cosines):
                low = (100 * cosines).transpose(1, 2).unflatten(2, grid)
                logits = F.interpolate(low, self.image_size, mode="bilinear", align_corners=True)
                maps.append(logits.softmax(dim=1))
        return tuple(maps)


def check_levels(levels: tuple[int, ...], visual: Any) -> None:
    """Raises ValueError unless ``levels`` are numbers of blocks of ``visual``, in rising order."""
    count = len(visual.transformer.resblocks)
    if (
        not levels
        or list(levels) != sorted(set(levels))
        or not 1 <= levels[0] <= levels[-1] <= count
    ):
        raise ValueError(f"levels must be rising and within 1..{count}, got {list(levels)}")


def load_released(module: nn.Module, file: Path, key: str, renamed: Mapping[str, str]) -> None:
    """Loads trained weights from a file into ``module``.

    Args:
        module: Gets the weights.
        file: The authors' PyTorch file, ``{key: state dict}``, or a safetensors file.
        key: Name of the state dict in the PyTorch file.
        renamed: Prefixes of parameter names in the file, and what they are here; parameters with
            other names are left out.

    Raises:
        UserError: If the file cannot be read.
        ValueError: If the weights do not fit ``module``.
    """
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    ours = {}
    for name, value in read_state(file.expanduser(), key=key).items():
        old = next((old for old in renamed if name.startswith(old)), None)
        if old is not None:
            own = renamed[old] + name.removeprefix(old)
            while len(value) == 1 and value.ndim > len(shapes.get(own, value.shape)):
                value = value[0]  # (1, 1, n, D) there, (n, D) here
            ours[own] = value.float()
    try:
        module.load_state_dict(ours)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise ValueError(f"released: {file} does not fit: {first}") from error
