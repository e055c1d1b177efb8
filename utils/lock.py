"""A lock between processes."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows, where open files cannot be removed
    fcntl = None  # type: ignore[assignment]

_OPENING = 5  # seconds, in which a file that was made is locked


def hold(file: IO[bytes]) -> bool:
    """Locks an open file until it is closed, or its process ends; ``False`` if another one has."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def abandoned(files: Iterable[Path]) -> Iterator[Path]:
    """Those of the files that no process has locked by :func:`hold`: it was killed."""
    for file in files:
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _OPENING:
                with file.open("rb") as stream:
                    if hold(stream):
                        yield file


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
