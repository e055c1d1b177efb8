"""Small things that many tests need."""

import functools
import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: more threads only wait for each other

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import run as run_py
import test as test_py
from models.encoders.clip import open_clip_library
from tests.fixtures import write_smoke, write_visa
from utils import fact_table

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_tokenizer() -> Iterator[None]:
    """Reading a vocabulary takes longer than all that a small tower does."""
    with pytest.MonkeyPatch.context() as patch:
        open_clip = open_clip_library()
        patch.setattr(open_clip, "get_tokenizer", functools.cache(open_clip.get_tokenizer))
        yield


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process without a cache knows of files ends with the test."""
    monkeypatch.setattr(fact_table, "_memory", {})


@pytest.fixture
def visa_root(tmp_path: Path) -> Path:
    """A VisA of two objects and sixteen small pictures each."""
    return write_visa(tmp_path / "visa")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``smoke.yaml``, its data, and its finished and tested run."""
    folder = tmp_path_factory.mktemp("smoke")
    options = write_smoke(folder, write_visa(folder / "visa"))
    assert run_py.main([str(options)]) == 0
    assert test_py.main([str(options), "--oracle-text"]) == 0
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--golden``, which writes tests/golden anew."""
    parser.addoption("--golden", action="store_true", help="write the golden losses anew")
