"""Encoders: networks that turn an image or a sentence into feature vectors.

An image encoder is built with ``(image_size, pooled, load_weights, *, options)``, a text encoder
with ``(pooled, load_weights, *, options)``.
"""

from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from models.encoders.timm_image import TimmImageEncoder
from models.encoders.torchvision_image import TorchvisionImageEncoder
from models.encoders.tower import ImageEncoder, Tower

IMAGE_ENCODERS: dict[str, type[ImageEncoder]] = {
    "clip": ClipImageEncoder,
    "timm": TimmImageEncoder,
    "torchvision": TorchvisionImageEncoder,
}
TEXT_ENCODERS: dict[str, type[Tower]] = {
    "clip": ClipTextEncoder,
}
