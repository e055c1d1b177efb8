"""PatchCore against slow loops in numpy: neighborhoods, coreset, distances, scores, maps, scale."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from models.baselines import patchcore
from models.baselines.patchcore import PatchCore, farthest_points, nearest, neighborhood_mean
from tests.fixtures import random_batch
from utils.errors import UserError
from utils.registry import Component

ENCODER = {"arch": "test_vit", "pre_trained": "false", "train": "none"}
SIZE, GRID = (64, 96), (4, 6)


def fitted(count=5, **options):
    torch.manual_seed(0)
    model = PatchCore(SIZE, True, img_enc=Component("timm", ENCODER), **options)
    model.fit([random_batch(count, *SIZE)], num_images=count, seed=3)
    return model


def normals(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_neighborhood_ends_at_the_border(side):
    tokens = normals((2, 24, 7))
    maps, reach = tokens.numpy().reshape(2, *GRID, 7), side // 2
    expected = np.empty_like(maps)
    for y in range(4):
        for x in range(6):
            around = maps[:, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            expected[:, y, x] = around.mean(axis=(1, 2))
    found = neighborhood_mean(tokens, GRID, side).numpy()
    np.testing.assert_allclose(found, expected.reshape(2, 24, 7), atol=1e-6)


def test_the_coreset_is_that_of_the_algorithm():
    points = normals((80, 5)).double()
    p, chosen = points.numpy(), [17]
    while len(chosen) < 30:
        away = [min(np.linalg.norm(p[i] - p[j]) for j in chosen) for i in range(80)]
        chosen.append(int(np.argmax(away)))
    assert farthest_points(points, 30, 17).tolist() == chosen


def test_no_point_is_chosen_twice():
    points = torch.ones(6, 3)
    assert sorted(farthest_points(points, 6, 2).tolist()) == list(range(6))


def test_a_projection_keeps_distances_roughly():
    points = normals((50, 2000))
    low = patchcore.project(points, 128, torch.Generator().manual_seed(0))
    ratio = torch.pdist(low) / torch.pdist(points)
    assert 0.9 < ratio.mean() < 1.1
    assert ratio.std() < 0.15
    assert patchcore.project(points, 2000, torch.Generator()) is points


@pytest.mark.parametrize("rows", [0, 7, 1000])
def test_nearest_neighbors(rows):
    patches, bank = normals((2, 9, 5)), normals((40, 5), seed=1)
    bank[11] = patches[1, 4]
    distance, index = nearest(patches, bank, rows)
    every = np.linalg.norm(patches.numpy()[:, :, None] - bank.numpy(), axis=-1)
    np.testing.assert_array_equal(index.numpy(), every.argmin(axis=-1))
    np.testing.assert_allclose(distance.numpy(), every.min(axis=-1), atol=1e-6)
    assert distance[1, 4] == 0


def image_distance(patches, bank, score):
    """Equations 6 and 7 for one image, with b = 9, or the mean of the top 1 %, ``(N, D)``."""
    every = np.linalg.norm(patches[:, None] - bank, axis=-1)
    alone = every.min(axis=1)
    if score == "top_fraction":
        return np.sort(alone)[::-1][: max(round(0.01 * len(alone)), 1)].mean(), alone
    worst = int(alone.argmax())
    star = int(every[worst].argmin())
    around = np.argsort(np.linalg.norm(bank - bank[star], axis=-1))[:9]
    weight = 1 - np.exp(alone[worst]) / np.exp(every[worst, around]).sum()
    return weight * alone[worst], alone


@pytest.mark.parametrize("score", ["max", "top_fraction"])
@pytest.mark.parametrize("num_places", [24, 250])
def test_image_distances(score, num_places):
    patches, bank = normals((3, num_places, 5)), normals((60, 5), seed=1)
    distance, index = nearest(patches, bank, 1000)
    found = patchcore.POOLS[score](patches, bank, distance, index)
    wanted = [image_distance(p, bank.numpy(), score)[0] for p in patches.numpy()]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_the_weight_of_large_distances_is_finite():
    patches, bank = 1e4 * normals((1, 4, 5)), normals((20, 5), seed=1)
    distance, index = nearest(patches, bank, 1000)
    assert patchcore.reweighted_max(patches, bank, distance, index).isfinite().all()


@pytest.mark.parametrize("score", ["max", "top_fraction"])
def test_bank_scale_scores_and_maps_of_a_network(score):
    """Everything from the encoder's vectors on, by loops."""
    model, batch = fitted(neighborhood=3, coreset=0.25, score=score), random_batch(5, *SIZE)
    with torch.no_grad():
        tokens = neighborhood_mean(model.img_enc(batch.image), GRID, 3).numpy()
    bank = model.bank.numpy()
    assert len(bank) == 30
    flat, owner = tokens.reshape(-1, tokens.shape[-1]), []
    for row in bank:
        same = np.abs(flat - row).max(axis=1)
        assert same.min() < 1e-6
        owner.append(same.argmin() // 24)
    rows = []
    for i in range(5):
        distance, places = image_distance(tokens[i], bank[np.array(owner) != i], score)
        rows.append((distance, places.max()))
    mean, spread = np.mean(rows, axis=0), np.maximum(np.std(rows, axis=0), 0.01 * np.mean(rows, 0))
    np.testing.assert_allclose(model.scale, np.stack([mean + 3 * spread, spread], 1), rtol=1e-4)

    other = random_batch(3, *SIZE, seed=7)
    with torch.no_grad():
        found, maps = model.score_and_map(other)
        tokens = neighborhood_mean(model.img_enc(other.image), GRID, 3).numpy()
        torch.testing.assert_close(model.score(other), found)
    assert maps.shape == (3, *SIZE)
    for k in range(3):
        distance, places = image_distance(tokens[k], bank, score)
        assert found[k].item() == pytest.approx(share(distance, *model.scale[0]), abs=1e-5)
        # At the middle of each patch of 16 pixels, between four of them, the map is the place's.
        fine = RegularGridInterpolator(
            (np.arange(64), np.arange(96)), maps[k].double().numpy(), method="linear"
        )
        y, x = np.meshgrid(np.arange(7.5, 64, 16), np.arange(7.5, 96, 16), indexing="ij")
        expected = share(places, *model.scale[1]).reshape(GRID)
        np.testing.assert_allclose(fine((y, x)), expected, atol=0.02)


def share(distance, center, width):
    x = (distance - float(center)) / (2 * float(width))
    return (1 + x / np.sqrt(1 + x * x)) / 2


def test_gross_defects_keep_their_order():
    distances = torch.tensor([0.0, 1.0, 10.0, 100.0, 1000.0, 3000.0])
    scores = patchcore.share_of(distances, torch.tensor([10.0, 1.0]))
    assert (scores.diff() > 0).all()
    assert scores[0] > 0
    assert scores[-1] < 1
    assert scores[2] == 0.5


def test_the_same_seed_gives_the_same_bank():
    assert torch.equal(fitted().bank, fitted().bank)


def test_one_image_is_too_few():
    with pytest.raises(UserError, match="1 normal training image; patchcore needs at least 2"):
        fitted(1)


def test_images_that_are_all_the_same_have_a_scale():
    torch.manual_seed(0)
    model = PatchCore(SIZE, True, img_enc=Component("timm", ENCODER), coreset=1.0)
    image = random_batch(1, *SIZE)
    model.fit([image] * 3, num_images=3, seed=0)
    with torch.no_grad():
        assert model.score(image).isfinite().all()
        assert model.score(random_batch(1, *SIZE, seed=1)) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"img_enc": Component("timm", {**ENCODER, "train": "all"})},
            r"write img_enc\.train: none",
        ),
        ({"neighborhood": 2}, "neighborhood must be odd, got 2"),
        ({"coreset": 0.0}, r"coreset must be in \(0, 1\], got 0.0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PatchCore(SIZE, True, **{"img_enc": Component("timm", ENCODER), **options})
