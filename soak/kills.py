"""SIGKILL at every system call that touches the disk, of every command that writes; Linux with strace.

    python soak/kills.py                        # the figures of docs/benchmarks/soak.md
    python soak/kills.py --only extract curve   # these commands
    python soak/kills.py --every 10             # each tenth call alone

A command runs once undisturbed, under strace, which counts its calls. Then it runs again from the same folder, once
for each of them, and dies when it makes that call. What must hold then:

* the same command ends with code 0 and with what the undisturbed run ended with;
* ``cache verify`` finds nothing;
* every model that is listed predicts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import make_photos
from pages import add_places, publish
from tlfeat.backbones.frameworks import import_keras
from tlfeat.cli.app import main as tlfeat
from tlfeat.records import Environment
from tlfeat.text import markdown_table
from tlfeat.workspace import write_json

#: What changes a disk, or waits for it; names that a kernel does not know are left out by the question mark.
CALLS = ",".join(
    f"?{name}"
    for name in (
        *("write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync"),
        *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
    )
)

EXTRACT = ("extract", "photos", "--backbone", "pixels")
EMBED = ("extract", "photos", "--backbone", "digits_cnn")
SCRATCH = ("fit-keras", "--from-scratch", "--epochs", "3")
FIT = ("fit-sklearn", "--model", "ridge", "--no-search")


class Violation(Exception):
    """Something was lost, or a command did not go on."""


@dataclass(frozen=True, slots=True)
class Case:
    """A command, what runs before it, and what must be the same however often it was killed."""

    name: str
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = (EXTRACT,)
    same: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = field(default=lambda folder: None)
    once: str = ""  # what stands there once it has ended; it is not asked to write that again
    is_keras: bool = False  # Keras is imported before the forks too


def more_photos(folder: Path) -> None:
    """Add images that the cache does not know."""
    for path in sorted((folder / "photos").rglob("*.png"))[:5]:
        data = bytearray(path.read_bytes())
        path.with_name(f"new-{path.name}").write_bytes(bytes(data) + b"another file, the same picture")


def damage(folder: Path) -> None:
    """Spoil a row, so that there is something to repair."""
    (file,) = (folder / "cache").glob("*.h5")
    with h5py.File(file, "r+") as content:
        content["layers/pixels/rows"][3, 5] += 1


def rows_and_table(folder: Path) -> None:
    """Write embeddings of somebody else's to import."""
    np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32))
    (folder / "t.csv").write_text("label\n" + "ash\nelm\n" * 15, encoding="utf-8")


def stop_training(folder: Path) -> None:
    """Kill a training after an epoch, so that there is a state to go on from."""
    pid = forked(folder, SCRATCH, folder.parent / "out")
    while not list((folder / "cache" / "training").glob("[!.]*.npz")):
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise Violation("the training ended before it kept its state")
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


CASES = [
    Case("extract", EXTRACT, (), ("n_images",)),
    Case("extract, more images", EXTRACT, (EXTRACT,), ("n_images",), more_photos),
    Case("fit-sklearn", FIT, same=("accuracy", "ci95", "n_train")),
    Case("fit-sklearn, searched", ("fit-sklearn", "--model", "knn"), same=("accuracy", "n_train")),
    Case("compare", ("compare", "--keras", "none", "--heads", "ridge,knn", "--map", "pca")),
    Case("report", ("report", "--map", "none"), (EXTRACT, FIT)),
    Case("curve", ("curve", "--heads", "ridge"), same=("layer",)),
    Case("audit", ("audit", "--write", "clean.csv"), same=("n_images",)),
    Case("cache export", ("cache", "export", "out.npz"), same=("n_rows",)),
    Case(
        "cache import",
        ("cache", "import", "rows.npy", "t.csv", "--cache", "cache/in.h5"),
        prepare=rows_and_table,
        once="cache/in.h5",
    ),
    Case("cache verify --repair", ("cache", "verify", "--repair"), (EXTRACT, FIT), (), damage),
    Case("cache clean --yes", ("cache", "clean", "--yes"), (EXTRACT, FIT, ("audit",))),
    Case("sweep", ("sweep", "photos", "--backbone", "digits_cnn", "--model", "ridge"), (), is_keras=True),
    Case("export", ("export", "--to", "keras"), (EMBED, FIT), is_keras=True),
    Case("fit-keras", SCRATCH, (EMBED,), ("n_train", "accuracy"), is_keras=True),
    Case("fit-keras, resumed", SCRATCH, (EMBED,), ("n_train", "accuracy"), stop_training, is_keras=True),
    Case(
        "fit-keras, last layers",
        ("fit-keras", "--unfreeze-last", "20", "--epochs", "2"),
        (EMBED,),
        ("n_train", "accuracy"),
        is_keras=True,
    ),
]


# --- processes ------------------------------------------------------------------------------------------------


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a command in a fork, without the second that its imports take; return its code and its JSON."""
    out = folder.parent / "out"
    pid = forked(folder, (*words, "--json"), out)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text, found = out.read_text(encoding="utf-8", errors="replace"), {}
    with contextlib.suppress(ValueError):
        found = json.loads(text)
    return code, found if isinstance(found, dict) else {"list": found}


def traced(folder: Path, words: tuple[str, ...], *inject: str) -> tuple[int, str]:
    """Run a command under strace; return its code and the trace of all its threads."""
    log = folder.parent / "trace"
    log.unlink(missing_ok=True)
    pid = forked(folder, words, folder.parent / "out", is_stopped=True)
    os.waitpid(pid, os.WUNTRACED)
    options = ["-f", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", *inject, "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(["strace", *options], stderr=subprocess.DEVNULL) as strace:
        status = Path(f"/proc/{pid}/status")
        while "TracerPid:\t0" in status.read_text(encoding="ascii"):
            time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        strace.wait(timeout=60)
    return code, log.read_text(encoding="utf-8", errors="replace")


def forked(
    folder: Path,
    words: tuple[str, ...],
    out: Path,
    *,
    is_stopped: bool = False,
    first: Callable[[], None] = lambda: None,
) -> int:
    """Start a command in a fork, which stops itself or calls `first` before it begins; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(folder)
        for handle, file in ((1, out), (2, f"{out}.err")):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), handle)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(i, "wb", closefd=False), write_through=True) for i in (1, 2)
        )
        if is_stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        sys.argv = ["tlfeat", *words]
        first()
        tlfeat()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # whatever happens: the rest of the campaign is the parent's


# --- a case ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def workplace(start: Path) -> Iterator[Path]:
    """Give a copy of a folder under the same name each time, as caches know where their images are."""
    folder = start.parent / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder, symlinks=True)
    yield folder


def make_start(case: Case, into: Path) -> Path:
    """Return the folder that every run of a case starts from."""
    folder = into / "work"
    make_photos(folder / "photos", 24)
    for words in case.before:
        code, _ = run(folder, *words)
        if code:
            raise Violation(f"{' '.join(words)} ended with {code}")
    case.prepare(folder)
    return folder.rename(into / "start")


def check(case: Case, folder: Path, expected: dict[str, Any]) -> None:
    """Raise `Violation` unless the command goes on and ends as it would have done."""
    code, found = (0, expected) if case.once and (folder / case.once).exists() else run(folder, *case.command)
    if code:
        said = (folder.parent / "out.err").read_text(encoding="utf-8", errors="replace")
        raise Violation(f"the same command ended with {code}: {said.strip()[-300:]}")
    for name in case.same:
        if found[name] != expected[name]:
            raise Violation(f"{name} is {found[name]}, {expected[name]} undisturbed")
    for cache in sorted((folder / "cache").glob("[!.]*.h5")):
        code, found = run(folder, "cache", "verify", "--cache", str(cache.relative_to(folder)))
        problems = [problem for problem in found.get("problems", []) if "run tlfeat extract again" not in problem]
        if problems or (code and not found):
            raise Violation(f"cache verify of {cache.name}: {code}, {problems}")
    code, found = run(folder, "models")
    for model in found.get("list", []) if code == 0 else []:
        image = next((folder / "photos").rglob("*.png")).relative_to(folder)
        code, _ = run(folder, "predict", model["folder"], str(image))
        if code:
            raise Violation(f"predict with {model['path']} ended with {code}")


def named(trace: str) -> list[tuple[tuple[str, int], str]]:
    """Return each call as strace counts it: by its name, and the how many-th of that name it is in its thread.

    Where several threads make as many calls of a name, the command dies at the first of them.
    """
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], str] = {}
    for line in trace.splitlines():
        thread, call = line.split(maxsplit=1)
        if "(" in call and " resumed>" not in call:
            name = call.split("(")[0]
            seen[thread, name] += 1
            found.setdefault((name, seen[thread, name]), line)
    return list(found.items())


def kill_everywhere(case: Case, every: int) -> dict[str, Any]:
    """Return how many calls a command makes, at how many it was killed, and what was lost."""
    outcomes: Counter[str] = Counter()
    violations = []
    with tempfile.TemporaryDirectory() as place:
        start = make_start(case, Path(place))
        with workplace(start) as folder:
            _, expected = run(folder, *case.command)
        with workplace(start) as folder:
            code, trace = traced(folder, case.command)
            if code:
                raise Violation(f"undisturbed it ended with {code}")
        calls = named(trace)
        for i in range(0, len(calls), every):
            (name, nth), line = calls[i]
            with workplace(start) as folder:
                code, _ = traced(folder, case.command, "-e", f"inject={name}:signal=KILL:when={nth}")
                outcomes["killed" if code == -signal.SIGKILL else "ended before"] += 1
                try:
                    check(case, folder, expected)
                except Violation as violation:
                    violations.append({"call": f"{name} {nth}", "as": line[:120], "violation": str(violation)})
                    print(f"{case.name}, {name} {nth}: {violation}", flush=True)
    return {"n_calls": len(calls), "outcomes": dict(outcomes), "violations": violations}


def table(cases: dict[str, Any]) -> str:
    """Return a line for each command."""
    rows = [
        (f"`{name}`", *map(str, (found["n_calls"], found["outcomes"].get("killed", 0), len(found["violations"]))))
        for name, found in cases.items()
    ]
    return markdown_table(("command", "calls that touch the disk", "killed at", "violations"), rows)


def preload(*, with_keras: bool) -> None:
    """Import what most commands need, so that a fork does not have to; no operation is run, as that starts threads."""
    ours = ("models.fit_sklearn", "models.predict", "studies.compare", "studies.audit", "studies.curve", "report.page")
    others = (
        "skops.io",
        "sklearn.linear_model",
        "sklearn.model_selection",
        "sklearn.svm",
        "scipy.optimize",
        "PIL.Image",
    )
    for name in (*(f"tlfeat.{name}" for name in ours), *others):
        importlib.import_module(name)
    if with_keras:
        import_keras()


def run_cases(
    name: str,
    about: str | None,
    run_case: Callable[[Case, int], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Read the command line, run the cases that are asked for, and publish; the others keep their figures in the JSON.

    Parameters
    ----------
    name : str
        Of the JSON, and of the place on the page.
    about : str or None
        What ``--help`` shows.
    run_case : callable
        From a case, and at each how many-th call, to what came of it.
    table : callable
        From name and findings of all cases to Markdown.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these commands")
    parser.add_argument("--every", type=int, default=1, help="at each so many-th call")
    add_places(parser, name)
    options = parser.parse_args()
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {"cases": {}}
    wanted = [case for case in CASES if not options.only or case.name in options.only]
    if not options.tables_only:
        preload(with_keras=any(case.is_keras for case in wanted))
        for case in wanted:
            started_s = time.monotonic()
            found = run_case(case, options.every)
            known["cases"][case.name] = {**found, "wall_s": round(time.monotonic() - started_s, 1)}
            known["environment"] = Environment.current().to_dict()
            write_json(options.json, known)
            print(f"{case.name}: {found['outcomes']}, {len(found['violations'])} violations", flush=True)
    publish(options, table(known["cases"]))
    if any(found["violations"] for found in known["cases"].values()):
        sys.exit(1)


if __name__ == "__main__":
    run_cases("soak_kills", __doc__, kill_everywhere, table)
