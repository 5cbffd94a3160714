"""Forged documents: valid JSON with other types, sizes and numbers in model folders, caches and what tlfeat keeps.

Random from a seed. Whatever a command makes of them, it ends with an exit code of `errors.py` and one line, never with
a traceback. Networks, stores of pixels, rows at a cut and states of training are given to the code that reads them for
the commands; what it returns has to be right.

    python soak/forged.py                       # the figures of docs/benchmarks/soak.md
    python soak/forged.py 50 --only network     # fifty networks
    python soak/forged.py 300 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from damage import mutate
from pages import add_places, publish
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.backbones.weights_files import layer_names
from tlfeat.cache.store import open_cache
from tlfeat.cli.app import main
from tlfeat.errors import KnownError, WeightsError
from tlfeat.extract.extract import extract_rows
from tlfeat.finetune.epochs import State, _assign
from tlfeat.finetune.pixel_store import open_pixels_of
from tlfeat.images.image_set import content_key
from tlfeat.images.load import load_images
from tlfeat.records import Environment
from tlfeat.text import markdown_table
from tlfeat.workspace import write_json

_ROOT = Path(__file__).resolve().parents[1]

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


# --- what is forged for the code that reads it ---------------------------------------------------------------------

IMAGES = [f"photos/{name}/{i}.png" for name in ("ash", "elm") for i in range(10)]


def make_network(folder: Path) -> None:
    """Save a small network; only those who forge networks wait for Keras."""
    keras = import_keras()
    layers = keras.layers
    pixels = x = keras.Input((12, 12, 3))
    for width in (3, 4):
        x = layers.Conv2D(width, 3, strides=2)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    keras.Model(pixels, layers.GlobalAveragePooling2D(name="avg_pool")(x)).save(folder / "n.keras")


def use_network(home: Home, rng: random.Random) -> str:
    """Forge config.json of a network, or its weights; read it, build it, and ask it for one answer."""
    file = home.folder / "n.keras"
    if not file.exists():
        make_network(home.folder)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(["config.json", "config.json", "metadata.json", "model.weights.h5"])
    if name.endswith(".json"):
        members[name] = json.dumps(forged(json.loads(members[name]), rng)).encode()
    else:
        members[name] = mutate(members[name], [members[name]], rng)
    forgery = home.folder / "forged.keras"
    with zipfile.ZipFile(forgery, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    layer_names(forgery)
    BackboneSpec.from_dict({"backbone": str(forgery), "weights": "imagenet", "preprocess": "tf", "seed": 0})
    model = build_base(BackboneSpec(str(forgery), preprocess="tf", input_size=(12, 12)), (12, 12))
    shape = [n or 12 for n in model.inputs[0].shape[1:]]
    try:
        model.predict_on_batch(np.zeros((1, *shape), np.float32))
    except Exception as error:  # TensorFlow's own, which `network.Backbone` turns into a line
        raise WeightsError(str(error)) from error
    return name


def use_pixels(home: Home, rng: random.Random) -> str:
    """Damage a store of pixels, or put something else in its place; its pixels are those of the images."""
    files = [home.folder / image for image in IMAGES]
    keys = [content_key(file.read_bytes()) for file in files]
    right = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])

    def read() -> None:
        store = open_pixels_of(files, keys, (12, 12), "antialias", folder=home.folder / "pixels")
        with store:
            pixels, is_there = store.read(np.arange(len(files)))
        if not is_there.all() or not np.array_equal(np.rint(pixels), right):
            raise AssertionError(f"other pixels: {store.failures}")

    read()
    (path,) = (home.folder / "pixels").iterdir()
    kind = rng.choice(["bytes", "bytes", "cut", "longer", "pipe", "device", "folder", "link to nothing"])
    if kind == "bytes":
        path.write_bytes(mutate(path.read_bytes(), [path.read_bytes()], rng))
    elif kind in ("cut", "longer"):
        os.truncate(path, rng.randrange(path.stat().st_size * (1 if kind == "cut" else 3)))
    else:
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "device" else home.folder / "nothing" / "x")
    read()
    return kind


def use_cut(home: Home, rng: random.Random) -> str:
    """Forge a cache as ``fit-keras`` keeps one for rows at a cut: it is brought up to date, and has the right rows."""
    images = load_images(home.folder / "photos")
    path = home.folder / "cuts" / "x.h5"
    extract_rows(images, PixelEncoder((6, 6)), path)
    with open_cache(path) as cache:
        keys = cache.table.keys
        right = cache.read("pixels", keys)
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        name = rng.choice(["fingerprint", "source", "timing", "environment", "rows", "key", "status"])
        if name == "rows":
            del file["layers/pixels"]
        elif name in ("key", "status"):
            column = file["images"][name]
            column[rng.randrange(len(column))] = rng.choice([b"", b"ok", b"pending", b"x" * 70, keys[3].encode()])
        else:
            file.attrs[name] = np.bytes_(json.dumps(forged(json.loads(bytes(file.attrs[name])), rng)))
    extract_rows(images, PixelEncoder((6, 6)), path)
    with open_cache(path) as cache:
        if cache.read("pixels", cache.table.keys).tobytes() != right.tobytes():
            raise AssertionError("other rows")
    return name


def use_state(home: Home, rng: random.Random) -> str:
    """Forge the state of a training: it is read as one, or as none."""
    path = home.folder / "state.npz"
    state = State(
        phase=1, n_before=2, history={"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}, best_loss=0.5, best_epoch=2
    )
    state.current, state.best = [np.ones((3, 4), np.float32), np.zeros(2)], [np.ones((3, 4), np.float32)]
    state.save(path)
    with np.load(path) as stored:
        held = dict(stored)
    name = rng.choice(["about", "about", "bytes", *held])
    if name == "bytes":
        path.write_bytes(mutate(path.read_bytes(), [path.read_bytes()], rng))
    else:
        if name == "about":
            held[name] = np.array(json.dumps(forged(json.loads(str(held[name])), rng)))
        else:
            held[name] = rng.choice([np.array("x"), np.zeros(0), np.array(["a", "b"]), np.zeros((2, 3), np.complex64)])
        with path.open("wb") as file:
            np.savez(file, **held)
    found = State.load(path)
    variables = [_Variable(value.shape) for value in state.best]
    for values in (found.current, found.best):
        if values:
            _assign(variables, values)
    _ = found.n_epochs, found.n_before + 1, found.best_loss < 1
    return name


class _Variable:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def assign(self, value: Any) -> None:
        """Take a value as a variable of Keras does."""
        np.asarray(value).astype(np.float32)


USES: dict[str, Callable[[Home, random.Random], str]] = {
    "network": use_network,
    "store of pixels": use_pixels,
    "rows at a cut": use_cut,
    "state of training": use_state,
}


def used(use: Callable[[], str]) -> tuple[str, Ran]:
    """Return what was forged and how reading it ended, as a command would have."""
    try:
        return use(), Ran(0, "", "")
    except KnownError as error:
        return "", Ran(3, f"error: {' '.join(str(error).split())}", "")
    except BaseException:
        return "", Ran(1, "", traceback.format_exc())


def try_one(home: Home, kind: str, seed: int, work: Path) -> tuple[str, Ran]:
    """Forge a copy of `home` and run one command on it; return what was forged, in words, and how it ended."""
    rng = random.Random(f"{kind} {seed}")
    shutil.rmtree(work, ignore_errors=True)
    if kind in USES:
        (work / "photos").mkdir(parents=True)
        shutil.copytree(home.folder / "photos", work / "photos", dirs_exist_ok=True)
        if kind == "network" and not (home.folder / "n.keras").exists():
            make_network(home.folder)
        if kind == "network":
            shutil.copy(home.folder / "n.keras", work)
        what, ran = used(lambda: USES[kind](Home(work), rng))
        return f"{what}, seed {seed}", ran
    forge, commands = KINDS[kind]
    shutil.copytree(home.folder, work)
    copy = Home(work)
    words = rng.choice(commands)(copy)
    what = forge(copy, rng)
    with contextlib.chdir(work):
        return f"{what}, seed {seed}: tlfeat {' '.join(map(str, words))}", run(*words)


def campaign(kind: str, n: int, first_seed: int) -> dict[str, Any]:
    """Try `n` forgeries of a kind; return how many ended how, and what went wrong."""
    codes: Counter[str] = Counter()
    wrong = []
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "home")
        for seed in range(first_seed, first_seed + n):
            what, ran = try_one(home, kind, seed, Path(folder) / "work")
            codes["violation" if not ran.is_sound else "went well" if ran.code == 0 else "said why not"] += 1
            if not ran.is_sound:
                said = f"{ran.error[-300:]}{ran.trace[-1500:]}".replace(f"{_ROOT}/", "")
                wrong.append({"seed": seed, "what": what, "said": said})
                print(f"{kind}: {what}\n{ran.error[-500:]}{ran.trace[-1500:]}", flush=True)
    wall_s = round(time.monotonic() - started_s, 1)
    return {"n": n, "first_seed": first_seed, "outcomes": dict(codes), "violations": wrong, "wall_s": wall_s}


def table(kinds: dict[str, Any]) -> str:
    """Return a line for each kind."""
    rows = [
        (
            kind,
            f"{found['n']:,}",
            *(f"{found['outcomes'].get(how, 0):,}" for how in ("went well", "said why not")),
            str(len(found["violations"])),
        )
        for kind, found in kinds.items()
    ]
    return markdown_table(("forged", "tries", "went well", "one line said why not", "violations"), rows)


def run_all() -> None:
    """Run the campaigns that are asked for; those left out keep their figures in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", nargs="?", type=int, default=2000, help="forgeries of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="KIND", help=f"of {', '.join((*KINDS, *USES))}")
    add_places(parser, "soak_forged")
    options = parser.parse_args()
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {"kinds": {}}
    for kind in () if options.tables_only else options.only or (*KINDS, *USES):
        known["kinds"][kind] = campaign(kind, options.n, options.seed)
        known["environment"] = Environment.current().to_dict()
        write_json(options.json, known)
    publish(options, table(known["kinds"]))
    if any(found["violations"] for found in known["kinds"].values()):
        sys.exit(1)


if __name__ == "__main__":
    run_all()
