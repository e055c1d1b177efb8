"""What a training leaves to be read: a table of its epochs, and curves for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from utils.checkpoint import write_bytes

Row = dict[str, float]


class RunLog:
    """``log.csv`` and TensorBoard's event files in one folder.

    Args:
        folder: Where; made if needed.
        history: Rows of epochs that are done already. They are what counts: rows of an epoch that
            was logged but not saved before the program was killed are dropped.
    """

    def __init__(self, folder: Path, history: Sequence[Row]) -> None:
        self.file = folder / "log.csv"
        self.history = list(history)
        self.curves = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)
        self._write()

    def add(self, row: Row) -> None:
        """Adds the row of one epoch; ``epoch`` counts from 1."""
        self.history.append(row)
        self._write()
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
