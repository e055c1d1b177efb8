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
    masks = [record.mask for record in records if record.mask]
    facts = collect(root, paths, image_facts, store=store, title="looking for broken images")
    of_masks = collect(root, masks, mask_facts, store=store, title="looking for broken masks")
    reasons = {
        record.path: facts[record.path].error
        or (of_masks[record.mask].error if record.mask else "")
        for record in records
    }
    return {path: reason for path, reason in reasons.items() if reason}
