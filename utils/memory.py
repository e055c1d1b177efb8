"""Whether something fits into this machine's memory, asked before it is allocated."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container


def total_memory() -> int:
    """Bytes of memory that this process may use at most; 2^63 where the system does not tell."""
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
        what: What they are for, as in ``64 images of 224 x 224 pixels``.
    """
    if needed > total_memory():
        raise UserError(
            f"{what} need {_gigabytes(needed)} of memory, and this machine has "
            f"{_gigabytes(total_memory())}"
        )


@contextmanager
def checked_memory(what: str, copies: int) -> Iterator[None]:
    """A context in which a network is built only as far as memory can hold it.

    PyTorch asks for the memory of a weight before it fills it in, so that nothing is used up when
    a weight is too much.

    Args:
        what: The network, for the message.
        copies: How often each weight is needed: twice where it has a gradient.

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
    """One line about an error that was raised because memory ran out; ``None`` for any other."""
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
