"""From YAML text to a tree, within limits: no file can take much time or memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from options.tree import MAX_DEPTH, Block, Leaf, Mistake, Place, merge
from utils.errors import UserError, printable

MAX_BYTES = 100_000  # of one file; those of this repository have at most 6,000
MAX_VALUES = 10_000  # in one file, counted each time that an alias repeats them
MAX_FILES, MAX_BYTES_TOGETHER = 100, 300_000  # that include each other
_TOO_DEEP = f"more than {MAX_DEPTH} blocks or lists inside of each other: not an options file"


def read(path: Path, mistakes: list[Mistake]) -> Block:
    """The tree of ``path`` on top of the files its ``__include__:`` names.

    Args:
        path: A YAML file.
        mistakes: Gets what is wrong but does not keep the rest from being read.

    Raises:
        UserError: If a file cannot be read, is not YAML, or is larger than an options file can be.
    """
    return _Files(mistakes).tree(path, ())


class _Files:
    """Reads files that include each other."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes, self.count, self.size = mistakes, 0, 0

    def tree(self, path: Path, above: tuple[str, ...]) -> Block:
        """The tree of ``path``; ``above``: the files that include it."""
        self.count += 1
        if self.count > MAX_FILES:
            raise UserError(f"{printable(above[0])}: includes more than {MAX_FILES} files")
        text = _text(path)
        self.size += len(text)
        if self.size > MAX_BYTES_TOGETHER:
            raise UserError(
                f"{printable(above[0])}: includes more than {MAX_BYTES_TOGETHER:,} bytes together"
            )
        tree = parse(text, str(path), self.mistakes)
        file = os.path.realpath(path)
        if file in above:
            raise UserError(f"{path}: __include__ goes round in a circle")
        below = Block(tree.where)
        for name in _includes(tree.pop("__include__", None)):
            merge(below, self.tree(path.parent / name, (*above, file)))
        return merge(below, tree)


def _text(path: Path) -> str:
    """What is written in an options file."""
    name = printable(str(path), 300)
    try:
        if path.exists() and not path.is_file():  # devices and pipes may never end
            raise UserError(f"{name}: cannot be read (not a file)")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{name}: has more than {MAX_BYTES:,} bytes: not an options file")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: cannot be read (not UTF-8 text)") from error
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a name with NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be read ({reason})") from error


def _includes(node: Leaf | Block | None) -> Sequence[str]:
    if node is None:
        return ()
    leaves = node.items or (node,) if isinstance(node, Leaf) else ()
    names = [leaf.text for leaf in leaves if leaf.text]
    if not leaves or len(names) < len(leaves):
        raise UserError(f"{node.where}: __include__: expected a file name or a list of them")
    return names


def parse(text: str, file: str, mistakes: list[Mistake]) -> Block:
    """The tree of one YAML text.

    Args:
        text: The YAML.
        file: Its name in messages.
        mistakes: As for :func:`read`.

    Raises:
        UserError: If it is not YAML, not a mapping, nested too deeply or too large.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except RecursionError as error:
        raise UserError(f"{file}: {_TOO_DEEP}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, mark.line + 1 if mark else 1)
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        hint = "text with signs such as : # [ * & % stands in quotes"
        raise UserError(f"{place}: not valid YAML: {printable(str(problem))}; {hint}") from error
    if node is None:
        return Block(Place(file, 1))
    tree = _TreeBuilder(file, mistakes).convert(node, "", ())
    if not isinstance(tree, Block):
        raise UserError(f"{file}:1: expected options, one 'key: value' a line")
    return tree


class _Loader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, token: Any) -> None:
        """PyYAML takes quadratic time for brackets inside of brackets."""
        if self.flow_level > MAX_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(token)


class _TreeBuilder:
    """Turns PyYAML's nodes, which know their lines, into leaves and blocks."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.file, self.mistakes, self.count = file, mistakes, 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def convert(self, node: yaml.Node, path: str, above: tuple[yaml.Node, ...]) -> Leaf | Block:
        where = self.place(node)
        self.count += 1
        if self.count > MAX_VALUES:
            raise UserError(f"{where}: has more than {MAX_VALUES:,} values: not an options file")
        if isinstance(node, yaml.ScalarNode):
            return Leaf(where, path, text=node.value, is_quoted=node.style is not None)
        if any(node is outer for outer in above):
            raise UserError(f"{where}: {path}: an alias may not contain itself")
        if len(above) == MAX_DEPTH:
            raise UserError(f"{where}: {_TOO_DEEP}")
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
        path = f"{block.path}.{printable(key.value)}".lstrip(".")
        if key.value in block:
            first = block[key.value].where.line
            self.mistakes.append(Mistake(where, f"{path}: given twice, first on line {first}"))
            return
        block[key.value] = self.convert(value, path, above)
        block[key.value].where = where
