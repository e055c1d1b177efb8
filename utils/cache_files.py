"""Names of cache files, and which files in a folder are caches of this program.

A name is a hash of everything that the content depends on, and four check digits. They identify the
file, even if its content is damaged.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

KINDS = {  # by suffix
    "pixels": "decoded images",
    "prompts": "embeddings of sentences",
    "sqlite": "checksums of images and results of checks",
    "targets": "outputs of a teacher",
    "tokens": "features of a frozen encoder",
}
# Also descriptions, unfinished files, locks, and journals that a killed SQLite leaves.
_NAME = re.compile(
    rf"([0-9a-f]{{16}})-([0-9a-f]{{4}})\.(?:{'|'.join(KINDS)}|txt)(?:\.part|\.lock|-journal)?"
)
_KEY = "[0-9a-f]{16}"
_HEADER_BYTES = 4096  # more than any header of this program has


def hash_of(parts: Iterable[str]) -> str:
    """16 hex digits that name ``parts``, in this order."""
    content = hashlib.sha256()
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        content.update(b"%d:%b" % (len(encoded), encoded))  # ["ab"] is not ["a", "b"]
    return content.hexdigest()[:16]


def file_name(parts: Iterable[str], suffix: str) -> str:
    """The name of the file that depends on ``parts``; ``suffix``: a key of :data:`KINDS`."""
    name = hash_of((suffix, *parts))
    return f"{name}-{_check_digits(name)}.{suffix}"


def description(file: Path) -> str:
    """The content of ``file`` in one line: the text file beside it, or else its kind."""
    if _NAME.fullmatch(file.name) is None:
        return "of an earlier version, not used any more"
    try:
        text = file.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return " ".join(text.split())[:200] or KINDS[file.suffix[1:]]


def is_own(file: Path) -> bool:
    """Whether this program wrote ``file``, in this version or in an earlier one.

    Files of earlier versions are recognized by name and content; one alone may be a coincidence.
    """
    name = _NAME.fullmatch(file.name)
    if name is not None:
        return name[2] == _check_digits(name[1])
    try:
        return any(
            re.fullmatch(pattern, file.name) and is_ours(file) for pattern, is_ours in _FORMER
        )
    except (OSError, ValueError, TypeError, RecursionError, sqlite3.Error):  # damaged, or not ours
        return False


def _check_digits(name: str) -> str:
    return hash_of(("check digits", name))[:4]


def _is_described(file: Path) -> bool:
    """Whether the description of decoded images is beside ``file``."""
    with file.with_name(f"{file.name[:16]}.json").open("rb") as stream:
        about = json.loads(stream.read(_HEADER_BYTES))
    return set(about) == {"images", "size", "resize", "root"}


def _holds_tensors(file: Path) -> bool:
    """Whether it holds a teacher's outputs, or embeddings, as safetensors."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        names = set(json.loads(stream.read(min(size, _HEADER_BYTES))))
    return names in ({"logits", "features"}, {"texts"})


def _holds_facts(file: Path) -> bool:
    address = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as table:
        names = [name for (name,) in table.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
    return bool(names) and set(names) <= {"facts_1", "facts_2"}


def _is_empty(file: Path) -> bool:
    return file.stat().st_size == 0


_FORMER = (
    (rf"{_KEY}\.(pixels|part|json)", _is_described),
    (rf"{_KEY}\.pixels\.lock", _is_empty),
    (rf"{_KEY}\.targets", _holds_tensors),
    (rf"{_KEY}-{_KEY}\.prompts", _holds_tensors),
    (r"checked\.sqlite", _holds_facts),
)
