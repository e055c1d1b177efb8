"""Damage to files, drawn by hypothesis, and how they are read."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.faults.limits import MANY, limited
from utils.errors import UserError

SECONDS = 10  # of computing, for one file


def tries(count):
    """Settings for a test that tries ``count`` examples, always the same ones."""
    return settings(
        max_examples=count * MANY,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def damaged(content, pieces):
    """``content``, perhaps cut off, with up to six pieces put in or written over it."""
    place = st.floats(0, 1, exclude_max=True)
    edits = st.lists(st.tuples(place, pieces, st.booleans()), max_size=6)

    def changed(edits, end):
        bad = bytearray(content)
        for at, piece, is_over in edits:
            start = int(at * len(bad))
            bad[start : start + len(piece) * is_over] = piece
        return bytes(bad[: int(end * len(bad))])

    return st.builds(changed, edits, st.one_of(st.just(1.0), st.floats(0, 1)))


def read(call, *arguments):
    """What ``call`` returns in time; ``None`` if it refuses."""
    try:
        with limited(SECONDS):
            return call(*arguments)
    except UserError:  # its text is made fit for a terminal where it is printed
        return None
