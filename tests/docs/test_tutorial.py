"""The tutorial is run: every command in its console blocks, every line that they print.

The page shows photographs and a network; the test has small made pictures and raw pixels, so that it needs no download
and no TensorFlow. Numbers, times, file names and the name of the backbone may differ, nothing else.

``TLFEAT_SHARED=DIR python tests/docs/test_tutorial.py`` writes the outputs on the page anew, from photographs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

PAGE = ROOT / "docs" / "tutorial.md"

BACKBONE = "mobilenet_v2_0.35"

#: A command and what it prints.
BLOCK = re.compile(r"```console\n\$ ([^\n]*)\n(.*?)```", flags=re.DOTALL)

#: The reader's home folder, as the page shows it.
HOME = "/home/you"

N_PER_CLASS = 20

_BLUE, _RED, _GREEN, _YELLOW = (0, 0, 255), (255, 0, 0), (0, 255, 0), (255, 255, 0)


def run(command: str) -> str:
    """Run one command in this process and return what it prints, results and remarks in their order."""
    from tlfeat.cli.app import main

    program, *words = shlex.split(command)
    assert program == "tlfeat", command
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(sys, "argv", ["tlfeat", *words])
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        try:
            main()
        except SystemExit as end:
            assert end.code in (None, 0), f"{command}: {end.code}\n{printed.getvalue()}"
    return printed.getvalue()


def run_all(commands: list[str], *, backbone: str) -> list[str]:
    """Run the commands of the page one after another; a model folder on the page is the one that was fitted here."""
    printed: list[str] = []
    for command in commands:
        fitted = re.findall(r"cache/models/\S+", "".join(printed))
        here = re.sub(r"cache/models/\S+", fitted[-1] if fitted else r"\g<0>", command)
        text = run(here.replace(f"--backbone {BACKBONE}", f"--backbone {backbone}"))
        printed.append(text.replace(str(Path.cwd()), HOME))
    return printed


def without_numbers(text: str) -> list[str]:
    """The lines of an output without what may differ; equal neighbours count once."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("building the network"):  # raw pixels need no network
            continue
        for pattern, word in (
            (r"cache/[\w./-]+", "PATH"),
            (rf"{BACKBONE}|avg_pool|pixels", "BACKBONE"),
            (r"(cat|dog|new)/[\w.-]+", "IMAGE"),
            (r"\b(cat|dog)\b", "CLASS"),
            (r"(train|val|test)\)", "ROLE)"),  # of a copy
            (r"(?<=rows )[\w-]+", "ROWS"),  # how the search scales them
            (r"\d[\d.,]*(e-\d+)?", "0"),
            (r"0 (µs|ms|s|min)\b", "0 s"),
            (r"-{3,}", "---"),
            (r"\s+", " "),
        ):
            line = re.sub(pattern, word, line)
        if not lines or line != lines[-1]:
            lines.append(line)
    return lines


def make_pictures(folder: Path) -> None:
    """Write small pictures of two colours: photos/cat, photos/dog with three mistakes planted, and new/."""
    from conftest import picture

    def save(path: str, seed: int, colour: tuple[int, int, int], share: float = 0.35) -> None:
        image = picture(seed, (24, 20))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.blend(image, Image.new("RGB", image.size, colour), share).save(folder / path, quality=95)

    for i in range(1, N_PER_CLASS + 1):
        save(f"photos/cat/cat{i:02}.jpg", i, _BLUE)
        save(f"photos/dog/dog{i:02}.jpg", 1000 + i, _RED)
    save("photos/dog/wrong.jpg", 500, _BLUE)
    (folder / "photos/dog/copy.jpg").write_bytes((folder / "photos/dog/dog07.jpg").read_bytes())
    save("photos/cat/odd.jpg", 7, _YELLOW, 1.0)
    save("new/first.jpg", 600, _BLUE)
    save("new/leaf.jpg", 8, _GREEN, 1.0)
    save("new/second.jpg", 1600, _RED)


def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    shown = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(shown) >= 5
    make_pictures(tmp_path)
    printed = run_all([command for command, _ in shown], backbone="pixels")
    for (command, text), found in zip(shown, printed, strict=True):
        assert without_numbers(found) == without_numbers(text), command


def test_every_command_in_the_tutorial_stands_in_a_block_that_is_run_or_says_that_it_needs_more() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"```(\w+)", text)) <= {"console", "sh", "text"}


def _photographs(shared: Path, folder: Path) -> None:
    """Write the folder of the page: cats and dogs, a copy, a wrong label and a potato leaf among them."""

    def take(archive: str, names: dict[str, str]) -> None:
        with tarfile.open(shared / "data" / archive) as tar:
            for inside, path in names.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                data = tar.extractfile(inside)
                assert data is not None
                (folder / path).write_bytes(data.read())

    with tarfile.open(shared / "data" / "cats_dogs.tar") as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))
    cats = [name for name in names if "train/cats" in name]
    dogs = [name for name in names if "train/dogs" in name]
    chosen = {name: f"photos/cat/cat{i:03}.jpg" for i, name in enumerate(cats[:100], start=1)}
    chosen |= {name: f"photos/dog/dog{i:03}.jpg" for i, name in enumerate(dogs[:100], start=1)}
    take("cats_dogs.tar", chosen | {cats[100]: "photos/dog/wrong.jpg"})
    (folder / "photos/dog/copy.jpg").write_bytes((folder / "photos/dog/dog007.jpg").read_bytes())
    take("cats_dogs.tar", {cats[101]: "new/first.jpg", dogs[101]: "new/second.jpg"})
    with tarfile.open(shared / "data" / "potato.tar") as tar:
        leaves = sorted(name for name in tar.getnames() if name.lower().endswith(".jpg"))
    take("potato.tar", {leaves[0]: "photos/cat/odd.jpg", leaves[1]: "new/leaf.jpg"})


def write_page(shared: Path) -> None:
    """Run the page on photographs and write what is printed into it."""
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _photographs(shared, Path(folder))
        weights = shared / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"
        commands = [command for command, _ in BLOCK.findall(text)]
        printed = run_all(commands, backbone=f"{BACKBONE} --weights {weights}")
    model = re.findall(r"cache/models/\S+", "".join(printed))[-1]
    outputs = iter(printed)

    def block(found: re.Match[str]) -> str:
        command = re.sub(r"cache/models/\S+", model, found[1])
        return f"```console\n$ {command}\n{next(outputs).rstrip()}\n```"

    PAGE.write_text(BLOCK.sub(block, text), encoding="utf-8")


if __name__ == "__main__":
    write_page(Path(os.environ.get("TLFEAT_SHARED", ROOT.parent / "shared")).resolve())
