"""Readers of data sets: each takes ``(root, store, *, options)`` and returns records per split."""

from collections.abc import Callable

from datasets.readers.bmad import read_bmad
from datasets.readers.csv_table import read_csv
from datasets.readers.folder import read_folder
from datasets.readers.headct import read_headct
from datasets.readers.meta import read_meta
from datasets.readers.mvtec import read_mvtec
from datasets.readers.visa import read_visa
from datasets.record import Splits

# Every reader has the option "objects"; "split", where it has one, names one of its splits.
DATASETS: dict[str, Callable[..., Splits]] = {
    "bmad": read_bmad,
    "csv": read_csv,
    "folder": read_folder,
    "headct": read_headct,
    "meta": read_meta,
    "mvtec": read_mvtec,
    "visa": read_visa,
}
