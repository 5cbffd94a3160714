"""Make the two pictures of the README from real output: ``python tools/pictures.py``.

It runs the built-in example (extract, fit-sklearn, compare) in a folder of its own and writes
``docs/pictures/terminal.svg`` and ``docs/pictures/comparison.png``. It needs Chromium for the second; with
``--folder DIR`` models that were fitted there before are used again.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]

PICTURES = ROOT / "docs" / "pictures"

COMMANDS = ("extract --layer avg_pool", "fit-sklearn --model svm", "compare")

#: Width of the page in the picture, and its height, in pixels.
WINDOW = (1400, 1000)

MAX_BYTES = 300_000

#: rich's own, but for its fonts, which a viewer would fetch from a host.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run_example(folder: Path) -> list[tuple[str, str]]:
    """Run the commands in `folder`; return each with what it prints to stdout. Progress and remarks go to stderr."""
    printed = []
    for command in COMMANDS:
        print(f"tlfeat {command}")
        run = subprocess.run(
            [sys.executable, "-m", "tlfeat", *command.split()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},  # the code beside this script, whatever is installed
            check=True,
        )
        printed.append((command, run.stdout.rstrip()))
    return printed


def terminal_svg(printed: list[tuple[str, str]]) -> str:
    """Return a terminal with the commands and their results as SVG, as wide as the table of the comparison.

    Of the comparison only the table is shown; longer lines end in an ellipsis.
    """
    table, _, legend = printed[-1][1].partition("\n\n")
    shown = [*printed[:-1], (printed[-1][0], table + "\n..." * bool(legend))]
    console = Console(record=True, width=max(map(len, table.splitlines())), file=io.StringIO())
    for command, text in shown:
        console.print(Text.assemble(("$ ", "bold green"), (f"tlfeat {command}", "bold")))
        console.print(Text(text + "\n"), no_wrap=True, overflow="ellipsis")
    return console.export_svg(title="tlfeat", code_format=SVG, unique_id="terminal")


def screenshot(page: Path, picture: Path) -> None:
    """Write the top of a page as PNG, in few enough colours to be small."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine; docs/pictures/comparison.png is left as it was.")
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                *(f"--user-data-dir={profile}", f"--window-size={WINDOW[0]},{WINDOW[1]}", "--hide-scrollbars"),
                *(f"--screenshot={shot}", page.resolve().as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        with Image.open(shot) as image:
            few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)
    if picture.stat().st_size > MAX_BYTES:
        sys.exit(f"{picture} is {picture.stat().st_size:,} bytes, more than {MAX_BYTES:,}.")


def main() -> None:
    """Run the example and write both pictures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, help="where the example is run; a new one by default")
    folder = options.parse_args().folder
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as new:
        place = (folder or Path(new)).resolve()
        printed = run_example(place)
        (PICTURES / "terminal.svg").write_text(terminal_svg(printed), encoding="utf-8")
        page = max(place.glob("cache/reports/*/comparison.html"), key=lambda path: path.stat().st_mtime)
        screenshot(page, PICTURES / "comparison.png")


if __name__ == "__main__":
    main()
