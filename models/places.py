"""The positions of a feature map's places in the image."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders.tower import ImageEncoder, dry_run

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def stride_and_first(network: nn.Module, side_branch: str = "downsample") -> tuple[int, float]:
    """Pixels from one place of the last feature map to the next, and the pixel of the first one.

    A place lies at the middle of its receptive field. In a ResNet of torchvision these are the
    pixels 0, 32, 64 ...: its convolutions are padded on both sides and start at the first pixel.
    With patches of 16 they are 7.5, 23.5 ... A map that is resized without regard to this is wrong
    by half a place.

    Example:
        A convolution with kernel 7, padding 3 and stride 2 has its first place at (7 - 1) / 2 - 3 =
        0, one with kernel 16, padding 0 and stride 16 at 7.5. After a stride of 2, the next
        layer's offset counts twice.

    Source:
        Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields, "alignment".

    Args:
        network: Its convolutions and poolings must be in the order of their use.
        side_branch: A part of the names of those that are not in the main branch.
    """
    stride, first = 1, 0.0
    for name, module in network.named_modules():
        if isinstance(module, _STRIDED) and side_branch not in name:
            kernel, padding, step = (
                value if isinstance(value, int) else int(value[0])
                for value in (module.kernel_size, module.padding, module.stride)
            )
            if step > 1:
                first += stride * ((kernel - 1) / 2 - padding)
                stride *= step
    return stride, first


@contextmanager
def recorded_grid(encoder: ImageEncoder) -> Iterator[list[torch.Size]]:
    """A list that gets the rows and columns of places of each image batch that is encoded."""
    grids: list[torch.Size] = []

    def record(_layer: object, _inputs: object, output: Tensor) -> None:
        grids.append(encoder.cam_reshape(output).shape[-2:])

    hook = encoder.cam_layer().register_forward_hook(record)
    try:
        yield grids
    finally:
        hook.remove()


def grid_of(encoder: ImageEncoder, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of places of an image of H x W pixels.

    Raises:
        NothingToShowError: As :meth:`ImageEncoder.cam_layer`.
    """
    mode, image = encoder.training, torch.zeros(1, 3, *size, dtype=torch.uint8)
    with recorded_grid(encoder) as grids:
        dry_run(encoder.eval(), image.to(encoder.mean.device))
    encoder.train(mode)
    rows, columns = grids[0]
    return rows, columns


def _places(
    network: nn.Module, size: Sequence[int], grid: Sequence[int]
) -> list[tuple[float, float]]:
    """As :func:`stride_and_first`, along each axis, where it agrees with the grid of places.

    ``downsample`` is a side branch in a ResNet and the main one in a ConvNeXt; patches that are
    merged without a convolution are not seen at all. Then places are the middles of equal parts.
    """
    for side_branch in ("downsample", "no module has this name"):
        stride, first = stride_and_first(network, side_branch)
        if all(abs(pixels / stride - n) < 1 for pixels, n in zip(size, grid, strict=True)):
            return [(stride, first)] * len(size)
    return [(side / n, (side / n - 1) / 2) for side, n in zip(size, grid, strict=True)]


def shifted_places(
    look: Callable[[Tensor], Tensor], image: Tensor, grid: Sequence[int], shifts: int
) -> Tensor:
    """A map with more places, from copies of the image that are moved by parts of a place.

    A patch of a vision transformer is 14 pixels wide, and a scratch a few: a copy that is moved by
    half a patch has the patches between. The maps of all copies are interleaved, and smoothed with
    a Gaussian whose standard deviation is a third of a place of the image: copies that see
    the same defect agree in its middle, and the noise of a single one is no longer the maximum.

    Source:
        Shift-and-stitch, Long et al. 2015, https://arxiv.org/abs/1411.4038, sec. 3.2. Moves are
        whole pixels, so a place may be up to a pixel off.

    Args:
        look: Maps images ``(B, 3, H, W)`` to one number per place, ``(B, h, w)``.
        image: The images; what a move brings in at an edge is the mirror image of what lies there.
        grid: h and w.
        shifts: k, number of copies along each axis.

    Returns:
        ``(B, k h, k w)``.
    """
    size = image.shape[-2:]
    down, right = (_moves(pixels / n, shifts) for pixels, n in zip(size, grid, strict=True))
    margin = max(map(abs, (*down, *right)))
    padded = F.pad(image.float(), (margin,) * 4, mode="reflect")
    rows = []
    for dy in down:
        columns = []
        for dx in right:
            top, left = margin - dy, margin - dx
            columns.append(look(padded[..., top : top + size[0], left : left + size[1]]))
        rows.append(torch.stack(columns, dim=-1).flatten(-2))  # (B, h, k w)
    return _smoothed(torch.stack(rows, dim=-2).flatten(1, 2), shifts)


def _smoothed(maps: Tensor, radius: int) -> Tensor:
    """``(B, h, w)``, smoothed with a Gaussian that ends at ``radius``, three deviations.

    As torchvision's ``gaussian_blur``, which ONNX does not know for maps of unknown size.
    """
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = (-0.5 * (3 * offsets / radius) ** 2).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(maps.unsqueeze(1), (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).squeeze(1)


def _moves(stride: float, shifts: int) -> list[int]:
    """Pixels by which the copies are moved; a place of a copy that is moved down lies higher."""
    return [math.floor(((shifts - 1) / 2 - n) * stride / shifts) for n in range(shifts)]


def pixel_maps(
    maps: Tensor, network: nn.Module, size: Sequence[int], mode: Literal["bicubic", "nearest"]
) -> Tensor:
    """Maps over places, ``(B, K, h, w)``, resized to maps over pixels, ``(B, K, H, W)``.

    Pixels outside of the outermost places get the value of the nearest place.

    Args:
        maps: One value per place.
        network: The network that made the places.
        size: H and W.
        mode: Interpolation between places; ``bicubic`` may overshoot their values a little.
    """
    grid = maps.shape[-2:]
    y, x = (
        ((torch.arange(pixels, device=maps.device) - first) / stride + 0.5) / places * 2 - 1
        for pixels, places, (stride, first) in zip(
            size, grid, _places(network, size, grid), strict=True
        )
    )
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(maps.dtype)
    points = points.expand(maps.shape[0], -1, -1, -1)  # len() would be a constant in a graph
    return F.grid_sample(maps, points, mode=mode, padding_mode="border", align_corners=False)
