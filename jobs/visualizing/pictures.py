"""The two pictures: heat maps of a student, and what the words of a teacher look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH, DPI = 8.3, 150  # inches; 1.5 times the width that a README has on a screen
NARROW = 5.6  # inches that the words below need at least
GAP, TEXT = 0.05, "#343a40"
OUTLINE = "#37f5d5"
_LETTER = 0.053  # inches that a letter of a note takes


@dataclass(frozen=True)
class Panel:
    """One image and where it is hot.

    Attributes:
        image: RGB bytes, shape ``(h, w, 3)``; may be finer than the heat.
        heat: At least 0, shape ``(H, W)``.
        mask: True where the defect is, shape ``(H, W)``; ``None`` where nobody said.
        score: Probability of "anomalous".
    """

    image: np.ndarray
    heat: np.ndarray
    mask: np.ndarray | None
    score: float


@dataclass(frozen=True)
class Column:
    """What stands in one column: an object, what is wrong, an anomalous and a normal image."""

    title: str
    subtitle: str
    anomalous: Panel
    normal: Panel | None


@dataclass(frozen=True)
class Words:
    """One image, its caption, and what each word looks at.

    Attributes:
        image: RGB bytes, shape ``(h, w, 3)``; may be finer than the maps.
        mask: As in :class:`Panel`.
        caption: What the teacher was told.
        words: The words of it.
        maps: Shape ``(words, H, W)``; 1 is even attention.
    """

    image: np.ndarray
    mask: np.ndarray | None
    caption: str
    words: Sequence[str]
    maps: np.ndarray


def draw_heat_maps(columns: Sequence[Column], note: str) -> bytes:
    """Image, mask and heat map of each column, and a normal image with its own, as PNG.

    One colour scale for the whole picture, from no heat to its hottest pixel: what is dark in one
    place would be dark in any other.

    Args:
        columns: At least one.
        note: Below the picture.
    """
    panels = [p for column in columns for p in (column.anomalous, column.normal) if p is not None]
    colours = _scale(max(float(panel.heat.max()) for panel in panels))
    rows: dict[str, Callable[[Axes, Column], None]] = {
        "anomalous\nimage": lambda ax, column: _photo(ax, column.anomalous),
        "mask": lambda ax, column: _mask(ax, column.anomalous),
        "heat map": lambda ax, column: _heat(ax, column.anomalous, colours),
        "normal\nimage": lambda ax, column: _photo(ax, column.normal),
        "its\nheat map": lambda ax, column: _heat(ax, column.normal, colours),
    }
    left, top, gap = 0.86, 0.5, 0.12
    width = min((WIDTH - left) / len(columns), 2.4)
    lines = wrap(note, int((max(width * len(columns), NARROW - left) - GAP) / _LETTER))
    below = 0.14 * (len(lines) - 1)  # what all but the first line need
    foot = 0.8 + below
    height = (width - GAP) * columns[0].anomalous.heat.shape[0] / columns[0].anomalous.heat.shape[1]
    size = (max(left + width * len(columns), NARROW), top + 5 * (height + GAP) + gap + foot)
    figure = Figure(size, dpi=DPI, facecolor="white")
    for j, column in enumerate(columns):
        middle = left + j * width + (width - GAP) / 2
        _text(figure, middle, size[1] - 0.13, column.title, 9.5, weight="bold")
        _text(figure, middle, size[1] - 0.34, _short(column.subtitle, width), 7, linespacing=1.1)
    for i, (label, draw) in enumerate(rows.items()):
        bottom = size[1] - top - (i + 1) * (height + GAP) - (gap if i > 2 else 0)
        _text(figure, left - 0.1, bottom + height / 2, label, 8.5, ha="right")
        for j, column in enumerate(columns):
            draw(_axes(figure, left + j * width, bottom, width - GAP, height), column)
    label = "heat, in units of the anomalous logit: one scale for all"
    _colour_bar(figure, colours, left, 0.53 + below, size[0] - left - GAP, label)
    _text(figure, left, 0.1 + below / 2, "\n".join(lines), 7, ha="left")
    return _png(figure)


def draw_words(blocks: Sequence[Words], note: str) -> bytes:
    """Each image with the attention of every word of its caption, as PNG; one colour scale.

    Args:
        blocks: At least one.
        note: Below the picture.
    """
    per_line, left, head, gap, foot = 7, 1.75, 0.28, 0.1, 0.82
    colours = _scale(max(float(block.maps.max()) for block in blocks))
    ratio = blocks[0].maps.shape[1] / blocks[0].maps.shape[2]
    width = (WIDTH - left) / per_line
    line = (width - GAP) * ratio + 0.18
    photo = (left - 0.15) * ratio
    lines = [-(-len(block.words) // per_line) for block in blocks]
    heights = [head + max(number * line, photo) + gap for number in lines]
    size = (WIDTH, sum(heights) + foot)
    figure = Figure(size, dpi=DPI, facecolor="white")
    top = size[1]
    for block, taken in zip(blocks, heights, strict=True):
        _text(figure, 0.05, top - 0.15, f"“{block.caption}”", 9, ha="left", style="italic")
        ax = _axes(figure, 0.05, top - head - photo, left - 0.15, photo)
        ax.imshow(block.image, extent=_extent(block.maps[0]), interpolation="antialiased")
        _outline(ax, block.mask)
        for k, (word, values) in enumerate(zip(block.words, block.maps, strict=True)):
            row, column = divmod(k, per_line)
            x, y = left + column * width, top - head - (row + 1) * line
            shown = f"{word} {_inside(values, block.mask)}"
            _text(figure, x, y + line - 0.09, shown, 7, ha="left")
            ax = _axes(figure, x, y, width - GAP, line - 0.18)
            panel = Panel(block.image, values, block.mask, 0.0)
            _heat(ax, panel, colours, interpolation="nearest", outline=0.5)
        top -= taken
    label = "attention of a word to a place; 1: everywhere alike; one scale for all"
    _colour_bar(figure, colours, left, 0.6, WIDTH - left - GAP, label)
    _text(figure, 0.05, 0.18, note, 7, ha="left")
    return _png(figure)


def _inside(values: np.ndarray, mask: np.ndarray | None) -> str:
    return "" if mask is None or not mask.any() else f"{values[mask].mean():.1f}"


def _scale(peak: float) -> ScalarMappable:
    """From 0, which lets everything shine through, to ``peak``."""
    steps = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](steps)
    colours[:, 3] = 0.9 * steps**0.5
    return ScalarMappable(Normalize(0, peak if peak > 0 else 1.0), ListedColormap(colours))


def _photo(ax: Axes, panel: Panel | None) -> None:
    if panel is None:
        return
    ax.imshow(panel.image, extent=_extent(panel.heat), interpolation="antialiased")
    box = {"boxstyle": "round,pad=0.25", "fc": "black", "ec": "none", "alpha": 0.6}
    ax.annotate(
        f"score {panel.score:.2f}",
        (5, 5),
        xycoords="axes points",
        fontsize=6.5,
        color="w",
        bbox=box,
    )


def _mask(ax: Axes, panel: Panel) -> None:
    if panel.mask is None:
        ax.text(0.5, 0.5, "no mask", ha="center", va="center", transform=ax.transAxes, fontsize=8)
        return
    ax.imshow(panel.mask, extent=_extent(panel.mask), cmap="gray", vmin=0, vmax=1)


def _heat(
    ax: Axes,
    panel: Panel | None,
    colours: ScalarMappable,
    *,
    interpolation: str = "bilinear",
    outline: float = 0.9,
) -> None:
    """The picture in grey under its heat; the hotter, the less of it shows through."""
    if panel is None:
        return
    extent = _extent(panel.heat)
    grey = panel.image.astype(np.float64).mean(axis=2) / 255
    ax.imshow(grey, extent=extent, cmap="gray", vmin=-0.15, vmax=1.4, interpolation="antialiased")
    ax.imshow(colours.to_rgba(panel.heat), extent=extent, interpolation=interpolation)
    _outline(ax, panel.mask, outline)


def _outline(ax: Axes, mask: np.ndarray | None, width: float = 0.9) -> None:
    if mask is not None and mask.any() and not mask.all():
        around = np.pad(mask.astype(float), 1)  # closed at the border of the image, too
        y, x = (np.arange(-1, side + 1) + 0.5 for side in mask.shape)
        ax.contour(x, y, around, [0.5], colors=OUTLINE, linewidths=width)
        _frame(ax, mask)


def _extent(values: np.ndarray) -> tuple[float, float, float, float]:
    return (0, values.shape[1], values.shape[0], 0)


def _frame(ax: Axes, values: np.ndarray) -> None:
    ax.set_xlim(0, values.shape[1])
    ax.set_ylim(values.shape[0], 0)


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    ax: Axes = figure.add_axes((x / w, y / h, width / w, height / h))
    ax.set_axis_off()
    return ax


def _text(
    figure: Figure, x: float, y: float, text: str, size: float, ha: str = "center", **kwargs: Any
) -> None:
    w, h = figure.get_size_inches()
    place = {"ha": ha, "va": "center", **kwargs}
    figure.text(x / w, y / h, text, fontsize=size, color=TEXT, parse_math=False, **place)


def _colour_bar(
    figure: Figure, colours: ScalarMappable, x: float, y: float, width: float, label: str
) -> None:
    ax = _axes(figure, x, y, width * 0.36, 0.1)
    ax.set_axis_on()
    ax.set_facecolor("0.35")  # as the grey pictures are
    bar = figure.colorbar(colours, cax=ax, orientation="horizontal", ticks=MaxNLocator(5))
    bar.ax.tick_params(labelsize=7, length=2, colors=TEXT)
    bar.outline.set_visible(False)
    _text(figure, x + width * 0.36 + 0.12, y + 0.05, label, 7.5, ha="left")


def _short(text: str, width: float) -> str:
    """Cut to two lines of ``width`` inches at the size of a subtitle."""
    return "\n".join(wrap(text, max(int(width / 0.06), 8), max_lines=2, placeholder=" …"))


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
