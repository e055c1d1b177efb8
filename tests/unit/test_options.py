"""The YAML loader: types, includes, overrides, stages, and every mistake at its line."""

from pathlib import Path

import pytest

from models.fusion import FUSIONS
from options.dump import dumps, first_difference
from options.load import load, loads
from options.schema import Stage
from utils.errors import UserError

GOOD = """
exp: {dir: logs/x}
dataset: {name: visa, dir: data/visa, split: 2cls_highshot, objects: [candle, "no"]}
optimizer: {name: AdamW, lr: 2e-3}
schedule: one_cycle
objective: cross_entropy
teacher:
  model:
    name: teacher
    img_enc: {name: clip, arch: tiny-RN, pre_trained: random}
    text_enc: {name: clip, arch: tiny-RN, pre_trained: random}
    fusion: {name: cross_attention, dim: 64, heads: 4}
    classif: mlp
student:
  model:
    name: student
    img_enc: {name: torchvision, arch: resnet18, pre_trained: false}
    classif: {name: linear}
  objective: {name: distillation, temperature: 3}
"""
FILES = sorted(
    p
    for p in Path("options").rglob("*.yaml")
    if p.name != "abstract.yaml" and p.parent.name != "comparison"
)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def mistakes(path, *overrides):
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    return str(caught.value).replace(str(path), path.name).splitlines()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_of_the_repository_loads(path):
    run = load(path)
    assert loads(dumps(run), "again") == run


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_it_is_and_how_to_run_it(path):
    head = path.read_text(encoding="utf-8").split("__include__")[0]
    assert head.startswith("# ")
    is_trained = any(stage.needs_training for stage in load(path).stages.values())
    program = "run.py" if is_trained else "test.py"
    assert f"python {program} {path}" in head or f"python {program}\n" in head
    assert "# Needs:" in head
    assert "# Result:" in head


def test_types_come_from_the_declaration(good):
    run = load(good, ["engine.epochs=9", "student.image.size=[256, 384]"])
    assert run.teacher.optimizer.options["lr"] == 2e-3
    assert run.student.engine.epochs == 9
    assert run.student.image.size == (256, 384)
    assert run.student.image.height_width == (256, 384)
    assert run.teacher.image.height_width == (224, 224)
    assert run.dataset.objects == ("candle", "no")
    assert run.student.model.options["img_enc"].options["pre_trained"] == "false"


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("all", "all")])
def test_a_word_or_a_number(good, text, value):
    run = load(good, [f"student.model.img_enc={{name: timm, arch: test_vit, train: {text}}}"])
    assert run.student.model.options["img_enc"].options["train"] == value


def test_defaults_are_filled_in(good):
    fusion = load(good).teacher.model.options["fusion"]
    assert fusion.options["layers"] == 2
    assert fusion.options["dim"] == 64


def test_a_shared_section_reaches_every_stage_and_a_stage_has_the_last_word(good):
    run = load(good, ["optimizer.lr=1", "student.optimizer.lr=2", "engine.epochs=4"])
    assert run.teacher.optimizer.options["lr"] == 1
    assert run.student.optimizer.options["lr"] == 2
    assert (run.teacher.engine.epochs, run.student.engine.epochs) == (4, 4)


def test_a_shared_section_on_the_command_line_goes_over_a_stage_of_the_file(good):
    run = load(good, ["objective.anomaly_weight=5"])
    assert run.student.objective.name == "distillation"
    assert run.student.objective.options["anomaly_weight"] == 5


def test_a_named_block_replaces_and_others_mix(tmp_path, good):
    path = tmp_path / "child.yaml"
    path.write_text(
        "__include__: good.yaml\noptimizer: {name: SGD}\nteacher: {image: {size: 64}}",
        encoding="utf-8",
    )
    run = load(path)
    assert run.teacher.optimizer.name == "SGD"
    assert run.teacher.optimizer.options["lr"] == 1e-3  # SGD's own
    assert run.teacher.image.size == 64
    assert run.teacher.model.name == "teacher"


def test_another_reader_drops_the_options_of_the_one_before_and_nothing_else():
    vand = load(
        Path("options/baselines/vand.yaml"),
        ["dataset.name=folder", "dataset.dir=mine", "dataset.auxiliary.dir=other"],
    )
    assert (vand.dataset.name, vand.dataset.dir) == ("folder", Path("mine"))
    assert vand.dataset.val_fraction == 0
    assert (vand.dataset.auxiliary.name, vand.dataset.auxiliary.dir) == ("mvtec", Path("other"))
    with pytest.raises(UserError, match="'split' of 'visa'"):
        load(Path("options/headct.yaml"), ["dataset.name=visa"])
    with pytest.raises(UserError) as caught:
        load(Path("options/demo.yaml"), ["dataset.name=visaa"])
    assert str(caught.value).splitlines() == [
        "dataset.name=visaa: dataset.name: unknown 'visaa'; did you mean 'visa'?"
    ]


def test_the_order_of_overrides_does_not_matter(good):
    a = load(good, ["optimizer.lr=5", "optimizer.name=SGD"])
    b = load(good, ["optimizer.name=SGD", "optimizer.lr=5"])
    assert a == b
    assert a.teacher.optimizer.options["lr"] == 5


def test_a_list_of_includes_is_read_in_order(tmp_path, good):
    (tmp_path / "over.yaml").write_text("misc: {seed: 5}\nexp: {dir: a}", encoding="utf-8")
    path = tmp_path / "child.yaml"
    path.write_text("__include__: [good.yaml, over.yaml]\nexp: {dir: b}", encoding="utf-8")
    run = load(path)
    assert (run.misc.seed, str(run.exp.dir)) == (5, "b")


def test_the_teacher_may_be_a_folder(good):
    run = load(good, ["teacher=logs/old/teacher"])
    assert run.teacher == Path("logs/old/teacher")
    assert isinstance(run.student, Stage)


def test_a_stage_can_be_switched_off(good):
    assert load(good, ["student=null"]).student is None


def test_all_mistakes_at_once_each_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        GOOD.replace("lr: 2e-3", "lr: fast, lrr: 3")
        .replace("objective: cross_entropy", "objectiv: cross_entropy")
        .replace("name: cross_attention", "name: cros_attention")
        .replace("arch: resnet18", "arch: resnet19")
        .replace("temperature: 3", "temperature: 3, temperature: 4"),
        encoding="utf-8",
    )
    assert mistakes(path, "engine.epochs=1.5", "engine.epocs=3", "lr=3", "oops") == [
        "bad.yaml:4: optimizer.lr: expected a number, got 'fast'",
        "bad.yaml:4: optimizer: unknown option 'lrr'; did you mean 'lr'?",
        "bad.yaml:6: unknown option 'objectiv'; did you mean 'objective'?",
        "bad.yaml:12: teacher.model.fusion.name: unknown 'cros_attention'; "
        "did you mean 'cross_attention'?",
        "bad.yaml:17: student.model.img_enc.arch: unknown 'resnet19'; did you mean 'resnet18'?",
        "bad.yaml:19: student.objective.temperature: given twice, first on line 19",
        "engine.epochs=1.5: engine.epochs: expected a whole number, got '1.5'",
        "engine.epocs=3: engine: unknown option 'epocs'; did you mean 'epochs'?",
        "lr=3: unknown option 'lr'; did you mean 'optimizer.lr'?",
        "oops: expected key=value, as in optimizer.lr=1e-4",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("exp: {dir: logs/x}", ""), "good.yaml:3: missing option 'exp'"),
        (("{dir: logs/x}", "3"), "good.yaml:2: exp: expected a block of options"),
        (("dir: logs/x", "dir: [a]"), "good.yaml:2: exp.dir: expected a path, got a list"),
        (("dir: logs/x", "dir: {a: 1}"), "good.yaml:2: exp.dir: expected a path, got a block"),
        (("name: visa", "name: vsia"), "dataset.name: unknown 'vsia'; did you mean 'visa'?"),
        (('[candle, "no"]', "candle"), "dataset.objects: expected a list, each text"),
        (('[candle, "no"]', "[[a]]"), "dataset.objects: a list may hold plain values only"),
        (("lr: 2e-3", "lr: .nan"), "optimizer.lr: expected a number"),
        (("lr: 2e-3", "betas: [1, 2, 3]"), "optimizer.betas: expected a list of 2, got 3 values"),
        (("objective: cross_entropy", ""), "good.yaml:7: teacher: missing option 'objective'"),
        (
            ("objective: cross_entropy", "objective: cross_entropy\naugment: {mosaic: 0.5}"),
            "augment.mosaic: needs an objective that learns from masks",
        ),
        (("name: AdamW, ", ""), "good.yaml:4: optimizer: missing option 'name'"),
        (("arch: tiny-RN, ", ""), "teacher.model.img_enc: missing option 'arch' of 'clip'"),
        (("classif: mlp", "classif:"), "teacher.model.classif: missing option 'name'"),
        (("teacher:\n", "teacher: null\nx:\n"), "unknown option 'x'"),
        (("exp: {dir: logs/x}", "exp: {dir: a}\n? [k]\n: 1"), "a key must be a plain word"),
    ],
)
def test_one_mistake(tmp_path, change, message):
    path = tmp_path / "good.yaml"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change), encoding="utf-8")
    assert any(message in line for line in mistakes(path)), mistakes(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.epochs=0", "engine.epochs: must be in [1, 1000000], got 0"),
        ("engine.num_workers=-1", "engine.num_workers: must be in [0, 256], got -1"),
        ("engine.num_workers=1000000", "must be in [0, 256], got 1000000"),
        ("dataset.val_fraction=1", "dataset.val_fraction: must be in [0, 1), got 1.0"),
        ("dataset.cache_gb=0", "dataset.cache_gb: must be in (0, 1000000], got 0.0"),
        ("augment.crop=0", "augment.crop: must be in [0.01, 1], got 0.0"),
        ("augment.hue=1", "augment.hue: must be in [0, 0.5], got 1.0"),
        ("augment.rotation=200", "augment.rotation: must be in [0, 180], got 200.0"),
        ("augment.horizontal_flip=2", "augment.horizontal_flip: must be in [0, 1], got 2.0"),
        ("captions.dropout=2", "captions.dropout: must be in [0, 1], got 2.0"),
        ("image.size=0", "image.size: must be in [1, 100000], got 0"),
        ("image.size=[64, 0]", "image.size[1]: must be in [1, 100000], got 0"),
        ("misc.seed=9223372036854775808", "expected a whole number, got '9223372036854775808'"),
        ("image.size={a: 1}", "image.size: expected a whole number or a list of 2"),
        ("image.size=[1,2", "not valid YAML"),
        ("misc.device=gpu", "misc.device: unknown 'gpu'"),
        ("student.model.img_enc={name: timm, arch: a, train: 0}", "train: must be in [1, 100]"),
        ("student.model.img_enc={name: timm, arch: a, train: al}", "unknown 'al'; did you mean"),
        ("teacher=null", "distillation needs a teacher"),
        ("optimizer.lr", "expected key=value"),
        ("=3", "expected key=value"),
        ("exp.dir.x=3", "exp.dir: expected a path, got a block"),
        ("exp.dir=", "exp.dir: expected a path, got ''"),
        ("exp.dir=a\x1bb", r"exp.dir: expected a path, got 'a\x1bb'"),
        ("teacher.model={name: x, name: y}", "teacher.model.name: given twice, first on line 1"),
        ("teacher.model.fusion={name: x", "teacher.model.fusion: not valid YAML: expected ',' or"),
        ("misc.seed=1\nexp: 2", "misc.seed: expected one value"),
        (".".join("a" * 40) + "=1", "expected key=value"),
    ],
)
def test_overrides_are_checked_too(good, override, message):
    assert any(message in line for line in mistakes(good, override)), mistakes(good, override)


TEXTS = (
    *(
        "Linie #3",
        "a: b",
        "[old] screws",
        "50% & more",
        "*new",
        "&x",
        "x=y",
        "true",
        " lead",
        "1e3",
    ),
    *(
        "it's",
        '"quoted"',
        "null",
        "{a: 1}",
        "{a",
        "!x",
        "@x",
        "- x",
        "| x",
        "Größe",
        "日本",
        "a\nb: c",
    ),
)


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_the_command_line_is_that_text(good, text):
    run = load(good, [f"student.model.img_enc.pre_trained={text}"])
    if "\n" not in text:
        assert load(good, [f"dataset.dir={text}"]).dataset.dir == Path(text)
    assert run.student.model.options["img_enc"].options["pre_trained"] == text


def test_text_goes_over_text_of_the_file_whatever_its_shape(good):
    assert load(good, ["teacher=[a] b"]).teacher == Path("[a] b")
    assert load(good, ["dataset.cache={x} y"]).dataset.cache == Path("{x} y")


@pytest.mark.parametrize("text", ["null", "~", "Null", ""])
def test_a_path_that_may_be_null(good, tmp_path, text):
    assert load(good, [f"dataset.cache={text}"]).dataset.cache is None
    path = tmp_path / "cache.yaml"
    path.write_text(f"__include__: good.yaml\ndataset: {{cache: {text}}}", encoding="utf-8")
    assert load(path).dataset.cache is None


def test_a_folder_called_null(good, tmp_path):
    run = load(good, ["dataset.cache=./null"])
    assert run.dataset.cache == Path("null")
    assert loads(dumps(run), "again") == run
    path = tmp_path / "cache.yaml"
    path.write_text('__include__: good.yaml\ndataset: {cache: "null"}', encoding="utf-8")
    assert load(path).dataset.cache == Path("null")


def test_ranges_and_types_are_reported_together(good):
    found = mistakes(good, "engine.epochs=many", "engine.batch_size=0", "engine.keep=first")
    assert [line.partition(": ")[2] for line in found] == [
        "engine.batch_size: must be in [1, 1000000], got 0",
        "engine.epochs: expected a whole number, got 'many'",
        "engine.keep: unknown 'first'; known: best, last",
    ]


def test_the_same_override_twice_is_a_mistake(good):
    found = mistakes(good, "misc.seed=1", "misc.seed=2")
    assert found == ["misc.seed=2: misc.seed: given twice on the command line"]


def test_nothing_to_train_is_a_mistake(good):
    assert any("nothing to do" in line for line in mistakes(good, "teacher=null", "student=null"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("- a", "expected options"),
        ("__include__: x.yaml", "goes round in a circle"),
        ("__include__: none.yaml", "none.yaml: cannot be read"),
        ("__include__: {a: 1}", "expected a file name or a list of them"),
        ("a: &x {b: *x}", "an alias may not contain itself"),
        ("", "missing option 'exp'"),
    ],
)
def test_broken_files(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(path)
    assert message in str(caught.value)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read \\(not UTF-8 text\\)"):
        load(path)


def test_a_rejected_value_keeps_its_place(good):
    run = load(good, ["teacher.model.fusion.heads=5"])
    with pytest.raises(UserError) as caught:
        run.teacher.model.options["fusion"].build(FUSIONS, 24, 16)
    assert str(caught.value) == (
        "teacher.model.fusion.heads=5: teacher.model.fusion: cross_attention: "
        "dim (64) must be a multiple of heads (5)"
    )


def test_first_difference_names_the_option_and_ignores_where_things_lie(good):
    before = load(good)
    sections = ("dataset", "misc", "student")
    now = load(good, ["student.optimizer.lr=7", "exp.dir=b", "dataset.dir=c", "misc.device=cpu"])
    assert first_difference(now, before, sections) == "student.optimizer.lr is 7.0, was 0.002"
    moved = load(good, ["exp.dir=b", "dataset.dir=c", "teacher.engine.epochs=3"])
    assert first_difference(moved, before, sections) is None


def test_the_tilde_is_the_home_folder(good, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    run = load(good, ["exp.dir=~/x", "teacher=~/y"])
    assert (run.exp.dir, run.teacher) == (Path("/home/me/x"), Path("/home/me/y"))
    assert mistakes(good, "exp.dir=~nobody-/x") == [
        "exp.dir=~nobody-/x: exp.dir: expected a path, got '~nobody-/x'"
    ]


NORMAL_ONLY = Path("options/normal_only.yaml")


@pytest.mark.parametrize("change", ["engine.epochs=2", "engine.keep=best", "augment.crop=0.5"])
def test_one_pass_over_normal_images_takes_them_as_they_are(change):
    with pytest.raises(UserError, match="patchcore: takes each image once, as it is; write"):
        load(NORMAL_ONLY, [f"student.{change}"])


def test_who_learns_from_the_data_set_itself_is_a_student(tmp_path):
    text = NORMAL_ONLY.read_text(encoding="utf-8").replace("\nstudent:", "\nteacher:")
    (tmp_path / "teacher.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="teacher: patchcore learns from the data set itself"):
        load(tmp_path / "teacher.yaml")
