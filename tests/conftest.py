"""Small things that many tests need.

What takes seconds to import is imported in the fixtures: pytest-xdist also has a process that only
distributes the tests.
"""

import functools
import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: more threads only wait for each other

from collections.abc import Iterator
from pathlib import Path

import pytest

import run as run_py
import test as test_py
from utils import fact_table


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """Vocabularies, small networks and trees of YAML take longer to make than to use."""
    import torch
    import torchvision
    import yaml

    from models.encoders.clip import open_clip_library
    from tests.remembered import remembered

    torch.set_num_threads(1)
    open_clip = open_clip_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_tokenizer", functools.cache(open_clip.get_tokenizer))
        patch.setattr(open_clip, "create_model", remembered(open_clip.create_model))
        patch.setattr(torchvision.models, "get_model", remembered(torchvision.models.get_model))
        patch.setattr(yaml, "compose", functools.lru_cache(100)(yaml.compose))
        yield


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the ones before it: on random numbers, or on what is known of files."""
    import torch

    torch.manual_seed(0)
    monkeypatch.delenv("MOST_PIXELS_OF_A_PICTURE", raising=False)
    monkeypatch.setattr(fact_table, "_memory", {})


@pytest.fixture
def visa_root(tmp_path: Path) -> Path:
    """A VisA of two objects and sixteen small pictures each."""
    from tests.fixtures import write_visa

    return write_visa(tmp_path / "visa")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``smoke.yaml``, its data, and its finished and tested run."""
    from tests.fixtures import write_smoke, write_visa

    folder = tmp_path_factory.mktemp("smoke")
    options = write_smoke(folder, write_visa(folder / "visa"))
    assert run_py.main([str(options)]) == 0
    assert test_py.main([str(options), "--oracle-text"]) == 0
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--golden``, which writes tests/golden anew."""
    parser.addoption("--golden", action="store_true", help="write the golden losses anew")
