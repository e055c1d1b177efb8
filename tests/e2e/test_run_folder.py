"""The folder of a run: damaged, moved, copied in part, or used by two processes at once."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import run as run_py
import test as test_py
from jobs.run_folder import StageFolder
from tests.fixtures import write_smoke
from tests.layouts import write_folder
from utils.checkpoint import load_state, load_weights, read_about
from utils.errors import UserError

ALONE = ("teacher=null", "student.objective=cross_entropy", "engine.epochs=1")


@pytest.fixture
def copy(smoke, tmp_path):
    """The finished smoke run, to damage."""
    shutil.copytree(smoke / "run", tmp_path / "run")
    write_smoke(tmp_path, smoke / "visa")
    return tmp_path


def both(copy, capsys, *overrides):
    """Exit statuses of run.py and test.py, and what they printed last."""
    results = []
    for program in (run_py, test_py):
        status = program.main([str(copy / "smoke.yaml"), *overrides])
        captured = capsys.readouterr()
        results.append((status, captured.out + captured.err))
    return results


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b"exp: [", b"a: b", b"[" * 50_000]
)
@pytest.mark.parametrize("name", ["options.yaml", "about.json", "log.csv"])
@pytest.mark.slow
def test_damaged_descriptions_are_known_from_the_weights(copy, capsys, name, content):
    (copy / "run/student" / name).write_bytes(content)
    (status, _), (tested, text) = both(copy, capsys)
    assert (status, tested) == (0, 0)
    assert "UNFINISHED" not in text


@pytest.mark.slow
def test_damaged_lists_stop_a_test(copy, capsys):
    for content in (b"", b"\xff", b"[1]", b'{"train": {"a": [{}]}}', b"{}", b"[" * 50_000):
        (copy / "run/student/meta.json").write_bytes(content)
        assert test_py.main([str(copy / "smoke.yaml")]) == 2
        assert "meta.json: is damaged" in capsys.readouterr().err


def test_weights_that_were_copied_alone_are_enough(copy, smoke, capsys):
    for stage in ("teacher", "student"):
        for file in (copy / "run" / stage).iterdir():
            if file.is_file() and file.name != "best.safetensors":
                file.unlink()
    assert test_py.main([str(copy / "smoke.yaml")]) == 0
    assert "UNFINISHED" not in capsys.readouterr().out
    scores = "run/student/scores.csv"
    assert (copy / scores).read_text(encoding="utf-8") == (smoke / scores).read_text(
        encoding="utf-8"
    )


def test_missing_weights_of_a_finished_run_are_named_by_both_commands(copy, capsys):
    (copy / "run/student/best.safetensors").unlink()
    (status, text), (tested, _) = both(copy, capsys)
    assert (status, tested) == (2, 2)
    assert "best.safetensors: is missing, although all epochs are done; put it back, or" in text


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.slow
def test_a_stage_that_is_trained_again_leaves_the_same_bytes(copy, smoke, stage):
    """So a student is not refused because its teacher was trained again."""
    shutil.rmtree(copy / "run" / stage)
    assert run_py.main([str(copy / "smoke.yaml")]) == 0
    weights = f"run/{stage}/best.safetensors"
    assert (copy / weights).read_bytes() == (smoke / weights).read_bytes()


@pytest.mark.slow
def test_every_flipped_byte_of_the_weights_is_noticed(copy):
    folder = StageFolder(copy / "run/student", "student")
    content = bytearray(folder.best.read_bytes())
    about = read_about(folder.best)
    header = int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    places = [*random.integers(0, header + 8, 60), *random.integers(header + 8, len(content), 20)]
    model = Anything()
    for place in map(int, places):
        bit = 1 << int(random.integers(8))
        content[place] ^= bit
        folder.best.write_bytes(content)
        with pytest.raises(UserError, match=r"best\.safetensors: "):
            load_weights(model, folder.best)
        content[place] ^= bit
    folder.best.write_bytes(content)
    load_weights(model, folder.best)
    assert read_about(folder.best) == about


class Anything:
    """Takes any state: nothing but the checksums notices a change."""

    def load_state_dict(self, state):
        pass


def test_every_flipped_byte_of_the_tensors_of_a_state_is_noticed(copy):
    file = copy / "run/student/last.pt"
    content = bytearray(file.read_bytes())
    places = np.linspace(len(content) // 10, len(content) * 9 // 10, 25).astype(int)
    for place in map(int, places):  # the tensors are nine tenths of the file
        content[place] ^= 16
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"last\.pt: is damaged; remove it to train"):
            load_state(file)
        content[place] ^= 16


def test_a_state_that_may_not_be_read_is_not_called_damaged(copy, monkeypatch):
    monkeypatch.setattr("torch.load", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match=r"last\.pt: cannot be read \(not enough memory\)"):
        load_state(copy / "run/student/last.pt")


@pytest.mark.slow
def test_one_process_trains_in_a_folder(copy, capsys):
    folder = StageFolder(copy / "run/teacher", "teacher")
    code = (
        "import sys; from pathlib import Path; from jobs.run_folder import StageFolder\n"
        f"with StageFolder(Path({str(folder.path)!r}), 'teacher').locked():\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        assert run_py.main([str(copy / "smoke.yaml")]) == 2
        assert "teacher: another process is training here; wait for it" in capsys.readouterr().err
        other.kill()  # the lock ends with its process
    assert run_py.main([str(copy / "smoke.yaml")]) == 0


def test_what_a_killed_process_left_unfinished_is_removed(copy):
    folder = copy / "run/student"
    (folder / "last.pt.0123abcd.part").write_bytes(b"half")
    (folder / "notes.part").write_bytes(b"the user's")
    assert run_py.main([str(copy / "smoke.yaml")]) == 0
    assert not (folder / "last.pt.0123abcd.part").exists()
    assert (folder / "notes.part").exists()


def own_folder(tmp_path, root, *overrides):
    dataset = f"dataset={{name: folder, dir: {root}, val_fraction: 0.4, cache: null}}"
    return [str(tmp_path / "smoke.yaml"), *ALONE, dataset, *overrides]


def trained_on(tmp_path):
    lists = json.loads((tmp_path / "run/student/meta.json").read_text(encoding="utf-8"))
    return {
        entry["img_path"]
        for split in ("train", "val")
        for entries in lists[split].values()
        for entry in entries
    }


@pytest.mark.slow
def test_a_folder_of_images_may_be_moved_and_renamed(smoke, tmp_path, capsys):
    write_smoke(tmp_path, smoke / "visa")
    root = write_folder(tmp_path / "screws")
    assert run_py.main(own_folder(tmp_path, root)) == 0
    assert test_py.main(own_folder(tmp_path, root)) == 0
    scores = tmp_path / "run/student/scores.csv"
    before = pd.read_csv(scores)
    moved = tmp_path / "disk 2/screws"
    moved.parent.mkdir()
    root.rename(moved)
    assert test_py.main(own_folder(tmp_path, moved)) == 0
    assert pd.read_csv(scores).equals(before)
    renamed = tmp_path / "screws_v2"
    moved.rename(renamed)
    capsys.readouterr()
    assert test_py.main(own_folder(tmp_path, renamed)) == 2
    message = capsys.readouterr().err
    assert "was trained on images of 'screws', but those of" in message
    assert "if they are the same images, write dataset.object_name=screws\n" in message
    assert test_py.main(own_folder(tmp_path, renamed, "dataset.object_name=screws")) == 0
    assert pd.read_csv(scores).equals(before)
    assert not trained_on(tmp_path) & set(before["path"])


def test_nothing_leads_to_a_test_on_training_images(smoke, tmp_path, capsys):
    write_smoke(tmp_path, smoke / "visa")
    root = write_folder(tmp_path / "screws")
    assert run_py.main(own_folder(tmp_path, root)) == 0
    other = own_folder(tmp_path, root, "dataset.split_seed=1", "exp.resume=any_options")
    assert test_py.main(other) == 2
    assert "student: has learned from what is tested here" in capsys.readouterr().err


def test_a_relative_folder_that_is_another_one_today_hides_nothing(smoke, tmp_path, monkeypatch):
    write_smoke(tmp_path, smoke / "visa")
    moved = write_folder(tmp_path / "screws").rename
    monkeypatch.chdir(tmp_path)
    assert run_py.main(own_folder(tmp_path, "screws")) == 0
    moved(tmp_path / "elsewhere")
    (tmp_path / "screws").mkdir()
    other = own_folder(tmp_path, "elsewhere", "dataset.split_seed=1", "exp.resume=any_options")
    assert test_py.main([*other, "dataset.object_name=screws"]) == 2
