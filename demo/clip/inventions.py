"""Products that VisA does not have, each one drawn by chance: what a small CLIP learns from.

Whoever has seen eight objects only takes a ninth for a fault. A third of the inventions are known
objects in other colours, the rest are shapes and circuit boards of no object at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from demo.defects import defects_of
from demo.products import OBJECTS, Draw, Product, chip
from demo.surface import (
    Colour,
    Map,
    Surface,
    arc,
    box,
    dome,
    edge,
    mount,
    rgb,
    segment,
    tiled,
)

_BOARDS = ("pcb1", "pcb2", "pcb3", "pcb4")
_GRIDS = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 2), (3, 2))
_ONE_PIECE = ("candle", "cashew", "chewinggum", "fryum", "pipe_fryum")


@dataclass(frozen=True)
class Invention:
    """A product, and what can go wrong with it.

    Attributes:
        product: What it looks like.
        defects: Labels out of ``DEFECTS`` that can be drawn on it.
    """

    product: Product
    defects: Sequence[str]


def invent(rng: np.random.Generator, objects: Sequence[str]) -> Invention:
    """A new product.

    Args:
        rng: Where all chance comes from; the same state gives the same product.
        objects: Keys of ``OBJECTS`` whose drawings and defects may be borrowed, at least one with
            parts and one without; of all others neither appears.
    """
    boards = [name for name in objects if name in _BOARDS]
    plain = [name for name in objects if name not in _BOARDS]
    kind = rng.choice(3, p=(0.35, 0.45, 0.2))
    if kind == 0:
        name = str(rng.choice(objects))
        draw: Draw = partial(_recoloured, draw=OBJECTS[name].draw)
        labels = _labels([name] if name in boards else plain)
        is_single = name in _ONE_PIECE
    elif kind == 1:
        grid = _GRIDS[int(rng.integers(len(_GRIDS)))]
        draw, labels, is_single = partial(_shape, grid=grid), _labels(plain), grid == (1, 1)
    else:
        draw, labels, is_single = _board, _labels(boards), False
    product = Product(
        draw,
        backdrop=_colour(rng, 0.15, 0.7),
        turn=float(rng.choice((0.1, 0.35, math.pi))),
        gloss=float(rng.uniform(0.1, 0.6)),
        rough=float(rng.uniform(0.0002, 0.002)),
    )
    return Invention(product, [name for name in labels if is_single or "stuck" not in name])


def _labels(objects: Sequence[str]) -> list[str]:
    return sorted({label for name in objects for label in defects_of(name)})


def _colour(rng: np.random.Generator, low: float, high: float) -> Colour:
    """A colour of moderate saturation, its brightness between ``low`` and ``high``."""
    level, spread = rng.uniform(low, high), rng.uniform(0, 0.35)
    red, green, blue = np.clip(level * (1 + spread * rng.standard_normal(3)), 0.03, 0.97).tolist()
    return red, green, blue


def _recoloured(x: Map, y: Map, rng: np.random.Generator, *, draw: Draw) -> Surface:
    """A known product in other colours."""
    surface = draw(x, y, rng)
    order, gain = rng.permutation(3), rng.uniform(0.7, 1.35, 3)

    def other(colour: Colour) -> Colour:
        red, green, blue = np.minimum(np.array(colour)[order] * gain, 0.97).tolist()
        return red, green, blue

    surface.colour[:] = np.minimum(surface.colour[order] * rgb(gain.tolist()), 0.97)
    surface.ground = other(surface.ground)
    surface.parts[:] = [
        replace(part, colour=other(part.colour), ends=other(part.ends), pads=other(part.pads))
        for part in surface.parts
    ]
    return surface


def _lobed(u: Map, v: Map, rng: np.random.Generator) -> Map:
    """A disc or an oval, smooth or with lobes."""
    stretch, lobes = rng.uniform(1, 1.4), int(rng.integers(2, 8))
    u = u / stretch
    ripple = np.cos(lobes * np.arctan2(v, u) + rng.uniform(0, math.tau))
    return np.hypot(u, v) - rng.uniform(0.6, 0.85) * (1 + rng.uniform(0, 0.12) * ripple)


def _slab(u: Map, v: Map, rng: np.random.Generator) -> Map:
    half_x, half_y = rng.uniform(0.6, 1.15), rng.uniform(0.35, 0.75)
    return box(u, v, half_x, half_y, rng.uniform(0.03, 0.3))


def _bar(u: Map, v: Map, rng: np.random.Generator) -> Map:
    half = rng.uniform(0.3, 0.8)
    return segment(u, v, (-half, 0.0), (half, 0.0)) - rng.uniform(0.2, 0.4)


def _hook(u: Map, v: Map, rng: np.random.Generator) -> Map:
    radius = rng.uniform(0.4, 0.65)
    return arc(u, v + 0.3, radius, rng.uniform(0.7, 2.4)) - rng.uniform(0.15, 0.28)


def _perforated(u: Map, v: Map, rng: np.random.Generator) -> Map:
    """A slab with a row of round holes."""
    outline, pitch = _slab(u, v, rng), rng.uniform(0.35, 0.6)
    return np.maximum(outline, 0.09 - np.hypot(u - np.rint(u / pitch) * pitch, v))


_OUTLINES = (_lobed, _slab, _bar, _hook, _perforated)


def _shape(x: Map, y: Map, rng: np.random.Generator, *, grid: tuple[int, int]) -> Surface:
    """One piece, or several of the same make."""
    columns, rows = grid
    size = min(1.0, 1.15 / columns, 0.95 / rows)
    pitch = (2.3 / columns, 1.8 / rows)
    u, v, piece, centres = tiled(x, y, rng, grid=grid, pitch=pitch, wander=0.04 * size)
    turns = rng.uniform(-1, 1, len(centres)) * (len(centres) > 1)
    cos, sin = (f(turns).astype(np.float32)[piece] / size for f in (np.cos, np.sin))
    u, v = u * cos + v * sin, v * cos - u * sin
    outline = _OUTLINES[int(rng.integers(len(_OUTLINES)))](u, v, rng) * size
    relief = dome(outline, rng.uniform(0.06, 0.3) * size)
    if rng.random() < 0.3:
        relief = relief + rng.uniform(0.003, 0.008) * np.cos(u * rng.uniform(20, 60))
    surface = Surface.bare(x, y, outline, relief * (outline < 0), _colour(rng, 0.35, 0.9))
    second = _colour(rng, 0.2, 0.9)
    decoration = rng.random()
    if decoration < 0.15:
        surface.paint(second, edge(u, 0.03))
    elif decoration < 0.3:
        surface.paint(second, edge(-outline - rng.uniform(0.03, 0.1) * size, 0.03))
    elif decoration < 0.4:
        surface.paint(second, edge(np.cos(u * rng.uniform(6, 15)) - 0.3, 0.3))
    return surface


def _board(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A circuit board with parts in any order."""
    outline = box(x, y, rng.uniform(1.05, 1.22), rng.uniform(0.6, 0.75), 0.05)
    surface = Surface.bare(x, y, outline, dome(outline, 0.03), _colour(rng, 0.15, 0.45))
    for _ in range(int(rng.integers(4, 14))):
        start, corner = rng.uniform((-1, -0.6), (1, 0.6)), rng.uniform((-1, -0.6), (1, 0.6))
        near = edge(segment(x, y, tuple(start), (corner[0], start[1])) - 0.014, surface.pixel)
        near += edge(segment(x, y, (corner[0], start[1]), tuple(corner)) - 0.014, surface.pixel)
        surface.tint((1.35, 1.3, 1.3), np.minimum(near, 1))
    palette = [_colour(rng, low, low + 0.25) for low in (0.1, 0.3, 0.5, 0.7)]
    pads, solder = (0.8, 0.5, 0.22), _colour(rng, 0.6, 0.8)
    columns, rows = int(rng.integers(4, 8)), int(rng.integers(2, 5))
    cell_x, cell_y = 2.0 / columns, 1.1 / rows
    small = rng.permutation(columns * rows)[: max(4, int(0.7 * columns * rows))]
    for i in small.tolist():
        place_x = (i % columns - (columns - 1) / 2) * cell_x
        place_y = (i // columns - (rows - 1) / 2) * cell_y
        half_x, half_y = rng.uniform(0.2, 0.42) * cell_x, rng.uniform(0.18, 0.4) * cell_y
        part = chip(place_x, place_y, half_x, half_y, palette[int(rng.integers(4))])
        if rng.random() < 0.25:
            radius = min(half_x, half_y) * 1.1
            part = replace(part, half_x=radius, half_y=radius, is_round=True, tall=0.15)
        mount(surface, replace(part, ends=solder, pads=pads, turn=float(rng.normal(0, 0.02))))
    return surface
