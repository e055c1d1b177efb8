"""Where an image's pixels come from: its file, a cache, or the memory of a device."""

import threading
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.digests import digests, in_threads
from datasets.image import SKIP_BROKEN, View, read_view
from datasets.record import Record
from utils.console import say
from utils.download import sha256_of
from utils.errors import UserError
from utils.store import Entry, Store

_CRC_BYTES = 4
_FORMAT = 4  # raise it when the same picture gives other bytes


class Pixels(Protocol):
    """The pictures of a list of records, as a network sees them."""

    def __call__(self, index: int) -> Tensor:
        """RGB bytes of one picture, shape ``(3, H, W)``, uint8, channels last in memory.

        Raises:
            UserError: If the picture cannot be read.
        """


@dataclass(frozen=True)
class DecodedPixels:
    """Decodes a picture each time it is asked for.

    Attributes:
        root: Folder the records' paths are relative to.
        records: The pictures.
        view: From picture to pixels.
    """

    root: Path
    records: Sequence[Record]
    view: View

    def file(self, index: int) -> Path:
        """The file of a picture."""
        return self.root / self.records[index].path

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`."""
        return _read(self.file(index), self.view)


@dataclass(frozen=True)
class ResidentPixels:
    """All pictures in the memory of a device: no loading at all after the start.

    Attributes:
        pixels: Shape ``(N, H, W, 3)``, uint8.
    """

    pixels: Tensor

    @classmethod
    def of(cls, source: Pixels, count: int, device: torch.device) -> "ResidentPixels":
        """Copies the first ``count`` pictures of ``source`` to ``device``."""
        first = source(0).permute(1, 2, 0)
        pixels = torch.empty(count, *first.shape, dtype=torch.uint8, device=device)
        for i in range(count):
            pixels[i] = source(i).permute(1, 2, 0)
        return cls(pixels)

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`."""
        return self.pixels[index].permute(2, 0, 1)


@dataclass(frozen=True)
class UnseenPixels:
    """One black pixel in place of all: the pictures' size, where no network looks at them.

    Attributes:
        size: H and W.
    """

    size: tuple[int, int]

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`, but the pixels share their memory."""
        return torch.zeros((), dtype=torch.uint8).expand(3, *self.size)


class CachedPixels:
    """Reads pictures out of a file of decoded ones.

    It is read by position instead of being mapped into memory: the system's page cache is shared by
    all processes either way, but a process that reads does not count as large as the file.

    Each row of the file is a picture and its CRC-32, which is compared when the row is read for the
    first time. A damaged row is decoded again and written again.

    Args:
        entry: The file.
        decoded: The pictures themselves, for damaged rows.
        digests: SHA-256 of the pictures' files.
        rows: Which row of the file is each picture's.
    """

    def __init__(
        self, entry: Entry, decoded: DecodedPixels, digests: Sequence[str], rows: Sequence[int]
    ) -> None:
        self.entry, self.decoded = entry, decoded
        # Flat: as objects, those of ten million pictures would take gigabytes.
        self.digests = b"".join(map(bytes.fromhex, digests))
        self.rows = np.array(rows, dtype=np.int64)
        self.is_checked = bytearray(len(rows))
        self.is_damaged = False

    def __call__(self, index: int) -> Tensor:
        """As :class:`Pixels`."""
        height, width = self.decoded.view.size
        row = np.empty(_row_bytes(self.decoded.view), dtype=np.uint8)
        try:
            # Opened each time, in microseconds: a handle's position is shared by forked processes.
            with self.entry.file.open("rb", buffering=0) as file:
                file.seek(int(self.rows[index]) * len(row))
                is_whole = file.readinto(row.data) == len(row)
        except OSError:  # another process has removed it
            is_whole = False
        if not is_whole:  # a longer file would have empty rows, which others may have checked
            return self._decoded(index)
        if not self.is_checked[index] and not _is_right(row):
            return self._repaired(index)
        self.is_checked[index] = True
        return torch.from_numpy(row[:-_CRC_BYTES].reshape(height, width, 3)).permute(2, 0, 1)

    def _decoded(self, index: int) -> Tensor:
        """A picture from its own file; the first time, one line is printed."""
        if not self.is_damaged:
            first = self.decoded.file(index)
            say(f"{self.entry.file}: damaged or removed; decoded again where needed, first {first}")
        self.is_damaged = True
        return self.decoded(index)

    def _repaired(self, index: int) -> Tensor:
        """As :meth:`_decoded`; the row is written again, unless the picture is another one now."""
        pixels, path = self._decoded(index), self.decoded.file(index)
        with suppress(OSError):  # it is decoded again the next time, too
            if sha256_of(path) == self.digests[32 * index : 32 * index + 32].hex():
                with self.entry.file.open("r+b") as file:
                    file.seek(int(self.rows[index]) * _row_bytes(self.decoded.view))
                    file.write(_row(pixels))
        return pixels


@dataclass(frozen=True)
class ImageStore:
    """A folder of pictures, and where their decoded pixels are kept.

    Attributes:
        root: Folder the records' paths are relative to.
        store: Keeps decoded pictures; without a folder, a picture is decoded each time it is read.
        lists: Lists that are decoded as a whole, so that a part of one needs no file of its own.
        unseen: Paths of pictures whose pixels no network looks at.
    """

    root: Path
    store: Store
    lists: Sequence[Sequence[Record]] = ()
    unseen: Collection[str] = ()

    def digests(self, records: Sequence[Record]) -> list[str]:
        """The SHA-256 of each picture's file; empty for a file that cannot be read.

        Raises:
            UserError: As :func:`datasets.digests.digests`.
        """
        paths = [record.path for record in records]
        digest_of = digests(self.root, paths, self.store, title="reading images")
        return [digest_of[path] for path in paths]

    def pixels(
        self, records: Sequence[Record], view: View, *, resident: torch.device | None = None
    ) -> Pixels:
        """The pixels of ``records``; with ``resident``, all of them in that device's memory.

        Raises:
            UserError: If a picture cannot be read, or as :meth:`utils.store.Store.open`.
        """
        if all(record.path in self.unseen for record in records):
            return UnseenPixels(view.size)
        decoded = DecodedPixels(self.root, records, view)
        pixels = decoded if self.store.folder is None else self._cached(decoded)
        return pixels if resident is None else ResidentPixels.of(pixels, len(records), resident)

    def whole(self, records: Sequence[Record]) -> Sequence[Record]:
        """The list that all ``records`` are in; they themselves if there is none."""
        paths = {record.path for record in records}
        return next((one for one in self.lists if paths <= {r.path for r in one}), records)

    def _cached(self, decoded: DecodedPixels) -> CachedPixels:
        records, view = decoded.records, decoded.view
        whole = self.whole(records)
        before = self.digests(whole)
        digest_of = dict(zip([r.path for r in whole], before, strict=True))
        path_of = {digest: path for path, digest in digest_of.items()}
        # Sorted by content: neither names nor the order of the list matter.
        row_of = {digest: row for row, digest in enumerate(sorted(path_of))}

        def write(out: BinaryIO) -> None:
            _decode([path_of[digest] for digest in row_of], self.root, view, out)
            if self.digests(whole) != before:
                raise UserError(
                    f"{self.root}: images changed while they were decoded; run it again"
                )

        entry = self.store.open(
            content_parts(list(row_of), view),
            "pixels",
            len(row_of) * _row_bytes(view),
            write,
            f"{len(row_of)} decoded images, {view.size[0]}x{view.size[1]}, {view.resize}, of "
            f"{self.root}",
        )
        mine = [digest_of[record.path] for record in records]
        return CachedPixels(entry, decoded, mine, [row_of[digest] for digest in mine])


def content_parts(digests: Sequence[str], view: View) -> list[str]:
    """What decoded pictures depend on, for :func:`utils.cache_files.hash_of`.

    Args:
        digests: SHA-256 of the pictures' files, in any order that matters.
        view: From picture to pixels.
    """
    how = {name: value for name, value in vars(view).items() if value is not None}
    return [f"{_FORMAT} {how}", *digests]


def _read(path: Path, view: View) -> Tensor:
    try:
        return read_view(path, view)
    except UserError as error:
        raise UserError(f"{error}, {SKIP_BROKEN}") from error


def _decode(paths: Sequence[str], root: Path, view: View, out: BinaryIO) -> None:
    """Writes the rows of ``paths``.

    Raises:
        UserError: If pictures cannot be read.
    """
    rows, turn = {path: row for row, path in enumerate(paths)}, threading.Lock()

    def decode(path: str) -> str:
        try:
            row = _row(_read(root / path, view))
        except UserError as error:
            return str(error)
        with turn:
            out.seek(rows[path] * len(row))
            out.write(row)
        return ""

    errors = {path: error for path, error in in_threads(decode, paths, "decoding") if error}
    if errors:
        more = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
        raise UserError(f"{errors[min(errors)]}{more}")


def _row_bytes(view: View) -> int:
    return view.size[0] * view.size[1] * 3 + _CRC_BYTES


def _row(pixels: Tensor) -> bytes:
    content = pixels.permute(1, 2, 0).numpy().tobytes()
    return content + zlib.crc32(content).to_bytes(_CRC_BYTES, "little")


def _is_right(row: NDArray[np.uint8]) -> bool:
    content, crc = row[:-_CRC_BYTES], row[-_CRC_BYTES:]
    return zlib.crc32(content.data) == int.from_bytes(crc.tobytes(), "little")
