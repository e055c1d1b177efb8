"""Where the places of a feature map lie in the image."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def stride_and_first(network: nn.Module) -> tuple[int, float]:
    """Pixels from one place of the last feature map to the next, and the pixel of the first one.

    A place lies where the middle of its receptive field is. In a ResNet of torchvision that is
    pixel 0, 32, 64 ...: padded on both sides, its convolutions look at every other pixel beginning
    with the first. In patches of 16 it is 7.5, 23.5 ... To take one for the other is to be half a
    place wrong.

    Source:
        Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields, "alignment".

    Args:
        network: Convolutions and poolings in the order of their use; side branches are called
            ``downsample``.
    """
    stride, first = 1, 0.0
    for name, module in network.named_modules():
        if isinstance(module, _STRIDED) and "downsample" not in name:
            kernel, padding, step = (
                value if isinstance(value, int) else int(value[0])
                for value in (module.kernel_size, module.padding, module.stride)
            )
            if step > 1:
                first += stride * ((kernel - 1) / 2 - padding)
                stride *= step
    return stride, first


def spread(
    maps: Tensor, network: nn.Module, size: Sequence[int], mode: Literal["bicubic", "nearest"]
) -> Tensor:
    """Maps over places, ``(B, K, h, w)``, as maps over pixels, ``(B, K, H, W)``.

    Beyond the outermost places their values go on.

    Args:
        maps: One value per place.
        network: Which network's places; see :func:`stride_and_first`.
        size: H and W.
        mode: Between places; ``bicubic`` may go a little below and above their values.
    """
    stride, first = stride_and_first(network)
    y, x = (
        ((torch.arange(pixels, device=maps.device) - first) / stride + 0.5) / places * 2 - 1
        for pixels, places in zip(size, maps.shape[-2:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(maps.dtype)
    grid = grid.expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=False)
