"""From ``a.b=value`` arguments of the command line to a tree."""

from collections.abc import Sequence

from options.tree import MAX_DEPTH, Block, Leaf, Mistake, Place, merge
from options.yaml_text import parse
from utils.errors import UserError, printable


def from_overrides(items: Sequence[str], mistakes: list[Mistake]) -> Block:
    """One tree for all ``a.b=value`` arguments, so that their order does not matter.

    Args:
        items: The arguments.
        mistakes: Gets the arguments that are no options.
    """
    tree = Block(Place("command line"))
    given: set[str] = set()
    for item in items:
        here = Place(printable(item))
        path, equals, written = item.partition("=")
        keys = path.split(".")
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            mistakes.append(Mistake(here, "expected key=value, as in optimizer.lr=1e-4"))
        elif path in given:
            mistakes.append(Mistake(here, f"{printable(path)}: given twice on the command line"))
        else:
            given.add(path)
            merge(tree, _branch(keys, written, here), replace_named=False)
    return tree


def _branch(keys: Sequence[str], written: str, here: Place) -> Block:
    """``{a: {b: value}}`` for the keys ``a`` and ``b``."""
    *outer, last = keys
    tree = Block(here, printable(".".join(outer)))
    tree[last] = _value(written, here, printable(".".join(keys)))
    for depth in range(len(outer) - 1, -1, -1):
        inner, tree = tree, Block(here, printable(".".join(outer[:depth])))
        tree[outer[depth]] = inner
    return tree


def _value(written: str, here: Place, path: str) -> Leaf | Block:
    """What stands after ``=``: as YAML reads it, and as it is.

    Which of the two counts is up to the type of the option: ``[old] screws`` and ``a: b # c`` are
    good names of folders and no YAML. What is not YAML is a mistake only where YAML is needed.
    """
    mistakes: list[Mistake] = []
    value: Leaf | Block
    try:
        tree = parse(f"value: {written}", "", mistakes)
        value = tree["value"]
        _move(value, here, path)
        problem = mistakes[0].message.removeprefix("value") if mistakes else ""
        if len(tree) > 1:  # further lines that look like options
            problem = ": expected one value"
    except UserError as error:
        problem = f": {str(error).partition(': ')[2]}"
    if problem:
        value = Leaf(here, path, text=written, problem=f"{path}{problem}")
    value.written = written
    return value


def _move(node: Leaf | Block, here: Place, path: str) -> None:
    """Gives a node, and all that is in it, the place and the path that it has."""
    node.where, node.path = here, path
    if isinstance(node, Block):
        for key, value in node.items():
            _move(value, here, f"{path}.{printable(key)}")
        return
    for i, item in enumerate(node.items or ()):
        _move(item, here, f"{path}[{i}]")
