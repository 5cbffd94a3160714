"""Do the tests notice faults? ``python tools/mutants.py`` puts those of ``mutants.toml`` into the code, one at a time.

Nothing in the checkout is changed: a fault goes into a copy of ``src/`` in a temporary folder, and pytest runs with
PYTHONPATH at the copy. A fault is

* killed, if a test fails that passes on a copy without the fault (checked at the end; a test that fails there too is
  said and left out, and what it seemed to notice is tried again);
* survived, if all tests pass;
* timed out, or broken, if pytest could not run: neither says anything;
* not applicable, if the old text is not there exactly once: the code has changed, and the table has to.

Tests run in this order until one fails: those that the table names, then the other files of the wing's folder (not with
``--quick``), then all others (with ``--whole``). The exit code is 1 if anything but "killed" was found.

    python tools/mutants.py --set new --jobs 2
    python tools/mutants.py --only name-not-synced torn-journal-applied
    python tools/mutants.py --wing cache --quick
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TABLE = Path(__file__).with_suffix(".toml")

#: Outcomes in the order of the last table.
OUTCOMES = ("killed", "survived", "timed out", "broken", "not applicable")


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the table; see its head."""

    name: str
    set: str
    file: str
    what: str
    old: str
    new: str
    tests: list[str]

    @property
    def wing(self) -> str:
        """The folder below ``src/tlfeat``; "ground" for the files beside the wings."""
        folder, slash, _ = self.file.partition("/")
        return folder if slash else "ground"


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a fault; `test` is the one that failed, `detail` what pytest said if it could not run."""

    fault: Fault
    outcome: str
    test: str = ""
    detail: str = ""
    spent_s: float = 0.0


def main() -> int:
    """Read the command line, try the faults, print the tables."""
    about, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone")
    parser.add_argument("--set", choices=("new", "known"), help="one set alone")
    parser.add_argument("--wing", help="one wing alone, or ground")
    parser.add_argument("--quick", action="store_true", help="the tests that the table names alone")
    parser.add_argument("--whole", action="store_true", help="every test, for what survives")
    parser.add_argument("--jobs", type=int, default=1, help="faults at once (default 1)")
    parser.add_argument("--limit", type=float, default=900, help="seconds for one fault's tests (default 900)")
    asked = parser.parse_args()
    faults = [
        fault
        for fault in (Fault(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["fault"])
        if (not asked.only or fault.name in asked.only)
        and asked.set in (None, fault.set)
        and asked.wing in (None, fault.wing)
    ]
    if unknown := set(asked.only or ()) - {fault.name for fault in faults}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Copy(Path(folder) / str(i), asked.limit) for i in range(asked.jobs)]
        left = faults
        while left:
            for one in in_copies(left, copies, lambda fault: stages(fault, is_quick=asked.quick, is_whole=asked.whole)):
                found[one.fault.name] = one
                print(f"{one.outcome:<14} {one.fault.wing:<9} {one.fault.name:<32} {one.spent_s:4.0f} s  {one.test}")
                if one.detail:
                    print(one.detail)
                sys.stdout.flush()
            broken = broken_tests({one.test for one in found.values() if one.outcome == "killed"}, copies[0])
            for test in sorted(broken):
                print(f"fails without a fault too, and is left out: {test}")
            for copy in copies:
                copy.left_out |= broken
            left = [one.fault for one in found.values() if one.test in broken]
    print(summary(list(found.values())))
    return int(any(one.outcome != "killed" for one in found.values()))


def in_copies(
    faults: Iterable[Fault], copies: list[Copy], stages_of: Callable[[Fault], list[list[str]]]
) -> Iterator[Found]:
    """Try the faults, as many at once as there are copies, and give what became of each as soon as it is known."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def attempt(fault: Fault) -> Found:
        copy = free.get()
        try:
            return copy.attempt(fault, stages_of(fault))
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from (done.result() for done in as_completed([pool.submit(attempt, fault) for fault in faults]))


def stages(fault: Fault, *, is_quick: bool, is_whole: bool) -> list[list[str]]:
    """Return the tests to run, in groups: each is a run of pytest, and comes after all before it have passed."""
    groups = [fault.tests]
    seen = {test.partition("::")[0] for test in fault.tests if "::" not in test}
    folders = [] if is_quick else [ROOT / "tests" / fault.wing]
    for folder in [*folders, *([ROOT / "tests"] if is_whole else [])]:
        files = [str(path.relative_to(ROOT)) for path in sorted(folder.rglob("test_*.py"))]
        groups.append([file for file in files if file not in seen])
        seen |= set(files)
    return [group for group in groups if group]


class Copy:
    """A copy of ``src/`` in a folder of its own, and pytest on it."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.source = folder / "src"
        self.limit_s = limit_s
        self.left_out: set[str] = set()
        shutil.copytree(ROOT / "src", self.source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        one_thread = {f"TF_NUM_{which}OP_THREADS": "1" for which in ("INTRA", "INTER")}
        self.environment = {
            **os.environ, **one_thread, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        asked = [sys.executable, "-c", "import tlfeat; print(tlfeat.__file__)"]
        imported = subprocess.run(asked, env=self.environment, capture_output=True, text=True, check=True).stdout
        if not Path(imported.strip()).is_relative_to(self.source):
            raise SystemExit(f"Python imports {imported.strip()}, not the copy: no fault would ever be noticed.")

    def attempt(self, fault: Fault, groups: Iterable[list[str]]) -> Found:
        """Put a fault in, run groups of tests until one fails, and take it out again."""
        path = self.source / "tlfeat" / fault.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(fault.old) != 1:
            return Found(fault, "not applicable", detail=f"    its old text is {text.count(fault.old)} times there")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        started_s = time.monotonic()
        try:
            outcome, test, detail = "survived", "", ""
            for group in groups:
                outcome, test, detail = self.run(group)
                if outcome != "survived":
                    break
            return Found(fault, outcome, test, detail, time.monotonic() - started_s)
        finally:
            path.write_text(text, encoding="utf-8")

    def run(self, tests: list[str], *, is_limited: bool = True) -> tuple[str, str, str]:
        """Run tests up to the first failure; return the outcome, the test that failed, else what pytest said."""
        asked = ["-m", "pytest", "-x", "-q", "-rfE", "--no-header", "-n0", "-p", "no:cacheprovider", *tests]
        asked += [f"--deselect={test}" for test in sorted(self.left_out)]
        try:
            ran = subprocess.run(
                [sys.executable, *asked], cwd=ROOT, env=self.environment, capture_output=True, text=True,
                timeout=self.limit_s if is_limited else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "timed out", "", ""
        if ran.returncode in (0, 5):  # 5: all of them are left out
            return "survived", "", ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+::[^\n]*?)(?: - .*)?$", ran.stdout, re.MULTILINE)
        if ran.returncode != 1 or failed is None:
            return "broken", "", (ran.stdout + ran.stderr)[-1500:]
        return "killed", failed[1], ""


def broken_tests(tests: set[str], copy: Copy) -> set[str]:
    """Run tests on the copy without a fault and return those that fail there."""
    broken: set[str] = set()
    while tests - broken and (outcome := copy.run(sorted(tests - broken), is_limited=False))[0] != "survived":
        if outcome[0] != "killed":
            raise SystemExit(f"The tests cannot be run without a fault: {outcome[0]}\n{outcome[2]}")
        broken.add(outcome[1])
    return broken


def summary(found: list[Found]) -> str:
    """Return the counts by wing, and what was not killed."""
    lines = ["", f"{'wing':<12}{''.join(f'{outcome:>16}' for outcome in OUTCOMES)}"]
    wings = list(dict.fromkeys(one.fault.wing for one in found))
    counts = Counter((one.fault.wing, one.outcome) for one in found)
    lines += [f"{wing:<12}{''.join(f'{counts[wing, outcome]:>16}' for outcome in OUTCOMES)}" for wing in wings]
    totals = Counter(one.outcome for one in found)
    lines.append(f"{'all':<12}{''.join(f'{totals[outcome]:>16}' for outcome in OUTCOMES)}")
    lines += [
        f"{one.outcome}: {one.fault.name} ({one.fault.file}): {one.fault.what}"
        for one in found
        if one.outcome != "killed"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
