"""Options as a tree of plain text; each piece keeps the place that it was written at."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

MAX_DEPTH = 32  # blocks inside of blocks
_CHOICES = ("rule",)  # blocks of one chosen key, which replace each other as named ones do


class Place(NamedTuple):
    """Where something was written; places sort by file, then by line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """``file:line``, or the command-line argument itself."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Mistake(NamedTuple):
    """One thing to fix; the same mistake at the same place is reported once."""

    where: Place
    message: str


@dataclass
class Leaf:
    """A scalar (``text``) or a list (``items``).

    Attributes:
        where: Where it was written.
        path: Its dotted path, as in ``student.optimizer.lr``.
        text: The scalar; ``None``: it is a list.
        items: The list; ``None``: it is a scalar.
        is_quoted: Whether the scalar stands in quotes: ``"null"`` is a word, ``null`` is none.
        written: Of a command-line argument everything after ``=``: the value where text is
            expected, whatever YAML makes of it.
        problem: Why ``written`` is not YAML; empty if it is.
    """

    where: Place
    path: str
    text: str | None = None
    items: tuple["Leaf", ...] | None = None
    is_quoted: bool = False
    written: str | None = None
    problem: str = ""


class Block(dict[str, "Leaf | Block"]):
    """A mapping, with the place and the dotted path it was written at.

    Attributes:
        replaced: What stood here before a block with another ``name`` was written over it.
        written: As of a :class:`Leaf`.
    """

    def __init__(self, where: Place, path: str = "") -> None:
        super().__init__()
        self.where, self.path = where, path
        self.replaced: Block | None = None
        self.written: str | None = None


def printable(text: str, width: int = 120) -> str:
    """``text`` on one line of at most ``width`` signs, for messages."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: width + 1])
    return text if len(text) <= width else f"{text[: width - 3]}..."


def quoted(text: str) -> str:
    """A value as messages show it: in quotes, cut to a few words."""
    return repr(printable(text, 60)) if text.isprintable() else f"'{printable(text, 60)}'"


def merge(below: Block, above: Block, *, replace_named: bool = True) -> Block:
    """Writes ``above`` over ``below``, in place.

    Example:
        ``{optimizer: {name: SGD, lr: 1}}`` over ``{optimizer: {name: Adam, eps: 2}, seed: 3}`` is
        ``{optimizer: {name: SGD, lr: 1}, seed: 3}``: Adam's ``eps`` is gone. Without the name,
        ``{optimizer: {lr: 1}}`` gives ``{optimizer: {name: Adam, eps: 2, lr: 1}, seed: 3}``.

    Args:
        below: What is there already.
        above: What goes over it.
        replace_named: Whether a block with a ``name``, or of one chosen key, replaces what is
            below instead of mixing with it: options of one component mean nothing to another.
    """
    for key, value in above.items():
        old = below.get(key)
        is_choice = isinstance(value, Block) and ("name" in value or key in _CHOICES)
        replace = is_choice and replace_named
        if isinstance(old, Leaf) and isinstance(value, Block) and old.text and not replace:
            named = Block(old.where, old.path)  # "classif: mlp" is short for its name
            named["name"] = old
            below[key] = old = named
        if isinstance(old, Block) and isinstance(value, Block):
            if not replace:
                merge(old, value, replace_named=replace_named)
                continue
            value.replaced = old
        below[key] = value
    below.where, below.path, below.written = above.where, above.path, above.written
    return below


def spread(tree: Block, over: Block, *, stages: Iterable[str], sections: Iterable[str]) -> Block:
    """Copies sections written at the top into every stage, where the stage may change them.

    Example:
        A file says ``optimizer: {name: SGD, lr: 1}`` at its top and ``optimizer: {lr: 2}`` in its
        student; the command line says ``optimizer.lr=3`` and ``teacher.optimizer.lr=4``. Each line
        goes over the one before it:

        ========================  =============  =============
        written                   teacher        student
        ========================  =============  =============
        top of the file           SGD, lr 1      SGD, lr 1
        the stage of the file                    SGD, lr 2
        top, command line         SGD, lr 3      SGD, lr 3
        stage, command line       SGD, lr 4
        ========================  =============  =============

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
        layers = [shared, below.get(name), shared_over, above.get(name)]
        own = [layer for layer in (layers[1], layers[3]) if layer is not None]
        if not own:
            continue  # top-level sections alone make no stage
        last = own[-1]
        if isinstance(last, Leaf):  # "teacher: FOLDER" or "student: null"
            tree[name] = last
            continue
        stage = Block(last.where, name)
        for layer in layers:
            if isinstance(layer, Block):
                merge(stage, copy.deepcopy(layer))
        stage.where, stage.path, stage.written = last.where, name, last.written
        tree[name] = stage
    return tree


def _take(tree: Block, keys: Iterable[str]) -> Block:
    taken = Block(tree.where)
    for key in keys:
        if key in tree:
            taken[key] = tree.pop(key)
    return taken
