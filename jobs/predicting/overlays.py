"""A picture with its heat map and a scale, as PNG."""

from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

_DPI = 100
# The scale of a student's heat ends here at the earliest, so that next to no heat looks like none.
LEAST_HEAT = 0.5  # logits


def scale_of(heat: np.ndarray, *, is_share: bool) -> float:
    """The heat at which the colors end; see :func:`draw_overlay`."""
    return 1.0 if is_share else max(float(heat.max()), LEAST_HEAT)


def draw_overlay(photo: np.ndarray, heat: np.ndarray, title: str, *, is_share: bool) -> bytes:
    """The picture in gray under its heat.

    Args:
        photo: RGB bytes, ``(h, w, 3)``.
        heat: At least 0, ``(H, W)``; may be coarser than the picture.
        title: Above the picture.
        is_share: Whether the heat lies in ``[0, 1]``; else it is in logits, and the scale reaches
            to the hottest pixel.
    """
    top = scale_of(heat, is_share=is_share)
    colors = colormaps["inferno"](np.linspace(0, 1, 256))
    colors[:, 3] = 0.9 * np.linspace(0, 1, 256) ** 0.5
    height, width = photo.shape[:2]
    figure = Figure((width / _DPI + 1.2, height / _DPI + 0.6), dpi=_DPI, layout="constrained")
    ax = figure.subplots()
    extent = (0, width, height, 0)
    gray = photo.astype(np.float64).mean(axis=2) / 255
    ax.imshow(gray, cmap="gray", vmin=-0.15, vmax=1.4, extent=extent)
    image = ax.imshow(
        heat, cmap=ListedColormap(colors), vmin=0, vmax=top, extent=extent, interpolation="bilinear"
    )
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    bar.ax.set_facecolor("0.35")  # as the gray picture is
    bar.set_label("anomaly map" if is_share else "heat, in logits", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    ax.set_title(title, fontsize=8, loc="left", parse_math=False)
    ax.set_axis_off()
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
