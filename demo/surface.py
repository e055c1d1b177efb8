"""What the camera looks at: outline, relief and color per pixel, and the shapes to draw with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Map = npt.NDArray[Any]  # one number a pixel, shape (H, W), float32
Pixels = npt.NDArray[np.uint8]
Color = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """Something mounted on a product: a chip, a wick.

    Attributes:
        x: Centre, in object units.
        y: Centre, in object units.
        half_x: Half its length before it is turned.
        half_y: Half its width.
        tall: Height above the ground.
        color: RGB in [0, 1].
        ends: Color of its two ends (solder), or of the rim if it is round.
        pads: Color of the ground under those ends, seen once the part is off.
        turn: Rotation, radians.
        is_round: A can of radius ``half_x`` instead of a box.
    """

    x: float
    y: float
    half_x: float
    half_y: float
    tall: float
    color: Color
    ends: Color
    pads: Color
    turn: float = 0.0
    is_round: bool = False

    @property
    def reach(self) -> float:
        """Farthest point from its center."""
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
        color: RGB in [0, 1], shape ``(3, H, W)``.
        ground: RGB of the bare product, seen where a part is missing.
        cover: How far the defect being drawn covers each pixel, in [0, 1].
        mask: Defect id per pixel, 0 where there is none.
        parts: What is mounted on it.
    """

    x: Map
    y: Map
    outline: Map
    height: Map
    color: Map
    ground: Color
    cover: Map
    mask: Pixels
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def bare(cls, x: Map, y: Map, outline: Map, height: Map, ground: Color) -> "Surface":
        """A surface of one color, without parts and defects."""
        color = np.broadcast_to(rgb(ground), (3, *x.shape)).copy()
        mask = np.zeros(x.shape, np.uint8)
        return cls(x, y, outline, height, color, ground, np.zeros_like(x), mask)

    @property
    def step(self) -> tuple[float, float]:
        """Way from one pixel to its right neighbor, in object units."""
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
            color=self.color[:, rows, columns],
            cover=self.cover[rows, columns],
            mask=self.mask[rows, columns],
        )

    def tone(self, tint: Color) -> Color:
        """The product's own color times ``tint``, at most white."""
        red, green, blue = (
            min(own * part, 1.0) for own, part in zip(self.ground, tint, strict=True)
        )
        return red, green, blue

    def tint(self, factor: Sequence[float], cover: Map) -> None:
        """Multiplies the color by ``factor`` where ``cover`` is 1."""
        self.color *= 1 + (rgb(factor) - 1) * cover

    def paint(self, color: Sequence[float], cover: Map) -> None:
        """Replaces the color by ``color`` where ``cover`` is 1."""
        self.color += (rgb(color) - self.color) * cover

    def mark(self, cover: Map) -> None:
        """Adds ``cover`` to what the present defect covers."""
        np.maximum(self.cover, cover, out=self.cover)


def rgb(color: Sequence[float]) -> Map:
    """A color that broadcasts over a picture, shape ``(3, 1, 1)``."""
    return np.array(color, np.float32).reshape(3, 1, 1)


def edge(distance: Map, softness: float) -> Map:
    """1 where ``distance`` is negative, 0 where positive, a ramp ``softness`` wide between."""
    return np.clip(0.5 - distance / softness, 0, 1)


def box(x: Map, y: Map, half_x: float, half_y: float, corner: float) -> Map:
    """Signed distance to a rectangle with rounded corners."""
    beyond_x, beyond_y = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    outer = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    return outer + np.minimum(np.maximum(beyond_x, beyond_y), 0) - corner


def arc(x: Map, y: Map, radius: float, half_angle: float) -> Map:
    """Distance to an arc about the origin that spans ``half_angle`` to both sides of the y axis."""
    sin, cos = math.sin(half_angle), math.cos(half_angle)
    side = np.abs(x)
    to_end = np.hypot(side - radius * sin, y - radius * cos)
    return np.where(cos * side > sin * y, to_end, np.abs(np.hypot(x, y) - radius))


def segment(x: Map, y: Map, start: tuple[float, float], end: tuple[float, float]) -> Map:
    """Distance to a line segment."""
    way_x, way_y = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    share = np.clip((dx * way_x + dy * way_y) / max(way_x**2 + way_y**2, 1e-9), 0, 1)
    return np.hypot(dx - share * way_x, dy - share * way_y)


def turned(x: Map, y: Map, turn: float) -> tuple[Map, Map]:
    """Coordinates in a frame rotated by ``turn`` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    return x * cos + y * sin, y * cos - x * sin


def dome(outline: Map, rim: float) -> Map:
    """Relief that rises from the outline like a quarter circle and is flat after ``rim``."""
    share = np.clip(-outline / rim, 0, 1)
    return rim * np.sqrt(share * (2 - share))


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Map:
    """Band-limited noise of unit variance at its nodes, ``cells`` of them from top to bottom."""
    nodes = rng.standard_normal((cells, cells * size[1] // size[0]), dtype=np.float32)
    return np.asarray(Image.fromarray(nodes).resize(size[::-1], Image.Resampling.BICUBIC))


def tiled(
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
        The coordinates, the number of the nearest piece per pixel, and the centers ``(pieces, 2)``.
    """
    columns, rows = grid
    column = np.clip(np.rint(x / pitch[0] + (columns - 1) / 2), 0, columns - 1)
    row = np.clip(np.rint(y / pitch[1] + (rows - 1) / 2), 0, rows - 1)
    piece = (row * columns + column).astype(np.intp)
    places = np.indices((rows, columns), np.float32)[::-1].reshape(2, -1).T
    centers = (places - [(columns - 1) / 2, (rows - 1) / 2]) * pitch
    centers = (centers + rng.uniform(-wander, wander, centers.shape)).astype(np.float32)
    return x - centers[piece, 0], y - centers[piece, 1], piece, centers


def footprint(near: Surface, part: Part) -> tuple[Map, Map]:
    """Signed distance to a part's outline, and to its ends (a round part's rim)."""
    u, v = turned(near.x - part.x, near.y - part.y, part.turn)
    border = 0.28 * part.half_x
    if part.is_round:
        outline = np.hypot(u, v) - part.half_x
        return outline, -outline - border
    return box(u, v, part.half_x, part.half_y, 0.01), part.half_x - border - np.abs(u)


def mount(surface: Surface, part: Part) -> None:
    """Draws a part and remembers it."""
    near = surface.around(part.x, part.y, part.reach)
    outline, ends = footprint(near, part)
    cover = edge(outline, near.pixel)
    near.paint(part.color, cover)
    near.paint(part.ends, cover * edge(ends, near.pixel))
    near.height += part.tall * np.clip(-outline / 0.03, 0, 1)
    surface.parts.append(part)


def dismount(surface: Surface, part: Part) -> None:
    """Takes a part away, down to the bare ground and the pads it was soldered to."""
    surface.parts.remove(part)
    near = surface.around(part.x, part.y, part.reach)
    outline, _ = footprint(near, part)
    cover = edge(outline - near.pixel, near.pixel)
    near.paint(surface.ground, cover)
    near.paint(part.pads, 0.9 * edge(outline + 0.01, near.pixel))
    near.height -= part.tall * np.clip(-outline / 0.03, 0, 1)
    near.mark(cover)
