"""What the documentation says is true: options, the worked example, commands, files."""

import re
from pathlib import Path

import pytest
import torch

from models.fusion import FUSIONS
from options.command import DEFAULT, DEFAULT_COMPARISON
from options.comparison_file import load_comparison
from options.document import document
from options.load import load

README = Path("README.md")
PAGES = [README, *sorted(Path("docs").glob("*.md"))]


def test_options_page_is_up_to_date():
    assert Path("docs/options.md").read_text() == document()


def test_the_worked_example_works(monkeypatch):
    page = Path("docs/adding.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    namespace = {}
    exec(compile(code, "gated.py", "exec"), namespace)
    monkeypatch.setitem(FUSIONS, "gated", namespace["GatedFusion"])
    fusion = FUSIONS["gated"](8, 6, out_dim=4)
    fused = fusion(torch.randn(2, 1, 8), torch.randn(2, 1, 6), torch.ones(2, 1, dtype=torch.bool))
    assert fused.vector.shape == (2, fusion.out_dim)
    run = load(Path("options/demo.yaml"), ["teacher.model.fusion=gated"])
    assert run.teacher.model.options["fusion"].options == {"out_dim": 512}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_options_files_that_are_named_exist(page):
    for name in re.findall(r"options/[\w/]+\.yaml", page.read_text()):
        assert Path(name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_name_options_that_exist(page):
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"(?:python|=8) (run|test|compare|check|visualize)\.py([^`\n#]*)", text)
    for program, line in lines:
        words = [word for word in line.split() if not word.startswith(("-", "FILE", "a.b"))]
        compares = program == "compare"
        files = [Path(word) for word in words if word.endswith(".yaml")]
        file = files[0] if files else DEFAULT_COMPARISON if compares else DEFAULT
        plain = [word for word in words if "=" in word and "$" not in word and "gated" not in word]
        (load_comparison if compares else load)(file, plain)


def test_the_tree_in_the_readme_is_the_tree():
    block = re.search(r"```\n(run\.py.*?)```", README.read_text(), re.DOTALL)[1]
    for line in block.splitlines():
        name = line.split("#")[0].strip()
        if name and "*" not in name:
            for part in name.split():
                assert list(Path().glob(part)) or list(Path().glob(f"*/{part}")), part


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^(\w+):", Path("Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`?make (\w+)`", page.read_text())) <= targets
