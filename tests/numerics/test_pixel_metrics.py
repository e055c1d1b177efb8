"""Pixel AUROC and AUPRO against scikit-learn, scikit-image and loops over every threshold."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from skimage import measure
from sklearn.metrics import roc_auc_score

from utils.batch import UNKNOWN, Batch
from utils.pixel_evaluation import FPR_LIMIT, Histogram, PixelFigures, bins_of


def regions_of(mask):
    """The sets of touching anomalous pixels, corners included."""
    labels = measure.label(mask == 1)
    return [list(map(tuple, np.argwhere(labels == i + 1))) for i in range(labels.max())]


def slow_aupro(maps, masks):
    """Every distinct value is a threshold; areas of the polygon under the curve, cut at 0.3."""
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlaps = [
            np.mean([m[p] >= threshold for p in region])
            for m, mask in zip(maps, masks, strict=True)
            for region in regions_of(mask)
        ]
        points.append((float((maps[masks == 0] >= threshold).mean()), float(np.mean(overlaps))))
    total = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > FPR_LIMIT and x1 > x0:
            y1 = y0 + (y1 - y0) * (FPR_LIMIT - x0) / (x1 - x0)
            x1 = FPR_LIMIT
        total += max(x1 - x0, 0.0) * (y0 + y1) / 2
        if x1 >= FPR_LIMIT:
            break
    return 100 * total / FPR_LIMIT


def example(seed, images=4):
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, 12, 15), np.uint8)
    masks[0, 1:4, 2:5] = masks[0, 4, 5] = 1  # touches by a corner: one region
    masks[0, 9:11, 10:14] = masks[1, 0, 0] = masks[2, 3:11, 3:9] = 1
    maps = rng.normal(size=masks.shape) + masks
    return maps.astype(np.float32), masks


def histogram(maps, masks):
    found = Histogram()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        found.add(anomaly_map, mask, int(mask.any()))
    return found


def test_what_travels_between_processes_is_put_together():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 9, (20, 60, 60)).astype(np.float32)
    masks = rng.integers(0, 2, maps.shape).astype(np.uint8)
    found = histogram(maps, masks)
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert pickle.loads(sent).figures() == histogram(maps, masks).figures()


SCALES = {
    "as they are": lambda m: m,
    "ties": lambda m: np.round(m * 2) / 2,
    "many ties": np.sign,
    "probabilities close to a half": lambda m: (0.5 + m / 1000).astype(np.float32),
    "large": lambda m: 1e6 + 1e5 * m,
    "all the same": lambda m: m * 0,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_against_scikit_learn_and_slow_loops(seed, scale):
    maps, masks = example(seed)
    maps = scale(maps).astype(np.float32)
    found = histogram(maps, masks)
    assert found.regions == 4
    figures = found.figures()
    auroc = 100 * roc_auc_score(masks.ravel(), maps.ravel())
    assert figures["pixel_auroc"] == pytest.approx(auroc, abs=1e-9)
    assert figures["aupro"] == pytest.approx(slow_aupro(maps, masks), abs=1e-9)


def test_worked_example():
    """One region of two pixels, one of one; thresholds 9, 8 and below catch half, then all."""
    mask = np.array([[1, 1, 0, 0, 0, 0, 0, 1]])
    anomaly_map = np.array([[9, 5, 8, 1, 1, 1, 1, 9]], np.float32)
    figures = histogram([anomaly_map], [mask]).figures()
    # PRO (0.5 + 1) / 2 until the normal 8 (FPR 0.2), then 1: 0.2 * 0.75 + 0.1 * 1
    assert figures["aupro"] == pytest.approx(100 * (0.2 * 0.75 + 0.1 * 1.0) / 0.3)
    assert figures["pixel_auroc"] == pytest.approx(100 * (2 * 5 + 4) / (3 * 5))


def test_bins_are_in_the_order_of_the_numbers():
    values = np.array([-np.inf, -3e9, -1, -1e-30, 0, 1e-30, 0.5, 0.5001, 1, 7e20, np.inf])
    bins = bins_of(values.astype(np.float32)).astype(int)
    assert (np.diff(bins) > 0).all()
    assert bins_of(np.float32([-0.0])) == bins_of(np.float32([0.0]))
    with pytest.raises(ValueError, match="NaN"):
        bins_of(np.float32([np.nan]))


@pytest.mark.parametrize("scale", [lambda m: m, lambda m: 1 / (1 + np.exp(-8 * m))])
def test_memory_does_not_grow_with_the_images_and_hardly_a_figure_moves(monkeypatch, scale):
    rng = np.random.default_rng(0)
    masks = np.zeros((30, 40, 40), np.uint8)
    masks[::2, 5:15, 20:30] = 1
    maps = scale(rng.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    exact = histogram(maps, masks).figures()
    monkeypatch.setattr("utils.pixel_evaluation._MOST_BINS", 4000)
    found = Histogram()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        found.add(anomaly_map, mask, int(mask.any()))
        assert len(found._bins) + sum(len(bins) for bins, _ in found._waiting) <= 20000
    assert len(found._bins) <= 4000
    for name, value in found.figures().items():
        assert value == pytest.approx(exact[name], abs=0.05)  # 1 / 2000 of the pixels
    other = histogram(maps[:5], masks[:5])
    other.merge(found)
    again = histogram(np.concatenate([maps, maps[:5]]), np.concatenate([masks, masks[:5]]))
    assert other.figures() == pytest.approx(again.figures(), abs=0.05)


def batch_of(masks, label, name):
    count = len(masks)
    return Batch(
        image=torch.zeros(count, 3, *masks.shape[1:], dtype=torch.uint8),
        label=torch.tensor(label),
        object=[name] * count,
        path=[str(i) for i in range(count)],
        mask=torch.from_numpy(masks),
    )


def test_objects_without_masks_have_no_figures_and_images_without_one_are_left_out():
    maps, masks = example(1)
    partly = masks.copy()
    partly[1] = UNKNOWN
    nothing = np.full_like(masks, UNKNOWN)
    figures = PixelFigures()
    figures.add(torch.from_numpy(maps), batch_of(masks, [1, 1, 1, 0], "a"))
    figures.add(torch.from_numpy(maps), batch_of(partly, [1, 1, 1, 0], "b"))
    figures.add(torch.from_numpy(maps), batch_of(nothing, [1, 1, 1, 1], "c"))
    table = figures.table()
    assert table.index.tolist() == ["a", "b", "c", "mean"]
    assert table["masks"].tolist() == [3, 2, 0, 5]
    assert table["without_mask"].tolist() == [0, 1, 4, 5]
    assert np.isnan(table.loc["c", "aupro"])
    keep = [0, 2, 3]
    wanted = 100 * roc_auc_score(masks[keep].ravel(), maps[keep].ravel())
    assert table.loc["b", "pixel_auroc"] == pytest.approx(wanted, abs=0.01)
    assert table.loc["mean", "aupro"] == pytest.approx(table["aupro"].iloc[:2].mean())


def test_parts_put_together_are_the_whole():
    maps, masks = example(2)
    whole, parts = PixelFigures(), [PixelFigures(), PixelFigures()]
    label = masks.any(axis=(1, 2)).astype(int).tolist()
    whole.add(torch.from_numpy(maps), batch_of(masks, label, "a"))
    for part, rows in zip(parts, (slice(0, 3), slice(3, 4)), strict=True):
        part.add(torch.from_numpy(maps[rows]), batch_of(masks[rows], label[rows], "a"))
    assert PixelFigures.merged(parts).table().equals(whole.table())
