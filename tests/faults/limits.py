"""How much is tried, how long it may take, and what a message may look like.

``make fuzz`` tries a hundred times as much as the tests do.
"""

import os
import signal
from contextlib import contextmanager

MANY = int(os.environ.get("FUZZ", "1"))  # how many times as much as usual is tried


@contextmanager
def limited(seconds):
    """Raises TimeoutError after ``seconds`` of this process's computing."""

    def stop(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def wrong_with(message):
    """What is wrong with a message; empty: nothing."""
    lines = message.split("\n")
    if len(lines) > 25 or max(map(len, lines)) > 600:
        return f"a message of {len(lines)} lines, {len(message)} signs: {message[:300]}"
    if not all(line.isprintable() and line for line in lines):
        return f"signs that spoil a terminal: {message!r}"
    return ""
