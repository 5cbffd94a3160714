"""Forged documents: valid JSON with other types, sizes and numbers in model folders, caches and what tlfeat keeps.

Random from a seed. Whatever a command makes of them, it ends with an exit code of `errors.py` and one line, never with
a traceback: ``python soak/forged.py [N] [SEED]`` tries N forgeries of each kind and prints a table.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tlfeat.cli.app import main

#: What a value may be replaced by.
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    1 << 70,
    0.5,
    float("nan"),
    float("inf"),
    1e300,
    "",
    "x",
    "../../etc/passwd",
    "/dev/zero",
    "a\nb\0c",
    "ä猫" * 300,
    [],
    [[]],
    [1, "x", None],
    ["x"] * 3,
    [0.1] * 1000,
    {},
    {"x": {}},
    {"backbone": [], "n": "x", "refused": None},
)

#: Exit codes of errors.py, and 0.
EXPECTED = (0, 2, 3)


@dataclass(frozen=True)
class Ran:
    """How a command ended; `trace` is "" unless it was a bug."""

    code: int
    error: str
    trace: str

    @property
    def is_sound(self) -> bool:
        """No traceback; an error is one line that says so."""
        last = (self.error.strip().splitlines() or [""])[-1]
        return self.code in EXPECTED and not self.trace and (self.code == 0 or last.lower().startswith("error: "))


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every value in a document, itself included."""
    yield path
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in children:
        yield from places(value, (*path, key))


def forged(document: Any, rng: random.Random) -> Any:
    """Return a copy with one to three values replaced, dropped, repeated or put elsewhere."""
    found = json.loads(json.dumps(document))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        ways = list(places(found))
        # high up as often as far down: most values of a result are numbers of test images
        depth = rng.randrange(max(map(len, ways)) + 1)
        way = rng.choice([way for way in ways if len(way) == depth] or ways)
        found = json.loads(json.dumps(_changed(found, way, rng)))  # no part of it is part of another, or of `STRANGE`
    return found


def _changed(document: Any, way: tuple[Any, ...], rng: random.Random) -> Any:
    if not way:
        return rng.choice(STRANGE)
    inside = document
    for key in way[:-1]:
        inside = inside[key]
    kind = rng.randrange(5)
    if kind == 0:
        del inside[way[-1]]
    elif kind == 1 and isinstance(inside, list):
        inside *= rng.choice([0, 2, 50])
    elif kind == 2:
        inside[way[-1]] = [inside[way[-1]]] * rng.choice([1, 3])
    else:
        inside[way[-1]] = rng.choice(STRANGE)
    return document


def run(*words: object) -> Ran:
    """Run a command of tlfeat in this process."""
    out, err, trace, code = io.StringIO(), io.StringIO(), "", 0
    argv, sys.argv = sys.argv, ["tlfeat", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        code, trace = 1, traceback.format_exc()
    finally:
        sys.argv = argv
    return Ran(code, err.getvalue(), trace)


# --- what is forged -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Home:
    """A working folder with a cache of pixels, a saved head and its documents; forged in a copy."""

    folder: Path

    @property
    def cache(self) -> Path:
        """The cache of raw pixels."""
        return self.folder / "c.h5"

    @property
    def model(self) -> Path:
        """The folder of the head."""
        return next(path.parent for path in sorted(self.folder.glob("models/c/logreg*/model.json")))


def make_home(folder: Path) -> Home:
    """Make pictures of two classes, embed them and fit a head."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(("ash", "elm")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(10):
            values = rng.integers(0, 160, (4, 4, 3), dtype=np.uint8)
            values[..., c] += 70
            Image.fromarray(values).resize((12, 12)).save(folder / "photos" / name / f"{i}.png")
    home = Home(folder)
    for words in (
        ("extract", folder / "photos", "--backbone", "pixels", "--cache", home.cache, "-q"),
        ("fit-sklearn", "--model", "logreg", "--no-search", "--cache", home.cache, "-q"),
    ):
        ran = run(*words)
        if ran.code:
            raise RuntimeError(ran.error + ran.trace)
    return home


def forge_model(home: Home, rng: random.Random) -> str:
    """Forge model.json or result.json; say which."""
    name = rng.choice(["model.json", "result.json"])
    file = home.model / name
    file.write_text(json.dumps(forged(json.loads(file.read_text(encoding="utf-8")), rng)), encoding="utf-8")
    return name


def forge_cache(home: Home, rng: random.Random) -> str:
    """Forge a JSON attribute of the cache; say which."""
    name = rng.choice(["fingerprint", "source", "source", "timing", "environment"])
    with h5py.File(home.cache, "r+", libver=("v108", "v108")) as file:
        document = json.loads(bytes(file.attrs[name]))
        if name == "source" and rng.random() < 0.5:
            document["encoder"] = _ENCODER
        file.attrs[name] = np.bytes_(json.dumps(forged(document, rng)))
    return name


_ENCODER = {"backbone": "mobilenet_v2", "weights": "random", "input_size": [32, 32], "preprocess": None, "seed": 0}

READ_MODEL: tuple[Callable[[Home], tuple[object, ...]], ...] = (
    lambda home: ("predict", home.model, home.folder / "photos/ash/1.png", "--reject"),
    lambda home: ("models", "--cache", home.cache),
    lambda home: ("report", "--cache", home.cache),
    lambda home: ("fit-sklearn", "--model", "logreg", "--no-search", "--cache", home.cache),
    lambda home: ("predict", home.model, home.folder / "photos/ash/1.png", "--json"),
)

READ_CACHE: tuple[Callable[[Home], tuple[object, ...]], ...] = (
    lambda home: ("cache", "info", "--cache", home.cache),
    lambda home: ("cache", "verify", "--cache", home.cache),
    lambda home: ("cache", "export", home.folder / "rows.csv", "--cache", home.cache),
    lambda home: ("fit-sklearn", "--model", "knn", "--no-search", "--cache", home.cache),
    lambda home: ("audit", "--cache", home.cache),
    lambda home: ("report", "--cache", home.cache),
    lambda home: ("extract", "--cache", home.cache),
    lambda home: ("fit-keras", "--epochs", "1", "--cache", home.cache),
)

KINDS = {"model folder": (forge_model, READ_MODEL), "cache": (forge_cache, READ_CACHE)}


def try_one(home: Home, kind: str, seed: int, work: Path) -> tuple[str, Ran]:
    """Forge a copy of `home` and run one command on it; return what was forged, in words, and how it ended."""
    rng = random.Random(f"{kind} {seed}")
    forge, commands = KINDS[kind]
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(home.folder, work)
    copy = Home(work)
    words = rng.choice(commands)(copy)
    what = forge(copy, rng)
    with contextlib.chdir(work):
        return f"{what}, seed {seed}: tlfeat {' '.join(map(str, words))}", run(*words)


def campaign(n: int, first_seed: int) -> int:
    """Try `n` forgeries of each kind, print what went wrong and a table; return the number of violations."""
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "home")
        for kind in KINDS:
            codes: Counter[int] = Counter()
            wrong = 0
            for seed in range(first_seed, first_seed + n):
                what, ran = try_one(home, kind, seed, Path(folder) / "work")
                codes[ran.code] += 1
                if not ran.is_sound:
                    wrong += 1
                    print(f"{kind}: {what}\n{ran.error[-500:]}{ran.trace[-1500:]}", flush=True)
            told = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
            print(f"| {kind} | {n} tries | {told} | {wrong} violations |", flush=True)
            n_wrong += wrong
    return n_wrong


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(campaign(*(numbers + [300, 0][len(numbers) :])) > 0)
