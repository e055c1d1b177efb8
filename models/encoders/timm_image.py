"""Networks of timm: ConvNets, vision transformers and hierarchical transformers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders.folding import FOLDED, is_folded, unfold
from models.encoders.tower import ImageEncoder, Train, as_tokens, dry_run
from utils.console import say
from utils.download import check_sha256
from utils.errors import UserError
from utils.ranges import Layers, Range, check_ranges
from utils.weights import existing_file, load_fitting, read_state


class TimmImageEncoder(ImageEncoder):
    """A network of timm without its classifier.

    Source:
        https://github.com/huggingface/pytorch-image-models; the maps are those of timm's
        ``forward_intermediates``, after the last norm of the network where it has one.

    Args:
        image_size: Height and width in pixels; a multiple of a vision transformer's patches.
        pooled: ``False``: one vector per place. ``True``: their average.
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        arch: Any of ``timm.list_models()``, with or without the tag of its weights:
            ``vit_small_patch14_dinov2``, ``convnext_tiny.fb_in22k``.
        pre_trained: ``true`` (timm's weights of that name), a file, or ``false`` for random
            weights. Where the BatchNorm of the weights was folded into the convolutions, it is
            unfolded before the training.
        sha256: SHA-256 of the file, or its first digits; not needed for timm's own.
        train: How much of the network is trained: ``all``, ``last_stage``, ``none``, or a number:
            so many of the last blocks of a transformer, or stages of a ConvNet.
        levels: Whose output is taken, counted from 1: blocks of a vision transformer, stages of
            other networks. What follows the last of them is left out. Empty: the last one.
        combine: How several levels become one vector per place: their ``mean``, or ``concat``.
            Coarser maps are enlarged to the finest one.
        lr_decay: Factor on the learning rate from each block to the one before it; 1: none.

    Raises:
        ValueError: If there is no such network, level or weights, if the weights do not fit the
            network, or the image size does not.
        UserError: If the weights cannot be downloaded or read.
    """

    @check_ranges
    def __init__(
        self,
        image_size: tuple[int, int],
        pooled: bool,
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str = "true",
        sha256: str = "",
        train: Train | Layers = "all",
        levels: tuple[Layers, ...] = (),
        combine: Literal["mean", "concat"] = "mean",
        lr_decay: Annotated[float, Range(0, 1, "(]")] = 1.0,
    ) -> None:
        network = _build(arch, pre_trained if load_weights else "false", sha256)
        super().__init__(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        _fit_image_size(network, arch, image_size)
        count = len(network.feature_info)
        if levels and max(levels) > count:
            raise ValueError(f"levels: {arch} has {count}, got {max(levels)}")
        self.pooled, self.combine, self.lr_decay = pooled, combine, lr_decay
        self.levels = sorted({level - 1 for level in levels} or {count - 1})
        self.has_norm = "Hiera" not in type(network).__name__  # timm's refuses to apply it
        network.prune_intermediate_layers(self.levels, prune_norm=not self.has_norm)
        self.network = network
        self.unfolds = load_weights and train != "none" and is_folded(network)
        if self.unfolds:
            say(f"{pre_trained if existing_file(pre_trained) else arch}: {FOLDED}")
        self.last = nn.Identity()  # gives Grad-CAM the map
        image = torch.zeros(1, 3, *image_size, dtype=torch.uint8)
        self.feature_dim = dry_run(self.eval(), image).shape[-1]
        self._freeze(train)
        self.train()

    def adapt(self, images: Iterable[Tensor]) -> None:
        """Unfolds BatchNorm where it is folded; see :meth:`Tower.adapt`."""
        if self.unfolds:
            unfold(self, images)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` bytes to ``(B, N, D)``; see :class:`ImageEncoder`."""
        tokens = as_tokens(self.places(image))
        return tokens.mean(dim=1, keepdim=True) if self.pooled else tokens

    def places(self, image: Tensor) -> Tensor:
        """The map of all levels, ``(B, D, h, w)``."""
        maps: Tensor = self.last(self._map(self.normalize(image)))
        return maps

    def _map(self, pixels: Tensor) -> Tensor:
        """``(B, D, h, w)`` of all levels."""
        maps: list[Tensor] = self.network.forward_intermediates(
            pixels,
            indices=self.levels,
            norm=self.has_norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        if len(maps) == 1:
            return maps[0]
        grid = max((m.shape[-2:] for m in maps), key=lambda shape: shape[0])
        maps = [
            m if m.shape[-2:] == grid else F.interpolate(m, grid, mode="bilinear") for m in maps
        ]
        if self.combine == "concat":
            return torch.cat(maps, dim=1)
        if len(dims := {int(m.shape[1]) for m in maps}) > 1:  # of a graph these are tensors
            raise ValueError(
                f"levels: have {', '.join(map(str, sorted(dims)))} features, which have no mean; "
                "write combine: concat"
            )
        return torch.stack(maps).mean(dim=0)

    def _freeze(self, train: Train | int) -> None:
        """Freezes what is not trained: blocks are those of timm's layer-wise learning rates."""
        if train in ("all", "none"):
            self.freeze_all_but(train, [])
            return
        from timm.models import group_parameters

        blocks = group_parameters(
            self.network, self.network.group_matcher(coarse=True), reverse=True
        )
        count = 1 if train == "last_stage" else int(train)
        last = sorted(set(blocks.values()))[-count:]
        kept = {id(p) for name, p in self.network.named_parameters() if blocks[name] in last}
        own = ((m, list(m.parameters(recurse=False))) for m in self.network.modules())
        modules = [m for m, ps in own if ps and all(id(p) in kept for p in ps)]
        loose = [p for p in self.network.parameters() if id(p) in kept]
        self.freeze_all_but("last_stage", [*modules, *loose])

    def lr_factors(self) -> list[tuple[float, Sequence[nn.Parameter]]]:
        """Blocks nearer to the image learn more slowly; see :meth:`Tower.lr_factors`.

        Source:
            Bao et al. 2022 (BEiT), https://arxiv.org/abs/2106.08254, appendix; by timm.
        """
        if self.lr_decay == 1:
            return super().lr_factors()
        from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

        groups = param_groups_layer_decay(self.network, layer_decay=self.lr_decay)
        return [(group["lr_scale"], group["params"]) for group in groups]

    def cam_layer(self) -> nn.Module:
        """The map of all places, ``(B, D, h, w)``."""
        return self.last


_HEADLESS = {"pretrained": False, "num_classes": 0}
_COUNTER = "num_batches_tracked"  # of a BatchNorm: it has no effect, and some files lack it
_FREE_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "mit")


def _build(arch: str, pre_trained: str, sha256: str) -> Any:
    """The network at its own image size, with its weights, without classifier."""
    import timm  # here: it takes seconds, and checking options should not

    if ":" in arch or not timm.is_model(arch):
        raise ValueError(f"unknown arch {arch!r}; timm.list_models() lists all of them")
    is_own, file = pre_trained.lower() == "true", existing_file(pre_trained)
    if not is_own and file is None and pre_trained.lower() != "false":
        raise ValueError(f"pre_trained: {pre_trained!r} is not a file; write a file, true or false")
    try:
        config = timm.models.get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise ValueError(f"arch {arch!r}: {error}") from error
    if is_own and not (config and config.has_weights):
        raise ValueError(f"pre_trained: timm has no weights of {arch}; write a file or false")
    try:
        # With its classifier: only then does timm refuse weights that do not fit.
        network: Any = timm.create_model(arch, **({"pretrained": True} if is_own else _HEADLESS))
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = str(error).splitlines()[0]
        if not is_own:
            raise ValueError(f"{arch} cannot be built: {reason}") from error
        source = config and (config.hf_hub_id or config.url)
        raise UserError(
            f"{arch}: its weights cannot be loaded ({reason}); download {source} in another way "
            "and set pre_trained to the file"
        ) from error
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"{arch} has no maps of places; choose another arch")
    if file is not None:
        check_sha256(file, sha256)
        _load(network, file, arch)
    if is_own or file is not None:
        _print_license(arch, network.pretrained_cfg)
    return network


def _print_license(arch: str, config: Mapping[str, Any]) -> None:
    license_name = config.get("license") or "unknown"
    note = f"{arch}: license of timm's weights: {license_name}"
    if license_name not in _FREE_LICENSES:
        note += "; warning: it may forbid commercial or other use, read it first"
    say(note)


def _load(network: Any, file: Path, arch: str) -> None:
    """Loads all weights but the classifier's, which may be missing."""
    heads: Any = network.pretrained_cfg["classifier"] or ()
    heads = tuple(f"{name}." for name in ([heads] if isinstance(heads, str) else heads))
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith(_COUNTER)}
    state = {k: v for k, v in read_state(file).items() if not k.endswith(_COUNTER)}
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(heads)}
    load_fitting(network, state, wanted, f"{file}: these are not the weights of {arch}")


def _fit_image_size(network: Any, arch: str, image_size: tuple[int, int]) -> None:
    """Makes ``network`` accept ``image_size``: only now, as weights have positions of their own."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    patch = (patch, patch) if isinstance(patch, int) else patch
    try:
        if any(side % p for side, p in zip(image_size, patch, strict=True)):
            raise ValueError(f"it must be a multiple of {patch[0]} x {patch[1]} pixels")
        if (
            hasattr(network, "set_input_size")
            and network.pretrained_cfg["input_size"][1:] != image_size
        ):
            network.set_input_size(img_size=image_size)
        dry_run(network.eval(), torch.zeros(1, 3, *image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"image size {list(image_size)} does not fit {arch}: {reason}") from error
