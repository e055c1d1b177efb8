"""What the files of a data set hold: each is decoded once, and remembered by its size and time."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from datasets.image import read_image
from datasets.mask import read_mask
from utils.device import num_cores
from utils.download import sha256_of
from utils.errors import UserError

SIDE = 32  # of a thumbnail, in pixels
FILE = "checked.sqlite"
_TABLE = "facts_2"  # raise the number when the same file gives other facts
_CHUNK = 500  # files between two savings: a check that was interrupted goes on there


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file holds.

    Attributes:
        width: In pixels, of the upright picture.
        height: In pixels, of the upright picture.
        mode: Pillow's name for the kind of pixels; empty for a mask.
        sha256: Of the file's bytes.
        thumbnail: The gray picture at ``SIDE x SIDE``, float16, as bytes; empty for a mask.
        marked: Anomalous pixels of a mask.
        error: Why the file cannot be read; then everything else is empty.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    thumbnail: bytes = b""
    marked: int = 0
    error: str = ""

    @property
    def size(self) -> str:
        """Width and height, ``1500x1000``."""
        return f"{self.width}x{self.height}"


def image_facts(file: Path) -> Facts:
    """The facts of a picture, all of which is decoded.

    A JPEG is decoded at a fraction of its size, which takes a third of the time and fails for the
    same files: every byte goes through the decoder either way.
    """
    try:
        small = read_image(file, at_least=4 * SIDE)
        with Image.open(file) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            (width, height), mode = image.size, image.mode
            if image.format == "TIFF":  # Pillow turns it by itself, some versions on opening it
                width, height = small.size
            elif orientation in (5, 6, 7, 8):
                width, height = height, width
        digest = sha256_of(file)
    except UserError as error:
        return Facts(error=str(error))
    except OSError as error:
        return Facts(
            error=f"{file}: cannot be read ({error.strerror or error}); replace or remove it"
        )
    gray = small.convert("L").convert("F").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    thumbnail = np.asarray(gray).astype(np.float16).tobytes()
    return Facts(width, height, mode, digest, thumbnail)


def file_facts(file: Path) -> Facts:
    """The digest of a file that is not decoded."""
    try:
        return Facts(sha256=sha256_of(file))
    except OSError as error:
        return Facts(error=f"{file}: cannot be read ({error.strerror or error})")


def mask_facts(file: Path) -> Facts:
    """The facts of a mask."""
    try:
        mask = read_mask(file)
    except UserError as error:
        return Facts(error=str(error))
    marked = int(np.count_nonzero(np.asarray(mask)))
    return Facts(mask.width, mask.height, sha256=sha256_of(file), marked=marked)


@dataclass(frozen=True, slots=True)
class _Known:
    """A file as it was when its facts were found."""

    size: int
    time: int
    facts: Facts


def collect(
    root: Path,
    paths: Sequence[str],
    look: Callable[[Path], Facts],
    *,
    cache: Path | None,
    title: str,
) -> dict[str, Facts]:
    """The facts of each file, from the cache where the file has not changed since.

    Args:
        root: Folder the paths are relative to.
        paths: The files.
        look: From file to facts.
        cache: Folder where facts are kept; ``None``: they are not. Errors never are.
        title: Of the progress bar.

    Raises:
        UserError: If the cache cannot be used.
    """
    base, paths = root.resolve(), list(dict.fromkeys(paths))
    names = {path: f"{look.__name__}:{base}/{path}" for path in paths}
    stats = {path: os.stat(f"{base}/{path}") for path in paths}  # noqa: PTH116 - pathlib is slow
    with _store(cache) as store:
        known = _load(store, f"{look.__name__}:{base}/")
        found: dict[str, Facts] = {}
        for path, stat in stats.items():
            before = known.get(names[path])
            if before and (before.size, before.time) == (stat.st_size, stat.st_mtime_ns):
                found[path] = before.facts
        todo = [path for path in paths if path not in found]
        fresh: list[tuple[object, ...]] = []
        for path, facts in _look_at(root, todo, look, title):
            found[path] = facts
            if not facts.error:
                stat = stats[path]
                fresh.append((names[path], stat.st_size, stat.st_mtime_ns, *astuple(facts)[:-1]))
            if len(fresh) >= _CHUNK:
                _save(store, fresh)
        _save(store, fresh)
    return found


def _look_at(
    root: Path, paths: Sequence[str], look: Callable[[Path], Facts], title: str
) -> Iterator[tuple[str, Facts]]:
    """Path and facts, as they come in."""
    # Pillow and hashlib let go of the interpreter while they work: threads are enough.
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        jobs = {pool.submit(look, root / path): path for path in paths}
        try:
            bar = tqdm(
                as_completed(jobs),
                total=len(jobs),
                desc=title,
                unit="img",
                leave=False,
                disable=not jobs,
            )
            for job in bar:
                yield jobs[job], job.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _store(folder: Path | None) -> Iterator[sqlite3.Connection]:
    """The table of facts in ``folder``; in memory where there is none."""
    where = str(folder / FILE) if folder else ":memory:"
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(where, timeout=60)
        try:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_TABLE} (file TEXT PRIMARY KEY, size INT, time INT, "
                "width INT, height INT, mode TEXT, sha256 TEXT, thumbnail BLOB, marked INT)"
            )
            yield connection
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{where}: cannot keep what is known of the images ({error}); remove the file, name "
            "another folder with dataset.cache=FOLDER, or go without with dataset.cache=null"
        ) from error


def _load(store: sqlite3.Connection, start: str) -> Mapping[str, _Known]:
    """What is known of the files whose names begin with ``start``, which ends with a slash."""
    behind = start[:-1] + "0"  # the character after the slash
    rows = store.execute(f"SELECT * FROM {_TABLE} WHERE file >= ? AND file < ?", (start, behind))  # noqa: S608
    return {name: _Known(size, time, Facts(*facts)) for name, size, time, *facts in rows}


def _save(store: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    with store:
        store.executemany(f"REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
    rows.clear()
