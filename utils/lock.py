"""One process at a time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keeps every other process that asks for the same from making ``file`` meanwhile.

    The lock falls with its process, however that ends. Its file, ``file`` + ``.lock``, stays:
    somebody may be waiting for it.

    Raises:
        OSError: If the folder cannot be written.
    """
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{file}: waiting for the process that makes it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
