"""What is written in a picture can be read: nothing is cut off, nothing lies on something else."""

from itertools import combinations

import numpy as np
import pytest

from jobs.visualizing import pictures
from jobs.visualizing.pictures import Column, Panel, draw_heat_maps

NOTE = (
    "Per object the anomalous and the normal test image of evenly spaced ranks of the score. Green "
    "line: border of the mask. Score: probability of “anomalous”."
)


def panel(peak):
    heat = np.zeros((8, 12))
    heat[2, 3] = peak
    return Panel(np.full((16, 24, 3), 90, np.uint8), heat, heat > 0, 0.5)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures, original = [], pictures._png
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or original(figure))
    return figures


def test_names_are_no_formulas(drawn):
    draw_heat_maps([Column(r"x$\foo$y", "$", panel(1), None)], NOTE)
    assert drawn[0].texts[0].get_text() == r"x$\foo$y"


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("peak", [0.2, 0.0187, 12.0])
def test_a_long_note_and_the_numbers_of_the_scale_can_be_read(drawn, count, peak):
    columns = [Column("fryum", "burnt", panel(peak), panel(peak / 9)) for _ in range(count)]
    draw_heat_maps(columns, NOTE)
    (figure,) = drawn
    whole = figure.bbox
    note = next(text for text in figure.texts if "Green" in text.get_text())
    assert note.get_text().replace("\n", " ") == NOTE
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= whole.x0, text
        assert box.y0 >= whole.y0, text
        assert box.x1 <= whole.x1, text
    bar = figure.axes[-1]
    numbers = [t.get_window_extent() for t in bar.get_xticklabels() if t.get_text()]
    assert len(numbers) > 2
    for one, other in combinations([*numbers, note.get_window_extent()], 2):
        assert not one.overlaps(other)
