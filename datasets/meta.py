"""Any data set described by a ``meta.json``, as AnomalyCLIP and its kin write it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.record import (
    Record,
    Splits,
    check_files,
    check_path,
    check_unique,
    choose_objects,
)
from utils.errors import UserError

_KEYS = ("img_path", "cls_name", "anomaly")


def read_meta(root: Path, *, split: str, objects: Sequence[str] = ()) -> Splits:
    """The images listed in ``meta_<split>.json``, or in ``meta.json`` where ``split`` is empty.

    Args:
        root: Folder that holds the file and to which its paths are relative.
        split: Which file.
        objects: Which objects; empty: all that are listed.

    Returns:
        ``train`` and ``test``; either may be empty.

    Raises:
        UserError: If files are missing, or the list says something it may not say.
    """
    file = root / (f"meta_{split}.json" if split else "meta.json")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); see dataset.dir") from error
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error})") from error
    if not isinstance(meta, dict) or not {"train", "test"} & meta.keys():
        raise UserError(f"{file}: expected {{'train': ..., 'test': ...}}")
    splits: Splits = {
        name: _records(meta.get(name, {}), f"{file}: {name}") for name in ("train", "test")
    }
    splits = choose_objects(splits, objects, where=str(file))
    everything = [record for records in splits.values() for record in records]
    check_unique(everything, where=str(file))
    check_files(root, everything, hint="mend the list, or dataset.dir")
    return splits


def _records(objects: Any, where: str) -> list[Record]:
    if not isinstance(objects, dict) or not all(isinstance(v, list) for v in objects.values()):
        raise UserError(f"{where}: expected {{object: [images]}}")
    return [
        _record(entry, f"{where}.{name}[{i}]")
        for name, entries in objects.items()
        for i, entry in enumerate(entries)
    ]


def _record(entry: Any, where: str) -> Record:
    if not isinstance(entry, dict) or any(key not in entry for key in _KEYS):
        raise UserError(f"{where}: expected an object with {', '.join(_KEYS)}")
    if entry["anomaly"] not in (0, 1):
        raise UserError(f"{where}: anomaly must be 0 or 1, got {entry['anomaly']!r}")
    mask = str(entry.get("mask_path") or "")
    return Record(
        path=check_path(str(entry["img_path"]), where),
        object=str(entry["cls_name"]),
        label=int(entry["anomaly"]),
        defect=str(entry.get("specie_name") or ("anomaly" if entry["anomaly"] else "normal")),
        mask=check_path(mask, where) if mask else "",
    )
