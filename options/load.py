"""Fills dataclasses from YAML; every mistake is reported with its file and line.

Types come from the dataclass, never from YAML's guess: ``1e-3`` is a number where a float is
declared, and ``no`` stays text where text is declared.
"""

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from options.schema import STAGES, Run, Stage
from options.tree import Block, Leaf, Mistake, Place, from_overrides, merge, parse, read, spread
from utils.errors import UserError
from utils.registry import (
    INLINE,
    NOT_AN_OPTION,
    Component,
    Table,
    did_you_mean,
    options_of,
    table_of,
)

T = TypeVar("T")
_NULL = ("", "null", "~")
_SPELLED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def load(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Reads an options file.

    Args:
        path: YAML file. The files its ``__include__:`` names are read first, in order, then this
            one over them.
        overrides: ``a.b=value`` strings from the command line, applied last.

    Raises:
        UserError: With one line per mistake, each starting ``file:line:``.
    """
    mistakes: list[Mistake] = []
    tree, over = read(path, mistakes), from_overrides(overrides, mistakes)
    spread(tree, over, stages=STAGES, sections=[f.name for f in fields(Stage)])
    return from_tree(Run, tree, mistakes)


def loads(text: str, name: str) -> Run:
    """Reads options that :func:`options.dump.dumps` wrote; ``name`` is used in messages."""
    mistakes: list[Mistake] = []
    return from_tree(Run, parse(text, name, mistakes), mistakes)


def from_tree(cls: type[T], tree: Block, mistakes: list[Mistake]) -> T:
    """Checks ``tree`` against the dataclass ``cls`` and fills it.

    Args:
        cls: A dataclass; a field that names a component is ``Annotated[Component, TABLE]``.
        tree: What was written.
        mistakes: What was found wrong before.

    Raises:
        UserError: With all mistakes, sorted by file and line.
    """
    reader = _Reader(mistakes, _STAGE_OPTIONS if cls is Run else {})
    result = reader.dataclass(cls, tree)
    if mistakes or result is None:
        unique = sorted(set(mistakes))
        raise UserError("\n".join(f"{where}: {message}" for where, message in unique))
    return result


class _Reader:
    """Turns nodes into values and collects every mistake instead of stopping at the first."""

    def __init__(self, mistakes: list[Mistake], spread_options: Mapping[str, str]) -> None:
        self.mistakes, self.spread_options = mistakes, spread_options

    def fail(self, where: Place, path: str, message: str) -> Any:
        self.mistakes.append(Mistake(where, f"{path}: {message}" if path else message))
        return None

    def dataclass(self, cls: type[T], node: Leaf | Block) -> T | None:
        if isinstance(node, Leaf):
            return self.fail(node.where, node.path, "expected a block of options")
        before = len(self.mistakes)
        known: dict[str, Field[Any]] = {
            f.name: f
            for f in fields(cls)  # type: ignore[arg-type]
            if f.metadata != NOT_AN_OPTION
        }
        hints = get_type_hints(cls, include_extras=True)
        inline = [name for name, spec in known.items() if spec.metadata == INLINE]
        known = {name: spec for name, spec in known.items() if name not in inline}
        if inline:
            node = _with_replaced(node, known)
        values = {key: self.value(hints[key], node[key]) for key in known if key in node}
        for name in inline:
            values[name] = self.component(get_args(hints[name])[1], node, beside=known)
        if not inline:
            self.unknown_keys(node, known)
        for name, spec in known.items():
            if name not in node and spec.default is MISSING and spec.default_factory is MISSING:
                self.fail(node.where, node.path, f"missing option {name!r}")
        if len(self.mistakes) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:  # raised by the dataclass's own __post_init__
            return self.fail(node.where, node.path, str(error))

    def component(
        self, table: Table, node: Leaf | Block, beside: Iterable[str] = ()
    ) -> Component | None:
        block = node if isinstance(node, Block) else Block(node.where, node.path)
        name = block.get("name") if isinstance(node, Block) else node
        if not isinstance(name, Leaf) or not name.text:
            return self.fail(block.where, block.path, "missing option 'name'")
        if name.text not in table:
            hint = did_you_mean(name.text, table)
            return self.fail(name.where, name.path, f"unknown {name.text!r}; {hint}")
        known = options_of(table[name.text])
        self.unknown_keys(block, [*known, "name", *beside])
        options = {}
        for key, parameter in known.items():
            if key in block:
                options[key] = self.value(parameter.annotation, block[key])
            elif parameter.default is parameter.empty:
                self.fail(block.where, block.path, f"missing option {key!r} of {name.text!r}")
            else:
                options[key] = parameter.default
        return Component(name.text, options, f"{block.where}: {block.path}")

    def unknown_keys(self, node: Block, known: Iterable[str]) -> None:
        top = {} if node.path else self.spread_options
        sections = [f.name for f in fields(Stage)] if top else []
        for key in node.keys() - set(known):
            hint = did_you_mean(key, [*known, *sections])
            if key in top:  # lr=1e-4 instead of optimizer.lr=1e-4
                hint = f"did you mean {top[key]!r}?"
            self.fail(node[key].where, node.path, f"unknown option {key!r}; {hint}")

    def value(self, kind: Any, node: Leaf | Block) -> Any:
        origin, args = get_origin(kind), get_args(kind)
        if origin in (types.UnionType, Union):
            return self.union(args, node)
        if (table := table_of(kind)) is not None:
            optional = args[0] is not Component
            is_null = isinstance(node, Leaf) and node.text in _NULL and node.items is None
            return None if optional and is_null else self.component(table, node)
        if origin is Annotated:
            return self.choice(args[1], node)
        if is_dataclass(kind):
            return self.dataclass(kind, node)  # type: ignore[arg-type]
        if origin is dict and isinstance(node, Block):
            return {key: self.value(args[1], part) for key, part in node.items()}
        if isinstance(node, Block):
            return self.fail(node.where, node.path, f"expected {_spell(kind)}, got a block")
        if origin is tuple:
            return self.tuple(kind, node)
        if node.items is not None:
            return self.fail(node.where, node.path, f"expected {_spell(kind)}, got a list")
        if origin is Literal:
            return self.choice(args, node)
        return self.scalar(kind, node)

    def union(self, kinds: Sequence[Any], node: Leaf | Block) -> Any:
        if type(None) in kinds and isinstance(node, Leaf) and node.text in _NULL:
            return None
        for kind in kinds:
            if kind is not type(None) and _shape(kind) == _shape_of(node):
                return self.value(kind, node)
        expected = " or ".join(_spell(k) for k in kinds if k is not type(None))
        return self.fail(node.where, node.path, f"expected {expected}")

    def tuple(self, kind: Any, node: Leaf) -> Any:
        args = get_args(kind)
        if node.items is None:
            return self.fail(node.where, node.path, f"expected {_spell(kind)}")
        if args[-1] is not Ellipsis and len(args) != len(node.items):
            message = f"expected {_spell(kind)}, got {len(node.items)} values"
            return self.fail(node.where, node.path, message)
        return tuple(self.value(args[0], item) for item in node.items)

    def choice(self, choices: Iterable[str] | Mapping[str, Any], node: Leaf | Block) -> Any:
        text = node.text if isinstance(node, Leaf) else None
        if text in choices:
            return text
        return self.fail(
            node.where, node.path, f"unknown {text or ''!r}; {did_you_mean(text or '', choices)}"
        )

    def scalar(self, kind: Any, node: Leaf) -> Any:
        text = node.text or ""
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float, str, Path):
            try:
                number = Path(text).expanduser() if kind is Path else kind(text)
            except (ValueError, RuntimeError):  # the latter: the home of nobody known
                number = None
            if isinstance(number, str | Path) or (number is not None and math.isfinite(number)):
                return number
        return self.fail(node.where, node.path, f"expected {_spell(kind)}, got {text!r}")


def _with_replaced(node: Block, own: Iterable[str]) -> Block:
    """The block, with what stood beside the component that its ``name`` replaced.

    The options of the component before mean nothing to this one; ``own`` are those that stay.
    """
    if node.replaced is None:
        return node
    before = _with_replaced(node.replaced, own)
    kept = Block(node.where, node.path)
    kept.update({key: before[key] for key in own if key in before})
    return merge(kept, node)


def _stage_options() -> dict[str, str]:
    """Where an option that stands in a section of a stage belongs: ``lr`` -> ``optimizer.lr``."""
    places: dict[str, str] = {"lr": "optimizer.lr"}
    for section, hint in get_type_hints(Stage).items():
        if is_dataclass(hint):
            places.update({f.name: f"{section}.{f.name}" for f in fields(hint)})
    return places


_STAGE_OPTIONS = _stage_options()


def _shape(kind: Any) -> str:
    """What a value of this type is written as: a block, a list or one plain value."""
    if is_dataclass(kind) or get_origin(kind) in (Annotated, dict):
        return "block"
    return "list" if get_origin(kind) is tuple else "plain"


def _shape_of(node: Leaf | Block) -> str:
    if isinstance(node, Block):
        return "block"
    return "plain" if node.items is None else "list"


def _spell(kind: Any) -> str:
    if get_origin(kind) is tuple:
        args = get_args(kind)
        inner = _SPELLED.get(args[0], str(args[0]))
        return f"a list, each {inner}" if args[-1] is Ellipsis else f"a list of {len(args)}"
    return _SPELLED.get(kind, "a block of options" if _shape(kind) == "block" else str(kind))
