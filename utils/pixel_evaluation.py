"""Pixel AUROC and AUPRO, computed image by image in constant memory."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from utils.batch import Batch

PIXEL_METRICS = ("pixel_auroc", "aupro")
FPR_LIMIT = 0.3
_MOST_BINS = 1 << 18  # of one object
_EIGHT_NEIGHBORS = np.ones((3, 3), dtype=int)


def bins_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """An integer for each value, so that the integers have the order of the values.

    The bits of positive float32 numbers, read as integers, have the order of the numbers; those of
    negative numbers have the opposite order.

    Raises:
        ValueError: If a value is not a number.
    """
    if np.isnan(values).any():
        raise ValueError("an anomaly map holds NaN")
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


class Histogram:
    """Number of normal pixels, and share of the anomalous regions, at each score.

    ``regions`` counts them at the size of the maps; ``drawn`` is how many there are in the masks'
    files, and is set by whoever has read those.

    Exact as long as there are at most 262,144 different scores (less than 50 MB, including those
    that are still to be added). With more, neighboring scores are merged into bins that hold about
    1 / 131,072 of the pixels each, and count as equal. This is about the largest possible error.
    """

    def __init__(self) -> None:
        self.regions, self.masks, self.left_out, self.drawn = 0, 0, 0, 0
        self._bins = np.empty(0, np.uint32)
        self._weights = np.empty((3, 0))  # normal pixels, anomalous pixels, shares of regions
        self._waiting: list[tuple[NDArray[np.uint32], NDArray[np.float64]]] = []

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[Any], label: int) -> None:
        """Adds one image.

        Args:
            anomaly_map: Shape ``(H, W)``, higher is more anomalous.
            mask: The same shape; 1 where it is anomalous.
            label: 0 normal, 1 anomalous. An anomalous image with an empty mask is only counted in
                ``left_out``, because it is not known which of its pixels are normal.
        """
        areas, count = ndimage.label(mask == 1, structure=_EIGHT_NEIGHBORS)
        if label and not count:
            self.left_out += 1
            return
        self.masks += label
        self.regions += count
        size = np.bincount(areas.ravel())
        share = np.concatenate([[0.0], 1 / size[1:]])[areas.ravel()]  # of its region's area
        is_anomalous = areas.ravel() > 0
        bins, where = np.unique(bins_of(anomaly_map).ravel(), return_inverse=True)
        weights = [np.bincount(where, w, len(bins)) for w in (~is_anomalous, is_anomalous, share)]
        self._waiting.append((bins, np.stack(weights)))
        if sum(len(bins) for bins, _ in self._waiting) > 4 * _MOST_BINS:
            self._merge_bins()

    def merge(self, other: "Histogram") -> None:
        """Adds the images of another histogram."""
        self.regions += other.regions
        self.masks += other.masks
        self.left_out += other.left_out
        self.drawn += other.drawn
        self._waiting += [*other._waiting, (other._bins, other._weights)]
        self._merge_bins()

    def __getstate__(self) -> dict[str, Any]:
        """The state for another process; it is merged first, which makes it ten times smaller."""
        self._merge_bins()
        return vars(self)

    def _merge_bins(self) -> None:
        parts = [(self._bins, self._weights), *self._waiting]
        bins = np.concatenate([bins for bins, _ in parts])
        weights = np.concatenate([weights for _, weights in parts], axis=1)
        self._bins, where = np.unique(bins, return_inverse=True)
        self._weights = _sums(weights, where)
        self._waiting = []
        if len(self._bins) > _MOST_BINS:
            shares = self._weights / np.maximum(self._weights.sum(axis=1, keepdims=True), 1)
            group = (shares.mean(axis=0).cumsum() * (_MOST_BINS // 2)).astype(int)
            _, where, count = np.unique(group, return_inverse=True, return_counts=True)
            middle = count.cumsum() - (count + 1) // 2
            self._bins, self._weights = self._bins[middle], _sums(self._weights, where)

    def figures(self) -> dict[str, float]:
        """Pixel AUROC and AUPRO in percent; NaN without regions or without normal pixels.

        Source:
            PRO: Bergmann et al. 2020, "Uninformed Students", https://arxiv.org/abs/1911.02357: the
            overlap with each connected region, averaged over the regions of all images, against the
            share of normal pixels above the same threshold; integrated up to 0.3 and divided by
            0.3. Each pixel counts 1 / area of its region, so that one histogram holds the sum over
            all regions at each threshold.
        """
        self._merge_bins()
        falling = self._weights[:, ::-1].cumsum(axis=1)  # at or above each bin, from the top down
        if not self.regions or not falling[0, -1]:
            return dict.fromkeys(PIXEL_METRICS, float("nan"))
        start = np.zeros((3, 1))
        fpr, tpr, pro = np.concatenate([start, falling / falling[:, -1:]], axis=1)
        return {
            "pixel_auroc": 100 * _area(fpr, tpr, 1.0),
            "aupro": 100 * _area(fpr, pro, FPR_LIMIT),
        }


def _sums(weights: NDArray[np.float64], where: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.stack([np.bincount(where, row) for row in weights])


def _area(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Mean height of the curve from 0 to ``limit``; straight lines between its points."""
    inside = x <= limit
    end = np.interp(limit, x, y)
    heights, places = np.append(y[inside], end), np.append(x[inside], limit)
    return float(np.trapezoid(heights, places) / limit)


class PixelFigures:
    """Pixel AUROC and AUPRO of each object, at the size of the maps and of the resized masks."""

    def __init__(self) -> None:
        self.objects: dict[str, Histogram] = {}

    def add(self, maps: Tensor, batch: Batch) -> None:
        """Adds a batch with masks and its anomaly maps, shape ``(B, H, W)``."""
        assert batch.mask is not None
        arrays = maps.float().cpu().numpy(), batch.mask.cpu().numpy(), batch.label.tolist()
        for name, anomaly_map, mask, label in zip(batch.object, *arrays, strict=True):
            self.objects.setdefault(name, Histogram()).add(anomaly_map, mask, label)

    @classmethod
    def merged(cls, parts: Iterable["PixelFigures"]) -> "PixelFigures":
        """The figures of the images of all ``parts``."""
        whole = cls()
        for part in parts:
            for name, histogram in part.objects.items():
                whole.objects.setdefault(name, Histogram()).merge(histogram)
        return whole

    def table(self) -> pd.DataFrame:
        """One row per object in alphabetical order, then ``mean``.

        Returns:
            Columns ``pixel_auroc`` and ``aupro`` in percent, ``masks`` (number of anomalous images
            with a mask), ``without_mask`` (of those without, which do not count), ``regions`` (of
            the resized masks) and ``regions_drawn`` (of the masks' files). An object without any
            mask has NaN and is left out of the means; in the row ``mean`` the counts are sums.
        """
        counts = {
            "masks": "masks",
            "without_mask": "left_out",
            "regions": "regions",
            "regions_drawn": "drawn",
        }
        rows = {
            name: {**h.figures(), **{column: getattr(h, part) for column, part in counts.items()}}
            for name, h in sorted(self.objects.items())
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.loc["mean"] = {**table[list(PIXEL_METRICS)].mean(), **table[list(counts)].sum()}
        return table.astype(dict.fromkeys(counts, int))
