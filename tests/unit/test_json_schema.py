"""The JSON schemas of the options files: what an editor accepts, the reader accepts, too."""

import copy
import functools
import json
import random
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from options.comparison_file import load_comparison
from options.document import pages
from options.dump import dumps
from options.load import load
from options.schema import GUIDES
from utils.errors import UserError

FILES = sorted(Path("options").rglob("*.yaml"))
ABSTRACT = Path("options/abstract.yaml")  # only there to be included: the reader refuses it
SCHEMA, COMPARISON = Path("options/schema.json"), Path("options/comparison/schema.json")
VALIDATORS = {
    path.parent.name == "comparison": Draft7Validator(json.loads(path.read_text(encoding="utf-8")))
    for path in (SCHEMA, COMPARISON)
}
# The same as yaml.SafeDumper and yaml.SafeLoader, in C where PyYAML has it.
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Options about which there are rules together with others: those are the reader's.
TOGETHER = (
    *("teacher", "student", "baseline", "auxiliary", "objective", "optimizer", "schedule"),
    *("val_fraction", "keep", "hold_out", "hold_out_anomalies", "hold_out_defects", "epochs"),
    *("per_object", "mosaic", "horizontal_flip", "columns", "against", "engine", *GUIDES),
)


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2 with its core types, as editors read it: ``1e-3`` is a number, ``no`` is text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


CORE_TYPES = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
}
for name, (pattern, first) in CORE_TYPES.items():
    resolver = re.compile(rf"(?:{pattern})$")
    first = ["" if sign == "\0" else sign for sign in first]
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", resolver, first)


def is_comparison(path):
    return path.parent.name == "comparison"


def editor_accepts(path, data):
    return VALIDATORS[is_comparison(path)].is_valid(data)


def reader_accepts(path, data, tmp_path):
    """Whether the reader takes ``data``, written elsewhere, as it would take it in ``path``."""
    if "__include__" in data:
        names = data["__include__"]
        names = [names] if isinstance(names, str) else names
        data = {**data, "__include__": [str(path.parent.resolve() / name) for name in names]}
    file = tmp_path / path.name
    file.write_text(
        yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    try:
        (load_comparison if is_comparison(path) else load)(file)
    except UserError:
        return False
    return True


def written_out(path):
    """A file as data, with all that it includes and, of experiments, all defaults."""
    if is_comparison(path):
        return yaml.load(path.read_text(encoding="utf-8"), CoreLoader)
    return yaml.load(dumps(load(path)), Loader)


@pytest.mark.parametrize("path", pages(), ids=str)
def test_the_written_pages_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == pages()[path]


@pytest.mark.parametrize("validator", VALIDATORS.values())
def test_the_schemas_are_schemas(validator):
    Draft7Validator.check_schema(validator.schema)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_editors_accept_every_file_of_the_repository(path):
    text = path.read_text(encoding="utf-8")
    assert editor_accepts(path, yaml.load(text, CoreLoader))
    first = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", text.splitlines()[0])
    schema = COMPARISON if is_comparison(path) else SCHEMA
    assert (path.parent / first[1]).resolve() == schema.resolve()


@pytest.mark.parametrize("path", [path for path in FILES if path != ABSTRACT], ids=str)
def test_editors_and_the_reader_accept_every_file_written_out(path, tmp_path):
    data = written_out(path)
    assert editor_accepts(path, data)
    assert reader_accepts(path, data, tmp_path)


def places(value, path=()):
    """``(where, parent, key)`` of each entry of blocks and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(entries):
        yield (*path, key), value, key
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


def misspell(draw, parent, key):
    if not isinstance(parent, dict):
        return
    at = draw.randrange(len(key))
    parent[key[:at] + key[at] + key[at:]] = parent.pop(key)


def another_type(draw, parent, key):
    value = parent[key]
    others = [[1, "a"], {"a": 1}, "word", 3, 0.5, True, []]
    others = [other for other in others if type(other) is not type(value)]
    parent[key] = draw.choice(others if isinstance(value, str) else [*others, None])


def out_of_range(draw, parent, key):
    if isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
        parent[key] = draw.choice([-1, 0, 1, 2, 1.5, 2**70, -0.5, 10**9])


def unknown_name(draw, parent, key):
    if isinstance(parent[key], str):
        parent[key] += draw.choice(["x", "_2", " "])


def missing(draw, parent, key):
    if isinstance(parent, dict):
        del parent[key]


def one_more(draw, parent, key):
    if isinstance(parent[key], dict):
        parent[key][draw.choice(["name", "lr", "size", "extra"])] = draw.choice(["a", 1, None])
    elif isinstance(parent[key], list):
        parent[key].append(draw.choice(["a", 1, [2]]))


# What is missing is known of files without includes only.
ANYWHERE = (misspell, another_type, out_of_range, unknown_name)
MUTATIONS = {"as it is": ANYWHERE, "written out": (*ANYWHERE, missing, one_more)}


def is_of_unknown_encoder(place):
    """Whether the encoder's name is in another file: train is a number for some of them only."""
    where, parent, _ = place
    return where[-2:-1] == ("img_enc",) and "name" not in parent


def is_column_of_another_file(place):
    """Whether the column's options are in another file: under another name it has none."""
    where, parent, key = place
    return where[:-1] == ("columns",) and "options" not in (parent[key] or {})


def is_column_of_the_differences(data, place):
    """Whether ``against`` names the column: without it the reader refuses the file."""
    return place[0] == ("columns", data.get("against"))


@functools.cache
def contents(path, form):
    if form == "as it is":
        return yaml.load(path.read_text(encoding="utf-8"), CoreLoader)
    return written_out(path)


def mutated(path, seed):
    """The file with one change, and what was changed."""
    draw = random.Random(f"{path} {seed}")  # a new file changes nothing about the others
    form = draw.choice(sorted(MUTATIONS))
    data = copy.deepcopy(contents(path, form))
    where, parent, key = place = draw.choice(
        [
            place
            for place in places(data)
            if place[2] not in TOGETHER
            and place[0][0] != "__include__"
            and not is_of_unknown_encoder(place)
            and not is_column_of_the_differences(data, place)
        ]
    )
    possible = MUTATIONS["as it is" if "__include__" in data else form]
    if is_column_of_another_file(place):
        possible = [mutation for mutation in possible if mutation is not misspell]
    mutation = draw.choice(possible)
    mutation(draw, parent, key)
    return data, f"{path}, {form}: {mutation.__name__} at {where}"


@pytest.mark.slow
def test_what_one_accepts_the_other_accepts(tmp_path):
    """On 6 changes of each file; they are refused, or accepted, often enough."""
    accepted = []
    for path in FILES:
        for seed in range(6 if path != ABSTRACT else 0):
            data, change = mutated(path, seed)
            accepted.append(editor_accepts(path, data))
            assert reader_accepts(path, data, tmp_path) == accepted[-1], change
    assert 0.2 < sum(accepted) / len(accepted) < 0.7
