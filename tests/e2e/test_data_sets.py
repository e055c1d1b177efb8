"""run.py, test.py and check.py on every reader's data; per object, objects held out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import check
import run as run_py
import test as test_py
import visualize as visualize_py
from datasets.readers import DATASETS
from datasets.record import data_hash
from jobs.build import load_model
from jobs.data import read_splits
from jobs.training.teacher import guide_file
from options.load import load
from tests.fixtures import session_of, write_smoke, write_visa
from tests.layouts import LAYOUTS, SORTED, Painter, write_folder, write_table
from utils.checkpoint import read_about, save_weights
from utils.errors import UserError

# Two steps of a small network, whatever the file says.
TINY = (
    "teacher=null",
    "student.objective=cross_entropy",
    "student.model={name: student, img_enc: {name: clip, arch: tiny-RN, pre_trained: random}, "
    "classif: linear}",
    "image.size=[32, 32]",
    "student.image.size=[32, 32]",
    "engine.epochs=1",
    "engine.batch_size=4",
    "engine.num_workers=0",
    "misc.device=cpu",
    "misc.precision=fp32",
)


WRITERS = {name: write for name, (write, _) in LAYOUTS.items()} | SORTED


def tiny(folder: Path, root: Path, name: str, *more: str) -> list[str]:
    """Command-line arguments: the data set's own options file, or its reader over another one's."""
    own = Path(f"options/{name}.yaml")
    place = [f"dataset.dir={root}", f"dataset.cache={folder}/cache", f"exp.dir={folder}/run"]
    _, options = LAYOUTS.get(name, (None, {}))
    asked = [f"dataset.{key}={value}" for key, value in options.items()]
    file = [str(own)] if own.exists() else ["options/student.yaml", f"dataset.name={name}"]
    return [*file, *place, *asked, *TINY, *more]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.slow
def test_the_whole_job(name, tmp_path):
    root = WRITERS[name](tmp_path / "data")
    before = sorted(root.rglob("*"))
    command = tiny(tmp_path, root, name)
    assert check.main([*command, f"--out={tmp_path}/report"]) == 0
    assert run_py.main(command) == 0
    assert test_py.main(command) == 0
    assert sorted(root.rglob("*")) == before  # the data may be anybody's
    splits = read_splits(load(Path(command[0]), command[1:]).dataset)
    scores = pd.read_csv(tmp_path / "run/student/scores.csv")
    assert sorted(scores["path"]) == sorted(record.path for record in splits["test"])
    assert data_hash(splits) in (tmp_path / "run/student/table.md").read_text(encoding="utf-8")
    reader = "folder" if name in SORTED else name
    kept = DATASETS["meta"](root, file=tmp_path / f"run/meta_{reader}.json")
    assert data_hash(kept) == data_hash(splits)


@pytest.mark.slow
def test_broken_pictures_and_masks_are_left_out_and_stay_so(tmp_path, capsys):
    """The lists of a run do not change when a picture is repaired, or breaks, later."""
    root, paint = tmp_path / "screws", Painter()
    for i in range(14):
        paint(root / f"good/{i:02d}.png", is_bad=False)
        paint(root / f"bad/{i:02d}.png", is_bad=True, mask=root / f"masks/{i:02d}.png")
    good, mask = sorted((root / "good").iterdir()), root / "masks/03.png"
    contents = {path: path.read_bytes() for path in [*good[:6], mask]}
    for path, content in contents.items():
        path.write_bytes(content[:-30])
    command = tiny(tmp_path, root, "folder")
    assert run_py.main(command) == 2
    error = capsys.readouterr().err
    assert f"{good[0]}: cannot be read" in error
    assert "; replace or remove it, or leave out what cannot be read: dataset.skip_bro" in error

    command += ["dataset.skip_broken=true"]
    assert check.main([*command, f"--out={tmp_path}/report"]) == 0
    assert f"warning: left out: {mask}: " in capsys.readouterr().out
    assert run_py.main(command) == 0
    said = capsys.readouterr().out
    assert said.count("left out: ") == 5
    assert f"left out: {root}/good/" in said
    assert f"{root}: 7 images that cannot be read are left out, 2 more than these\n" in said
    assert test_py.main(command) == 0
    before = (tmp_path / "run/student/scores.csv").read_bytes()
    for path, content in contents.items():
        path.write_bytes(content)
    assert test_py.main(command) == 0
    assert f"{tmp_path}/run/broken_images.txt: 7 images are left out\n" in capsys.readouterr().out
    assert (tmp_path / "run/student/scores.csv").read_bytes() == before
    assert run_py.main(command) == 0
    tested = pd.read_csv(tmp_path / "run/student/scores.csv")["path"][0]
    (root / tested).write_bytes(b"")
    assert test_py.main(command) == 2
    assert f"{root / tested}: is not a picture (0 bytes)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["folder", "csv"])
def test_a_broken_mask_is_no_label(name, tmp_path, capsys):
    """Where masks are the labels, it stops every command, or its picture is left out."""
    root, paint = tmp_path / "plates", Painter()
    pictures = [root / f"{side}/{i}.jpg" for side in ("train", "test") for i in range(8)]
    masks = [path.with_suffix(".png") for path in pictures]
    for i, (path, mask) in enumerate(zip(pictures, masks, strict=True)):
        paint(path, is_bad=i % 2 == 0, mask=mask)
    rows = [
        [path, mask, path.parent.name, path.stem]
        for path, mask in zip(pictures, masks, strict=True)
    ]
    write_table(root / "labels.csv", ["image_path", "mask_path", "split", "patient"], rows)
    for path in (masks[8], masks[9], pictures[10]):  # of the test
        path.write_bytes(path.read_bytes()[:-30])
    command = [*tiny(tmp_path, root, name), "dataset.labels=masks", "dataset.object_name=plate"]
    for program in (run_py, test_py):
        assert program.main(command) == 2
        error = capsys.readouterr().err
        assert f"{masks[8]}: cannot be read as a picture" in error
        assert "(2 such masks), or leave out what cannot be read: dataset.skip_broken=t" in error
    assert check.main([*command, f"--out={tmp_path}/report"]) == 2
    said = capsys.readouterr()
    assert "16 images checked: 3 errors" in said.err
    assert all(str(path) in said.out for path in (masks[8], masks[9], pictures[10]))

    command += ["dataset.skip_broken=true"]
    splits = read_splits(load(Path(command[0]), command[1:]).dataset)
    assert [(record.path, record.label) for record in splits["test"]] == [
        (f"test/{i}.jpg", int(i % 2 == 0)) for i in range(3, 8)
    ]
    assert "3 images that cannot be read are left out\n" in capsys.readouterr().out
    masks[8].write_bytes(masks[0].read_bytes())
    listed = tmp_path / "run/broken_images.txt"  # of a run that left out others
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("test/0.jpg\ntest/2.jpg\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test/1\.png: cannot be read"):
        read_splits(load(Path(command[0]), command[1:]).dataset, folder=listed.parent)


@pytest.mark.slow
def test_a_persons_own_pictures(tmp_path, capsys):
    """Nothing but a folder is named: what was assumed is said, and the first table printed."""
    root = write_folder(tmp_path / "my screws")
    command = tiny(tmp_path, root, "folder")
    assert run_py.main(command) == 0
    said = capsys.readouterr().out
    assert "assumed: 9 normal and 9 anomalous pictures; objects: 'my screws'" in said
    assert "6 of 18 images are put aside for the test" in said
    assert test_py.main(command) == 0
    assert "| my screws |   6 |" in capsys.readouterr().out


def test_a_list_of_another_run_is_left_as_it_is(tmp_path, capsys):
    root = write_folder(tmp_path / "data")
    file = tmp_path / "run/meta_folder.json"
    file.parent.mkdir()
    file.write_text("mine", encoding="utf-8")
    assert run_py.main(tiny(tmp_path, root, "folder")) == 0
    assert file.read_text(encoding="utf-8") == "mine"
    assert "meta_folder.json: holds another list and is left" in capsys.readouterr().out


def test_another_split_is_another_experiment(tmp_path, capsys):
    root = write_folder(tmp_path / "data")
    assert run_py.main(tiny(tmp_path, root, "folder")) == 0
    assert run_py.main(tiny(tmp_path, root, "folder", "dataset.split_seed=1")) == 2
    assert "dataset.split_seed is 1, was 0" in capsys.readouterr().err
    Painter()(root / "good/new.png", is_bad=False)
    assert run_py.main(tiny(tmp_path, root, "folder")) == 2
    assert "was made with another list of images than that of" in capsys.readouterr().err


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.slow
def test_a_teacher_that_reads_labels_is_warned_of(smoke, tmp_path, capsys, text):
    write_smoke(tmp_path, smoke / "visa")
    root = write_folder(tmp_path / "data")
    if not text:
        for kind in ("dent", "Kratzer tief"):
            for path in (root / "bad" / kind).iterdir():
                path.rename(root / "bad" / path.name)
    dataset = f"dataset={{name: folder, dir: {root}, val_fraction: 0.4, cache: null}}"
    assert run_py.main([str(tmp_path / "smoke.yaml"), dataset, "engine.epochs=1"]) == 0
    said = capsys.readouterr().out
    assert ("teacher: warning: the text of these images is only their" in said) is not text
    assert "student: warning" not in said


@pytest.fixture
def per_object(smoke, tmp_path):
    """A folder with ``smoke.yaml`` and its options for a model of each object."""
    options = str(write_smoke(tmp_path, smoke / "visa"))
    return [options, "dataset.per_object=true", "engine.epochs=1"]


@pytest.mark.slow
def test_one_model_per_object(per_object, tmp_path, capsys):
    assert run_py.main(per_object) == 0
    assert test_py.main([*per_object, "--oracle-text"]) == 0
    said = capsys.readouterr().out
    assert said.count("| mean") == 3  # one table each: student, teacher, teacher with oracle text
    run = tmp_path / "run"
    for stage in ("student", "teacher", "teacher/oracle_text"):
        table = pd.read_csv(run / stage / "table.csv", index_col="object")
        assert list(table.index) == ["candle", "pipe_fryum", "mean"]
        assert "one model per object: 12 images" in (run / stage / "table.md").read_text(
            encoding="utf-8"
        )
        for name in ("candle", "pipe_fryum"):
            part = pd.read_csv(run / name / stage / "table.csv", index_col="object")
            assert part.loc[name].equals(table.loc[name])
    lists = json.loads((run / "candle/student/meta.json").read_text(encoding="utf-8"))
    assert {name for objects in lists.values() for name in objects} == {"candle"}


@pytest.mark.slow
def test_a_model_of_an_object_is_the_one_trained_alone(per_object, tmp_path):
    student = ["teacher=null", "student.objective=cross_entropy"]
    alone = [per_object[0], "dataset.objects=[candle]", "engine.epochs=1", *student]
    assert run_py.main([*per_object, *student]) == 0
    assert run_py.main([*alone, f"exp.dir={tmp_path}/alone"]) == 0
    logs = [
        pd.read_csv(tmp_path / folder / "student/log.csv")["loss"][0]
        for folder in ("run/candle", "alone")
    ]
    assert logs[0] == logs[1]
    # ... and it can be tested as what it is.
    assert test_py.main([*alone, f"exp.dir={tmp_path}/run/candle"]) == 0


def test_a_name_that_is_no_folder(tmp_path, capsys):
    root = write_folder(tmp_path / "data")
    command = tiny(tmp_path, root, "folder", "dataset.per_object=true", "dataset.object_name=a/b")
    assert run_py.main(command) == 2
    assert "object 'a/b' cannot be the name of a folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_object_that_was_never_seen(smoke, tmp_path, capsys):
    options = [str(write_smoke(tmp_path, smoke / "visa")), "dataset.hold_out=[pipe_fryum]"]
    assert run_py.main([*options, "engine.epochs=1"]) == 0
    assert test_py.main([*options, "engine.epochs=1"]) == 0
    assert "held out pipe_fryum" in capsys.readouterr().out
    lists = json.loads((tmp_path / "run/student/meta.json").read_text(encoding="utf-8"))
    assert {split: list(objects) for split, objects in lists.items()} == {
        "train": ["candle"],
        "val": ["candle"],
        "test": ["pipe_fryum"],
    }
    text = (tmp_path / "run/student/table.md").read_text(encoding="utf-8")
    assert "tested on objects that it was not trained on: 6 images" in text
    assert "candle" not in text


@pytest.mark.parametrize("held", ["hold_out=[candle]", "fold=[1,2]"])
def test_what_is_held_out_is_no_fault_of_the_data(tmp_path, capsys, held):
    """Images that are neither trained on nor tested have masks all the same."""
    root = write_visa(tmp_path / "visa", normals=3)  # no normal image is named as a test mask
    options = [str(write_smoke(tmp_path, root)), f"dataset.{held}"]
    assert check.main([*options, "--out", str(tmp_path / "report")]) == 0
    assert "masks of no image" not in capsys.readouterr().out


@pytest.mark.slow
def test_an_object_with_a_few_anomalies_given_back(smoke, tmp_path, capsys):
    held = ["dataset.hold_out=[pipe_fryum]", "dataset.hold_out_anomalies=2", "engine.epochs=1"]
    options = [str(write_smoke(tmp_path, smoke / "visa")), "teacher=null", *held]
    options.append("student.objective=cross_entropy")
    assert run_py.main(options) == 0
    assert test_py.main(options) == 0
    assert "given back normal images and 2 anomalous ones of each" in capsys.readouterr().out
    text = (tmp_path / "run/student/table.md").read_text(encoding="utf-8")
    assert "pipe_fryum" in text
    assert "not trained on" not in text


@pytest.fixture
def guided(smoke, tmp_path):
    """A folder with ``smoke.yaml``, and a ready teacher that was trained on other objects, too."""
    shutil.copytree(smoke / "run/teacher", tmp_path / "teacher")
    return load(write_smoke(tmp_path, smoke / "visa"), [f"teacher={tmp_path}/teacher"])


def held_out(run, **exp):
    dataset = replace(run.dataset, hold_out=("candle",))
    return replace(run, dataset=dataset, exp=replace(run.exp, **exp))


def guide(run):
    return guide_file(run, run.student, read_splits(run.dataset))


def test_a_ready_teacher_must_not_know_the_test_images(guided, tmp_path, capsys):
    assert guide(guided) == tmp_path / "teacher/best.safetensors"
    with pytest.raises(UserError, match="has learned from what is tested here, object candle;"):
        guide(held_out(guided))
    splits = read_splits(guided.dataset)
    splits["test"] = splits["train"][:3]
    with pytest.raises(UserError, match=r"tested here, /.*/candle/.*/000.JPG and 2 more; test it"):
        guide_file(guided, guided.student, splits)
    assert guide(held_out(guided, resume="any_options"))
    assert capsys.readouterr().out == ""


def test_a_ready_teacher_whose_data_have_moved(guided, smoke, tmp_path):
    file = tmp_path / "teacher/best.safetensors"
    model, _, _ = load_model(file)
    about = read_about(file)
    options = about["options"].replace(str(smoke), "/nowhere")
    save_weights(model, file, {**about, "options": options})
    splits = read_splits(guided.dataset)
    splits["test"] = splits["train"]
    with pytest.raises(UserError, match="has learned from"):
        guide_file(guided, guided.student, splits)


def test_a_ready_teacher_without_its_list(guided, tmp_path, capsys):
    (tmp_path / "teacher/meta.json").unlink()
    guide(guided)
    assert capsys.readouterr().out == ""
    guide(held_out(guided))
    assert "meta.json is missing, and the teacher was trained on another" in capsys.readouterr().out


def test_an_object_without_test_images_is_passed_over(smoke, tmp_path, capsys):
    run = load(write_smoke(tmp_path, smoke / "visa"), ["dataset.per_object=true"])
    splits = read_splits(run.dataset)
    splits["test"] = [record for record in splits["test"] if record.object == "candle"]
    session = replace(session_of(run), splits=splits)
    assert [part.run.dataset.objects for part in session.of_objects()] == [("candle",)]
    assert capsys.readouterr().out == "pipe_fryum: left out: it has no test images\n"


@pytest.mark.parametrize("program", [test_py, visualize_py])
def test_a_data_set_without_test_images(tmp_path, capsys, program):
    root = write_visa(tmp_path / "visa")
    table = root / "split_csv/2cls_highshot.csv"
    table.write_text(
        table.read_text(encoding="utf-8").replace(",test,", ",train,"), encoding="utf-8"
    )
    assert program.main([str(write_smoke(tmp_path, root))]) == 2
    assert f"{root}: no test images; see dataset.split" in capsys.readouterr().err


def test_an_object_called_mean(tmp_path, capsys):
    root = write_visa(tmp_path / "visa", objects=["mean", "candle"])
    assert test_py.main([str(write_smoke(tmp_path, root))]) == 2
    assert f"{root}: an object is called 'mean'" in capsys.readouterr().err


@pytest.mark.slow
def test_an_epoch_that_cannot_be_chosen(smoke, tmp_path, capsys, monkeypatch):
    def apart(records, *args):
        val = [r for r in records if r.label == (r.object == "candle")]
        return [r for r in records if r not in val], val

    monkeypatch.setattr("jobs.data.carve_validation", apart)
    options = [str(write_smoke(tmp_path, smoke / "visa")), "student=null", "engine.epochs=1"]
    assert run_py.main(options) == 2
    assert "no object has normal and anomalous images among the 10 validation images" in (
        capsys.readouterr().err
    )
    assert run_py.main([*options, "engine.keep=last"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dataset.hold_out=[nut]"], "no object 'nut'; there are candle, pipe_fryum"),
        (["dataset.hold_out=[candle, pipe_fryum]"], "no object is left to train on"),
        (["dataset.hold_out=[candle]", "dataset.per_object=true"], "remove hold_out"),
    ],
)
def test_what_cannot_be_held_out(smoke, tmp_path, capsys, options, message):
    write_smoke(tmp_path, smoke / "visa")
    assert run_py.main([str(tmp_path / "smoke.yaml"), *options]) == 2
    assert message in capsys.readouterr().err
