"""Sizes that no memory holds are refused before anything is allocated, with the number."""

import pytest
import torch
from torch import nn

from jobs.build import build_model, check_batch
from jobs.data import read_data, read_splits
from jobs.job import Job
from options.load import load
from tests.fixtures import write_smoke, write_visa
from utils import memory
from utils.device import Machine
from utils.errors import UserError, run_command
from utils.memory import check_memory, checked_memory, out_of_memory


@pytest.fixture
def a_gigabyte(monkeypatch):
    """A machine with 1 GB of memory."""
    monkeypatch.setattr(memory, "total_memory", lambda: 10**9)


def test_this_machine_has_memory():
    assert 10**8 < memory.total_memory() < 10**14


def test_what_fits_and_what_does_not(a_gigabyte):
    check_memory(10**9, "64 images")
    with pytest.raises(
        UserError, match=r"^64 images need 1,235 GB of memory, and this machine has 1 GB"
    ):
        check_memory(1_234_567_890_000, "64 images")


def test_a_network_is_built_as_far_as_it_fits(a_gigabyte):
    def build():
        return nn.Sequential(*(nn.Linear(10_000, 10_000, device="meta") for _ in range(9)))

    with checked_memory("student", copies=1), pytest.raises(UserError, match="student: its param"):
        build()
    with checked_memory("student", copies=2):
        nn.Linear(10_000, 10_000, device="meta")
    need = pytest.raises(UserError, match=r"student: its parameters and gradients need 1.2 GB")
    with need, checked_memory("student", copies=3):
        nn.Linear(10_000, 10_000, device="meta")
    nn.Linear(20_000, 20_000, device="meta")  # nothing is checked outside of the context


@pytest.mark.parametrize("size", [2**47, 2**62])
def test_a_weight_that_cannot_be_allocated(size):
    lack = pytest.raises(UserError, match="student: not enough memory")
    with lack, checked_memory("student", copies=1):
        torch.empty(size)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), checked_memory("student", copies=1):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert out_of_memory(RuntimeError("shape '[2]' is invalid")) is None


def test_memory_that_runs_out_later_is_one_line(capsys):
    def command():
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 5000000000 bytes."
        )

    assert run_command(command) == 2
    assert capsys.readouterr().err == (
        "not enough memory for 5 GB; a smaller image.size or engine.batch_size needs less\n"
    )
    assert run_command(lambda: [0] * 2**60) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ["teacher.model.fusion.dim=4096"],
        ["teacher.model.classif.hidden=8192", "teacher.model.fusion.out_dim=8192"],
    ],
)
def test_networks_of_the_options(tmp_path, monkeypatch, overrides):
    monkeypatch.setattr(memory, "total_memory", lambda: 10**8)
    run = load(write_smoke(tmp_path, tmp_path), overrides)
    with pytest.raises(UserError, match=r"^teacher: its parameters and gradients need 0\.\d+ GB"):
        build_model(run, "teacher")


def test_batches_of_the_options(tmp_path, a_gigabyte):
    run = load(write_smoke(tmp_path, write_visa(tmp_path / "visa")), ["student.image.size=99968"])
    splits = read_splits(run.dataset)
    machine = Machine.choose("cpu", "fp32")
    check_batch(Job(run, "teacher", splits, read_data(run, "teacher", splits), machine))
    with pytest.raises(UserError, match=r"4 images of 99968 x 99968 pixels need 480 GB of memory"):
        check_batch(Job(run, "student", splits, read_data(run, "student", splits), machine))
