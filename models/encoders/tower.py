"""The base class of encoders: how much of a pretrained network is trained."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from utils.batch import Batch
from utils.device import moved
from utils.errors import NothingToShowError

Train = Literal["all", "last_stage", "none"]

_SMALL = 128 * 128  # pixels


class Tower(nn.Module):
    """A pretrained network of which all, the last stage or nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self._train: Train = "all"
        self._last_stage: Sequence[nn.Module] = ()
        self._fix_norms = False

    def freeze_all_but(
        self,
        train: Train,
        last_stage: Iterable[nn.Module | nn.Parameter],
        *,
        fix_norms: bool = False,
    ) -> None:
        """Freezes all parameters but those that are trained.

        Args:
            train: Which are trained: ``all``, ``last_stage``, or ``none``: then only the parts of
                the model after this network learn.
            last_stage: The modules and parameters of the last stage.
            fix_norms: Whether every BatchNorm uses its stored statistics in training, too.

        Raises:
            ValueError: If ``last_stage`` is to be trained, but is not known.
        """
        stage = list(last_stage)
        if train == "last_stage" and not stage:
            raise ValueError("train: last_stage is not known for this arch; write all or none")
        self._train = train
        self._fix_norms = fix_norms
        self._last_stage = [part for part in stage if isinstance(part, nn.Module)]
        if train == "all":
            return
        self.requires_grad_(False)
        for part in stage if train == "last_stage" else ():
            part.requires_grad_(True)

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of it is trained, so that the features of an image never change."""
        return self._train == "none"

    def lr_factors(self) -> list[tuple[float, Sequence[nn.Parameter]]]:
        """Parameters, with the factor on the learning rate of those that are trained."""
        return [(1.0, list(self.parameters()))]

    def adapt(self, images: Iterable[Tensor]) -> None:
        """Adapts the network to the training images before the training; most do nothing here.

        Args:
            images: Bytes, each of shape ``(B, 3, H, W)``, uint8.
        """

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for the frozen parts: their BatchNorm must not change."""
        super().train(mode and self._train == "all")
        if self._train == "last_stage":
            for part in self._last_stage:
                part.train(mode)
        # Not stored: with several processes BatchNorm is replaced by SyncBatchNorm later.
        for norm in self.modules() if self._fix_norms else ():
            if isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                norm.eval()
        self.training = mode
        return self


class ImageEncoder(Tower, ABC):
    """Turns an image into feature vectors: one for each place in it, or one for the whole image.

    Args:
        mean: Mean of each channel, of pixels in ``[0, 1]``.
        std: Standard deviation of each channel.

    Attributes:
        feature_dim: D, the number of features of a vector.
        kept: Looks up stored features by the paths of images, and returns ``None`` if they are not
            stored; ``None`` if nothing is.
    """

    feature_dim: int
    kept: Callable[[Sequence[str]], Tensor | None] | None = None
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def normalize(self, image: Tensor) -> Tensor:
        """Bytes ``(B, 3, H, W)`` to normalized numbers, channels last."""
        return normalize(image, self.mean, self.std)

    def look(self, batch: Batch) -> Tensor:
        """As :meth:`forward`, of the images of a batch; from :attr:`kept` where it has them."""
        features = self.kept(batch.path) if self.kept is not None else None
        return self(batch.image) if features is None else moved(features, batch.image.device)

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Features of each image.

        Args:
            image: RGB bytes, shape ``(B, 3, H, W)``, uint8.

        Returns:
            Shape ``(B, N, D)``; N is 1 if the encoder was built with ``pooled``.
        """

    def places(self, image: Tensor) -> Tensor:
        """The feature map ``(B, D, h, w)`` whose average over all places is the pooled vector.

        Raises:
            NothingToShowError: If the pooled vector is something else.
        """
        raise NothingToShowError(
            f"{type(self).__name__} does not average a feature map, so it has no class activation "
            "map; visualize.py draws one by gradients"
        )

    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """The layer for Grad-CAM: the last one that has places and affects the features.

        Raises:
            NothingToShowError: If it is not known for this network.
        """

    def cam_reshape(self, output: Tensor) -> Tensor:
        """The output of :meth:`cam_layer` as a map ``(B, D, h, w)``."""
        return output


def normalize(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes ``(B, 3, H, W)`` to normalized numbers, channels last.

    Args:
        image: RGB bytes.
        mean: Shape ``(1, 3, 1, 1)``, of pixels in ``[0, 1]``.
        std: The same for the standard deviation.
    """
    pixels = image.to(mean.dtype, memory_format=torch.channels_last, copy=True)
    return pixels.div_(255).sub_(mean).div_(std)


@torch.no_grad()
def dry_run(network: nn.Module, image: Tensor) -> Any:
    """An output of ``network`` for ``image`` that has the right shape; its numbers mean nothing.

    With a large image a copy of the network runs on the meta device, where nothing is computed, if
    the network can. With a small one computing is faster.
    """
    if image.shape[-2:].numel() <= _SMALL:
        return network(image)
    tensors = [*network.parameters(), *network.buffers()]
    shapes = {id(t): _shape_of(t) for t in tensors}
    try:
        return copy.deepcopy(network, shapes)(image.to("meta"))
    except Exception:  # noqa: BLE001  a real error is raised again below
        return network(image)


def _shape_of(tensor: Tensor) -> Tensor:
    shape = tensor.detach().to("meta")
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(shape, requires_grad=False) if is_parameter else shape


def as_tokens(feature_map: Tensor) -> Tensor:
    """``(B, D, H, W)`` to ``(B, H * W, D)``, row by row."""
    return feature_map.flatten(2).transpose(1, 2)
