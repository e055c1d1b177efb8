"""Images that cannot be read: found by decoding them, and left out if an option says so."""

from collections.abc import Iterable
from pathlib import Path

from datasets.check.facts import collect, image_facts, mask_facts
from datasets.record import Record
from utils.store import Store


def find_broken(root: Path, records: Iterable[Record], store: Store) -> dict[str, str]:
    """The images that cannot be read, or whose masks cannot, each with the reason.

    Args:
        root: Folder the records' paths are relative to.
        records: The images.
        store: Where it is remembered what the files hold.

    Raises:
        UserError: If the store cannot be used.
    """
    records = list(records)
    paths = [record.path for record in records]
    facts = collect(root, paths, image_facts, store=store, title="looking for broken images")
    reasons = {path: fact.error for path, fact in facts.items() if fact.error}
    return find_broken_masks(root, records, store) | reasons


def find_broken_masks(root: Path, records: Iterable[Record], store: Store) -> dict[str, str]:
    """The images whose masks cannot be read, each with the reason; as :func:`find_broken`."""
    masks = {record.path: record.mask for record in records if record.mask}
    paths = list(masks.values())
    facts = collect(root, paths, mask_facts, store=store, title="looking for broken masks")
    return {path: facts[mask].error for path, mask in masks.items() if facts[mask].error}
