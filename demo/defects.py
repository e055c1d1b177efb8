"""The defects, by the label that VisA gives them.

A defect draws itself at a random place into the surface and marks what it covers. Its size and
strength vary from hardly visible to plain, so that no single score threshold finds them all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from demo.products import chip
from demo.surface import (
    Color,
    Map,
    Part,
    Range,
    Surface,
    dismount,
    dome,
    edge,
    footprint,
    mount,
    segment,
    turned,
)
from demo.vocabulary import VOCABULARY

Place = Callable[[Surface, np.random.Generator], tuple[float, float]]


def _pick(surface: Surface, rng: np.random.Generator, allowed: Map) -> tuple[float, float]:
    pixel = rng.choice(np.flatnonzero(allowed))
    return float(surface.x.flat[pixel]), float(surface.y.flat[pixel])


def _within(surface: Surface, rng: np.random.Generator, depth: float = 0.25) -> tuple[float, float]:
    """A point of the product that no defect covers yet, ``depth`` in [0, 1] away from its edge."""
    free = np.where(surface.mask == 0, surface.outline, 0)
    return _pick(surface, rng, free <= depth * free.min())


def _on_edge(surface: Surface, rng: np.random.Generator) -> tuple[float, float]:
    """A point of the outline."""
    return _pick(surface, rng, (np.abs(surface.outline) < surface.pixel) & (surface.mask == 0))


def _at_core(surface: Surface, rng: np.random.Generator) -> tuple[float, float]:
    """A deep point in the middle third of the product."""
    deep = (surface.outline <= 0.5 * surface.outline.min()) & (surface.mask == 0)
    far = np.hypot(surface.x, surface.y)
    return _pick(surface, rng, deep & (far <= np.quantile(far[deep], 0.33)))


def _blob(
    near: Surface, center: tuple[float, float], radius: float, rng: np.random.Generator
) -> Map:
    """About the signed distance to an irregular patch."""
    stretch = math.sqrt(rng.uniform(1.0, 1.8))
    u, v = turned(near.x - center[0], near.y - center[1], rng.uniform(0, math.tau))
    u, v = u / stretch, v * stretch
    ripple = np.sin(u * (2.5 / radius) + rng.uniform(0, math.tau))
    ripple += np.sin(v * (3.5 / radius) + rng.uniform(0, math.tau))
    return np.hypot(u, v) * (1 + 0.12 * ripple) - radius


def _stain(
    surface: Surface,
    rng: np.random.Generator,
    *,
    tints: Sequence[Color],
    radius: Range,
    softness: float,
) -> None:
    """A patch of another color: the product's own times one of ``tints``."""
    center, size = _within(surface, rng), rng.uniform(*radius)
    near = surface.around(*center, 2.2 * size)
    cover = edge(_blob(near, center, size, rng), softness * size + near.pixel) * near.inside()
    near.paint(surface.tone(tints[int(rng.integers(len(tints)))]), cover * rng.uniform(0.5, 1.0))
    near.mark(cover)


def _dig(
    surface: Surface,
    rng: np.random.Generator,
    *,
    count: tuple[int, int],
    radius: Range,
    depth: float,
    tint: Color,
) -> None:
    """Holes near each other, or with a negative ``depth`` crumbs."""
    first = _within(surface, rng)
    close = np.hypot(surface.x - first[0], surface.y - first[1]) < 0.3
    strength = rng.uniform(0.5, 1.0)
    for number in range(int(rng.integers(*count, endpoint=True))):
        center = _pick(surface, rng, close & (surface.outline < 0)) if number else first
        size = rng.uniform(*radius)
        near = surface.around(*center, 2.2 * size)
        distance = _blob(near, center, size, rng)
        cover = edge(distance, 0.3 * size + near.pixel) * near.inside()
        near.paint(surface.tone(tint), strength * cover)
        near.height -= depth * np.clip(0.5 - distance / size, 0, 1)
        near.mark(cover)


def _scratch(
    surface: Surface,
    rng: np.random.Generator,
    *,
    count: tuple[int, int],
    length: Range,
    width: Range,
    bend: float,
    tint: Color,
) -> None:
    """Grooves: straight scratches, or with a large ``bend`` jagged cracks."""
    strength = rng.uniform(0.5, 1.0)
    for _ in range(int(rng.integers(*count, endpoint=True))):
        start, reach = _within(surface, rng), rng.uniform(*length)
        miss = np.abs(np.hypot(surface.x - start[0], surface.y - start[1]) - reach)
        miss[surface.outline > -surface.pixel] = np.inf
        end = _pick(surface, rng, miss <= miss.min() + surface.pixel)
        corners = np.linspace(start, end, 4) + rng.normal(0, bend * reach, (4, 2))
        middle_x, middle_y = corners.mean(0).tolist()
        near = surface.around(middle_x, middle_y, reach * (0.6 + 3 * bend))
        ways = zip(corners[:-1].tolist(), corners[1:].tolist(), strict=True)
        distance = np.min([segment(near.x, near.y, a, b) for a, b in ways], axis=0)
        cover = edge(distance - rng.uniform(*width), near.pixel) * near.inside()
        near.paint(surface.tone(tint), strength * cover)
        near.height -= 0.02 * cover
        near.mark(cover)


def _cut(surface: Surface, rng: np.random.Generator, *, place: Place, radius: Range) -> None:
    """A piece broken off, or out of the middle."""
    center, size = place(surface, rng), rng.uniform(*radius)
    near = surface.around(*center, 2.2 * size)
    distance = _blob(near, center, size, rng)
    near.mark(edge(distance, near.pixel) * near.inside())
    np.maximum(near.outline, -distance, out=near.outline)
    face = np.clip(1.3 - distance / 0.08, 0, 1)
    near.paint(surface.tone((0.55, 0.42, 0.32)), rng.uniform(0.5, 1.0) * face)
    near.height *= np.clip(distance / 0.05, 0, 1)


def _grow(
    surface: Surface, rng: np.random.Generator, *, place: Place, radius: Range, tint: Color
) -> None:
    """A drop of the product's own stuff, on it or over its edge."""
    center, size = place(surface, rng), rng.uniform(*radius)
    near = surface.around(*center, 2.2 * size)
    distance = _blob(near, center, size, rng)
    cover = edge(distance, near.pixel)
    near.paint(surface.tone(tint), cover)
    np.minimum(near.outline, distance, out=near.outline)
    near.height += dome(distance, 0.7 * size)
    near.mark(cover)


def _stick(surface: Surface, rng: np.random.Generator, *, radius: Range) -> None:
    """A fragment of a second product looks out from under the first one.

    The second one is the first, turned half round and moved: it has the same shape and colors.
    """
    rows, columns = np.nonzero(surface.outline < 0)
    # To the left or the right: above and below, the frame leaves no room.
    outermost = int((columns.argmin, columns.argmax)[int(rng.integers(2))]())
    row, column = int(rows[outermost]), int(columns[outermost])
    middle = (int(columns.min()) + int(columns.max())) // 2
    # A point p goes to 2 * touch - p, and 40 % of the way back towards the first one's middle.
    height, width = surface.outline.shape
    inward = int(0.4 * (middle - column))
    move = (2 * row + 1 - height, 2 * column + 1 - width + inward)

    def second(values: Map) -> Map:
        return np.roll(values[..., ::-1, ::-1], move, axis=(-2, -1))

    touch = float(surface.x[row, column]), float(surface.y[row, column])
    broken = np.maximum(second(surface.outline), _blob(surface, touch, rng.uniform(*radius), rng))
    free = 1 - surface.inside()
    fragment = edge(broken, surface.pixel) * free
    surface.mark(fragment)
    surface.color += (second(surface.color) - surface.color) * free
    surface.height += second(surface.height) * fragment
    np.minimum(surface.outline, broken, out=surface.outline)


def _loose(surface: Surface, rng: np.random.Generator) -> list[Part]:
    """One to three neighboring parts; the large ones, which make the board, stay."""
    small = [part for part in surface.parts if part.reach < 0.3]
    first = small[int(rng.integers(len(small)))]
    small.sort(key=lambda part: math.dist((part.x, part.y), (first.x, first.y)))
    return small[: int(rng.integers(1, 4))]


def _lose(surface: Surface, rng: np.random.Generator) -> None:
    """Parts are missing."""
    for part in _loose(surface, rng):
        dismount(surface, part)


def _bend(
    surface: Surface, rng: np.random.Generator, *, turn: Range, move: Range, stretch: Range
) -> None:
    """Parts are turned, moved or drawn out."""
    for part in _loose(surface, rng):
        dismount(surface, part)
        side, way, distance = rng.choice((-1, 1)), rng.uniform(0, math.tau), rng.uniform(*move)
        bent = replace(
            part,
            x=part.x + distance * math.cos(way),
            y=part.y + distance * math.sin(way),
            half_x=part.half_x * rng.uniform(*stretch),
            turn=part.turn + float(side) * rng.uniform(*turn),
        )
        mount(surface, bent)
        near = surface.around(bent.x, bent.y, bent.reach)
        near.mark(edge(footprint(near, bent)[0], near.pixel))


def _add(surface: Surface, rng: np.random.Generator) -> None:
    """One part more than there should be."""
    x, y = _within(surface, rng)
    part = replace(chip(x, y, 0.1, 0.06), turn=rng.uniform(0, math.tau))
    mount(surface, part)
    near = surface.around(x, y, part.reach)
    near.mark(edge(footprint(near, part)[0], near.pixel))


Defect = Callable[[Surface, np.random.Generator], None]

_DARK: Sequence[Color] = ((0.3, 0.22, 0.18), (0.42, 0.28, 0.2))
_FOREIGN: Sequence[Color] = ((0.26, 0.17, 0.12), (0.8, 0.24, 0.2))
_AMBER: Color = (1.0, 0.78, 0.45)
_MOLTEN: Sequence[Color] = ((3.0, 0.5, 0.17), (2.0, 0.35, 0.15))
_ALIKE: Sequence[Color] = ((0.62, 0.55, 0.48), (0.8, 0.58, 0.42))

_burn: Defect = partial(_stain, tints=_DARK, radius=(0.1, 0.27), softness=0.8)
_foreign_spot: Defect = partial(_stain, tints=_FOREIGN, radius=(0.07, 0.17), softness=0.3)
_alike_spot: Defect = partial(_stain, tints=_ALIKE, radius=(0.1, 0.23), softness=0.5)
_edge_cut: Defect = partial(_cut, place=_on_edge, radius=(0.1, 0.26))
_middle_cut: Defect = partial(_cut, place=_at_core, radius=(0.11, 0.24))
_scratches: Defect = partial(
    _scratch,
    count=(1, 4),
    length=(0.25, 0.65),
    width=(0.008, 0.022),
    bend=0.02,
    tint=(0.4, 0.28, 0.2),
)
_cracks: Defect = partial(
    _scratch,
    count=(1, 3),
    length=(0.25, 0.65),
    width=(0.008, 0.022),
    bend=0.1,
    tint=(0.3, 0.26, 0.23),
)
_crumbs: Defect = partial(
    _dig, count=(4, 10), radius=(0.02, 0.05), depth=-0.03, tint=(0.25, 0.2, 0.16)
)
_holes: Defect = partial(
    _dig, count=(1, 5), radius=(0.03, 0.065), depth=0.06, tint=(0.3, 0.24, 0.2)
)
_gouge: Defect = partial(
    _dig, count=(1, 1), radius=(0.12, 0.25), depth=0.07, tint=(0.55, 0.42, 0.3)
)
_fragment: Defect = partial(_stick, radius=(0.3, 0.6))

DEFECTS: dict[str, Defect] = {
    "bent": partial(_bend, turn=(0.4, 1.3), move=(0.06, 0.16), stretch=(1.0, 1.0)),
    "breakage down the middle": _middle_cut,
    "bubble": partial(
        _dig, count=(1, 3), radius=(0.03, 0.07), depth=-0.03, tint=(1.35, 1.35, 1.35)
    ),
    "burnt": _burn,
    "chip around edge and corner": partial(_cut, place=_on_edge, radius=(0.1, 0.18)),
    "chunk of gum missing": partial(_cut, place=_on_edge, radius=(0.16, 0.32)),
    "chunk of wax missing": _gouge,
    "color spot similar to the object": _alike_spot,
    "corner and edge breakage": _edge_cut,
    "corner missing": _edge_cut,
    "corner or edge breakage": _edge_cut,
    "damage": _edge_cut,
    "damaged corner of packaging": partial(_cut, place=_on_edge, radius=(0.11, 0.24)),
    "different color spot": _foreign_spot,
    "different colour spot": _foreign_spot,
    "dirt": _crumbs,
    "discolor": partial(_stain, tints=_FOREIGN, radius=(0.08, 0.16), softness=0.7),
    "extra": _add,
    "extra wax in candle": partial(_grow, place=_within, radius=(0.08, 0.2), tint=_AMBER),
    "foreign particals on candle": _crumbs,
    "fryum stuck together": _fragment,
    "leak": partial(_grow, place=_on_edge, radius=(0.1, 0.18), tint=(0.8, 0.6, 0.4)),
    "melt": partial(_stain, tints=_MOLTEN, radius=(0.09, 0.22), softness=0.6),
    "middle breakage": _middle_cut,
    "misshape": partial(_grow, place=_on_edge, radius=(0.1, 0.18), tint=(1, 1, 1)),
    "missing": _lose,
    "same colour spot": _alike_spot,
    "scratch": partial(
        _scratch,
        count=(1, 4),
        length=(0.4, 0.8),
        width=(0.01, 0.024),
        bend=0.02,
        tint=(8, 1.5, 0.5),
    ),
    "scratches": _scratches,
    "similar colour spot": _alike_spot,
    "small chip around edge": partial(_cut, place=_on_edge, radius=(0.08, 0.15)),
    "small cracks": _cracks,
    "small holes": _holes,
    "small scratches": _scratches,
    "stuck together": _fragment,
    "wax melded out of the candle": partial(
        _grow, place=_on_edge, radius=(0.09, 0.22), tint=_AMBER
    ),
    "weird candle wick": partial(_bend, turn=(0.4, 1.4), move=(0.02, 0.1), stretch=(1.6, 2.8)),
    "wrong place": partial(_bend, turn=(0.0, 0.3), move=(0.12, 0.25), stretch=(1.0, 1.0)),
}


def defects_of(object_name: str) -> tuple[str, ...]:
    """The labels of an object that can be drawn: all of VisA's but ``other``."""
    return tuple(label for label in VOCABULARY[object_name] if label in DEFECTS)
