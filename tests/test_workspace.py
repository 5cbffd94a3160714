"""What a killed command left half-written is removed when the same is written again, and only that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tlfeat import workspace
from tlfeat.cache.store import create_cache
from tlfeat.workspace import write_folder, write_text, written_together

#: Writes as told and is killed when all but the name is there.
KILLED = """
import os, signal, sys
from pathlib import Path
from tlfeat import workspace
path = Path(sys.argv[2])
with getattr(workspace, sys.argv[1])(path) as aside:
    if path.suffix:
        aside.write_bytes(b"half")
    else:
        aside.mkdir()
        (aside / "head.skops").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write_together(path: Path) -> None:
    with written_together(path) as new:
        new.write_text("whole")


WRITERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "file": ("written_aside", "result.json", lambda path: write_text(path, "whole")),
    "folder": ("written_aside", "svm-1", lambda path: write_folder(path, lambda aside: None)),
    "together": ("written_together", "m.onnx", write_together),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def set_back(folder: Path, minutes: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 60 * minutes,) * 2)


@pytest.mark.parametrize(("how", "name", "write"), WRITERS.values(), ids=WRITERS)
def test_what_a_killed_writer_left_goes_with_the_next_write(
    tmp_path: Path, how: str, name: str, write: Callable[[Path], object]
) -> None:
    target = tmp_path / name
    assert subprocess.run([sys.executable, "-c", KILLED, how, target], check=False).returncode == -9
    (left,) = names(tmp_path)
    write(target)
    assert names(tmp_path) == sorted([left, name]), "another machine may still write it"
    set_back(tmp_path, 2)
    write(target)
    assert names(tmp_path) == [name]


def test_what_a_killed_extract_left_of_a_new_cache_goes_with_the_next(tmp_path: Path) -> None:
    for name in (".c.h5.999999999.tmp", ".c.h5.999999999.tmp.journal", ".d.h5.999999999.tmp"):
        (tmp_path / name).write_bytes(b"half")
    set_back(tmp_path, 2)
    create_cache(tmp_path / "c.h5", {"dtype": "float32"}, {}).close()
    assert names(tmp_path) == [".d.h5.999999999.tmp", "c.h5"]


def test_what_others_write_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept = [f".m.{running.pid}.tmp.onnx", ".m-20240101", ".m.onnx", ".m.1.backup", ".m2.999999999.tmp.onnx"]
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    set_back(tmp_path, 59)
    write_text(tmp_path / "m.onnx", "whole")
    running.communicate()
    assert names(tmp_path) == sorted([*kept, "m.onnx"])


def test_after_the_clock_was_set_back_the_cache_of_the_last_extract_is_still_the_newest(tmp_path: Path) -> None:
    for name in ("before", "last"):
        create_cache(workspace.CACHE_DIR / f"{name}.h5", {"dtype": "float32"}, {}).close()
    day_from_now_s = time.time() + 86_400
    os.utime(workspace.CACHE_DIR / "before.h5", (day_from_now_s, day_from_now_s))
    workspace.make_newest(workspace.CACHE_DIR / "last.h5")
    assert workspace.newest_cache().name == "last.h5"


def test_what_is_half_written_is_not_removed_as_left_over_after_the_clock_was_set_back(tmp_path: Path) -> None:
    left = tmp_path / ".m.999999999.tmp.onnx"
    left.write_bytes(b"half")
    set_back(tmp_path, -120)
    write_text(tmp_path / "m.onnx", "whole")
    assert names(tmp_path) == [left.name, "m.onnx"]


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    (tmp_path / ".a[b].999999999.tmp.csv").write_bytes(b"")
    (tmp_path / ".ab.999999999.tmp.csv").write_bytes(b"")
    set_back(tmp_path, 2)
    write_text(tmp_path / "a[b].csv", "whole")
    assert names(tmp_path) == [".ab.999999999.tmp.csv", "a[b].csv"]
