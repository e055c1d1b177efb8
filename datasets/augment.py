"""Random changes of training images that keep their labels."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from utils.ranges import Probability, Range
from utils.seeding import derive


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The random changes of a training image; the default is none.

    Attributes:
        horizontal_flip: Probability of a mirror image, left and right.
        vertical_flip: Probability of a mirror image, top and bottom.
        rotation: Largest angle in degrees, either way.
        crop: Smallest share of the area that a random crop keeps; 1: no crop. A defect at the edge
            may be cut off.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation.
        hue: Largest shift of hue, up to 0.5.
        mosaic: Probability that four training images of the same object, half as large, take the
            place of one; for networks that learn from masks.
    """

    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    rotation: Annotated[float, Range(0, 180)] = 0.0
    crop: Annotated[float, Range(0.01, 1)] = 1.0
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[float, Range(0, 0.5)] = 0.0
    mosaic: Probability = 0.0

    @property
    def moves(self) -> list[str]:
        """The changes that are on and move what an image shows to another place."""
        default = Augment()
        names = ("horizontal_flip", "vertical_flip", "rotation", "crop", "mosaic")
        return [name for name in names if getattr(self, name) != getattr(default, name)]


class Augmentation:
    """Applies an :class:`Augment` to images of one size.

    Args:
        options: The changes.
        size: Height and width in pixels; they stay the same.
        seed: Every random change depends on it, the epoch and the image only.
    """

    def __init__(self, options: Augment, size: tuple[int, int], seed: int = 0) -> None:
        from torchvision.transforms import InterpolationMode, v2

        self.options, self._seed = options, seed
        steps: list[tuple[float | bool, v2.Transform]] = [
            (options.horizontal_flip, v2.RandomHorizontalFlip(options.horizontal_flip)),
            (options.vertical_flip, v2.RandomVerticalFlip(options.vertical_flip)),
            (
                options.rotation,
                v2.RandomRotation(options.rotation, interpolation=InterpolationMode.BILINEAR),
            ),
            (
                options.crop < 1,
                v2.RandomResizedCrop(size, scale=(options.crop, 1.0), ratio=_around(size)),
            ),
            (
                options.brightness or options.contrast or options.saturation or options.hue,
                v2.ColorJitter(
                    options.brightness, options.contrast, options.saturation, options.hue
                ),
            ),
        ]
        self.steps = [step for is_on, step in steps if is_on]

    def seed(self, epoch: int, path: str) -> int:
        """The seed of one image in one epoch."""
        return derive(self._seed, "augment", epoch, path)

    def __call__(
        self, image: Tensor, seed: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``(3, H, W)`` bytes, changed by random numbers of ``seed``, and the mask ``(H, W)``.

        The mask is moved like its image. The global random state stays the same.
        """
        if not self.steps:
            return image, mask
        from torchvision import tv_tensors

        sample: Any = (image, None if mask is None else tv_tensors.Mask(mask))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # of the CPU only
            for step in self.steps:
                sample = step(*sample)
        image, mask = sample
        return image, mask if mask is None else mask.as_subclass(Tensor)


def _around(size: tuple[int, int]) -> tuple[float, float]:
    """Aspect ratios (width over height) within a tenth of the image's own."""
    ratio = size[1] / size[0]
    return ratio / 1.1, ratio * 1.1
