"""A component in YAML: a name from a table, and keyword-only arguments."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from utils.errors import UserError

Table = Mapping[str, Callable[..., Any]]
# Metadata of a dataclass's field: its name and options stand directly in the section, not in a
# block of their own.
INLINE = {"inline": True}
# Metadata of a dataclass's field that the program sets: it is no option.
NOT_AN_OPTION = {"option": False}


@dataclass(frozen=True)
class Component:
    """A table entry chosen by name, with the arguments written for it in YAML.

    Attributes:
        name: Key of the table the field was declared with.
        options: Keyword-only arguments, checked against the signature of the table's entry and
            completed with its defaults.
        where: File and line of the component in YAML, for error messages.
        path: Its dotted path there.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    where: str = field(default="code", compare=False)
    path: str = field(default="", compare=False)

    def build(self, table: Table, *args: Any, **kwargs: Any) -> Any:
        """Calls ``table[name](*args, **kwargs, **options)``.

        Args:
            table: The table this component was checked against.
            *args: Arguments that are not in YAML (feature sizes, a teacher ...).
            **kwargs: More of them, by name.

        Raises:
            UserError: If the table has no such entry, or the entry raises ``ValueError`` or
                ``UserError``; with the path of the option in front.
        """
        place = f"{self.where}: {self.path}" if self.path else self.where
        if self.name not in table:  # only in options that an earlier version stored
            raise UserError(f"{place}: unknown {self.name!r}; {did_you_mean(self.name, table)}")
        try:
            return table[self.name](*args, **kwargs, **self.options)
        except ValueError as error:
            raise UserError(f"{place}: {self.name}: {error}") from error
        except UserError as error:
            raise error.within(self.path) from error


def options_of(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of ``entry``, which are the options in YAML."""
    parameters = inspect.signature(entry, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def descriptions_of(thing: Any) -> dict[str, str]:
    """``{option: text}`` of the ``Args:`` or ``Attributes:`` part of a docstring."""
    texts: dict[str, str] = {}
    name = None
    for line in (inspect.getdoc(thing) or "").splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            texts[name] = start[2]
        elif name and line.startswith("        "):
            texts[name] += f" {line.strip()}"
        else:
            name = None
    return {key: text.replace("``", "`") for key, text in texts.items()}


def table_of(kind: Any) -> Table | None:
    """The table of a field of this type; ``None`` if it is no component."""
    if get_origin(kind) is not Annotated:
        return None
    what, table = get_args(kind)[:2]
    return table if what is Component or Component in get_args(what) else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A hint for an unknown ``word``: the closest of the choices, or else all of them."""
    names = sorted(choices)
    close = difflib.get_close_matches(word[:100], names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
