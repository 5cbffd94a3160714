"""How `tlfeat label` feels: the first picture, a key to the next picture, memory, and a whole labelling in a browser.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``), the package playwright and Chromium.

    python benchmarks/label_page.py                 # everything; half an hour on two cores
    python benchmarks/label_page.py --parts click   # one part; the others keep their figures
    python benchmarks/label_page.py --tables-only   # the tables from the JSON, runs nothing

Parts: `start`, from the command to the first picture on the screen; `click`, from a key to the next picture while
extraction goes on; `memory`, of the program and of the extraction behind it; `person`, 300 pictures of cats and dogs
by a hand that presses the right key so many seconds after a picture is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import extraction
from common import Record
from tlfeat.text import markdown_table

PARTS = ("start", "click", "memory", "person")

#: Milliseconds from a key to the next picture, megabytes of the program, minutes of a person.
AIMS = {"start_s": 2.0, "click_ms": 100.0, "memory_mb": 1000.0, "person_min": 10.0}

#: Notes in the page when a key goes down and when the next picture is there, and by then decoded.
_STOPWATCH = """() => {
  window.waits = []; let down = 0, before = "";
  const shown = () => document.querySelector("img#picture");
  addEventListener("keydown", () => { down = performance.now(); before = shown()?.src; }, true);
  new MutationObserver(() => {
    if (!down || !shown()?.complete || shown().src === before) return;
    window.waits.push(performance.now() - down);
    down = 0;
  }).observe(document.querySelector("#frame"), { childList: true, subtree: true, attributes: true });
}"""

Save = Callable[[str, Record], None]


@dataclass
class Program:
    """A `tlfeat label` that runs."""

    process: subprocess.Popen[str]
    address: str
    started_s: float

    def peak_bytes(self, process: int) -> int:
        """Peak resident memory of a process so far."""
        text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        return 1024 * int(text.partition("VmHWM:")[2].split()[0])

    def children(self) -> list[int]:
        """Processes that it started."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8")
        return [int(pid) for pid in text.split()]


@contextmanager
def running(folder: Path, args: argparse.Namespace) -> Iterator[Program]:
    """Run the command on a folder, in a new working folder: nothing is known before."""
    work = args.work / f"run-{time.monotonic_ns()}"
    work.mkdir()
    weights = ["--backbone", "mobilenet_v2_0.35", "--weights", str(common.weights_v2(args.shared))]
    words = [sys.executable, "-m", "tlfeat", "label", str(folder), "--classes", "cat,dog", "--no-browser", *weights]
    started_s = time.monotonic()
    process = subprocess.Popen(
        words, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        yield Program(process, process.stdout.readline().strip(), started_s)
    finally:
        process.send_signal(signal.SIGINT)  # it ends the extraction behind it, too
        process.wait()
        process.stdout.close()


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium of the distribution."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def chromium() -> str:
    """Return the browser of the distribution."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("There is no Chromium (chromium, google-chrome).")
    return found


def flat(folder: Path) -> Path:
    """Return a folder of the same photographs with their class in their names, and none in that of a folder."""
    files = {file: f"{file.parent.name[:-1]}-{file.name}" for file in folder.glob("*/*.jpg")}
    return extraction.link_all(files, folder.with_name(f"{folder.name}-flat"))


def open_page(opened: Any, program: Program) -> Any:
    page = opened.new_page(viewport={"width": 1400, "height": 900})
    page.goto(program.address)
    page.locator("img#picture").wait_for()
    return page


def press(page: Any, by_space: bool = True) -> str:
    """Press the right key for the picture that is there, and wait for the next one; return the key."""
    path = page.locator("#path").inner_text()
    label = "cat" if "cat" in path.rpartition("/")[2][:3] else "dog"
    suggested = page.locator("#accept").inner_text()
    key = " " if by_space and f": {label}" in suggested else {"cat": "1", "dog": "2"}[label]
    page.keyboard.press(key)
    page.locator("#path", has_not_text=path).wait_for()
    return key


# --- the parts ----------------------------------------------------------------------------------------------


def measure_start(args: argparse.Namespace, save: Save) -> None:
    """Time the first picture, on 1,500 photographs and on as many as `--large` says."""
    with browser() as opened:
        opened.new_page().goto("about:blank")  # the browser is there, as on anybody's machine
        for n in (1_500, args.large):
            folder = many(args, n) if n < args.large else small_pictures(args, n)
            waits = []
            for _ in range(args.rounds):
                with running(folder, args) as program:
                    address_s = time.monotonic() - program.started_s
                    page = open_page(opened, program)
                    waits.append((address_s, time.monotonic() - program.started_s))
                    page.close()
                common.say(f"{n:,} pictures: address after {waits[-1][0]:.2f} s, picture after {waits[-1][1]:.2f} s")
            save(str(n), {"address_s": [a for a, _ in waits], "picture_s": [b for _, b in waits]})


def many(args: argparse.Namespace, n: int) -> Path:
    """Return a folder of n photographs with their class in their names."""
    folder = args.work / f"curve-{n}-flat"
    return folder if folder.exists() else flat(extraction.many_photos(args.shared, args.work, n))


def measure_click(args: argparse.Namespace, save: Save) -> None:
    """Time from a key to the next picture on 10,000 photographs, while extraction goes on."""
    folder = many(args, 10_000)
    with browser() as opened, running(folder, args) as program:
        page = open_page(opened, program)
        while "embedding" not in page.locator("#count").inner_text():  # the network is made first
            page.wait_for_timeout(500)
        page.evaluate(_STOPWATCH)
        is_going_on: list[bool] = []
        while len(is_going_on) < args.clicks:
            page.wait_for_timeout(args.pause_ms)
            press(page)
            is_going_on.append("embedding" in page.locator("#count").inner_text())
        waits = page.evaluate("() => window.waits")
        page.close()
    waits = [wait for wait, is_on in zip(waits, is_going_on, strict=False) if is_on]
    if len(waits) < args.clicks / 2:
        raise SystemExit(f"Extraction ended after {len(waits)} of {args.clicks} keys: take fewer, or a shorter pause.")
    common.say(f"median {statistics.median(waits):.0f} ms of {len(waits)}, the longest {max(waits):.0f}")
    save("10,000 photographs", {"waits_ms": waits})


def measure_memory(args: argparse.Namespace, save: Save) -> None:
    """Take the peak of the program and of the extraction behind it, when the rows of its sample are all there."""
    folder = small_pictures(args, args.large)
    with browser() as opened, running(folder, args) as program:
        page = open_page(opened, program)
        for _ in range(30):
            press(page)
        is_over = False
        while not is_over:
            page.wait_for_timeout(2000)
            press(page)
            state = page.evaluate("() => fetch('/state').then((reply) => reply.json())")
            is_over = state["n_embedded"] + state["n_skipped"] >= min(20_000, args.large)
        for _ in range(30):
            press(page)
        page.evaluate("() => fetch('/map').then((reply) => reply.json())")
        peaks = {"program": program.peak_bytes(program.process.pid)}
        peaks["extraction"] = max(map(program.peak_bytes, program.children()), default=0)
        page.close()
    common.say(f"{args.large:,} pictures: { ({name: round(n / 1e6) for name, n in peaks.items()}) } MB")
    save(f"{args.large:,} pictures", {"peaks": peaks})


def small_pictures(args: argparse.Namespace, n: int) -> Path:
    """Return a folder of n pictures of 64 pixels, all different files."""
    from PIL import Image

    folder = args.work / f"small-{n}"
    if folder.exists():
        return Path(folder)
    folder.mkdir()
    originals = []
    for file in sorted(common.unpack("cats_dogs", args.shared, args.work).glob("*/*/*.jpg")):
        small = args.work / "small.jpg"
        Image.open(file).resize((64, 64)).save(small)
        originals.append((file.parent.name[:-1], small.read_bytes()))
    for i in range(n):
        label, content = originals[i % len(originals)]
        (folder / f"{label}-{i:06d}.jpg").write_bytes(content + b"copy %06d" % i)
    return Path(folder)


def measure_person(args: argparse.Namespace, save: Save) -> None:
    """Label 300 photographs of cats and dogs by key, each so long after it is there."""
    folder = many(args, 1_500)
    with browser() as opened, running(folder, args) as program:
        page = open_page(opened, program)
        started_s, keys = time.monotonic(), []
        for _ in range(args.labels):
            page.wait_for_timeout(args.think_ms)
            keys.append(press(page))
        took_s = time.monotonic() - started_s
        estimate = page.evaluate("() => fetch('/state').then((reply) => reply.json())")["estimate"]
        page.close()
    common.say(f"{args.labels} pictures in {took_s / 60:.1f} min by {len(keys)} keys, {keys.count(' ')} of them space")
    save(
        f"{args.labels} photographs",
        {
            "took_s": took_s,
            "n_keys": len(keys),
            "n_space": keys.count(" "),
            "think_ms": args.think_ms,
            "estimate": estimate,
        },
    )


MEASURE = {"start": measure_start, "click": measure_click, "memory": measure_memory, "person": measure_person}


# --- tables -------------------------------------------------------------------------------------------------


def start_table(records: list[Record]) -> str:
    """Return the seconds to the first picture."""
    return markdown_table(
        ["pictures", "address printed, s", "first picture, s (aim 2)"],
        [(f"{int(r['name']):,}", _spread(r["address_s"]), _spread(r["picture_s"])) for r in records],
    )


def click_table(records: list[Record]) -> str:
    """Return the milliseconds from a key to the next picture."""
    rows = []
    for record in records:
        waits = sorted(record["waits_ms"])
        late = waits[int(0.95 * len(waits))]
        rows.append(
            (record["name"], str(len(waits)), f"{statistics.median(waits):.0f}", f"{late:.0f}", f"{waits[-1]:.0f}")
        )
    return markdown_table(["set", "keys", "median, ms (aim 100)", "95th percentile", "longest"], rows)


def memory_table(records: list[Record]) -> str:
    """Return peaks of memory."""
    rows = [
        (r["name"], f"{r['peaks']['program'] / 1e6:.0f} MB", f"{r['peaks']['extraction'] / 1e6:.0f} MB")
        for r in records
    ]
    return markdown_table(["set", "the program (aim 1,000 MB)", "the extraction behind it"], rows)


def person_table(records: list[Record]) -> str:
    """Return how long a labelling takes."""
    rows = []
    for r in records:
        said = "not known yet"
        if found := r["estimate"]:
            low, high = found["interval"]
            said = f"{100 * found['accuracy']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        pause = f"{r['think_ms'] / 1000:.1f} s"
        rows.append((r["name"], pause, f"{r['took_s'] / 60:.1f}", str(r["n_keys"]), str(r["n_space"]), said))
    headings = ["set", "pause before a key", "minutes (aim 10)", "keys", "of them space", "accuracy by then"]
    return markdown_table(headings, rows)


TABLES = {"start": start_table, "click": click_table, "memory": memory_table, "person": person_table}


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


def tables(records: list[Record]) -> str:
    """Return the tables of the page, each with its machine."""
    return common.tables_of_parts(records, TABLES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the figures, write the page."""
    parser = common.parser_for("label_page", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--large", type=common.positive, default=200_000, help="pictures of `start` and `memory`")
    parser.add_argument("--rounds", type=common.positive, default=5, help="of `start`")
    parser.add_argument("--clicks", type=common.positive, default=200)
    parser.add_argument("--pause-ms", type=common.positive, default=300, help="before a key of `click`")
    parser.add_argument("--labels", type=common.positive, default=300)
    parser.add_argument("--think-ms", type=common.positive, default=1200, help="before a key of `person`")
    args = common.read_arguments(parser, arguments)
    common.publish(args, tables(common.measure_parts(args, MEASURE)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
