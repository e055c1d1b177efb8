"""The log of a training: a table of its epochs, and curves for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from utils.checkpoint import write_bytes

Row = dict[str, float]


class RunLog:
    """``log.csv`` and TensorBoard's event files in one folder.

    Args:
        folder: The folder; made if needed.
        history: Rows of the finished epochs; the caller adds one after each epoch. If the program
            was killed after it logged an epoch and before it saved its state, the row in the files
            is replaced.
    """

    def __init__(self, folder: Path, history: Sequence[Row]) -> None:
        self.file, self.history = folder / "log.csv", history
        self.curves = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)
        self._write()

    def update(self) -> None:
        """Writes the table and adds its last row to the curves; ``epoch`` is counted from 1."""
        self._write()
        row = self.history[-1]
        for name, value in row.items():
            if name != "epoch":
                self.curves.add_scalar(name, value, int(row["epoch"]))
        self.curves.flush()

    def close(self) -> None:
        """Closes the event file."""
        self.curves.close()

    def _write(self) -> None:
        if self.history:
            table = pd.DataFrame(self.history)
            write_bytes(table.to_csv(index=False, float_format="%.6g").encode(), self.file)
