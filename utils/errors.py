"""Errors that a user can fix, as opposed to bugs; and how a command ends."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_PACKAGES = ("benchmarks", "datasets", "demo", "jobs", "models", "utils")
_SIGNALS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGALRM", signal.SIGINT)}
_AGAIN = 5  # seconds, in which a command that is interrupted has usually ended
_SOON = 0.02  # seconds
_MOST_LINES, _MOST_SIGNS = 30, 1000  # of a message, so that its beginning stays on the screen


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


def printable(text: str, width: int = 120) -> str:
    """``text`` on one line of at most ``width`` signs, for messages."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: width + 1])
    return text if len(text) <= width else f"{text[: width - 3]}..."


def shown(message: str) -> str:
    """A message as it is printed: at most a screen, without signs that spoil a terminal."""
    lines = message.split("\n")
    more = len(lines) - _MOST_LINES
    rest = [f"... and {more} more lines"] if more > 0 else []
    return "\n".join([*(printable(line, _MOST_SIGNS) for line in lines[:_MOST_LINES]), *rest])


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
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self.number:
            _again_after(0)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # Objects that were interrupted, such as a progress bar, raise errors when they are deleted.
        sys.unraisablehook = (lambda _: None) if self.number else self.hook

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self.number = number
        if _is_importing(frame) and _again_after(_SOON):
            return  # modules in C++ end the process where an import of theirs is interrupted
        # Code of libraries may lose the interrupt: then it comes again.
        _again_after(_AGAIN)
        raise KeyboardInterrupt

    def unraisable(self, problem: Any) -> None:
        """Raises an interrupt again that was raised in a destructor, where it has no effect."""
        if not self.number:
            self.hook(problem)
        elif problem.exc_type is KeyboardInterrupt:
            _again_after(_SOON)


def _again_after(seconds: float) -> bool:
    """Interrupts after ``seconds``, and again and again; 0: no more. Whether it can."""
    can = hasattr(signal, "setitimer")  # not on Windows
    if can:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN if seconds else 0)
    return can


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported where the program stands."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def run_command(command: Callable[[], None]) -> int:
    """Runs a command.

    Returns:
        Its exit status: 0 done, 2 something the user can fix, 130 interrupted (SIGINT), 143
        terminated (SIGTERM).
    """
    progress = "interrupted"
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what it cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    with _Signals() as signals:
        try:
            command()
        except KeyboardInterrupt as error:
            signals.number = signals.number or signal.SIGINT
            progress = str(error) if isinstance(error, Interrupted) else progress
            _close_bars()  # here: the error still holds a bar that was interrupted in its making
        except Exception as error:
            if not signals.number:  # otherwise a library has turned the interrupt into an error
                if (problem := _explained(error)) is None:
                    raise
                sys.stderr.write(f"{shown(problem)}\n")
                return 2
        if signals.number:
            _close_bars()
            sys.stderr.write(f"{progress}; run the same command again to resume\n")
            return 128 + signals.number
    return 0


def _close_bars() -> None:
    """Removes the progress bars that an interrupt left behind, so that a message stands alone."""
    if "tqdm" in sys.modules:  # otherwise there is none, and the import would take its time
        from tqdm import tqdm

        bars = [bar for bar in getattr(tqdm, "_instances", ()) if hasattr(bar, "sp")]
        for bar in sorted(bars, key=lambda bar: -abs(bar.pos)):  # the lowest line first
            if not hasattr(bar, "start_t"):  # it may have been drawn, and has no times yet
                bar.start_t = bar.last_print_t = 0
            bar.close()


def _is_part_of_program(name: object) -> bool:
    """Whether a file belongs to this program or to a library: then it is missing by mistake."""
    file = Path(os.fsdecode(name)).absolute() if isinstance(name, str | bytes | Path) else Path()
    own = Path(__file__).parents[1]
    folders = [*(own / name for name in _PACKAGES), Path(sys.prefix), Path(sys.base_prefix) / "lib"]
    return any(file.is_relative_to(folder) for folder in folders)


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
    if "getpwuid" in str(error):
        return "this user has no name, which PyTorch needs here; set the variable USER to any name"
    if isinstance(error, OSError) and (error.filename or error.errno in _NO_ROOM):
        # Whatever is not handled where it comes up: a folder that vanished, lost permissions.
        if error.errno == errno.ENOENT and _is_part_of_program(error.filename):
            return None
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}cannot be used ({error.strerror}); fix this and run the same command again"
    return None
