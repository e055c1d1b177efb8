"""A lock between processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lets only one process at a time make ``file``; others wait.

    The lock is released when its process ends, for whatever reason. The file of the lock, ``file``
    + ``.lock``, is not removed: another process may wait for it.

    Raises:
        OSError: If the folder cannot be written.
    """
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{file}: waiting for another process that makes it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
