"""Writes the page and the JSON schemas of the options: ``python -m options.document``.

docs/options.md is for people, options/schema.json and options/comparison/schema.json are for
editors.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from options.comparison_file import Column, Comparison, ImageList
from options.conversion import UNIONS
from options.dump import plain
from options.json_schema import json_schema
from options.schema import Run, Source, Stage
from utils.ranges import Range
from utils.registry import INLINE, NOT_AN_OPTION, Component, descriptions_of, options_of, table_of

_HEAD = """# Options

Written by `python -m options.document` from the schema; a test keeps it up to date.

* An options file may begin with `__include__: FILE` or a list of files. They are read first, in
  order.
* The command line overrides the files: `python run.py FILE a.b=value`, lists as `a.b=[1, 2]`. Text
  and paths need no quotes of YAML there: `"dataset.dir=data/Line #3"` is that folder. If an option
  may be `null`, a folder called null is `./null`. In a file, and in a list, text with characters
  such as `: # [ * & %` needs quotes.
* Sections of a stage may be at the top of a file: they are the default of every stage. On the
  command line `optimizer.lr=1e-4` changes every stage, `student.optimizer.lr=1e-4` one of them.
* If a block with a `name` overrides another one, it replaces it. Other blocks are merged. So an
  `objective` at the top has no effect on a stage with an `objective` of its own. In `dataset`, only
  the reader's own options are replaced.
* `schedule: cosine` is short for `schedule: {name: cosine}`.
* `in [0, 1)` means: at least 0, and less than 1.
* Editors with a YAML language server (VS Code's YAML extension, Neovim, JetBrains ...) complete and
  check a file that begins with `# yaml-language-server: $schema=PATH/options/schema.json`.
* `required`: there is no default in the code; `options/abstract.yaml` sets most of them.
"""
_TYPES = {int: "whole number", float: "number", bool: "true, false", str: "text", Path: "path"}


def document() -> str:
    """The whole page."""
    sections = [_HEAD, "## Top of a file\n", _section(Run)]
    tables: dict[str, Mapping[str, Callable[..., Any]]] = {}
    for cls in (Run, Stage):
        for name, kind in get_type_hints(cls, include_extras=True).items():
            for part in get_args(kind) or (kind,):
                if is_dataclass(part) and part not in (Stage, Component):
                    sections += _sections(name, part)  # type: ignore[arg-type]
        if cls is Run:
            sections += ["## A stage: `teacher`, `student` or `baseline`\n", _section(Stage)]
    sections += [
        "## `dataset.auxiliary`\n\nThe training data of a baseline: the *test* images of another "
        "data set, which have masks.\n",
        _section(Source),
        "## A comparison\n\nA file for `compare.py`, see [comparing.md](comparing.md).\n",
        _section(Comparison),
        "### `dataset` of a comparison\n",
        _section(ImageList),
        "### A column: an entry of `columns`\n",
        _section(Column),
    ]
    _collect({"dataset.name": get_type_hints(Source, include_extras=True)["reader"]}, tables)
    _collect(get_type_hints(Stage, include_extras=True), tables)
    for name, table in tables.items():
        sections += [f"## Choices of `{name}`\n", *(_entry(*item) for item in table.items())]
    return "\n".join(sections)


def _collect(hints: Mapping[str, Any], tables: dict[str, Any]) -> None:
    """Adds all tables of components, outermost first."""
    for name, kind in hints.items():
        if (table := table_of(kind)) is not None and name not in tables:
            tables[name] = table
            for entry in table.values():
                _collect({k: p.annotation for k, p in options_of(entry).items()}, tables)


def _sections(name: str, cls: type[Any]) -> list[str]:
    """A section, and the blocks inside of it."""
    sections = [f"## `{name}`\n", _section(cls)]
    for key, kind in get_type_hints(cls, include_extras=True).items():
        for part in get_args(kind):
            is_section = isinstance(part, type) and is_dataclass(part)  # an instance is a range
            if is_section and part not in (Component, Source):
                sections += _sections(f"{name}.{key}", part)
    return sections


def _section(cls: type[Any]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    options: list[Field[Any]] = [f for f in fields(cls) if f.metadata != NOT_AN_OPTION]
    texts = descriptions_of(cls)
    return _table(
        ("name" if f.metadata == INLINE else f.name, hints[f.name], _default_of(f), texts[f.name])
        for f in options
    )


def _default_of(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return "its own"
    return "required" if field.default is MISSING else _value(field.default)


def _entry(name: str, entry: Callable[..., Any]) -> str:
    options, texts = options_of(entry), descriptions_of(entry)
    first = (inspect.getdoc(entry) or "").splitlines()[0].replace("``", "`")
    rows = [
        (
            key,
            p.annotation,
            "required" if p.default is p.empty else _value(p.default),
            texts.get(key, ""),
        )
        for key, p in options.items()
    ]
    return (
        f"### `{name}`\n\n{first}\n\n{_table(iter(rows))}" if rows else f"### `{name}`\n\n{first}\n"
    )


def _table(rows: Iterator[tuple[str, Any, str, str]]) -> str:
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name, kind, default, text in rows:
        cells = (f"`{name}`", _type(kind), default, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin in UNIONS:
        return " or ".join("`null`" if part is NoneType else _type(part) for part in args)
    if table_of(kind) is not None:
        return "a choice" if args[0] is Component else "a choice or `null`"
    if origin is Annotated and isinstance(args[1], Range):
        return f"{_type(args[0])} {args[1]}"
    if origin is Annotated or origin is Literal:
        return ", ".join(f"`{choice}`" for choice in (args[1] if origin is Annotated else args))
    if origin is dict:
        return f"block of names, each {_type(args[1])}"
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f" of {len(args)}"
        return f"list{count}: {_type(args[0])}"
    return "a section" if is_dataclass(kind) else _TYPES[kind]


def _value(value: Any) -> str:
    shown = plain(value)
    if shown is None or isinstance(shown, bool):
        return f"`{'null' if shown is None else str(shown).lower()}`"
    return "empty" if shown in ("", []) else f"`{shown}`"


def pages() -> dict[Path, str]:
    """The files to write, with their content."""
    return {
        Path("docs/options.md"): document(),
        Path("options/schema.json"): _json(Run),
        Path("options/comparison/schema.json"): _json(Comparison),
    }


def _json(cls: type[Any]) -> str:
    return json.dumps(json_schema(cls), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
