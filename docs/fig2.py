"""Draws the architecture: ``python docs/fig2.py docs/fig2.png``."""

import sys

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

IMAGE, TEXT, FUSED, PLAIN, GREY = "#cfe3f7", "#fbe0c3", "#e2d5f2", "#e9ecef", "#495057"
LOSS = "#c92a2a"


def box(
    ax: Axes,
    x: float,
    y: float,
    w: float,
    h: float,
    text: str,
    color: str = PLAIN,
    size: float = 11,
) -> None:
    """A rounded box with its lower left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.09"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=color, ec=GREY, lw=1.2))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size, linespacing=1.3)


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = GREY,
    style: str = "-",
) -> None:
    """An arrow between two points."""
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=14, color=color, lw=1.5, linestyle=style
        )
    )


def area(ax: Axes, x: float, y: float, w: float, h: float, title: str, color: str) -> None:
    """A tinted area with its title in the upper left corner."""
    style = "round,pad=0,rounding_size=0.15"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=color, ec="none", zorder=0))
    ax.text(x + 0.18, y + h - 0.16, title, fontsize=12, fontweight="bold", va="top", color=GREY)


def teacher(ax: Axes) -> None:
    """Two towers, the stacked cross-attention, the classifier."""
    area(ax, 0.0, 2.95, 13.4, 3.85, "Fusion teacher: training only", "#f8f5fb")
    box(ax, 0.25, 5.15, 1.7, 0.95, "image", IMAGE)
    box(ax, 0.25, 3.3, 1.7, 1.15, "caption\n“a fryum with\nsmall scratches”", TEXT, 9.5)
    box(ax, 2.5, 5.15, 1.8, 0.95, "image encoder\n(CLIP)", IMAGE)
    box(ax, 2.5, 3.4, 1.8, 0.95, "text encoder\n(CLIP)", TEXT)
    for x0, x1, y in ((1.95, 2.5, 5.62), (1.95, 2.5, 3.87)):
        arrow(ax, (x0, y), (x1, y))
    ax.text(5.02, 5.8, "patch tokens\n(B, N, D)", ha="center", fontsize=9, color=GREY)
    ax.text(5.02, 3.3, "word tokens\n(B, L, D)", ha="center", fontsize=9, color=GREY)
    for shift in (0.16, 0.08):
        box(ax, 5.75 + shift, 3.4 + shift, 3.0, 2.7, "", FUSED)
    box(ax, 5.75, 3.4, 3.0, 2.7, "", FUSED)
    ax.text(7.25, 5.72, "stacked cross-attention", ha="center", fontsize=10.5, fontweight="bold")
    box(ax, 5.95, 4.72, 2.6, 0.66, "image queries, text keys", "white", 9.5)
    box(ax, 5.95, 3.92, 2.6, 0.66, "text queries, image keys", "white", 9.5)
    ax.text(7.25, 3.55, "n layers, own weights", ha="center", fontsize=9, color=GREY)
    arrow(ax, (4.3, 5.62), (5.75, 5.62))
    arrow(ax, (4.3, 3.87), (5.75, 3.87))
    box(ax, 9.5, 4.25, 1.4, 0.95, "fused\nvector", FUSED)
    box(ax, 11.4, 4.25, 1.7, 0.95, "classifier\n2 logits")
    arrow(ax, (8.91, 4.72), (9.5, 4.72))
    arrow(ax, (10.9, 4.72), (11.4, 4.72))


def student(ax: Axes) -> None:
    """The image-only branch and what ties it to the teacher."""
    area(ax, 0.0, 0.0, 13.4, 1.95, "Image-only student: all there is at inspection", "#f1f7fd")
    box(ax, 0.25, 0.3, 1.7, 0.95, "image", IMAGE)
    box(ax, 2.55, 0.3, 4.1, 0.95, "image encoder\n(ResNet, MobileNet, CLIP ...)", IMAGE)
    box(ax, 9.5, 0.3, 1.4, 0.95, "features", IMAGE)
    box(ax, 11.4, 0.3, 1.7, 0.95, "classifier\n2 logits")
    arrow(ax, (1.95, 0.77), (2.55, 0.77))
    arrow(ax, (6.65, 0.77), (9.5, 0.77))
    arrow(ax, (10.9, 0.77), (11.4, 0.77))
    arrow(ax, (10.2, 4.25), (10.2, 1.25), LOSS, "--")
    arrow(ax, (12.25, 4.25), (12.25, 1.25), LOSS, "--")
    ax.text(
        9.82,
        2.45,
        "MSE or cosine,\nlearned projection",
        ha="right",
        va="center",
        fontsize=10,
        color=LOSS,
    )
    ax.text(12.12, 2.45, r"$T^2\,$KL", ha="right", va="center", fontsize=11, color=LOSS)
    ax.text(
        0.25,
        2.45,
        "distillation: the teacher is frozen, in eval mode, and stays outside",
        fontsize=11,
        va="center",
        color=LOSS,
    )


def main(path: str) -> None:
    """Draws everything into ``path``."""
    figure, ax = plt.subplots(figsize=(12.4, 6.4))
    ax.set_xlim(-0.05, 13.45)
    ax.set_ylim(-0.05, 6.85)
    ax.axis("off")
    teacher(ax)
    student(ax)
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.05)


if __name__ == "__main__":
    main(sys.argv[1])
