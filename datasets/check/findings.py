"""What is wrong with a data set, one line each."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.check.duplicates import same_picture
from datasets.check.facts import Facts
from datasets.copies import same_bytes
from datasets.image import SIXTEEN_BITS
from datasets.mask_files import mask_stem, normal_stems
from datasets.record import Record, Splits

AllowLeak = Literal["all"] | tuple[str, ...]
LEVELS = ("error", "warning", "note")
_NAMED = 6  # files named in one line
LABELS = ("normal", "anomalous")
_TWELVE_BITS = 15  # brightest gray level, of 255, that 12 bits in 16 come to


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or good to know.

    Attributes:
        level: ``error``: the result would be wrong, or nothing can be read; ``warning``: look at
            it; ``note``: good to know.
        text: Where, what, and how to mend it.
    """

    level: Literal["error", "warning", "note"]
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.level}: {self.text}"


@dataclass(frozen=True)
class ListedImage:
    """An image of the data set: its record, its split, and the facts of its files.

    Attributes:
        split: ``train`` or ``test``.
        record: Its record in the data set.
        facts: The facts of the picture.
        mask: The facts of its mask; ``None`` if it has none, or if masks are not checked.
    """

    split: str
    record: Record
    facts: Facts
    mask: Facts | None

    def __str__(self) -> str:
        """As it is named in a finding."""
        return f"{self.record.path} ({self.split}, {LABELS[self.record.label]})"


def unreadable(images: Iterable[ListedImage]) -> Iterator[Finding]:
    """Pictures and masks that are no pictures, cut off, too large ..."""
    for image in images:
        if image.facts.error:
            yield Finding("error", image.facts.error)
        if image.mask and image.mask.error:
            yield Finding("error", image.mask.error)


def nearly_black(images: Iterable[ListedImage]) -> Iterator[Finding]:
    """Pictures of 16 bits that use 12 of them or fewer, as many X-ray machines write them."""
    deep = [i for i in images if not i.facts.error and i.facts.mode in SIXTEEN_BITS]
    dark = [i for i in deep if np.frombuffer(i.facts.thumbnail, np.float16).max() <= _TWELVE_BITS]
    if dark:
        yield Finding(
            "warning",
            f"{dark[0].record.path}: {len(dark)} of {len(deep)} pictures of 16 bits, of which this "
            "is the first, use 12 or fewer and are read as nearly black; stretch them to all 16",
        )


def copies(images: Sequence[ListedImage], allow_leak: AllowLeak) -> Iterator[Finding]:
    """Pictures that are there more than once, in one split or in both."""
    by_path = {image.record.path: image for image in images if not image.facts.error}
    exact = same_bytes({path: image.facts.sha256 for path, image in by_path.items()})
    for group in exact:
        yield _copy_found([by_path[p] for p in group], allow_leak, is_exact=True)
    again = {path for group in exact for path in group[1:]}
    single = {path: image for path, image in by_path.items() if path not in again}
    near = same_picture(
        {path: image.facts.thumbnail for path, image in single.items()},
        {path: image.record.object for path, image in single.items()},
    )
    for group in near:
        yield _copy_found([by_path[p] for p in group], allow_leak, is_exact=False)
    leaks = [group for group in (*exact, *near) if len({by_path[p].split for p in group}) > 1]
    leaking = {path for group in leaks for path in group}
    for name in () if allow_leak == "all" else allow_leak:
        if not any(_is_named(path, name) for path in leaking):
            yield Finding("warning", f"dataset.allow_leak: {name!r} names no leak; remove it")


def _copy_found(group: Sequence[ListedImage], allow_leak: AllowLeak, *, is_exact: bool) -> Finding:
    """What a group of copies means.

    Two labels for the same bytes are an error; for pictures that merely look the same they may be
    right, where the defect is tiny.
    """
    is_leak = len({image.split for image in group}) > 1
    is_conflict = len({image.record.label for image in group}) > 1
    is_allowed = is_leak and _is_allowed(group, allow_leak)
    what = [
        "leak across train and test" * is_leak + " (allowed)" * is_allowed,
        "two labels" * is_conflict,
        "" if is_leak or is_conflict else "there more than once",
    ]
    mend = "keep one of them"
    if is_conflict:
        mend += " and give it the right label"
    if is_leak and not is_allowed:
        test = next(image.record.path for image in group if image.split == "test")
        mend += f", or allow it: {_allowance(test)}"
    first, *others = map(str, group)
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    said = f"the same {'bytes' if is_exact else 'picture'} as {', '.join(others[:_NAMED])}{more}"
    is_error = (is_leak and not is_allowed) or (is_conflict and is_exact)
    return Finding(
        "error" if is_error else "warning",
        f"{first}: {' and '.join(filter(None, what))}: {said}; {mend}",
    )


def _is_allowed(group: Sequence[ListedImage], allow_leak: AllowLeak) -> bool:
    """Whether all of the group's pictures on one side are named."""
    if allow_leak == "all":
        return True
    named = {
        split: all(
            any(_is_named(image.record.path, name) for name in allow_leak)
            for image in group
            if image.split == split
        )
        for split in {image.split for image in group}
    }
    return any(named.values())


def _is_named(path: str, name: str) -> bool:
    return path == name or fnmatchcase(path, name)  # "[1]" in a file's name is no pattern


def _allowance(path: str) -> str:
    """The option that allows a leak, as a shell takes it."""
    if re.fullmatch(r"[\w./-]+", path):
        return f"dataset.allow_leak=[{path}]"
    return shlex.quote(f"dataset.allow_leak=[{json.dumps(path, ensure_ascii=False)}]")


def masks(images: Iterable[ListedImage]) -> Iterator[Finding]:
    """Masks that cannot be right."""
    for image in images:
        record, mask = image.record, image.mask
        if mask is None or mask.error:
            continue
        if not image.facts.error and mask.size != image.facts.size:
            yield Finding(
                "error",
                f"{record.mask}: the mask is {mask.size}, its picture {record.path} "
                f"{image.facts.size}; write the mask at the picture's size",
            )
        if record.label and not mask.marked:
            yield Finding(
                "warning",
                f"{record.mask}: the mask is empty, but {record.path} is anomalous; draw it, or "
                "leave it out",
            )
        if not record.label and mask.marked:
            yield Finding(
                "warning",
                f"{record.mask}: the mask marks {mask.marked} pixels, but {record.path} is normal; "
                "mend the label or the mask",
            )


def masks_of_nothing(root: Path, records: Sequence[Record]) -> Iterator[Finding]:
    """Files that lie among the masks and are no listed image's, one line for each folder."""
    listed: dict[str, set[str]] = {}
    for path in (p for record in records for p in (record.path, record.mask) if p):
        folder, _, name = path.rpartition("/")
        listed.setdefault(folder, set()).add(name)
    spare = normal_stems(records)
    for folder in sorted({record.mask.rpartition("/")[0] for record in records if record.mask}):
        suffixes = {Path(name).suffix for name in listed[folder]}
        extra = sorted(
            path.name
            for path in (root / folder).iterdir()
            if path.name not in listed[folder]
            and path.suffix in suffixes
            and mask_stem(path.name) not in spare
        )
        if extra:
            what = "is no listed image's mask" if len(extra) == 1 else "are masks of no image"
            named = ", ".join(extra[:_NAMED]) + (" ..." if len(extra) > _NAMED else "")
            count = "" if len(extra) == 1 else f"{len(extra)} files "
            yield Finding(
                "warning",
                f"{folder or root}: {count}{named} {what}; list the image, or remove the mask",
            )


def without_masks(images: Sequence[ListedImage]) -> Iterator[Finding]:
    """How many anomalous images have no mask."""
    anomalous = [image.record for image in images if image.record.label]
    bare = [record for record in anomalous if not record.mask]
    if bare:
        first = f", the first is {bare[0].path}" if len(bare) < len(anomalous) else ""
        yield Finding(
            "note",
            f"{len(bare)} of {len(anomalous)} anomalous images have no mask{first}; pixels are not "
            "scored there",
        )


def single_labels(splits: Splits) -> Iterator[Finding]:
    """Objects whose test images are all normal or all anomalous."""
    labels: Mapping[str, set[int]] = {record.object: set() for record in splits["test"]}
    for record in splits["test"]:
        labels[record.object].add(record.label)
    for name, found in labels.items():
        if len(found) == 1:
            only = LABELS[found.pop()]
            yield Finding("note", f"{name}: all test images are {only}; AUROC and AUPR need both")
