"""Which pictures are there twice: the same bytes, or the same picture saved anew."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.check.facts import SIDE
from datasets.copies import Groups

# Of docs/check.md, where the figures behind them are.
LIMIT = 0.05  # distance up to which two pictures are the same one
SHARE = 1 / 8  # or this much of an object's usual distance, if that is less
SPOT = 0.4  # and no pixel of the thumbnails may differ by more, in standard deviations
FEW = 8  # pictures of an object that say nothing about a usual distance
BLANK = 1.0  # standard deviation in gray levels below which there is nothing to compare

_LOW = 8  # frequencies of the hash, each way
_BLOCK = 256  # rows compared with all others at once
_PAIRS = 4096  # pairs whose thumbnails are compared at once

Floats = NDArray[np.float32]


def same_picture(thumbnails: Mapping[str, bytes], objects: Mapping[str, str]) -> list[list[str]]:
    """Groups of two or more paths that show the same picture, each in order, sorted.

    Found are copies that were saved anew, made smaller, or slightly changed in brightness or
    contrast; not those that were cropped, turned or mirrored.

    Source:
        The 8 x 8 lowest frequencies of a 32 x 32 gray thumbnail, as in pHash (Zauner 2010,
        "Implementation and Benchmarking of Perceptual Image Hash Functions").

    Departure:
        pHash keeps the signs alone. Pictures of one product have most signs in common, so nothing
        would be sorted out; here the numbers are kept. Their distance is never more than that of
        the thumbnails, so comparing them first loses no pair.

    Args:
        thumbnails: ``{path: 32 x 32 float16 gray levels as bytes}``.
        objects: ``{path: object}``.
    """
    if not thumbnails:
        return []
    units = np.frombuffer(b"".join(thumbnails.values()), np.float16).astype(np.float32)
    units = units.reshape(len(thumbnails), SIDE**2)
    # Brightness and contrast taken out, length 1: the distance of two is that of their pixels in
    # standard deviations, root mean square.
    units -= units.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(units, axis=1)
    kept = np.flatnonzero(lengths >= BLANK * SIDE)
    if len(kept) < len(units):
        units, lengths = units[kept], lengths[kept]
    units /= lengths[:, None]
    names = list(thumbnails)
    paths = [names[i] for i in kept]
    limits = _limits(units, [objects[path] for path in paths])
    return _groups(paths, _near_pairs(units, limits))


def _limits(units: Floats, objects: Sequence[str]) -> Floats:
    """How near is too near, for each picture, shape ``(N,)``.

    Where a camera stands still and all parts look alike, no distance tells a copy from another
    part: the limit follows the median distance of pairs drawn from the object.
    """
    limits = np.full(len(units), LIMIT, dtype=np.float32)
    members = defaultdict(list)
    for i, name in enumerate(objects):
        members[name].append(i)
    random = np.random.default_rng(0)
    for rows in members.values():
        if len(rows) < FEW:
            continue
        drawn = random.choice(rows, (1000, 2))
        left, right = drawn[drawn[:, 0] != drawn[:, 1]].T
        usual = np.median(np.linalg.norm(units[left] - units[right], axis=1))
        limits[rows] = min(LIMIT, SHARE * usual)
    return limits


def _near_pairs(units: Floats, limits: Floats) -> Iterable[tuple[int, int]]:
    """Pairs of rows within both their limits; a matrix product at a time."""
    hashes = _hashes(units)
    squares = (hashes**2).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    # Their product is the negative squared distance: 2 a b - a a - b b.
    left, right = np.hstack([2 * hashes, -squares, -ones]), np.hstack([hashes, ones, squares])
    # Squares of small distances are differences of larger numbers: room for their rounding.
    reach = np.float32(limits.max(initial=0) ** 2 + 1e-5)
    for start in range(0, len(units), _BLOCK):
        width = len(units) - start
        near = np.flatnonzero(left[start : start + _BLOCK] @ right[start:].T >= -reach)
        rows, columns = near // width + start, near % width + start
        rows, columns = rows[rows < columns], columns[rows < columns]
        for i in range(0, len(rows), _PAIRS):
            a, b = rows[i : i + _PAIRS], columns[i : i + _PAIRS]
            change = units[a] - units[b]
            is_near = np.linalg.norm(change, axis=1) <= np.minimum(limits[a], limits[b])
            is_near &= np.abs(change).max(axis=1) * SIDE <= SPOT
            yield from zip(a[is_near].tolist(), b[is_near].tolist(), strict=True)


def _hashes(units: Floats) -> Floats:
    """The lowest frequencies of each thumbnail, shape ``(N, 64)``: part of an orthonormal basis."""
    place, frequency = np.arange(SIDE), np.arange(_LOW)[:, None]
    waves = np.cos(np.pi * (place + 0.5) * frequency / SIDE) * np.sqrt(2 / SIDE)
    waves[0] /= np.sqrt(2)
    basis = np.einsum("ky,lx->klyx", waves, waves).reshape(_LOW**2, -1).astype(np.float32)
    return units @ basis.T


def _groups(paths: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[list[str]]:
    """Everything that hangs together by pairs."""
    groups, members = Groups(), defaultdict(list)
    for a, b in pairs:
        groups.join(paths[a], paths[b])
    for path in paths:
        members[groups.leader(path)].append(path)
    return sorted(sorted(group) for group in members.values() if len(group) > 1)
