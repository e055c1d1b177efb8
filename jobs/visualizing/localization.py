"""Whether the heat lies on the defect: share of the heat inside the mask, pointing game."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from utils.tables import cell, spelled

HEADS = {
    "n": "n",
    "heat_in_mask": "heat in mask",
    "center_in_mask": "same, center",
    "pointing": "pointing game",
    "center_pointing": "same, center",
    "pointing_near": "within 15 px",
    "center_near": "same, center",
    "mask_area": "mask area",
    "peak_normal": "peak, normal",
    "peak_anomalous": "peak, anomalous",
}
_COUNTED = "n"
TOLERANCE = 15  # pixels of the network's image, as in the code of Zhang et al.
_PEAKS = ("peak_normal", "peak_anomalous")


def heat_in_mask(heat: np.ndarray, mask: np.ndarray) -> float:
    """Share of the heat that lies inside the mask, in ``[0, 1]``; 0 if there is no heat.

    Args:
        heat: At least 0, shape ``(H, W)``.
        mask: True where the defect is, shape ``(H, W)``.
    """
    total = float(heat.sum(dtype=np.float64))
    return float(heat[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """1 if the hottest pixel lies inside the mask, else 0; 0 if there is no heat.

    If several pixels are equally hot: the share of them inside, which is the mean of a random draw.

    Source:
        Zhang et al. 2018, https://arxiv.org/abs/1608.00507, sec. 4.1. Their code takes a hit within
        15 pixels of the object, too: call it with the mask of :func:`widened`.
    """
    peak = heat.max()
    return float(mask[heat == peak].mean()) if peak > 0 else 0.0


def widened(mask: np.ndarray) -> np.ndarray:
    """A mask ``(H, W)`` and all pixels within ``TOLERANCE`` of it.

    A defect can be thinner than the distance between two places of a map.
    """
    from scipy.ndimage import distance_transform_edt  # here: options are checked without it

    near: np.ndarray = distance_transform_edt(~mask) <= TOLERANCE
    return near


def center_heat(height: int, width: int) -> np.ndarray:
    """A Gaussian in the middle of the image, ``(height, width)``: a guess without the image.

    Its standard deviations are a quarter of the height and of the width.
    """
    y, x = (np.linspace(-2, 2, 2 * side + 1)[1::2] for side in (height, width))
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2)


def locate(heat: np.ndarray, mask: np.ndarray | None, label: int) -> dict[str, float]:
    """The figures of one image: the columns of :func:`localization_table` that apply to it.

    Args:
        heat: Shape ``(H, W)``.
        mask: True where the defect is; ``None``, or nowhere true, if there is no mask.
        label: 0 normal, 1 anomalous.
    """
    figures = {"peak_anomalous" if label else "peak_normal": float(heat.max())}
    if label == 0 or mask is None or not mask.any():
        return figures
    center, near = center_heat(*heat.shape), widened(mask)
    return {
        **figures,
        "heat_in_mask": heat_in_mask(heat, mask),
        "center_in_mask": heat_in_mask(center, mask),
        "pointing": pointing(heat, mask),
        "center_pointing": pointing(center, mask),
        "pointing_near": pointing(heat, near),
        "center_near": pointing(center, near),
        "mask_area": float(mask.mean()),
    }


def localization_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean figures of each object's images, then the unweighted mean over the objects.

    Args:
        rows: Per image ``object`` and the figures of :func:`locate`; NaN if there is none.

    Returns:
        Index: the objects in alphabetical order, then ``mean``. Columns: those of ``HEADS``; ``n``
        is the number of anomalous images with a mask (``mean``: their sum), the shares are in
        percent, the peaks in units of the map. NaN if there is no such image. ``mask_area`` is
        heat in mask and pointing game of heat that is the same everywhere.
    """
    rows = rows.reindex(columns=["object", *list(HEADS)[1:]])
    groups = rows.groupby("object", sort=True)
    table = groups.mean()
    shares = [column for column in list(HEADS)[1:] if column not in _PEAKS]
    table[shares] *= 100
    table.insert(0, _COUNTED, groups["mask_area"].count())
    table.loc["mean"] = {**table.mean(), _COUNTED: table[_COUNTED].sum()}
    return table.astype({_COUNTED: int})


class Chosen(NamedTuple):
    """Two test images of an object, as their positions in the list.

    Attributes:
        anomalous: An anomalous one.
        normal: A normal one; ``None`` if there is none.
    """

    anomalous: int
    normal: int | None


def typical(rows: pd.DataFrame, count: int) -> list[Chosen]:
    """``count`` images per object and label, by score: the median, or evenly spaced quantiles.

    A rule, so that nobody chooses good examples by eye.

    Args:
        rows: Per image ``object``, ``label``, ``score`` and ``has_mask``.
        count: At least 1; fewer if an object has fewer anomalous images. Only those with a mask are
            used, if there are any.

    Returns:
        Objects in alphabetical order, the lowest scores first.
    """
    chosen = []
    for _, group in rows.groupby("object", sort=True):
        ranked = group.sort_values("score", kind="stable")
        anomalous, normal = ranked[ranked["label"] == 1], ranked[ranked["label"] == 0]
        if anomalous["has_mask"].any():
            anomalous = anomalous[anomalous["has_mask"]]
        number = min(count, len(anomalous))
        for place in ((2 * k + 1) / (2 * number) for k in range(number)):
            first, second = (int(place * len(part)) for part in (anomalous, normal))
            other = int(normal.index[second]) if len(normal) else None
            chosen.append(Chosen(int(anomalous.index[first]), other))
    return chosen


def localization_text(table: pd.DataFrame, title: str, about: Mapping[str, Any]) -> str:
    """The result of :func:`localization_table` as a pipe table, and what it shows."""
    shown = pd.DataFrame({"object": [cell(name) for name in table.index]})
    cells = {column: [_spell(column, value) for value in table[column]] for column in HEADS}
    shown = pd.concat([shown, pd.DataFrame(cells)], axis=1)
    shown.columns = pd.Index(["object", *HEADS.values()])
    align = ("left", *("right" for _ in HEADS))
    text = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"{text}\n\n{title}. {_MEANING} {spelled(about)}.\n"


_MEANING = (
    "n: anomalous test images with a mask. Heat in mask: share of the heat inside it. Pointing "
    "game: how often the hottest pixel lies in it, or within 15 pixels of it. Center: the same for "
    "a Gaussian in the middle of the image, which does not depend on the image. Mask area: heat in "
    "mask and pointing game of even heat. "
    "All in percent. Peak: hottest pixel, in units of the map, mean over the images."
)


def _spell(column: str, value: float) -> str:
    if column == _COUNTED:
        return str(value)
    return "-" if pd.isna(value) else f"{value:.{2 if column in _PEAKS else 1}f}"
