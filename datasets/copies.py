"""Images that no split may part: those of one group, and those that are alike."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.check.duplicates import Groups, alike
from datasets.check.facts import collect, image_facts
from datasets.record import Record
from utils.store import NOWHERE, Store


def group_copies(root: Path, records: Sequence[Record], store: Store = NOWHERE) -> list[Record]:
    """The records, with pictures that are alike in one group; see :func:`alike`.

    Groups that share such pictures become one: of ``a`` (patient 1), ``b`` (patient 2) and ``c``,
    with ``b`` and ``c`` alike, only ``b`` and ``c`` are one group; if ``a`` is like ``c``, too, all
    images of both patients are.

    Args:
        root: Folder the records' paths are relative to.
        records: The images; their files are there.
        store: Where it is remembered what the files hold.

    Raises:
        UserError: If the store cannot be used.
    """
    paths = [record.path for record in records]
    facts = collect(root, paths, image_facts, store=store, title="looking for copies")
    names = {
        path: f"copy {facts[group[0]].sha256[:12]}"
        for group in alike(facts, {record.path: record.object for record in records})
        for path in group
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
