"""Many small facts in one SQLite file, each with a checksum."""

import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from tqdm import tqdm

from utils.errors import UserError

T = TypeVar("T")
_KEYS_AT_ONCE = 500  # SQLite before 3.32 allows 999 values in a query
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_memory: dict[str, bytes] = {}


class FactTable:
    """Bytes under keys.

    A row with a wrong checksum counts as absent. A file that is not a database any more is removed
    and started again.

    Args:
        file: The database; ``None``: facts are kept in the memory of this process, once for all
            tables without a file.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The facts under ``keys``; those that are not there are left out."""
        if self.file is None:
            return {key: _memory[key] for key in keys if key in _memory}
        names = list(dict.fromkeys(map(_encoded, keys)))

        def read(table: sqlite3.Connection) -> dict[str, bytes]:
            facts: dict[str, bytes] = {}
            for start in range(0, len(names), _KEYS_AT_ONCE):
                part = names[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT * FROM facts WHERE key IN ({marks})"  # noqa: S608
                facts |= _checked(table.execute(query, part))
            return facts

        return self._use(read) if names else {}

    def get_all(self, start: str) -> dict[str, bytes]:
        """The facts whose keys begin with ``start``; faster than naming each of many keys."""
        if self.file is None:
            return {key: fact for key, fact in _memory.items() if key.startswith(start)}
        query = "SELECT * FROM facts WHERE key >= ? AND key < ?"
        return self._use(lambda table: _checked(table.execute(query, _range(start))))

    def keys(self, start: str) -> set[str]:
        """The keys that begin with ``start``."""
        if self.file is None:
            return {key for key in _memory if key.startswith(start)}
        query = "SELECT key FROM facts WHERE key >= ? AND key < ?"
        return self._use(
            lambda table: {_decoded(key) for (key,) in table.execute(query, _range(start))}
        )

    def put(self, facts: Mapping[str, bytes]) -> None:
        """Adds facts; an earlier one under the same key is replaced.

        Raises:
            UserError: If the file cannot be written; so do the methods that read.
        """
        if self.file is None:
            _memory.update(facts)
            return
        rows = [
            (key, _checksum(key, fact), fact)
            for key, fact in zip(map(_encoded, facts), facts.values(), strict=True)
        ]
        if rows:
            query = "REPLACE INTO facts VALUES (?, ?, ?)"
            self._use(lambda table: table.executemany(query, rows))

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the open database; one process at a time, for a moment."""
        assert self.file is not None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not every network disk has the locks of SQLite itself.
            with FileLock(f"{self.file}.lock"):
                try:
                    return _opened(self.file, work)
                except sqlite3.Error as error:
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                        raise
                    tqdm.write(f"{self.file}: is damaged ({error}): made again", file=sys.stderr)
                    for suffix in ("", "-journal"):
                        Path(f"{self.file}{suffix}").unlink(missing_ok=True)
                    return _opened(self.file, work)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.file}: cannot be used ({reason}); remove it, name another folder with "
                "dataset.cache=FOLDER, or use none with dataset.cache=null"
            ) from error


def _opened(file: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    with closing(sqlite3.connect(file, timeout=60)) as table, table:
        table.text_factory = bytes  # a damaged row may be a text that is none
        table.execute(
            "CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, checksum INT, value BLOB)"
        )
        return work(table)


def _encoded(key: str) -> bytes:
    return key.encode(errors="surrogateescape")  # names of files may be no UTF-8


def _decoded(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _checked(rows: Iterable[tuple[bytes, int, bytes]]) -> dict[str, bytes]:
    return {
        _decoded(key): value
        for key, checksum, value in rows
        if isinstance(value, bytes) and _checksum(key, value) == checksum
    }


def _range(start: str) -> tuple[bytes, bytes]:
    """The first key that begins with ``start``, and the first one after all of these."""
    first = _encoded(start)
    return first, first[:-1] + bytes([first[-1] + 1])
