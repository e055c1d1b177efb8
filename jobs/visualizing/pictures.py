"""The two figures: heat maps of a student, and a teacher's attention for each word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

WIDTH, DPI = 8.3, 150  # inches; 1.5 times the width that a README has on a screen
MOST_HEIGHT = 14.0  # inches; rows get lower where there are many
MOST_ROWS = 16  # of heat maps
WORDS_PER_LINE = 7
# The smallest end of the color scale, so that almost no heat looks like none.
LEAST_HEAT = 0.01  # logits
LEAST_ATTENTION = 2.0  # times even attention
TEXT, OUTLINE = "#343a40", "#37f5d5"
_LETTERS = 160  # of a note, in one line
_GAP = 0.09  # inches that matplotlib leaves between two columns


@dataclass(frozen=True)
class Panel:
    """One image and its heat map.

    Attributes:
        image: RGB bytes, shape ``(h, w, 3)``; may be finer than the heat.
        heat: At least 0, shape ``(H, W)``.
        mask: True where the defect is, shape ``(H, W)``; ``None`` if it is not known.
        score: Probability of "anomalous".
        file: Path of the image in the data set.
    """

    image: np.ndarray
    heat: np.ndarray
    mask: np.ndarray | None
    score: float
    file: str


@dataclass(frozen=True)
class Pair:
    """An object, its defect, an anomalous image and, if there is one, a normal image."""

    title: str
    subtitle: str
    anomalous: Panel
    normal: Panel | None


@dataclass(frozen=True)
class Words:
    """A caption, its words, and for each word the image with its attention; 1 is even attention."""

    caption: str
    words: Sequence[str]
    panels: Sequence[Panel]


def draw_heat_maps(
    pairs: Sequence[Pair], note: str, unit: str = "heat, in units of the anomalous logit"
) -> bytes:
    """Image, mask and heat map of each pair, and its normal image with a heat map, as PNG.

    All heat maps have the same color scale, from 0 to the hottest pixel of all, or to
    ``LEAST_HEAT`` if that is more. Empty columns are left out.

    Args:
        pairs: 1 to ``MOST_ROWS``; one row each.
        note: Below the picture.
        unit: Beside the color scale.
    """
    shown = [p for pair in pairs for p in (pair.anomalous, pair.normal) if p is not None]
    peak, ratio = max(float(panel.heat.max()) for panel in shown), _ratio(shown[0])
    colors = _scale(max(peak, LEAST_HEAT))
    columns: dict[str, Callable[[Axes, Panel, ScalarMappable], None]] = {
        "anomalous image": _photo,
        "mask": _mask,
        "heat map": _heat,
    }
    if all(pair.anomalous.mask is None for pair in pairs):
        del columns["mask"]
    num_anomalous = len(columns)
    if any(pair.normal is not None for pair in pairs):
        columns |= {"normal image": _photo, "its heat map": _heat}
    cell = WIDTH / (len(columns) + 1) - _GAP
    row = max(cell * ratio + 0.25, 0.75)  # a lower one cannot hold the text beside it
    figure, _ = _figure([row] * len(pairs), foot=1.0)
    axes = figure.subplots(len(pairs), len(columns) + 1, squeeze=False)
    for (first, *line), pair in zip(axes, pairs, strict=True):
        _label(first, pair)
        for j, (ax, draw) in enumerate(zip(line, columns.values(), strict=True)):
            panel = pair.anomalous if j < num_anomalous else pair.normal
            _prepare(ax, ratio)
            if panel is not None:
                draw(ax, panel, colors)
    for ax, name in zip(axes[0, 1:], columns, strict=True):
        ax.set_title(name, **_style(8.5))
    label = f"{unit}; one scale for all" if peak >= LEAST_HEAT else f"{unit}: none above {peak:.2g}"
    bar = figure.colorbar(
        colors, ax=axes[:, 1:], location="bottom", shrink=0.4, aspect=40, pad=0.02
    )
    return _png(figure, figure, bar, label, note)


def draw_words(blocks: Sequence[Words], note: str) -> bytes:
    """Each image with the attention of every word of its caption, as PNG; one color scale.

    Args:
        blocks: At least one; the last ones are left out if the maps would be too small.
        note: Below the picture.
    """
    peak = max(float(panel.heat.max()) for block in blocks for panel in block.panels)
    colors = _scale(max(peak, LEAST_ATTENTION))
    cell = WIDTH / (WORDS_PER_LINE + 2) - _GAP  # the image takes two of them
    line = cell * _ratio(blocks[0].panels[0]) + 0.2
    rows = [_num_lines(block) * line + 0.45 for block in blocks]
    while len(rows) > 1 and sum(rows) > 1.6 * MOST_HEIGHT:
        rows.pop()
    figure, heights = _figure(rows, foot=0.8)
    grid = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    *parts, foot = grid[:, 0]
    for part, block in zip(parts, blocks, strict=False):
        _draw_block(part, block, colors)
    cax, rest = foot.subplots(1, 2, width_ratios=[2, 3])
    rest.set_axis_off()
    bar = foot.colorbar(colors, cax=cax, orientation="horizontal")
    label = "attention of a word to a place; 1: everywhere alike; one scale"
    return _png(figure, foot, bar, label, note)


def _num_lines(block: Words) -> int:
    return max(-(-len(block.words) // WORDS_PER_LINE), 2)


def _draw_block(part: SubFigure, block: Words, colors: ScalarMappable) -> None:
    """The image in the first two columns, the attention of its words in the others."""
    caption = "\n".join(wrap(f"“{block.caption}”", 110, max_lines=2, placeholder=" …"))
    part.suptitle(caption, **_style(9, x=0.01, ha="left", style="italic"))
    grid = part.add_gridspec(_num_lines(block), WORDS_PER_LINE + 2)
    first = block.panels[0]
    ax = _prepare(part.add_subplot(grid[:, :2], anchor="NW"), _ratio(first))
    _show(ax, first.image, first.heat)
    ax.set_xlabel(_tail(first.file, 36), loc="left", in_layout=False, **_style(6))
    _outline(ax, first.mask, 0.9)
    for k, (word, panel) in enumerate(zip(block.words, block.panels, strict=True)):
        place = grid[k // WORDS_PER_LINE, 2 + k % WORDS_PER_LINE]
        ax = _prepare(part.add_subplot(place, anchor="NW"), _ratio(panel))
        _heat(ax, panel, colors, interpolation="nearest", outline=0.5)
        short = word if len(word) < 14 else f"{word[:12]}…"
        has_mask = panel.mask is not None and panel.mask.any()
        inside = f" {panel.heat[panel.mask].mean():.1f}" if has_mask else ""
        ax.set_title(short + inside, loc="left", pad=2, **_style(7))


def _scale(peak: float) -> ScalarMappable:
    """From 0, which is transparent, to ``peak``."""
    steps = np.linspace(0, 1, 256)
    colors = colormaps["inferno"](steps)
    colors[:, 3] = 0.9 * steps**0.5
    return ScalarMappable(Normalize(0, peak), ListedColormap(colors))


def _label(ax: Axes, pair: Pair) -> None:
    """Object and defect, in the first column."""
    ax.set_axis_off()
    title = "\n".join(wrap(pair.title, 17, max_lines=2, placeholder=" …"))
    subtitle = "\n".join(wrap(pair.subtitle, 24, max_lines=4, placeholder=" …"))
    ax.text(0, 0.55, title, va="bottom", in_layout=False, **_style(9.5, weight="bold"))
    ax.text(0, 0.5, subtitle, va="top", in_layout=False, **_style(7))


def _photo(ax: Axes, panel: Panel, _: ScalarMappable) -> None:
    _show(ax, panel.image, panel.heat)
    ax.set_xlabel(_tail(panel.file, 28), labelpad=2, **_style(6))
    box = {"boxstyle": "round,pad=0.25", "fc": "black", "ec": "none", "alpha": 0.6}
    score = f"score {panel.score:.2f}"
    ax.annotate(score, (5, 5), xycoords="axes points", fontsize=6.5, color="w", bbox=box)


def _mask(ax: Axes, panel: Panel, _: ScalarMappable) -> None:
    if panel.mask is None:
        ax.text(0.5, 0.5, "no mask", ha="center", va="center", **_style(8))
    else:
        _show(ax, panel.mask, panel.heat, cmap="gray", vmin=0, vmax=1)


def _heat(
    ax: Axes,
    panel: Panel,
    colors: ScalarMappable,
    *,
    interpolation: str = "bilinear",
    outline: float = 0.9,
) -> None:
    """The picture in gray under its heat map, which is transparent where there is no heat."""
    gray = panel.image.astype(np.float64).mean(axis=2) / 255
    _show(ax, gray, panel.heat, cmap="gray", vmin=-0.15, vmax=1.4)
    _show(ax, colors.to_rgba(panel.heat), panel.heat, interpolation=interpolation)
    _outline(ax, panel.mask, outline)


def _outline(ax: Axes, mask: np.ndarray | None, width: float) -> None:
    if mask is not None and mask.any() and not mask.all():
        around = np.pad(mask.astype(float), 1)  # closed at the border of the image, too
        y, x = (np.arange(-1, side + 1) + 0.5 for side in mask.shape)
        ax.contour(x, y, around, [0.5], colors=OUTLINE, linewidths=width)
        ax.set(xlim=(0, mask.shape[1]), ylim=(mask.shape[0], 0))


def _show(ax: Axes, image: np.ndarray, heat: np.ndarray, **kwargs: Any) -> None:
    """An image in the coordinates of ``heat``, whose pixels may be larger."""
    extent = (0, heat.shape[1], heat.shape[0], 0)
    ax.imshow(
        image, **{"extent": extent, "aspect": "auto", "interpolation": "antialiased"} | kwargs
    )


def _prepare(ax: Axes, ratio: float) -> Axes:
    """Removes ticks and frame, and sets the ratio of height to width."""
    ax.set(xticks=(), yticks=(), frame_on=False)
    ax.set_box_aspect(ratio)
    return ax


def _ratio(panel: Panel) -> float:
    height, width = panel.heat.shape
    return float(height / width)


def _style(size: float, **kwargs: Any) -> dict[str, Any]:
    """The style of a text; names from a data set are never parsed as formulas."""
    return {"fontsize": size, "color": TEXT, "parse_math": False, **kwargs}


def _tail(file: str, letters: int) -> str:
    """The end of a path, as many folders as fit: ``…/Anomaly/012.JPG``."""
    if len(file) <= letters:
        return file
    _, slash, end = file[2 - letters :].partition("/")
    return f"…/{end}" if slash else f"…{file[1 - letters :]}"


def _figure(rows: Sequence[float], foot: float) -> tuple[Figure, list[float]]:
    """A figure, and the heights of its rows and its foot; all rows shrink if it is too high.

    Args:
        rows: Heights that the rows should have, in inches.
        foot: Height of the color scale and the note.
    """
    factor = min(1.0, (MOST_HEIGHT - foot) / sum(rows))
    heights = [*(factor * row for row in rows), foot]
    return Figure((WIDTH, sum(heights)), dpi=DPI, layout="constrained"), heights


def _png(figure: Figure, foot: Figure | SubFigure, bar: Colorbar, label: str, note: str) -> bytes:
    """The figure as PNG, with the label of the color scale and the note below."""
    bar.ax.set_facecolor("0.35")  # as the gray pictures are
    bar.ax.tick_params(labelsize=7, length=2, colors=TEXT)
    bar.locator = MaxNLocator(5)
    bar.set_label(label, **_style(7.5))
    bar.outline.set_visible(False)
    foot.supxlabel("\n".join(wrap(note, _LETTERS)), **_style(7, x=0.01, ha="left"))
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
