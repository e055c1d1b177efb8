"""Convolutional networks of torchvision, pretrained on ImageNet."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.encoders.folding import FOLDED, is_folded, unfold
from models.encoders.tower import ImageEncoder, Train, as_tokens, dry_run
from utils.console import say
from utils.download import check_sha256, fetch
from utils.weights import existing_file, load_fitting, read_state

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Arch = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
]


class TorchvisionImageEncoder(ImageEncoder):
    """A network of torchvision without its classifier.

    Args:
        image_size: Height and width in pixels; any.
        pooled: ``False``: the last feature map, one vector per place. ``True``: its average over
            all places (2048-d for ResNet-50).
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        arch: Name of the network.
        pre_trained: ``true`` (torchvision's best ImageNet weights), the name of other weights
            (``IMAGENET1K_V1``), a file, or ``false`` for random weights.
        sha256: SHA-256 of the file, or its first digits; not needed for torchvision's own.
        train: How much of the network is trained: ``all``, ``last_stage``, or ``none``.
        batch_norm: ``train``: normalize with the statistics of the batch, as usual; ``fixed``: with
            the stored ones, in training too; ``unfold``: for weights whose BatchNorm was folded
            into the convolutions (quantized and exported ones), which the statistics of a batch
            would change into another network. With ``train``, a file of such weights is recognized
            and unfolded.

    Raises:
        ValueError: If there are no such weights, or they do not fit the network.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        pooled: bool,
        load_weights: bool,
        *,
        arch: Arch,
        pre_trained: str = "true",
        sha256: str = "",
        train: Train = "all",
        batch_norm: Literal["train", "fixed", "unfold"] = "train",
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        import torchvision  # here: it takes seconds, and checking options should not

        network = torchvision.models.get_model(arch, weights=None)
        self.pooled, self.unfolds = pooled, batch_norm == "unfold"
        if load_weights and pre_trained.lower() != "false":
            file = _weights_file(arch, pre_trained, sha256)
            _load(network, file, arch)
            if batch_norm == "train" and train != "none" and is_folded(network):
                self.unfolds = True
                say(f"{file}: {FOLDED}")
        self.trunk = _trunk(network)
        shape = dry_run(self.trunk.eval(), torch.zeros(1, 3, 64, 64)).shape
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(f"arch: {arch} has no feature maps (B, D, h, w)")
        self.feature_dim = shape[1]
        self.trunk.train()
        self.freeze_all_but(train, [self.trunk[-1]], fix_norms=batch_norm == "fixed")

    def adapt(self, images: Iterable[Tensor]) -> None:
        """Unfolds BatchNorm where it is folded; see :meth:`Tower.adapt`."""
        if self.unfolds:
            unfold(self.trunk, (self.normalize(image) for image in images))

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` bytes to ``(B, N, D)``; see :class:`ImageEncoder`."""
        tokens = as_tokens(self.places(image))
        return tokens.mean(dim=1, keepdim=True) if self.pooled else tokens

    def places(self, image: Tensor) -> Tensor:
        """The output of the last stage, ``(B, D, h, w)``."""
        return self.trunk(self.normalize(image))

    def cam_layer(self) -> nn.Module:
        """The last stage."""
        return self.trunk[-1]


def _trunk(network: nn.Module) -> nn.Sequential:
    """All stages up to the last feature map, without the classifier."""
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential):
        return features
    stages = list(network.named_children())
    names = [name for name, _ in stages]
    if "layer4" not in names:
        raise ValueError(f"arch: {type(network).__name__} has neither features nor layer4")
    return nn.Sequential(*(stage for _, stage in stages[: names.index("layer4") + 1]))


def _weights_file(arch: str, pre_trained: str, sha256: str) -> Path:
    import torchvision

    weights = torchvision.models.get_model_weights(arch)
    name = "DEFAULT" if pre_trained.lower() == "true" else pre_trained
    if name in weights.__members__:
        url = weights[name].url
        digits = url.rsplit("-", 1)[1].split(".")[0]  # the first eight of its SHA-256
        folder = Path(torch.hub.get_dir()) / "checkpoints"  # torchvision's own place
        return fetch(url, folder / url.rsplit("/", 1)[1], sha256=sha256 or digits)
    file = existing_file(pre_trained)
    if file is None:
        names = ", ".join(weights.__members__)
        raise ValueError(
            f"pre_trained: {pre_trained!r} is not a file; write a file, true, false, or {names}"
        )
    check_sha256(file, sha256)
    return file


def _load(network: nn.Module, file: Path, arch: str) -> None:
    """Loads all weights but the classifier's, which may have another size or be missing."""
    state, wanted = _body(read_state(file)), _body(network.state_dict())
    load_fitting(network, state, wanted, f"{file}: these are not the weights of {arch}")


def _body(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of ``state`` that is loaded."""
    # The number of batches that a norm has seen has no effect, and torchvision's V1 files lack it.
    heads, counter = ("fc.", "classifier."), "num_batches_tracked"
    return {k: v for k, v in state.items() if not k.startswith(heads) and not k.endswith(counter)}
