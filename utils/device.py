"""The device and the precision of computations."""

import ctypes
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from utils.console import say
from utils.errors import UserError
from utils.ranks import local_rank, local_world_size

Network = TypeVar("Network", bound=nn.Module)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """The device and the type in which networks compute."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, precision: str) -> "Machine":
        """The machine with this device and precision, set up to be fast and deterministic.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            precision: ``auto``, ``fp32`` or ``bf16``.

        Raises:
            UserError: If there is no such device, or fewer of them than processes.
        """
        make_deterministic()
        keep_freed_memory()
        chosen = choose_device(device)
        most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(chosen.type, local_world_size())
        if local_world_size() > most:
            raise UserError(
                f"torchrun --nproc_per_node={local_world_size()}: this machine has only {most} "
                f"device(s) of type {chosen.type}"
            )
        if chosen.type == "cuda":
            chosen = torch.device("cuda", local_rank())
        return cls(chosen, choose_precision(precision, chosen))

    def autocast(self) -> AbstractContextManager[object]:
        """A context for the forward pass of networks; softmax, losses and norms stay in fp32."""
        is_low = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=is_low)

    def place(self, network: Network) -> Network:
        """Moves a network to the device, with channels last, in which convolutions are fast."""
        # Typed as any: torch's stubs lack this form of ``to``.
        mover: Any = network
        mover.to(device=self.device, memory_format=torch.channels_last)
        return network

    def __str__(self) -> str:
        """As in "cpu, float32"."""
        return f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}"


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``mps`` means on this machine.

    Raises:
        UserError: If this machine has no such device.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in has.items() if is_there))
    if not has[name]:
        there = ", ".join(kind for kind, is_there in has.items() if is_there)
        raise UserError(f"device: this machine has no {name}; write auto, or one of: {there}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that ``auto``, ``fp32`` or ``bf16`` means on ``device``.

    ``auto`` takes bf16 on hardware with matrix units for it: on GPUs since Ampere, and on CPUs with
    AMX. With AVX-512 alone bf16 convolutions can be slower than fp32 (docs/method.md has figures).
    """
    if name != "auto":
        chosen = PRECISIONS[name]
        if not has_units(chosen, device):
            say(
                f"precision: this {device.type} has no units for {name}, so that it is many times "
                "slower than fp32"
            )
        return chosen
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        is_fast = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if is_fast else torch.float32


def has_units(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether ``device`` has units for ``dtype``; if not, PyTorch converts each number."""
    if dtype == torch.float32 or device.type == "mps":
        return True
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN also checks for ARM's units; PyTorch for Macs has no oneDNN.
    has_onednn = torch.backends.mkldnn.is_available()
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, on CUDA without waiting for running computations.

    Not on mps, which may read memory that was freed already:
    https://github.com/pytorch/pytorch/issues/139550.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Makes glibc keep freed large buffers for reuse; does nothing with another C library.

    By default glibc returns each of them to the system, and the page faults of the next buffer take
    up to a third of a training step.

    Source:
        https://man7.org/linux/man-pages/man3/mallopt.3.html; the numbers are those of ``malloc.h``.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)
        mallopt(top_pad, 256 << 20)


def make_deterministic() -> None:
    """Makes PyTorch use deterministic algorithms where it has them.

    A few operations have none on GPUs; PyTorch warns and continues. One is the gradient of fused
    attention, so that trainings of transformers on GPUs are equal only up to rounding.
    """
    # cuBLAS reads this when it starts; without it PyTorch warns at each product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Otherwise each new buffer is first filled with NaN, to reveal reads of uninitialized memory;
    # this takes a quarter of a training step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # real fp32, as in matrix products
