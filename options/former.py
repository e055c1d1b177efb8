"""Options of earlier versions: what to write instead, and how runs that store them load."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import Any, NamedTuple

from options.tree import Block, Leaf, Mistake


class Former(NamedTuple):
    """An option, or a value of an option, that does not exist any more.

    Attributes:
        path: Pattern of the dotted path, with ``*.`` for the sections around it, as in
            ``*.img_enc.train``.
        advice: What to write instead.
        value: The former value; ``None``: the whole option.
        instead: Options that replace it in options stored with a run, ``{name: value}``; ``...`` is
            the stored value.
        same_if: Values, as patterns, of the option and those beside it, with which ``instead`` has
            the same effect. Runs with other values cannot be loaded any more.
    """

    path: str
    advice: str
    value: str | None = None
    instead: Mapping[str, Any] = {}
    same_if: Sequence[Mapping[str, str]] = ({},)


_OWN_CODE = "leave it out: each method does as its authors' code does"
_TWO_FOLDERS = {
    "name": "folder",
    "good": ["no"],
    "bad": ["yes"],
    "object_name": "brain",
    "defect": "tumor",
}
FORMER: Sequence[Former] = (
    Former(
        "*.model.activation",
        _OWN_CODE,
        same_if=(
            {"name": "anomalyclip", "activation": "own"},
            {"name": "vand", "activation": "gelu"},
            {"name": "vand", "activation": "own", "arch": "demo-ViT"},  # has the exact GELU
        ),
    ),
    Former(
        "*.model.positions", _OWN_CODE, same_if=({"name": "anomalyclip", "positions": "bilinear"},)
    ),
    Former("*.model.per_prompt_norm", _OWN_CODE, same_if=({"per_prompt_norm": "true"},)),
    Former("*.model.underscore", _OWN_CODE, same_if=({"name": "vand", "underscore": "true"},)),
    Former("*.classif.mean_dropout", "write whole_dropout: 0.5, and train it again"),
    Former("*.model.prompt_cache", "leave it out: dataset.cache is the folder"),
    Former("*.train", "write none", "head", {"train": "none"}),
    Former("*.model.prompts", "write mala_lab", "22", {"prompts": "mala_lab"}),
    Former("*.model.prompts", "write anomalib", "21", {"prompts": "anomalib"}),
    Former(
        "*.dataset*.name",
        "write name: folder, with the options in options/brainmri.yaml",
        "brainmri",
        _TWO_FOLDERS,
    ),
    Former(
        "*.dataset*.name",
        "write name: folder, with the options in options/br35h.yaml",
        "br35h",
        {**_TWO_FOLDERS, "ignore": ["pred"]},
    ),
    Former(
        "*.dataset*.name",
        "write name: folder, with the options in options/covid19.yaml",
        "covid19",
        {
            "name": "folder",
            "masks": [],
            "ignore": ["masks"],
            "object_name": "chest",
            "defect": "COVID-19",
        },
    ),
    Former("*.dataset*.normal", "write good: [NAME]", instead={"good": [...]}),
    Former("*.dataset*.anomalous", "write bad: [NAME]", instead={"bad": ...}),
)


def replace_former(tree: Block) -> Iterator[tuple[Mistake, bool]]:
    """Replaces former options, in place.

    Yields:
        For each of them what to write instead, and whether the replacement has the same effect.
    """
    written = Block(tree.where)
    written.update(tree)
    for key, node in written.items():
        entry = next((entry for entry in FORMER if _fits(entry, node)), None)
        if entry is None:
            if isinstance(node, Block):
                yield from replace_former(node)
            continue
        del tree[key]
        tree.update({name: _node(value, node) for name, value in entry.instead.items()})
        is_same = any(
            all(_matches(written.get(name), value) for name, value in condition.items())
            for condition in entry.same_if
        )
        what = "this option" if entry.value is None else repr(entry.value)
        yield Mistake(node.where, f"{node.path}: {what} is gone; {entry.advice}"), is_same


def _fits(entry: Former, node: Leaf | Block) -> bool:
    is_value = entry.value is None or _matches(node, entry.value)
    return is_value and fnmatchcase(f".{node.path}", entry.path)


def _matches(node: Leaf | Block | None, pattern: str) -> bool:
    return isinstance(node, Leaf) and node.text is not None and fnmatchcase(node.text, pattern)


def _node(value: Any, at: Leaf | Block) -> Leaf | Block:
    if isinstance(value, EllipsisType):
        return at
    if isinstance(value, list):
        items = tuple(item for item in (_node(v, at) for v in value) if isinstance(item, Leaf))
        return Leaf(at.where, at.path, items=items)
    return Leaf(at.where, at.path, text=str(value), is_quoted=True)
