"""Images are known by their content: the SHA-256 of a file, remembered until the file changes."""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from stat import S_ISDIR
from typing import TypeVar

from tqdm import tqdm

from utils.device import num_cores
from utils.download import sha256_of
from utils.ranks import local_rank
from utils.store import Store

T = TypeVar("T")
_STAMP = struct.Struct("<QqqQ")  # size, mtime, ctime, inode
# In images of file systems (squashfs, ISO) all times may be 0 or 1980 and inodes be counted: there,
# a digest is remembered for this process only.
_FIRST_TIME = 631_152_000_000_000_000  # 1990, in nanoseconds
_PROCESS = os.urandom(8)
_SAVED_AT_ONCE = 1000  # rows: an interrupted command continues after the last ones


def digests(root: Path, paths: Sequence[str], store: Store, *, title: str) -> dict[str, str]:
    """The SHA-256 of each file, 64 hex digits; empty for a file that cannot be read.

    Args:
        root: Folder the paths are relative to.
        paths: The files.
        store: Where digests are remembered.
        title: Of the progress bar.

    Raises:
        UserError: If the store cannot be used.
    """
    files = Files(root, paths, store)
    for path, digest in in_threads(files.read, files.unread, title):
        files.remember(path, digest)
    files.save()
    return files.digests


class Files:
    """Some files, and what is known of their content.

    Args:
        root: Folder the paths are relative to.
        paths: The files; one may be named several times.
        store: Where digests are remembered.

    Attributes:
        digests: SHA-256 by path, of the files that have not changed since they were read: size,
            both times and inode are the same.

    Raises:
        UserError: If the store cannot be used.
    """

    def __init__(self, root: Path, paths: Sequence[str], store: Store) -> None:
        self.base, self.facts = os.path.realpath(root), store.facts
        self.stamps = {path: self._stamp(path) for path in paths}
        remembered = self.facts.get(map(self._key, self.stamps), start=self._key(""))
        self.digests: dict[str, str] = {}
        for path, stamp in self.stamps.items():
            fact = remembered.get(self._key(path), b"")
            if fact[:-32] == stamp:
                self.digests[path] = fact[-32:].hex()
        self._unsaved: dict[str, bytes] = {}

    @property
    def unread(self) -> list[str]:
        """The files that have no digest yet, each once."""
        return [path for path in self.stamps if path not in self.digests]

    def read(self, path: str) -> str:
        """The digest of a file as it is now, or of all in a folder; empty if it cannot be read."""
        try:
            if names := self._names(path):
                inner = "".join(self.read(f"{path}/{name}") for name in names)
                return hashlib.sha256(inner.encode()).hexdigest()
            return sha256_of(Path(self.base, path))
        except OSError:
            return ""

    def remember(self, path: str, digest: str, facts: Mapping[str, bytes] | None = None) -> None:
        """Adds a digest, and facts about the content of the file.

        What was read of a file that changed meanwhile is not kept.
        """
        self.digests[path] = digest
        if digest and self._stamp(path) == self.stamps[path]:
            self._unsaved[self._key(path)] = self.stamps[path] + bytes.fromhex(digest)
            self._unsaved |= facts or {}
        if len(self._unsaved) >= _SAVED_AT_ONCE:
            self.save()

    def save(self) -> None:
        """Writes what was remembered."""
        self.facts.put(self._unsaved)
        self._unsaved = {}

    def _key(self, path: str) -> str:
        return f"file:{self.base}/{path}"

    def _names(self, path: str) -> list[str]:
        """What is in a folder, a mask of several files; empty for a file."""
        folder = Path(self.base, path)
        return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []

    def _stamp(self, path: str) -> bytes:
        try:
            stat = os.stat(f"{self.base}/{path}")  # noqa: PTH116 - pathlib takes twice as long
        except OSError:
            return b"missing"
        if S_ISDIR(stat.st_mode):  # its own times do not change with those of its files
            return b"".join(self._stamp(f"{path}/{name}") for name in self._names(path))
        stamp = _STAMP.pack(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        return stamp if stat.st_ctime_ns >= _FIRST_TIME else stamp + _PROCESS


def in_threads(
    work: Callable[[str], T], paths: Sequence[str], title: str
) -> Iterator[tuple[str, T]]:
    """Each path with what ``work`` returns for it, in the order in which they are done."""
    # Pillow and hashlib release the interpreter while they work: threads are enough.
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        jobs = {pool.submit(work, path): path for path in paths}
        is_quiet = not jobs or local_rank() != 0
        bar = tqdm(total=len(jobs), desc=title, unit="img", leave=False, disable=is_quiet)
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
                bar.update()
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)
