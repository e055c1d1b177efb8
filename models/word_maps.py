"""Where a teacher looks for each word of its caption."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.places import spread
from models.teacher import Teacher
from utils.batch import Batch
from utils.errors import NothingToShowError

DIRECTION = "text_to_image"


class WordMaps(NamedTuple):
    """One caption and one map per word.

    Attributes:
        words: The words of the caption, in order.
        maps: Shape ``(words, H, W)``; 1 is the attention of a word that looks everywhere alike.
    """

    words: list[str]
    maps: Tensor


@torch.no_grad()
def word_maps(teacher: Teacher, batch: Batch) -> tuple[Tensor, list[WordMaps]]:
    """Score, and attention of each word over the image: mean over layers, heads and its pieces.

    Args:
        teacher: In eval mode, with a fusion whose words ask places.
        batch: B images with captions, on the teacher's device.

    Returns:
        Scores ``(B,)`` as :meth:`Teacher.score`, and one entry per image, its maps at the image's
        size, each patch a flat area of its own.

    Raises:
        NothingToShowError: If the fusion has no attention of words over places, if a caption is
            empty, or as :meth:`ClipTextEncoder.words`.
    """
    shapes: list[torch.Size] = []
    encoder = teacher.img_enc

    def look(_layer: object, _given: object, output: Tensor) -> None:
        shapes.append(encoder.cam_reshape(output).shape)

    hook = encoder.cam_layer().register_forward_hook(look)
    try:
        output = teacher(batch)
    finally:
        hook.remove()
    if DIRECTION not in output.attention:
        raise NothingToShowError(
            f"the fusion has no attention {DIRECTION}: there is nothing to show"
        )
    assert batch.caption is not None  # the teacher has read it
    weights = output.attention[DIRECTION].float().mean(dim=(1, 2))  # (B, L, N)
    maps = (weights * weights.shape[-1]).unflatten(-1, shapes[0][-2:])
    maps = spread(maps, encoder, batch.image.shape[-2:], "nearest")
    found = []
    for caption, of_pieces in zip(batch.caption, maps, strict=True):
        words = teacher.text_enc.words(caption)
        if not words:
            raise NothingToShowError(
                f"the caption {caption!r} has no words: there is nothing to show"
            )
        of_words = torch.stack([of_pieces[pieces].mean(dim=0) for _, pieces in words])
        found.append(WordMaps([word for word, _ in words], of_words))
    return output.logits.float().softmax(dim=-1)[:, 1], found
