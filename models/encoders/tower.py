"""What every pretrained network inside a model has in common: how much of it is trained."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

Train = Literal["all", "last_stage", "head"]


class Tower(nn.Module):
    """A pretrained network of which all, the last stage, or nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self._train: Train = "all"
        self._last_stage: Sequence[nn.Module] = ()
        self._fix_norms = False

    def restrict(
        self,
        train: Train,
        last_stage: Iterable[nn.Module | nn.Parameter],
        *,
        fix_norms: bool = False,
    ) -> None:
        """Freezes what is not to be trained.

        Args:
            train: ``all``; ``last_stage``; or ``head``: nothing here, only what comes after.
            last_stage: The parts that ``last_stage`` stands for.
            fix_norms: Whether every BatchNorm keeps its stored statistics in training, too.

        Raises:
            ValueError: If this network has no stages that can be told apart.
        """
        stage = list(last_stage)
        if train == "last_stage" and not stage:
            raise ValueError("train: last_stage is not known for this arch; write all or head")
        self._train = train
        self._fix_norms = fix_norms
        self._last_stage = [part for part in stage if isinstance(part, nn.Module)]
        if train == "all":
            return
        self.requires_grad_(False)
        for part in stage if train == "last_stage" else ():
            part.requires_grad_(True)

    def adapt(self, images: Iterable[Tensor]) -> None:
        """Looks at training images once before the training; most networks need not.

        Args:
            images: Bytes, each of shape ``(B, 3, H, W)``, uint8.
        """

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: a frozen BatchNorm must not drift."""
        super().train(mode and self._train == "all")
        if self._train == "last_stage":
            for part in self._last_stage:
                part.train(mode)
        # Looked up each time: several processes exchange them for synchronised ones.
        for norm in self.modules() if self._fix_norms else ():
            if isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                norm.eval()
        self.training = mode
        return self


class ImageEncoder(Tower):
    """Pixels to feature vectors, one for each place in the image or one for all of it.

    Args:
        mean: Per channel, of pixels in ``[0, 1]``.
        std: Per channel, likewise.

    Attributes:
        feature_dim: D, features per vector.
    """

    feature_dim: int
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def normalize(self, image: Tensor) -> Tensor:
        """Bytes ``(B, 3, H, W)`` to the numbers the weights were trained on, channels last."""
        return normalize(image, self.mean, self.std)

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Features of each image.

        Args:
            image: RGB bytes, shape ``(B, 3, H, W)``, uint8.

        Returns:
            Shape ``(B, N, D)``; N is 1 where the encoder was asked for one vector per image.
        """

    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """The last layer that still has places and decides about the features: for Grad-CAM.

        Raises:
            NothingToShowError: If it is not known for this network.
        """

    def cam_reshape(self, output: Tensor) -> Tensor:
        """What :meth:`cam_layer` puts out, as a map ``(B, D, h, w)``."""
        return output


def normalize(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes ``(B, 3, H, W)`` as numbers, channels last; ``mean``, ``std`` of pixels in [0, 1]."""
    pixels = image.to(mean.dtype, memory_format=torch.channels_last, copy=True)
    return pixels.div_(255).sub_(mean).div_(std)


def as_tokens(feature_map: Tensor) -> Tensor:
    """``(B, D, H, W)`` to ``(B, H * W, D)``, row by row."""
    return feature_map.flatten(2).transpose(1, 2)
