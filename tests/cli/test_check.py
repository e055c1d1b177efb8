"""Data that spoil a result stop the programs, as a user starts them."""

import runpy
import shutil
import sys

import pytest

from tests.cli.test_cli import cli
from tests.fixtures import write_smoke, write_visa

FOLDER = "candle/Data/Images/Normal"
LEAK = (
    f"{FOLDER}/000.JPG (train, normal): leak across train and test: the same bytes as "
    f"{FOLDER}/009.JPG (test, normal); keep one of them, or allow it: "
)


def test_a_leak_stops_the_training_and_is_found_by_the_command(tmp_path, capsys, monkeypatch):
    root = write_visa(tmp_path / "visa")
    shutil.copy(root / FOLDER / "000.JPG", root / FOLDER / "009.JPG")
    options = write_smoke(tmp_path, root)

    done = cli("run.py", options)
    assert done.returncode == 2
    assert done.stderr.count(LEAK) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()

    monkeypatch.setattr(sys, "argv", ["check", str(options), f"--out={tmp_path}/out"])
    with pytest.raises(SystemExit) as status:
        runpy.run_path("datasets/check/__main__.py", run_name="__main__")
    assert status.value.code == 2
    assert capsys.readouterr().out.count(LEAK) == 1
