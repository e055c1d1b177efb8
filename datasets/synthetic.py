"""A small rendered data set in VisA's exact layout, so that everything runs without a download.

    python -m datasets.synthetic --root data/demo --seed 0

A product is an outline (a signed distance), a relief and a colour per pixel. A defect edits those
three, and only then is the scene lit and photographed: normal and anomalous pictures share pose,
light, texture and noise, and differ in the defect alone.

Object names, defect labels and mask values are VisA's own (Zou et al. 2022, arXiv 2207.14315, and
``utils/id2class.py`` of amazon-science/spot-diff), with their spelling; the pictures are not.
"""

import argparse
import csv
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from utils.errors import UserError, run_command
from utils.registry import did_you_mean

Map = npt.NDArray[Any]  # one number a pixel, shape (H, W), float32
Pixels = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]
Range = tuple[float, float]

# Raise it with every change that moves a pixel: folders made by an older renderer are then refused.
VERSION = 1
DEMO = ("candle", "cashew", "fryum", "pcb1")
NORMALS, ANOMALIES = 100, 50
SIZE = (192, 288)

# Share of the images of each label that trains, per split file.
SPLITS = {
    "1cls": {"normal": 0.9, "anomaly": 0.0},
    "2cls_highshot": {"normal": 0.6, "anomaly": 0.6},
    "2cls_fewshot": {"normal": 0.2, "anomaly": 0.2},
}

README = """\
Every image and mask in this folder was rendered by datasets/synthetic.py of this project.
None of them is a photograph and none comes from VisA: only the folder layout, the object names
and the defect labels follow it (Zou et al. 2022, arXiv 2207.14315).
Released under CC0 1.0: https://creativecommons.org/publicdomain/zero/1.0/
"""


# ------------------------------------------------------------------------------------ the surface


@dataclass(frozen=True)
class Part:
    """Something mounted on a product: a chip, a wick.

    Attributes:
        x: Centre, in object units.
        y: Centre, in object units.
        half_x: Half its length before it is turned.
        half_y: Half its width.
        tall: Height above the ground.
        colour: RGB in [0, 1].
        ends: Colour of its two ends (solder), or of the rim if it is round.
        pads: Colour of the ground under those ends, seen once the part is off.
        turn: Rotation, radians.
        is_round: A can of radius ``half_x`` instead of a box.
    """

    x: float
    y: float
    half_x: float
    half_y: float
    tall: float
    colour: Colour
    ends: Colour
    pads: Colour
    turn: float = 0.0
    is_round: bool = False

    @property
    def reach(self) -> float:
        """Farthest point from its centre."""
        return math.hypot(self.half_x, self.half_y)


@dataclass
class Surface:
    """What the camera looks at, before any light falls on it; defects edit it in place.

    Lengths are object units: 1 is about half the height of the picture.

    Attributes:
        x: Object coordinate of every pixel, shape ``(H, W)``.
        y: The other one.
        outline: Signed distance to the outline, negative inside.
        height: Relief above the table.
        colour: RGB in [0, 1], shape ``(3, H, W)``.
        ground: RGB of the bare product, seen where a part is missing.
        cover: How far the defect being drawn covers each pixel, in [0, 1].
        mask: Defect id per pixel, 0 where there is none.
        parts: What is mounted on it.
    """

    x: Map
    y: Map
    outline: Map
    height: Map
    colour: Map
    ground: Colour
    cover: Map
    mask: Pixels
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def bare(cls, x: Map, y: Map, outline: Map, height: Map, ground: Colour) -> "Surface":
        """A surface of one colour, without parts and defects."""
        colour = np.broadcast_to(_rgb(ground), (3, *x.shape)).copy()
        mask = np.zeros(x.shape, np.uint8)
        return cls(x, y, outline, height, colour, ground, np.zeros_like(x), mask)

    @property
    def step(self) -> tuple[float, float]:
        """Way from one pixel to its right neighbour, in object units."""
        return float(self.x[0, 1] - self.x[0, 0]), float(self.y[0, 1] - self.y[0, 0])

    @property
    def pixel(self) -> float:
        """Side of a pixel in object units."""
        return math.hypot(*self.step)

    def inside(self) -> Map:
        """Share of each pixel that the product covers: 1 inside, 0 outside, between on the edge."""
        return np.clip(0.5 - self.outline / self.pixel, 0, 1)

    def around(self, x: float, y: float, reach: float) -> "Surface":
        """The window within ``reach`` of a point; editing it edits the whole surface."""
        right, down = self.step
        across, along = x - float(self.x[0, 0]), y - float(self.y[0, 0])
        area = right * right + down * down
        column = (across * right + along * down) / area
        row = (along * right - across * down) / area
        span = reach / math.sqrt(area) + 1
        rows = slice(max(int(row - span), 0), max(int(row + span) + 2, 2))
        columns = slice(max(int(column - span), 0), max(int(column + span) + 2, 2))
        return replace(
            self,
            x=self.x[rows, columns],
            y=self.y[rows, columns],
            outline=self.outline[rows, columns],
            height=self.height[rows, columns],
            colour=self.colour[:, rows, columns],
            cover=self.cover[rows, columns],
            mask=self.mask[rows, columns],
        )

    def tone(self, tint: Colour) -> Colour:
        """The product's own colour times ``tint``, at most white."""
        red, green, blue = (
            min(own * part, 1.0) for own, part in zip(self.ground, tint, strict=True)
        )
        return red, green, blue

    def tint(self, factor: Sequence[float], cover: Map) -> None:
        """Multiplies the colour by ``factor`` where ``cover`` is 1."""
        self.colour *= 1 + (_rgb(factor) - 1) * cover

    def paint(self, colour: Sequence[float], cover: Map) -> None:
        """Replaces the colour by ``colour`` where ``cover`` is 1."""
        self.colour += (_rgb(colour) - self.colour) * cover

    def mark(self, cover: Map) -> None:
        """Adds ``cover`` to what the present defect covers."""
        np.maximum(self.cover, cover, out=self.cover)


def _rgb(colour: Sequence[float]) -> Map:
    return np.array(colour, np.float32).reshape(3, 1, 1)


def _edge(distance: Map, softness: float) -> Map:
    """1 where ``distance`` is negative, 0 where positive, a ramp ``softness`` wide between."""
    return np.clip(0.5 - distance / softness, 0, 1)


def _box(x: Map, y: Map, half_x: float, half_y: float, corner: float) -> Map:
    """Signed distance to a rectangle with rounded corners."""
    beyond_x, beyond_y = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    outer = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    return outer + np.minimum(np.maximum(beyond_x, beyond_y), 0) - corner


def _arc(x: Map, y: Map, radius: float, half_angle: float) -> Map:
    """Distance to an arc about the origin that spans ``half_angle`` to both sides of the y axis."""
    sin, cos = math.sin(half_angle), math.cos(half_angle)
    side = np.abs(x)
    to_end = np.hypot(side - radius * sin, y - radius * cos)
    return np.where(cos * side > sin * y, to_end, np.abs(np.hypot(x, y) - radius))


def _segment(x: Map, y: Map, start: tuple[float, float], end: tuple[float, float]) -> Map:
    """Distance to a line segment."""
    way_x, way_y = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    share = np.clip((dx * way_x + dy * way_y) / max(way_x**2 + way_y**2, 1e-9), 0, 1)
    return np.hypot(dx - share * way_x, dy - share * way_y)


def _turned(x: Map, y: Map, turn: float) -> tuple[Map, Map]:
    cos, sin = math.cos(turn), math.sin(turn)
    return x * cos + y * sin, y * cos - x * sin


def _dome(outline: Map, rim: float) -> Map:
    """Relief that rises from the outline like a quarter circle and is flat after ``rim``."""
    share = np.clip(-outline / rim, 0, 1)
    return rim * np.sqrt(share * (2 - share))


def _noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Map:
    """Band-limited noise of unit variance at its nodes, ``cells`` of them from top to bottom."""
    nodes = rng.standard_normal((cells, cells * size[1] // size[0]), dtype=np.float32)
    return np.asarray(Image.fromarray(nodes).resize(size[::-1], Image.Resampling.BICUBIC))


def _tiled(
    x: Map, y: Map, rng: np.random.Generator, *, grid: tuple[int, int], pitch: Range, wander: float
) -> tuple[Map, Map, npt.NDArray[np.intp], Map]:
    """Coordinates relative to the nearest of ``grid`` (columns, rows) pieces.

    Args:
        x: Object coordinate of every pixel.
        y: The other one.
        rng: Moves every piece a little.
        grid: Columns and rows.
        pitch: Their spacing.
        wander: Largest move of a piece, along each axis.

    Returns:
        The coordinates, the number of the nearest piece per pixel, and the centres ``(pieces, 2)``.
    """
    columns, rows = grid
    column = np.clip(np.rint(x / pitch[0] + (columns - 1) / 2), 0, columns - 1)
    row = np.clip(np.rint(y / pitch[1] + (rows - 1) / 2), 0, rows - 1)
    piece = (row * columns + column).astype(np.intp)
    places = np.indices((rows, columns), np.float32)[::-1].reshape(2, -1).T
    centres = (places - [(columns - 1) / 2, (rows - 1) / 2]) * pitch
    centres = (centres + rng.uniform(-wander, wander, centres.shape)).astype(np.float32)
    return x - centres[piece, 0], y - centres[piece, 1], piece, centres


# ------------------------------------------------------------------------------------ the products


def _candle(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A tea light in its cup, seen from above."""
    outline = np.hypot(x, y) - rng.uniform(0.8, 0.85)
    wax = (0.84, 0.78, 0.64)
    surface = Surface.bare(x, y, outline, _dome(outline, 0.12), wax)
    surface.paint((0.6, 0.61, 0.63), _edge(-outline - 0.07, 0.03))
    surface.tint((0.94, 0.93, 0.9), _edge(outline + 0.4, 0.3))
    wick = Part(0.0, 0.0, 0.12, 0.035, 0.1, (0.42, 0.45, 0.52), (0.36, 0.4, 0.48), wax)
    _mount(surface, replace(wick, turn=rng.uniform(-0.4, 0.4)))
    return surface


def _capsules(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A dozen two-coloured capsules."""
    u, v, piece, centres = _tiled(x, y, rng, grid=(4, 3), pitch=(0.66, 0.62), wander=0.04)
    turns = rng.uniform(-math.pi, math.pi, len(centres)).astype(np.float32)
    cos, sin = np.cos(turns)[piece], np.sin(turns)[piece]
    along, across = u * cos + v * sin, v * cos - u * sin
    outline = _segment(along, across, (-0.13, 0.0), (0.13, 0.0)) - 0.12
    ground = (0.42, 0.5, 0.2)
    surface = Surface.bare(x, y, outline, _dome(outline, 0.12), ground)
    surface.paint((0.62, 0.44, 0.2), _edge(along, 0.02))
    return surface


def _cashew(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One kidney-shaped nut."""
    taper = rng.uniform(0.02, 0.12)
    outline = _arc(x, y + 0.38, 0.56, rng.uniform(1.1, 1.3)) - (0.31 - taper * x)
    ground = (0.82, 0.68, 0.47)
    return Surface.bare(x, y, outline, _dome(outline, 0.3), ground)


def _chewinggum(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One rounded pillow."""
    outline = _box(x, y, rng.uniform(0.9, 1.0), rng.uniform(0.56, 0.64), 0.34)
    ground = (0.8, 0.83, 0.8)
    return Surface.bare(x, y, outline, _dome(outline, 0.34), ground)


def _fryum(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """A wheel with seven spokes."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    to_spoke = angle - np.rint(angle * (7 / math.tau)) * (math.tau / 7)
    bumpy = radius * (1 + 0.02 * np.sin(3 * angle + rng.uniform(0, math.tau)))
    spokes = np.maximum(radius * np.abs(np.sin(to_spoke)) - rng.uniform(0.075, 0.095), bumpy - 0.7)
    wheel = np.minimum(np.abs(bumpy - 0.7) - 0.13, radius - 0.23)
    outline = np.maximum(np.minimum(wheel, spokes), 0.07 - radius)
    ground = (0.87, 0.66, 0.47)
    return Surface.bare(x, y, outline, _dome(outline, 0.08), ground)


def _macaroni(
    x: Map, y: Map, rng: np.random.Generator, *, ground: Colour, turn: float, wander: float
) -> Surface:
    """Four ribbed bent tubes, laid out neatly or scattered."""
    u, v, piece, centres = _tiled(x, y, rng, grid=(2, 2), pitch=(1.2, 0.94), wander=wander)
    turns = rng.uniform(-turn, turn, len(centres)).astype(np.float32)
    cos, sin = np.cos(turns)[piece], np.sin(turns)[piece]
    outline = _arc(u * cos + v * sin, v * cos - u * sin + 0.2, 0.29, 1.2) - 0.135
    relief = _dome(outline, 0.13) + 0.006 * np.cos(outline * 110)
    return Surface.bare(x, y, outline, relief * (outline < 0), ground)


def _pipe(x: Map, y: Map, rng: np.random.Generator) -> Surface:
    """One ribbed straight tube, its mouth to the right."""
    half_x, half_y = rng.uniform(0.88, 1.0), rng.uniform(0.36, 0.42)
    outline = _box(x, y, half_x, half_y, 0.1)
    relief = _dome(np.maximum(np.abs(y) - half_y, outline), half_y) + 0.008 * np.cos(y * 55)
    ground = (0.85, 0.6, 0.36)
    surface = Surface.bare(x, y, outline, relief * (outline < 0), ground)
    mouth = np.hypot((x - half_x + 0.12) / 0.09, y / (0.72 * half_y)) - 1
    surface.tint((0.45, 0.38, 0.34), _edge(mouth, 0.3))
    return surface


_GREY, _BLACK, _SOLDER = (0.55, 0.57, 0.6), (0.24, 0.26, 0.3), (0.72, 0.72, 0.68)
_BLUE, _WHITE, _COPPER = (0.3, 0.42, 0.62), (0.85, 0.86, 0.84), (0.8, 0.5, 0.22)


def _chip(x: float, y: float, half_x: float, half_y: float, colour: Colour = _BLACK) -> Part:
    return Part(x, y, half_x, half_y, 0.07, colour, _SOLDER, _COPPER)


def _can(x: float, y: float, radius: float, tall: float = 0.15, colour: Colour = _BLACK) -> Part:
    return Part(x, y, radius, radius, tall, colour, _GREY, _COPPER, is_round=True)


# What each board carries. The same on every picture, as on a real production line.
BOARDS = {
    "pcb1": (
        *(_can(x, 0.1, 0.44, 0.2) for x in (-0.7, 0.7)),
        Part(0.0, 0.5, 0.2, 0.1, 0.12, _GREY, _GREY, _COPPER),
        *(_chip(0.0, y, 0.1, 0.06, _BLUE) for y in (0.26, -0.34)),
        _chip(0.0, -0.04, 0.16, 0.14),
        *(_chip(x, -0.58, 0.045, 0.08, _SOLDER) for x in (-0.3, -0.1, 0.1, 0.3)),
    ),
    "pcb2": (
        _chip(-0.1, 0.0, 0.34, 0.26),
        *(_chip(x, 0.5, 0.08, 0.045, _BLUE) for x in (-0.8, -0.5, -0.2, 0.1)),
        *(_chip(0.55, y, 0.1, 0.06) for y in (-0.4, -0.15, 0.1, 0.35)),
        *(_can(-0.85, y, 0.13) for y in (-0.35, 0.05)),
        *(_chip(0.95, y, 0.07, 0.035, _SOLDER) for y in (-0.36, -0.12, 0.12, 0.36)),
    ),
    "pcb3": (
        *(_can(0.95, y, 0.19, 0.2, c) for y, c in ((-0.3, _BLACK), (0.3, _WHITE))),
        Part(-0.3, 0.2, 0.2, 0.2, 0.15, _BLUE, _BLUE, _COPPER),
        _chip(0.25, -0.05, 0.17, 0.22),
        *(_chip(x, -0.48, 0.08, 0.045, _BLUE) for x in (-0.55, -0.25, 0.05, 0.35)),
        *(_chip(-1.0, y, 0.08, 0.035, _SOLDER) for y in (-0.28, 0.0, 0.28)),
    ),
    "pcb4": (
        Part(-0.92, 0.0, 0.24, 0.3, 0.18, _GREY, _WHITE, _COPPER),
        _chip(0.05, 0.05, 0.22, 0.16),
        *(_chip(x, 0.46, 0.08, 0.05, _WHITE) for x in (-0.3, 0.0, 0.3)),
        *(_chip(x, -0.45, 0.09, 0.05, _BLUE) for x in (-0.4, -0.05, 0.3, 0.65)),
        *(_chip(1.02, y, 0.09, 0.09, _SOLDER) for y in (-0.42, 0.42)),
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


def _board(x: Map, y: Map, rng: np.random.Generator, *, name: str, ground: Colour) -> Surface:
    """A circuit board with holes, tracks and parts."""
    outline = _box(x, y, 1.22, 0.72, 0.05)
    outline = np.maximum(outline, 0.06 - np.hypot(np.abs(x) - 1.11, np.abs(y) - 0.61))
    surface = Surface.bare(x, y, outline, _dome(outline, 0.03), ground)
    for start, end in _traces(name):
        reach = math.dist(start, end) / 2 + 0.03
        near = surface.around((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, reach)
        near.tint((1.35, 1.3, 1.3), _edge(_segment(near.x, near.y, start, end) - 0.014, near.pixel))
    for part in BOARDS[name]:
        _mount(surface, replace(part, turn=rng.normal(0, 0.02)))
    return surface


def _footprint(near: Surface, part: Part) -> tuple[Map, Map]:
    """Signed distance to a part's outline, and to its ends (a round part's rim)."""
    u, v = _turned(near.x - part.x, near.y - part.y, part.turn)
    border = 0.28 * part.half_x
    if part.is_round:
        outline = np.hypot(u, v) - part.half_x
        return outline, -outline - border
    return _box(u, v, part.half_x, part.half_y, 0.01), part.half_x - border - np.abs(u)


def _mount(surface: Surface, part: Part) -> None:
    """Draws a part and remembers it."""
    near = surface.around(part.x, part.y, part.reach)
    outline, ends = _footprint(near, part)
    cover = _edge(outline, near.pixel)
    near.paint(part.colour, cover)
    near.paint(part.ends, cover * _edge(ends, near.pixel))
    near.height += part.tall * np.clip(-outline / 0.03, 0, 1)
    surface.parts.append(part)


def _dismount(surface: Surface, part: Part) -> None:
    """Takes a part away, down to the bare ground and the pads it was soldered to."""
    surface.parts.remove(part)
    near = surface.around(part.x, part.y, part.reach)
    outline, _ = _footprint(near, part)
    cover = _edge(outline - near.pixel, near.pixel)
    near.paint(surface.ground, cover)
    near.paint(part.pads, 0.9 * _edge(outline + 0.01, near.pixel))
    near.height -= part.tall * np.clip(-outline / 0.03, 0, 1)
    near.mark(cover)


# ------------------------------------------------------------------------------------- the defects
#
# A defect draws itself at a random place into the surface and marks what it covers. Its size and
# strength vary from hardly visible to plain, so that no single score threshold finds them all.

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
    near: Surface, centre: tuple[float, float], radius: float, rng: np.random.Generator
) -> Map:
    """About the signed distance to an irregular patch."""
    stretch = math.sqrt(rng.uniform(1.0, 1.8))
    u, v = _turned(near.x - centre[0], near.y - centre[1], rng.uniform(0, math.tau))
    u, v = u / stretch, v * stretch
    ripple = np.sin(u * (2.5 / radius) + rng.uniform(0, math.tau))
    ripple += np.sin(v * (3.5 / radius) + rng.uniform(0, math.tau))
    return np.hypot(u, v) * (1 + 0.12 * ripple) - radius


def _stain(
    surface: Surface,
    rng: np.random.Generator,
    *,
    tints: Sequence[Colour],
    radius: Range,
    softness: float,
) -> None:
    """A patch of another colour: the product's own times one of ``tints``."""
    centre, size = _within(surface, rng), rng.uniform(*radius)
    near = surface.around(*centre, 2.2 * size)
    cover = _edge(_blob(near, centre, size, rng), softness * size + near.pixel) * near.inside()
    near.paint(surface.tone(tints[int(rng.integers(len(tints)))]), cover * rng.uniform(0.5, 1.0))
    near.mark(cover)


def _dig(
    surface: Surface,
    rng: np.random.Generator,
    *,
    count: tuple[int, int],
    radius: Range,
    depth: float,
    tint: Colour,
) -> None:
    """Holes near each other, or with a negative ``depth`` crumbs."""
    first = _within(surface, rng)
    close = np.hypot(surface.x - first[0], surface.y - first[1]) < 0.3
    strength = rng.uniform(0.5, 1.0)
    for number in range(int(rng.integers(*count, endpoint=True))):
        centre = _pick(surface, rng, close & (surface.outline < 0)) if number else first
        size = rng.uniform(*radius)
        near = surface.around(*centre, 2.2 * size)
        distance = _blob(near, centre, size, rng)
        cover = _edge(distance, 0.3 * size + near.pixel) * near.inside()
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
    tint: Colour,
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
        distance = np.min([_segment(near.x, near.y, a, b) for a, b in ways], axis=0)
        cover = _edge(distance - rng.uniform(*width), near.pixel) * near.inside()
        near.paint(surface.tone(tint), strength * cover)
        near.height -= 0.02 * cover
        near.mark(cover)


def _cut(surface: Surface, rng: np.random.Generator, *, place: Place, radius: Range) -> None:
    """A piece broken off, or out of the middle."""
    centre, size = place(surface, rng), rng.uniform(*radius)
    near = surface.around(*centre, 2.2 * size)
    distance = _blob(near, centre, size, rng)
    near.mark(_edge(distance, near.pixel) * near.inside())
    np.maximum(near.outline, -distance, out=near.outline)
    face = np.clip(1.3 - distance / 0.08, 0, 1)
    near.paint(surface.tone((0.55, 0.42, 0.32)), rng.uniform(0.5, 1.0) * face)
    near.height *= np.clip(distance / 0.05, 0, 1)


def _grow(
    surface: Surface, rng: np.random.Generator, *, place: Place, radius: Range, tint: Colour
) -> None:
    """A drop of the product's own stuff, on it or over its edge."""
    centre, size = place(surface, rng), rng.uniform(*radius)
    near = surface.around(*centre, 2.2 * size)
    distance = _blob(near, centre, size, rng)
    cover = _edge(distance, near.pixel)
    near.paint(surface.tone(tint), cover)
    np.minimum(near.outline, distance, out=near.outline)
    near.height += _dome(distance, 0.7 * size)
    near.mark(cover)


def _stick(surface: Surface, rng: np.random.Generator, *, radius: Range) -> None:
    """A fragment of a second product looks out from under the first one.

    The second one is the first, turned half round and moved: it has the same shape and colours.
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
    fragment = _edge(broken, surface.pixel) * free
    surface.mark(fragment)
    surface.colour += (second(surface.colour) - surface.colour) * free
    surface.height += second(surface.height) * fragment
    np.minimum(surface.outline, broken, out=surface.outline)


def _loose(surface: Surface, rng: np.random.Generator) -> list[Part]:
    """One to three neighbouring parts; the large ones, which make the board, stay."""
    small = [part for part in surface.parts if part.reach < 0.3]
    first = small[int(rng.integers(len(small)))]
    small.sort(key=lambda part: math.dist((part.x, part.y), (first.x, first.y)))
    return small[: int(rng.integers(1, 4))]


def _lose(surface: Surface, rng: np.random.Generator) -> None:
    """Parts are missing."""
    for part in _loose(surface, rng):
        _dismount(surface, part)


def _bend(
    surface: Surface, rng: np.random.Generator, *, turn: Range, move: Range, stretch: Range
) -> None:
    """Parts are turned, moved or drawn out."""
    for part in _loose(surface, rng):
        _dismount(surface, part)
        side, way, distance = rng.choice((-1, 1)), rng.uniform(0, math.tau), rng.uniform(*move)
        bent = replace(
            part,
            x=part.x + distance * math.cos(way),
            y=part.y + distance * math.sin(way),
            half_x=part.half_x * rng.uniform(*stretch),
            turn=part.turn + float(side) * rng.uniform(*turn),
        )
        _mount(surface, bent)
        near = surface.around(bent.x, bent.y, bent.reach)
        near.mark(_edge(_footprint(near, bent)[0], near.pixel))


def _add(surface: Surface, rng: np.random.Generator) -> None:
    """One part more than there should be."""
    x, y = _within(surface, rng)
    part = replace(_chip(x, y, 0.1, 0.06), turn=rng.uniform(0, math.tau))
    _mount(surface, part)
    near = surface.around(x, y, part.reach)
    near.mark(_edge(_footprint(near, part)[0], near.pixel))


Defect = Callable[[Surface, np.random.Generator], None]

_DARK: Sequence[Colour] = ((0.3, 0.22, 0.18), (0.42, 0.28, 0.2))
_FOREIGN: Sequence[Colour] = ((0.26, 0.17, 0.12), (0.8, 0.24, 0.2))
_AMBER: Colour = (1.0, 0.78, 0.45)
_MOLTEN: Sequence[Colour] = ((3.0, 0.5, 0.17), (2.0, 0.35, 0.15))
_ALIKE: Sequence[Colour] = ((0.62, 0.55, 0.48), (0.8, 0.58, 0.42))

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


# ------------------------------------------------------------------------------------- the objects


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
    backdrop: Colour
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


def _labels(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# Every label VisA has for an object, in the order of its mask values, which start at 1.
VOCABULARY = {
    "candle": _labels(
        "chunk of wax missing, damaged corner of packaging, weird candle wick, "
        "different colour spot, extra wax in candle, foreign particals on candle, "
        "wax melded out of the candle, other"
    ),
    "capsules": _labels("bubble, discolor, scratch, leak, misshape"),
    "cashew": _labels(
        "burnt, corner or edge breakage, different colour spot, middle breakage, small holes, "
        "small scratches, stuck together, same colour spot, other"
    ),
    "chewinggum": _labels(
        "chunk of gum missing, corner missing, scratches, similar colour spot, small cracks, other"
    ),
    "fryum": _labels(
        "burnt, corner or edge breakage, different colour spot, fryum stuck together, "
        "middle breakage, similar colour spot, small scratches, other"
    ),
    "macaroni1": _labels(
        "chip around edge and corner, different colour spot, middle breakage, "
        "similar colour spot, small cracks, small scratches, other"
    ),
    "macaroni2": _labels(
        "breakage down the middle, color spot similar to the object, different color spot, "
        "small chip around edge, small cracks, small scratches, other"
    ),
    "pcb1": _labels("bent, melt, scratch, missing"),
    "pcb2": _labels("bent, melt, scratch, missing"),
    "pcb3": _labels("bent, melt, scratch, missing"),
    "pcb4": _labels("burnt, scratch, missing, damage, extra, wrong place, dirt"),
    "pipe_fryum": _labels(
        "burnt, corner and edge breakage, different colour spot, middle breakage, "
        "similar colour spot, small scratches, stuck together, small cracks, other"
    ),
}


def defects_of(object_name: str) -> tuple[str, ...]:
    """The labels of an object that can be drawn: all of VisA's but ``other``."""
    return tuple(label for label in VOCABULARY[object_name] if label in DEFECTS)


# ------------------------------------------------------------------------------------- the picture


def render(
    object_name: str, defects: Sequence[str], rng: np.random.Generator, size: tuple[int, int]
) -> tuple[Pixels, Pixels]:
    """One photograph of an object, and where its defects are.

    Generators in the same state give the same pose, light and noise whatever the defects: a flawed
    picture and its flawless twin.

    Args:
        object_name: A key of :data:`OBJECTS`.
        defects: Labels out of :func:`defects_of` the object; none for a normal picture.
        rng: Where all chance comes from.
        size: Height and width in pixels.

    Returns:
        RGB picture ``(H, W, 3)``, and the defect id of every pixel ``(H, W)``, 0 without a defect.

    Raises:
        ValueError: If the object or one of the labels is unknown.
    """
    product = OBJECTS.get(object_name)
    if product is None:
        raise ValueError(f"unknown object {object_name!r}; known: {', '.join(OBJECTS)}")
    seeds = rng.integers(2**63, size=3)
    scene, damage, camera = (np.random.default_rng(int(seed)) for seed in seeds)
    surface = product.draw(*_pose(product, scene, size), scene)
    for name in defects:
        if name not in defects_of(object_name):
            known = ", ".join(defects_of(object_name))
            raise ValueError(f"{object_name}: unknown defect {name!r}; known: {known}")
        # A defect that came to lie outside the frame is drawn again.
        while not surface.cover.any():
            DEFECTS[name](surface, damage)
        flawed = surface.cover > 0.5 * surface.cover.max()
        surface.mask[flawed] = VOCABULARY[object_name].index(name) + 1
        surface.cover[:] = 0
    return _photograph(surface, product, camera), surface.mask


def _pose(product: Product, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Map, Map]:
    """The object coordinates of every pixel, for a random place, rotation and distance."""
    # A board is 1.22 units long to either side; in a narrow picture the width sets the scale.
    scale = min(size[0], size[1] / 1.35) / 2 * rng.uniform(0.8, 0.93)
    turn = rng.uniform(-product.turn, product.turn)
    middle_x = size[1] / 2 + size[0] * rng.uniform(-0.05, 0.05)
    middle_y = size[0] / 2 + size[0] * rng.uniform(-0.03, 0.03)
    x = ((np.arange(size[1], dtype=np.float32) - middle_x) / scale)[None, :]
    y = ((np.arange(size[0], dtype=np.float32) - middle_y) / scale)[:, None]
    return _turned(x, y, turn)


def _light(relief: Map, pixel: float, rng: np.random.Generator) -> tuple[Map, Map]:
    """Brightness of a matt surface (1 where it is flat) and highlights of a shiny one.

    Args:
        relief: Height above the table, in object units.
        pixel: Side of a pixel in object units.
        rng: Moves the lamp a little; it always stands at the upper left.
    """
    slope_x, slope_y = np.zeros_like(relief), np.zeros_like(relief)
    slope_x[:, 1:-1] = (relief[:, 2:] - relief[:, :-2]) / (2 * pixel)
    slope_y[1:-1] = (relief[2:] - relief[:-2]) / (2 * pixel)
    lamp_x, lamp_y = -0.45 + rng.uniform(-0.08, 0.08), -0.5 + rng.uniform(-0.08, 0.08)
    steepness = np.sqrt(1 + slope_x**2 + slope_y**2)
    matt = np.clip((1 - lamp_x * slope_x - lamp_y * slope_y) / steepness, 0, 2)
    # Blinn: the mirror direction lies half way between the lamp and the camera above.
    half = (1 - 0.45 * (lamp_x * slope_x + lamp_y * slope_y)) / steepness
    shine = np.clip(half / math.sqrt(1 + 0.45**2 * (lamp_x**2 + lamp_y**2)), 0, 1) ** 2
    return matt, (shine * shine * shine * shine) ** 4


def _photograph(surface: Surface, product: Product, rng: np.random.Generator) -> Pixels:
    """Lights the surface, puts it on the table and takes the picture."""
    size = surface.outline.shape
    inside = surface.inside()
    grain, mottle = _noise(rng, size, size[0] // 3), _noise(rng, size, 8)
    relief = surface.height + product.rough * inside * grain
    matt, shine = _light(relief, surface.pixel, rng)
    brightness = (0.4 + 0.6 * matt) * (1 + 0.02 * mottle)
    hue = rng.normal(1, 0.03, (3, 1, 1)).astype(np.float32)
    thing = surface.colour * hue * brightness + product.gloss * shine

    reach = max(round(0.06 / surface.pixel), 1)
    shifted = surface.outline.copy()
    shifted[reach:, reach:] = surface.outline[:-reach, :-reach]
    shadow = _edge(shifted, 0.24)
    table = _rgb(product.backdrop) * rng.normal(1, 0.03, (3, 1, 1)).astype(np.float32)
    table = table * ((1 + 0.02 * grain + 0.015 * mottle) * (1 - 0.4 * shadow))

    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    tilt_x, tilt_y = rng.uniform(-0.1, 0.1, 2).tolist()
    lamp = rng.uniform(0.86, 1.14) * (1 + tilt_x * x + tilt_y * y - 0.12 * (x * x + y * y))
    picture = (table + (thing - table) * inside) * lamp
    picture += rng.uniform(0, 0.04)
    picture += rng.uniform(0.003, 0.014) * rng.standard_normal(size, dtype=np.float32)
    return np.ascontiguousarray((np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


# ------------------------------------------------------------------------------------- the data set


@dataclass(frozen=True)
class Sample:
    """One image of the data set, with paths relative to its root.

    Attributes:
        object: Object class.
        defects: Labels of its defects; empty for a normal image.
        image: Path of the image.
        mask: Path of the mask; empty for a normal image.
        seed: What the image is drawn from.
    """

    object: str
    defects: tuple[str, ...]
    image: str
    mask: str
    seed: tuple[int, ...]


def plan(object_name: str, normals: int, anomalies: int, seed: int) -> list[Sample]:
    """What to draw for one object, normal images first; the same whatever other objects there are.

    The defects take turns; one anomaly in five has a second one.
    """
    key, folder = zlib.crc32(object_name.encode()), f"{object_name}/Data"
    digits = 4 if normals >= 1000 else 3
    samples = [
        Sample(object_name, (), f"{folder}/Images/Normal/{i:0{digits}}.JPG", "", (seed, key, 0, i))
        for i in range(normals)
    ]
    labels = defects_of(object_name)
    rng = np.random.default_rng((seed, key, 1))
    for i in range(anomalies):
        first, further = i % len(labels), int(rng.integers(1, len(labels)))
        chosen = {first, (first + further) % len(labels)} if rng.random() < 0.2 else {first}
        samples.append(
            Sample(
                object_name,
                tuple(labels[label] for label in sorted(chosen)),
                f"{folder}/Images/Anomaly/{i:03}.JPG",
                f"{folder}/Masks/Anomaly/{i:03}.png",
                (seed, key, 2, i),
            )
        )
    return samples


def write(
    root: Path,
    *,
    objects: Sequence[str] = DEMO,
    normals: int = NORMALS,
    anomalies: int = ANOMALIES,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> bool:
    """Renders a data set into ``root``, unless the very same one is there already.

    The folder gets its name once it is complete: a run that was killed leaves none of that name.

    Args:
        root: Folder to make; may exist if it is empty.
        objects: Keys of :data:`OBJECTS`.
        normals: Normal images per object.
        anomalies: Anomalous images per object.
        size: Height and width in pixels.
        seed: The same seed and arguments give the same bytes, with the same library versions.

    Returns:
        Whether it was rendered; ``False`` if it was there already.

    Raises:
        UserError: If no data set can be made with an argument, or ``root`` holds something else.
    """
    _check(objects, normals, anomalies, size, seed)
    arguments = {"objects": list(objects), "normals": normals, "anomalies": anomalies}
    record = json.dumps(arguments | {"size": list(size), "seed": seed, "renderer": VERSION}) + "\n"
    if _is_there(root, record):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        unfinished = Path(scratch) / root.name
        plans = [plan(name, normals, anomalies, seed) for name in objects]
        for sample in tqdm(list(chain.from_iterable(plans)), unit="image", desc="rendering"):
            _draw(unfinished, sample, size)
        _write_tables(unfinished, plans, seed)
        (unfinished / "README.txt").write_text(README)
        (unfinished / "synthetic.json").write_text(record)
        if root.exists():
            root.rmdir()
        unfinished.rename(root)
    return True


def _check(
    objects: Sequence[str], normals: int, anomalies: int, size: tuple[int, int], seed: int
) -> None:
    """Raises UserError for arguments that no data set can be made with."""
    for name in objects:
        if name not in OBJECTS:
            hint = did_you_mean(name, OBJECTS)
            raise UserError(f"objects: cannot render {name!r}; {hint}")
    if not objects or len(set(objects)) < len(objects):
        raise UserError(f"objects: got {list(objects)}; name at least one, and each once")
    # With fewer, rounding leaves one side of a split without any.
    if normals < 5 or anomalies < 3:
        raise UserError(
            f"normals={normals}, anomalies={anomalies}: too few to share out between training and "
            "test in every split; take at least 5 and 3"
        )
    if min(size) < 32:
        raise UserError(f"size: {size[0]} x {size[1]} is too small; take at least 32 x 32")
    if seed < 0:
        raise UserError(f"seed={seed}: take 0 or more")


def _is_there(root: Path, record: str) -> bool:
    """Whether ``root`` holds the data set that ``record`` describes.

    Raises:
        UserError: If it holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    file = root / "synthetic.json"
    if not file.is_file():
        raise UserError(f"{root}: holds something else; name another folder with --root")
    if file.read_text() != record:
        raise UserError(
            f"{root}: was rendered with other arguments, {file.read_text().strip()}; delete it, or "
            "name another folder with --root"
        )
    return True


def _draw(root: Path, sample: Sample, size: tuple[int, int]) -> None:
    picture, mask = render(sample.object, sample.defects, np.random.default_rng(sample.seed), size)
    image = root / sample.image
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(image, "JPEG", quality=92)
    if sample.mask:
        file = root / sample.mask
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file)


def _write_tables(root: Path, plans: Sequence[Sequence[Sample]], seed: int) -> None:
    for samples in plans:
        rows = [[s.image, ",".join(s.defects) or "normal", s.mask] for s in samples]
        _write_csv(root / samples[0].object / "image_anno.csv", ["image", "label", "mask"], rows)
    for name in SPLITS:
        rows = [row for samples in plans for row in _split(samples, name, seed)]
        header = ["object", "split", "label", "image", "mask"]
        _write_csv(root / "split_csv" / f"{name}.csv", header, rows)


def _split(samples: Sequence[Sample], name: str, seed: int) -> list[list[str]]:
    """The rows of one object in one split file, training images first, in random order."""
    # As in VisA, both 2cls splits cut the same order, so that what trains few-shot also trains
    # high-shot, and 1cls has an order of its own.
    key = zlib.crc32(samples[0].object.encode())
    rng = np.random.default_rng((seed, key, 3, name == "1cls"))
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    for label, share in SPLITS[name].items():
        group = [s for s in samples if (label == "anomaly") == bool(s.defects)]
        for place, i in enumerate(rng.permutation(len(group)).tolist()):
            split = "train" if place < round(share * len(group)) else "test"
            rows[split].append([group[i].object, split, label, group[i].image, group[i].mask])
    return rows["train"] + rows["test"]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No newline translation: the csv module ends lines with CRLF, and so do VisA's files.
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="folder to make")
    parser.add_argument("--objects", nargs="+", default=DEMO, help=f"out of {', '.join(OBJECTS)}")
    parser.add_argument("--normals", type=int, default=NORMALS, help="images per object")
    parser.add_argument("--anomalies", type=int, default=ANOMALIES, help="images per object")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    def command() -> None:
        height, width = args.size
        is_new = write(
            args.root,
            objects=args.objects,
            normals=args.normals,
            anomalies=args.anomalies,
            size=(height, width),
            seed=args.seed,
        )
        count = len(args.objects) * (args.normals + args.anomalies)
        what = "wrote" if is_new else "already there:"
        sys.stdout.write(f"{what} {count} images of {', '.join(args.objects)} in {args.root}\n")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
