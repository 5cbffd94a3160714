"""Locks, processes, Ctrl-C and the standard streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import MakePhotos
from tlfeat import system


def handles(path: Path, *flags: int) -> list[int]:
    path.touch()
    return [os.open(path, flag) for flag in flags]


def test_readers_share_a_lock_and_a_writer_has_it_alone(tmp_path: Path) -> None:
    one, other, writer = handles(tmp_path / "f", os.O_RDONLY, os.O_RDONLY, os.O_RDWR)
    system.lock(one, is_exclusive=False)
    system.lock(other, is_exclusive=False)
    with pytest.raises(BlockingIOError):
        system.lock(writer, is_exclusive=True)
    system.unlock(one)
    os.close(other)
    system.lock(writer, is_exclusive=True)
    with pytest.raises(BlockingIOError):
        system.lock(one, is_exclusive=False)
    os.close(one)
    os.close(writer)


def test_a_process_that_has_ended_is_not_running() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert system.is_running(os.getpid()) and system.is_running(os.getppid())
    assert not system.is_running(ended.pid)


def test_what_is_not_utf8_becomes_so_and_what_is_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(narrow, encoding="cp1252"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(wide, encoding="UTF-8", errors="surrogateescape"))
    system.speak_utf8()
    sys.stdout.write("猫 ─ \udce9")
    sys.stdout.flush()
    assert narrow.getvalue().decode() == "猫 ─ \\udce9"
    assert sys.stderr.errors == "surrogateescape"


#: Ctrl-C as soon as a module is looked for, as if a hand were that fast.
CTRL_C_AT = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtImport())
sys.argv = ["tlfeat", *{words!r}]
{more}
import runpy
runpy.run_module("tlfeat", run_name="__main__")
"""

#: What native code makes of an exception in the middle of its start.
SWALLOWED = """
import builtins
real = builtins.__import__
def swallowing(name, *rest, **named):
    try:
        return real(name, *rest, **named)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
builtins.__import__ = swallowing
"""


def ctrl_c(work: Path, module: str, *words: str, more: str = "") -> subprocess.CompletedProcess[str]:
    code = CTRL_C_AT.format(module=module, words=words, more=more)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=work, check=False)


@pytest.mark.sample("tlfeat.cli.app")
@pytest.mark.parametrize("module", ["typer", "tlfeat.cli.app", "tlfeat.cli.studies"])
def test_ctrl_c_while_the_program_starts_is_one_line(tmp_path: Path, module: str) -> None:
    run = ctrl_c(tmp_path, module, "extract", "--backbone", "pixels")
    assert (run.returncode, run.stderr) == (130, "\nStopped. Nothing was begun.\n")


@pytest.mark.parametrize("more", ["", SWALLOWED], ids=["plain", "swallowed"])
def test_ctrl_c_while_a_package_is_imported_is_one_line(work: Path, more: str) -> None:
    run = ctrl_c(work, "numpy.linalg", "cache", "info", more=more)
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr and run.stderr.splitlines()[-1].startswith("Stopped. What was finished")


#: Ctrl-C, and again after as many seconds as are named.
AGAIN = """
import signal, sys, time
from tlfeat import system
system.notice_interrupts()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopping", system.was_interrupted(), flush=True)
time.sleep(float(sys.argv[1]))
signal.raise_signal(signal.SIGINT)
print("stopped")
"""


@pytest.mark.parametrize(("wait_s", "code", "said"), [("0.1", 0, "stopped"), ("1.1", 130, "")])
def test_a_second_ctrl_c_ends_what_hangs_but_one_that_comes_at_once_is_the_same(
    wait_s: str, code: int, said: str
) -> None:
    run = subprocess.run([sys.executable, "-c", AGAIN, wait_s], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.split()) == (code, ["stopping", "True", *said.split()])
    assert run.stderr == ("" if not code else "\nStopped at once.\n")


#: Read by Python at its start. Names of tuples, dataclasses and the like are made by exec().
CTRL_C_WITHIN_EXEC = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.linalg":
            sys.meta_path.remove(self)
            exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(10 ** 6): pass")
sys.meta_path.insert(0, AtImport())
"""


def test_ctrl_c_within_exec_ends_with_130_as_anywhere(work: Path) -> None:
    (work / "sitecustomize.py").write_text(CTRL_C_WITHIN_EXEC, encoding="utf-8")
    path = os.pathsep.join([str(work), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-m", "tlfeat", "cache", "info"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 130, run.stderr
    assert run.stderr.splitlines()[-1].startswith("Stopped. What was finished")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a cache."""
    from made_data import filled_cache

    filled_cache(tmp_path / "cache" / "c.h5")
    return tmp_path


#: Several commands in one process, which imports scikit-learn once.
ONE_AFTER_ANOTHER = """
import sys
from tlfeat.__main__ import main
for words in sys.argv[1:]:
    sys.argv = ["tlfeat", *words.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 on other systems, whatever the locale")
def test_names_with_accents_go_all_the_way_where_the_locale_is_ascii(make_photos: MakePhotos, tmp_path: Path) -> None:
    make_photos(n=6, classes=("été", "猫"), folder="photos-é")
    commands = (
        "extract photos-é --backbone pixels --cache é.h5",
        "compare --heads knn --keras none --map none --cache é.h5",
        "predict photos-é/été/0.png --cache é.h5",
    )
    run = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, *commands],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "photos-é/été/0.png" in run.stdout
    assert (tmp_path / "reports" / "é" / "comparison.html").exists()
