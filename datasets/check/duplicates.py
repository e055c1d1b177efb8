"""Which pictures are alike: the same bytes, the same picture saved again, or one part."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.check.facts import SIDE, Facts
from datasets.image import own_levels, read_image

# Of docs/check.md, where the figures behind them are.
LIMIT = 0.05  # distance up to which two pictures are the same one
SHARE = 1 / 8  # or this much of an object's usual distance, if that is less
SPOT = 0.4  # and no pixel of the thumbnails may differ by more, in standard deviations
FEW = 8  # pictures of an object that say nothing about a usual distance
DETAIL = 0.95  # correlation of details from which on two pictures that look the same are copies
BLANK = 1.0  # standard deviation in gray levels below which there is nothing to compare

_FINE = 128  # pixels of a side at which details are compared
_LOW = 8  # frequencies of the hash, each way
_BLOCK = 256  # rows compared with all others at once
_PAIRS = 4096  # pairs whose thumbnails are compared at once

Floats = NDArray[np.float32]


class Groups:
    """Names that mean the same group."""

    def __init__(self) -> None:
        self.above: dict[str, str] = {}

    def leader(self, name: str) -> str:
        """The one name that stands for the group of ``name``."""
        while (above := self.above.get(name, name)) != name:
            self.above[name] = self.above.get(above, above)  # a shorter way for the next time
            name = above
        return name

    def join(self, *names: str) -> None:
        """Makes one group of theirs."""
        for name in names[1:]:
            self.above[self.leader(name)] = self.leader(names[0])

    def of_several(self, names: Iterable[str]) -> list[list[str]]:
        """The groups of two or more of ``names``, each in order, sorted."""
        members = defaultdict(list)
        for name in names:
            members[self.leader(name)].append(name)
        return sorted(sorted(group) for group in members.values() if len(group) > 1)


def same_bytes(digests: Mapping[str, str]) -> list[list[str]]:
    """Groups of two or more paths with the same digest, each in order, sorted."""
    groups = defaultdict(list)
    for path, digest in digests.items():
        groups[digest].append(path)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def alike(facts: Mapping[str, Facts], objects: Mapping[str, str]) -> list[list[str]]:
    """Whole groups of two or more paths whose pictures are alike, each in order, sorted.

    Alike are the same bytes and what :func:`same_picture` finds. Files that cannot be read are
    like nothing.

    Args:
        facts: ``{path: facts of the picture}``.
        objects: ``{path: object}``.
    """
    digests = {path: fact.sha256 for path, fact in facts.items() if not fact.error}
    exact = same_bytes(digests)
    again = {path for group in exact for path in group[1:]}
    single = [path for path in digests if path not in again]
    groups = Groups()
    for group in (*exact, *same_picture({path: facts[path].thumbnail for path in single}, objects)):
        groups.join(*group)
    return groups.of_several(digests)


def same_picture(thumbnails: Mapping[str, bytes], objects: Mapping[str, str]) -> list[list[str]]:
    """Groups of two or more paths whose pictures look the same, each in order, sorted.

    Found are copies that were saved anew, made smaller, or slightly changed in brightness or
    contrast, and photographs of one part that lies in the same place; not copies that were cropped
    by more than a little, turned or mirrored.

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
    paths, units, limits = _compared(thumbnails, objects)
    groups = Groups()
    for a, b, _, spot in _near_pairs(units, limits):
        if spot <= SPOT:
            groups.join(paths[a], paths[b])
    return groups.of_several(paths)


def are_copies(one: Path, other: Path) -> bool:
    """Whether pictures that look the same agree in their details, too.

    Details are what is finer than a thumbnail. They agree where a picture was saved again, made
    smaller or brighter. They are elsewhere in a second photograph of a part, which hardly ever lies
    where it lay before to a two-hundredth of the picture, and in a copy that was cropped.

    Args:
        one: A file.
        other: Another one.

    Raises:
        UserError: If one of them cannot be read.
    """
    pictures = [
        read_image(file, at_least=2 * _FINE, levels=own_levels).convert("L")
        for file in (one, other)
    ]
    side = min(_FINE, *pictures[0].size, *pictures[1].size)
    if side < 2 * SIDE:  # they have no details
        return True
    first, second = (_details(picture, side) for picture in pictures)
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    has_none = min(lengths) < BLANK * side
    return bool(has_none or first @ second >= DETAIL * np.prod(lengths))


def _details(gray: Image.Image, side: int) -> Floats:
    picture = gray.convert("F").resize((side, side), Image.Resampling.BILINEAR)
    tiny = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    coarse = tiny.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture).ravel() - np.asarray(coarse).ravel()


def nearest_pair(
    thumbnails: Mapping[str, bytes],
    objects: Mapping[str, str],
    is_compared: Callable[[str, str], bool],
) -> tuple[str, str, float] | None:
    """The two nearest pictures, and their distance.

    Args:
        thumbnails: As for :func:`same_picture`.
        objects: ``{path: object}``.
        is_compared: Whether two paths may be the answer.

    Returns:
        ``None`` if no two are nearer than twice the distance up to which they look the same.
    """
    paths, units, limits = _compared(thumbnails, objects)
    pairs = (
        (distance, paths[a], paths[b])
        for a, b, distance, _ in _near_pairs(units, 2 * limits)
        if is_compared(paths[a], paths[b])
    )
    distance, one, other = min(pairs, default=(0.0, "", ""))
    return (one, other, distance) if one else None


def _compared(
    thumbnails: Mapping[str, bytes], objects: Mapping[str, str]
) -> tuple[list[str], Floats, Floats]:
    """The paths of pictures that are not blank, their thumbnails, and how near is too near.

    Thumbnails have brightness and contrast taken out and length 1: the distance of two is that of
    their pixels in standard deviations, root mean square.
    """
    names = sorted(thumbnails)  # whoever lists them, and in whatever order
    content = b"".join(thumbnails[name] for name in names)
    units = np.frombuffer(content, np.float16).astype(np.float32).reshape(len(names), SIDE**2)
    units -= units.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(units, axis=1)
    kept = np.flatnonzero(lengths >= BLANK * SIDE)
    if len(kept) < len(units):
        units, lengths = units[kept], lengths[kept]
    units /= lengths[:, None]
    paths = [names[i] for i in kept]
    return paths, units, _limits(units, [objects[path] for path in paths])


def _limits(units: Floats, objects: Sequence[str]) -> Floats:
    """How near is too near, for each picture, shape ``(N,)``.

    Where a camera stands still and all parts look alike, no distance tells a copy from another
    part: the limit follows the median distance of pairs drawn from the object.
    """
    limits = np.full(len(units), LIMIT, dtype=np.float32)
    members = defaultdict(list)
    for i, name in enumerate(objects):
        members[name].append(i)
    for rows in members.values():
        if len(rows) < FEW:
            continue
        drawn = np.random.default_rng(0).choice(rows, (1000, 2))  # whatever other objects there are
        left, right = drawn[drawn[:, 0] != drawn[:, 1]].T
        usual = np.median(np.linalg.norm(units[left] - units[right], axis=1))
        limits[rows] = min(LIMIT, SHARE * usual)
    return limits


def _near_pairs(units: Floats, limits: Floats) -> Iterator[tuple[int, int, float, float]]:
    """Pairs of rows within both their limits, their distance, and the most that a pixel differs."""
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
            distance, spot = np.linalg.norm(change, axis=1), np.abs(change).max(axis=1) * SIDE
            found = distance <= np.minimum(limits[a], limits[b])
            columns_found = (part[found].tolist() for part in (a, b, distance, spot))
            yield from zip(*columns_found, strict=True)


def _hashes(units: Floats) -> Floats:
    """The lowest frequencies of each thumbnail, shape ``(N, 64)``: part of an orthonormal basis."""
    place, frequency = np.arange(SIDE), np.arange(_LOW)[:, None]
    waves = np.cos(np.pi * (place + 0.5) * frequency / SIDE) * np.sqrt(2 / SIDE)
    waves[0] /= np.sqrt(2)
    basis = np.einsum("ky,lx->klyx", waves, waves).reshape(_LOW**2, -1).astype(np.float32)
    return units @ basis.T
