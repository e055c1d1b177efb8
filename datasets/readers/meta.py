"""Any data set described by a ``meta.json``, as AnomalyCLIP and its kin write it."""

import json
from pathlib import Path
from typing import Any

from datasets.readers.table import read_list
from datasets.record import ANOMALY, NORMAL, Record, Splits, check_path, checked
from datasets.scan import BAD, GOOD, say_unlisted
from datasets.split import with_groups
from utils.console import say
from utils.errors import UserError
from utils.store import NOWHERE, Store

_KEYS = ("img_path", "cls_name", "anomaly")


def read_meta(
    root: Path,
    _: Store = NOWHERE,
    *,
    split: str = "",
    objects: tuple[str, ...] = (),
    file: Path | None = None,
    group: str = "",
) -> Splits:
    """The images listed in ``meta_<split>.json``, or in ``meta.json`` where ``split`` is empty.

    Args:
        root: Folder that holds the file and to which its paths are relative; absolute ones have to
            lie in it.
        split: Which file.
        objects: Which objects; empty: all that are listed.
        file: The file itself, where it lies elsewhere or has another name.
        group: As of the reader ``folder``: images that are never parted; the list may name groups
            itself.

    Returns:
        ``train`` and ``test``; either may be empty.

    Raises:
        UserError: If files are missing, or the list says something it may not say.
    """
    path = file or root / (f"meta_{split}.json" if split else "meta.json")
    try:
        meta = json.loads(read_list(path).decode("utf-8-sig"))
    except OSError as error:
        inside = sorted(root.glob(f"*/{path.name}"))
        hint = f"; there is {inside[0]}: name its folder" if inside else ""
        raise UserError(
            f"{path}: cannot be read ({error.strerror}){hint}", option="file" if file else "dir"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from error
    if not isinstance(meta, dict) or not {"train", "test"} & meta.keys():
        raise UserError(f"{path}: expected {{'train': ..., 'test': ...}}")
    splits: Splits = {
        name: _records(meta.get(name, {}), f"{path}: {name}", root) for name in ("train", "test")
    }
    if others := sorted(meta.keys() - splits.keys()):
        say(f"{path}: left out: the images under {', '.join(map(repr, others))}")
    hint = "fix the list, or name the folder that its paths are relative to: dir"
    found = checked(root, splits, objects, where=str(path), hint=hint)
    say_unlisted(root, splits, str(path))
    return with_groups(found, group, str(root))


def _records(objects: Any, where: str, root: Path) -> list[Record]:
    if not isinstance(objects, dict) or not all(isinstance(v, list) for v in objects.values()):
        raise UserError(f"{where}: expected {{object: [images]}}")
    return [
        _record(entry, f"{where}.{name}[{i}]", root)
        for name, entries in objects.items()
        for i, entry in enumerate(entries)
    ]


def _record(entry: Any, where: str, root: Path) -> Record:
    if not isinstance(entry, dict) or any(key not in entry for key in _KEYS):
        raise UserError(f"{where}: expected an object with {', '.join(_KEYS)}")
    if entry["anomaly"] not in (0, 1):
        raise UserError(f"{where}: anomaly must be 0 or 1, got {entry['anomaly']!r}")
    mask, said = str(entry.get("mask_path") or ""), str(entry.get("specie_name") or "")
    if said in ("", *GOOD, *BAD):  # projects spell it in many ways
        said = ANOMALY if entry["anomaly"] else NORMAL
    return Record(
        path=check_path(str(entry["img_path"]), where, root),
        object=str(entry["cls_name"]),
        label=int(entry["anomaly"]),
        defect=said,
        mask=check_path(mask, where, root) if mask else "",
        group=str(entry.get("group") or ""),
    )
