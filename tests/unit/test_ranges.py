"""Ranges of numbers, declared in annotations."""

from typing import Annotated

import pytest

from utils.ranges import BelowOne, Count, Positive, Range, check_ranges, range_of


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "text"),
    [
        (Range(0, 1), (0, 0.5, 1), (-1e-9, 1.1, float("nan")), "in [0, 1]"),
        (Range(0, 1, "[)"), (0, 0.99), (-1, 1, float("inf")), "in [0, 1)"),
        (Range(0, 1, "(]"), (1e-300, 1), (0, 2), "in (0, 1]"),
        (Range(0, 1, "()"), (0.5,), (0, 1), "in (0, 1)"),
        (Range(1), (1, 10**30), (0, -1), "at least 1"),
        (Range(0, ends="(]"), (1e-300, 10**30), (0, -1), "more than 0"),
    ],
)
def test_ranges(limits, inside, outside, text):
    assert all(number in limits for number in inside)
    assert not any(number in limits for number in outside)
    assert str(limits) == text


def test_ranges_are_found_in_annotations():
    assert range_of(Count) == Range(1, 1_000_000)
    assert range_of(Annotated[float, Range(3)] | None) == Range(3)
    assert range_of(int) is None
    assert range_of(Annotated[str, {"a": 1}]) is None


@check_ranges
def dropped(count: int, *, share: BelowOne = 0.5, weight: Positive | None = None) -> float:
    """An entry of a table."""
    return count * share * (weight or 1)


def test_arguments_are_checked_and_nothing_else_changes():
    assert dropped(4) == 2
    assert dropped(4, share=0.25, weight=None) == 1
    assert (dropped.__name__, dropped.__doc__) == ("dropped", "An entry of a table.")
    with pytest.raises(ValueError, match=r"^share must be in \[0, 1\), got 1$"):
        dropped(4, share=1)
    with pytest.raises(ValueError, match=r"^weight must be more than 0, got -2.0$"):
        dropped(4, weight=-2.0)
