"""VAND (APRIL-GAN): linear layers make patch tokens comparable with sentences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.baselines.base import PROMPT_CACHE, Activation, ClipBaseline, compare, exactly
from models.baselines.prompts import VAND_PROMPTS
from models.baselines.vit import check_plain, embed, grid_of, last_block, project, run_block
from utils.batch import Batch
from utils.weights import read_state


class Vand(ClipBaseline):
    """CLIP for the image score; four trained linear layers for the map.

    Source:
        Chen, Han, Zhang 2023, https://arxiv.org/abs/2305.17382; ByChelsea/VAND-APRIL-GAN, f13b8a6.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether the layers may start from ``released``.
        arch: Any architecture of open_clip with CLIP's own ViT.
        pre_trained: A tag, a file, or ``random``.
        sha256: Checksum that the file must have; known for tags.
        activation: Of CLIP's transformers: ``gelu`` is what the official code runs OpenAI's weights
            with, which were trained with ``quick_gelu``; ``own``: as the architecture says.
        levels: After which blocks, counted from 1, patch tokens are taken.
        per_prompt_norm: Whether each sentence's embedding gets length 1 before their mean is taken.
        underscore: Whether the underscores in an object's name stay there, as in the official code.
        released: Trained layers: the authors' file (``visa_pretrained.pth``,
            ``mvtec_pretrained.pth``), or the ``best.safetensors`` of a training of this program.
            With them nothing is left to train; ``null``: none.
        temperature: Of the softmax over the two cosines of the image. The published one is that of
            OpenAI's weights; with others, whose cosines differ by more than 0.15, scores would tie
            at 1.
        prompt_cache: Folder where embeddings of sentences are kept; ``null``: nowhere.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, if there is no such block, or if
            ``released`` does not fit.
    """

    has_map = True
    released_as = "mvtec_pretrained.pth of github.com/ByChelsea/VAND-APRIL-GAN, exps/pretrained"

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        activation: Activation = "gelu",
        levels: tuple[int, ...] = (6, 12, 18, 24),
        per_prompt_norm: bool = True,
        underscore: bool = True,
        released: Path | None = None,
        temperature: float = 0.01,
        prompt_cache: Path | None = PROMPT_CACHE,
    ) -> None:
        super().__init__(
            image_size,
            arch=arch,
            pre_trained=pre_trained,
            sha256=sha256,
            activation=activation,
            prompts=VAND_PROMPTS,
            per_prompt_norm=per_prompt_norm,
            underscore=underscore,
            prompt_cache=prompt_cache,
        )
        check_plain(self.clip.visual, arch)
        check_levels(levels, self.clip.visual)
        if temperature <= 0:
            raise ValueError("temperature must be more than 0")
        self.image_size, self.levels = image_size, levels
        self.temperature = temperature
        width = self.clip.visual.conv1.out_channels
        self.layers = nn.ModuleList(nn.Linear(width, self.feature_dim) for _ in levels)
        if load_weights and released is not None:
            names = {"fc.": "", "layers.": ""}  # in the authors' files and in ours
            load_released(self.layers, released, "trainable_linearlayer", names)

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:
        """Unless the authors' weights are there."""
        return options.get("released") is None

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, image embeddings ``(B, D)`` and a map of each level."""
        with torch.no_grad():
            image, tokens = self._look(batch.image)
        return Output(self.image_logits(image, batch), image, maps=self._maps(tokens, batch))

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``: CLIP alone, the layers have no say."""
        image = self.embed_image(self.normalize(batch.image))
        return self.image_logits(image, batch).softmax(dim=-1)[:, 1]

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As :meth:`AnomalyModel.score_and_map`: the sum of the levels' probabilities."""
        output = self(batch)
        maps = torch.stack([level[:, 1] for level in output.maps])
        return output.logits.softmax(dim=-1)[:, 1], maps.sum(dim=0)

    def _look(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
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
            cosines = compare(layer(level), texts)
            with exactly(cosines):
                low = (100 * cosines).transpose(1, 2).unflatten(2, grid)
                logits = F.interpolate(low, self.image_size, mode="bilinear", align_corners=True)
                maps.append(logits.softmax(dim=1))
        return tuple(maps)


def check_levels(levels: tuple[int, ...], visual: Any) -> None:
    """Raises ValueError unless ``levels`` name blocks of ``visual`` in rising order."""
    count = len(visual.transformer.resblocks)
    if (
        not levels
        or list(levels) != sorted(set(levels))
        or not 1 <= levels[0] <= levels[-1] <= count
    ):
        raise ValueError(f"levels must be rising and within 1..{count}, got {list(levels)}")


def load_released(module: nn.Module, file: Path, key: str, renamed: Mapping[str, str]) -> None:
    """Loads trained weights into ``module``: the authors' own, or those of a training here.

    Args:
        module: Gets the weights.
        file: A PyTorch file, ``{key: state dict}``, or a safetensors file.
        key: Name of the state dict in the PyTorch file.
        renamed: From the prefixes of names in the file to those in ``module``; all other entries
            are left out.

    Raises:
        UserError: If the file cannot be read.
        ValueError: If it does not fit.
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
