"""The attention of a teacher over the image, for each word of its caption."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.base import Output
from models.places import pixel_maps, recorded_grid
from models.teacher import Teacher
from utils.batch import Batch
from utils.errors import NothingToShowError

DIRECTION = "text_to_image"


class WordMaps(NamedTuple):
    """The words of one caption, with one attention map per word.

    Attributes:
        words: The words of the caption, in order.
        maps: Shape ``(words, H, W)``; 1 everywhere if a word's attention is even.
    """

    words: list[str]
    maps: Tensor


@torch.no_grad()
def word_maps(teacher: Teacher, batch: Batch) -> tuple[Tensor, list[WordMaps]]:
    """Scores, and the attention of each word: the mean over layers, heads and the word's pieces.

    Args:
        teacher: In eval mode, with a fusion in which words are the queries and places the keys.
        batch: B images with captions, on the teacher's device.

    Returns:
        Scores ``(B,)`` as :meth:`Teacher.score`, and one entry per image; its maps have the size of
        the image, and all pixels of a patch have the same value.

    Raises:
        NothingToShowError: If the fusion has no such attention, if a caption is empty, or as
            :meth:`ClipTextEncoder.words`.
    """
    encoder = teacher.img_enc
    with recorded_grid(encoder) as grids:
        output = teacher(batch)
    assert batch.caption is not None  # the teacher needs it
    weights = _of_pieces(output)
    maps = (weights * weights.shape[-1]).unflatten(-1, grids[0])
    maps = pixel_maps(maps, encoder, batch.image.shape[-2:], "nearest")
    entries = []
    for caption, of_pieces in zip(batch.caption, maps, strict=True):
        words = teacher.text_enc.words(caption)
        if not words:
            raise NothingToShowError(
                f"the caption {caption!r} has no words: there is nothing to show"
            )
        of_words = torch.stack([of_pieces[pieces].mean(dim=0) for _, pieces in words])
        entries.append(WordMaps([word for word, _ in words], of_words))
    return output.logits.float().softmax(dim=-1)[:, 1], entries


def defect_maps(
    teacher: Teacher, output: Output, captions: Sequence[str], names: Sequence[Sequence[str]]
) -> Tensor:
    """The attention to the words that name a defect, ``(B, N)``: their mean, 1 if it is even.

    Args:
        teacher: As of :func:`word_maps`.
        output: Its output.
        captions: The captions that it has read.
        names: The names of defects that may be in each of them.

    Returns:
        NaN where a caption has none of its names.

    Raises:
        NothingToShowError: As :func:`word_maps`.
    """
    weights = _of_pieces(output)
    maps = torch.full_like(weights[:, 0], torch.nan)
    for row, of_pieces, caption, of_image in zip(maps, weights, captions, names, strict=True):
        if words := _named(teacher, caption, of_image):
            row[:] = torch.stack([of_pieces[pieces].mean(dim=0) for pieces in words]).mean(dim=0)
    return maps * maps.shape[1]


def _of_pieces(output: Output) -> Tensor:
    """The attention of each word piece to each place, ``(B, L, N)``: mean over layers and heads."""
    if DIRECTION not in output.attention:
        raise NothingToShowError(
            f"the fusion has no attention {DIRECTION}: there is nothing to show"
        )
    return output.attention[DIRECTION].float().mean(dim=(1, 2))


def _named(teacher: Teacher, caption: str, names: Sequence[str]) -> list[slice]:
    """The pieces of each word of a caption that belongs to one of the names."""
    words = teacher.text_enc.words(caption) if names else []
    texts, found = [text for text, _ in words], []
    for name in names:
        wanted = [text for text, _ in teacher.text_enc.words(name)]
        starts = range(len(texts) - len(wanted) + 1)
        for start in (i for i in starts if wanted and texts[i : i + len(wanted)] == wanted):
            found += [pieces for _, pieces in words[start : start + len(wanted)]]
    return found
