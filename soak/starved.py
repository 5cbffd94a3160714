"""Every command that writes with too little disk, memory or descriptors; and two of each at once; Linux with strace.

    python soak/starved.py                     # the figures of docs/benchmarks/soak.md
    python soak/starved.py --only extract      # this command
    python soak/starved.py --every 5           # each fifth call that a full disk refuses

The disk is full from a call on: strace answers it and all later ones of its kind with ENOSPC. A command may end well,
or with one line and the code of an error that tlfeat knows; never with a traceback. Then, with enough of everything,
the same must hold as after a kill (see ``kills.py``).
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kills import Case, Violation, check, forked, make_start, named, run, run_cases, traced, workplace
from tlfeat.errors import UsageError
from tlfeat.text import markdown_table

#: Calls that a full disk refuses.
REFUSED = ("write", "pwrite64", "fallocate", "ftruncate", "mkdir", "rename", "link")

#: 0: it went well; 1 and 3: one line said why not; 74 is sysexits.h's EX_IOERR, of what cannot be printed.
CODES = (0, 1, 3, 74)


def limits() -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Give the kind of a limit, what it is, and what sets it in the process that is to suffer it."""
    for n_bytes in (0, 1_000, 4_096, 8_192, 20_000, 50_000, 100_000, 200_000):
        yield "file size", f"{n_bytes:,} bytes", lambda n=n_bytes: _limit(resource.RLIMIT_FSIZE, n)
    for n in (1, 2, 3, 4, 6, 8, 12):
        yield (
            "descriptors",
            f"{n} more",
            lambda n=n: _limit(resource.RLIMIT_NOFILE, _n_open() + n),
        )
    for n_mb in (1, 5, 20, 60):
        yield "memory", f"{n_mb} MB more", lambda n=n_mb: _limit(resource.RLIMIT_AS, _virtual_bytes() + n * 1_000_000)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _n_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def judge(code: int, folder: Path, case: Case) -> str:
    """Return how a command ended; raise `Violation` where it is no way to end."""
    said = (folder.parent / "out.err").read_text(encoding="utf-8", errors="replace")
    is_refused = case.once and code == UsageError.exit_code and "exists already" in said  # of two the second
    if "Traceback" in said or (code not in CODES and not is_refused):
        raise Violation(f"it ended with {code}: {said.strip()[-400:]}")
    return "went well" if code == 0 else "said why not"


def starve(case: Case, every: int) -> dict[str, Any]:
    """Return what came of every way to starve a command."""
    outcomes: dict[str, Counter[str]] = {}
    violations = []
    with tempfile.TemporaryDirectory() as place:
        start = make_start(case, Path(place))
        with workplace(start) as folder:
            _, expected = run(folder, *case.command)
        with workplace(start) as folder:
            _, trace = traced(folder, case.command)

        def attempt(kind: str, what: str, act: Callable[[Path], list[int]]) -> None:
            with workplace(start) as folder:
                try:
                    ends = {judge(code, folder, case) for code in act(folder)}
                    outcomes.setdefault(kind, Counter())["said why not" if len(ends) > 1 else ends.pop()] += 1
                    check(case, folder, expected)
                except Violation as violation:
                    outcomes.setdefault(kind, Counter())["VIOLATIONS"] += 1
                    violations.append({"kind": kind, "what": what, "violation": str(violation)})
                    print(f"{case.name}, {kind}, {what}: {violation}", flush=True)

        calls = [(name, nth) for (name, nth), _ in named(trace) if name in REFUSED]
        for name, nth in calls[::every]:
            inject = ("-e", f"inject={name}:error=ENOSPC:when={nth}+")
            attempt(
                "full disk", f"{name} {nth}", lambda folder, inject=inject: [traced(folder, case.command, *inject)[0]]
            )
        for kind, what, set_limit in list(limits())[:: 4 if case.is_keras else 1]:
            attempt(kind, what, lambda folder, set_limit=set_limit: [_limited(folder, case, set_limit)])
        for i in range(1 if case.is_keras else 4):
            attempt("two at once", str(i), lambda folder: _together(folder, case))
    return {"outcomes": {kind: dict(counts) for kind, counts in outcomes.items()}, "violations": violations}


def _limited(folder: Path, case: Case, set_limit: Callable[[], None]) -> int:
    pid = forked(folder, case.command, folder.parent / "out", first=set_limit)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _together(folder: Path, case: Case) -> list[int]:
    pids = [forked(folder, case.command, folder.parent / "out") for _ in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def table(cases: dict[str, Any]) -> str:
    """Return a line for each command: cases and violations of each kind."""
    kinds = ("full disk", "file size", "descriptors", "memory", "two at once")
    rows = [
        (
            f"`{name}`",
            *(f"{sum(found['outcomes'].get(kind, {}).values())}" for kind in kinds),
            str(len(found["violations"])),
        )
        for name, found in cases.items()
    ]
    return markdown_table(("command", *kinds, "violations"), rows)


if __name__ == "__main__":
    run_cases("soak_starved", __doc__, starve, table)
