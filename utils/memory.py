"""Checks that something fits into the memory of this machine, before it is allocated."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container


def total_memory() -> int:
    """Bytes of memory that this process may use; 2^63 if the system does not tell."""
    limits = [2**63]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # no container, or one without a limit: "max"
        limits.append(int(_CGROUP.read_text()))
    return min(limits)


def check_memory(needed: int, what: str) -> None:
    """Raises UserError if this machine cannot hold ``needed`` bytes at once.

    Args:
        needed: Bytes.
        what: Their purpose, as in ``64 images of 224 x 224 pixels``.
    """
    if needed > total_memory():
        raise UserError(
            f"{what} need {_gigabytes(needed)} of memory, and this machine has "
            f"{_gigabytes(total_memory())}"
        )


@contextmanager
def checked_memory(what: str, copies: int) -> Iterator[None]:
    """A context that stops the construction of a network that does not fit into memory.

    The check is made when a weight is allocated, before it is filled, so no memory is used up.

    Args:
        what: The network, for the message.
        copies: Copies of each weight: 2 with gradients.

    Raises:
        UserError: If the parameters need more memory than there is.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    needed = 0
    parts = "parameters and gradients" if copies > 1 else "parameters"

    def count(module: Any, name: str, parameter: Any) -> None:
        nonlocal needed
        needed += copies * (0 if parameter is None else parameter.nbytes)
        check_memory(needed, f"{what}: its {parts}")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if (wanted := out_of_memory(error)) is None:
            raise
        raise UserError(f"{what}: {wanted}") from error
    finally:
        hook.remove()


def out_of_memory(error: Exception) -> str | None:
    """One line about an out-of-memory error; ``None`` for any other error."""
    text = str(error)
    if not isinstance(error, MemoryError) and not re.search(
        r"can't allocate memory|out of memory|Storage size calculation overflowed", text
    ):
        return None
    size = re.search(r"tried to allocate (\d+) bytes", text)
    wanted = f" for {_gigabytes(int(size[1]))}" if size else ""
    return f"not enough memory{wanted}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"
