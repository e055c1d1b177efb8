"""Which files are copies of each other, byte by byte."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.digests import digests
from datasets.record import Record
from utils.store import NOWHERE, Store


class Groups:
    """Names that mean the same group."""

    def __init__(self) -> None:
        self.above: dict[str, str] = {}

    def leader(self, name: str) -> str:
        """The one name that stands for the group of ``name``."""
        while (above := self.above.get(name, name)) != name:
            self.above[name] = self.above.get(above, above)  # a shorter way for the next time
            name = above
        return name

    def join(self, *names: str) -> None:
        """Makes one group of theirs."""
        for name in names[1:]:
            self.above[self.leader(name)] = self.leader(names[0])


def same_bytes(digests: Mapping[str, str]) -> list[list[str]]:
    """Groups of two or more paths with the same digest, each in order, sorted."""
    groups = defaultdict(list)
    for path, digest in digests.items():
        groups[digest].append(path)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def group_copies(root: Path, records: Sequence[Record], store: Store = NOWHERE) -> list[Record]:
    """The records, with files that are equal byte by byte in one group.

    Groups that share a copy become one. Only files of the same size are read.

    Args:
        root: Folder the records' paths are relative to.
        records: The images; their files are there.
        store: Where it is remembered what was read.

    Raises:
        UserError: If the store cannot be used.
    """
    sizes = defaultdict(list)
    for record in records:
        sizes[os.stat(f"{root}/{record.path}").st_size].append(record.path)  # noqa: PTH116 - fast
    paths = [path for same in sizes.values() if len(same) > 1 for path in same]
    if not paths:
        return list(records)
    known = digests(root, paths, store, title="looking for copies")
    names = {
        path: f"copy {known[path][:12]}"
        for same in same_bytes(known)
        for path in same
        if known[path]  # else it cannot be read, which others report
    }
    groups = Groups()
    for record in records:
        groups.join(*(name for name in (record.group, names.get(record.path, "")) if name))
    return [
        replace(record, group=groups.leader(record.group or names[record.path]))
        if record.group or record.path in names
        else record
        for record in records
    ]
