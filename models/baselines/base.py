"""What the four published methods share: a frozen CLIP that compares images and sentences."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Self

import open_clip
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import AnomalyModel, Output
from models.baselines.prompts import Prompts
from models.baselines.vit import Interpolation, embed_image, is_plain
from models.encoders.clip import RANDOM, clip_model, image_statistics
from models.encoders.clip_text import check_causal, embed_sentences
from models.encoders.tower import Tower, normalize
from utils.batch import Batch
from utils.checkpoint import state_hash

Activation = Literal["own", "gelu", "quick_gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


class ClipBaseline(AnomalyModel):
    """A CLIP with frozen weights, and the sentences it compares an image with.

    CLIP's own weights are not part of a checkpoint: they come from their own file, whenever the
    network is built. Random ones have no file and are stored.

    Args:
        image_size: Height and width in pixels that the image tower sees.
        arch: Any architecture of open_clip.
        pre_trained: A tag, a file, or ``random``.
        sha256: Checksum that the file must have; known for tags.
        activation: Of the transformers; ``own``: as the architecture says.
        positions: How positional embeddings get to another image size.
        prompts: What is said about an object.
        per_prompt_norm: Whether each sentence's embedding gets length 1 before their mean is taken.
        underscore: Whether the underscores in an object's name stay there.
    """

    temperature: float = 0.01  # of the softmax over the two cosines of an image
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        arch: str,
        pre_trained: str,
        sha256: str,
        activation: Activation = "own",
        positions: Interpolation = "bicubic",
        prompts: Prompts | None = None,
        per_prompt_norm: bool = True,
        underscore: bool = False,
    ) -> None:
        super().__init__()
        self.clip = clip_model(
            arch, image_size, pre_trained=pre_trained, sha256=sha256, positions=positions
        ).requires_grad_(False)
        if activation != "own":
            _set_activation(self.clip, _ACTIVATIONS[activation])
        for name, values in zip(("mean", "std"), image_statistics(arch, pre_trained), strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        check_causal(self.clip.text, arch)
        self.is_any = not is_plain(self.clip.visual)
        self.feature_dim = self.clip.text.output_dim
        self.tokenize = open_clip.get_tokenizer(arch)
        self.prompts, self.per_prompt_norm = prompts, per_prompt_norm
        self.underscore = underscore
        self._texts: dict[str, Tensor] = {}
        self._weights_hash = ""
        if pre_trained != RANDOM:
            self.register_state_dict_post_hook(_without_clip)
            self.register_load_state_dict_post_hook(_clip_may_miss)

    @classmethod
    def needs_training(cls, options: Mapping[str, Any]) -> bool:  # noqa: ARG003 - some ask it
        """No: the weights of CLIP are all there is."""
        return False

    def encoders(self) -> Iterable[Tower]:
        """None that is trained."""
        return ()

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; CLIP stays as it is."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, batch: Batch) -> Output:
        """Logits ``(B, 2)`` and image embeddings ``(B, D)``."""
        image = self.embed_image(self.normalize(batch.image))
        return Output(self.image_logits(image, batch), image)

    def image_logits(self, image: Tensor, batch: Batch) -> Tensor:
        """Cosines of image embeddings ``(B, D)`` with both texts, over temperature: ``(B, 2)``."""
        cosines = compare(image.unsqueeze(1), self.texts_of(batch.object))[:, 0]
        return cosines / self.temperature

    def embed_image(self, pixels: Tensor) -> Tensor:
        """Pixels ``(B, 3, H, W)`` as :meth:`normalize` gives them to embeddings ``(B, D)``."""
        return self.clip.visual(pixels) if self.is_any else embed_image(self.clip.visual, pixels)

    def normalize(self, image: Tensor) -> Tensor:
        """Bytes ``(B, 3, H, W)`` to the numbers the weights were trained on."""
        return normalize(image, self.mean, self.std)

    def texts_of(self, objects: Sequence[str]) -> Tensor:
        """What "normal" and "anomalous" mean for each object: length 1, shape ``(B, 2, D)``."""
        for name in dict.fromkeys(objects):
            if name not in self._texts:
                self._texts[name] = self._recall(name)
        return torch.stack([self._texts[name] for name in objects])

    @torch.no_grad()
    def _recall(self, name: str) -> Tensor:
        """The texts of one object, from the store if they have been computed before."""
        assert self.prompts is not None  # a method without prompts has texts of its own
        spoken = name if self.underscore else name.replace("_", " ")
        sentences = self.prompts.sentences(spoken)
        content = self.store.load_or_make(
            [self._hash_of_weights(), json.dumps([sentences, self.per_prompt_norm])],
            "prompts",
            lambda: save({"texts": self._average(sentences).cpu()}),
            f"embeddings of {sum(map(len, sentences))} sentences about {spoken}",
        )
        return load(content)["texts"].to(self.mean.device)

    def _average(self, sentences: tuple[list[str], list[str]]) -> Tensor:
        rows = []
        for part in sentences:
            with exactly(self.mean):
                found = embed_sentences(self.clip.text, self.tokenize, part)
            found = F.normalize(found, dim=-1) if self.per_prompt_norm else found
            rows.append(F.normalize(found.mean(dim=0), dim=-1))
        return torch.stack(rows)

    def _hash_of_weights(self) -> str:
        if not self._weights_hash:
            known = f"{_activation_of(self.clip)} {state_hash(self.clip.text)}"
            self._weights_hash = hashlib.sha256(known.encode()).hexdigest()[:16]
        return self._weights_hash

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Forgets what was computed elsewhere."""
        self._forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Forgets what other weights said."""
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _forget(self) -> None:
        self._texts.clear()
        self._weights_hash = ""


def exactly(at: Tensor) -> AbstractContextManager[object]:
    """A context in which sums over scores are fp32, whatever the networks compute in."""
    return torch.autocast(at.device.type, enabled=False)


def compare(tokens: Tensor, texts: Tensor) -> Tensor:
    """Cosines, ``(B, N, 2)``, of vectors ``(B, N, D)`` with texts ``(B, 2, D)`` of length 1."""
    with exactly(tokens):
        return F.normalize(tokens.float(), dim=-1) @ texts.transpose(1, 2)


def _set_activation(network: nn.Module, kind: type[nn.Module]) -> None:
    for block in network.modules():
        for name, part in block.named_children():
            if isinstance(part, tuple(_ACTIVATIONS.values())):
                setattr(block, name, kind())


def _activation_of(network: nn.Module) -> str:
    kinds = tuple(_ACTIVATIONS.values())
    return next((type(m).__name__ for m in network.modules() if isinstance(m, kinds)), "")


def _without_clip(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}clip.")]:
        del state[name]


def _clip_may_miss(module: nn.Module, found: Any) -> None:
    found.missing_keys[:] = [name for name in found.missing_keys if ".clip." not in f".{name}"]
