"""What a command says: how many warnings, how wide, and what of it is for scripts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import MakePhotos, without_rights
from tlfeat.cli.app import app
from tlfeat.cli.console import Console, errors_as_exit_codes

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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device without room: Linux")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["backbones"], ["layers", "--help"]], ids=" ".join)
def test_results_that_find_no_room_are_told_of_in_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-m", "tlfeat", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (3, 1)
    assert ran.stderr.endswith("No space left on device.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device without room: Linux")
def test_messages_that_find_no_room_do_not_stop_the_work(make_photos: MakePhotos) -> None:
    command = [sys.executable, "-m", "tlfeat", "extract", str(make_photos(n=3)), "--backbone", "pixels", "-v"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=full)
    assert ran.returncode == 0
    assert b"6 embedded" in ran.stdout


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE, errno.EIO])
def test_what_the_machine_refuses_is_one_line_and_no_bug(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_as_exit_codes():
        raise OSError(number, os.strerror(number), "cache/models")
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"error: cache/models: {os.strerror(number)}.\n"
    with pytest.raises(OSError, match="ESPIPE"), errors_as_exit_codes():
        raise OSError(errno.ESPIPE, "ESPIPE")


def test_a_cache_folder_that_may_not_be_written_to_is_one_line(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, home, words = make_photos(n=6), tmp_path / "home", ["extract", "photos", "--backbone", "pixels"]
    home.mkdir()
    (home / "photos").symlink_to(photos)
    monkeypatch.chdir(home)
    assert CliRunner().invoke(app, words).exit_code == 0
    folders = [home, *(path for path in home.rglob("*") if path.is_dir() and not path.is_symlink())]

    def ask() -> None:
        for asked in (
            ["fit-sklearn", "--model", "knn", "--no-search"],
            ["compare", "--heads", "knn", "--keras", "none"],
            ["audit"],
            ["curve", "--heads", "knn", "--keras", "none"],
            [*words, "--label-from", "parent"],
            [*words, "--cache", "cache/other.h5"],
        ):
            ran = CliRunner().invoke(app, asked)
            assert ran.exit_code == 3, (asked, ran.output, ran.exception)
            assert ran.stderr.splitlines()[-1].startswith("error: "), ran.stderr

    try:
        for folder in folders:
            folder.chmod(0o555)
        without_rights(ask)
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7 GiB"),
        ImportError("x.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_one_line_whoever_says_it(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_as_exit_codes():
        raise error
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"error: there is not enough memory ({error}).\n"
