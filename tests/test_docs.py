"""Documents that are executed: the README's code, its commands, the page of commands.

``python tests/test_docs.py`` writes docs/commands.md anew.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import script

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    ["extract", "label", "next", "fit-sklearn", "fit-keras", "recipes", "summary", "compare", "report"]
    + ["sweep", "curve", "adapt", "audit", "similar", "map", "models", "predict", "export", "backbones", "layers"]
    + [f"cache {name}" for name in ("info", "join", "verify", "export", "import", "clean")]
)  # fmt: skip


#: Prints the help texts of its arguments as JSON: one process with the width of the page, for all of them.
PROGRAM = """
import contextlib, io, json, sys
from tlfeat.cli.app import app
found = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert not app([*name.split(), "--help"], prog_name="tlfeat", standalone_mode=False)
    found[name] = said.getvalue()
print(json.dumps(found))
"""


@functools.cache
def help_texts() -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, "", *COMMANDS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"},
    )
    return {name: text.rstrip() for name, text in json.loads(run.stdout).items()}


def help_of(command: str) -> str:
    return help_texts()[command]


def commands_page() -> str:
    parts = ["# Commands", "", "Made from `--help` by `python tests/test_docs.py`; a test holds it to that.", ""]
    for command in ["", *COMMANDS]:
        parts += [f"## tlfeat {command}".rstrip(), "", "```", help_of(command), "```", ""]
    return "\n".join(parts)


def test_the_page_of_commands_is_what_help_says() -> None:
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page()


def test_every_command_is_documented() -> None:
    from tlfeat.cli.app import app, cache_app

    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    names |= {f"cache {c.name}" for c in cache_app.registered_commands}
    assert names == set(COMMANDS)


def test_every_command_line_in_the_readme_is_one_that_tlfeat_knows() -> None:
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("tlfeat ")]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)[1:]
        command = " ".join(words[:2]) if words[0] == "cache" else words[0]
        options = {word for word in words if word.startswith("--")}
        known = set(re.findall(r"--[a-z-]+", help_of(command)))
        assert options <= known, line


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "cache" / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.keras
def test_the_python_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(code, {"__name__": "__main__"})
    printed = capsys.readouterr().out.split()
    accuracy, label = printed[0], printed[-2]
    assert 0.5 < float(accuracy) <= 1
    assert label in "56789"


@pytest.mark.keras
def test_the_notebook_runs_and_shows_what_it_has_kept() -> None:
    tool = script("tools/notebook.py")
    notebook = json.loads(tool.NOTEBOOK.read_text(encoding="utf-8"))
    cells = tool.code_cells(notebook)
    found = tool.run_cells(["".join(cell["source"]) for cell in cells])

    def kinds(outputs: list[dict[str, Any]]) -> list[list[str]]:
        return [sorted(output.get("data", {"stdout": ""})) for output in outputs]

    for cell, outputs in zip(cells, found, strict=True):
        assert kinds(cell["outputs"]) == kinds(outputs), "".join(cell["source"])
    kept = json.dumps([cell["outputs"] for cell in cells])
    assert kept.count("image/png") == 3 and kept.count("data:image/jpeg") >= 15
    assert "digits-digits_cnn" in kept and "/tmp" not in kept and str(ROOT) not in kept
    assert tool.NOTEBOOK.stat().st_size < 300_000
    assert "(docs/notebook.ipynb)" in README or "(notebook.ipynb)" in (ROOT / "docs" / "python.md").read_text("utf-8")


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(commands_page(), encoding="utf-8")
