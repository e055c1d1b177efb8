"""What a command imports before it answers: nothing that it does not need for the answer."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = sorted(path.name for path in Path().glob("*.py"))
# Seconds each; torch alone takes two thirds of the time in which wrong options are answered.
HEAVY = (
    *("torchvision", "open_clip", "timm", "sklearn", "pandas", "matplotlib", "tensorboard"),
    *("pytorch_grad_cam", "safetensors", "scipy", "torch._dynamo"),
)
PROGRAM = """
import atexit, runpy, sys
atexit.register(lambda: print("imported", *sys.modules))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# What is imported before signals are handled: Ctrl-C in it ends in a traceback.
FIRST = """
import runpy, sys
import utils.errors
utils.errors.run_command = lambda _: print(*(m for m in sys.modules if m.startswith(OWN)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
OWN = ("benchmarks.", "datasets.", "demo.", "jobs.", "models.", "options.", "utils.", "tqdm")


def imported(*command):
    """Names of the modules that a command imports, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.splitlines()[-1].split()), done.returncode


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_neither_torch_nor_yaml(command):
    modules, status = imported(command, "--help")
    assert not modules & {"torch", "numpy", "yaml", *HEAVY}
    assert status == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_signals_are_handled_before_the_program_is_imported(command):
    program = FIRST.replace("OWN", repr(OWN))
    done = subprocess.run(
        [sys.executable, "-c", program, command], capture_output=True, text=True, check=True
    )
    assert done.stdout == "utils.errors\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--wrong"],
        ["no_such_file.yaml"],
        ["options/demo.yaml", "options/teacher.yaml"],
        ["options/comparison/demo.yaml"],
        ["options"],
    ],
)
def test_wrong_arguments_import_no_torch(arguments):
    modules, status = imported("run.py", *arguments)
    assert not modules & {"torch", "numpy", *HEAVY}
    assert status == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["run.py", "engine.epocs=3"],
        ["run.py", "options/baselines/vand.yaml", "baseline.model.tempreature=1"],
        ["compare.py", "columns.ours.stages=student"],
    ],
)
@pytest.mark.slow
def test_wrong_options_import_torch_and_nothing_else_that_is_heavy(arguments):
    modules, status = imported(*arguments)
    assert not modules & {*HEAVY}
    assert status == 2
