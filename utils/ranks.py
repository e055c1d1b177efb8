"""One training in several processes, started by torchrun; in a single process all this is idle.

Source:
    The environment that torchrun sets: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's.

    Attributes:
        rank: Its number, from 0.
        world_size: Number of processes.
    """

    rank: int
    world_size: int


WHOLE = Share(rank=0, world_size=1)


def share() -> Share:
    """This process's part, as torchrun says it; all of it without torchrun."""
    return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return share().rank == 0


def local_rank() -> int:
    """Number of this process on its machine: which GPU it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Joins the other processes, once: inside another ``joined`` nothing happens.

    If one fails, torchrun ends them all.
    """
    if share().world_size == 1 or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # What is said between processes goes over the CPU. The main process may check the data for
    # hours while the others wait; a process that dies is torchrun's affair.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    yield
    distributed.destroy_process_group()


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Lets the main process through first: what it leaves on disk, the others find."""
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
    """What each process has, by rank."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def put_together(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of all processes, where process r of R holds rows r, r + R, r + 2 R ..."""
    parts = gathered(rows)
    for rank, part in enumerate(parts):
        part.index = part.index * len(parts) + rank
    return pd.concat(parts).sort_index(ignore_index=True)


def synchronized(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, sharing its gradients with those of the other processes.

    On GPUs BatchNorm takes its statistics over all of them; PyTorch has no such thing for CPUs,
    where each process keeps to its own images. To be called last: the norms are other modules then.
    """
    if not distributed.is_initialized():
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
