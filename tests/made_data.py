"""What tests of several wings share: rows, tables of images, pictures, the command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from tlfeat.cache.store import create_cache
from tlfeat.cli.app import app
from tlfeat.images.image_set import ImageSet, ImageTable, content_key
from tlfeat.types import Rows

FINGERPRINT = {"backbone": "test", "dtype": "float32"}


def some_rows(n: int, width: int = 6, seed: int = 0) -> tuple[Rows, list[str]]:
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return rows, [content_key(row.tobytes()) for row in rows]


def table_of(keys: list[str], paths: list[str] | None = None) -> ImageTable:
    n = len(keys)
    paths = paths or [f"a/{i}.png" for i in range(n)]
    images = ImageSet(Path("/data"), Path("/data"), paths, ["a"] * n, [""] * n, [""] * n)
    return ImageTable(images, keys, ["ok"] * n, [""] * n, [1] * n, [2] * n)


def filled_cache(path: Path) -> Path:
    """Write a cache of 200 rows of the layer "pooled" and their table of images."""
    rows, keys = some_rows(200)
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve({"pooled": 6}, 200)
        for start in range(0, 200, 50):
            cache.append({"pooled": rows[start : start + 50]}, keys[start : start + 50])
        cache.write_table(table_of(keys))
    return path


def key_of(picture: object) -> str:
    """A content key as a file would have it, one for each distinct `picture`."""
    return hashlib.sha256(repr(picture).encode()).hexdigest()


def make_table(
    labels: Sequence[str],
    *,
    keys: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    paths: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
) -> ImageTable:
    """Return a table of images with these labels; all different and embedded unless said otherwise."""
    n = len(labels)
    images = ImageSet(
        Path("/data"),
        Path("/data"),
        list(paths or (f"{label}/{i}.png" for i, label in enumerate(labels))),
        list(labels),
        list(splits or [""] * n),
        list(groups or [""] * n),
        domains=list(domains or []),
    )
    return ImageTable(
        images, list(keys or map(key_of, range(n))), list(status or ["ok"] * n), [""] * n, [0] * n, [0] * n
    )


def photo(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A random picture with outlines, which nothing but its copies can match."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 200, (14, 16, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def write_leaky(root: Path) -> Path:
    """Pictures of pure noise under two labels, half of the test images re-encoded from training."""
    for c, name in enumerate(("a", "b")):
        for split, first, n in (("train", 0, 24), ("test", 500, 10)):
            (root / split / name).mkdir(parents=True)
            for i in range(first, first + n):
                photo(1000 * c + i).save(root / split / name / f"{i}.png")
        for i in range(10):
            photo(1000 * c + i).save(root / "test" / name / f"copy{i}.jpg", quality=70)
    return root


def tlfeat_process(*words: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run([sys.executable, "-m", "tlfeat", *words], capture_output=True, text=True, cwd=cwd, check=False)
    return checked(run, expect)


def tlfeat(*words: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """What a process would say, without its imports: they took longer than most commands."""
    with contextlib.chdir(cwd):
        run = CliRunner().invoke(app, words)
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return checked(subprocess.CompletedProcess(words, run.exit_code, run.stdout, run.stderr), expect)


def checked(run: subprocess.CompletedProcess[str], expect: int) -> subprocess.CompletedProcess[str]:
    assert run.returncode == expect, f"{run.args}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr
    return run


def as_json(*words: str, cwd: Path) -> Any:
    return json.loads(tlfeat(*words, "--json", cwd=cwd).stdout)
