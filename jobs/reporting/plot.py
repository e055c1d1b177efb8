"""Small plots as SVG, in the colors of the page they stand in: light, dark or printed."""

from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 10, 40
_NUM_COLORS = 8  # c0 ... c7 in report.css
_NUM_TICKS = 5


class Plot:
    """A plot with linear axes.

    Args:
        title: Above the plot.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        x_range: What the horizontal axis shows.
        y_range: The same for the vertical one.
    """

    def __init__(
        self,
        title: str,
        x: str,
        y: str,
        *,
        x_range: tuple[float, float] = (0.0, 1.0),
        y_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.title, self.x, self.y = title, x, y
        self.x_range, self.y_range = x_range, y_range
        self.marks: list[str] = []
        self.names: dict[str, int] = {}

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        name: str = "",
        color: int = 0,
        *,
        dash: bool = False,
    ) -> None:
        """A line through points; without a name it is not in the legend."""
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*self._places(x, y), strict=True))
        kind = f"line c{color % _NUM_COLORS}{' dash' if dash else ''}"
        self._add(f'<polyline class="{kind}" points="{points}">', "polyline", name, color)

    def dots(self, x: Sequence[float], y: Sequence[float], name: str, color: int) -> None:
        """A dot at each point."""
        circles = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
            for a, b in zip(*self._places(x, y), strict=True)
        )
        self._add(f'<g class="area c{color % _NUM_COLORS}">{circles}', "g", name, color)

    def bars(self, edges: Sequence[float], height: Sequence[float], name: str, color: int) -> None:
        """A histogram: one bar between each two edges."""
        left, top = self._places(edges[:-1], height)
        right, zero = self._places(edges[1:], np.zeros(len(height)))
        boxes = "".join(
            f'<rect x="{a:.1f}" y="{b:.1f}" width="{c - a:.1f}" height="{d - b:.1f}"/>'
            for a, b, c, d in zip(left, top, right, zero, strict=True)
        )
        self._add(f'<g class="area c{color % _NUM_COLORS}">{boxes}', "g", name, color)

    def html(self) -> str:
        """A figure with title, plot and legend."""
        legend = "".join(
            f'<span class="c{color % _NUM_COLORS}">{escape(name)}</span> '
            for name, color in self.names.items()
        )
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        middle = (_TOP + bottom) / 2
        return (
            f"<figure><figcaption>{escape(self.title)}</figcaption>"
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"{self._ticks()}"
            f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" '
            f'height="{bottom - _TOP}"/>{"".join(self.marks)}'
            f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" class="mid">{escape(self.x)}</text>'
            f'<text x="12" y="{middle}" class="mid" transform="rotate(-90 12 {middle})">'
            f'{escape(self.y)}</text></svg><p class="legend">{legend}</p></figure>'
        )

    def _add(self, opening: str, tag: str, name: str, color: int) -> None:
        self.marks.append(f"{opening}<title>{escape(name)}</title></{tag}>")
        if name:
            self.names[name] = color

    def _places(
        self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray
    ) -> tuple[list[float], list[float]]:
        """Where points are in the picture."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        across = (np.asarray(x, float) - x0) / ((x1 - x0) or 1.0)
        up = (np.asarray(y, float) - y0) / ((y1 - y0) or 1.0)
        bottom = _HEIGHT - _BOTTOM
        return (
            (_LEFT + across * (_WIDTH - _RIGHT - _LEFT)).tolist(),
            (bottom - up * (bottom - _TOP)).tolist(),
        )

    def _ticks(self) -> str:
        x, y = (np.linspace(*axis, _NUM_TICKS) for axis in (self.x_range, self.y_range))
        across, up = self._places(x, y)
        below = _HEIGHT - _BOTTOM + 14
        return "".join(
            f'<text x="{a:.1f}" y="{below}" class="mid">{value:.2g}</text>'
            for a, value in zip(across, x, strict=True)
        ) + "".join(
            f'<text x="{_LEFT - 5}" y="{b + 3:.1f}" class="end">{value:.2g}</text>'
            for b, value in zip(up, y, strict=True)
        )
