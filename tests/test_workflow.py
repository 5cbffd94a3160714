"""The workflow runs what `make test` runs, also where there is no make."""

from __future__ import annotations

import re

from conftest import NEEDS_POSIX, ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """The commands with which tools of the environment are called."""
    return re.findall(r"(?:\$\(BIN\)|\.venv/Scripts)/((?:ruff|mypy|pytest)\b.*)", text)


def test_windows_runs_the_commands_of_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^(\w+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    expected = [line for name in ("lint", "types", "check") for line in commands(targets[name])]
    assert commands(WORKFLOW) == expected
    assert len(expected) == 4


def test_all_systems_and_pythons_are_there_and_no_secret_is_asked_for() -> None:
    assert "system: [ubuntu-latest, macos-latest, windows-latest]" in WORKFLOW
    assert 'python: ["3.11", "3.12", "3.13"]' in WORKFLOW
    assert "cache: pip" in WORKFLOW and ".ci/run" in WORKFLOW
    assert not re.search(r"secrets\.|token|index-url|https?:", WORKFLOW)


def test_what_windows_leaves_out_are_tests() -> None:
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert written >= NEEDS_POSIX
