"""Splits an experiment into one for each seed, or one for each object.

Each is an ordinary experiment in a folder of its own.
"""

import json
from dataclasses import replace

from datasets.record import Splits, choose_objects, to_meta
from options.schema import SEEDS, Run
from utils.checkpoint import write_bytes
from utils.console import say
from utils.errors import UserError


def of_seeds(run: Run, count: int | None) -> list[Run]:
    """The same experiment for ``misc.seed`` and the seeds after it.

    A ready teacher (``teacher: FOLDER``) is the same for all of them.

    Args:
        run: The experiment.
        count: Number of seeds; ``None``: the experiment itself, in its own folder.

    Returns:
        One experiment per seed, each in ``<exp.dir>/seed_<seed>``.

    Raises:
        UserError: If ``count`` is not in ``SEEDS``.
    """
    if count is None:
        return [run]
    if count not in SEEDS:
        raise UserError(f"--seeds: must be {SEEDS}, got {count}")
    return [
        replace(
            run,
            exp=replace(run.exp, dir=run.exp.dir / f"seed_{seed}"),
            misc=replace(run.misc, seed=seed),
        )
        for seed in range(run.misc.seed, run.misc.seed + count)
    ]


def of_objects(run: Run, splits: Splits) -> list[tuple[Run, Splits]]:
    """The experiment with its images; with ``dataset.per_object`` one for each object.

    Args:
        run: The experiment.
        splits: All its images.

    Returns:
        One experiment per object, each in ``<exp.dir>/<object>``, with the images of that object.

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


def _of_object(run: Run, name: str) -> Run:
    return replace(
        run,
        exp=replace(run.exp, dir=run.exp.dir / name),
        dataset=replace(run.dataset.with_reader(objects=(name,)), per_object=False),
    )


def keep_list(run: Run, splits: Splits) -> None:
    """Writes ``<exp.dir>/meta_<reader>.json``, which the reader ``meta`` can read.

    A file of that name with another list is left unchanged.
    """
    file = run.exp.dir / f"meta_{run.dataset.name}.json"
    content = json.dumps(to_meta(splits), indent=1).encode()
    if not file.exists():
        write_bytes(content, file)
    elif file.read_bytes() != content:
        say(f"{file}: holds another list and is left unchanged")
