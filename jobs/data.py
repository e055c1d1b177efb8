"""The images of an experiment."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.broken import find_broken, find_broken_masks
from datasets.check.facts import collect, image_facts, range_of
from datasets.copies import group_copies
from datasets.fix_list import leave_out, without, write_fix_list
from datasets.image import SKIP_BROKEN, PixelRange, allow_pixels
from datasets.pixels import ImageStore
from datasets.readers import DATASETS
from datasets.record import Record, Splits, check_name, data_hash, hold_out, hold_out_defects
from datasets.split import carve_validation, fewer_anomalies, fold_of
from options.schema import Dataset, Run, Source
from utils.console import say
from utils.errors import UserError
from utils.ranks import is_main
from utils.store import NOWHERE, Store

BROKEN = "broken_images.txt"  # in the folder of a run: those that it was trained without
_NAMED = 5


@dataclass(frozen=True)
class Data:
    """The images that one network learns from.

    Attributes:
        store: Their pixels.
        train: Training images.
        val: Validation images; part of the data set's training images.
        splits: The data set's own splits; ``test`` is for ``test.py``.
        hash: Hash of these splits.
    """

    store: ImageStore
    train: Sequence[Record]
    val: Sequence[Record]
    splits: Splits
    hash: str

    @property
    def root(self) -> Path:
        """Folder the records' paths are relative to."""
        return self.store.root


def image_store(run: Run, splits: Splits, root: Path | None = None) -> ImageStore:
    """The pixels of ``splits``; ``root``: the folder, if it is not that of ``run.dataset``."""
    lists = tuple(splits.values())
    if run.dataset.fold:  # all folds are parts of one list, which is decoded and encoded once
        lists = (list(itertools.chain(*lists)),)
    return ImageStore(root or run.dataset.dir, store_of(run), lists)


def store_of(run: Run) -> Store:
    """The cache of the experiment."""
    return Store(run.dataset.cache, int(run.dataset.cache_gb * 1e9))


def read_splits(options: Source, store: Store = NOWHERE, folder: Path | None = None) -> Splits:
    """As :func:`read_with_broken`, without the broken images."""
    return read_with_broken(options, store, folder)[0]


def read_with_broken(
    options: Source, store: Store, folder: Path | None = None
) -> tuple[Splits, dict[str, str]]:
    """As :func:`read_with_any_mask`, once it is known that the labels are right.

    Raises:
        UserError: As there, or if a mask cannot be read that says whether a picture is anomalous.
    """
    splits, broken = read_with_any_mask(options, store, folder)
    if options.reader.options.get("labels") == "masks":
        reasons = find_broken_masks(options.dir, itertools.chain(*splits.values()), store)
        if reasons:
            more = f" ({len(reasons)} such masks)" if len(reasons) > 1 else ""
            raise UserError(f"{next(iter(reasons.values()))}{more}, {SKIP_BROKEN}")
    return splits, broken


def read_with_any_mask(
    options: Source, store: Store, folder: Path | None = None
) -> tuple[Splits, dict[str, str]]:
    """A data set's own splits, without what is held out of the training; or one of its folds.

    Raises:
        UserError: As :func:`read_whole` and :func:`selected`.
    """
    splits, broken = read_whole(options, store, folder)
    return selected(options, splits, store), broken


def read_whole(
    options: Source, store: Store, folder: Path | None = None
) -> tuple[Splits, dict[str, str]]:
    """A data set's own splits.

    Args:
        options: Names the data set.
        store: Where it is remembered what its files hold.
        folder: That of a run, which may hold a list of broken images; see :func:`keep_broken`.

    Returns:
        The splits, and the images that ``skip_broken`` has left out, each with the reason.

    Raises:
        UserError: As the reader, or if an object is called ``mean`` like the last row of each
            table, or has a name that no table can hold.
    """
    allow_pixels(options.max_pixels)
    splits: Splits = options.reader.build(DATASETS, options.dir, store)
    broken: dict[str, str] = {}
    if options.leave_out is not None:
        splits = leave_out(splits, options.leave_out)
    if options.skip_broken:
        splits, broken = _without_broken(options.dir, splits, store, folder)
    everything = [record for records in splits.values() for record in records]
    objects = {record.object for record in everything}
    # A defect's text may have several lines.
    for name in objects | {" ".join(record.defect.split()) for record in everything}:
        check_name(name, str(options.dir))
    if "mean" in objects:
        raise UserError(
            f"{options.dir}: an object is called 'mean', as the last row of every table; rename it"
        )
    return splits, broken


def selected(options: Source, splits: Splits, store: Store) -> Splits:
    """The part of a data set that is trained on and tested.

    Raises:
        UserError: As :func:`datasets.record.hold_out`, ``hold_out_defects`` and
            :func:`datasets.split.fold_of`.
    """
    if not isinstance(options, Dataset):
        return splits
    if options.hold_out:
        given_back = options.hold_out_anomalies is not None
        splits = hold_out(splits, options.hold_out, "dataset.hold_out", give_back=given_back)
    if options.hold_out_defects:
        splits = hold_out_defects(splits, options.hold_out_defects, "dataset.hold_out_defects")
    if options.fold:
        splits = fold_of(options.dir, splits["train"], store, *options.fold)
    return splits


def _without_broken(
    root: Path, splits: Splits, store: Store, folder: Path | None
) -> tuple[Splits, dict[str, str]]:
    """The splits without broken images: those of the run's list, or, without one, all of them."""
    if folder is not None and (folder / BROKEN).exists():
        return leave_out(splits, folder / BROKEN), {}
    broken = find_broken(root, itertools.chain(*splits.values()), store)
    more = len(broken) - _NAMED
    for reason in itertools.islice(broken.values(), _NAMED):
        say(f"left out: {reason}")
    rest = f", {more} more than these" if more > 0 else ""
    say(f"{root}: {len(broken)} images that cannot be read are left out{rest}")
    return without(splits, broken), broken


def keep_broken(run: Run, broken: Mapping[str, str]) -> None:
    """Writes the list of broken images that a run is trained without, if it has none.

    Later commands leave out the same ones. An image that breaks later is an error.
    """
    file = run.exp.dir / BROKEN
    if is_main() and run.dataset.skip_broken and not file.exists():
        write_fix_list(file, broken)


def resolved(run: Run, splits: Splits) -> Run:
    """The experiment with what its options leave to the data: see the next two functions."""
    return with_range(with_object(run, splits), splits["train"])


def with_range(run: Run, records: Sequence[Record]) -> Run:
    """The experiment with numbers for ``image.range: data``, found on training images.

    Raises:
        UserError: If there are no training images.
    """
    stages = {name: s for name, s in run.stages.items() if s.image.range == "data"}
    if not stages:
        return run
    if not records:
        raise UserError(
            f"{run.dataset.dir}: image.range=data is found on training images, and there are none; "
            "write the numbers: image.range=[BLACK,WHITE]"
        )
    paths = [record.path for record in records]
    facts = collect(
        run.dataset.dir, paths, image_facts, store=store_of(run), title="looking for gray levels"
    )
    found: PixelRange = range_of(facts.values()) or "type"
    changed: dict[str, Any] = {
        name: replace(stage, image=replace(stage.image, range=found))
        for name, stage in stages.items()
    }
    return replace(run, **changed)


def with_object(run: Run, splits: Splits) -> Run:
    """The experiment with the name of its object, if that is the name of the folder.

    The name is stored with the run. If the folder is renamed later, this is noticed, and captions
    and drawn splits do not change silently.
    """
    name = run.dataset.dir.resolve().name
    objects = {record.object for records in splits.values() for record in records}
    if run.dataset.reader.options.get("object_name") == "" and objects == {name}:
        return replace(run, dataset=run.dataset.with_reader(object_name=name))
    return run


def read_tested(options: Source, store: Store, folder: Path | None = None) -> Splits:
    """As :func:`read_splits`, for a command that tests something.

    Raises:
        UserError: If there are no test images, too.
    """
    splits = read_splits(options, store, folder)
    if not splits["test"]:
        raise UserError(
            f"{options.dir}: no test images; see dataset.split, dataset.objects and "
            "dataset.hold_out; pictures without labels are for python predict.py MODEL FOLDER"
        )
    return splits


def whole_paths(root: Path, paths: Iterable[str]) -> set[Path]:
    """Absolute paths without links, so that files of several folders can be compared."""
    return {(root / path).resolve() for path in paths}


def learned_from(run: Run, records: Sequence[Record]) -> list[Record]:
    """The training images without anomalous ones above the options' numbers for each object."""
    options, seed = run.dataset, run.misc.seed
    few, held = options.hold_out_anomalies, options.hold_out
    if few is None:
        return fewer_anomalies(records, options.max_anomalies, seed)
    others = {record.object for record in records} - {*held}
    records = fewer_anomalies(records, options.max_anomalies, seed, others)
    return fewer_anomalies(records, few, seed, held)


def read_data(run: Run, name: str, splits: Splits) -> Data:
    """The training and validation images of stage ``name``.

    A baseline learns only from the test images of ``dataset.auxiliary``, which have masks. They are
    not the test images of the run.

    Args:
        run: The experiment.
        name: The stage.
        splits: The splits of ``run.dataset``.

    Raises:
        UserError: As the reader and :func:`datasets.split.carve_validation`.
    """
    options: Source = run.dataset
    learned = learned_from(run, splits["train"])
    if name == "baseline" and run.dataset.auxiliary is not None:
        tested = whole_paths(options.dir, (record.path for record in splits["test"]))
        options = run.dataset.auxiliary
        learned = read_splits(options, store_of(run))["test"]
        splits = {"train": learned, "test": []}
        if tested & whole_paths(options.dir, (record.path for record in splits["train"])):
            raise UserError(
                "dataset.auxiliary: holds images that are to be tested; name another data set, or "
                "other objects of it"
            )
    fraction, seed = run.dataset.val_fraction, run.misc.seed
    labels = (0,) if run.stages[name].normal_only else (0, 1)
    grouped = group_copies(options.dir, learned, store_of(run))
    try:
        train, val = carve_validation(grouped, fraction, seed, labels)
    except UserError:
        train, val = carve_validation(
            learned, fraction, seed, labels
        )  # if copies were not the reason
        say(f"{options.dir}: so many pictures are alike that the validation has copies of others")
    return Data(image_store(run, splits, options.dir), train, val, splits, data_hash(splits))
