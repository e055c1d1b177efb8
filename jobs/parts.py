"""An experiment as it stands, or one of each object."""

import json
from dataclasses import replace

from datasets.record import Splits, choose_objects, to_meta
from options.schema import Run
from utils.checkpoint import write_bytes
from utils.console import say
from utils.errors import UserError


def parts_of(run: Run, splits: Splits) -> list[tuple[Run, Splits]]:
    """The experiments that ``run`` consists of, each with its images.

    One, or with ``dataset.per_object`` one for each object: an ordinary experiment whose
    ``exp.dir`` is ``<exp.dir>/<object>`` and whose ``dataset.objects`` is that object.

    Args:
        run: As written.
        splits: All its images.

    Raises:
        UserError: If the name of an object cannot be that of a folder.
    """
    if not run.dataset.per_object:
        return [(run, splits)]
    names = sorted({record.object for records in splits.values() for record in records})
    for name in names:
        if name in (".", "..") or not name.strip() or set(name) & set("/\\\0"):
            raise UserError(
                f"dataset.per_object: object {name!r} cannot be the name of a folder; rename it, "
                "or train one model for all objects"
            )
    return [(_of_object(run, name), choose_objects(splits, [name], "dataset")) for name in names]


def parts_to_test(run: Run, splits: Splits) -> list[tuple[Run, Splits]]:
    """As :func:`parts_of`, but without objects that have no test images; says which these are."""
    parts = parts_of(run, splits)
    for part, found in parts:
        if not found["test"]:
            say(f"{', '.join(part.dataset.objects)}: no test images: passed over")
    return [(part, found) for part, found in parts if found["test"]]


def _of_object(run: Run, name: str) -> Run:
    reader = run.dataset.reader
    reader = replace(reader, options={**reader.options, "objects": (name,)})
    return replace(
        run,
        exp=replace(run.exp, dir=run.exp.dir / name),
        dataset=replace(run.dataset, reader=reader, per_object=False),
    )


def keep_list(run: Run, splits: Splits) -> None:
    """Writes ``<exp.dir>/meta_<reader>.json``, which the reader ``meta`` reads back.

    A file of that name with another list is nobody's to overwrite.
    """
    file = run.exp.dir / f"meta_{run.dataset.name}.json"
    content = json.dumps(to_meta(splits), indent=1).encode()
    if not file.exists():
        write_bytes(content, file)
    elif file.read_bytes() != content:
        say(f"{file}: holds another list and is left as it is")
