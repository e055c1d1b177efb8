"""What a program says and returns when it is ended early."""

import sys

import pytest

from utils.errors import UserError, run_command


class HalfMade:
    def __del__(self):
        raise AttributeError("no attribute 'pos'")


@pytest.fixture
def hook(monkeypatch):
    """Puts back what a program changes when it ends."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


def test_nothing_follows_the_last_word_of_an_interrupted_program(hook, capsys):
    def command():
        bar = HalfMade()
        raise KeyboardInterrupt(bar)

    assert run_command(command) == 130
    assert capsys.readouterr().err == "interrupted; start the same command again to go on\n"
    assert hook == []


def test_what_the_user_can_mend_is_one_line_and_status_2(capsys):
    def command():
        raise UserError("a.yaml:1: mend this")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "a.yaml:1: mend this\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)
