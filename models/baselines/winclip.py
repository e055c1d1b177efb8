"""WinCLIP: an ensemble of prompts for the image, and windows of patches for the map."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Output
from models.baselines.base import ClipBaseline, cosines_with, in_fp32
from models.baselines.prompts import WINCLIP_PROMPTS
from models.baselines.vit import (
    check_plain,
    embed,
    finish_block,
    grid_of,
    last_block,
    project,
    project_qkv,
    run_block,
    run_blocks,
)
from utils.batch import Batch
from utils.ranges import Positive, Range, check_ranges

SCALES = (2, 3)  # side of a window, in patches
_TOKENS = 32_768  # most tokens at once in a block: a limit of the memory for any batch


class WinClip(ClipBaseline):
    """Zero-shot WinCLIP; WinCLIP+ with a few normal references.

    Source:
        Jeong et al. 2023, https://arxiv.org/abs/2303.14814; there is no official code. Where the
        implementations in circulation differ, this one follows mala-lab/WinCLIP (4880fc4), whose
        image scores are the closest to the published ones.

    Args:
        image_size: Height and width in pixels. If the width is ``n`` times the height, the picture
            is taken as ``n`` square tiles side by side, and their scores are averaged
            (``image.resize: tiles``).
        load_weights: Unused: CLIP's weights are in no checkpoint.
        arch: Any architecture of open_clip with CLIP's own ViT.
        pre_trained: A tag, a file, ``demo``, or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        prompts: ``mala_lab``: 22 templates, "pipe fryum", and each sentence's embedding gets length
            1 before the mean is taken. ``anomalib`` (also Accurate-WinCLIP): 21 templates, one of
            them twice, "pipe_fryum", and the mean of the embeddings as they are.
        temperature: Of the softmax over the two cosines; it changes figures only where scores are
            averaged: 0.07 as in Accurate-WinCLIP and anomalib, 0.01 as in mala-lab/WinCLIP.
        shots: Number of normal references per object (WinCLIP+); 0: zero-shot.
        norm_references: Whether WinCLIP+ compares patch tokens after the tower's last norm; both
            mala-lab and Accurate-WinCLIP compare them before it.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, if the width is not a multiple of
            the height, or if a number is out of range.
    """

    has_map = True

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        prompts: Literal["mala_lab", "anomalib"] = "mala_lab",
        temperature: Positive = 0.07,
        shots: Annotated[int, Range(0, 1_000_000)] = 0,
        norm_references: bool = False,
    ) -> None:
        side, width = image_size
        if width % side:
            raise ValueError(
                f"image size must be [side, n x side] for n tiles, got {[side, width]}"
            )
        super().__init__(
            (side, side),
            arch=arch,
            pre_trained=pre_trained,
            sha256=sha256,
            prompts=WINCLIP_PROMPTS[prompts],
        )
        check_plain(self.clip.visual, arch)
        self.side, self.temperature, self.num_references = side, temperature, shots
        grid = grid_of(self.clip.visual)
        if min(grid) < max(SCALES):
            raise ValueError(
                f"image size {[side, width]} has {grid[0]} x {grid[1]} patches, and the largest "
                f"window has {max(SCALES)} x {max(SCALES)}; take a larger one"
            )
        self.norm_references = norm_references
        self.windows = [windows_of(grid, scale) for scale in SCALES]
        self._references: dict[tuple[str, int], list[list[Tensor]]] = {}

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` of the scores, and the mean embedding of the tiles, ``(B, D)``."""
        odds = self.score(batch).logit(eps=1e-7)
        image = self._embed_tiles(batch.image.split(self.side, dim=-1)).mean(dim=1)
        return Output(torch.stack([torch.zeros_like(odds), odds], dim=1), image)

    def score(self, batch: Batch) -> Tensor:
        """Probability of "anomalous", shape ``(B,)``; with references also from the windows."""
        if self.num_references:
            return self.score_and_map(batch)[0]
        tiles = batch.image.split(self.side, dim=-1)
        texts = self.texts_of(batch.object)
        return mean_of_tiles(self._probability(self._embed_tiles(tiles), texts), tiles)

    def score_and_map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As :meth:`AnomalyModel.score_and_map`; each tile has a map of its own."""
        tiles = batch.image.split(self.side, dim=-1)
        scores, maps = zip(
            *(self._score_tile(batch, i, tile) for i, tile in enumerate(tiles)), strict=True
        )
        return mean_of_tiles(torch.stack(scores, dim=1), tiles), torch.cat(maps, dim=-1)

    def _score_tile(self, batch: Batch, place: int, tile: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and maps of the tile at ``place`` of each picture."""
        texts = self.texts_of(batch.object)
        image, scales, patches = self._embed(tile)
        with in_fp32(tile):
            score = self._probability(image.unsqueeze(1), texts)[:, 0]
            low = self._zero_shot_map(score, scales, texts)
            if patches is not None:
                association = self._association(batch.object, place, [*scales, patches])
                score = (score + association.flatten(1).amax(dim=1)) / 2
                low = low + association
            size = (self.side, self.side)
            return score, F.interpolate(low.unsqueeze(1), size, mode="bilinear")[:, 0]

    def remember(self, batch: Batch) -> None:
        """Adds normal references to those of their objects."""
        for place, tile in enumerate(batch.image.split(self.side, dim=-1)):
            _, scales, patches = self._embed(tile)
            for row, name in enumerate(batch.object):
                bank = self._references.setdefault((name, place), [[], [], []])
                for kept, part in zip(bank, (*scales, patches), strict=True):
                    assert part is not None  # with references there are patch tokens
                    kept.append(part[row].float())

    def _embed_tiles(self, tiles: Sequence[Tensor]) -> Tensor:
        return torch.stack([self.embed_image(self.normalize(tile)) for tile in tiles], dim=1)

    def _probability(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Probabilities of "anomalous", ``(B, N)``, of the vectors ``(B, N, D)``."""
        return (cosines_with(tokens, texts) / self.temperature).softmax(dim=-1)[..., 1]

    def _embed(self, image: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Embeddings of images and of the windows of each scale; patch tokens with references."""
        visual = self.clip.visual
        blocks = visual.transformer.resblocks
        x = embed(visual, self.normalize(image))
        before = run_blocks(blocks[:-1], x)
        patches = None
        if self.num_references:
            patches = run_block(blocks[-1], before)[:, 1:]
            patches = visual.ln_post(patches) if self.norm_references else patches
        scales = [
            project(visual, embed_windows(blocks, x, windows.to(x.device)))
            for windows in self.windows
        ]
        return project(visual, last_block(blocks[-1], before)), scales, patches

    def _zero_shot_map(self, score: Tensor, scales: list[Tensor], texts: Tensor) -> Tensor:
        """Harmonic mean of the maps of all scales and the image's score: ``(B, h, w)``."""
        inverse = (1 / score).view(-1, 1, 1)
        for windows, tokens in zip(self.windows, scales, strict=True):
            inverse = inverse + 1 / self._over_patches(self._probability(tokens, texts), windows)
        return (1 + len(scales)) / inverse

    def _association(self, objects: Sequence[str], place: int, parts: list[Tensor]) -> Tensor:
        """Distance from the references, the mean over scales and patches: ``(B, h, w)``."""
        rows = []
        for row, name in enumerate(objects):
            bank = self._references[name, place]
            nearest = [
                distance(part[row], torch.cat(kept)) for part, kept in zip(parts, bank, strict=True)
            ]
            maps = [
                self._over_patches(score.unsqueeze(0), windows)
                for score, windows in zip(nearest, self.windows, strict=False)
            ]
            maps.append(nearest[-1].view(1, *grid_of(self.clip.visual)))
            rows.append(torch.stack(maps).mean(dim=0))
        return torch.cat(rows)

    def _over_patches(self, scores: Tensor, windows: Tensor) -> Tensor:
        """Scores of windows ``(B, n)`` to scores of patches ``(B, h, w)``."""
        rows, columns = grid_of(self.clip.visual)
        of_patches = harmonic_mean(scores, windows.to(scores.device), rows * columns)
        return of_patches.view(-1, rows, columns)


def mean_of_tiles(scores: Tensor, tiles: Sequence[Tensor]) -> Tensor:
    """Mean score of each picture's tiles, ``(B, T)`` to ``(B,)``, without tiles that are all black.

    Black tiles fill up the batch where a picture has fewer tiles than others.
    """
    used = torch.stack([tile.flatten(1).any(dim=1) for tile in tiles], dim=1)
    used[:, 0] = True
    return (scores * used).sum(dim=1) / used.sum(dim=1)


def windows_of(grid: tuple[int, int], side: int) -> Tensor:
    """Indices of the patches in each square window, ``(n, side * side)``; the stride is 1 patch.

    Example:
        Grid (3, 3) and side 2: [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]].
    """
    index = torch.arange(grid[0] * grid[1]).view(1, 1, *grid).float()
    return F.unfold(index, side)[0].T.long()


def harmonic_mean(scores: Tensor, windows: Tensor, num_patches: int) -> Tensor:
    """The harmonic mean, for each patch, over the windows that contain it.

    Args:
        scores: Of n windows, shape ``(B, n)``; scores below 1e-12 count as 1e-12.
        windows: The patches of each window, shape ``(n, k)``.
        num_patches: N.

    Returns:
        Shape ``(B, N)``.
    """
    covers = torch.zeros(len(windows), num_patches, device=scores.device)
    covers.scatter_(1, windows, 1.0)
    # A picture has distance 0 from itself, or by rounding a negative one.
    return covers.sum(dim=0) / ((1 / scores.float().clamp(min=1e-12)) @ covers)


def distance(tokens: Tensor, bank: Tensor) -> Tensor:
    """Distances ``(N,)`` of ``(N, D)`` tokens from the nearest of ``(M, D)``: (1 - cosine) / 2."""
    cosine = F.normalize(tokens.float(), dim=-1) @ F.normalize(bank.float(), dim=-1).T
    return (1 - cosine.amax(dim=1)) / 2


def embed_windows(blocks: nn.ModuleList, x: Tensor, windows: Tensor) -> Tensor:
    """The class token of each window after all blocks: ``(B, 1 + N, D)`` to ``(B, n, D)``.

    The tokens of a window are the class token and its patches. Two things save time: queries, keys
    and values of the first block are the same in every window and are computed once, and in the
    last block the class token is the only query.

    Args:
        blocks: Residual attention blocks.
        x: The input of the first block, class token first.
        windows: Patches of each window, shape ``(n, k)``.
    """
    batch, num_windows = len(x), len(windows)
    start = torch.zeros(num_windows, 1, dtype=torch.long, device=x.device)
    tokens = torch.cat([start, windows + 1], dim=1)  # (n, 1 + k)
    first: Any = blocks[0]
    parts = (x, *project_qkv(first.attn, first.ln_1(x)))
    class_tokens = []
    for chunk in tokens.split(max(_TOKENS // (batch * tokens.shape[1]), 1)):
        y, query, key, value = (part[:, chunk].flatten(0, 1) for part in parts)  # (B * c, 1 + k, D)
        y = run_blocks(blocks[1:-1], finish_block(first, y, query, key, value))
        class_tokens.append(last_block(blocks[-1], y).view(batch, len(chunk), -1))
    return torch.cat(class_tokens, dim=1)
