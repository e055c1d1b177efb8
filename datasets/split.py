"""Test and validation images, drawn by a seed where nobody else has drawn them."""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch

from datasets.copies import group_copies
from datasets.record import Record, Splits
from utils.console import say
from utils.errors import UserError
from utils.seeding import generator
from utils.store import Store

Stratum = tuple[Hashable, ...]


def carve_validation(
    records: Sequence[Record], fraction: float, seed: int, labels: Sequence[int] = (0, 1)
) -> tuple[list[Record], list[Record]]:
    """Splits training images in two, each object and label in the same proportion.

    Args:
        records: All training images.
        fraction: Share to put aside, in ``[0, 1)``; of each object and label at least one image
            where there are two or more, but none at all at 0.
        seed: Decides which.
        labels: What there must be on either side: normal images, or normal and anomalous ones.

    Returns:
        Training and validation images, both in the order of ``records``; no group is parted.

    Raises:
        UserError: If no image of a label is left on either side, so that nothing could be learned
            or no checkpoint chosen.
    """
    train, validation = _part(records, fraction, seed, "validation")
    for side, part in (("training", train), ("validation", validation))[: 2 if fraction else 1]:
        if missing := _missing(part, labels):
            raise UserError(
                f"dataset: the {side} images hold no {missing} image; training needs at "
                "least two normal and two anomalous ones of an object. From normal images alone "
                "(the split 1cls) learns options/normal_only.yaml; others train with "
                "dataset.split=2cls (of VisA: 2cls_highshot)"
            )
    return train, validation


def fewer_anomalies(
    records: Sequence[Record], count: int | None, seed: int, objects: Container[str] | None = None
) -> list[Record]:
    """At most ``count`` anomalous images of each object, and all normal ones, in their order.

    Args:
        records: The images.
        count: How many; ``None``: all. With the same seed, a smaller number is a part of a larger.
        seed: Decides which.
        objects: Those that have fewer; all images of the others stay. ``None``: all.
    """
    anomalous = [r for r in records if r.label and (objects is None or r.object in objects)]
    chosen = _first(anomalous, lambda number: number if count is None else count, seed, "anomalies")
    left_out = {record.path for record in anomalous} - chosen
    return [record for record in records if record.path not in left_out]


def fewer_masks(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """The same images, of which only some anomalous ones keep their masks.

    Args:
        records: The images.
        share: Of the masks of each object's anomalous images, in ``(0, 1]``; at least one is kept.
            With the same seed, a smaller share is a part of a larger one.
        seed: Decides which.
    """
    masked = [record for record in records if record.label and record.mask]
    kept = _first(masked, lambda number: max(round(share * number), 1), seed, "masks")
    return [r if not r.label or r.path in kept else replace(r, mask="") for r in records]


def _first(
    records: Sequence[Record], count_of: Callable[[int], int], seed: int, purpose: str
) -> set[str]:
    """Paths of the first of each object in an order that depends on the seed only."""
    chosen: set[str] = set()
    for name in {record.object for record in records}:
        paths = sorted(r.path for r in records if r.object == name)
        order = torch.randperm(len(paths), generator=generator(seed, purpose, name)).tolist()
        chosen.update(paths[i] for i in order[: count_of(len(paths))])
    return chosen


def draw_split(
    root: Path, records: Sequence[Record], store: Store, *, test_fraction: float, split_seed: int
) -> Splits:
    """Training and test images of a data set without a split, by object and label.

    Pictures that are alike stay on one side, and so do the images of a group. If all images are
    normal, those of both sides are.

    Args:
        root: Folder the records' paths are relative to.
        records: All images; their files are there.
        store: Where it is remembered what the files hold.
        test_fraction: Share to put aside, in ``(0, 1)``.
        split_seed: Decides which.

    Raises:
        UserError: If one side holds no normal image, or no anomalous one although there are some.
    """
    labels = sorted({0, *(record.label for record in records)})
    grouped = group_copies(root, records, store)
    train, test = _part(grouped, test_fraction, split_seed, "test")
    if grouped != records and any(_missing(part, labels) for part in (train, test)):
        say(f"{root}: so many pictures are alike that copies cannot be kept on one side")
        train, test = _part(records, test_fraction, split_seed, "test")
    for side, part in (("training", train), ("testing", test)):
        if missing := _missing(part, labels):
            raise UserError(
                f"{root}: {len(records)} images, {sum(r.label for r in records)} of them anomalous,"
                f" leave no {missing} one for {side}; there must be at least two of each, "
                "and no group of images may hold them all"
            )
    say(
        f"{root}: no split of its own: {len(test)} of {len(records)} images are put aside for the "
        f"test (test_fraction {test_fraction:g}, split_seed {split_seed})"
    )
    return {"train": train, "test": test}


def fold_of(root: Path, records: Sequence[Record], store: Store, number: int, count: int) -> Splits:
    """One part of the training images to test, the others to train on, for a cross-validation.

    Stratified by object and label, as far as groups and pictures that are alike let it: these stay
    in one part (``StratifiedGroupKFold`` of scikit-learn).

    Args:
        root: Folder the records' paths are relative to.
        records: All training images; their files are there.
        store: Where it is remembered what the files hold.
        number: Which part, from 1.
        count: Of how many.

    Raises:
        UserError: If one side holds no normal or no anomalous image.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to load

    grouped = group_copies(root, records, store)
    strata = [f"{record.label} {record.object}" for record in records]
    groups = [record.group or record.path for record in grouped]
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a small stratum; what counts is below
        try:
            parts = list(folds.split(strata, strata, groups))
        except ValueError:  # fewer images of every stratum than parts
            parts = [([], [])] * count
    train, test = ([records[i] for i in side] for side in parts[number - 1])
    for side, part in (("training", train), ("testing", test)):
        if missing := _missing(part, (0, 1)):
            raise UserError(
                f"{root}: fold {number} of {count}: {len(records)} training images, "
                f"{sum(r.label for r in records)} of them anomalous, leave no {missing} one for "
                f"{side}; there must be as many of each as folds, outside of one group"
            )
    return {"train": train, "test": test}


def with_groups(splits: Splits, group: str, where: str) -> Splits:
    """The splits, with the group of each image taken from its path.

    Args:
        splits: The images.
        group: The folder that names it, as a number: 1 is the outermost, -1 that of the picture; or
            a regular expression, of which the parts in parentheses name it; empty: all stay as they
            are, like images whose path it does not fit.
        where: The data set.

    Raises:
        UserError: If it is no such thing, or fits no path.
    """
    if not group:
        return splits
    name_of = _group_names(group, where)
    names = {r.path: name_of(r.path) for records in splits.values() for r in records}
    counts = Counter(filter(None, names.values()))
    if not counts:
        raise UserError(f"{where}: group: {group!r} fits no path; {_GROUP_HINT}", option="group")
    say(
        f"{where}: {len(counts)} groups of images by {group!r}, the largest has "
        f"{max(counts.values())}; {sum(not name for name in names.values())} images are in none"
    )
    grouped = {
        split: [
            replace(r, group=f"group {n}" if (n := names[r.path]) else r.group) for r in records
        ]
        for split, records in splits.items()
    }
    train, test = ({names[r.path] for r in splits.get(side, ())} for side in ("train", "test"))
    if parted := train & test - {""}:
        say(
            f"{where}: {len(parted)} groups are on both sides of the data set's own split, such as "
            f"{min(parted)!r}: the test may be too easy"
        )
    return grouped


_GROUP_HINT = (
    "name a level of folders (1: the outermost, -1: that of the picture), or a pattern such as "
    r"'patient(\d+)'"
)


def _group_names(group: str, where: str) -> Callable[[str], str]:
    """The function from a path to the name of its group; empty: it is in none."""
    if re.fullmatch(r"-?[1-9]\d?", group):
        level = int(group) - (int(group) > 0)

        def folder(path: str) -> str:
            parts = PurePosixPath(path).parts[:-1]
            return parts[level] if -len(parts) <= level < len(parts) else ""

        return folder
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(
            f"{where}: group: {group!r}: {error}; {_GROUP_HINT}", option="group"
        ) from error
    if re.fullmatch(r"[\w -]+", group):
        raise UserError(f"{where}: group: {group!r} is no pattern; {_GROUP_HINT}", option="group")

    def matched(path: str) -> str:
        match = pattern.search(path)
        return " ".join(filter(None, match.groups() or [match[0]])) if match else ""

    return matched


def move_anomalies(
    splits: Splits, root: Path, store: Store, *, test_fraction: float, split_seed: int
) -> Splits:
    """Gives the training some of the anomalous test images, of every defect of every object.

    For data sets whose own training images are all normal. The normal images stay where they are,
    and anomalous ones that are like one of them, or of one group with it, are on its side.

    Args:
        splits: The data set's own splits.
        root: Its folder.
        store: Where it is remembered what the files hold.
        test_fraction: Share of the anomalous test images that stays in the test.
        split_seed: Decides which.
    """
    grouped = group_copies(root, [*splits["train"], *splits["test"]], store)
    train, test = grouped[: len(splits["train"])], grouped[len(splits["train"]) :]
    anomalies = [record for record in test if record.label]
    stay = {record.group for record in test if not record.label} - {""}
    go = {record.group for record in train} - stay - {""}
    free = [record for record in anomalies if record.group not in stay | go]
    drawn, _ = _part(
        free, test_fraction, split_seed, "test", lambda record: (record.object, record.defect)
    )
    paths = {record.path for record in (*drawn, *(r for r in anomalies if r.group in go))}
    moved = [record for record in anomalies if record.path in paths]
    say(
        f"{root}: {len(moved)} of {len(anomalies)} anomalous test images are given to the training "
        f"(test_fraction {test_fraction:g}, split_seed {split_seed})"
    )
    return {
        "train": [*splits["train"], *moved],
        "test": [record for record in splits["test"] if record.path not in paths],
    }


def _by_label(record: Record) -> Stratum:
    return record.object, record.label


def _part(
    records: Sequence[Record],
    fraction: float,
    seed: int,
    purpose: str,
    stratum_of: Callable[[Record], Stratum] = _by_label,
) -> tuple[list[Record], list[Record]]:
    """The records that stay and ``fraction`` of them, of every stratum, both in their order."""
    chosen = _choose(records, fraction, seed, purpose, stratum_of)
    return (
        [record for i, record in enumerate(records) if i not in chosen],
        [record for i, record in enumerate(records) if i in chosen],
    )


def _choose(
    records: Sequence[Record],
    fraction: float,
    seed: int,
    purpose: str,
    stratum_of: Callable[[Record], Stratum],
) -> set[int]:
    """Which records make up ``fraction``.

    In random order an image is taken, with its group, if that brings the strata it is from nearer
    to their share: alone until the share is full, with a group as far as it goes.
    """
    strata: dict[Stratum, list[int]] = defaultdict(list)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        strata[stratum_of(record)].append(i)
        groups[record.group or i].append(i)
    wanted = {
        stratum: max(round(fraction * len(members)), 1) if fraction and len(members) > 1 else 0
        for stratum, members in strata.items()
    }
    chosen: set[int] = set()
    for stratum, members in strata.items():
        order = torch.randperm(len(members), generator=generator(seed, purpose, *stratum)).tolist()
        for group in (groups[records[members[j]].group or members[j]] for j in order):
            counts = Counter(stratum_of(records[i]) for i in group)
            gain = sum(abs(wanted[s]) - abs(wanted[s] - count) for s, count in counts.items())
            if gain > 0 and chosen.isdisjoint(group):
                chosen.update(group)
                for s, count in counts.items():
                    wanted[s] -= count
        if wanted[stratum] > 0 and chosen.isdisjoint(members):  # every group is too large
            smallest = min((groups[records[i].group or i] for i in members), key=len)
            if len(smallest) < len(members):
                chosen.update(smallest)
    return chosen


def _missing(part: Sequence[Record], labels: Sequence[int]) -> str:
    """The last of the labels that no image has, in words; empty if there is none."""
    absent = [label for label in labels if all(record.label != label for record in part)]
    return ("normal", "anomalous")[absent[-1]] if absent else ""
