"""The pictures that a command line names."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.scan import find_files, is_picture
from utils.errors import UserError

STANDARD_INPUT = "-"


def find_all(paths: Sequence[str]) -> list[str]:
    """The files that are named, each once, in order.

    Args:
        paths: Files, folders (their pictures, with those in folders inside), patterns with ``*``
            (``**``: folders inside), or ``-``: one path a line from standard input.

    Raises:
        UserError: If one names nothing, or a folder cannot be read.
    """
    return list(dict.fromkeys(file for path in paths for file in _files(path)))


def _files(path: str) -> Iterator[str]:
    if path == STANDARD_INPUT:
        lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
        yield from filter(None, lines)
    elif Path(path).is_dir():
        yield from (str(Path(path) / file) for file in find_files(Path(path)) if is_picture(file))
    elif Path(path).exists():
        yield path
    else:
        found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - takes absolute ones, too
        if not found:
            raise UserError(f"{path}: there is no such file, folder or pattern")
        for each in found:
            if Path(each).is_file():
                yield each
