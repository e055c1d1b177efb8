"""Files of weights: the same bytes for the same network, and one line for what is none."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from utils import checkpoint
from utils.checkpoint import load_weights, read_about, save_state, save_weights, write_bytes
from utils.errors import UserError
from utils.lock import hold

ABOUT = {"stage": "student", "options": "misc: {seed: 7}", "epoch": 3, "teacher": None}


def test_the_same_weights_are_the_same_bytes(tmp_path):
    torch.manual_seed(0)
    model, found = nn.Linear(3, 2), set()
    for number in range(8):
        file = tmp_path / f"{number}.safetensors"
        save_weights(model, file, ABOUT)
        found.add(file.read_bytes())
    assert len(found) == 1
    assert read_about(file) == ABOUT
    other = nn.Linear(3, 2)
    load_weights(other, file)
    assert torch.equal(other.weight, model.weight)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"about": "{"}])
def test_a_file_of_somebody_else_is_named(tmp_path, metadata):
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, file, metadata)
    with pytest.raises(UserError, match=r"other\.safetensors: is not a checkpoint of this program"):
        read_about(file)


def test_weights_of_another_network_are_refused(tmp_path):
    save_weights(nn.Linear(3, 2), tmp_path / "a.safetensors", ABOUT)
    with pytest.raises(UserError, match="does not fit the network it describes"):
        load_weights(nn.Linear(4, 2), tmp_path / "a.safetensors")


def test_two_processes_can_write_one_file(tmp_path, monkeypatch):
    """Another process writes the same file just before this one gives its own the name."""
    path, fsync = tmp_path / "x.targets", checkpoint.os.fsync

    def interrupted(number):
        monkeypatch.setattr(checkpoint.os, "fsync", fsync)
        write_bytes(b"the other's, which is longer", path)

    monkeypatch.setattr(checkpoint.os, "fsync", interrupted)
    write_bytes(b"mine", path)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    save_state({"epoch": 1}, tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"last\.pt: cannot be written \(no room"):
        checkpoint._replace(tmp_path / "last.pt", fill_the_disk)
    assert checkpoint.load_state(tmp_path / "last.pt") == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


def fill_the_disk(file):
    file.write(b"half")
    raise OSError("no room")


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    """Once for each folder; not what another process writes now, nor files of others."""
    monkeypatch.setattr(checkpoint, "_tidy", set())
    names = ["a.json.01234567.part", "b.png.89abcdef.part", "c.json.01234567.part", "film.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    for name in (names[0], names[1], names[3]):
        os.utime(tmp_path / name, (1, 1))
    with (tmp_path / names[1]).open("rb") as other:
        assert hold(other)
        write_bytes(b"whole", tmp_path / "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", *names[1:]]
