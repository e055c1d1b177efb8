"""Decoded pictures: each is read and resized once, for all epochs, runs and processes.

    python -m datasets.cache --list
    python -m datasets.cache --clear

A cache is one file of raw bytes, named after what is in it: view, and path, size and time of every
picture. It is read by position instead of being mapped into memory: the system's page cache is the
same for all processes either way, but a process that reads does not look as large as the file.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from weakref import WeakValueDictionary

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.image import View, read_view
from datasets.record import Record
from utils.device import num_cores
from utils.errors import UserError, run_command
from utils.lock import locked

FOLDER = Path("data/cache")
_ELSE = "name another folder with dataset.cache=FOLDER, or go without with dataset.cache=null"
_FORMAT = 3  # raise it when the same pictures give other bytes


@dataclass(frozen=True)
class CachedPixels:
    """Reads pictures out of a cache file.

    Attributes:
        file: The cache.
        rows: Which row of it holds each picture.
        size: Height and width.
    """

    file: Path
    rows: Sequence[int]
    size: tuple[int, int]

    def __call__(self, index: int) -> Tensor:
        """As :class:`datasets.pixels.Pixels`."""
        pixels = torch.empty(*self.size, 3, dtype=torch.uint8)
        # Opened each time, in microseconds: a handle's position is shared with forked processes.
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.rows[index] * pixels.nbytes)
                file.readinto(pixels.numpy().data)
        except FileNotFoundError as error:
            raise UserError(f"{self.file}: was removed while in use; run it again") from error
        return pixels.permute(2, 0, 1)


# What this process reads: never removed to make room.
_in_use: WeakValueDictionary[int, CachedPixels] = WeakValueDictionary()


def open_cache(
    folder: Path,
    root: Path,
    records: Sequence[Record],
    view: View,
    *,
    wanted: Sequence[Record] | None = None,
    limit: int | None = None,
) -> CachedPixels:
    """The pixels of ``wanted``, from the cache of ``records``, which is made if it is not there.

    Of several processes one makes it and the others wait; what a killed one left is made anew, and
    so is a file that is too short.

    Args:
        folder: Where caches lie.
        root: Folder the records' paths are relative to.
        records: All pictures of the cache, in any order.
        view: From picture to pixels.
        wanted: Those to read, out of ``records``; ``None``: all, in order.
        limit: Bytes that all caches may take together; the longest unused go first, those that this
            process reads never.

    Raises:
        UserError: If a picture cannot be read, if the folder cannot be written or is too full, or
            if what this process reads does not keep within ``limit``.
    """
    paths = sorted(record.path for record in records)
    file = folder / f"{content_key(root, paths, view)}.pixels"
    nbytes = len(paths) * view.size[0] * view.size[1] * 3
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(file):
            if not file.exists() or file.stat().st_size != nbytes:
                _make_room(folder, nbytes, limit)
                about = {
                    "images": len(paths),
                    "size": list(view.size),
                    "resize": view.resize,
                    "root": str(root),
                }
                file.with_suffix(".json").write_text(json.dumps(about) + "\n")
                _build(file, root, paths, view)
            os.utime(file)  # says when it was last used
    except OSError as error:
        raise UserError(
            f"{folder}: cannot keep decoded images ({error.strerror}); {_ELSE}"
        ) from error
    row = {path: i for i, path in enumerate(paths)}
    rows = [row[record.path] for record in (records if wanted is None else wanted)]
    pixels = CachedPixels(file, rows, view.size)
    _in_use[id(pixels)] = pixels
    return pixels


def content_key(root: Path, paths: Sequence[str], view: View) -> str:
    """Another name for other pictures, another view or another program: 16 hex digits.

    Pictures are told apart by path, size and time: reading them would take as long as decoding. The
    root does not count: data that are copied to each job's own disk are known there.
    """
    key = hashlib.sha256(f"{_FORMAT} {view.size} {view.resize}\n".encode())
    for path in paths:
        found = (root / path).stat()
        key.update(f"{path}\t{found.st_size}\t{found.st_mtime_ns}\n".encode())
    return key.hexdigest()[:16]


def _build(file: Path, root: Path, paths: Sequence[str], view: View) -> None:
    part = file.with_suffix(".part")
    errors: dict[int, UserError] = {}
    turn = threading.Lock()
    # Pillow lets go of the interpreter while it decodes and resizes: threads are enough.
    pool = ThreadPoolExecutor(max_workers=num_cores())
    try:
        with part.open("wb") as out:

            def decode(i: int) -> None:
                try:
                    pixels = read_view(root / paths[i], view)
                except UserError as error:
                    errors[i] = error
                    return
                row = pixels.permute(1, 2, 0).numpy().tobytes()
                with turn:
                    out.seek(i * len(row))
                    out.write(row)

            jobs = [pool.submit(decode, i) for i in range(len(paths))]
            bar = tqdm(
                as_completed(jobs), total=len(jobs), desc="decoding", unit="img", leave=False
            )
            for job in bar:
                job.result()
            if errors:
                first = errors[min(errors)]
                more = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
                raise UserError(f"{first}{more}")
        part.replace(file)
    finally:
        pool.shutdown(cancel_futures=True)
        part.unlink(missing_ok=True)


def _make_room(folder: Path, nbytes: int, limit: int | None) -> None:
    """Removes the longest unused caches until ``nbytes`` more keep within ``limit``.

    Raises:
        UserError: If there is no room for them beside those in use, or none on the disk.
    """
    if limit is not None:
        caches = sorted(folder.glob("*.pixels"), key=lambda file: file.stat().st_mtime)
        in_use = {pixels.file for pixels in _in_use.values()}
        needed = nbytes + sum(file.stat().st_size for file in caches if file in in_use)
        if needed > limit:
            raise UserError(
                f"{folder}: the decoded images need {needed / 1e9:.3g} GB, dataset.cache_gb allows "
                f"{limit / 1e9:.3g}; dataset.cache_gb={math.ceil(needed / 1e8) / 10}, or {_ELSE}"
            )
        total = nbytes + sum(file.stat().st_size for file in caches)
        for file in (file for file in caches if file not in in_use):
            if total <= limit:
                break
            total -= file.stat().st_size
            _remove(file)
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise UserError(
            f"{folder}: the decoded images need {nbytes / 1e9:.1f} GB, {free / 1e9:.1f} are free; "
            f"{_ELSE}"
        )


def _remove(file: Path) -> None:
    """Removes a cache; its lock stays, for somebody may be waiting for it."""
    for suffix in (".pixels", ".json"):
        file.with_suffix(suffix).unlink(missing_ok=True)


def list_caches(folder: Path) -> pd.DataFrame:
    """One row per cache: name, images, size, resize, GB, last use and the folder it was made of."""
    rows = []
    for file in sorted(folder.glob("*.pixels")):
        about = json.loads(file.with_suffix(".json").read_text())
        used = datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)
        rows.append(
            {
                "name": file.stem,
                "images": about["images"],
                "size": "x".join(map(str, about["size"])),
                "resize": about["resize"],
                "GB": round(file.stat().st_size / 1e9, 3),
                "last used": f"{used:%Y-%m-%d %H:%M}",
                "of": about["root"],
            }
        )
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="show the caches")
    what.add_argument(
        "--clear",
        action="store_true",
        help="remove them all, what teachers said, and what checks found",
    )
    parser.add_argument("--dir", type=Path, default=FOLDER, help="folder of the caches")
    args = parser.parse_args(arguments)

    def command() -> None:
        caches = list_caches(args.dir)
        if args.clear:
            for file in chain.from_iterable(
                map(args.dir.glob, ("*.pixels", "*.part", "*.targets", "*.sqlite", "*.prompts"))
            ):
                _remove(file)
                file.unlink(missing_ok=True)
        total = caches["GB"].sum() if len(caches) else 0.0
        table = f"{caches.to_markdown(index=False)}\n" if len(caches) and args.list else ""
        done = "removed" if args.clear else "in all"
        sys.stdout.write(f"{table}{args.dir}: {done} {len(caches)} caches, {total:.3f} GB\n")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
