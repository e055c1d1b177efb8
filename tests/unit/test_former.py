"""Options of earlier versions: an error in a file, exchanged without a word in a stored run."""

from pathlib import Path

import pytest

from options import former
from options.former import Former
from options.load import load, loads
from utils.errors import UserError
from utils.optimizers import OPTIMIZERS

STORED = sorted(Path("tests/data/options_c1b69ef").glob("*.yaml"))
ENTRIES = (
    Former("*.img_enc.speed", "leave it out"),
    Former("*.captions.policy", "write sentence", "words", {"policy": "sentence", "dropout": 0.25}),
    Former(
        "*.dataset.name",
        "write name: visa and split: 1cls",
        "viza",
        {"name": "visa", "split": "1cls"},
    ),
    Former("*.misc.precision", "nothing computes with so few digits", "fp4", same_if=()),
)
TEXT = """
exp: {dir: logs/x}
dataset: {name: viza, dir: data/visa}
captions: {policy: words}
student:
  model:
    name: student
    img_enc: {name: torchvision, arch: resnet18, speed: 3}
    classif: linear
  objective: cross_entropy
  optimizer: SGD
  schedule: constant
"""


@pytest.fixture
def entries(monkeypatch):
    monkeypatch.setattr(former, "FORMER", ENTRIES)


def test_a_file_with_former_options_is_refused(tmp_path, entries):
    file = tmp_path / "old.yaml"
    file.write_text(TEXT, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(file, ["student.captions.policy=words", "misc.precision=fp4"])
    assert str(caught.value).replace(str(tmp_path), "").splitlines() == [
        "/old.yaml:3: dataset.name: 'viza' is gone; write name: visa and split: 1cls",
        "/old.yaml:8: student.model.img_enc.speed: this option is gone; leave it out",
        "misc.precision=fp4: misc.precision: 'fp4' is gone; nothing computes with so few digits",
        "student.captions.policy=words: student.captions.policy: 'words' is gone; write sentence",
    ]


def in_stage(text):
    """The section at the top moved into the stage, as it is stored."""
    return text.replace("captions: {policy: words}\n", "") + "  captions: {policy: words}\n"


def test_stored_options_are_replaced(entries):
    run = loads(in_stage(TEXT), "best.safetensors")
    assert (run.dataset.name, run.dataset.split) == ("visa", "1cls")
    assert "speed" not in run.student.model.options["img_enc"].options
    assert (run.student.captions.policy, run.student.captions.dropout) == ("sentence", 0.25)


def test_stored_options_that_nothing_replaces_are_refused(entries):
    text = in_stage(TEXT) + "misc: {precision: fp4}\n"
    with pytest.raises(UserError) as caught:
        loads(text, "old")
    assert str(caught.value) == (
        "old:13: misc.precision: 'fp4' is gone; nothing computes with so few digits"
    )


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_options_stored_by_c1b69ef_load(path):
    assert loads(path.read_text(encoding="utf-8"), path.name).stages


def test_a_stored_optimizer_need_not_exist_unless_it_is_used():
    text = Path("tests/data/options_c1b69ef/demo.yaml").read_text(encoding="utf-8")
    text = text.replace("name: AdamW", "name: NAdam")
    run = loads(text, "best.safetensors")
    assert run.student.optimizer.name == "NAdam"
    with pytest.raises(UserError, match=r"optimizer: unknown 'NAdam'; did you mean"):
        run.student.optimizer.build(OPTIMIZERS, [], [])


@pytest.mark.parametrize("name", ["brainmri", "br35h", "covid19"])
def test_former_readers_become_what_the_options_file_says_now(name):
    stored = loads(
        Path(f"tests/data/options_c1b69ef/{name}.yaml").read_text(encoding="utf-8"), name
    ).dataset
    assert stored.reader == load(Path(f"options/{name}.yaml")).dataset.reader


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("activation: gelu", "activation: quick_gelu", "baseline.model.activation"),
        ("activation: gelu", "activation: own", "baseline.model.activation"),  # QuickGELU
        ("underscore: true", "underscore: false", "baseline.model.underscore"),
        ("per_prompt_norm: true", "per_prompt_norm: false", "baseline.model.per_prompt_norm"),
    ],
)
def test_stored_runs_that_computed_something_else_are_refused(old, new, message):
    text = Path("tests/data/options_c1b69ef/vand.yaml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(UserError, match=f"{message}: this option is gone; leave it out"):
        loads(text.replace(old, new), "vand")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.name=brainmri", "'brainmri' is gone; write name: folder, with the options in"),
        ("baseline.model.prompts=22", "'22' is gone; write mala_lab"),
        ("baseline.model.underscore=true", "this option is gone; leave it out"),
    ],
)
def test_former_options_on_the_command_line(override, message):
    with pytest.raises(UserError) as caught:
        load(Path("options/baselines/winclip.yaml"), [override])
    assert message in str(caught.value)
