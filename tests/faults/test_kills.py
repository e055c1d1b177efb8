"""Runs that are killed or stopped at random moments end like undisturbed ones.

``python -m benchmarks.reliability`` tries more of them.
"""

import random
import signal

import pytest

from benchmarks.reliability import ended_early, undisturbed
from tests.fixtures import write_smoke, write_visa

ENDS = [(signal.SIGKILL, 2), (signal.SIGKILL, 0), (signal.SIGINT, 2), (signal.SIGTERM, 0)]


@pytest.mark.slow
def test_runs_that_are_ended_early(tmp_path):
    write_smoke(tmp_path, write_visa(tmp_path / "visa"))
    right, draw = undisturbed(tmp_path), random.Random(0)
    assert [ended_early(tmp_path, right, *end, draw) for end in ENDS] == [""] * len(ENDS)
