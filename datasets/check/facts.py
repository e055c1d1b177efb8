"""What the files of a data set hold: each content is decoded once and remembered."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.digests import Files, in_threads
from datasets.image import (
    FORMATS,
    Levels,
    kind_of_pixels,
    own_levels,
    read_image,
    upright_size,
)
from datasets.mask import read_mask
from utils.errors import UserError
from utils.store import Store

SIDE = 32  # of a thumbnail, in pixels
_THUMBNAIL = 2 * SIDE**2  # bytes
# A picture is binary if this share of its pixels is this near to one of two gray levels.
_NEARLY_ALL, _SPREAD, _APART = 0.95, 4, 64
_FORMAT = 8  # raise it when the same content gives other facts


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file holds.

    Attributes:
        width: In pixels, of the upright picture.
        height: In pixels, of the upright picture.
        mode: The kind of pixels, see :func:`datasets.image.kind_of_pixels`; empty for a mask.
        sha256: Of the file's bytes.
        thumbnail: The gray picture at ``SIDE x SIDE``, float16, as bytes; empty for a mask.
        marked: Anomalous pixels of a mask.
        regions: Connected regions of them, 8 neighbors counting as connected.
        is_binary: Whether nearly all pixels of a picture are of two gray levels, as a mask's are.
        spread: Of a gray picture of more than 8 bits the numbers below which 0, 1/256, 2/256 ... of
            its pixels lie, float32, as bytes.
        error: Why the file cannot be read; then everything else is empty.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    thumbnail: bytes = b""
    marked: int = 0
    regions: int = 0
    is_binary: bool = False
    spread: bytes = b""
    error: str = ""

    @property
    def size(self) -> str:
        """Width and height, ``1500x1000``."""
        return f"{self.width}x{self.height}"


def image_facts(file: Path) -> Facts:
    """The facts of a picture but its digest; all of it is decoded.

    A JPEG is decoded at a fraction of its size, which takes a third of the time and fails for the
    same files: every byte goes through the decoder either way.
    """
    spread = b""

    def levels(values: NDArray[Any]) -> Levels:
        nonlocal spread
        rows = values[:: max(len(values) // 512, 1)]
        spread = np.quantile(rows, np.linspace(0, 1, 257)).astype(np.float32).tobytes()
        return own_levels(values)

    try:
        small = read_image(file, at_least=4 * SIDE, levels=levels)
        with Image.open(file, formats=FORMATS) as image:
            mode = kind_of_pixels(image)
            is_whole = image.format == "TIFF" and sorted(small.size) == sorted(image.size)
            width, height = small.size if is_whole else upright_size(image)
    except UserError as error:
        return Facts(error=str(error))
    except OSError as error:
        return Facts(
            error=f"{file}: cannot be read ({error.strerror or error}); replace or remove it"
        )
    gray = small.convert("L")
    tiny = gray.convert("F").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    thumbnail = np.asarray(tiny).astype(np.float16).tobytes()
    is_binary = _is_binary(np.array(gray.histogram()))
    return Facts(width, height, mode, thumbnail=thumbnail, is_binary=is_binary, spread=spread)


def range_of(facts: Iterable[Facts]) -> Levels | None:
    """Black and white of the pictures of more than 8 bits: ``None`` if there are none.

    From the lowest to the highest of their pixels, but for the darkest and the brightest hundredth
    of each picture (dead pixels, letters burnt into X-rays), and a quarter of that to each side,
    so that defects that are darker or brighter than anything else can still be told apart.
    """
    spreads = [np.frombuffer(fact.spread, np.float32)[[3, -4]] for fact in facts if fact.spread]
    if not spreads:
        return None
    low, high = float(min(low for low, _ in spreads)), float(max(high for _, high in spreads))
    margin = (high - low) / 4 or 1.0
    return low - margin, high + margin


def _is_binary(counts: NDArray[np.int64]) -> bool:
    """Whether nearly all pixels have one of two gray levels that are far apart, or the same one.

    Args:
        counts: How many pixels have each of the 256 gray levels.
    """
    around = np.convolve(counts, np.ones(2 * _SPREAD + 1), "same")
    first = around.argmax()
    is_far = np.abs(np.arange(256) - first) >= _APART
    return bool(around[first] + around[is_far].max() >= _NEARLY_ALL * counts.sum())


def mask_facts(file: Path) -> Facts:
    """The facts of a mask but its digest."""
    try:
        mask = read_mask(file)
    except UserError as error:
        return Facts(error=str(error))
    from scipy import ndimage  # here: options are checked without it

    marked = int(np.count_nonzero(np.asarray(mask)))
    _, regions = ndimage.label(np.asarray(mask), structure=np.ones((3, 3)))
    return Facts(mask.width, mask.height, marked=marked, regions=regions)


def collect(
    root: Path,
    paths: Sequence[str],
    look: Callable[[Path], Facts],
    *,
    store: Store,
    title: str,
) -> dict[str, Facts]:
    """The facts of each file; one that has been looked at before, anywhere, is not decoded again.

    Args:
        root: Folder the paths are relative to.
        paths: The files.
        look: From file to facts.
        store: Where facts are remembered, by the content of the files. Errors are not.
        title: Of the progress bar.

    Raises:
        UserError: If the store cannot be used.
    """
    kind = f"{look.__name__} {_FORMAT}:"
    files = Files(root, paths, store)
    wanted = {kind + digest for digest in files.digests.values()}
    facts = store.facts.get(wanted)
    todo = [path for path in files.stamps if kind + files.digests.get(path, "") not in facts]
    # Content of files with other names or of other data sets. What is wanted and not there was
    # never looked at, or its row is damaged.
    seen = store.facts.keys(kind) - wanted if todo else set()

    def read(path: str) -> tuple[str, Facts | None]:
        digest = files.read(path)
        return digest, None if kind + digest in seen else look(root / path)

    fresh: dict[str, Facts] = {}
    for path, (digest, looked) in in_threads(read, todo, title):
        rows = {}
        if looked is not None:
            fresh[path] = looked if looked.error else replace(looked, sha256=digest)
            rows = {} if looked.error else {kind + digest: _packed(looked)}
        files.remember(path, digest, rows)
    files.save()
    copies = [path for path in todo if path not in fresh]
    if copies:  # now that their digests are known, their facts are there, or damaged
        fresh |= collect(root, copies, look, store=store, title=title)
    old = {path: digest for path, digest in files.digests.items() if path not in fresh}
    return fresh | {path: _unpacked(facts[kind + digest], digest) for path, digest in old.items()}


def _packed(facts: Facts) -> bytes:
    counts = (facts.width, facts.height, facts.marked, facts.regions, int(facts.is_binary))
    numbers = f"{' '.join(map(str, counts))} {facts.mode}\n"
    return numbers.encode() + facts.thumbnail + facts.spread


def _unpacked(content: bytes, digest: str) -> Facts:
    numbers, _, rest = content.partition(b"\n")
    *counts, mode = numbers.decode().split(" ", maxsplit=5)
    width, height, marked, regions, is_binary = map(int, counts)
    thumbnail, spread = rest[:_THUMBNAIL], rest[_THUMBNAIL:]
    return Facts(width, height, mode, digest, thumbnail, marked, regions, bool(is_binary), spread)
