"""Errors that a user can fix, as opposed to bugs; and how a command ends."""

import _thread
import errno
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


class UserError(Exception):
    """The run cannot start or continue because of something that the user can change.

    The commands print the message alone and exit with status 2; any other exception is a bug and
    keeps its traceback.

    Args:
        message: What is wrong, and how to fix it.
        option: The argument that it is about, by its own name; where the function was called for
            a section of the options, that section knows its whole name.
    """

    def __init__(self, message: str, *, option: str = "") -> None:
        super().__init__(message)
        self.option = option

    def within(self, section: str) -> "UserError":
        """The same error, which begins with the option's whole name: ``dataset.dir: ...``."""
        return UserError(f"{section}.{self.option}: {self}") if self.option and section else self


class Interrupted(KeyboardInterrupt):
    """An interrupt of a command, with its progress in the message."""


class NothingToShowError(ValueError):
    """A network has nothing that a picture could show; the message says why."""


class _Signals:
    """Within this context SIGINT and SIGTERM raise KeyboardInterrupt, unless they are ignored.

    Attributes:
        number: Number of the signal that was received; 0: none.
    """

    def __init__(self) -> None:
        self.number = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        self.hook, sys.unraisablehook = sys.unraisablehook, self.unraisable
        if threading.current_thread() is threading.main_thread():  # only this one may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # Objects that were interrupted, such as a progress bar, raise errors when they are deleted.
        sys.unraisablehook = (lambda _: None) if self.number else self.hook

    def handle(self, number: int, _: FrameType | None) -> None:
        self.number = number
        raise KeyboardInterrupt

    def unraisable(self, problem: Any) -> None:
        """Raises an interrupt again that was raised in a destructor, where it has no effect."""
        if not self.number:
            self.hook(problem)
        elif problem.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, _thread.interrupt_main, [self.number]).start()


def run_command(command: Callable[[], None]) -> int:
    """Runs a command.

    Returns:
        Its exit status: 0 done, 2 something the user can fix, 130 interrupted (SIGINT), 143
        terminated (SIGTERM).
    """
    progress = "interrupted"
    with _Signals() as signals:
        try:
            command()
        except KeyboardInterrupt as error:
            signals.number = signals.number or signal.SIGINT
            progress = str(error) if isinstance(error, Interrupted) else progress
        except Exception as error:
            if not signals.number:  # otherwise a library has turned the interrupt into an error
                if (problem := _explained(error)) is None:
                    raise
                sys.stderr.write(f"{problem}\n")
                return 2
        if signals.number:
            sys.stderr.write(f"{progress}; run the same command again to resume\n")
            return 128 + signals.number
    return 0


def _explained(error: Exception) -> str | None:
    """One line about what the user can fix; ``None``: the error is a bug."""
    from utils.memory import out_of_memory  # which needs UserError

    if isinstance(error, UserError):
        return str(error)
    if (problem := out_of_memory(error)) is not None:
        return f"{problem}; a smaller image.size or engine.batch_size needs less"
    if "DataLoader worker" in str(error):  # PyTorch's text of a process that was killed
        return (
            "a loader process was ended by the system, perhaps because memory ran out; run the "
            "same command again to resume; engine.num_workers=0 needs less"
        )
    if isinstance(error, OSError) and (error.filename or error.errno in _NO_ROOM):
        # Whatever is not handled where it comes up: a folder that vanished, lost permissions.
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}cannot be used ({error.strerror}); fix this and run the same command again"
    return None
