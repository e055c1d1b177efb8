"""Fills dataclasses from YAML; every mistake is reported with its file and line."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TypeVar, get_type_hints

from options.conversion import Conversion
from options.former import replace_former
from options.overrides import from_overrides
from options.schema import STAGES, Run, Stage
from options.tree import Block, Mistake, spread
from options.yaml_text import parse, read
from utils.errors import UserError
from utils.optimizers import OPTIMIZERS
from utils.registry import Table
from utils.schedules import SCHEDULES

T = TypeVar("T")
_MOST_LINES = 20  # of a message, so that its beginning stays on the screen


def load(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Reads an options file.

    Args:
        path: YAML file. The files of its ``__include__:`` are read first, in order; this one
            overrides them.
        overrides: ``a.b=value`` strings from the command line, applied last.

    Raises:
        UserError: With one line per mistake, each starting ``file:line:``.
    """
    mistakes: list[Mistake] = []
    tree, over = read(path, mistakes), from_overrides(overrides, mistakes)
    spread(tree, over, stages=STAGES, sections=[f.name for f in fields(Stage)])
    return from_tree(Run, tree, mistakes)


def loads(text: str, name: str) -> Run:
    """Reads options that :func:`options.dump.dumps` stored with a run, also in an earlier version.

    Former options are replaced. A trained network does not need its optimizer and schedule any
    more, so these may be unknown.

    Args:
        text: The YAML.
        name: Its name in messages.

    Raises:
        UserError: As :func:`load`.
    """
    mistakes: list[Mistake] = []
    tree = parse(text, name, mistakes)
    return from_tree(Run, tree, mistakes, is_stored=True)


def from_tree(cls: type[T], tree: Block, mistakes: list[Mistake], *, is_stored: bool = False) -> T:
    """Checks ``tree`` against the dataclass ``cls`` and fills it.

    Args:
        cls: A dataclass; a field that names a component is ``Annotated[Component, TABLE]``.
        tree: The content of the file.
        mistakes: The mistakes so far.
        is_stored: Whether the options were stored with a run.

    Raises:
        UserError: With all mistakes, sorted by file and line.
    """
    for mistake, is_replaced in replace_former(tree):
        if not (is_stored and is_replaced):
            mistakes.append(mistake)
    unneeded: Sequence[Table] = (OPTIMIZERS, SCHEDULES) if is_stored else ()
    elsewhere = _STAGE_OPTIONS if cls is Run else {}
    result = Conversion(mistakes, elsewhere=elsewhere, unneeded=unneeded).dataclass(cls, tree)
    if mistakes or result is None:
        lines = [f"{where}: {message}" for where, message in sorted(set(mistakes))]
        more = len(lines) - _MOST_LINES
        rest = [f"... and {more} more mistakes"] if more > 0 else []
        raise UserError("\n".join([*lines[:_MOST_LINES], *rest]))
    return result


def _stage_options() -> Mapping[str, str]:
    """The paths of the options of a stage by their names: ``lr`` -> ``optimizer.lr``."""
    places = {"lr": "optimizer.lr"}
    for section, hint in get_type_hints(Stage).items():
        places[section] = section
        if is_dataclass(hint):
            places.update({f.name: f"{section}.{f.name}" for f in fields(hint)})
    return places


_STAGE_OPTIONS = _stage_options()
