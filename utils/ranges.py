"""The numbers that an option may have, declared once: in the annotation of its type."""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have, declared with its type.

    Example:
        ``dropout: Annotated[float, Range(0, 1, "[)")] = 0.5`` takes 0, but not 1.

    Attributes:
        low: The smallest number.
        high: The largest number.
        ends: Which ends belong to the range, as in interval notation: ``[)`` is without ``high``.
    """

    low: float
    high: float = math.inf
    ends: str = "[]"

    def __contains__(self, number: float) -> bool:
        """Whether ``number`` lies in the range."""
        above = number >= self.low if self.ends[0] == "[" else number > self.low
        return above and (number <= self.high if self.ends[1] == "]" else number < self.high)

    def __str__(self) -> str:
        """As in "at least 1", "more than 0" or "in [0, 1)"."""
        if math.isinf(self.high):
            return f"{'at least' if self.ends[0] == '[' else 'more than'} {self.low}"
        return f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}"


Count = Annotated[int, Range(1, 1_000_000)]
Layers = Annotated[int, Range(1, 100)]
Size = Annotated[int, Range(1, 65_536)]  # of a vector inside of a network
Positive = Annotated[float, Range(0, ends="(]")]
NotNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, "[)")]
Fraction = Annotated[float, Range(0, 1, "()")]


def range_of(kind: Any) -> Range | None:
    """The range of this type, or ``None``; ``X | None`` has that of X."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Annotated and isinstance(get_args(part)[1], Range):
            return get_args(part)[1]
    return None


def check_ranges(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: a keyword argument outside of its declared range raises ValueError.

    Options of a file are checked when they are read; this is for callers in Python.
    """
    parameters = inspect.signature(function).parameters.values()
    ranges = {p.name: limits for p in parameters if (limits := range_of(p.annotation))}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in kwargs.items():
            if name in ranges and isinstance(value, int | float) and value not in ranges[name]:
                raise ValueError(f"{name} must be {ranges[name]}, got {value}")
        return function(*args, **kwargs)

    return checked
