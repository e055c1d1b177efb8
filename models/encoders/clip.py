"""CLIP through open_clip: any architecture; weights by tag, from a file, or random."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.download import check_sha256, fetch
from utils.errors import UserError
from utils.torchscript import is_torchscript
from utils.weights import existing_file, read_state

if TYPE_CHECKING:
    from open_clip.model import CustomTextCLIP

RANDOM = "random"
# Weights in this repository, by architecture and tag: their file and its SHA-256.
OWN_WEIGHTS = {
    ("demo-ViT", "demo"): (
        Path(__file__).parent / "weights" / "demo_clip.safetensors",
        "15e29f45d3a0652d6b9e465ec5f37b26d7eb1094cbd793400c0f29ddff4a4a37",
    ),
}
CACHE = Path("~/.cache/clip")  # of OpenAI's own package and open_clip, too
_OPENAI_CONSTANTS = ("input_resolution", "context_length", "vocab_size")


@functools.cache
def open_clip_library() -> ModuleType:
    """open_clip, which then knows this repository's small architectures, too.

    It is imported when the first network is built: that takes seconds, and checking options should
    not.
    """
    import open_clip

    open_clip.add_model_config(Path(__file__).with_name("architectures"))
    return open_clip


def is_resnet(visual: Any) -> bool:
    """Whether an image tower is one of CLIP's ResNets."""
    from open_clip.modified_resnet import ModifiedResNet

    return isinstance(visual, ModifiedResNet)


def is_vit(visual: Any) -> bool:
    """Whether an image tower is one of CLIP's vision transformers."""
    from open_clip.transformer import VisionTransformer

    return isinstance(visual, VisionTransformer)


def clip_model(
    arch: str,
    image_size: tuple[int, int] | None,
    *,
    pre_trained: str,
    sha256: str = "",
    load_weights: bool = True,
    positions: str = "bicubic",
) -> "CustomTextCLIP":
    """A CLIP in float32, with one tower ``visual`` and one tower ``text``.

    Source:
        Radford et al. 2021, https://arxiv.org/abs/2103.00020; networks and weights are open_clip's,
        https://github.com/mlfoundations/open_clip.

    Args:
        arch: Any of ``open_clip.list_models()``, or one of this repository's small ones. The name
            decides on the activation: OpenAI's weights belong to the ``-quickgelu`` ones.
        image_size: Height and width of the images in pixels; positional embeddings are
            interpolated to it. ``None``: the architecture's own.
        pre_trained: A tag of open_clip (``openai``, ``laion400m_e31`` ...) or one of
            :data:`OWN_WEIGHTS`; a file (OpenAI's TorchScript archive, a state dict, safetensors);
            or the word ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        load_weights: ``False`` if the weights are loaded from a checkpoint later.
        positions: How positional embeddings of a ViT are interpolated: ``bicubic``, antialiased, or
            ``bilinear``.

    Raises:
        ValueError: If the architecture or tag is unknown, if the weights do not fit the
            architecture, or if the image size is not a multiple of the patch size.
        UserError: If the weights cannot be downloaded or are damaged.
    """
    open_clip = open_clip_library()
    try:
        config = open_clip.get_model_config(arch)
    except Exception as error:  # "hf-hub:" asks the hub, whose client raises a dozen types
        raise ValueError(f"{arch} cannot be had: {str(error).splitlines()[0]}") from error
    if config is None:
        raise ValueError(f"unknown arch {arch!r}; open_clip.list_models() lists all of them")
    state = None
    if load_weights and pre_trained != RANDOM:
        file = _weights_file(arch, pre_trained, sha256, quick_gelu=config.get("quick_gelu", False))
        state = _state_dict(file, arch, quick_gelu=config.get("quick_gelu", False))
    convolutional = isinstance(config["vision_cfg"].get("layers"), list)
    # open_clip itself interpolates a ViT's positions bicubically; the rest is done below.
    is_later = convolutional or "timm_model_name" in config["vision_cfg"] or positions != "bicubic"
    size = None if is_later else image_size
    try:
        with _without_warnings():
            model = open_clip.create_model(
                arch, force_custom_text=True, force_image_size=size, pretrained_text=False
            )
    except (RuntimeError, OSError, ImportError) as error:
        raise ValueError(f"{arch} cannot be built: {str(error).splitlines()[0]}") from error
    if image_size is not None:
        _check_image_size(model.visual, image_size)
    if state is not None:
        _load(model, state, name=f"{arch} from {pre_trained}")
    if image_size is not None:
        _fit_image_size(model.visual, image_size, positions)
    return model


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences open_clip: it warns of random weights unless it loads the weights itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def image_statistics(arch: str, pre_trained: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel for these weights; OpenAI's if they are unknown."""
    open_clip = open_clip_library()
    tag = open_clip.get_pretrained_cfg(arch, pre_trained) or {}
    return (
        tuple(tag.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        tuple(tag.get("std", open_clip.OPENAI_DATASET_STD)),
    )


def _weights_file(arch: str, pre_trained: str, sha256: str, *, quick_gelu: bool) -> Path:
    if (arch, pre_trained) in OWN_WEIGHTS:
        file, digest = OWN_WEIGHTS[arch, pre_trained]
        check_sha256(file, sha256 or digest)
        return file
    open_clip = open_clip_library()
    tag = open_clip.get_pretrained_cfg(arch, pre_trained)
    if not tag:
        own_file = existing_file(pre_trained)
        if own_file is None:
            own = [tag for name, tag in OWN_WEIGHTS if name == arch]
            tags = ", ".join(own + open_clip.list_pretrained_tags_by_model(arch)) or "none"
            raise ValueError(
                f"pre_trained: {pre_trained!r} is neither a file nor a tag of {arch} "
                f"(tags: {tags}); write random for random weights"
            )
        check_sha256(own_file, sha256)
        return own_file
    if tag.get("quick_gelu", False) != quick_gelu:
        _activation_mismatch(f"the weights {pre_trained!r}", arch, quick_gelu=quick_gelu)
    if url := tag.get("url"):  # before the hub: some of its entries name another file than the tag
        file = CACHE / url.rsplit("/", 1)[1]
        return fetch(url, file, sha256=sha256 or _sha256_in(url))
    try:
        return Path(open_clip.download_pretrained(tag))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise UserError(
            f"{arch}: the weights {pre_trained!r} cannot be downloaded ({error}); download "
            f"{tag.get('hf_hub')} in another way and set pre_trained to the path of the file"
        ) from error


def _sha256_in(url: str) -> str:
    """The SHA-256 in addresses of OpenAI and open_clip, or its first 8 digits; empty: none.

    As in ``.../<64 digits>/ViT-L-14-336px.pt`` or ``.../vit_b_16-laion400m_e31-55e67d44.pt``.
    """
    *_, folder, name = url.split("/")
    if len(folder) == 64:
        return folder
    suffix = name.rsplit(".", 1)[0].rsplit("-", 1)[-1]
    return suffix if len(suffix) == 8 and not set(suffix) - set("0123456789abcdef") else ""


def _activation_mismatch(what: str, arch: str, *, quick_gelu: bool) -> None:
    stem = arch.removesuffix("-quickgelu")
    ours, theirs, name = (
        ("QuickGELU", "GELU", stem) if quick_gelu else ("GELU", "QuickGELU", f"{stem}-quickgelu")
    )
    raise ValueError(f"{what} were trained with {theirs}, {arch} runs {ours}; write arch: {name}")


def _state_dict(file: Path, arch: str, *, quick_gelu: bool) -> dict[str, Tensor]:
    if not quick_gelu and is_torchscript(file):
        _activation_mismatch(f"{file}: weights in an OpenAI archive", arch, quick_gelu=False)
    state = read_state(file)
    return {n: value.float() for n, value in state.items() if n not in _OPENAI_CONSTANTS}


def _load(model: "CustomTextCLIP", state: dict[str, Tensor], *, name: str) -> None:
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed

    state = convert_to_custom_text_state_dict(state)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    resize_pos_embed(state, model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise ValueError(f"{name}: the weights do not fit the architecture: {first}") from error


def _patch_size(visual: Any) -> tuple[int, int]:
    """Height and width in pixels that become one place of the last feature map."""
    return (32, 32) if is_resnet(visual) else getattr(visual, "patch_size", (1, 1))


def _check_image_size(visual: Any, image_size: tuple[int, int]) -> None:
    """Raises ValueError if a border of such an image would be cut off."""
    patch = _patch_size(visual)
    if any(side % p for side, p in zip(image_size, patch, strict=True)):
        raise ValueError(
            f"image size {list(image_size)} must be a multiple of {patch[0]} x {patch[1]} pixels"
        )


def _fit_image_size(visual: Any, image_size: tuple[int, int], positions: str) -> None:
    """Makes ``visual`` accept ``image_size``."""
    patch = _patch_size(visual)
    if is_resnet(visual):
        at = visual.attnpool.positional_embedding
        at.data = _interpolate(at.data, (image_size[0] // 32, image_size[1] // 32), positions)
    elif is_vit(visual) and tuple(visual.image_size) != image_size:
        visual.image_size = image_size
        visual.grid_size = (image_size[0] // patch[0], image_size[1] // patch[1])
        at = visual.positional_embedding
        at.data = _interpolate(at.data, visual.grid_size, positions)
    elif hasattr(visual, "set_input_size"):
        visual.set_input_size(image_size)


def _interpolate(positions: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """Positional embeddings ``(1 + side * side, D)`` for another grid: ``(1 + h * w, D)``."""
    side = round((len(positions) - 1) ** 0.5)
    if (side, side) == grid:
        return positions
    square = positions[1:].T.reshape(1, -1, side, side)
    resized = F.interpolate(
        square, grid, mode=mode, antialias=mode == "bicubic", align_corners=False
    )
    return torch.cat([positions[:1], resized[0].flatten(1).T])
