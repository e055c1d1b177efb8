"""Two processes do what one does: the same weights, the same table; one that dies ends the job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import run as run_py
import test as test_py
from tests.fixtures import write_smoke

# No batch statistics and no dropout: then the number of processes changes nothing but rounding.
EXACT = (
    "teacher=null",
    "student.objective={name: cross_entropy, anomaly_weight: 3}",
    "student.model.img_enc.arch=tiny-ViT",
    "student.model.classif.dropout=0",
    "engine.epochs=7",
    "optimizer={name: SGD, lr: 0.01, momentum: 0.9}",
)


def torchrun(program, folder, *overrides):
    """Runs a program in two processes; its exit status and all that was said."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program), str(folder / "smoke.yaml"), *overrides],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )
    return done.returncode, done.stdout + done.stderr


def alone(program, folder, *overrides):
    assert program.main([str(folder / "smoke.yaml"), *overrides]) == 0


def weights(folder):
    return load_file(folder / "student/best.safetensors")


@pytest.fixture(scope="module")
def one(smoke, tmp_path_factory):
    """A student trained by one process in 21 steps."""
    folder = tmp_path_factory.mktemp("one")
    write_smoke(folder, smoke / "visa")
    alone(run_py, folder, *EXACT)
    alone(test_py, folder, *EXACT)
    return folder


@pytest.mark.slow
def test_two_processes_train_the_same_weights_and_print_the_same_table(smoke, one, tmp_path):
    write_smoke(tmp_path, smoke / "visa")
    status, said = torchrun("run.py", tmp_path, *EXACT)
    assert status == 0, said
    assert said.count("student: done") == 1
    expected, found = weights(one / "run"), weights(tmp_path / "run")
    assert max(float((expected[key] - found[key]).abs().max()) for key in expected) < 1e-5

    # The same checkpoint, scored by two.
    status, said = torchrun("test.py", one, *EXACT, f"exp.dir={one}/run")
    assert status == 0, said
    before = (one / "run/student/table.csv").read_bytes()
    alone(test_py, one, *EXACT)
    assert (one / "run/student/table.csv").read_bytes() == before


@pytest.mark.slow
def test_two_processes_score_seed_after_seed(smoke, tmp_path):
    write_smoke(tmp_path, smoke / "visa")
    arguments = ("--untrained", "--seeds", "2", *EXACT)
    status, said = torchrun("test.py", tmp_path, *arguments)
    assert status == 0, said
    table = tmp_path / "run/student_untrained_seeds.csv"
    found = table.read_bytes()
    alone(test_py, tmp_path, *arguments)
    assert table.read_bytes() == found


CUT = """
import sys
import run
from utils import training
steps = []
check = training._set_rates
def stop(optimizer, factor):
    steps.append(factor)
    if len(steps) == 8:
        raise KeyboardInterrupt
    check(optimizer, factor)
training._set_rates = stop
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_one_process_resumes_a_run_of_two(smoke, one, tmp_path):
    write_smoke(tmp_path, smoke / "visa")
    (tmp_path / "cut.py").write_text(CUT, encoding="utf-8")
    status, said = torchrun(tmp_path / "cut.py", tmp_path, *EXACT)
    assert status != 0
    assert "student: stopped after epoch 2 of 7; run the same command again to resume" in said
    assert not (tmp_path / "run/student/table.csv").exists()
    alone(run_py, tmp_path, *EXACT)
    expected, found = weights(one / "run"), weights(tmp_path / "run")
    assert max(float((expected[key] - found[key]).abs().max()) for key in expected) < 1e-5


DIES = CUT.replace(
    "raise KeyboardInterrupt", "os.environ['RANK'] == '1' and os.kill(os.getpid(), 9)"
)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_with_its_error(smoke, tmp_path):
    write_smoke(tmp_path, smoke / "visa")
    (tmp_path / "dies.py").write_text("import os\n" + DIES, encoding="utf-8")
    status, said = torchrun(tmp_path / "dies.py", tmp_path, *EXACT)
    assert status != 0
    assert "rank      : 1" in said
    assert "SIGKILL" in said
