"""AnomalyCLIP: learned prompts without an object's name, and V-V attention for the map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.baselines.base import ClipBaseline, cosines_with, in_fp32
from models.baselines.vand import check_levels, load_released
from models.baselines.vit import (
    check_plain,
    embed,
    embed_image,
    feed_forward,
    grid_of,
    project,
    run_block,
    value_attention,
)
from utils.batch import Batch
from utils.ranges import Count, check_ranges

TEMPERATURE = 0.07
_BLUR = 4.0  # standard deviation, in pixels, of the Gaussian filter of a map


class AnomalyClip(ClipBaseline):
    """Object-agnostic prompts, trained on another data set.

    Source:
        Zhou et al. 2024, https://arxiv.org/abs/2310.18961; zqhang/AnomalyCLIP, 45ed4dd.

    Args:
        image_size: Height and width in pixels.
        load_weights: Whether to load ``released``; ``False`` if a checkpoint follows.
        arch: Any architecture of open_clip with CLIP's own ViT.
        pre_trained: A tag, a file, ``demo``, or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        context: Number of learned word pieces before "object." and "damaged object."
        depth: Number of text blocks with learned tokens; those of the first block are the word
            pieces of ``context``.
        deep_context: Number of learned tokens in each further block; they replace the tokens at
            positions 1, 2, ...
        dual_blocks: Number of last image blocks with a second path of V-V attention.
        levels: The blocks, counted from 1, after which patch tokens of the second path are taken.
        released: File with trained prompts, so that nothing has to be trained: the authors'
            ``epoch_15.pth``, or ``best.safetensors`` of a run of this program; ``null``: none.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, if a number is out of range, or if
            ``released`` does not fit.
    """

    has_map = True
    positions = "bilinear"
    released_as = "epoch_15.pth of github.com/zqhang/AnomalyCLIP, checkpoints"

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        context: Count = 12,
        depth: Count = 9,
        deep_context: Count = 4,
        dual_blocks: Count = 19,
        levels: tuple[Count, ...] = (24,),
        released: Path | None = None,
    ) -> None:
        super().__init__(image_size, arch=arch, pre_trained=pre_trained, sha256=sha256)
        visual = self.clip.visual
        check_plain(visual, arch)
        check_levels(levels, visual)
        count = len(visual.transformer.resblocks)
        if not count - dual_blocks < levels[0] or not 1 <= dual_blocks <= count:
            raise ValueError(
                f"dual_blocks must be within 1..{count} and reach level {levels[0]}, got "
                f"{dual_blocks}"
            )
        self.image_size, self.levels, self.dual_blocks = image_size, levels, dual_blocks
        self.prompts_of_states = ObjectAgnosticPrompts(
            self.clip.text, self.tokenize, context, depth, deep_context
        )
        if load_weights and released is not None:
            names = {"ctx_pos": "normal", "ctx_neg": "anomalous", "compound_prompts_text.": "deep."}
            names["prompts_of_states."] = ""  # in our own files
            load_released(self.prompts_of_states, released, "prompt_learner", names)

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:
        """Yes, unless the authors' weights are given."""
        return options.get("released") is None

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)``, image embeddings ``(B, D)`` and a map of each level."""
        with torch.no_grad():
            image, levels = self._embed(batch.image)
        texts = self.prompts_of_states(self.clip.text).expand(len(batch), -1, -1)
        maps = tuple(self._map(tokens, texts) for tokens in levels)
        return Output(self._logits(image, texts), image, maps=maps)

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``; without the second path."""
        image = embed_image(self.clip.visual, self.normalize(batch.image), ln_post=False)
        texts = self.prompts_of_states(self.clip.text).expand(len(batch), -1, -1)
        return self._logits(image, texts).softmax(dim=-1)[:, 1]

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As :meth:`AnomalyModel.score_and_map`: the sum of the levels, smoothed."""
        from scipy.ndimage import gaussian_filter

        output = self(batch)
        maps = sum((level[:, 1] + 1 - level[:, 0]) / 2 for level in output.maps)
        smooth = gaussian_filter(maps.detach().cpu().numpy(), sigma=(0, _BLUR, _BLUR))
        return output.logits.softmax(dim=-1)[:, 1], torch.from_numpy(smooth)

    @staticmethod
    def _logits(image: Tensor, texts: Tensor) -> Tensor:
        return cosines_with(image.unsqueeze(1), texts)[:, 0] / TEMPERATURE

    def _map(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Probabilities ``(B, 2, H, W)`` of one level's patch tokens ``(B, N, D)``."""
        shares = (cosines_with(tokens, texts) / TEMPERATURE).softmax(dim=-1)
        with in_fp32(shares):
            low = shares.transpose(1, 2).unflatten(2, grid_of(self.clip.visual))
            return F.interpolate(low, self.image_size, mode="bilinear")

    def _embed(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image embeddings ``(B, D)``, and patch tokens of the second path at each level.

        The second path starts as a copy of the first. In each block the V-V attention of the first
        path is added to it, and there is no feed-forward network. The first path is CLIP's own and
        does not depend on the second.
        """
        visual = self.clip.visual
        x = embed(visual, self.normalize(image))
        blocks = visual.transformer.resblocks
        second, levels = x, []
        for number, block in enumerate(blocks, start=1):
            if number <= len(blocks) - self.dual_blocks:
                x = second = run_block(block, x)
                continue
            by_value, own = value_attention(block.attn, block.ln_1(x))
            second = second + by_value
            x = x + own
            x = x + feed_forward(block.mlp, block.ln_2(x))
            if number in self.levels:
                levels.append(project(visual, second[:, 1:]))
        return project(visual, x[:, 0], ln_post=False), levels


class ObjectAgnosticPrompts(nn.Module):
    """Learned word pieces: ``[V1]...[Vn] object.`` and ``[W1]...[Wn] damaged object.``.

    Args:
        text: CLIP's text tower; it is not kept.
        tokenize: Its tokenizer.
        context: n.
        depth: Number of text blocks with learned tokens.
        deep_context: Number of learned tokens in each block after the first.
    """

    ids: Tensor

    def __init__(
        self, text: Any, tokenize: Any, context: int, depth: int, deep_context: int
    ) -> None:
        super().__init__()
        places = " ".join(["X"] * context)
        self.register_buffer(
            "ids", tokenize([f"{places} object.", f"{places} damaged object."]), persistent=False
        )
        blocks, room = len(text.transformer.resblocks), self.ids.shape[1] - 6
        if not 1 <= context <= room or not 1 <= depth <= blocks:
            raise ValueError(
                f"context must be within 1..{room}, depth within 1..{blocks}; got {context} and "
                f"{depth}"
            )
        last = context + 2  # the shorter sentence ends with "object" and "."
        if not 1 <= deep_context <= last:
            raise ValueError(
                f"deep_context must be within 1..{last} if context is {context}: the sentence has "
                f"no more tokens to replace; got {deep_context}"
            )
        width = text.token_embedding.embedding_dim
        self.normal = nn.Parameter(torch.randn(context, width) * 0.02)
        self.anomalous = nn.Parameter(torch.randn(context, width) * 0.02)
        self.deep = nn.ParameterList(
            nn.Parameter(torch.randn(deep_context, width) * 0.02) for _ in range(depth - 1)
        )

    def forward(self, text: Any) -> Tensor:
        """Text embeddings of "normal" and "anomalous", length 1, shape ``(2, D)``."""
        end = self.ids.argmax(dim=-1)
        length = int(end.max()) + 1
        words = text.token_embedding(self.ids[:, :length])
        learned = torch.stack([self.normal, self.anomalous])
        x = torch.cat([words[:, :1], learned, words[:, 1 + learned.shape[1] :]], dim=1)
        x = x + text.positional_embedding[:length]
        mask = text.attn_mask[:length, :length]
        for number, block in enumerate(text.transformer.resblocks):
            if 1 <= number <= len(self.deep):
                new = self.deep[number - 1].to(x.dtype).expand(2, -1, -1)
                x = torch.cat([x[:, :1], new, x[:, 1 + new.shape[1] :]], dim=1)
            x = block(x, attn_mask=mask)
        x = text.ln_final(x)[torch.arange(2), end] @ text.text_projection
        return F.normalize(x.float(), dim=-1)
