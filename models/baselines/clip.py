"""Zero-shot CLIP: one sentence about a normal object, one about an anomalous one."""

from typing import Literal

from torch import Tensor

from models.baselines.base import ClipBaseline
from models.baselines.prompts import CLIP_PROMPTS
from models.baselines.vit import check_plain, embed_image


class Clip(ClipBaseline):
    """Zero-shot CLIP.

    Source:
        "CLIP" (and "CLIP-AC") of Table 1 of AnomalyCLIP, https://arxiv.org/abs/2310.18961, as its
        authors describe it in issues 25 and 76 of https://github.com/zqhang/AnomalyCLIP.

    Args:
        image_size: Height and width in pixels.
        load_weights: Unused: CLIP's weights are in no checkpoint.
        arch: Any architecture of open_clip.
        pre_trained: A tag (``openai``, ``laion400m_e31`` ...), a file, or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        prompts: ``two``: "a photo of a normal {}." and "a photo of an anomalous {}.";
            ``templates``: "normal {}" and "anomalous {}" in OpenAI's 80 templates (CLIP-AC).
        ln_post: Whether the tower's last norm is applied to the image embedding; AnomalyCLIP's own
            code leaves it out, and it is not known which way gave the published figure.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, or if ``ln_post`` is off for a tower
            that is not CLIP's own ViT.
    """

    temperature = 0.07
    positions = "bilinear"  # as in AnomalyCLIP, whose table the figures are from

    def __init__(
        self,
        image_size: tuple[int, int],
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        prompts: Literal["two", "templates"] = "two",
        ln_post: bool = True,
    ) -> None:
        super().__init__(
            image_size,
            arch=arch,
            pre_trained=pre_trained,
            sha256=sha256,
            prompts=CLIP_PROMPTS[prompts],
        )
        self.ln_post = ln_post
        if not ln_post:
            check_plain(self.clip.visual, arch)

    def embed_image(self, pixels: Tensor) -> Tensor:
        """As :meth:`ClipBaseline.embed_image`."""
        if self.ln_post:
            return super().embed_image(pixels)
        return embed_image(self.clip.visual, pixels, ln_post=False)
