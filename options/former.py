"""Options of earlier versions: what to write instead, and how runs that have them still load."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from options.tree import Block, Leaf, Mistake


class Former(NamedTuple):
    """An option, or a value of one, that is gone.

    Attributes:
        path: Pattern of the dotted path, with ``*.`` for the sections around it, as in
            ``*.img_enc.train``.
        advice: What to write instead.
        value: The value that is gone; ``None``: the whole option is.
        instead: What options stored with a run get in its place, ``{name beside it: value}``;
            ``None``: nothing has the same effect, so that such a run cannot be used any more.
    """

    path: str
    advice: str
    value: str | None = None
    instead: Mapping[str, Any] | None = {}


# The first entry that fits counts.
FORMER: Sequence[Former] = ()


def replace_former(tree: Block) -> Iterator[tuple[Mistake, bool]]:
    """Exchanges what is gone, in place.

    Yields:
        For each of them what to write instead, and whether something with the same effect stands
        there now.
    """
    for key, node in list(tree.items()):
        entry = next((entry for entry in FORMER if _fits(entry, node)), None)
        if entry is None:
            if isinstance(node, Block):
                yield from replace_former(node)
            continue
        del tree[key]
        for name, value in (entry.instead or {}).items():
            tree[name] = _node(value, node)
        what = "this option" if entry.value is None else repr(entry.value)
        yield (
            Mistake(node.where, f"{node.path}: {what} is gone; {entry.advice}"),
            entry.instead is not None,
        )


def _fits(entry: Former, node: Leaf | Block) -> bool:
    has_value = entry.value is None or (isinstance(node, Leaf) and node.text == entry.value)
    return has_value and fnmatchcase(f".{node.path}", entry.path)


def _node(value: Any, at: Leaf | Block) -> Leaf:
    if isinstance(value, list):
        return Leaf(at.where, at.path, items=tuple(_node(item, at) for item in value))
    return Leaf(at.where, at.path, text=str(value))
