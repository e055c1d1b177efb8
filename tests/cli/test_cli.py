"""The programs as a user starts them: exit status, what is said, no traceback."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import compare as compare_py
import run as run_py
import test as test_py
from tests.fixtures import write_smoke
from tests.layouts import write_folder
from utils.checkpoint import load_state


def cli(*arguments, **options):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_help_names_the_default_file(capsys):
    with pytest.raises(SystemExit) as status:
        run_py.main(["--help"])
    assert status.value.code == 0
    assert "options/KDstudent.yaml" in capsys.readouterr().out


@pytest.mark.slow
def test_bad_options_say_where_and_show_no_traceback(tmp_path):
    (tmp_path / "bad.yaml").write_text("sede: 3\nexp: {dir: x}\n", encoding="utf-8")
    done = cli("run.py", tmp_path / "bad.yaml", "engine.epocs=3")
    assert done.returncode == 2
    assert f"{tmp_path}/bad.yaml:1: unknown option 'sede'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_data_that_are_not_there(tmp_path, capsys):
    assert run_py.main([f"dataset.dir={tmp_path}/visa", f"exp.dir={tmp_path}/run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "datasets/visa_json.py --download" in said
    assert "python -m demo" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_where_the_locale_has_no_umlauts(tmp_path):
    """A server with LC_ALL=C; the pictures come from elsewhere."""
    root = tmp_path / "Gehäuse"
    write_folder(root)
    env = {**os.environ, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    env.pop("PYTHONUTF8", None)
    place = [f"dataset.dir={root}", f"dataset.cache={tmp_path}/cache"]
    done = cli("check.py", "options/folder.yaml", *place, f"--out={tmp_path}/report", env=env)
    assert done.returncode == 0, done.stderr
    assert "images checked: " in done.stdout
    report = (tmp_path / "report/data_report.md").read_text(encoding="utf-8")
    assert "Gehäuse" in report


def test_one_file_at_a_time(capsys):
    assert test_py.main(["options/teacher.yaml", "-c", "options/student.yaml"]) == 2
    said = capsys.readouterr().err
    assert (
        "options/student.yaml: only one options file is allowed, and options/teacher.yaml" in said
    )


def start_and_stop(options, number, when):
    """Starts run.py and sends it a signal as soon as ``when`` says so; returns what it said."""
    process = subprocess.Popen(
        [sys.executable, "run.py", options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A test that was started in the background ignores SIGINT, and so would the program.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "was done before it could be stopped"
    process.send_signal(number)
    said = process.communicate()[1]
    return process.returncode, said


def scores(folder):
    return [
        (folder / f"run/{stage}/scores.csv").read_text(encoding="utf-8")
        for stage in ("teacher", "student")
    ]


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT]
)
@pytest.mark.slow
def test_a_stopped_run_is_resumed_with_the_same_result(smoke, tmp_path, capsys, number):
    options = write_smoke(tmp_path, smoke / "visa")
    state = tmp_path / "run/student/last.pt"
    status, said = start_and_stop(options, number, state.exists)
    if number == signal.SIGINT:
        assert status == 130
        assert re.search(r"student: stopped after epoch \d of 3; run the same command again", said)
        assert "Traceback" not in said
    before = len(load_state(state)["history"])
    assert before < 3
    assert run_py.main([str(options)]) == 0
    assert f"resumed after epoch {before}" in capsys.readouterr().out
    assert test_py.main([str(options)]) == 0
    assert scores(tmp_path) == scores(smoke)


COMPARISON = """
dir: {folder}/out
dataset: {{name: visa, dir: {root}, split: 2cls_highshot, cache: {folder}/cache}}
misc: {{seed: 7, device: cpu, precision: fp32}}
columns:
  clip: {{title: CLIP, options: options/baselines/clip.yaml, stage: baseline, overrides: [
    baseline.model.arch=tiny-ViT, baseline.model.pre_trained=random, baseline.image.size=64]}}
  later: {{title: Later, options: {folder}/smoke.yaml, overrides: ["exp.dir={folder}/a b"]}}
  winclip: {{title: WinCLIP, options: options/baselines/winclip.yaml, stage: baseline}}
"""


def test_a_comparison_says_in_footnotes_what_it_lacks(smoke, tmp_path, capsys, monkeypatch):
    """One column runs, one is not trained, one has no weights and no network to fetch them from."""
    write_smoke(tmp_path, smoke / "visa")
    comparison = tmp_path / "compare.yaml"
    comparison.write_text(COMPARISON.format(folder=tmp_path, root=smoke / "visa"), encoding="utf-8")
    monkeypatch.setattr("models.encoders.clip.CACHE", tmp_path / ".cache/clip")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert compare_py.main([str(comparison)]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("| mean"))
    assert re.fullmatch(r"\| mean +\| +\([\d.]+, [\d.]+\) +\| +-¹ +\| +-² +\|", row), row
    assert f"¹ Later: {tmp_path}/a b/student: nothing is trained yet; first: python run.py" in said
    assert f"{tmp_path}/smoke.yaml 'exp.dir={tmp_path}/a b'\n" in said
    assert re.search(r"² WinCLIP: https://\S+laion400m_e31-8fb26589.pt: cannot be do", said)
    assert "copy the file (SHA-256 8fb26589...) to " in said
    assert f"to {tmp_path}/.cache/clip/vit_b_16_plus_240-laion400m_e31-8fb26589.pt" in said
    assert compare_py.main([str(comparison), "columns.winclip=null"]) == 0
    again = capsys.readouterr().out
    assert again.startswith(f"CLIP: the scores in {tmp_path}/out/clip are used again")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("columns.winclip.stge=baseline", "columns.winclip: unknown option 'stge'; did you mean"),
        ("dataset.split=3cls", "dataset.split: unknown split '3cls' of VisA"),
        ("published=nothing.csv", "nothing.csv: cannot be read as a table"),
    ],
)
def test_a_comparison_that_is_wrong(smoke, tmp_path, capsys, text, said):
    comparison = tmp_path / "compare.yaml"
    comparison.write_text(COMPARISON.format(folder=tmp_path, root=smoke / "visa"), encoding="utf-8")
    assert compare_py.main([str(comparison), text]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
