"""Files that earlier versions of this program left in the folder of its caches."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

_KEY = "[0-9a-f]{16}"


def is_former(file: Path) -> bool:
    """Whether an earlier version wrote ``file``: its name and its content both have to say so."""
    try:
        return any(
            re.fullmatch(pattern, file.name) and is_ours(file) for pattern, is_ours in _KINDS
        )
    except (OSError, ValueError, TypeError, RecursionError, sqlite3.Error):  # damaged, or not ours
        return False


def _is_described(file: Path) -> bool:
    """Whether the description of decoded images is beside ``file``."""
    about = json.loads(file.with_name(file.name[:16] + ".json").read_text(encoding="utf-8"))
    return set(about) == {"images", "size", "resize", "root"}


def _holds_tensors(file: Path) -> bool:
    """Whether a teacher's answers or embeddings are in it, as safetensors."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        names = set(json.loads(stream.read(min(size, 4096))))
    return names in ({"logits", "features"}, {"texts"})


def _holds_facts(file: Path) -> bool:
    address = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as table:
        names = [name for (name,) in table.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
    return bool(names) and set(names) <= {"facts_1", "facts_2"}


def _is_empty(file: Path) -> bool:
    return file.stat().st_size == 0


_KINDS = (
    (rf"{_KEY}\.(pixels|part|json)", _is_described),
    (rf"{_KEY}\.pixels\.lock", _is_empty),
    (rf"{_KEY}\.targets", _holds_tensors),
    (rf"{_KEY}-{_KEY}\.prompts", _holds_tensors),
    (r"checked\.sqlite", _holds_facts),
)
