"""The whole job on tiny pictures: teacher, student, tables; cut off and gone on with; refused."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

import run as run_py
import test as test_py
from datasets import captions
from jobs.build import evaluation_batches, load_model, training_batches
from jobs.run_folder import StageFolder
from jobs.training.teacher import compute_once
from jobs.training.training import train
from models.objectives.base import LiveTeacher
from options.load import load
from tests.fixtures import job_of, session_of, write_smoke
from utils import training
from utils.checkpoint import load_state, read_about
from utils.download import sha256_of

FILES = ("scores.csv", "table.md", "table.csv", "table.json")


@pytest.fixture
def done(smoke):
    """A folder with ``smoke.yaml`` and its finished, tested run; not to be changed."""
    return smoke


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """The same, to spoil; the run lies elsewhere now, which is no difference that matters."""
    shutil.copytree(done, tmp_path / "copy")
    write_smoke(tmp_path / "copy", done / "visa")
    return tmp_path / "copy"


def command(program, folder, *overrides):
    return program.main([str(folder / "smoke.yaml"), *overrides])


def test_everything_is_there(done):
    for stage in ("teacher", "student"):
        folder = done / "run" / stage
        names = {p.name for p in folder.iterdir()}
        assert names >= {
            *FILES,
            "options.yaml",
            "about.json",
            "meta.json",
            "log.csv",
            "tensorboard",
        }
        assert names >= {"best.safetensors", "last.pt"}
        assert not list(folder.glob("*.part"))
        assert list((folder / "tensorboard").iterdir())
    written = {p.name for p in (done / "run/teacher/oracle_text").iterdir()}
    assert written == {*FILES, "report.html"}


def test_the_log_has_one_row_per_epoch_with_every_term(done):
    log = pd.read_csv(done / "run/student/log.csv")
    assert log["epoch"].tolist() == [1, 2, 3]
    assert {"loss", "ce", "kl", "feature", "lr", "val_aupr", "val_auroc", "val_loss"} <= set(log)
    total = 0.5 * log["ce"] + 0.5 * log["kl"] + 0.5 * log["feature"]
    assert log["loss"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-4)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_best_is_the_epoch_with_the_best_validation_aupr_then_loss(done, stage):
    log = pd.read_csv(done / "run" / stage / "log.csv")
    wanted = log.sort_values(["val_aupr", "val_loss"], ascending=[False, True])["epoch"].iloc[0]
    about = read_about(done / "run" / stage / "best.safetensors")
    assert about["epoch"] == wanted
    assert about["val_aupr"] == pytest.approx(log["val_aupr"].max(), rel=1e-4)


def test_scores_and_tables_agree(done):
    scores = pd.read_csv(done / "run/student/scores.csv")
    assert list(scores.columns) == ["path", "object", "label", "score"]
    assert len(scores) == 12
    assert scores["path"].is_unique
    table = pd.read_csv(done / "run/student/table.csv", index_col="object")
    assert list(table.index) == ["candle", "pipe_fryum", "mean"]
    assert table.loc["mean", "n"] == 12
    document = json.loads((done / "run/student/table.json").read_text(encoding="utf-8"))
    assert [row["object"] for row in document["objects"]] == list(table.index)
    assert document["objects"][0]["auroc"] == pytest.approx(table.loc["candle", "auroc"], abs=1e-3)
    about = document["about"]
    assert about["seed"] == 7
    assert about["split"] == "visa 2cls_highshot test"
    assert about["command"] == f"python test.py --oracle-text {done}/smoke.yaml"
    assert re.fullmatch(r"[0-9a-f]{12}", about["data"])
    text = (done / "run/student/table.md").read_text(encoding="utf-8")
    assert "student, image only: 12 images, 4 anomalous. Mean over 2 of 2 objects" in text
    assert "told the object's name only" in (done / "run/teacher/table.md").read_text(
        encoding="utf-8"
    )
    assert "upper bound, not a detector" in (done / "run/teacher/oracle_text/table.md").read_text(
        encoding="utf-8"
    )


def test_the_lists_are_kept_and_test_is_never_learned_from(done):
    meta = json.loads((done / "run/student/meta.json").read_text(encoding="utf-8"))
    lists = {
        split: {entry["img_path"] for entries in objects.values() for entry in entries}
        for split, objects in meta.items()
    }
    assert sorted(lists) == ["test", "train", "val"]
    assert not lists["train"] & lists["test"]
    assert not lists["val"] & lists["test"]
    assert not lists["train"] & lists["val"]
    assert lists["test"] == set(pd.read_csv(done / "run/student/scores.csv")["path"])


def test_a_checkpoint_rebuilds_its_network_and_holds_no_teacher(done):
    file = done / "run/student/best.safetensors"
    model, stage, run = load_model(file)
    assert not model.training
    assert run.misc.seed == 7
    assert stage.image.size == (32, 64)
    with safe_open(file, "pt") as content:
        names = list(content.keys())
        assert json.loads(content.metadata()["about"])["stage"] == "student"
    assert {name.split(".")[0] for name in names} == {"img_enc", "classif"}
    state = load_state(done / "run/student/last.pt")
    assert {name.split(".")[0] for name in state["learner"]} == {"model", "objective"}
    assert not [name for name in state["learner"] if "text_enc" in name]


def tables(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for stage in ("teacher", "student")
        for path in (folder / "run" / stage / "table.csv", folder / "run" / stage / "scores.csv")
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table_and_another_does_not(done, tmp_path):
    write_smoke(tmp_path, done / "visa")
    assert command(run_py, tmp_path) == 0
    assert command(test_py, tmp_path) == 0
    assert tables(tmp_path) == tables(done)
    assert command(run_py, tmp_path, "misc.seed=8", f"exp.dir={tmp_path}/other/run") == 0
    assert command(test_py, tmp_path, "misc.seed=8", f"exp.dir={tmp_path}/other/run") == 0
    assert tables(tmp_path / "other") != tables(done)


class KilledError(Exception):
    """Stands for the end of the process: nothing of this program catches it."""


MOMENTS = {
    "before the first epoch is saved": ("jobs.training.keeping.save_weights", 0),
    "between best and last": ("jobs.run_folder.save_state", 1),
    "in the middle of an epoch": ("utils.training._set_rates", 7),
    "in the student's second epoch": ("jobs.run_folder.save_state", 4),
    "in the log of the last epoch": ("utils.runlog.write_bytes", 5),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_same_result(done, tmp_path, monkeypatch, moment):
    target, count = MOMENTS[moment]
    module, function = target.rsplit(".", 1)
    original = getattr(importlib.import_module(module), function)
    calls = []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) > count:
            raise KilledError
        return original(*args, **kwargs)

    write_smoke(tmp_path, done / "visa")
    with monkeypatch.context() as patch:
        patch.setattr(target, dies)
        with pytest.raises(KilledError):
            train(load(tmp_path / "smoke.yaml"))
    assert command(run_py, tmp_path) == 0
    assert command(test_py, tmp_path) == 0
    assert tables(tmp_path) == tables(done)
    log = pd.read_csv(tmp_path / "run/student/log.csv")
    assert log["epoch"].tolist() == [1, 2, 3]


def test_what_is_finished_is_not_trained_again(copy, monkeypatch, capsys):
    monkeypatch.setattr(training, "seed_everything", lambda seed: pytest.fail("trains again"))
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("best.safetensors")}
    assert command(run_py, copy) == 0
    assert capsys.readouterr().out.count("finished already") == 2
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("best.safetensors")}


def refused(program, capsys, folder, *overrides):
    capsys.readouterr()
    assert command(program, folder, *overrides) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    return message


def test_other_options_are_refused_by_name(copy, capsys):
    message = refused(run_py, capsys, copy, "student.optimizer.lr=0.5")
    assert "student.optimizer.lr is 0.5, was 0.001" in message
    assert "exp.resume=any_options" in message
    message = refused(test_py, capsys, copy, "dataset.val_fraction=0.5")
    assert "dataset.val_fraction is 0.5, was 0.3" in message


def test_the_students_options_do_not_touch_the_teacher(copy, capsys):
    message = refused(run_py, capsys, copy, "student.engine.epochs=9")
    assert "run/student: was made with other options" in message


def test_other_images_are_refused(copy, capsys):
    root = copy / "visa"
    table = root / "split_csv/2cls_highshot.csv"
    table.write_text(
        "\n".join(table.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8"
    )
    message = refused(run_py, capsys, copy, f"dataset.dir={root}")
    assert "was made with another list of images than that of" in message


def test_another_teacher_is_refused(copy, capsys):
    teacher = copy / "run/teacher/best.safetensors"
    shutil.copy(copy / "run/student/best.safetensors", teacher)
    assert "was guided by another teacher" in refused(run_py, capsys, copy)


@pytest.mark.slow
def test_any_options_resumes_with_other_options(copy):
    options = ["exp.resume=any_options", "engine.epochs=4"]
    assert command(run_py, copy, *options) == 0
    assert pd.read_csv(copy / "run/student/log.csv")["epoch"].tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_any_options_takes_those_of_the_present_command_and_says_so(copy):
    changed = ["engine.epochs=4", "optimizer={name: AdamW, lr: 1e-9}", "schedule=constant"]
    options = ["student=null", *changed]
    assert command(run_py, copy, *options, "exp.resume=any_options") == 0
    assert pd.read_csv(copy / "run/teacher/log.csv")["lr"].iloc[3] == pytest.approx(1e-9)
    assert "lr: 1.0e-09" in (copy / "run/teacher/options.yaml").read_text(encoding="utf-8")
    assert command(run_py, copy, *options) == 0  # they are its options now


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("teacher.model.classif.hidden=17", "Error.* in loading state_dict"),
        ("optimizer={name: SGD, lr: 1e-3}", "a part of this optimizer's state is missing"),
    ],
)
def test_a_state_that_does_not_fit_is_one_clear_error(copy, capsys, override, reason):
    before = (copy / "run/teacher/options.yaml").read_text(encoding="utf-8")
    options = ["student=null", "engine.epochs=4", "exp.resume=any_options", override]
    message = refused(run_py, capsys, copy, *options)
    assert re.search(rf"last.pt: does not fit these options \(.*{reason}.*; choose", message)
    assert (copy / "run/teacher/options.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("lost", ["options.yaml", "about.json"])
@pytest.mark.slow
def test_the_weights_alone_know_what_they_were_made_with(copy, capsys, lost):
    (copy / "run/student" / lost).unlink()
    message = refused(test_py, capsys, copy, "student.optimizer.lr=0.5")
    assert "student.optimizer.lr is 0.5, was 0.001" in message
    assert command(run_py, copy) == 0


def test_never_refuses_any_run(copy, capsys):
    assert "exp.resume is never" in refused(run_py, capsys, copy, "exp.resume=never")


@pytest.mark.slow
def test_a_trained_teacher_can_be_named(done, tmp_path, capsys):
    write_smoke(tmp_path, done / "visa")
    assert command(run_py, tmp_path, f"teacher={done}/run/teacher") == 0
    assert not (tmp_path / "run/teacher").exists()
    assert command(test_py, tmp_path, f"teacher={done}/run/teacher") == 0
    scores = "run/student/scores.csv"
    assert (tmp_path / scores).read_text(encoding="utf-8") == (done / scores).read_text(
        encoding="utf-8"
    )
    message = refused(run_py, capsys, tmp_path, f"teacher={tmp_path}/none", f"exp.dir={tmp_path}/b")
    assert "none/best.safetensors is missing; name the folder of a trained teacher" in message


def test_testing_before_training(done, tmp_path, capsys):
    write_smoke(tmp_path, done / "visa")
    message = refused(test_py, capsys, tmp_path)
    assert "nothing is trained yet; first: python run.py" in message


def test_an_unfinished_training_says_so(copy, capsys):
    log = copy / "run/student/log.csv"
    log.write_text(
        "\n".join(log.read_text(encoding="utf-8").splitlines()[:3]) + "\n", encoding="utf-8"
    )
    assert command(test_py, copy) == 0
    assert "student, UNFINISHED (2 of 3 epochs), image only" in capsys.readouterr().out


def test_what_changes_no_score_is_as_the_present_command_says(copy):
    local = ["engine.eval_batch_size=3", "engine.pixels_on_device=true", "engine.epochs=9"]
    run = load(copy / "smoke.yaml", [*local, "exp.resume=any_options"])
    network = session_of(run).network("student")
    stage, title = network.stage, network.title
    assert (stage.engine.eval_batch_size, stage.engine.pixels_on_device) == (3, True)
    assert stage.engine.epochs == 3  # what it was trained with
    assert title == "student, UNFINISHED (3 of 9 epochs)"


def test_untrained_networks_can_be_scored(done, tmp_path, capsys):
    write_smoke(tmp_path, done / "visa")
    assert command(test_py, tmp_path, "--untrained") == 0
    assert "student, untrained" in capsys.readouterr().out
    assert (tmp_path / "run/student/untrained/table.csv").exists()


def test_no_caption_is_read_where_the_student_is_tested(copy, monkeypatch):
    def read(*args):
        pytest.fail("a caption was read")

    for policy in captions.POLICIES:
        monkeypatch.setitem(captions.POLICIES, policy, read)
    annotations = (copy / "visa").rglob("image_anno.csv")
    for table in annotations:  # what they say cannot matter either
        table.write_text(
            table.read_text(encoding="utf-8").replace("burnt", "perfect"), encoding="utf-8"
        )
    folder = ["dataset.dir=" + str(copy / "visa"), "exp.resume=any_options"]
    before = (copy / "run/student/scores.csv").read_text(encoding="utf-8")
    (copy / "run/student/scores.csv").unlink()
    with pytest.raises(pytest.fail.Exception, match="a caption was read"):
        command(test_py, copy, *folder)  # the teacher does read one
    assert command(test_py, copy, *folder, f"teacher={copy}/run/teacher") == 0
    assert (copy / "run/student/scores.csv").read_text(encoding="utf-8") == before


def test_a_loss_that_is_not_finite_stops_the_run(done, tmp_path, capsys):
    write_smoke(tmp_path, done / "visa")
    message = refused(run_py, capsys, tmp_path, "optimizer={name: SGD, lr: 1e30}")
    place = r"the loss is (nan|inf|-inf) in epoch 1, step \d+ \(learning rate .*\)"
    assert re.search(rf"{place}; take a lower lr$", message)
    # Nothing was trained: the next command may have the folder.
    StageFolder(tmp_path / "run/teacher", "teacher").claim(load(tmp_path / "smoke.yaml"), {})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.schedule=cosine", "warmup_epochs .1.0. must be less than epochs .1."),
        ("student.optimizer={name: SGD, nesterov: true}", "Nesterov momentum requires a momentum"),
    ],
)
def test_a_bad_student_is_noticed_before_the_teacher_is_trained(
    done, tmp_path, capsys, override, message
):
    write_smoke(tmp_path, done / "visa")
    assert re.search(message, refused(run_py, capsys, tmp_path, "engine.epochs=1", override))
    assert not (tmp_path / "run").exists()


def test_a_damaged_state_is_one_clear_error(copy, capsys):
    (copy / "run/student/last.pt").write_bytes(b"damaged")
    assert "last.pt: is damaged" in refused(run_py, capsys, copy)


def test_a_damaged_checkpoint_is_one_clear_error(copy, capsys):
    (copy / "run/student/best.safetensors").write_bytes(b"damaged")
    assert "is not a checkpoint of this program" in refused(test_py, capsys, copy)


@pytest.mark.parametrize(
    "overrides",
    [
        ["teacher.model.fusion=concat"],
        ["teacher.model.fusion=saf_released"],
        ["captions.policy=label", "captions.dropout=0"],
        ["student.objective=cross_entropy", "teacher=null", "objective.anomaly_weight=3"],
        ["engine.sampler=balanced", "image.resize=pad", "student.image.size=[32, 32]"],
        ["student.model.img_enc={name: torchvision, arch: resnet18, pre_trained: false}"],
        ["misc.precision=bf16", "schedule=cosine", "student.model.img_enc.train=last_stage"],
        ["dataset.objects=[candle]", "optimizer=Adamax", "schedule=warmup_step_decay"],
        ["dataset.cache=null", "student.engine.targets=live"],
        ["engine.pixels_on_device=true", "student.augment.crop=0.5"],
    ],
    ids=lambda overrides: overrides[0],
)
@pytest.mark.slow
def test_variants_run(done, tmp_path, overrides):
    write_smoke(tmp_path, done / "visa")
    short = ["engine.epochs=2", *overrides]
    assert command(run_py, tmp_path, *short) == 0
    assert command(test_py, tmp_path, *short) == 0
    assert torch.isfinite(
        torch.tensor(pd.read_csv(tmp_path / "run/student/scores.csv")["score"])
    ).all()


@pytest.mark.parametrize(
    ("stage", "said"), [("teacher", ["a photo of a candle"]), ("student", None)]
)
def test_captions_of_validation_images(done, stage, said):
    run = load(done / "smoke.yaml")
    data = job_of(run).data
    anomalous = [record for record in data.val if record.label and record.object == "candle"][:1]
    options = getattr(run, stage)
    batches = evaluation_batches(data.store, options, anomalous, torch.device("cpu"))
    batch = next(iter(batches))
    assert batch.caption == said


def test_targets_computed_once_equal_live_targets(done):
    """With the same caption for an image, both ways give the same outputs."""
    run = load(done / "smoke.yaml")
    job = job_of(run)
    file = done / "run/teacher/best.safetensors"
    model, teacher_stage, _ = load_model(file)
    live = LiveTeacher(model)
    once = compute_once(job, live, teacher_stage, sha256_of(file))
    batches = training_batches(job, teacher_stage)
    for batch in batches.epoch(0):
        wanted, got = live(batch), once(batch)
        assert got.logits.numpy() == pytest.approx(wanted.logits.numpy(), abs=1e-5)
        assert got.features.numpy() == pytest.approx(wanted.features.numpy(), abs=1e-5)


@pytest.mark.slow
def test_teacher_outputs_are_computed_once_and_again_if_anything_differs(copy, monkeypatch):
    calls = []
    look = LiveTeacher.look
    monkeypatch.setattr(LiveTeacher, "look", lambda *a: calls.append(1) or look(*a))
    cache = f"dataset.cache={copy}/cache"
    for i, changed in enumerate((["misc.seed=8"], ["misc.seed=8"], ["misc.seed=9"])):
        folder = [f"exp.dir={copy}/student_{i}", f"teacher={copy}/run/teacher", cache]
        calls.clear()
        assert command(run_py, copy, *folder, *changed, "student.engine.epochs=1") == 0
        assert bool(calls) == (i != 1)
    calls.clear()
    again = [f"teacher={copy}/run/teacher", cache, *changed, "student.engine.epochs=1"]
    for path in (copy / "visa").rglob("*.JPG"):
        path.touch()
    copied = [f"dataset.dir={copy}/visa", f"exp.dir={copy}/student_copied"]
    assert command(run_py, copy, *copied, *again) == 0
    assert not calls
    for file in (copy / "cache").glob("*.targets"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    assert command(run_py, copy, f"exp.dir={copy}/student_damaged", *again) == 0
    assert calls
    # The file is here, but not on another machine of the same job.
    lacks = lambda value: [value, False] if isinstance(value, bool) else [value]  # noqa: E731
    monkeypatch.setattr("jobs.training.teacher.gathered", lacks)
    calls.clear()
    folder = [f"exp.dir={copy}/student_3", f"teacher={copy}/run/teacher", cache]
    assert command(run_py, copy, *folder, *changed, "student.engine.epochs=1") == 0
    assert calls


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")  # of torch itself, up to 2.11
def test_a_compiled_network_learns_the_same(done, tmp_path):
    write_smoke(tmp_path, done / "visa")
    student = ["teacher=null", "student.objective=cross_entropy", "student.engine.epochs=1"]
    student += ["student.model.classif.dropout=0"]  # compiled, it is drawn otherwise
    logs = []
    for compiled in ("false", "true"):
        folder = f"exp.dir={tmp_path}/{compiled}"
        assert command(run_py, tmp_path, *student, f"engine.compile={compiled}", folder) == 0
        logs.append(pd.read_csv(tmp_path / compiled / "student/log.csv")["loss"].iloc[0])
    assert logs[1] == pytest.approx(logs[0], rel=1e-3)
