"""Where to compute, and with how many digits."""

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
    """Where to compute, and in which type."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, precision: str) -> "Machine":
        """What is asked for, set up to be fast and to repeat itself.

        Raises:
            UserError: If it is not there.
        """
        make_deterministic()
        keep_freed_memory()
        chosen = choose_device(device)
        most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(chosen.type, local_world_size())
        if local_world_size() > most:
            raise UserError(
                f"torchrun --nproc_per_node={local_world_size()}: more than the {most} of "
                f"{chosen.type} here"
            )
        if chosen.type == "cuda":
            chosen = torch.device("cuda", local_rank())
        return cls(chosen, choose_precision(precision, chosen))

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which networks compute; softmax, losses and norms stay fp32."""
        is_low = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=is_low)

    def place(self, network: Network) -> Network:
        """Moves a network here, with channels last: the layout that convolutions are fast in."""
        # Typed as any: torch's stubs do not know this form of ``to``.
        mover: Any = network
        mover.to(device=self.device, memory_format=torch.channels_last)
        return network

    def __str__(self) -> str:
        """As in "cpu, float32"."""
        return f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}"


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``mps`` stands for here.

    Raises:
        UserError: If this machine has no such device.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in has.items() if is_there))
    if not has[name]:
        there = ", ".join(kind for kind, is_there in has.items() if is_there)
        raise UserError(f"misc.device: there is no {name} here; write auto, or one of: {there}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that ``auto``, ``fp32`` or ``bf16`` stands for on ``device``.

    ``auto`` takes bf16 where it has matrix units of its own: on GPUs since Ampere, and on CPUs with
    AMX. AVX-512 alone can make bf16 convolutions slower than fp32 (docs/method.md has figures).
    """
    if name != "auto":
        chosen = PRECISIONS[name]
        if not has_units(chosen, device):
            say(
                f"misc.precision: this {device.type} has no units for {name}, which makes it many "
                "times slower than fp32"
            )
        return chosen
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        is_fast = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if is_fast else torch.float32


def has_units(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether ``device`` multiplies ``dtype`` by itself; else PyTorch converts number by number."""
    if dtype == torch.float32 or device.type == "mps":
        return True
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN knows ARM's too; PyTorch for Macs comes without it.
    has_onednn = torch.backends.mkldnn.is_available()
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, without waiting for what is still computed there.

    Only on CUDA: mps would read memory that is free again, see
    https://github.com/pytorch/pytorch/issues/139550.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def num_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Lets this process keep the large buffers that it frees, where the C library is glibc.

    By default glibc hands each of them back to the system, and the next training step faults every
    page in again: up to a third of its time. Elsewhere this does nothing.

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
    """Asks PyTorch for the same result every time, where it knows how.

    A few operations have no such implementation on GPUs; PyTorch then warns and goes on. One is the
    gradient of fused attention: trained transformers repeat themselves up to rounding there.
    """
    # cuBLAS reads it when it starts; else PyTorch warns at each product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Else every new buffer is filled with NaN first, to show reads of memory that nobody wrote: a
    # quarter of a training step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # fp32 means it, in convolutions as in products
