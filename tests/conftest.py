"""What several test files share: pictures, a counting encoder, the folder of real data."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import threadpoolctl
import typer.testing
from PIL import Image

from children import exit_code_of_child
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.frameworks import import_keras
from tlfeat.cache import checks, hdf5_file
from tlfeat.extract import reference
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.resizing import RESIZES, is_possible
from tlfeat.report import embedding_map
from tlfeat.types import OnProgress, Pixels, Rows, silent

ROOT = Path(__file__).parents[1]

SHARED = Path(os.environ.get("TLFEAT_SHARED", ROOT.parent / "shared"))

needs_shared = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason=f"real images and weights are not at {SHARED} (TLFEAT_SHARED)"
)

#: Every way of resizing, those skipped whose package is not installed.
ALL_RESIZES = [
    pytest.param(way, marks=pytest.mark.skipif(not is_possible(way), reason="tlfeat[quick] is not installed"))
    for way in RESIZES
]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for what it starts in the background, and programs that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Tests that send signals, limit a process or make a named pipe, none of which Windows has.
NEEDS_POSIX = {
    "test_network_extraction_killed_in_the_middle_ends_with_the_same_bits",
    "test_ctrl_c_ends_with_130_keeps_rows_and_says_how_to_go_on",
    "test_killed_extract_goes_on_and_ends_with_the_same_bits",
    "test_ctrl_c_twice_stops_and_loses_nothing",
    "test_ctrl_c_within_exec_ends_with_130_as_anywhere",
    "test_ctrl_c_while_the_program_starts_is_one_line",
    "test_ctrl_c_while_a_package_is_imported_is_one_line",
    "test_a_limit_on_the_size_of_files_is_met_like_a_full_disk",
    "test_what_a_killed_run_has_stored_is_used_and_the_rest_decoded",
    "test_what_a_killed_writer_left_goes_with_the_next_write",
    "test_a_named_pipe_is_passed_over_because_reading_it_would_wait_for_ever",
    "test_available_memory_is_no_more_than_the_machine_has_and_sees_a_limit_on_the_process",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out on Windows what it cannot do; leave to ``make soak`` what is no sample of its test."""
    unknown: dict[str, set[str]] = {}
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample and isinstance(item, pytest.Function):
            case = item.callspec.id
            unknown.setdefault(item.nodeid.partition("[")[0], set(sample.args)).discard(case)
            if case not in sample.args:
                item.add_marker(pytest.mark.soak)
    is_whole = not any("[" in argument for argument in config.args)
    if is_whole and (wrong := {test: ids for test, ids in unknown.items() if ids}):
        raise pytest.UsageError(f"No such cases to be samples: {wrong}")
    if sys.platform == "win32":
        for item in items:
            if getattr(item, "originalname", item.name) in NEEDS_POSIX:
                item.add_marker(pytest.mark.skip(reason="Windows has no such signals, limits or pipes"))


def skip_without(*packages: str, reason: str) -> None:
    """Skip a file of tests where one of these is not installed; none is imported, which may take seconds."""
    if any(importlib.util.find_spec(package) is None for package in packages):
        pytest.skip(reason, allow_module_level=True)


def script(path: str) -> ModuleType:
    """Return a file of benchmarks/, soak/ or tools/ as a module; what it imports of its own folder is found there."""
    file = ROOT / path
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))
        return importlib.import_module(file.stem)


@pytest.fixture(scope="session")
def soak() -> ModuleType:
    """``soak/cache.py`` as a module: writers that are killed."""
    return script("soak/cache.py")


@pytest.fixture(scope="session")
def power_cuts() -> ModuleType:
    """``soak/power_cuts.py`` as a module: its power cuts are those of the large campaign."""
    return script("soak/power_cuts.py")


@pytest.fixture(scope="session")
def damage() -> ModuleType:
    """``soak/damage.py`` as a module."""
    return script("soak/damage.py")


class CountingEncoder(PixelEncoder):
    """A `PixelEncoder` that counts, so that "work was skipped" is an assertion; in one thread, so that it repeats."""

    is_parallel = False

    def __init__(self, input_size: tuple[int, int] = (8, 8), batch_size: int = 32) -> None:
        super().__init__(input_size)
        self.batch_size = batch_size
        self.n_encoded = 0
        self.n_prepared = 0

    def prepare(self, on_progress: OnProgress = silent) -> None:
        self.n_prepared += 1

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        self.n_encoded += len(pixels)
        return super().encode(pixels)


@pytest.fixture(autouse=True, scope="session")
def _networks_in_a_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "NETWORKS_DIR", tmp_path_factory.mktemp("networks"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _what_is_always_the_same_is_made_once() -> Iterator[None]:
    """The table of commands and options, and the reference images of a size: a fourth of what many tests took.

    And nothing waits for the disk: no test cuts the power of the machine. Libraries with threads of their own are
    looked for only where a package was imported since.
    """

    @functools.cache
    def libraries(_: int) -> threadpoolctl.ThreadpoolController:
        return threadpoolctl.ThreadpoolController()

    def limits(limits: int) -> Any:
        return libraries(len(sys.modules)).limit(limits=limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.testing._get_command))
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(threadpoolctl, "threadpool_limits", limits)
        patch.setattr(reference, "reference_pixels", functools.lru_cache(8)(reference.reference_pixels))
        yield


@pytest.fixture(autouse=True)
def _work_in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes under ``cache/`` is its own: a Result of another test, or of yesterday, is never reused.

    Lines are as long as they are: workers of xdist set the width of a terminal.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


_is_frozen = False


def pytest_runtest_teardown() -> None:
    """Once TensorFlow is there, leave its million objects out of every later garbage collection.

    Keras collects whenever a network is built: that was a fifth of the time of a small training.
    """
    global _is_frozen
    if not _is_frozen and "tensorflow" in sys.modules:
        gc.collect()
        gc.freeze()
        _is_frozen = True


@pytest.fixture(autouse=True)
def _cheap_stand_ins(request: pytest.FixtureRequest) -> Iterator[None]:
    """What costs much and is the subject of few tests, those marked ``whole``.

    Caches are looked through here and not in a child: to fork a process with TensorFlow in it takes a tenth of a
    second. A map of t-SNE is two principal components the other way round.
    """
    if request.node.get_closest_marker("whole"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            hdf5_file, "in_child", lambda path, work, *_, **__: checks._result(path, checks._said(path, work))
        )
        patch.setattr(embedding_map, "_tsne", lambda rows, seed: embedding_map._first_two(rows, seed)[:, ::-1])
        yield


@pytest.fixture(scope="session")
def light_nncf() -> None:
    """NNCF without PyTorch, which it imports where there is one: three quarters of its import."""
    if importlib.util.find_spec("nncf") is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torch", None)
            importlib.import_module("nncf")


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A smooth random RGB picture of (width, height); another seed gives other bytes."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def without_rights(work: Callable[[], object]) -> None:
    """Run `work` as one who may read and write only what files allow: root in a child that gives its privileges up.

    What it raises there is printed, and fails the test here.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("rights of files are others on Windows")
    if os.geteuid():
        work()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "capset"):
        pytest.skip("root can give up its privileges on Linux alone")

    def without() -> None:
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # version 3; this process
        if libc.capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")
        work()

    assert exit_code_of_child(without) == 0, "it failed in the child; see what was printed"


MakePhotos = Callable[..., Path]


def write_photos(root: Path, n: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write ``CLASS/N.png`` with `n` different pictures a class, and return the folder."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            image = picture(1000 * c + i)
            # a class has a tint, so that heads have something to find
            tint = Image.new("RGB", image.size, (255, 0, 0) if c % 2 else (0, 0, 255))
            Image.blend(image, tint, 0.3).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def make_photos(tmp_path: Path) -> MakePhotos:
    """Return a function that writes ``photos/CLASS/N.png`` with `n` different pictures a class."""

    def make(n: int = 10, classes: tuple[str, ...] = ("cat", "dog"), folder: str = "photos") -> Path:
        return write_photos(tmp_path / folder, n, classes)

    return make


# --- a small network to train ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three blocks for 16x16 pixels, named as those of the shipped one; a third of its cost to train."""
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(3)
    pixels = x = keras.Input((16, 16, 3))
    for block, width in enumerate((4, 6, 8), 1):
        x = layers.Conv2D(width, 3, strides=2, padding="same", name=f"block{block}_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.ReLU(name=f"block{block}_relu")(x)
    path = tmp_path_factory.mktemp("network") / "small.keras"
    keras.Model(pixels, layers.GlobalAveragePooling2D(name="avg_pool")(x)).save(path)
    return path


@pytest.fixture(scope="session")
def small_cache(small_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three classes, embedded by the small network in a working folder of their own."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(4)
    for c, name in enumerate(("ash", "birch", "elm")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(20):
            values = rng.integers(0, 160, (4, 4, 3), dtype=np.uint8)
            values[..., c] += 70  # a class has a tint
            Image.fromarray(values).resize((16, 16)).save(folder / "photos" / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        job = plan_extraction(folder / "photos", backbone=str(small_network), preprocess="tf")
        return job.run().cache.resolve()


@pytest.fixture
def eagerly() -> Iterator[None]:
    """TensorFlow step by step: for a few small batches a graph takes longer to trace than to run.

    For tests of what happens between steps and epochs; what a step computes is tested with graphs, as users have it.
    """
    import_keras()
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def no_window() -> Iterator[None]:
    """Charts of matplotlib are drawn into memory, and closed."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    yield
    pyplot.close("all")
