"""Data sets: a reader takes ``(root, *, options)`` and returns records per split."""

from collections.abc import Callable

from datasets.bmad import read_bmad
from datasets.br35h import read_br35h
from datasets.brainmri import read_brainmri
from datasets.covid19 import read_covid19
from datasets.csv_table import read_csv
from datasets.folder import read_folder
from datasets.headct import read_headct
from datasets.meta import read_meta
from datasets.mvtec import read_mvtec
from datasets.record import Splits
from datasets.visa import read_visa

# Every reader has the option "objects"; "split", where it has one, names one of its splits.
DATASETS: dict[str, Callable[..., Splits]] = {
    "bmad": read_bmad,
    "br35h": read_br35h,
    "brainmri": read_brainmri,
    "covid19": read_covid19,
    "csv": read_csv,
    "folder": read_folder,
    "headct": read_headct,
    "meta": read_meta,
    "mvtec": read_mvtec,
    "visa": read_visa,
}
