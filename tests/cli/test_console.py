"""What a command says: how many warnings, how wide, and what of it is for scripts."""

from __future__ import annotations

import pytest

from tlfeat.cli.console import Console

WARNINGS = [f"number {i} of five" for i in range(1, 6)]


@pytest.mark.parametrize(("is_verbose", "shown"), [(False, 3), (True, 5)])
def test_three_warnings_are_shown_and_the_others_counted(
    capsys: pytest.CaptureFixture[str], is_verbose: bool, shown: int
) -> None:
    with Console(is_verbose=is_verbose) as console:
        console.warn(*WARNINGS)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:shown] == [f"warning: {text}" for text in WARNINGS[:shown]]
    assert lines[shown:] == ([] if is_verbose else ["and 2 more warnings: -v shows them"])


def test_lines_are_as_wide_as_the_terminal_and_csv_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    text = "a sentence of some length, with a number of words in it"
    with Console() as console:
        console.result(text, {})
        console.result(text, {}, is_prose=False)
    assert capsys.readouterr().out == f"a sentence of some length, with a number of\n  words in it\n{text}\n"


def test_a_pipe_has_no_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with Console() as console:
        assert console.width is None
        console.say("x y " * 60)
    assert capsys.readouterr().err.count("\n") == 1
