"""What the documentation says is true: options, the worked example, commands, files."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run as run_py
import test as test_py
from datasets.readers import DATASETS
from models.encoders import IMAGE_ENCODERS
from models.fusion import FUSIONS
from options.command import DEFAULT, DEFAULT_COMPARISON
from options.comparison_file import load_comparison
from options.document import document
from options.load import load
from utils.errors import UserError

README = Path("README.md")
PAGES = [README, *sorted(Path("docs").glob("*.md"))]


def test_each_section_of_the_options_page_is_one():
    sections = re.findall(r"^## `([\w.]+)`$", document(), re.MULTILINE)
    assert {"exp", "threshold.rule"} <= set(sections)
    for name in sections:
        with pytest.raises(UserError, match=r"(unknown|missing) option"):
            load(DEFAULT, [f"{name}.nothing=1"])
    assert ":func:" not in document()
    assert ":class:" not in document()


def test_options_page_is_up_to_date():
    assert Path("docs/options.md").read_text(encoding="utf-8") == document()


@pytest.fixture
def examples(monkeypatch):
    """The parts of docs/adding.md, in their tables."""
    page = Path("docs/adding.md").read_text(encoding="utf-8")
    namespace = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "adding.md", "exec"), namespace)
    monkeypatch.setitem(FUSIONS, "gated", namespace["GatedFusion"])
    monkeypatch.setitem(IMAGE_ENCODERS, "patchify", namespace["PatchifyEncoder"])
    monkeypatch.setitem(DATASETS, "pairs", namespace["read_pairs"])


@pytest.mark.usefixtures("examples")
def test_the_fusion_of_the_page_works():
    fusion = FUSIONS["gated"](8, 6, out_dim=4)
    fused = fusion(torch.randn(2, 1, 8), torch.randn(2, 1, 6), torch.ones(2, 1, dtype=torch.bool))
    assert fused.vector.shape == (2, fusion.out_dim)
    run = load(Path("options/demo.yaml"), ["teacher.model.fusion=gated"])
    assert run.teacher.model.options["fusion"].options == {"out_dim": 512}


@pytest.mark.usefixtures("examples")
def test_the_reader_of_the_page_reads_and_says_what_it_leaves_out(tmp_path, capsys):
    read = DATASETS["pairs"]
    with pytest.raises(UserError, match=r"no pictures called ok_... or bad_..."):
        read(tmp_path)
    for i in range(12):
        for name in (f"{'bad' if i % 2 else 'ok'}_{i}.png", f"x{i}.png"):
            Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(tmp_path / name)
    splits = read(tmp_path, group=r"(\d)\.")
    groups = [{r.group for r in splits[side]} for side in ("train", "test")]
    assert sum(map(len, splits.values())) == 12
    assert not groups[0] & groups[1]
    assert "left out: 12 of 24 files, not called ok_... or bad_..." in capsys.readouterr().out


@pytest.mark.usefixtures("examples")
def test_the_encoder_and_the_reader_of_the_page_train_a_student(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(24):
        name = f"{'bad' if i % 2 else 'ok'}_{i:03d}.png"
        pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / name)
    words = ["teacher=null", "student.objective=cross_entropy", "image.size=32"]
    words += ["student.model.img_enc.name=patchify", "engine.batch_size=4", "engine.epochs=3"]
    words += ["dataset.name=pairs", f"dataset.dir={tmp_path}/data", f"exp.dir={tmp_path}/run"]
    command = ["options/demo.yaml", *words, "dataset.cache=null"]
    assert run_py.main(command) == 0
    assert test_py.main(command) == 0
    assert "part" in (tmp_path / "run/student/table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_options_files_that_are_named_exist(page):
    for name in re.findall(r"options/[\w/]+\.yaml", page.read_text(encoding="utf-8")):
        assert Path(name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_name_options_that_exist(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"(?:python|=8) (run|test|compare|check|visualize)\.py([^`\n#]*)", text)
    for program, line in lines:
        words = [word for word in shlex.split(line) if not word.startswith(("-", "FILE", "a.b"))]
        compares = program == "compare"
        files = [Path(word) for word in words if word.endswith(".yaml")]
        file = files[0] if files else DEFAULT_COMPARISON if compares else DEFAULT
        added = ("$", "gated", "patchify", "pairs")  # the parts of docs/adding.md
        plain = [word for word in words if "=" in word and not any(a in word for a in added)]
        (load_comparison if compares else load)(file, plain)


def test_the_tree_in_the_readme_is_the_tree():
    block = re.search(r"```\n(run\.py.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    for line in block.splitlines():
        name = line.split("#")[0].strip()
        if name and "*" not in name:
            for part in name.split():
                assert list(Path().glob(part)) or list(Path().glob(f"*/{part}")), part


def test_make_targets_that_are_named_exist():
    targets = set(
        re.findall(r"^(\w+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for page in PAGES:
        assert set(re.findall(r"`?make (\w+)`", page.read_text(encoding="utf-8"))) <= targets
