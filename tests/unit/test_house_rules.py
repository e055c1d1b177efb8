"""Layering rules and documentation duties, checked on the source itself."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from datasets.readers import DATASETS
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from models.fusion import FUSIONS
from models.methods import METHODS
from models.objectives import OBJECTIVES
from options import comparison_file, schema
from utils import provenance
from utils.ranges import range_of
from utils.registry import options_of
from utils.schedules import SCHEDULES

MAY_IMPORT = {
    "utils": {"utils"},
    "datasets": {"datasets", "utils"},
    "models": {"models", "utils"},
    "options": {"options", "models", "datasets", "utils"},
    "jobs": {"jobs", "options", "models", "datasets", "utils"},
    "demo": {"demo", "jobs", "options", "models", "datasets", "utils"},
}
COMMANDS = {path.stem for path in Path().glob("*.py")}
OURS = {*MAY_IMPORT, *COMMANDS, "tests", "benchmarks"}
FILES = [p for folder in MAY_IMPORT for p in sorted(Path(folder).rglob("*.py"))]
TABLES = (
    CLASSIFIERS,
    DATASETS,
    FUSIONS,
    IMAGE_ENCODERS,
    METHODS,
    OBJECTIVES,
    SCHEDULES,
    TEXT_ENCODERS,
)
ENTRIES = sorted({cls for table in TABLES for cls in table.values()}, key=lambda cls: cls.__name__)
SECTIONS = (
    comparison_file.Column,
    comparison_file.Comparison,
    comparison_file.ImageList,
    schema.Augment,
    schema.CaptionOptions,
    schema.Dataset,
    schema.Engine,
    schema.Exp,
    schema.Image,
    schema.Misc,
    schema.Rule,
    schema.Run,
    schema.Selection,
    schema.Source,
    schema.Stage,
    schema.ThresholdOptions,
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_layers(path):
    allowed = MAY_IMPORT[path.parts[0]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top = name.split(".")[0]
            assert top not in OURS or top in allowed, f"{path}:{node.lineno} imports {name}"


SOURCE = [*FILES, *sorted(Path().glob("*.py"))]
MOST_ARGUMENTS, MOST_LINES = 7, 50


def too_large(source):
    """Functions with too many arguments or lines; docstrings do not count.

    Keyword-only arguments of a constructor or function in a table are options of YAML.
    """
    options = {name for entry in ENTRIES for name in (entry.__name__, *BASES[entry.__name__])}
    for outer in ast.walk(ast.parse(source)):
        for node in ast.iter_child_nodes(outer):
            if isinstance(node, ast.FunctionDef):
                is_entry = getattr(outer, "name", node.name) in options
                arguments = [*node.args.posonlyargs, *node.args.args]
                arguments += [] if is_entry else node.args.kwonlyargs
                count = len([a for a in arguments if a.arg not in ("self", "cls")])
                first = node.body[0]
                docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
                length = node.end_lineno - node.lineno + 1 - docstring
                if count > MOST_ARGUMENTS or length > MOST_LINES:
                    yield f"{node.name}: {count} arguments, {length} lines"


BASES = {e.__name__: [b.__name__ for b in getattr(e, "__mro__", ())] for e in ENTRIES}


@pytest.mark.parametrize("path", SOURCE, ids=str)
def test_functions_are_small(path):
    assert list(too_large(path.read_text(encoding="utf-8"))) == []


def test_the_rule_sees_large_functions():
    body = "\n".join(["    pass"] * 50)
    assert len(list(too_large(f"def f(a, b, c, d, e, f, g, *, h): pass\ndef g():\n{body}"))) == 2


def test_reused_scores_depend_on_all_of_the_program():
    assert set(provenance._PACKAGES) == MAY_IMPORT.keys() - {"demo"}


def or_of_a_constant(source):
    """Line numbers of conditions such as ``name == "a" or "b"``, which are always true."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BoolOp)
        and any(isinstance(v, ast.Compare) for v in node.values)
        and any(isinstance(v, ast.Constant) for v in node.values)
    ]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_comparison_or_constant(path):
    assert or_of_a_constant(path.read_text(encoding="utf-8")) == []


def test_the_rule_sees_the_mistake():
    assert or_of_a_constant('if o["name"] == "CNN" or "cnn":\n    pass') == [1]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda cls: cls.__name__)
def test_every_option_is_described(entry):
    described = set(re.findall(r"^    (\w+): ", inspect.getdoc(entry) or "", re.MULTILINE))
    assert set(options_of(entry)) <= described


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_ranges_are_checked_in_python_too(entry):
    """Options of a file are checked by the reader."""
    function = entry.__init__ if inspect.isclass(entry) else entry
    has_ranges = any(range_of(option.annotation) for option in options_of(entry).values())
    assert not has_ranges or hasattr(function, "__wrapped__")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda cls: cls.__name__)
def test_every_field_is_described(section):
    described = set(re.findall(r"^    (\w+): ", inspect.getdoc(section) or "", re.MULTILINE))
    assert {f.name for f in fields(section)} == described


@pytest.mark.parametrize("reader", DATASETS)
def test_options_of_readers_stand_beside_those_of_the_section(reader):
    sections = {f.name for section in (schema.Dataset, schema.Source) for f in fields(section)}
    assert not {*options_of(DATASETS[reader])} & {*sections, "name"}
