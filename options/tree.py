"""A YAML file as a tree of plain text, each piece knowing the file and line it came from."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from utils.errors import UserError


class Place(NamedTuple):
    """Where something was written; places sort by file, then by line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """``file:line``, or the command-line argument itself."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Mistake(NamedTuple):
    """One thing to mend; the same mistake found twice is reported once."""

    where: Place
    message: str


@dataclass
class Leaf:
    """A scalar (``text``) or list (``items``), with the place and dotted path it was written at."""

    where: Place
    path: str
    text: str | None = None
    items: tuple["Leaf", ...] | None = None


class Block(dict[str, "Leaf | Block"]):
    """A mapping, with the place and dotted path it was written at.

    Attributes:
        replaced: What stood here before a block with another ``name`` was written over it.
    """

    def __init__(self, where: Place, path: str = "") -> None:
        super().__init__()
        self.where, self.path = where, path
        self.replaced: Block | None = None


def read(path: Path, mistakes: list[Mistake], seen: tuple[Path, ...] = ()) -> Block:
    """The tree of ``path`` on top of the files its ``__include__:`` names.

    Args:
        path: A YAML file.
        mistakes: Gets what is wrong but does not keep the rest from being read.
        seen: The files that led here, to notice a circle.

    Raises:
        UserError: If the file cannot be read or is not YAML.
    """
    if path.resolve() in seen:
        raise UserError(f"{path}: __include__ goes round in a circle")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason})") from error
    tree = parse(text, str(path), mistakes)
    below = Block(tree.where)
    for name in _includes(tree.pop("__include__", None)):
        merge(below, read(path.parent / name, mistakes, (*seen, path.resolve())))
    return merge(below, tree)


def parse(text: str, file: str, mistakes: list[Mistake]) -> Block:
    """The tree of one YAML text; ``file`` is the name used in messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, mark.line + 1 if mark else 1)
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise UserError(f"{place}: not valid YAML: {problem}") from error
    if node is None:
        return Block(Place(file, 1))
    tree = _Converter(file, mistakes).convert(node, "", ())
    if not isinstance(tree, Block):
        raise UserError(f"{file}:1: expected options, one 'key: value' a line")
    return tree


def _includes(node: Leaf | Block | None) -> Sequence[str]:
    if node is None:
        return ()
    leaves = node.items or (node,) if isinstance(node, Leaf) else ()
    names = [leaf.text for leaf in leaves if leaf.text]
    if not leaves or len(names) < len(leaves):
        raise UserError(f"{node.where}: __include__: expected a file name or a list of them")
    return names


class _Converter:
    """Turns PyYAML's nodes, which know their lines, into leaves and blocks."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.file, self.mistakes = file, mistakes

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def convert(self, node: yaml.Node, path: str, above: tuple[yaml.Node, ...]) -> Leaf | Block:
        where = self.place(node)
        if isinstance(node, yaml.ScalarNode):
            return Leaf(where, path, text=node.value)
        if any(node is outer for outer in above):
            raise UserError(f"{where}: {path}: an alias may not contain itself")
        above = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            items = [self.convert(item, f"{path}[{i}]", above) for i, item in enumerate(node.value)]
            plain = tuple(item for item in items if isinstance(item, Leaf) and item.items is None)
            if len(plain) < len(items):
                self.mistakes.append(Mistake(where, f"{path}: a list may hold plain values only"))
            return Leaf(where, path, items=plain)
        block = Block(where, path)
        for key, value in node.value:
            self.entry(block, key, value, above)
        return block

    def entry(
        self, block: Block, key: yaml.Node, value: yaml.Node, above: tuple[yaml.Node, ...]
    ) -> None:
        where = self.place(key)
        if not isinstance(key, yaml.ScalarNode):
            self.mistakes.append(Mistake(where, f"{block.path}: a key must be a plain word"))
            return
        path = f"{block.path}.{key.value}".lstrip(".")
        if key.value in block:
            first = block[key.value].where.line
            self.mistakes.append(Mistake(where, f"{path}: given twice, first on line {first}"))
            return
        block[key.value] = self.convert(value, path, above)
        block[key.value].where = where


def merge(below: Block, above: Block, *, replace_named: bool = True) -> Block:
    """Writes ``above`` over ``below``, in place.

    Args:
        below: What is there already.
        above: What goes over it.
        replace_named: Whether a block with a ``name`` replaces what is below instead of mixing
            with it: options of one component mean nothing to another.
    """
    for key, value in above.items():
        old = below.get(key)
        replace = isinstance(value, Block) and "name" in value and replace_named
        if isinstance(old, Leaf) and isinstance(value, Block) and old.text and not replace:
            named = Block(old.where, old.path)  # "classif: mlp" is short for its name
            named["name"] = old
            below[key] = old = named
        if isinstance(old, Block) and isinstance(value, Block) and not replace:
            merge(old, value, replace_named=replace_named)
        else:
            below[key] = value
            if isinstance(old, Block) and isinstance(value, Block):
                value.replaced = old
    below.where, below.path = above.where, above.path
    return below


def from_overrides(items: Sequence[str], mistakes: list[Mistake]) -> Block:
    """One tree for all ``a.b=value`` arguments, so that their order does not matter."""
    tree = Block(Place("command line"))
    given: set[str] = set()
    for item in items:
        here = Place(item)
        dotted, equals, text = item.partition("=")
        if not equals or not all(dotted.split(".")):
            mistakes.append(Mistake(here, "expected key=value, as in optimizer.lr=1e-4"))
        elif dotted in given:
            mistakes.append(Mistake(here, f"{dotted}: given twice on the command line"))
        else:
            given.add(dotted)
            merge(tree, _override(dotted, text, here, mistakes), replace_named=False)
    return tree


def _override(dotted: str, text: str, here: Place, mistakes: list[Mistake]) -> Block:
    try:
        value = parse(f"value: {text}", "", mistakes)["value"]
    except UserError as error:
        raise UserError(f"{here}: not valid YAML") from error
    _put(value, here, dotted)
    *outer, last = dotted.split(".")
    tree = Block(here, ".".join(outer))
    tree[last] = value
    for depth in range(len(outer) - 1, -1, -1):
        inner, tree = tree, Block(here, ".".join(outer[:depth]))
        tree[outer[depth]] = inner
    return tree


def _put(node: Leaf | Block, here: Place, path: str) -> None:
    node.where, node.path = here, path
    if isinstance(node, Block):
        for key, value in node.items():
            _put(value, here, f"{path}.{key}")
        return
    for i, item in enumerate(node.items or ()):
        _put(item, here, f"{path}[{i}]")


def spread(tree: Block, over: Block, *, stages: Iterable[str], sections: Iterable[str]) -> Block:
    """Copies sections written at the top into every stage, where the stage may change them.

    ``optimizer:`` at the top of a file is the default of each stage; ``optimizer.lr=1e-4`` on the
    command line is meant for each stage, whatever its own section said; ``student.optimizer.lr``
    has the last word.

    Args:
        tree: Options from files; changed in place.
        over: Options from the command line.
        stages: Top-level keys that are stages.
        sections: Keys that may stand in a stage or, for all of them, at the top.

    Returns:
        ``tree``, with ``over`` applied and no section left at the top.
    """
    sections, stages = list(sections), list(stages)
    shared, shared_over = _take(tree, sections), _take(over, sections)
    below = {name: tree.pop(name) for name in stages if name in tree}
    above = {name: over.pop(name) for name in stages if name in over}
    file = tree.where
    merge(tree, over).where = file
    for name in stages:
        parts = [shared, below.get(name), shared_over, above.get(name)]
        last = next((part for part in (parts[3], parts[1]) if part is not None), None)
        if isinstance(last, Leaf):
            tree[name] = last
        elif last is not None:
            stage = Block(last.where, name)
            for part in parts:
                if isinstance(part, Block):
                    merge(stage, copy.deepcopy(part))
            stage.where, stage.path = last.where, name
            tree[name] = stage
    return tree


def _take(tree: Block, keys: Iterable[str]) -> Block:
    taken = Block(tree.where)
    for key in keys:
        if key in tree:
            taken[key] = tree.pop(key)
    return taken
