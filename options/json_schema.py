"""JSON schemas of the YAML files, with which editors complete and check them.

They are made from the same dataclasses and tables as in :mod:`options.load`. An editor knows only
one file and YAML's types, so schema and reader differ:

* In the schema, a file with ``__include__`` may lack any option, and so may a stage if the option
  is at the top of the file. A file without a stage is valid, because others include it.
* Only the reader checks rules about several options, such as a student that needs a teacher.
* In the schema, numbers, true and false have no quotes; ``1_000``, ``3.0`` for a whole number,
  ``.inf`` and a path called ``null`` are mistakes. The reader accepts ``"3"``. It also refuses
  NUL characters, and paths that are not valid in file systems.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml

from options.conversion import UNIONS
from options.dump import plain
from options.schema import STAGES, Run, Stage
from utils.ranges import Range
from utils.registry import INLINE, NOT_AN_OPTION, descriptions_of, options_of, table_of

Schema = dict[str, Any]
_INCLUDE: Schema = {
    "description": "Options files that are read first, in order; this one goes over them.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ],
}
_PLAIN: dict[type, Schema] = {
    int: {"type": "integer", "minimum": -(2**63) + 1, "maximum": 2**63 - 1},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": ["string", "number", "boolean", "null"]},
    Path: {"type": ["string", "number", "boolean"], "minLength": 1},
}


def json_schema(cls: type[Any]) -> Schema:
    """The schema, draft 7, of a file for ``cls``: a ``Run`` or a ``Comparison``.

    Every section and component has two definitions. In ``part.X`` no option is required, because an
    included file, a section at the top or the command line may set it. ``whole.X`` is for places
    where this is not possible, and adds the required options.
    """
    definitions = _Definitions()
    definitions.section(cls)
    part, whole = (definitions.schemas[f"{state}.{cls.__name__}"] for state in ("part", "whole"))
    properties = {"__include__": _INCLUDE, **part["properties"]}
    required = {key: whole[key] for key in ("required", "properties")}
    if cls is Run:
        hints = get_type_hints(Stage, include_extras=True)
        sections = {f.name: definitions.option(hints[f.name], f, Stage) for f in fields(Stage)}
        stages = {name: whole["properties"].pop(name) for name in STAGES}
        has_stage = {"anyOf": [{"required": [name]} for name in STAGES]}
        rules = [
            _unless(["__include__"], {"if": has_stage, "then": required}),
            _unless(["__include__", *sections], {"properties": stages}),
        ]
        properties |= sections
    else:
        rules = [_unless(["__include__"], required)]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": cls.__doc__.splitlines()[0] if cls.__doc__ else cls.__name__,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": rules,
        "definitions": dict(sorted(definitions.schemas.items())),
    }


def _unless(keys: list[str], rule: Schema) -> Schema:
    """The rule for files without any of ``keys`` at the top."""
    return {"if": {"anyOf": [{"required": [key]} for key in keys]}, "else": rule}


class _Definitions:
    """Collects the definition of each section and component under a name of its own.

    Attributes:
        schemas: The definitions by name.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def kind(self, kind: Any, name: str, state: str = "part") -> Schema:
        """The schema of a value of type ``kind``; ``name``: the name of its option."""
        origin, args = get_origin(kind), get_args(kind)
        if origin in UNIONS:
            parts = [self.kind(part, name, state) for part in args]
            return {"anyOf": [each for part in parts for each in part.get("anyOf", [part])]}
        if kind is NoneType:
            return {"type": "null"}
        if (table := table_of(kind)) is not None:
            self.table(name, table)
            reference = {"$ref": f"#/definitions/{state}.{name}"}
            is_optional = NoneType in get_args(args[0])
            return {"anyOf": [reference, {"type": "null"}]} if is_optional else reference
        if origin is Annotated and isinstance(args[1], Range):
            return self.kind(args[0], name) | _limits(args[1])
        if origin in (Annotated, Literal):
            return {"enum": _words(args[1] if origin is Annotated else args)}
        if origin is tuple:
            size = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
            return {"type": "array", "items": self.kind(args[0], name), **size}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.kind(args[1], name, state)}
        if is_dataclass(kind):
            self.section(kind)  # type: ignore[arg-type]
            return {"$ref": f"#/definitions/{state}.{kind.__name__}"}  # type: ignore[union-attr]
        return dict(_PLAIN[kind])

    def option(self, kind: Any, field: Field[Any], owner: type[Any]) -> Schema:
        """An option of a section, with its description and its default."""
        text = descriptions_of(owner).get(field.name, "")
        return _described(self.kind(kind, field.name), text, field.default)

    def section(self, cls: type[Any]) -> None:
        """Defines a dataclass; with a component among its fields, once for each choice."""
        name = cls.__name__
        if f"part.{name}" in self.schemas:
            return
        self.schemas[f"part.{name}"] = {}  # sections may contain each other
        hints = get_type_hints(cls, include_extras=True)
        own = [f for f in fields(cls) if f.metadata not in (INLINE, NOT_AN_OPTION)]
        inline = [f for f in fields(cls) if f.metadata == INLINE]
        properties = {f.name: self.option(hints[f.name], f, cls) for f in own}
        whole = {f.name: self.kind(hints[f.name], f.name, "whole") for f in own}
        nested = {key: value for key, value in whole.items() if "whole." in str(value)}
        required = [f.name for f in own if f.default is MISSING and f.default_factory is MISSING]
        if not inline:
            self.schemas[f"part.{name}"] = _block(properties)
            self.schemas[f"whole.{name}"] = _whole(f"part.{name}", required, nested)
            return
        self.schemas[f"own.{name}"] = {"properties": properties}
        shared = {key: {"$ref": f"#/definitions/own.{name}/properties/{key}"} for key in properties}
        table = get_args(hints[inline[0].name])[1]
        self.entries(name, table, shared=shared, required=required, nested=nested)

    def table(self, name: str, table: Mapping[str, Callable[..., Any]]) -> None:
        """Defines a choice of components: the name alone, or a block of name and options."""
        if f"part.{name}" in self.schemas:
            return
        self.entries(name, table)
        short = {key for key, entry in table.items() if not _required(entry)}
        for state, names in (("part", set(table)), ("whole", short)):
            self.schemas[f"{state}.{name}"]["anyOf"].insert(0, {"enum": sorted(names)})

    def entries(
        self,
        name: str,
        table: Mapping[str, Callable[..., Any]],
        *,
        shared: Mapping[str, Schema] | None = None,
        required: list[str] | None = None,
        nested: Mapping[str, Schema] | None = None,
    ) -> None:
        """Defines a block for each entry of a table.

        Args:
            name: Name of the choice.
            table: The entries.
            shared: Further options in the block of each entry.
            required: The required ones among them.
            nested: ``whole`` schemas of those among them that have options of their own.
        """
        for state in ("part", "whole"):
            references = [{"$ref": f"#/definitions/{state}.{name}.{key}"} for key in sorted(table)]
            self.schemas[f"{state}.{name}"] = {"anyOf": references}
        for key, entry in table.items():
            properties = {"name": {"const": key, "description": _first_line(entry)}}
            whole = dict(nested or {})
            texts = descriptions_of(entry)
            for option, parameter in options_of(entry).items():
                kind = self.kind(parameter.annotation, option)
                properties[option] = _described(kind, texts.get(option, ""), parameter.default)
                if table_of(parameter.annotation) is not None:
                    whole[option] = self.kind(parameter.annotation, option, "whole")
            self.schemas[f"part.{name}.{key}"] = _block({**(shared or {}), **properties})
            self.schemas[f"whole.{name}.{key}"] = _whole(
                f"part.{name}.{key}", ["name", *(required or []), *_required(entry)], whole
            )


def _block(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _whole(part: str, required: list[str], nested: Mapping[str, Schema]) -> Schema:
    whole: Schema = {"allOf": [{"$ref": f"#/definitions/{part}"}], "required": required}
    return {**whole, "properties": dict(nested)}


def _required(entry: Callable[..., Any]) -> list[str]:
    return [name for name, p in options_of(entry).items() if p.default is p.empty]


def _first_line(entry: Callable[..., Any]) -> str:
    return (entry.__doc__ or "").strip().splitlines()[0].replace("``", "`")


def _described(schema: Schema, text: str, default: Any) -> Schema:
    if "$ref" in schema:  # keys beside a reference have no effect
        schema = {"allOf": [schema]}
    described = {**schema, "description": text} if text else dict(schema)
    if default not in (MISSING, inspect.Parameter.empty):
        described["default"] = plain(default)
    return described


def _limits(limits: Range) -> Schema:
    low = "minimum" if limits.ends[0] == "[" else "exclusiveMinimum"
    high = "maximum" if limits.ends[1] == "]" else "exclusiveMaximum"
    return {low: limits.low, **({} if math.isinf(limits.high) else {high: limits.high})}


def _words(choices: Any) -> list[Any]:
    """The choices, and the numbers that YAML reads in their place, such as ``22``."""

    def both() -> Iterator[Any]:
        for word in sorted(choices):
            yield word
            if (other := yaml.safe_load(word)) != word:
                yield other

    return list(both())
