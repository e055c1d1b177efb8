"""From options to YAML, and the differences of two experiments."""

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from options.schema import Run
from utils.registry import INLINE, NOT_AN_OPTION, Component


def dumps(run: Run) -> str:
    """YAML with all options, from which :func:`options.load.loads` gives an equal ``run``."""
    return yaml.safe_dump(plain(run), sort_keys=False, allow_unicode=True)


def without_local(value: Any) -> Any:
    """The same options with defaults for those that change no result: folders, device, workers."""
    if not is_dataclass(value) or isinstance(value, Component):
        return value
    changed: dict[str, Any] = {}
    for f in fields(value):
        if f.compare:
            changed[f.name] = without_local(getattr(value, f.name))
        elif f.default_factory is not MISSING:
            changed[f.name] = f.default_factory()
        else:
            changed[f.name] = Path() if f.default is MISSING else f.default
    return replace(value, **changed)  # type: ignore[type-var]


def plain(value: Any) -> Any:
    """``value`` as YAML has it: dicts, lists, numbers and text."""
    if is_dataclass(value) and not isinstance(value, Component):
        shown: dict[str, Any] = {}
        for f in fields(value):
            if f.metadata == NOT_AN_OPTION:
                continue
            part = plain(getattr(value, f.name))
            shown |= part if f.metadata == INLINE else {f.name: part}
        return shown
    if isinstance(value, Component):
        return {"name": value.name, **{k: plain(v) for k, v in value.options.items()}}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """``("student.optimizer.lr", "0.0003")`` for each option that changes results.

    Options declared with ``compare=False`` (folders, devices, workers) are left out.
    """
    if isinstance(value, Component):
        yield f"{path}.name", value.name
        parts = list(value.options.items())
    elif is_dataclass(value):
        parts = [
            ("" if f.metadata == INLINE else f.name, getattr(value, f.name))
            for f in fields(value)
            if f.compare
        ]
    else:
        yield path, str(plain(value))
        return
    for name, part in parts:
        yield from flatten(part, ".".join(filter(None, (path, name))))


def first_difference(now: Run, before: Run, sections: Iterable[str]) -> str | None:
    """The first different option of two runs that changes results, with both values.

    Args:
        now: One run.
        before: The other.
        sections: The sections to compare, such as ``student`` or ``dataset.auxiliary``.
    """
    sections = tuple(sections)
    new, old = dict(flatten(now)), dict(flatten(before))
    for name in [*new, *old]:
        if name.startswith(tuple(f"{section}." for section in sections)) and new.get(
            name
        ) != old.get(name):
            return f"{name} is {new.get(name, 'absent')}, was {old.get(name, 'absent')}"
    return None
