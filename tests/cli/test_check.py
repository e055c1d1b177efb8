"""Data that spoil a result stop the programs, as a user starts them."""

import runpy
import shutil
import sys

import pytest

import run as run_py
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

    assert run_py.main([str(options)]) == 2
    assert capsys.readouterr().err.count(LEAK) == 1
    assert not (tmp_path / "run").exists()

    monkeypatch.setattr(sys, "argv", ["check", str(options), f"--out={tmp_path}/out"])
    with pytest.raises(SystemExit) as status:
        runpy.run_path("check.py", run_name="__main__")
    assert status.value.code == 2
    assert capsys.readouterr().out.count(LEAK) == 1
