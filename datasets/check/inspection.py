"""All that is checked, in one call."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from datasets.check import findings
from datasets.check.facts import collect, image_facts, mask_facts
from datasets.check.findings import LEVELS, AllowLeak, Finding, ListedImage
from datasets.image import PixelRange
from datasets.record import Splits
from utils.store import Store


@dataclass(frozen=True)
class Inspection:
    """What was found in a data set.

    Attributes:
        root: Folder the records' paths are relative to.
        splits: The data set's splits.
        images: Every image with what its files hold, ``train`` first.
        findings: What is wrong, errors first.
    """

    root: Path
    splits: Splits
    images: Sequence[ListedImage]
    findings: Sequence[Finding]

    def with_range(self, how: PixelRange) -> "Inspection":
        """The same with what is wrong with pictures of more than 8 bits; see ``image.range``."""
        both = [*self.findings, *findings.gray_levels(self.images, how)]
        return replace(self, findings=_sorted(both))

    @property
    def errors(self) -> list[str]:
        """What makes a result wrong, or cannot be read."""
        return [finding.text for finding in self.findings if finding.level == "error"]

    @cached_property
    def summary(self) -> str:
        """Counts of everything found, for one line."""
        counts = [sum(f.level == level for f in self.findings) for level in LEVELS]
        named = [
            f"{count} {level}{'s' * (count != 1)}"
            for count, level in zip(counts, LEVELS, strict=True)
            if count
        ]
        return f"{len(self.images)} images checked: {', '.join(named) or 'nothing wrong'}"

    @cached_property
    def key(self) -> str:
        """Names the list and the bytes of every file: 16 hex digits."""
        key = hashlib.sha256()
        for image in self.images:
            known = (
                image.split,
                image.record,
                image.facts.sha256,
                image.mask and image.mask.sha256,
            )
            key.update(repr(known).encode())
        return key.hexdigest()[:16]


def inspect(
    root: Path,
    splits: Splits,
    *,
    store: Store,
    allow_leak: AllowLeak = (),
    with_masks: bool = True,
    is_whole: bool = True,
    more: Sequence[Finding] = (),
) -> Inspection:
    """Decodes every image and mask that is not known yet, and says what is wrong.

    Args:
        root: Folder the records' paths are relative to.
        splits: The data set's splits.
        store: Where the facts are remembered.
        allow_leak: Images (paths, or patterns with ``*``) whose copies may be in ``train`` and in
            ``test``, or ``all``.
        with_masks: Whether masks are looked at too.
        is_whole: Whether ``splits`` is all there is: ``allow_leak`` may name images of the rest.
        more: What was found before.

    Raises:
        UserError: If the store cannot be used.
    """
    listed = [(split, record) for split, records in splits.items() for record in records]
    records = [record for _, record in listed]
    facts = collect(
        root, [r.path for r in records], image_facts, store=store, title="checking images"
    )
    paths = [r.mask for r in records if r.mask and with_masks]
    mask = collect(root, paths, mask_facts, store=store, title="checking masks")
    images = [ListedImage(split, r, facts[r.path], mask.get(r.mask)) for split, r in listed]

    def found() -> Iterator[Finding]:
        yield from findings.unreadable(images)
        yield from findings.dark_colors(images)
        yield from findings.near_binary(images)
        yield from findings.copies(root, images, allow_leak, is_whole=is_whole)
        if with_masks:
            yield from findings.masks(images)
            yield from findings.without_masks(images)
        yield from more

    return Inspection(root, splits, images, _sorted(found()))


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
