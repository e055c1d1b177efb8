"""Which images an experiment is about."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.copies import group_copies
from datasets.readers import DATASETS
from datasets.record import Record, Splits, data_hash, hold_out
from datasets.split import carve_validation
from options.schema import Dataset, Run, Source
from utils.errors import UserError
from utils.ranks import is_main


@dataclass(frozen=True)
class Data:
    """The images of an experiment.

    Attributes:
        root: Folder the records' paths are relative to.
        train: Images to learn from.
        val: Images to choose a checkpoint on; part of the data set's training images.
        splits: The data set's own splits; ``test`` is for ``test.py``.
        hash: Names this list.
    """

    root: Path
    train: Sequence[Record]
    val: Sequence[Record]
    splits: Splits
    hash: str


def read_splits(options: Source) -> Splits:
    """A data set's own splits, less the objects that are held out of the training.

    Raises:
        UserError: As the reader and :func:`datasets.record.hold_out`, or if an object has a name
            that tables have a use for.
    """
    splits: Splits = options.reader.build(DATASETS, options.dir)
    if any(record.object == "mean" for records in splits.values() for record in records):
        raise UserError(
            f"{options.dir}: an object is called 'mean', as the last row of every table; rename it"
        )
    if isinstance(options, Dataset) and options.hold_out:
        return hold_out(splits, options.hold_out, "dataset.hold_out")
    return splits


def read_tested(options: Source) -> Splits:
    """As :func:`read_splits`, where something is to be tested.

    Raises:
        UserError: If there are no test images, too.
    """
    splits = read_splits(options)
    if not splits["test"]:
        raise UserError(
            f"{options.dir}: no test images; see dataset.split, dataset.objects and "
            "dataset.hold_out"
        )
    return splits


def whole_paths(root: Path, paths: Iterable[str]) -> set[Path]:
    """The files that ``paths`` in ``root`` mean, whatever they are called from elsewhere."""
    return {(root / path).resolve() for path in paths}


def read_data(run: Run, name: str = "student", splits: Splits | None = None) -> Data:
    """What stage ``name`` learns from, with validation images carved out.

    A baseline learns from the test images of ``dataset.auxiliary``, which have masks, and from
    nothing else; they are not the test images of the run.

    Args:
        run: The experiment.
        name: The stage.
        splits: What :func:`read_splits` said of its data set, where that is known already.

    Raises:
        UserError: As the reader and :func:`datasets.split.carve_validation`.
    """
    options: Source = run.dataset
    splits = splits or read_splits(options)
    if name == "baseline" and run.dataset.auxiliary is not None:
        tested = whole_paths(options.dir, (record.path for record in splits["test"]))
        options = run.dataset.auxiliary
        splits = {"train": _read_auxiliary(options)["test"], "test": []}
        if tested & whole_paths(options.dir, (record.path for record in splits["train"])):
            raise UserError(
                "dataset.auxiliary: holds images that are to be tested; name another data set, or "
                "other objects of it"
            )
    # One process keeps what it reads: not every network disk locks the file for several.
    cache = run.dataset.cache if is_main() else None
    grouped = group_copies(options.dir, splits["train"], cache=cache)
    train, val = carve_validation(grouped, run.dataset.val_fraction, run.misc.seed)
    return Data(options.dir, train, val, splits, data_hash(splits))


def _read_auxiliary(options: Source) -> Splits:
    """As :func:`read_splits`; what there is to mend is an option of ``dataset.auxiliary``."""
    try:
        return read_splits(options)
    except UserError as error:
        said = re.sub(r"(?<![\w/.])dataset\.(?=\w)", "dataset.auxiliary.", str(error))
        raise UserError(said) from error
