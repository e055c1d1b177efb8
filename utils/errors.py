"""Errors a user can fix, kept apart from bugs."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """The run cannot start or go on because of something the user can change.

    The commands print the message alone and exit with status 2; any other exception is a bug and
    keeps its traceback.
    """


class NothingToShowError(ValueError):
    """A network has not got what a picture would show; the message says what."""


def run_command(command: Callable[[], None]) -> int:
    """Exit status of ``command``: 0 done, 2 something the user can fix, 130 interrupted."""
    try:
        command()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        # What was cut off half-made, such as a progress bar, would complain while it is taken down.
        sys.unraisablehook = lambda _: None
        sys.stderr.write("interrupted; start the same command again to go on\n")
        return 130
    return 0
