"""What is wrong with a data set, one line each."""

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.check.duplicates import alike, are_copies, nearest_pair
from datasets.check.facts import Facts, range_of
from datasets.image import SKIP_BROKEN, PixelRange
from datasets.mask import is_crosswise
from datasets.mask_files import mask_stem, normal_stems
from datasets.record import ANOMALY, Record, Splits
from datasets.scan import folded

AllowLeak = Literal["all"] | tuple[str, ...]
Level = Literal["error", "warning", "note"]
LEVELS = ("error", "warning", "note")
_NAMED = 6  # files named in one line
LABELS = ("normal", "anomalous")
_MOST_BINARY = 0.9  # share of pictures that look like masks, up to which this is strange
_PHOTOGRAPHS = "another photograph of the part, or a changed copy, of"
_FEW_LEVELS = 32  # of 256; fewer, and defects may be lost
_MOST_CUT = 0.01
_TWELVE_BITS = 15  # brightest gray level, of 255, that 12 bits in 16 come to


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or good to know.

    Attributes:
        level: ``error``: the result would be wrong, or nothing can be read; ``warning``: look at
            it; ``note``: good to know.
        text: Where, what, and how to fix it.
        leave_out: Images without which it would not be there.
    """

    level: Level
    text: str
    leave_out: Sequence[str] = ()

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


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def unreadable(images: Iterable[ListedImage]) -> Iterator[Finding]:
    """Pictures and masks that are no pictures, cut off, too large ..."""
    for image in images:
        for facts in (image.facts, image.mask):
            if facts and facts.error:
                text = f"{facts.error}, {SKIP_BROKEN}"
                yield Finding("error", text, leave_out=[image.record.path])


def gray_levels(images: Sequence[ListedImage], how: PixelRange) -> Iterator[Finding]:
    """Pictures of more than 8 bits of which 8 bits keep too little.

    Args:
        images: All of the data set.
        how: How they are read, see ``image.range``.
    """
    deep = [image for image in images if image.facts.spread]
    learned = [image.facts for image in deep if image.split == "train"]
    levels = range_of(learned or [i.facts for i in deep]) if how == "data" else how
    if not deep or levels is None:
        return
    spreads = np.stack([np.frombuffer(image.facts.spread, np.float32) for image in deep])
    black, white = (0.0, 65535.0) if isinstance(levels, str) else levels
    shades = np.clip((spreads - black) * (255 / (white - black)), 0, 255).astype(int)
    if how == "type":
        is_outside = (spreads[:, 0] < 0) | (spreads[:, -1] > 65535)
        is_outside |= [image.facts.mode == "F" for image in deep]
        is_poor = shades[:, -1] <= _TWELVE_BITS
        what = "do not fit the 0 to 65535 of 16 bits, or are decimal numbers"
        mend = "write image.range=data, or image.range=[BLACK,WHITE]"
    else:
        is_outside = ((spreads < black) | (spreads > white)).mean(axis=1) > _MOST_CUT
        is_poor = np.zeros(len(deep), bool)
        what = f"have more than 1 % of their pixels outside of {black:g} to {white:g}, cut off"
        mend = "write a wider image.range"
    kept = len(np.unique(shades))
    if kept < _FEW_LEVELS and len(np.unique(spreads)) >= 2 * kept:
        is_poor = ~is_outside
    poor = "keep few of their gray levels in 8 bits"
    narrow = f"write {'image.range=data' if how == 'type' else 'a narrower image.range'}"
    lines: list[tuple[Level, NDArray[np.bool_], str]] = [
        ("error" if how == "type" else "warning", is_outside, f"{what}; {mend}"),
        ("warning", is_poor & ~is_outside, f"{poor}; {narrow}"),
    ]
    for level, is_wrong, text in lines:
        paths = [image.record.path for image, wrong in zip(deep, is_wrong, strict=True) if wrong]
        if paths:
            yield Finding(
                level,
                f"{paths[0]}: {len(paths)} of {len(deep)} pictures of more than 8 bits, of which "
                f"this is the first, {text}",
            )


def dark_colors(images: Sequence[ListedImage]) -> Iterator[Finding]:
    """Color pictures of 16 bits that are all nearly black, as those of cameras of 12 bits are."""
    deep = [image for image in images if image.facts.mode.endswith(";16")]
    grays = [np.frombuffer(image.facts.thumbnail, np.float16).max() for image in deep]
    if deep and max(grays) <= _TWELVE_BITS:
        yield Finding(
            "warning",
            f"{deep[0].record.path}: {len(deep)} color pictures of 16 bits, of which this is the "
            f"first, have no pixel brighter than {math.ceil(max(grays))} of 255 in 8 bits: save "
            "them with 8 bits, stretched to 255, or as gray with image.range=data",
        )


def near_binary(images: Sequence[ListedImage]) -> Iterator[Finding]:
    """Pictures that look like masks, unless nearly all do."""
    readable = [image for image in images if not image.facts.error]
    binary = [image.record.path for image in readable if image.facts.is_binary]
    if binary and len(binary) <= _MOST_BINARY * len(readable):
        yield Finding(
            "warning",
            f"{len(binary)} of {len(readable)} pictures have one or two gray levels, as masks do: "
            f"{_named(binary)}; if they are none, move them out of the folders of pictures, or "
            "leave them out: check.py --fix-list FILE",
            leave_out=binary,
        )


def copies(
    root: Path, images: Sequence[ListedImage], allow_leak: AllowLeak, *, is_whole: bool
) -> Iterator[Finding]:
    """Pictures that are alike, in one split or in both, and the nearest ones of both splits.

    Args:
        root: Folder the paths are relative to.
        images: All images.
        allow_leak: As for :func:`datasets.check.inspection.inspect`.
        is_whole: Whether ``images`` are all there are.
    """
    by_path = {image.record.path: image for image in images}
    facts = {path: image.facts for path, image in by_path.items()}
    objects = {path: image.record.object for path, image in by_path.items()}
    groups = alike(facts, objects)
    again: list[list[str]] = []
    for group in groups:
        found = [by_path[path] for path in group]
        likeness = _likeness(root, found)
        is_mixed = any(len({get(i) for i in found}) > 1 for get in (_split_of, _label_of))
        if likeness == _PHOTOGRAPHS and not is_mixed:
            again.append(group)
        else:
            yield _copy_found(found, allow_leak, likeness)
    if again:
        yield Finding(
            "note",
            f"{len(again)} groups of pictures show one part photographed again, or are changed "
            f"copies, {sum(map(len, again))} pictures in all; no drawn split parts them; the first "
            f"is {' and '.join(again[0][:2])}",
        )
    leaking = {p for group in groups if len({by_path[p].split for p in group}) > 1 for p in group}
    for name in () if allow_leak == "all" else allow_leak:
        is_here = is_whole or any(_is_named(path, name) for path in by_path)
        if is_here and not any(_is_named(path, name) for path in leaking):
            yield Finding("warning", f"dataset.allow_leak: {name!r} names no leak; remove it")
    member = {path: i for i, group in enumerate(groups) for path in group}
    nearest = nearest_pair(
        {path: fact.thumbnail for path, fact in facts.items() if not fact.error},
        objects,
        lambda a, b: (
            by_path[a].split != by_path[b].split and (a not in member or member[a] != member.get(b))
        ),
    )
    if nearest:
        one, other, distance = nearest
        yield Finding(
            "note",
            f"nearest pictures in train and test: {by_path[one]} and {by_path[other]}, distance "
            f"{distance:.3f}: no copies, but it may be one part photographed twice",
        )


def _split_of(image: ListedImage) -> object:
    return image.split


def _label_of(image: ListedImage) -> object:
    return image.record.label


def _likeness(root: Path, group: Sequence[ListedImage]) -> str:
    """What the pictures of a group have in common, in words that a list of files follows."""
    first, *others = {image.facts.sha256: image.record.path for image in group}.values()
    if not others:
        return "the same bytes as"
    is_copied = all(are_copies(root / first, root / other) for other in others)
    return "the same picture as" if is_copied else _PHOTOGRAPHS


def _copy_found(group: Sequence[ListedImage], allow_leak: AllowLeak, likeness: str) -> Finding:
    """What a group of pictures that are alike means.

    Two labels for the same bytes are an error; for pictures that merely look the same they may be
    right, where the defect is tiny.
    """
    labels: dict[str, set[int]] = {image.facts.sha256: set() for image in group}
    for image in group:
        labels[image.facts.sha256].add(image.record.label)
    unclear = {digest for digest, of_bytes in labels.items() if len(of_bytes) > 1}
    is_leak = len({image.split for image in group}) > 1
    is_conflict = len(set().union(*labels.values())) > 1
    is_allowed = is_leak and _is_allowed(group, allow_leak)
    what = [
        "leak across train and test" * is_leak + " (allowed)" * is_allowed,
        "two labels" * is_conflict,
        "" if is_leak or is_conflict else "there more than once",
    ]
    if likeness == _PHOTOGRAPHS:
        fix = "look whether each has the right label" if is_conflict else "keep those of one split"
    else:
        fix = "keep one of them" + " and give it the right label" * is_conflict
    leave_out = [image.record.path for image in group if image.facts.sha256 in unclear]
    if is_leak and not is_allowed:
        test = next(image.record.path for image in group if image.split == "test")
        fix += f", or allow it: {_option('allow_leak', [test])}"
        clear = [image for image in group if image.facts.sha256 not in unclear]
        if any(image.split == "test" for image in clear):  # published test images are kept
            leave_out += [image.record.path for image in clear if image.split == "train"]
    first, *others = map(str, group)
    return Finding(
        "error" if leave_out else "warning",
        f"{first}: {' and '.join(filter(None, what))}: {likeness} {_named(others)}; {fix}",
        leave_out=leave_out,
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


def _option(name: str, values: Sequence[str]) -> str:
    """An option of the data set that is a list, as a shell takes it."""
    if all(re.fullmatch(r"[\w./-]+", value) for value in values):
        return f"dataset.{name}=[{','.join(values)}]"
    listed = ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
    return shlex.quote(f"dataset.{name}=[{listed}]")


def masks(images: Iterable[ListedImage]) -> Iterator[Finding]:
    """Masks that cannot be right."""
    for image in images:
        record, mask = image.record, image.mask
        if mask is None or mask.error:
            continue
        if not image.facts.error and mask.size != image.facts.size:
            facts = image.facts
            is_turned = is_crosswise((mask.width, mask.height), (facts.width, facts.height))
            fix = "turn the mask: it was drawn without the picture's EXIF orientation"
            yield Finding(
                "error",
                f"{record.mask}: the mask is {mask.size}, its picture {record.path} {facts.size}; "
                f"{fix if is_turned else 'write the mask at the size of the picture'}",
                leave_out=[record.path],
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
                "fix the label or the mask",
            )


def masks_of_nothing(root: Path, records: Sequence[Record], *, is_whole: bool) -> Iterator[Finding]:
    """Files that lie among the masks and are no listed image's, one line for each folder.

    Args:
        root: Folder the paths are relative to.
        records: The images.
        is_whole: Whether these are all there are. Else they are those of some objects, and
            folders without the name of their object may hold masks of the others.
    """
    listed: dict[str, set[str]] = {}
    for path in (p for record in records for p in (record.path, record.mask) if p):
        folder, _, name = path.rpartition("/")
        listed.setdefault(folder, set()).add(name)
    spare = normal_stems(records)
    beside = {_stem(record.path) for record in records if not record.label}
    folders = {
        folder
        for record in records
        if (folder := record.mask.rpartition("/")[0])
        if is_whole or record.object in folder.split("/")
    }
    for folder in sorted(folders):
        suffixes = {Path(name).suffix for name in listed[folder]}
        extra = sorted(
            path.name
            for path in (root / folder).iterdir()
            if path.name not in listed[folder]
            and path.suffix in suffixes
            and mask_stem(path.name) not in spare
            and f"{folder}/{mask_stem(path.name)}" not in beside  # empty, of KolektorSDD
        )
        if extra:
            what = "is no listed image's mask" if len(extra) == 1 else "are masks of no image"
            named = ", ".join(extra[:_NAMED]) + (" ..." if len(extra) > _NAMED else "")
            count = "" if len(extra) == 1 else f"{len(extra)} files "
            yield Finding(
                "warning",
                f"{folder or root}: {count}{named} {what}; list the image, or remove the mask",
            )


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


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


def single_labels(
    splits: Splits, *, good: Sequence[str] | None, bad: Sequence[str] | None, is_error: bool
) -> Iterator[Finding]:
    """Objects whose test images are all normal or all anomalous.

    Args:
        splits: The data set's splits.
        good: What the reader calls folders of normal images; ``None``: it reads no such folders.
        bad: The same of anomalous ones, which decide for all folders inside.
        is_error: Whether something is trained that could not be scored.
    """
    labels: Mapping[str, set[int]] = {record.object: set() for record in splits["test"]}
    for record in splits["test"]:
        labels[record.object].add(record.label)
    for name, found in labels.items():
        if len(found) == 1:
            label = found.pop()
            anomalous = [r for r in splits["test"] if r.object == name and label]
            kinds = {r.defect for r in anomalous if not _folders(r) & {*map(folded, bad or ())}}
            defects = sorted(kinds - {ANOMALY})  # that is no folder's name
            fix = f"give the test {LABELS[1 - label]} images"
            if good is not None and defects:
                fix += (
                    f", or name the folder of normal ones, now {_named(defects)}: "
                    f"{_option('good', [*good, defects[0]])}"
                )
            elif good is not None:
                options = "dataset.good" if bad is None else "dataset.good and dataset.bad"
                fix += f"; {options} name{'s' * (bad is None)} the folders"
            if is_error and not label:
                fix += ", or take options/normal_only.yaml, which learns from normal images alone"
            others = [other for other in labels if other != name]
            if others:
                fix += f", or leave the object out: {_option('objects', others[:_NAMED])}"
            yield Finding(
                "error" if is_error else "note",
                f"{name}: all {sum(r.object == name for r in splits['test'])} test images are "
                f"{LABELS[label]}; AUROC and AUPR need both: {fix}",
            )


def _folders(record: Record) -> set[str]:
    """The names of the folders around a picture."""
    return {folded(part) for part in PurePosixPath(record.path).parts[:-1]}
