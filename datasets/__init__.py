"""Data sets: each reader takes ``(root, *, split, objects)`` and returns records per split."""

from datasets.meta import read_meta
from datasets.visa import read_visa

DATASETS = {
    "meta": read_meta,
    "visa": read_visa,
}
