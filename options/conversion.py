"""From a tree of text to dataclasses; every mistake is collected with its place.

Types come from the dataclass, never from YAML's guess: ``1e-3`` is a number where a float is
declared, and ``no`` stays text where text is declared.
"""

import math
import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from options.tree import Block, Leaf, Mistake, merge, quoted
from utils.ranges import Range
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
NULL = ("", "null", "Null", "NULL", "~")
UNIONS = (types.UnionType, Union)
_SPELLED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}
_LONGEST_NAME, _LONGEST_PATH = 255, 4_000  # bytes that file systems take
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes that are not UTF-8, as Python shows them


class Conversion:
    """Turns nodes into values and collects every mistake instead of stopping at the first.

    Args:
        mistakes: Gets the mistakes.
        elsewhere: The path of options that are often written at the top of a file by mistake, as in
            ``{"lr": "optimizer.lr"}``.
        unneeded: Tables of components that are not built: names that the table does not have are
            no mistake.
    """

    def __init__(
        self,
        mistakes: list[Mistake],
        *,
        elsewhere: Mapping[str, str],
        unneeded: Sequence[Table],
    ) -> None:
        self.mistakes, self.elsewhere, self.unneeded = mistakes, elsewhere, unneeded

    def fail(self, node: Leaf | Block, message: str) -> Any:
        """Adds a mistake at a node; returns ``None``, in place of its value."""
        if isinstance(node, Leaf) and node.problem:
            message = node.problem
        elif node.path:
            message = f"{node.path}: {message}"
        self.mistakes.append(Mistake(node.where, message))

    def dataclass(self, cls: type[T], node: Leaf | Block) -> T | None:
        """A section."""
        if isinstance(node, Leaf):
            return self.fail(node, "expected a block of options")
        before = len(self.mistakes)
        options: dict[str, Field[Any]] = {
            f.name: f
            for f in fields(cls)  # type: ignore[arg-type]
            if f.metadata != NOT_AN_OPTION
        }
        hints = get_type_hints(cls, include_extras=True)
        inline = [name for name, spec in options.items() if spec.metadata == INLINE]
        options = {name: spec for name, spec in options.items() if name not in inline}
        if inline:
            node = _with_replaced(node, options)
        values = {key: self.value(hints[key], node[key]) for key in options if key in node}
        for name in inline:
            values[name] = self.component(get_args(hints[name])[1], node, beside=options)
        if not inline:
            self.unknown_keys(node, options)
        for name, spec in options.items():
            if name not in node and spec.default is MISSING and spec.default_factory is MISSING:
                self.fail(node, f"missing option {name!r}")
        if len(self.mistakes) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:  # raised by the dataclass's own __post_init__
            return self.fail(node, str(error))

    def component(
        self, table: Table, node: Leaf | Block, beside: Iterable[str] = ()
    ) -> Component | None:
        """A component with its options; ``beside``: other options in the same block."""
        block = node if isinstance(node, Block) else Block(node.where, node.path)
        name = block.get("name") if isinstance(node, Block) else node
        if not isinstance(name, Leaf) or not name.text or name.problem:
            return self.fail(node, "missing option 'name'")
        is_unneeded = any(table is other for other in self.unneeded)
        if name.text not in table and is_unneeded:
            return Component(name.text, {}, str(block.where), block.path)
        if name.text not in table:
            return self.fail(name, f"unknown {quoted(name.text)}; {did_you_mean(name.text, table)}")
        parameters = options_of(table[name.text])
        if not is_unneeded:
            self.unknown_keys(block, [*parameters, "name", *beside])
        options = {}
        for key, parameter in parameters.items():
            if key in block:
                options[key] = self.value(parameter.annotation, block[key])
            elif parameter.default is parameter.empty:
                self.fail(block, f"missing option {key!r} of {name.text!r}")
            else:
                options[key] = parameter.default
        return Component(name.text, options, str(block.where), block.path)

    def unknown_keys(self, node: Block, options: Iterable[str]) -> None:
        """Adds a mistake for each key of a block that is no option."""
        elsewhere = {} if node.path else self.elsewhere
        options = list(options)
        for key in node.keys() - set(options):
            sections = {place.partition(".")[0] for place in elsewhere.values()}
            hint = did_you_mean(key, [*options, *sections])
            if key in elsewhere:  # lr=1e-4 instead of optimizer.lr=1e-4
                hint = f"did you mean {elsewhere[key]!r}?"
            path = f"{node.path}: " if node.path else ""
            message = f"{path}unknown option {quoted(key)}; {hint}"
            self.mistakes.append(Mistake(node[key].where, message))

    def value(self, kind: Any, node: Leaf | Block) -> Any:
        """A value of type ``kind``; ``None`` after a mistake."""
        origin, args = get_origin(kind), get_args(kind)
        if origin in UNIONS:
            return self.union(args, node)
        if (table := table_of(kind)) is not None:
            optional = args[0] is not Component
            return None if optional and is_null(node) else self.component(table, node)
        if origin is Annotated:
            choices = args[1]
            if isinstance(choices, Range):
                return self.number(args[0], choices, node)
            return self.choice(choices, node)
        if is_dataclass(kind):
            return self.dataclass(kind, node)  # type: ignore[arg-type]
        if origin is dict and isinstance(node, Block):
            return {key: self.value(args[1], part) for key, part in node.items()}
        if kind in (str, Path) and node.written is not None:  # whatever YAML makes of it
            node = Leaf(node.where, node.path, text=node.written)
        if isinstance(node, Block):
            return self.fail(node, f"expected {_spell(kind)}, got a block")
        if origin is tuple:
            return self.tuple(kind, node)
        if node.items is not None:
            return self.fail(node, f"expected {_spell(kind)}, got a list")
        if origin is Literal:
            return self.choice(args, node)
        if kind in (str, Path):
            return self.text(kind, node)
        return self.scalar(kind, node)

    def union(self, kinds: Sequence[Any], node: Leaf | Block) -> Any:
        """A value of the first type that has the node's shape: block, list or plain value."""
        if types.NoneType in kinds and is_null(node):
            return None
        kinds = [kind for kind in kinds if kind is not types.NoneType]
        fitting = [kind for kind in kinds if _shape(kind) == _shape_of(node)]
        if not fitting and node.written is not None:  # "[old] screws" may be a folder
            fitting = [kind for kind in kinds if kind in (str, Path)]
        if fitting:  # of words and a number, such as "all" or 3, a number is no word
            is_number = isinstance(node, Leaf) and bool(_NUMBER.fullmatch(node.text or ""))
            return self.value(fitting[-1 if is_number else 0], node)
        return self.fail(node, f"expected {' or '.join(_spell(kind) for kind in kinds)}")

    def tuple(self, kind: Any, node: Leaf) -> Any:
        """A list of any length, or of the declared length."""
        args = get_args(kind)
        if node.items is None:
            return self.fail(node, f"expected {_spell(kind)}")
        if args[-1] is not Ellipsis and len(args) != len(node.items):
            return self.fail(node, f"expected {_spell(kind)}, got {len(node.items)} values")
        return tuple(self.value(args[0], item) for item in node.items)

    def choice(self, choices: Iterable[str] | Mapping[str, Any], node: Leaf | Block) -> Any:
        """One of several names."""
        text = node.text or "" if isinstance(node, Leaf) else ""
        if text in choices:
            return text
        return self.fail(node, f"unknown {quoted(text)}; {did_you_mean(text, choices)}")

    def number(self, kind: Any, limits: Range, node: Leaf | Block) -> Any:
        """A number that lies in a range."""
        number = self.value(kind, node)
        if number is None or number in limits:
            return number
        return self.fail(node, f"must be {limits}, got {number}")

    def scalar(self, kind: Any, node: Leaf) -> Any:
        """A number, or true or false."""
        text = node.text or ""
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float):
            try:
                number = kind(text)
            except ValueError:
                number = math.nan
            if abs(number) < 2**63 if kind is int else math.isfinite(number):
                return number
        return self.fail(node, f"expected {_spell(kind)}, got {quoted(text)}")

    def text(self, kind: Any, node: Leaf) -> Any:
        """Text, or a path that is valid in file systems."""
        text = node.text or ""
        is_text = "\0" not in text and not _SURROGATE.search(text)
        value = _path(text) if kind is Path and is_text else text
        if is_text and value is not None:
            return value
        return self.fail(node, f"expected {_spell(kind)}, got {quoted(text)}")


def _path(text: str) -> Path | None:
    """The path, if it is valid."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~name of an unknown user
        return None
    if not text or _CONTROL.search(text):
        return None
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    is_short = longest <= _LONGEST_NAME and len(os.fsencode(path)) <= _LONGEST_PATH
    return path if is_short else None


def is_null(node: Leaf | Block) -> bool:
    """Whether a node means "none" where that is allowed; a folder called null is ``./null``."""
    if not isinstance(node, Leaf) or node.items is not None or node.problem:
        return False
    return node.text == "" or (node.text in NULL and not node.is_quoted)


def _with_replaced(node: Block, own: Iterable[str]) -> Block:
    """The block, with the options that stay when its ``name`` replaces another component.

    Example:
        ``dataset: {name: folder, good: [ok]}`` over ``dataset: {name: visa, split: 1cls, dir: a}``
        is ``{name: folder, good: [ok], dir: a}`` where ``dir`` is one of ``own``: ``split`` means
        nothing to the reader ``folder``, but every reader has a folder.

    Args:
        node: A block with a component's name and options, and others.
        own: Names of the others, which stay.
    """
    if node.replaced is None:
        return node
    before = _with_replaced(node.replaced, own)
    kept = Block(node.where, node.path)
    kept.update({key: before[key] for key in own if key in before})
    return merge(kept, node)


def _shape(kind: Any) -> str:
    """The shape of a value of this type in YAML: a block, a list or a plain value."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(args[1], Range):
        return _shape(args[0])
    if is_dataclass(kind) or origin in (Annotated, dict):
        return "block"
    return "list" if origin is tuple else "plain"


def _shape_of(node: Leaf | Block) -> str:
    if isinstance(node, Block):
        return "block"
    return "plain" if node.items is None else "list"


def _spell(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(args[1], Range):
        return _spell(args[0])
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is tuple:
        return (
            f"a list, each {_spell(args[0])}" if args[-1] is Ellipsis else f"a list of {len(args)}"
        )
    return _SPELLED.get(kind, "a block of options")
