"""What is written in a picture can be read: nothing is cut off, nothing lies on something else."""

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from jobs.visualizing import pictures
from jobs.visualizing.pictures import (
    LEAST_HEAT,
    MOST_HEIGHT,
    MOST_ROWS,
    Pair,
    Panel,
    Words,
    draw_heat_maps,
    draw_words,
)

NOTE = (
    "Per object the anomalous and the normal test image of evenly spaced ranks of the score. Green "
    "line: border of the mask. Score: probability of “anomalous”. This note is longer than a line."
)


def panel(peak, *, shape=(8, 12), has_mask=True, file="nut/Data/Images/Anomaly/012.JPG"):
    heat = np.zeros(shape)
    heat[2, 3] = peak
    image = np.full((*(2 * side for side in shape), 3), 90, np.uint8)
    return Panel(image, heat, heat > 0 if has_mask else None, 0.5, file)


def pair(peak=0.5, **options):
    title, subtitle = "an object of long name", "corner or edge breakage, small scratches, burnt"
    return Pair(title, subtitle, panel(peak, **options), panel(peak / 9))


def block(num_words, shape=(8, 12)):
    words = ["breakage"] * num_words
    return Words(" ".join(words), words, [panel(1, shape=shape, file="a/012.JPG")] * num_words)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures, original = [], pictures._png

    def png(figure, *args):
        figures.append(figure)
        return original(figure, *args)

    monkeypatch.setattr(pictures, "_png", png)
    return figures


@pytest.fixture
def planned(monkeypatch):
    """The figures, without the time that it takes to draw them."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def columns(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_names_are_no_formulas(planned):
    draw_heat_maps([Pair(r"x$\foo$y", "$", panel(1, file="a$b$.png"), None)], NOTE)
    assert {r"x$\foo$y", "$", "a$b$.png"} <= {text.get_text() for text in texts(planned[0])}


WIDE, SQUARE, TALL = (8, 48), (8, 8), (48, 12)


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, TALL), (2, WIDE), pytest.param(MOST_ROWS, (12, 8), marks=pytest.mark.slow)],
)
def test_all_that_is_written_can_be_read(drawn, count, shape):
    content = draw_heat_maps([pair(shape=shape) for _ in range(count)], NOTE)
    (figure,) = drawn
    whole = figure.bbox
    boxes = [text.get_window_extent() for text in texts(figure)]
    for text, box in zip(texts(figure), boxes, strict=True):
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    picture = Image.open(BytesIO(content))
    assert picture.width == 1245
    assert picture.height <= MOST_HEIGHT * 150
    assert figure.axes[1].get_window_extent().height > 30  # pixels


@pytest.mark.parametrize("peak", [0.0187, 12.0])
def test_the_numbers_of_the_scale_can_be_read(drawn, peak):
    draw_heat_maps([pair(peak)] * 2, NOTE)
    bar = drawn[0].axes[-1]
    numbers = [t.get_window_extent() for t in bar.get_xticklabels() if t.get_text()]
    assert len(numbers) > 2
    assert not any(one.overlaps(other) for one, other in combinations(numbers, 2))
    assert bar.get_xlim() == (0, pytest.approx(peak))


def test_almost_no_heat_looks_like_none(planned):
    """A scale that ended at its own peak would let the least heat glow."""
    draw_heat_maps([pair(0.0004)], NOTE)
    bar = planned[0].axes[-1]
    assert bar.get_xlim() == (0, LEAST_HEAT)
    assert bar.get_xlabel() == "heat, in units of the anomalous logit: none above 0.0004"


def test_a_picture_names_its_files(planned):
    draw_heat_maps([pair(file="object/Data/Images/Anomaly/012.JPG")], NOTE)
    assert "…/Images/Anomaly/012.JPG" in {text.get_text() for text in texts(planned[0])}
    draw_words([block(5)], NOTE)
    assert "a/012.JPG" in {text.get_text() for text in texts(planned[1])}


def test_columns_without_content_are_left_out(planned):
    every = ["anomalous image", "mask", "heat map", "normal image", "its heat map"]
    draw_heat_maps([pair(), pair(has_mask=False)], NOTE)
    assert columns(planned[0]) == every
    assert "no mask" in {text.get_text() for text in texts(planned[0])}
    draw_heat_maps([pair(has_mask=False)], NOTE)
    assert columns(planned[1]) == [name for name in every if name != "mask"]
    draw_heat_maps([Pair("nut", "burnt", panel(1), None)], NOTE)
    assert columns(planned[2]) == every[:3]


@pytest.mark.parametrize(
    ("num_words", "shape"),
    [
        (2, WIDE),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in ((9, SQUARE), (30, TALL))),
    ],
)
def test_words_can_be_read(drawn, num_words, shape):
    content = draw_words([block(num_words, shape) for _ in range(2)], NOTE)
    (figure,) = drawn
    whole = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text
    maps = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(maps) % num_words == 0
    picture = Image.open(BytesIO(content))
    assert (picture.width, picture.height <= MOST_HEIGHT * 150) == (1245, True)
    titles = [ax.title for ax in maps] + [ax._left_title for ax in maps]
    boxes = [t.get_window_extent() for t in titles if t.get_text()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
