"""Options files and arguments full of faults: each is read, or refused in a few lines, in time."""

import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from options.comparison_file import load_comparison
from options.load import load, loads
from tests.faults.limits import MANY, limited, wrong_with
from utils.errors import UserError

COUNT = 100 * MANY
SECONDS = 20  # of computing, for one file: ten thousand times what it should take
FILES = sorted(path for path in Path("options").rglob("*.yaml"))
TEXTS = (
    *("", " ", "null", "~", "true", "0", "-1", "1e-3", ".inf", ".nan", "1" + "0" * 400, "0x10"),
    *(
        "9" * 5000,
        "a" * 5000,
        "1_000",
        "é",
        "日本",
        "\U0001f600",
        "a\u202eb",
        "*x",
        "&x y",
        "%",
        "@",
    ),
    *("[", "]", "{", "}", "[a, b]", "[[a]]", "{a: 1}", "{name: x", "- a", "? a", "!!python/x y"),
    *("'", '"', '"\\0"', '"\\ud800"', '"\\UFFFFFFFF"', "a: b", "a #b", "| x", "> x", "<<", "---"),
    *("/dev/null", "/proc/self/mem", "~nobody-/x", "a" * 300 + "/b", "../..", "\t", "\x01", "\x85"),
)
KEYS = (
    "__include__",
    "name",
    "exp",
    "lr",
    "<<",
    "a" * 3000,
    '"\\0"',
    '"a\\nb"',
    "1",
    "null",
    "é",
    "a.b",
)


def change_line(draw, lines):
    at = draw.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon} {draw.choice(TEXTS)}"


def add_line(draw, lines):
    indent = " " * draw.randrange(0, 7, 2)
    lines.insert(
        draw.randrange(len(lines) + 1), f"{indent}{draw.choice(KEYS)}: {draw.choice(TEXTS)}"
    )


def copy_line(draw, lines):
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))


def drop_line(draw, lines):
    del lines[draw.randrange(len(lines))]


def change_sign(draw, lines):
    at = draw.randrange(len(lines))
    place = draw.randrange(len(lines[at]) + 1)
    sign = draw.choice("{}[]:,#&*!|>'\"%@`-?\\ \t\0\x7f\xa0\u2028\ufeffé")
    lines[at] = lines[at][:place] + sign + lines[at][place + draw.randrange(2) :]


def nest(draw, lines):
    """Deeper than Python's stack, or the terminal, would like."""
    depth = draw.choice([10, 100, 2_000, 30_000])
    opening, closing = draw.choice(
        [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("[{a: ", "")]
    )
    lines.append(f"{draw.choice(KEYS)}: {opening * depth}{closing * depth}")


def multiply(draw, lines):
    """Aliases that stand for ten aliases that stand for ten ..."""
    lines.append("l0: &l0 [a, b, c, d, e, f, g, h, i, j]")
    for i in range(draw.choice([3, 9, 200])):
        inner = f"{{{', '.join(f'k{j}: *l{i}' for j in range(draw.choice([1, 10])))}}}"
        lines.append(f"l{i + 1}: &l{i + 1} {inner}")


CHANGES = (change_line, change_line, add_line, copy_line, drop_line, change_sign, nest, multiply)


def faulty(seed, folder):
    """A file of the repository with one to four faults, its loader, and some arguments."""
    draw = random.Random(seed)
    path = draw.choice(FILES)
    includes = "__include__: "
    text = path.read_text(encoding="utf-8").replace(
        includes, f"{includes}{os.path.relpath(path.parent, folder)}/"
    )
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for _ in range(draw.randint(1, 4)):
        draw.choice(CHANGES)(draw, lines)
        lines = lines or ["a"]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw.random() < 0.1:
        at = draw.randrange(len(content))
        content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
    keys = ["exp.dir", "optimizer.lr", "image.size", "teacher", "dataset.objects", "columns.a", "x"]
    arguments = [
        f"{draw.choice(keys)}{draw.choice(['=', '=', '.name=', '', '.' * 50])}{draw.choice(TEXTS)}"
        for _ in range(draw.randrange(3))
    ]
    return path, content, arguments


def outcome(call, *arguments):
    """What is wrong with how ``call`` ends; empty if it ends well."""
    try:
        with limited(SECONDS):
            call(*arguments)
    except UserError as error:
        return wrong_with(str(error))
    except TimeoutError:
        return "hangs"
    except Exception as error:  # noqa: BLE001  any of them would be a traceback
        return f"{type(error).__name__}: {error}"
    return ""


def problems(count, first=0):
    """Descriptions of what went wrong for ``count`` seeds."""
    with TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            path, content, arguments = faulty(seed, folder)
            file = Path(folder) / "faulty.yaml"
            file.write_bytes(content)
            loader = load_comparison if path.parent.name == "comparison" else load
            wrong = outcome(loader, file, arguments)
            wrong = wrong or outcome(loads, content.decode("utf-8", "replace"), "stored")
            if wrong:
                yield f"seed {seed}, {path}, {arguments}: {wrong}"


@pytest.mark.parametrize("first", range(0, COUNT, 100))
def test_nothing_that_is_written_crashes_the_reader(first):
    assert list(problems(100, first)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "cannot be read (not a file)"),
        ("pipe", "cannot be read (not a file)"),
        ("folder", "cannot be read (not a file)"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("a\0b", "cannot be read (embedded null byte)"),
        ("n" * 400, "cannot be read (File name too long)"),
        ("large.yaml", "has more than 100,000 bytes: not an options file"),
        ("/proc/self/environ", "not valid YAML"),
    ],
)
def test_what_may_not_be_included(tmp_path, name, message):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large.yaml").write_bytes(b"a: b\n" * 30_000)
    file = tmp_path / "x.yaml"
    file.write_text(
        f"__include__: {name!r}" if "\0" not in name else '__include__: "a\\0b"', encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        load(file)
    assert message in str(caught.value)


def test_files_that_include_each_other_many_times(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(
            f"__include__: [{i + 1}.yaml, {i + 1}.yaml]", encoding="utf-8"
        )
    (tmp_path / "30.yaml").write_text("a: b", encoding="utf-8")
    with pytest.raises(UserError, match=r"0\.yaml: includes more than 100 files"):
        load(tmp_path / "0.yaml")


def test_large_files_that_are_included_together(tmp_path):
    names = [f"{i}.yaml" for i in range(5)]
    for name in names:
        (tmp_path / name).write_text("# " + "a" * 90_000, encoding="utf-8")
    (tmp_path / "x.yaml").write_text(f"__include__: {names}", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.yaml: includes more than 300,000 bytes together"):
        load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 5_000, "more than 32 blocks or lists inside of each other"),
        (
            "\n".join(f"a{i}: &a{i} {{a: *a{i - 1}}}" if i else "a0: &a0 {}" for i in range(2_000)),
            "more than 32 blocks or lists inside of each other",
        ),
        (
            "a: &a [" + "x, " * 200 + "]\n" + "\n".join(f"b{i}: *a" for i in range(200)),
            "has more than 10,000 values",
        ),
        ("\n".join(f"key{i}: 1" for i in range(300)), "... and 282 more mistakes"),
        (f"{'k' * 900}: 1", f"unknown option '{'k' * 57}...'"),
        ('"a\\nb\\e[2J": 1', r"unknown option 'a\nb\x1b[2J'"),
        ("misc: {seed: 1" + "0" * 400 + "}", "misc.seed: expected a whole number, got '1000"),
        ("exp: {dir: ''}", "exp.dir: expected a path, got ''"),
        ('exp: {dir: "a\\0b"}', r"exp.dir: expected a path, got 'a\x00b'"),
        ('exp: {dir: "\\ud800"}', r"exp.dir: expected a path, got '\ud800'"),
        (f"exp: {{dir: {'d' * 300}}}", "exp.dir: expected a path, got 'ddd"),
    ],
)
def test_limits(tmp_path, text, message):
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(file)
    assert message in str(caught.value)
    assert wrong_with(str(caught.value)) == ""
