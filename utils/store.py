"""The cache folder: each file is made once, for all runs and processes."""

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from weakref import WeakSet

from tqdm import tqdm

from utils.cache_files import KINDS, description, file_name, is_own
from utils.errors import UserError
from utils.fact_table import FactTable
from utils.lock import abandoned, hold, locked

FOLDER = Path("data/cache")
_OTHERWISE = "name another folder with dataset.cache=FOLDER, or use none with dataset.cache=null"


@dataclass(frozen=True, eq=False)
class Entry:
    """A large file of a store; while this object lives, its process does not remove the file."""

    file: Path


_in_use: WeakSet[Entry] = WeakSet()


@dataclass(frozen=True)
class Store:
    """Keeps files, and facts about files.

    Attributes:
        folder: The folder; ``None``: nothing is kept, and everything is made each time.
        limit: Largest total size of its files in bytes, without the table of facts; the longest
            unused files are removed first. ``None``: no limit.
    """

    folder: Path | None
    limit: int | None = None

    @property
    def facts(self) -> FactTable:
        """Facts about files; without a folder they are lost when the process ends."""
        return FactTable(self._path(("facts",), "sqlite") if self.folder else None)

    def load_or_make(
        self, parts: Iterable[str], suffix: str, make: Callable[[], bytes], about: str
    ) -> bytes:
        """The content of a file, or the result of ``make`` if the file is missing or damaged.

        If the folder cannot be written, one line is printed, and the content is not kept.

        Args:
            parts: Everything that the content depends on.
            suffix: The kind of file: a key of :data:`KINDS`.
            make: Returns the content; if several processes need it, one calls ``make`` and the
                others wait.
            about: A description of the content, for the list.
        """
        if self.folder is None:
            return make()
        file = self._path(parts, suffix)
        with self._locked(file):
            content = _read(file)
            if content is None:
                content = make()
                self._keep(file, content, about)
        return content

    def load(self, parts: Iterable[str], suffix: str) -> bytes | None:
        """As :meth:`load_or_make`; ``None`` if the file is missing or damaged."""
        return None if self.folder is None else _read(self._path(parts, suffix))

    def open(
        self,
        parts: Iterable[str],
        suffix: str,
        nbytes: int,
        write: Callable[[BinaryIO], None],
        about: str,
    ) -> Entry:
        """A file that is too large to be read as a whole; the caller checks its content.

        Args:
            parts: Everything that the content depends on.
            suffix: The kind of file: a key of :data:`KINDS`.
            nbytes: Its size; a file of another size is made again.
            write: Writes the content; if several processes need it, one calls ``write`` and the
                others wait.
            about: A description of the content, for the list.

        Raises:
            UserError: If the folder cannot be written or is too full, or if the files that this
                process uses do not fit into ``limit``.
        """
        file = self._path(parts, suffix)
        try:
            with self._locked(file):
                if not file.exists() or file.stat().st_size != nbytes:
                    self._write(file, nbytes, write, about)
            _touch(file)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{file}: cannot be written ({reason}); {_OTHERWISE}") from error
        entry = Entry(file)
        _in_use.add(entry)
        return entry

    def lines(self) -> list[str]:
        """One line per file, and the total of the folder."""
        files = self._own_files()
        lines = []
        for file, stat in files.items():
            if file.suffix[1:] in KINDS:
                used = datetime.fromtimestamp(stat.st_mtime, tz=UTC)
                lines.append(
                    f"{stat.st_size / 1e9:9.3f} GB, used {used:%Y-%m-%d %H:%M}  "
                    f"{file.name}  {description(file)}"
                )
        total = sum(stat.st_size for stat in files.values())
        return [*lines, f"{self.folder}: {len(files)} files, {total / 1e9:.3f} GB"]

    def clear(self) -> tuple[int, int]:
        """Removes all files of this program, also those of its earlier versions.

        Returns:
            Their number, and their total size in bytes.

        Raises:
            UserError: If some cannot be removed; the others are removed.
        """
        files, failed = self._own_files(), []
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                failed.append(f"{file}: cannot be removed ({error.strerror})")
        if failed:
            raise UserError("\n".join(failed))
        return len(files), sum(stat.st_size for stat in files.values())

    def _own_files(self) -> dict[Path, os.stat_result]:
        """The files of this program, in order of their names."""
        assert self.folder is not None
        files = {}
        for file in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            with suppress(FileNotFoundError):  # another process has removed it
                if file.is_file() and not file.is_symlink() and is_own(file):
                    files[file] = file.stat()
        return files

    def _path(self, parts: Iterable[str], suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / file_name(parts, suffix)

    @contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        with ExitStack() as stack:
            with suppress(OSError):  # mistakes of the folder are reported when it is written
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(file))
            yield

    def _keep(self, file: Path, content: bytes, about: str) -> None:
        def write(out: BinaryIO) -> None:
            out.write(hashlib.sha256(content).digest())
            out.write(content)

        try:
            self._write(file, len(content) + hashlib.sha256().digest_size, write, about)
        except (OSError, UserError) as error:
            _note(f"{file}: is not kept ({getattr(error, 'strerror', None) or error})")

    def _write(
        self, file: Path, nbytes: int, write: Callable[[BinaryIO], None], about: str
    ) -> None:
        if file.exists():
            _note(f"{file}: is damaged: made again")
        self._remove_unfinished()
        self._make_room(nbytes)
        part = Path(f"{file}.part")
        try:
            with part.open("wb") as out:
                hold(out)
                write(out)
            file.with_suffix(".txt").write_text(about, encoding="utf-8", errors="replace")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """Removes what killed processes have left; files that others write now are locked."""
        assert self.folder is not None
        unfinished = self.folder.glob("*.part")
        for part in abandoned(p for p in unfinished if p.stem.count(".") == 1 and is_own(p)):
            with suppress(OSError):
                part.unlink()

    def _make_room(self, nbytes: int) -> None:
        """Removes the longest unused files until ``nbytes`` more fit into the limit.

        Raises:
            UserError: If they do not fit beside the files in use, or not on the disk.
        """
        assert self.folder is not None
        if self.limit is not None:
            files = sorted(self._own_files().items(), key=lambda item: item[1].st_mtime)
            kinds = KINDS.keys() - {"sqlite"}
            sizes = {file: stat.st_size for file, stat in files if file.suffix[1:] in kinds}
            in_use = {entry.file for entry in _in_use}
            needed = nbytes + sum(size for file, size in sizes.items() if file in in_use)
            if needed > self.limit:
                raise UserError(
                    f"{self.folder}: {needed / 1e9:.3g} GB are needed at once, dataset.cache_gb "
                    f"allows {self.limit / 1e9:.3g}; write "
                    f"dataset.cache_gb={math.ceil(needed / 1e8) / 10}, or {_OTHERWISE}"
                )
            total = nbytes + sum(sizes.values())
            for file in (file for file in sizes if file not in in_use):
                if total > self.limit:
                    total -= sizes[file]
                    for path in filter(is_own, (file.with_suffix(".txt"), file)):
                        path.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < nbytes:
            raise UserError(
                f"{self.folder}: {nbytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free; "
                f"{_OTHERWISE}"
            )


NOWHERE = Store(None)


def _read(file: Path) -> bytes | None:
    """What :meth:`Store._keep` wrote; ``None`` if the file is not there, or damaged."""
    try:
        with file.open("rb") as stream:
            checksum = stream.read(hashlib.sha256().digest_size)
            content = stream.read()
    except OSError:
        return None
    if hashlib.sha256(content).digest() != checksum:
        return None
    _touch(file)
    return content


def _touch(file: Path) -> None:
    """Sets the time of the last use of ``file``."""
    with suppress(OSError):  # without it, the file is removed earlier
        os.utime(file)


def _note(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
