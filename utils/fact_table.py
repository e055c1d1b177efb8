"""Many small facts in one SQLite file, each with a checksum."""

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from filelock import FileLock
from tqdm import tqdm

from utils.errors import UserError

T = TypeVar("T")
_KEYS_AT_ONCE = 500  # SQLite before 3.32 allows 999 values in a query
_IN_RANGE = "SELECT {} FROM facts WHERE key >= ? AND key < ?"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_memory: dict[str, bytes] = {}


class FactTable:
    """Bytes under keys.

    A row with a wrong checksum counts as absent. A damaged database is removed and made again. All
    methods raise UserError if the file cannot be used.

    Args:
        file: The database; ``None``: facts are kept in the memory of this process, which all tables
            without a file share.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def get(self, keys: Iterable[str], start: str = "") -> dict[str, bytes]:
        """The facts under ``keys``; absent keys are left out.

        Args:
            keys: The keys.
            start: Their common beginning, if most keys with it are among them: all of these are
                then read at once, in a third of the time.
        """
        if self.file is None:
            return {key: _memory[key] for key in keys if key in _memory}
        wanted = {key.encode(errors="surrogateescape"): key for key in keys}
        names = list(wanted)
        parts = [names[i : i + _KEYS_AT_ONCE] for i in range(0, len(names), _KEYS_AT_ONCE)]

        def read(table: sqlite3.Connection) -> dict[str, bytes]:
            if start:
                rows = list(table.execute(_IN_RANGE.format("*"), _range(start)))
            else:
                query = "SELECT * FROM facts WHERE key IN ({})"
                rows = [
                    row
                    for part in parts
                    for row in table.execute(query.format(",".join("?" * len(part))), part)
                ]
            return {
                wanted[key]: fact
                for key, checksum, fact in rows
                if key in wanted and isinstance(fact, bytes) and crc32(fact, crc32(key)) == checksum
            }

        return self._use(read) if wanted else {}

    def keys(self, start: str) -> set[str]:
        """The keys that begin with ``start``."""
        if self.file is None:
            return {key for key in _memory if key.startswith(start)}

        names = self._use(lambda table: list(table.execute(_IN_RANGE.format("key"), _range(start))))
        return {name.decode(errors="surrogateescape") for (name,) in names}

    def put(self, facts: Mapping[str, bytes]) -> None:
        """Adds facts; an earlier one under the same key is replaced."""
        if self.file is None:
            _memory.update(facts)
            return
        names = [key.encode(errors="surrogateescape") for key in facts]
        rows = [
            (name, crc32(fact, crc32(name)), fact)
            for name, fact in zip(names, facts.values(), strict=True)
        ]
        if rows:
            query = "REPLACE INTO facts VALUES (?, ?, ?)"
            self._use(lambda table: table.executemany(query, rows))

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``work`` with the open database, which is locked for other processes."""
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
        table.text_factory = bytes  # the text of a damaged row may not be UTF-8
        table.execute(
            "CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, checksum INT, value BLOB)"
        )
        return work(table)


def _range(start: str) -> tuple[bytes, bytes]:
    """The first key that begins with ``start``, and the first one after all of these."""
    first = start.encode(errors="surrogateescape")
    return first, first[:-1] + bytes([first[-1] + 1])
