"""Training in several processes, started by torchrun; with one process these do nothing.

Source:
    The environment that torchrun sets: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of the work that belongs to this process.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int
    world_size: int


WHOLE = Share(rank=0, world_size=1)


def share() -> Share:
    """The part of this process, from the environment of torchrun; without torchrun all work."""
    return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def is_main() -> bool:
    """Whether this is the main process, which writes files and prints."""
    return share().rank == 0


def local_rank() -> int:
    """Number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Connects to the other processes; does nothing inside of another ``joined``.

    If one process fails, torchrun ends all.
    """
    if share().world_size == 1 or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Objects are sent over the CPU. The main process may check the data for hours while the others
    # wait, so the timeout is long; if a process dies, torchrun ends the others.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    yield
    distributed.destroy_process_group()


def wait_for_all() -> None:
    """Returns when all processes have called it."""
    if distributed.is_initialized():
        distributed.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Lets the main process go first, so that the others find the files that it writes."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a number over all processes; no gradient flows through it."""
    value = value.detach().clone()
    if distributed.is_initialized():
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
    return value


def gathered(value: T) -> list[T]:
    """The value of each process, by rank."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def put_together(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of all processes in order; process r of R holds the rows r, r + R, r + 2 R ..."""
    import pandas as pd

    parts = gathered(rows)
    for rank, part in enumerate(parts):
        part.index = part.index * len(parts) + rank
    return pd.concat(parts).sort_index(ignore_index=True)


def synchronized(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, with gradients that are averaged over all processes.

    On GPUs the statistics of BatchNorm are computed over all processes, too. On CPUs PyTorch cannot
    do this, and they are those of the process's own images. Call it last: it replaces the norms.
    """
    if not distributed.is_initialized():
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
