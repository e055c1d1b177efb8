"""The base class of the four published methods: a frozen CLIP, images and sentences."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import AnomalyModel, Output
from models.baselines.prompts import Prompts
from models.baselines.vit import embed_image, is_plain
from models.encoders.clip import RANDOM, clip_model, image_statistics, open_clip_library
from models.encoders.clip_text import check_causal, embed_sentences
from models.encoders.tower import Tower, normalize
from utils.batch import Batch
from utils.checkpoint import state_hash


class ClipBaseline(AnomalyModel):
    """A CLIP with frozen weights, and the sentences with which it compares an image.

    CLIP's own weights are not part of a checkpoint: they are loaded from their file each time the
    network is built. Random weights have no file and are stored.

    Args:
        image_size: Height and width in pixels of the image tower's input.
        arch: Any architecture of open_clip.
        pre_trained: A tag, a file, ``demo``, or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        prompts: The sentences about an object.

    Attributes:
        temperature: Of the softmax over the two cosines of an image.
        positions: How positional embeddings are interpolated to another image size: ``bicubic``,
            antialiased, or ``bilinear``.
        exact_gelu: Whether the exact GELU replaces the QuickGELU of an architecture.
    """

    temperature: float = 0.01
    positions: str = "bicubic"
    exact_gelu: bool = False
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        arch: str,
        pre_trained: str,
        sha256: str,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip_model(
            arch, image_size, pre_trained=pre_trained, sha256=sha256, positions=self.positions
        ).requires_grad_(False)
        if self.exact_gelu:
            _set_exact_gelu(self.clip)
        for name, values in zip(("mean", "std"), image_statistics(arch, pre_trained), strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        check_causal(self.clip.text, arch)
        self.is_any = not is_plain(self.clip.visual)
        self.feature_dim = self.clip.text.output_dim
        self.tokenize = open_clip_library().get_tokenizer(arch)
        self.prompts = prompts
        self._texts: dict[str, Tensor] = {}
        self._weights_hash = ""
        if pre_trained != RANDOM:
            self.register_state_dict_post_hook(_without_clip)
            self.register_load_state_dict_post_hook(_clip_may_miss)

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:  # noqa: ARG003 - subclasses use it
        """No: CLIP's weights are used as they are."""
        return False

    def encoders(self) -> Iterable[Tower]:
        """None: CLIP is not trained."""
        return ()

    def train(self, mode: bool = True) -> Self:
        """Training mode for the trained parts; CLIP stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and image embeddings ``(B, D)``."""
        image = self.embed_image(self.normalize(batch.image))
        return Output(self.image_logits(image, batch), image)

    def image_logits(self, image: Tensor, batch: Batch) -> Tensor:
        """Cosines of image embeddings ``(B, D)`` with both texts, by temperature: ``(B, 2)``."""
        cosines = cosines_with(image.unsqueeze(1), self.texts_of(batch.object))[:, 0]
        return cosines / self.temperature

    def embed_image(self, pixels: Tensor) -> Tensor:
        """Pixels ``(B, 3, H, W)``, normalized by :meth:`normalize`, to embeddings ``(B, D)``."""
        return self.clip.visual(pixels) if self.is_any else embed_image(self.clip.visual, pixels)

    def normalize(self, image: Tensor) -> Tensor:
        """Bytes ``(B, 3, H, W)`` to normalized numbers."""
        return normalize(image, self.mean, self.std)

    def texts_of(self, objects: Sequence[str]) -> Tensor:
        """Text embeddings of "normal" and "anomalous" for each object, ``(B, 2, D)``, length 1."""
        for name in dict.fromkeys(objects):
            if name not in self._texts:
                self._texts[name] = self._recall(name)
        return torch.stack([self._texts[name] for name in objects])

    @torch.no_grad()
    def _recall(self, name: str) -> Tensor:
        """The text embeddings of one object; from the store if they were computed before."""
        from safetensors.torch import load, save

        assert self.prompts is not None  # a method without prompts has its own texts_of
        sentences = self.prompts.sentences(name)
        content = self.store.load_or_make(
            [self._hash_of_weights(), json.dumps([sentences, self.prompts.normalize_each])],
            "prompts",
            lambda: save({"texts": self._average(sentences).cpu()}),
            f"embeddings of {sum(map(len, sentences))} sentences about {name}",
        )
        return load(content)["texts"].to(self.mean.device)

    def _average(self, sentences: tuple[list[str], list[str]]) -> Tensor:
        assert self.prompts is not None
        rows = []
        for part in sentences:
            with in_fp32(self.mean):
                each = embed_sentences(self.clip.text, self.tokenize, part)
            each = F.normalize(each, dim=-1) if self.prompts.normalize_each else each
            rows.append(F.normalize(each.mean(dim=0), dim=-1))
        return torch.stack(rows)

    def _hash_of_weights(self) -> str:
        if not self._weights_hash:
            known = f"{_activation_of(self.clip)} {state_hash(self.clip.text)}"
            self._weights_hash = hashlib.sha256(known.encode()).hexdigest()[:16]
        return self._weights_hash

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Drops the text embeddings, which were computed on another device or in another type."""
        self._forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Drops the text embeddings, which were computed with other weights."""
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _forget(self) -> None:
        self._texts.clear()
        self._weights_hash = ""


def in_fp32(tensor: Tensor) -> AbstractContextManager[object]:
    """A context that computes in fp32 on the device of ``tensor``, also within autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


def cosines_with(tokens: Tensor, texts: Tensor) -> Tensor:
    """Cosines, ``(B, N, 2)``, of vectors ``(B, N, D)`` with texts ``(B, 2, D)`` of length 1."""
    with in_fp32(tokens):
        return F.normalize(tokens.float(), dim=-1) @ texts.transpose(1, 2)


def _set_exact_gelu(network: nn.Module) -> None:
    from open_clip.transformer import QuickGELU

    for block in network.modules():
        for name, part in block.named_children():
            if isinstance(part, QuickGELU):
                setattr(block, name, nn.GELU())


def _activation_of(network: nn.Module) -> str:
    from open_clip.transformer import QuickGELU

    kinds = (nn.GELU, QuickGELU)
    return next((type(m).__name__ for m in network.modules() if isinstance(m, kinds)), "")


def _without_clip(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}clip.")]:
        del state[name]


def _clip_may_miss(module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if ".clip." not in f".{name}"]
