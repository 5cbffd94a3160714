"""How fast `extract` is beside what users run today, and beside what the cores allow, as JSON and as Markdown tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``). Every contender is a whole process of its
own; they run in rounds, in another order each round, on the same photographs of cats_dogs, and ratios are taken
within a round. Weights are random (seed 0) but for `storage`, and the same for every contender.

    python benchmarks/extraction.py                                    # everything; hours on two cores
    python benchmarks/extraction.py --parts speed --networks resnet50  # one part of it, the others keep their figures
    python benchmarks/extraction.py --parts curve scan --curve 1000 10000 60000
    python benchmarks/extraction.py --images 40 --rounds 1 --curve 30 60 --json /tmp/t.json   # a look
    python benchmarks/extraction.py --tables-only                      # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("speed", "layers", "curve", "scan", "storage")
NETWORKS = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50"}
TITLES = {
    "naive": "Keras script: image_dataset_from_directory, predict",
    "naive_onednn": "the same, TF_ENABLE_ONEDNN_OPTS=1",
    "tfdata": "tf.data and a frozen graph, oneDNN on",
    "tlfeat": "tlfeat",
    "memory": "its runtime fed from memory",
    "bound": "bound: decode and encode in a thread a core, nothing else",
}
ISA = "ONEDNN_MAX_CPU_ISA"  # the variable that TensorFlow's and OpenVINO's kernels both ask
BATCH_SIZE = 32  # Keras' default
BOUND_SAMPLE = 300  # images decoded and embedded in one thread, evenly spaced among all
CHECKED_IMAGES = 48  # of which rows of different contenders are compared
N_READS = 5

#: One layer, and the same with three more; these maps are the taps of TensorFlow's image segmentation tutorial.
LAYERS = {
    "one": ("avg_pool",),
    "four": ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "avg_pool"),
}
VARIANTS = {
    "float32": {"dtype": "float32", "is_compressed": False},
    "float16": {"dtype": "float16", "is_compressed": False},
    "float32 compressed": {"dtype": "float32", "is_compressed": True},
    "float16 compressed": {"dtype": "float16", "is_compressed": True},
}
STORAGE_SETS = ("cats_dogs", "potato")
MEMORY_IMAGES = 2_000  # what the peak memory of the longest run is compared with

Record = dict[str, Any]
Task = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio of two figures of the same round, and what it should be for each network; {} for no aim."""

    text: str
    above: tuple[str, str]  # contender, field
    below: tuple[str, str]
    limits: dict[str, float]
    is_at_least: bool = True


AIMS = (
    Aim(
        "images/s, tlfeat over the bound as measured",
        ("tlfeat", "images_per_s"),
        ("bound", "images_per_s"),
        dict.fromkeys(NETWORKS, 0.90),
    ),
    Aim(
        "images/s, tlfeat over cores / (decode + inference in one thread)",
        ("tlfeat", "images_per_s"),
        ("bound", "computed_images_per_s"),
        dict.fromkeys(NETWORKS, 0.90),
    ),
    Aim(  # processor time against processor time: says the same as the line above where other work shares the cores
        "CPU per image, decode + inference in one thread over tlfeat",
        ("bound", "one_thread_ms"),
        ("tlfeat", "cpu_ms_per_image"),
        {},
    ),
    Aim("images/s, tlfeat over fed from memory", ("tlfeat", "images_per_s"), ("memory", "images_per_s"), {}),
    Aim("images/s, tlfeat over Keras script", ("tlfeat", "images_per_s"), ("naive", "images_per_s"), {}),
    Aim("images/s, tlfeat over tf.data", ("tlfeat", "images_per_s"), ("tfdata", "images_per_s"), {}),
    Aim(
        "CPU per image, Keras script over tlfeat",
        ("naive", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {"mobilenet_v2": 3.3, "resnet50": 1.9},
    ),
    Aim(
        "CPU per image, Keras script with oneDNN over tlfeat",
        ("naive_onednn", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {},
    ),
    Aim(
        "CPU per image, tf.data over tlfeat",
        ("tfdata", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {"mobilenet_v2": 1.8, "resnet50": 1.2},
    ),
    Aim(
        "peak memory, tlfeat over Keras script",
        ("tlfeat", "peak_bytes"),
        ("naive", "peak_bytes"),
        dict.fromkeys(NETWORKS, 0.3),
        is_at_least=False,
    ),
)
LAYERS_AIMS = (
    Aim("CPU per image, four over one", ("four", "cpu_ms_per_image"), ("one", "cpu_ms_per_image"), {"": 1.1}, False),
    Aim("wall seconds, four over one", ("four", "steady_s"), ("one", "steady_s"), {"": 1.1}, False),
)
MEMORY_AIM = 1.10
SCAN_AIM_S, SCAN_IMAGES = 3.0, 60_000
STRAIGHT = 0.10  # seconds per image of the slowest run over those of the fastest, less 1


# --- contenders: each of these functions is what one process does -------------------------------------------


class Clock:
    """What one contender measures of itself: the start-up, and the steady part from first image to last row."""

    def __init__(self, process_started_s: float) -> None:
        self.process_started_s = process_started_s
        self.found: Record = {}

    @contextlib.contextmanager
    def steady(self, n_images: int) -> Iterator[None]:
        """Time the part from the first image to the last row."""
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        yield
        steady_s, steady_cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
        self.found |= {
            "n_images": n_images,
            "startup_s": started_s - self.process_started_s,
            "steady_s": steady_s,
            "steady_cpu_s": steady_cpu_s,
            "images_per_s": n_images / steady_s,
            "cpu_ms_per_image": 1e3 * steady_cpu_s / n_images,
        }


def keras_model(task: Task) -> tuple[Any, Callable[[Any], Any]]:
    """Return the network of a task as Keras makes it, and what has to be done to pixels before it."""
    import keras

    make, module = {
        "mobilenet_v2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2),
        "resnet50": (keras.applications.ResNet50, keras.applications.resnet50),
    }[task["network"]]
    model = make(input_shape=(224, 224, 3), include_top=False, pooling="avg", weights=None)
    model.load_weights(task["weights"])
    return model, module.preprocess_input


def run_naive(task: Task, clock: Clock) -> None:
    """What everybody writes; one batch is predicted before the clock starts, so that tracing is start-up."""
    import h5py
    import keras

    model, preprocess = keras_model(task)
    images = keras.utils.image_dataset_from_directory(
        task["folder"], image_size=(224, 224), batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    paths = images.file_paths
    images = images.map(lambda pixels, labels: preprocess(pixels))
    model.predict(images.take(1), verbose=0)
    with clock.steady(len(paths)):
        rows = model.predict(images, verbose=0)
        with h5py.File(task["rows"], "w") as file:
            file["rows"] = rows
            file["paths"] = paths


def run_tfdata(task: Task, clock: Clock) -> None:
    """The best that tf.data gives: parallel decoding, prefetch, a frozen graph with preprocessing inside."""
    import h5py
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model, preprocess = keras_model(task)
    function = tf.function(lambda pixels: model(preprocess(pixels), training=False))
    frozen = convert_variables_to_constants_v2(
        function.get_concrete_function(tf.TensorSpec((None, 224, 224, 3), tf.float32))
    )

    def load(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(pixels, (224, 224))  # bilinear, (224, 224, 3)

    paths = sorted(map(str, Path(task["folder"]).glob("*/*")))
    images = tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    for batch in images.take(1):
        frozen(batch)
    with clock.steady(len(paths)):
        rows = np.concatenate([frozen(batch)[0].numpy() for batch in images])
        with h5py.File(task["rows"], "w") as file:
            file["rows"] = rows
            file["paths"] = paths


def plan(task: Task) -> Any:
    """Return the job that ``tlfeat extract`` would run, into a cache file that is not there yet."""
    from tlfeat.extract.plan import plan_extraction

    cache = Path(task["cache"])
    for stale in cache.parent.glob(f"*{cache.name}*"):  # a journal, too, of a run that was killed
        stale.unlink()
    return plan_extraction(
        Path(task["folder"]),
        backbone=task["network"],
        weights=task["weights"],
        layers=task.get("layers", ("avg_pool",)),
        cache=cache,
        dtype=task.get("dtype"),
        resize=task.get("resize"),
    )


def run_tlfeat(task: Task, clock: Clock) -> None:
    """`extract`; the network is loaded before the clock starts, everything else of a run is in the steady part."""
    job = plan(task)
    job.encoder.prepare()
    with clock.steady(len(job.images)):
        report = job.run(is_compressed=task.get("is_compressed", False))
    if report.n_embedded != len(job.images) or not report.runtime.startswith("openvino"):
        raise SystemExit(f"{report.n_embedded} of {len(job.images)} embedded by {report.runtime}: {report.notes}")
    clock.found["runtime"] = report.runtime


def run_memory(task: Task, clock: Clock) -> None:
    """The same runtime, every picture decoded before: what the network alone takes on all cores."""
    from tlfeat.images.decode import decode_all, n_cores

    job = plan(task)
    encoder = job.encoder
    encoder.prepare()
    files = [job.images.file(i) for i in range(len(job.images))]
    pixels = [decoded.pixels for decoded in decode_all(enumerate(files), encoder.input_size, resize=encoder.resize)]
    batches = iter([np.stack(pixels[i : i + encoder.batch_size]) for i in range(0, len(pixels), encoder.batch_size)])
    del pixels
    with clock.steady(len(files)):
        in_threads(n_cores(), lambda: [encoder.encode(batch) for batch in batches])


def run_bound(task: Task, clock: Clock) -> None:
    """What decoding and inference take in one thread, and how fast a thread a core gets through both."""
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.images.decode import decode_bytes, decode_file, n_cores, read_file

    job = plan(task)
    encoder = job.encoder
    files = [job.images.file(i) for i in range(len(job.images))]
    sample = (
        [files[i * len(files) // BOUND_SAMPLE] for i in range(BOUND_SAMPLE)] if len(files) > BOUND_SAMPLE else files
    )
    size = encoder.input_size

    one = KerasEncoder(encoder.spec, encoder.layers, n_threads=1)
    one.prepare()
    started_cpu_s = time.process_time()
    decoded = [decode_file(i, file, size, lambda key: False, encoder.resize) for i, file in enumerate(sample)]
    decode_ms = 1e3 * (time.process_time() - started_cpu_s) / len(sample)
    pixels = np.stack([found.pixels for found in decoded])
    started_cpu_s = time.process_time()
    for i in range(0, len(pixels), one.batch_size):
        one.encode(pixels[i : i + one.batch_size])
    inference_ms = 1e3 * (time.process_time() - started_cpu_s) / len(sample)
    del one, decoded, pixels

    encoder.prepare()
    shares = iter([files[i : i + encoder.batch_size] for i in range(0, len(files), encoder.batch_size)])

    def work() -> None:
        for share in shares:
            encoder.encode(np.stack([decode_bytes(read_file(file), size, encoder.resize) for file in share]))

    with clock.steady(len(files)):
        in_threads(n_cores(), work)
    clock.found |= {
        "decode_ms": decode_ms,
        "inference_ms": inference_ms,
        "one_thread_ms": decode_ms + inference_ms,
        "n_cores": n_cores(),
        "computed_images_per_s": 1e3 * n_cores() / (decode_ms + inference_ms),
    }


def run_convert(task: Task, clock: Clock) -> None:
    """Make random weights where they are not there yet, and the converted network: once, in no figure."""
    from tlfeat.backbones.network import BackboneSpec, build_base

    weights = Path(task["weights"])
    if not weights.exists():
        aside = weights.with_name(f"aside-{weights.name}")
        build_base(BackboneSpec(task["network"], "random"), (224, 224)).save_weights(aside)
        aside.rename(weights)
    plan(task).encoder.prepare()


def run_check(task: Task, clock: Clock) -> None:
    """Compare the rows of the scripts with those of tlfeat where pictures are resized as the scripts do.

    TensorFlow decodes JPEG with a faster and coarser DCT than everyone else; told not to, it should give the same rows.
    """
    import h5py
    import tensorflow as tf

    from tlfeat.cache.store import open_cache

    report = plan(task).run()
    with open_cache(report.cache) as cache:
        table = cache.table
        rows = cache.read("avg_pool", table.keys)
    theirs = {}
    for name, file_name in task["compared"].items():
        with h5py.File(file_name) as file:
            paths = ["/".join(Path(path.decode()).parts[-2:]) for path in file["paths"]]
            theirs[name] = file["rows"][:][[paths.index(path) for path in table.images.paths]]

    def decode(path: str) -> Any:
        data = tf.io.read_file(str(table.images.root / path))
        return tf.image.resize(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), (224, 224))

    model, preprocess = keras_model(task)
    pixels = tf.stack([decode(path) for path in table.images.paths])
    theirs["accurate"] = model.predict(preprocess(pixels), verbose=0)
    for name, expected in theirs.items():
        distances = np.linalg.norm(rows[:, None] - expected[None], axis=2)  # (n, n)
        clock.found[name] = {
            "n_images": len(rows),
            "largest_difference": float(np.abs(rows - expected).max() / np.abs(expected).max()),
            "share_nearest_to_itself": float((distances.argmin(axis=1) == np.arange(len(rows))).mean()),
        }


def run_storage(task: Task, clock: Clock) -> None:
    """`extract` into one kind of file, its size, and reading all rows again (from the page cache)."""
    from tlfeat.cache.store import open_cache

    run_tlfeat(task, clock)
    read_s = []
    for _ in range(N_READS):
        with open_cache(Path(task["cache"])) as cache:
            keys = cache.table.keys
            started_s = time.monotonic()
            cache.read("avg_pool", keys)
            read_s.append(time.monotonic() - started_s)
    clock.found |= {"read_s": statistics.median(read_s), "file_bytes": Path(task["cache"]).stat().st_size}


def run_accuracy(task: Task, clock: Clock) -> None:
    """Fit and test the logreg head on the rows of a cache, once for each split seed."""
    from tlfeat.evaluate.data import open_data
    from tlfeat.models.fit_sklearn import fit_sklearn

    clock.found["accuracies"] = []
    for seed in task["seeds"]:
        with open_data(Path(task["cache"]), seed=seed) as data:
            outcome = fit_sklearn(data, "logreg", is_fresh=True)
        clock.found["accuracies"].append(outcome.result.score.accuracy)


def in_threads(n_threads: int, work: Callable[[], Any]) -> None:
    """Call `work` in several threads and wait for all; the first exception is raised here."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


CONTENDERS: dict[str, Callable[[Task, Clock], None]] = {
    "naive": run_naive,
    "naive_onednn": run_naive,
    "tfdata": run_tfdata,
    "tlfeat": run_tlfeat,
    "memory": run_memory,
    "bound": run_bound,
    "convert": run_convert,
    "check": run_check,
    "storage": run_storage,
    "accuracy": run_accuracy,
}


def be_contender(args: argparse.Namespace) -> int:
    """Be one contender: read the task, run it, write what it measured."""
    clock = Clock(args.started_s)
    task = json.loads(args.task.read_text(encoding="utf-8"))
    CONTENDERS[args.contender](task, clock)
    args.out.write_text(json.dumps(clock.found), encoding="utf-8")
    return 0


# --- running processes --------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell the progress on stderr."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", file=sys.stderr, flush=True)


def environment_for(contender: str) -> dict[str, str]:
    """Return the variables of a contender's process: no GPU, and oneDNN as TensorFlow or the contender has it."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    if contender in ("naive_onednn", "tfdata"):
        return environment | {"TF_ENABLE_ONEDNN_OPTS": "1"}
    # without AVX-512, TensorFlow on AMD leaves oneDNN off unless it is told otherwise
    return environment | ({"TF_ENABLE_ONEDNN_OPTS": "0"} if contender == "naive" and ISA in environment else {})


def run_process(command: Sequence[str | Path], work: Path, environment: dict[str, str]) -> Record:
    """Run a command and return its wall and processor seconds (its children's included) and peak memory."""
    with (work / "stdout").open("wb") as out, (work / "stderr").open("wb") as errors:
        started_s = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), cwd=work, env=environment, stdout=out, stderr=errors)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.monotonic() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = (work / "stderr").read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{tail}")
    scale = 1 if sys.platform == "darwin" else 1024
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * scale}


def run_contender(contender: str, task: Task, work: Path) -> Record:
    """Run one contender as a process and return all that was measured of it."""
    task_file, out = work / "task.json", work / "out.json"
    task_file.write_text(json.dumps(task), encoding="utf-8")
    out.unlink(missing_ok=True)
    command = [sys.executable, Path(__file__).resolve(), "--contender", contender, "--task", task_file, "--out", out]
    load = os.getloadavg()[0]
    used = run_process([*command, "--started-s", str(time.monotonic())], work, environment_for(contender))
    return {**json.loads(out.read_text(encoding="utf-8")), **used, "load_average_before": round(load, 2)}


def in_turn(names: Sequence[str], n_rounds: int) -> Iterator[tuple[int, str]]:
    """Give every name once a round, in an order that is drawn for each round but the first (seed: the round)."""
    for n in range(n_rounds):
        order = list(names)
        if n:
            random.Random(n).shuffle(order)
        yield from ((n, name) for name in order)


# --- pictures -----------------------------------------------------------------------------------------------


def unpack(name: str, shared: Path, work: Path) -> Path:
    """Unpack a data set below `work` unless it is there, and return its folder."""
    folder = work / "data" / name
    if not folder.exists():
        say(f"unpacking {name}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as aside,
            tarfile.open(shared / "data" / f"{name}.tar") as archive,
        ):
            archive.extractall(aside, filter="data")
            (Path(aside) / name).rename(folder)
    return folder


def evenly(values: Sequence[Any], n: int | None) -> list[Any]:
    """Return `n` of the values, evenly spaced; all where there are no more."""
    if n is None or n >= len(values):
        return list(values)
    return [values[i * len(values) // n] for i in range(n)]


def flat_photos(shared: Path, work: Path, n: int | None) -> Path:
    """Return a folder CLASS/SPLIT-NAME of cats_dogs photographs, train and test together: one list for everyone."""
    source = unpack("cats_dogs", shared, work)
    files = evenly(sorted(source.glob("*/*/*.jpg")), n)
    places = {file: f"{file.parent.name}/{file.parent.parent.name}-{file.name}" for file in files}
    return link_all(places, work / f"photographs-{len(files)}")


def link_all(places: dict[Path, str], folder: Path) -> Path:
    """Fill a folder with links to files, so that one picture lies on the disk once."""
    shutil.rmtree(folder, ignore_errors=True)
    for file, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / place)
    return folder


def many_photos(shared: Path, work: Path, n: int) -> Path:
    """Return a folder of `n` photographs, all different: bytes behind the end of the JPEG change the content key.

    They are an hour old: `extract` trusts no time stamp of the last two seconds.
    """
    folder = work / f"curve-{n}"
    files = sorted(unpack("cats_dogs", shared, work).glob("*/*/*.jpg"))
    random.Random(0).shuffle(files)  # so that the first thousand are as large as all
    say(f"writing {n:,} photographs")
    shutil.rmtree(folder, ignore_errors=True)
    for name in {file.parent.name for file in files}:
        (folder / name).mkdir(parents=True)
    hour_ago_s = time.time() - 3600
    for i in range(n):
        file = files[i % len(files)]
        place = folder / file.parent.name / f"{i:06d}.jpg"
        place.write_bytes(file.read_bytes() + b"copy %06d" % (i // len(files)))
        os.utime(place, (hour_ago_s, hour_ago_s))
    return folder


def first_of(folder: Path, n: int) -> Path:
    """Return a folder of the first `n` of `many_photos`."""
    files = sorted(folder.glob("*/*.jpg"), key=lambda file: file.name)[:n]
    return link_all({file: f"{file.parent.name}/{file.name}" for file in files}, folder.with_name(f"curve-{n}"))


# --- the parts ----------------------------------------------------------------------------------------------


def measure_speed(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run all contenders in rounds, for each network."""
    folder = flat_photos(args.shared, args.work, args.images)
    files = sorted(folder.glob("*/*.jpg"))
    for network in args.networks:
        task = base_task(network, folder, args.work)
        say(f"{network}: making and converting it, in no figure")
        run_contender("convert", task, args.work)
        record = new_record(args, len(files), network=network, runs=[])
        for n, name in in_turn(list(TITLES), args.rounds):
            found = run_contender(name, {**task, "rows": str(args.work / f"{name}.h5")}, args.work)
            record["runs"].append({"round": n, "name": name, **found})
            say(f"{network} round {n + 1}: {name}: {found['images_per_s']:.1f} images/s")
            save(network + args.isa, record)
        places = {file: f"{file.parent.name}/{file.name}" for file in evenly(files, CHECKED_IMAGES)}
        checked = link_all(places, args.work / "checked")
        compared = {name: str(args.work / f"{name}.h5") for name in ("naive", "naive_onednn", "tfdata")}
        check = {**task, "folder": str(checked), "resize": "dataset", "compared": compared}
        found = run_contender("check", check, args.work)
        record["check"] = {name: found[name] for name in (*compared, "accurate")}
        save(network + args.isa, {**record, "is_complete": True})


def measure_layers(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run one layer against four, in rounds."""
    folder = flat_photos(args.shared, args.work, args.images)
    tasks = {
        name: {**base_task("mobilenet_v2", folder, args.work), "layers": layers} for name, layers in LAYERS.items()
    }
    for task in tasks.values():
        run_contender("convert", task, args.work)
    record = new_record(args, len(list(folder.glob("*/*"))), layers=LAYERS, runs=[])
    for n, name in in_turn(list(LAYERS), args.rounds):
        found = run_contender("tlfeat", tasks[name], args.work)
        record["runs"].append({"round": n, "name": name, **found})
        say(f"layers round {n + 1}: {name}: {found['images_per_s']:.1f} images/s")
    save("", {**record, "is_complete": True})


def measure_curve(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run tlfeat on more and more photographs."""
    sizes = sorted({*args.curve, *({MEMORY_IMAGES} if max(args.curve) > MEMORY_IMAGES else set())})
    largest = many_photos(args.shared, args.work, sizes[-1])
    folders = {n: largest if n == sizes[-1] else first_of(largest, n) for n in sizes}
    tasks = {
        str(n): {**base_task("mobilenet_v2", folder, args.work), "cache": str(args.work / f"curve-{n}.h5")}
        for n, folder in folders.items()
    }
    run_contender("convert", {**tasks[str(sizes[0])], "cache": str(args.work / "none.h5")}, args.work)
    record = new_record(args, sizes[-1], n_rounds=args.curve_rounds, runs=[])
    for n, name in in_turn(list(tasks), args.curve_rounds):
        found = run_contender("tlfeat", tasks[name], args.work)
        record["runs"].append({"round": n, "name": name, **found})
        say(f"curve: {name} images: {found['images_per_s']:.1f} images/s")
    save("", {**record, "is_complete": True})


def measure_scan(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run the command again on unchanged photographs, then on a few that changed.

    Where `curve` was run before, on its photographs and its cache; else with the "pixels" backbone, which makes a
    cache of as many images sooner.
    """
    n_images = max(args.curve)
    folder, cache = args.work / f"curve-{n_images}", args.work / f"curve-{n_images}.h5"
    backbone = "mobilenet_v2"
    if not cache.exists():
        folder, cache, backbone = many_photos(args.shared, args.work, n_images), args.work / "scan.h5", "pixels"
    options = ["--backbone", backbone, "--cache", cache]
    options += ["--weights", args.work / f"{backbone}.weights.h5"] if backbone != "pixels" else []
    command = [sys.executable, "-m", "tlfeat", "extract", folder, *options, "--json", "--quiet"]

    def extract() -> Record:
        used = run_process(command, args.work, environment_for("tlfeat"))
        report = json.loads((args.work / "stdout").read_text(encoding="utf-8"))
        return {**used, "n_embedded": report["n_embedded"], "n_failed": len(report["failures"])}

    record = new_record(args, n_images, backbone=backbone, runs=[])
    if backbone == "pixels":
        extract()
    for n in range(args.rounds):
        record["runs"].append({"round": n, "name": "unchanged", **extract()})
        say(f"scan: {n_images:,} unchanged: {record['runs'][-1]['cpu_s']:.2f} s of processor time")
    record["n_expected"] = change_some(folder)
    try:
        record["runs"].append({"round": 0, "name": "changed", **extract()})
        record["runs"].append({"round": 0, "name": "and again", **extract()})
    finally:
        shutil.rmtree(folder)  # it is not what its name says any more
        cache.unlink(missing_ok=True)
    save("", {**record, "is_complete": True})


def change_some(folder: Path) -> int:
    """Change one photograph, add ten, remove five, move forty; return how many pictures are new by that."""
    files = sorted(folder.glob("*/*.jpg"))
    changed, removed, moved = files[0], files[1:6], files[6:46]
    data = changed.read_bytes()
    changed.unlink()  # a link of another folder keeps the old bytes
    changed.write_bytes(data + b"changed")
    for k in range(10):
        (folder / "cats" / f"added-{k}.jpg").write_bytes(data + b"added %d" % k)
    for file in removed:
        file.unlink()
    for file in moved:
        file.rename(file.with_name(f"moved-{file.name}"))
    return 1 + 10


def measure_storage(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run every kind of cache file on two sets, with the shared weights, which have learned something."""
    weights = args.shared / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    for name in STORAGE_SETS:
        folder = unpack(name, args.shared, args.work)
        source, n_images = limited_table(folder, args.images, args.work)
        seeds = [0] if (folder / "test").is_dir() else list(range(args.splits))
        tasks = {
            variant: {
                "network": "mobilenet_v2_0.35",
                "weights": str(weights),
                "folder": str(source),
                "cache": str(args.work / f"{name}-{variant.replace(' ', '-')}.h5"),
                "seeds": seeds,
                **options,
            }
            for variant, options in VARIANTS.items()
        }
        run_contender("convert", tasks["float32"], args.work)  # the kind of file is not its business
        record = new_record(args, n_images, set=name, seeds=seeds, runs=[], accuracies={})
        for n, variant in in_turn(list(VARIANTS), args.rounds):
            found = run_contender("storage", tasks[variant], args.work)
            record["runs"].append({"round": n, "name": variant, **found})
            say(f"storage {name} round {n + 1}: {variant}: {found['file_bytes']:,} bytes")
        for variant, task in tasks.items():
            record["accuracies"][variant] = run_contender("accuracy", task, args.work)["accuracies"]
        save(name, {**record, "is_complete": True})


def limited_table(folder: Path, n: int | None, work: Path) -> tuple[Path, int]:
    """Return the folder, or a folder with `n` of its pictures in the same places, and how many there are."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if n is None or n >= len(files):
        return folder, len(files)
    places = {file: str(file.relative_to(folder)) for file in evenly(files, n)}
    return link_all(places, work / f"{folder.name}-{n}"), n


MEASURE = {
    "speed": measure_speed,
    "layers": measure_layers,
    "curve": measure_curve,
    "scan": measure_scan,
    "storage": measure_storage,
}


def base_task(network: str, folder: Path, work: Path) -> Task:
    """Return the task that every contender understands."""
    return {
        "network": network,
        "weights": str(work / f"{network}.weights.h5"),
        "folder": str(folder),
        "cache": str(work / "rows.h5"),
    }


def new_record(args: argparse.Namespace, n_images: int, **more: Any) -> Record:
    """Return what is known of a part before it starts."""
    from tlfeat.records import Environment, distribution_version

    return {
        "is_complete": False,
        "n_images": n_images,
        "n_rounds": args.rounds,
        "command": command_line(args),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": cpu_name(),
        "environment": Environment.current().to_dict(),
        "openvino": distribution_version("openvino"),
        **more,
    }


def command_line(args: argparse.Namespace) -> str:
    """Return the command without the options that only say where things lie."""
    parts = ["python benchmarks/extraction.py", "--parts", *args.parts, "--networks", *args.networks]
    parts += ["--rounds", str(args.rounds), *(["--images", str(args.images)] if args.images else [])]
    if {"curve", "scan"} & set(args.parts):
        parts += ["--curve", *map(str, args.curve), "--curve-rounds", str(args.curve_rounds)]
    return " ".join([*parts, *(["--splits", str(args.splits)] if "storage" in args.parts else [])])


def cpu_name() -> str:
    """Return the name of the processor where ``/proc/cpuinfo`` tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# --- the JSON file ------------------------------------------------------------------------------------------


def read_results(path: Path) -> dict[str, dict[str, Record]]:
    """Return the records of earlier runs: part, then network or set ("" where there is one), to record."""
    from tlfeat.workspace import read_json

    results: dict[str, dict[str, Record]] = read_json(path)["parts"] if path.exists() else {}
    return results


def save_record(path: Path, part: str, key: str, record: Record) -> None:
    """Take a record into the file; a complete one gives way to nothing but a complete one."""
    from tlfeat.workspace import write_json

    results = read_results(path)
    known = results.setdefault(part, {}).get(key)
    if known is None or record["is_complete"] or not known["is_complete"]:
        results[part][key] = record
    parts = {name: results[name] for name in PARTS if name in results}
    write_json(path, {"format_version": 1, "parts": parts})


def what_would_be_lost(known: Record, n_images: int | None, n_rounds: int) -> str:
    """Return what a complete earlier record has more than this run would measure, "" for nothing."""
    losses = [
        (f"{known['n_images']:,} images", n_images is not None and n_images < known["n_images"]),
        (f"{known['n_rounds']} rounds", n_rounds < known["n_rounds"]),
    ]
    return ", ".join(what for what, is_lost in losses if is_lost and known["is_complete"])


def check_losses(args: argparse.Namespace) -> None:
    """Stop before anything is measured where earlier and larger results would be replaced."""
    for part, records in read_results(args.json).items():
        for key, known in records.items():
            if part not in args.parts or (part == "speed" and key not in [n + args.isa for n in args.networks]):
                continue
            is_long = part in ("curve", "scan")
            n_rounds = args.curve_rounds if part == "curve" else args.rounds
            lost = what_would_be_lost(known, max(args.curve) if is_long else args.images, n_rounds)
            if lost:
                raise SystemExit(f"{args.json} has {part} {key} with {lost}. --replace or another --json helps.")


# --- summary and tables -------------------------------------------------------------------------------------


def ratios(runs: Sequence[Record], above: tuple[str, str], below: tuple[str, str]) -> list[float]:
    """Return one field of a contender over one of another, for each round that has both."""
    by_round = {(run["round"], run["name"]): run for run in runs}
    rounds = sorted({run["round"] for run in runs})
    pairs = [(by_round.get((n, above[0])), by_round.get((n, below[0]))) for n in rounds]
    return [one[above[1]] / other[below[1]] for one, other in pairs if one is not None and other is not None]


def summarise(runs: Sequence[Record], aims: Sequence[Aim], network: str = "") -> list[Record]:
    """Return for each aim the median of its ratios, their range, the limit and whether it is met (None: no aim)."""
    found = []
    for aim in aims:
        values = ratios(runs, aim.above, aim.below)
        if not values:
            continue
        limit, median = aim.limits.get(network), statistics.median(values)
        found.append(
            {
                "text": aim.text,
                "median": median,
                "low": min(values),
                "high": max(values),
                "limit": limit,
                "is_at_least": aim.is_at_least,
                "is_met": None if limit is None else median >= limit if aim.is_at_least else median <= limit,
            }
        )
    return found


def verdict(is_met: bool | None) -> str:
    """Return the word of the tables."""
    return "–" if is_met is None else "met" if is_met else "**not met**"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def aims_table(summary: Sequence[Record]) -> str:
    """Return the ratios beside the aims."""
    rows = [
        (
            line["text"],
            f"{line['median']:.2f} ({line['low']:.2f} to {line['high']:.2f})",
            "–" if line["limit"] is None else f"{'≥' if line['is_at_least'] else '≤'} {line['limit']:.2f}",
            verdict(line["is_met"]),
        )
        for line in summary
    ]
    return table(("ratio within a round", "median (range)", "aim", ""), rows)


def spread(runs: Sequence[Record], name: str, field: str, form: str, scale: float = 1.0) -> str:
    """Return median and range of one field of one contender, "–" where it was not measured."""
    values = [scale * run[field] for run in runs if run["name"] == name]
    if not values:
        return "–"
    low, high = format(min(values), form), format(max(values), form)
    median = format(statistics.median(values), form)
    return median if low == high else f"{median} ({low} to {high})"


def runs_table(runs: Sequence[Record], titles: dict[str, str]) -> str:
    """Return what every contender took, one a line."""
    columns = (
        ("images/s", "images_per_s", ".1f", 1.0),
        ("CPU ms/image", "cpu_ms_per_image", ".1f", 1.0),
        ("CPU s, steady", "steady_cpu_s", ".1f", 1.0),
        ("CPU s, process", "cpu_s", ".1f", 1.0),
        ("wall s, process", "wall_s", ".1f", 1.0),
        ("start-up s", "startup_s", ".1f", 1.0),
        ("peak memory MB", "peak_bytes", ".0f", 1e-6),
    )
    rows = [
        (title, *(spread(runs, name, field, form, scale) for _, field, form, scale in columns))
        for name, title in titles.items()
        if any(run["name"] == name for run in runs)
    ]
    return table(("contender", *(heading for heading, *_ in columns)), rows)


def conditions(record: Record) -> str:
    """Return how one record was measured, on a line."""
    loads = [run["load_average_before"] for run in record["runs"] if "load_average_before" in run]
    load = f" Load average (1 minute) before a run: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    state = "" if record["is_complete"] else " **Stopped before its end.**"
    images, rounds, date = f"{record['n_images']:,}", record["n_rounds"], record["date"]
    return f"Images: {images}; rounds: {rounds}; {date}; `{record['command']}`.{load}{state}"


def machines(results: dict[str, dict[str, Record]]) -> str:
    """Return processors and versions of all records, each that differs on a line."""
    lines = {}
    for record in (record for part in results.values() for record in part.values()):
        environment = record["environment"]
        packages = {"tlfeat": environment["tlfeat"], "Python": environment["python"], **environment["packages"]}
        packages["openvino"] = record["openvino"]
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lines[f"{record['cpu']}, {environment['n_cpus']} cores, no GPU used; {versions}."] = None
    return "\n".join(f"- {line}" for line in lines)


def speed_tables(records: dict[str, Record]) -> str:
    """Return the contenders, the ratios and the check of rows for each network."""
    parts = [
        "Median (range) over rounds. Steady: from the first image to the last row, the network being loaded and run "
        "once. Start-up: from the start of the process to there, so for the two last lines it is longer by what they "
        "do beforehand (decoding everything; one thread), which is in their process figures too.",
    ]
    order = list(NETWORKS)
    for key in sorted(records, key=lambda key: ("@" in key, order.index(key.partition("@")[0]))):
        record = records[key]
        network, _, isa = key.partition("@")
        runs = record["runs"]
        title = NETWORKS[network] + (f", every contender held to {isa} instructions" if isa else "")
        parts += [f"### {title}", conditions(record), runs_table(runs, TITLES)]
        parts.append(
            f"One thread: {spread(runs, 'bound', 'decode_ms', '.2f')} ms to read and decode, "
            f"{spread(runs, 'bound', 'inference_ms', '.2f')} ms of inference (CPU per image); all cores at that: "
            f"{spread(runs, 'bound', 'computed_images_per_s', '.1f')} images/s."
        )
        parts.append(aims_table(summarise(runs, AIMS, network)))
        parts.append(check_text(record.get("check", {})))
    return "\n\n".join(parts)


def check_text(checks: dict[str, Record]) -> str:
    """Return how near the rows of the scripts are to those of tlfeat where it resizes as they do."""
    lines = [
        f"- {'decoded by TensorFlow with dct_method=INTEGER_ACCURATE' if name == 'accurate' else name}: largest "
        f"difference {check['largest_difference']:.1e} of the largest value; for "
        f"{100 * check['share_nearest_to_itself']:.0f} % of {check['n_images']} images the nearest row is that of the "
        "same picture"
        for name, check in checks.items()
    ]
    return "\n".join(["Rows beside those of tlfeat with resize=dataset:", "", *lines]) if lines else ""


def layers_tables(records: dict[str, Record]) -> str:
    """Return one layer against four."""
    record = records[""]
    titles = {name: f"{name}: {', '.join(layers)}" for name, layers in record["layers"].items()}
    summary = summarise(record["runs"], LAYERS_AIMS)
    return "\n\n".join([conditions(record), runs_table(record["runs"], titles), aims_table(summary)])


def curve_summary(runs: Sequence[Record]) -> Record:
    """Return how straight the line is, and how the peak memory of the longest run compares."""
    sizes = sorted({int(run["name"]) for run in runs})

    def median(n: int, field: str) -> float:
        return statistics.median(run[field] for run in runs if run["name"] == str(n))

    wall = [median(n, "steady_s") / n for n in sizes]
    cpu = [median(n, "cpu_ms_per_image") for n in sizes]
    base = MEMORY_IMAGES if MEMORY_IMAGES in sizes else sizes[0]
    memory = median(sizes[-1], "peak_bytes") / median(base, "peak_bytes")
    return {
        "wall_deviation": max(wall) / min(wall) - 1,
        "cpu_deviation": max(cpu) / min(cpu) - 1,
        "memory_base": base,
        "memory_ratio": memory,
        "is_straight": max(wall) / min(wall) - 1 <= STRAIGHT,
        "is_memory_flat": memory <= MEMORY_AIM,
    }


def curve_tables(records: dict[str, Record]) -> str:
    """Return seconds, rate and memory against the number of images."""
    record = records[""]
    runs = record["runs"]
    sizes = sorted({int(run["name"]) for run in runs})
    rows = [
        (
            f"{n:,}",
            spread(runs, str(n), "steady_s", ".1f"),
            spread(runs, str(n), "images_per_s", ".1f"),
            spread(runs, str(n), "cpu_ms_per_image", ".2f"),
            spread(runs, str(n), "peak_bytes", ".0f", 1e-6),
        )
        for n in sizes
    ]
    found = curve_summary(runs)
    return "\n\n".join(
        [
            conditions(record),
            table(("images", "seconds", "images/s", "CPU ms/image", "peak memory MB"), rows),
            f"- Straight line: seconds per image are the same within {100 * found['wall_deviation']:.0f} % (aim: "
            f"{100 * STRAIGHT:.0f} %), {verdict(found['is_straight'])}; CPU per image within "
            f"{100 * found['cpu_deviation']:.0f} %.\n"
            f"- Peak memory for {sizes[-1]:,} over that for {found['memory_base']:,}: {found['memory_ratio']:.2f} "
            f"(aim: ≤ {MEMORY_AIM:.2f}), {verdict(found['is_memory_flat'])}.",
        ]
    )


def scan_tables(records: dict[str, Record]) -> str:
    """Return what a run costs where nothing or little changed."""
    record = records[""]
    runs = record["runs"]
    titles = {
        "unchanged": "nothing changed",
        "changed": "1 changed, 10 added, 5 removed, 40 moved",
        "and again": "the same once more",
    }
    rows = [
        (
            title,
            spread(runs, name, "cpu_s", ".2f"),
            spread(runs, name, "wall_s", ".2f"),
            spread(runs, name, "peak_bytes", ".0f", 1e-6),
            spread(runs, name, "n_embedded", ".0f"),
        )
        for name, title in titles.items()
    ]
    median = statistics.median(run["cpu_s"] for run in runs if run["name"] == "unchanged")
    is_met = median <= SCAN_AIM_S if record["n_images"] >= SCAN_IMAGES else None
    n_embedded = next(run["n_embedded"] for run in runs if run["name"] == "changed")
    headings = ("tlfeat extract", "CPU s, process", "wall s, process", "peak memory MB", "forward passes")
    return "\n\n".join(
        [
            f"{conditions(record)} Backbone: {record['backbone']}.",
            table(headings, rows),
            f"- {record['n_images']:,} unchanged images: {median:.2f} s of processor time (aim: ≤ {SCAN_AIM_S:.0f} s "
            f"for {SCAN_IMAGES:,}), {verdict(is_met)}.\n"
            f"- Forward passes after the changes: {n_embedded} (aim: {record['n_expected']}), "
            f"{verdict(n_embedded == record['n_expected'])}.",
        ]
    )


def storage_tables(records: dict[str, Record]) -> str:
    """Return size, times and accuracy of every kind of file for each set."""
    parts = ["Reading is all rows at once, from the page cache; accuracies are those of logreg on the test images."]
    for name, record in records.items():
        runs = record["runs"]
        first = next(iter(VARIANTS))
        sizes = {
            variant: statistics.median(run["file_bytes"] for run in runs if run["name"] == variant)
            for variant in VARIANTS
        }
        rows = [
            (
                variant,
                f"{sizes[variant] / 1e6:.2f} MB",
                f"{sizes[variant] / sizes[first]:.2f}",
                spread(runs, variant, "steady_s", ".1f"),
                spread(runs, variant, "read_s", ".1f", 1e3),
                accuracy_text(record["accuracies"][variant]),
            )
            for variant in VARIANTS
        ]
        headings = ("rows", "file", f"over {first}", "extract s", "read ms", "accuracy")
        parts += [f"### {name}", conditions(record), table(headings, rows)]
    return "\n\n".join(parts)


def accuracy_text(accuracies: Sequence[float]) -> str:
    """Return one accuracy, or mean and standard deviation over the splits."""
    text = f"{100 * statistics.mean(accuracies):.2f}"
    return f"{text} %" if len(accuracies) < 2 else f"{text} ± {100 * statistics.stdev(accuracies):.2f} %"


TABLES = {
    "speed": ("Speed", speed_tables),
    "layers": ("Several layers in one pass", layers_tables),
    "curve": ("More and more images", curve_tables),
    "scan": ("Nothing twice", scan_tables),
    "storage": ("float16 and compression", storage_tables),
}


def tables(results: dict[str, dict[str, Record]]) -> str:
    """Return the tables of every part that was measured."""
    parts = [f"## {title}\n\n{show(results[part])}" for part, (title, show) in TABLES.items() if part in results]
    return "\n\n".join([machines(results), *parts]) if parts else "Nothing was measured yet."


# --- the command --------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; every path is absolute, because contenders run in a folder of their own."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add, shared = parser.add_argument, os.environ.get("TLFEAT_SHARED")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    add("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="of speed; default: both")
    add("--isa", choices=["AVX2"], help="of speed: what a processor with these instructions and no more would take")
    add("--images", type=positive, help="at most so many of each set, evenly spaced; default: all")
    add("--rounds", type=positive, default=5, help="every contender once a round (5)")
    add("--curve", type=positive, nargs="+", default=[1000, 10_000, 60_000], help="numbers of images; scan: the most")
    add("--curve-rounds", type=positive, default=1, help="rounds of the curve (1)")
    add("--splits", type=positive, default=5, help="seeds of the split of potato in storage (5)")
    add("--shared", type=Path, default=Path(shared) if shared else ROOT.parent / "shared", help="data and weights")
    add("--work", type=Path, help="folder for pictures, weights and caches; default: a temporary one")
    add("--json", type=Path, default=ROOT / "benchmarks" / "results" / "extraction.json")
    add("--tables-only", action="store_true", help="only print the Markdown from the JSON")
    add("--replace", action="store_true", help="also replace results of more images or rounds")
    add("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    add("--task", type=Path, help=argparse.SUPPRESS)
    add("--out", type=Path, help=argparse.SUPPRESS)
    add("--started-s", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.shared, args.json = args.shared.resolve(), args.json.resolve()
    if args.isa and not args.contender:
        os.environ[ISA] = args.isa
    args.isa = f"@{args.isa}" if args.isa else ""
    if {"curve", "scan"} & set(args.parts) and max(args.curve) < 60 and not (args.contender or args.tables_only):
        parser.error("--curve needs at least 60 images: scan changes, removes and moves 46 of them")
    if not args.contender and not args.tables_only and not (args.shared / "data").is_dir():
        parser.error(f"no data in {args.shared}: set TLFEAT_SHARED or --shared")
    return args


def main(arguments: Sequence[str]) -> int:
    """Run what the options ask for and return the exit code."""
    args = parse_arguments(arguments)
    if args.contender:
        return be_contender(args)
    if not args.tables_only:
        if not args.replace:
            check_losses(args)
        with contextlib.ExitStack() as stack:
            if args.work is None:
                args.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlfeat-extraction-")))
            args.work = args.work.resolve()
            args.work.mkdir(parents=True, exist_ok=True)
            for part in PARTS:
                if part in args.parts:
                    MEASURE[part](args, lambda key, record, part=part: save_record(args.json, part, key, record))
    print(tables(read_results(args.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
