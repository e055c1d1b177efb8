"""Changes of pictures: what each does to a picture whose change is known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datasets.changes import CHANGES, object_mask, without_background
from jobs.stress import stress_text


def changed(name, pixels):
    return np.asarray(CHANGES[name](Image.fromarray(pixels), 7)).astype(int)


GRAY = np.full((40, 60, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("20 % brighter", (120, 120, 120)),
        ("20 % darker", (80, 80, 80)),
        ("contrast + 20 %", (100, 100, 100)),
        ("white balance 10 % warmer", (110, 100, 91)),
        ("white balance 10 % colder", (91, 100, 110)),
        ("blur, 0.3 % of the side", (100, 100, 100)),
        ("JPEG quality 50", (100, 100, 100)),
        ("shifted by 5 %", (100, 100, 100)),
        ("turned by 5 degrees", (100, 100, 100)),  # the edge is repeated, no black corners
    ],
)
def test_a_plain_picture(name, color):
    assert np.abs(changed(name, GRAY) - color).max() <= 1


def test_noise_is_that_of_the_seed_and_of_its_strength():
    noise = changed("noise, 8 of 255", GRAY) - 100
    assert noise.std() == pytest.approx(8, rel=0.05)
    assert np.array_equal(noise, changed("noise, 8 of 255", GRAY) - 100)


def test_shifted_and_turned():
    pixels = GRAY.copy()
    pixels[10:14, 30:34] = 200
    rows, columns = np.nonzero(changed("shifted by 5 %", pixels)[..., 0] == 200)
    assert (rows.min(), columns.min(), len(rows)) == (12, 33, 16)  # 5 % of 40 and of 60
    turned = changed("turned by 5 degrees", pixels)
    rows, columns = np.nonzero(turned[..., 0] > 150)
    assert turned.shape == pixels.shape
    # Counterclockwise around (19.5, 29.5): from 8 above and 2 right to 8.1 above and 1.3 right.
    assert rows.mean() == pytest.approx(11.4, abs=0.5)
    assert columns.mean() == pytest.approx(30.8, abs=0.5)


def test_the_background_without_its_texture():
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 60, (80, 120, 3), dtype=np.uint8)
    pixels[20:60, 40:90] = rng.integers(150, 255, (40, 50, 3))
    mask = object_mask(pixels)
    assert mask[20:60, 40:90].all()
    assert mask.sum() == 40 * 50
    plain = np.asarray(without_background(Image.fromarray(pixels), 0))
    assert np.array_equal(plain[mask], pixels[mask])
    assert len(np.unique(plain[~mask], axis=0)) == 1
    full = rng.integers(0, 255, (80, 120, 3), dtype=np.uint8)
    assert object_mask(full) is None
    assert np.array_equal(np.asarray(without_background(Image.fromarray(full), 0)), full)
    assert object_mask(GRAY) is None


def test_the_worst_row_is_named():
    columns = {"auroc": [99.0, 97, 60], "aupr": [98.0, 96, 50], "recall": [90.0, 80, 100]}
    text = stress_text(pd.DataFrame(columns, index=["unchanged", "darker", "turned"]), "student")
    assert "Worst: turned: AUROC 60.0 (was 99.0), AUPR 50.0 (was 98.0), recall 100.0 (was" in text
