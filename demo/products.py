"""The twelve objects of VisA as drawings: a flawless surface at any pose."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from demo.surface import (
    Color,
    Map,
    Part,
    Range,
    Surface,
    arc,
    box,
    dome,
    edge,
    mount,
    segment,
    tiled,
)


def _candle(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A tea light in its cup, seen from above."""
    outline = np.hypot(x, y) - rng.uniform(0.8, 0.85)
    wax = (0.84, 0.78, 0.64)
    surface = Surface.bare(x, y, outline, dome(outline, 0.12), wax)
    surface.paint((0.6, 0.61, 0.63), edge(-outline - 0.07, 0.03))
    surface.tint((0.94, 0.93, 0.9), edge(outline + 0.4, 0.3))
    wick = Part(0.0, 0.0, 0.12, 0.035, 0.1, (0.42, 0.45, 0.52), (0.36, 0.4, 0.48), wax)
    mount(surface, replace(wick, turn=rng.uniform(-0.4, 0.4)))
    return surface


def _capsules(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A dozen two-colored capsules."""
    u, v, piece, centers = tiled(x, y, rng, grid=(4, 3), pitch=(0.66, 0.62), wander=0.04)
    turns = rng.uniform(-math.pi, math.pi, len(centers)).astype(np.float32)
    cos, sin = np.cos(turns)[piece], np.sin(turns)[piece]
    along, across = u * cos + v * sin, v * cos - u * sin
    outline = segment(along, across, (-0.13, 0.0), (0.13, 0.0)) - 0.12
    ground = (0.42, 0.5, 0.2)
    surface = Surface.bare(x, y, outline, dome(outline, 0.12), ground)
    surface.paint((0.62, 0.44, 0.2), edge(along, 0.02))
    return surface


def _cashew(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One kidney-shaped nut."""
    taper = rng.uniform(0.02, 0.12)
    outline = arc(x, y + 0.38, 0.56, rng.uniform(1.1, 1.3)) - (0.31 - taper * x)
    ground = (0.82, 0.68, 0.47)
    return Surface.bare(x, y, outline, dome(outline, 0.3), ground)


def _chewinggum(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One rounded pillow."""
    outline = box(x, y, rng.uniform(0.9, 1.0), rng.uniform(0.56, 0.64), 0.34)
    ground = (0.8, 0.83, 0.8)
    return Surface.bare(x, y, outline, dome(outline, 0.34), ground)


def _fryum(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A wheel with seven spokes."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    to_spoke = angle - np.rint(angle * (7 / math.tau)) * (math.tau / 7)
    bumpy = radius * (1 + 0.02 * np.sin(3 * angle + rng.uniform(0, math.tau)))
    spokes = np.maximum(radius * np.abs(np.sin(to_spoke)) - rng.uniform(0.075, 0.095), bumpy - 0.7)
    wheel = np.minimum(np.abs(bumpy - 0.7) - 0.13, radius - 0.23)
    outline = np.maximum(np.minimum(wheel, spokes), 0.07 - radius)
    ground = (0.87, 0.66, 0.47)
    return Surface.bare(x, y, outline, dome(outline, 0.08), ground)


def _macaroni(
    x: Map, y: Map, rng: np.random.Generator, *, ground: Color, turn: float, wander: float
) -> Surface:
    """Four ribbed bent tubes, laid out neatly or scattered."""
    u, v, piece, centers = tiled(x, y, rng, grid=(2, 2), pitch=(1.2, 0.94), wander=wander)
    turns = rng.uniform(-turn, turn, len(centers)).astype(np.float32)
    cos, sin = np.cos(turns)[piece], np.sin(turns)[piece]
    outline = arc(u * cos + v * sin, v * cos - u * sin + 0.2, 0.29, 1.2) - 0.135
    relief = dome(outline, 0.13) + 0.006 * np.cos(outline * 110)
    return Surface.bare(x, y, outline, relief * (outline < 0), ground)


def _pipe(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One ribbed straight tube, its mouth to the right."""
    half_x, half_y = rng.uniform(0.88, 1.0), rng.uniform(0.36, 0.42)
    outline = box(x, y, half_x, half_y, 0.1)
    relief = dome(np.maximum(np.abs(y) - half_y, outline), half_y) + 0.008 * np.cos(y * 55)
    ground = (0.85, 0.6, 0.36)
    surface = Surface.bare(x, y, outline, relief * (outline < 0), ground)
    mouth = np.hypot((x - half_x + 0.12) / 0.09, y / (0.72 * half_y)) - 1
    surface.tint((0.45, 0.38, 0.34), edge(mouth, 0.3))
    return surface


_GRAY, _BLACK, _SOLDER = (0.55, 0.57, 0.6), (0.24, 0.26, 0.3), (0.72, 0.72, 0.68)
_BLUE, _WHITE, _COPPER = (0.3, 0.42, 0.62), (0.85, 0.86, 0.84), (0.8, 0.5, 0.22)


def chip(x: float, y: float, half_x: float, half_y: float, color: Color = _BLACK) -> Part:
    """A flat box with soldered ends."""
    return Part(x, y, half_x, half_y, 0.07, color, _SOLDER, _COPPER)


def _can(x: float, y: float, radius: float, tall: float = 0.15, color: Color = _BLACK) -> Part:
    return Part(x, y, radius, radius, tall, color, _GRAY, _COPPER, is_round=True)


# What each board carries. The same on every picture, as on a real production line.
BOARDS = {
    "pcb1": (
        *(_can(x, 0.1, 0.44, 0.2) for x in (-0.7, 0.7)),
        Part(0.0, 0.5, 0.2, 0.1, 0.12, _GRAY, _GRAY, _COPPER),
        *(chip(0.0, y, 0.1, 0.06, _BLUE) for y in (0.26, -0.34)),
        chip(0.0, -0.04, 0.16, 0.14),
        *(chip(x, -0.58, 0.045, 0.08, _SOLDER) for x in (-0.3, -0.1, 0.1, 0.3)),
    ),
    "pcb2": (
        chip(-0.1, 0.0, 0.34, 0.26),
        *(chip(x, 0.5, 0.08, 0.045, _BLUE) for x in (-0.8, -0.5, -0.2, 0.1)),
        *(chip(0.55, y, 0.1, 0.06) for y in (-0.4, -0.15, 0.1, 0.35)),
        *(_can(-0.85, y, 0.13) for y in (-0.35, 0.05)),
        *(chip(0.95, y, 0.07, 0.035, _SOLDER) for y in (-0.36, -0.12, 0.12, 0.36)),
    ),
    "pcb3": (
        *(_can(0.95, y, 0.19, 0.2, c) for y, c in ((-0.3, _BLACK), (0.3, _WHITE))),
        Part(-0.3, 0.2, 0.2, 0.2, 0.15, _BLUE, _BLUE, _COPPER),
        chip(0.25, -0.05, 0.17, 0.22),
        *(chip(x, -0.48, 0.08, 0.045, _BLUE) for x in (-0.55, -0.25, 0.05, 0.35)),
        *(chip(-1.0, y, 0.08, 0.035, _SOLDER) for y in (-0.28, 0.0, 0.28)),
    ),
    "pcb4": (
        Part(-0.92, 0.0, 0.24, 0.3, 0.18, _GRAY, _WHITE, _COPPER),
        chip(0.05, 0.05, 0.22, 0.16),
        *(chip(x, 0.46, 0.08, 0.05, _WHITE) for x in (-0.3, 0.0, 0.3)),
        *(chip(x, -0.45, 0.09, 0.05, _BLUE) for x in (-0.4, -0.05, 0.3, 0.65)),
        *(chip(1.02, y, 0.09, 0.09, _SOLDER) for y in (-0.42, 0.42)),
        _can(0.68, 0.12, 0.14),
    ),
}


@cache
def _traces(name: str) -> tuple[tuple[Range, Range], ...]:
    """Start and end of every copper track of a board: always the same ones for one board."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tracks: list[tuple[Range, Range]] = []
    for x, y, far_x, far_y in rng.uniform((-1.05,) * 4, (1.05,) * 4, (9, 4)).tolist():
        corner = (far_x, 0.6 * y)
        tracks += [((x, 0.6 * y), corner), (corner, (far_x, 0.6 * far_y))]
    return tuple(tracks)


def _board(x: Map, y: Map, rng: np.random.Generator, *, name: str, ground: Color) -> Surface:
    """A circuit board with holes, tracks and parts."""
    outline = box(x, y, 1.22, 0.72, 0.05)
    outline = np.maximum(outline, 0.06 - np.hypot(np.abs(x) - 1.11, np.abs(y) - 0.61))
    surface = Surface.bare(x, y, outline, dome(outline, 0.03), ground)
    for start, end in _traces(name):
        reach = math.dist(start, end) / 2 + 0.03
        near = surface.around((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, reach)
        near.tint((1.35, 1.3, 1.3), edge(segment(near.x, near.y, start, end) - 0.014, near.pixel))
    for part in BOARDS[name]:
        mount(surface, replace(part, turn=rng.normal(0, 0.02)))
    return surface


Draw = Callable[[Map, Map, np.random.Generator], Surface]


@dataclass(frozen=True)
class Product:
    """What one object looks like.

    Attributes:
        draw: Flawless surface, from the two object coordinates of every pixel and a generator.
        backdrop: RGB of the table it lies on.
        turn: Largest rotation to either side, radians.
        gloss: Strength of the highlights.
        rough: Depth of the grain of its surface.
    """

    draw: Draw
    backdrop: Color
    turn: float
    gloss: float
    rough: float


_MAT, _SLATE = (0.16, 0.45, 0.34), (0.2, 0.21, 0.24)
_PAPER, _CLOTH = (0.66, 0.67, 0.68), (0.3, 0.36, 0.47)

_macaroni1: Draw = partial(_macaroni, ground=(0.86, 0.5, 0.22), turn=0.3, wander=0.03)
_macaroni2: Draw = partial(_macaroni, ground=(0.85, 0.72, 0.36), turn=math.pi, wander=0.08)
_pcb1: Draw = partial(_board, name="pcb1", ground=(0.1, 0.33, 0.42))
_pcb2: Draw = partial(_board, name="pcb2", ground=(0.12, 0.38, 0.2))
_pcb3: Draw = partial(_board, name="pcb3", ground=(0.1, 0.28, 0.5))
_pcb4: Draw = partial(_board, name="pcb4", ground=(0.13, 0.3, 0.58))

OBJECTS: dict[str, Product] = {
    "candle": Product(_candle, _CLOTH, turn=0.12, gloss=0.25, rough=0.0015),
    "capsules": Product(_capsules, _PAPER, turn=0.2, gloss=0.6, rough=0.0004),
    "cashew": Product(_cashew, _MAT, turn=0.35, gloss=0.15, rough=0.002),
    "chewinggum": Product(_chewinggum, _MAT, turn=0.3, gloss=0.3, rough=0.0012),
    "fryum": Product(_fryum, _MAT, turn=math.pi, gloss=0.2, rough=0.0015),
    "macaroni1": Product(_macaroni1, _SLATE, turn=0.12, gloss=0.2, rough=0.0012),
    "macaroni2": Product(_macaroni2, _SLATE, turn=0.3, gloss=0.2, rough=0.0012),
    "pcb1": Product(_pcb1, _PAPER, turn=0.05, gloss=0.15, rough=0.0004),
    "pcb2": Product(_pcb2, _PAPER, turn=0.05, gloss=0.15, rough=0.0004),
    "pcb3": Product(_pcb3, _PAPER, turn=0.05, gloss=0.15, rough=0.0004),
    "pcb4": Product(_pcb4, _PAPER, turn=0.05, gloss=0.15, rough=0.0004),
    "pipe_fryum": Product(_pipe, _MAT, turn=0.35, gloss=0.3, rough=0.0015),
}
