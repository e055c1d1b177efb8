"""The table of predictions: written row by row, and continued after it was cut off."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """What comes out for one picture, and a row of the table.

    Attributes:
        path: Its file, as it was named.
        score: As ``test.py`` writes it; ``None``: the picture could not be read.
        probability: Calibrated probability of "anomalous".
        threshold: The score from which the picture is anomalous; ``None``: there is none.
        verdict: ``anomalous``, ``normal`` or ``unsure``; empty: there is none.
        object: The object it shows; empty: not known.
        model: Name of the model; what stands after the point stands for threshold and calibration.
        error: Why it could not be read; empty: it could.
    """

    path: str
    score: float | None = None
    probability: float | None = None
    threshold: float | None = None
    verdict: str = ""
    object: str = ""
    model: str = ""
    error: str = ""


COLUMNS = [field.name for field in fields(Prediction)]


class PredictionTable:
    """``predictions.csv`` in a folder.

    Args:
        folder: The folder.
        model: Name of the model; one table holds the predictions of one model.

    Attributes:
        file: The table.
        done: Verdict of each picture that is in it, ``error`` of those that could not be read.

    Raises:
        UserError: If it cannot be read or written, or holds something else.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.file, self.model = folder / "predictions.csv", model
        self.done: dict[str, str] = {}
        with self._writing():
            if self.file.exists():
                self._read()
            else:
                self.file.write_text(_lines([COLUMNS]), encoding="utf-8")

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, model: str) -> "Iterator[PredictionTable]":
        """The table; no other process writes it meanwhile.

        Raises:
            UserError: As the table, or if another process has it open.
        """
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{folder}: another process writes there; name another folder with --out"
            ) from error
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            yield cls(folder, model)
        finally:
            lock.release()

    def add(self, rows: Sequence[Prediction]) -> list[Prediction]:
        """Adds the rows that are not there yet, and returns them."""
        new = [row for row in rows if row.path not in self.done]
        with self._writing(), self.file.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines([list(asdict(row).values()) for row in new]))
        self.done |= {row.path: "error" if row.error else row.verdict for row in new}
        return new

    def counts(self, paths: Sequence[str]) -> dict[str, int]:
        """How many of these pictures there are of each verdict."""
        return dict(Counter(self.done[path] for path in paths if path in self.done))

    def _read(self) -> None:
        """Reads what is done; a last row that was cut off is removed."""
        with self.file.open("r+b") as file:
            content, head = file.read(), _lines([COLUMNS]).encode()
            if not (content.startswith(head) or head.startswith(content)):
                raise UserError(
                    f"{self.file}: is no table of predictions; name another folder with --out"
                )
            whole = content[: content.rfind(b"\n") + 1] or head
            file.seek(0)
            file.write(whole)
            file.truncate()
        rows = list(csv.DictReader(io.StringIO(whole.decode("utf-8"), newline="")))
        other = next((row for row in rows if row["model"] != self.model), None)
        if other is not None:
            raise UserError(
                f"{self.file}: holds predictions of another model or threshold "
                f"({other['model']}, this is {self.model}); name another folder with --out"
            )
        self.done = {row["path"]: "error" if row["error"] else row["verdict"] for row in rows}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.file}: cannot be written ({reason})") from error


def _lines(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV; an empty cell for ``None``."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
