"""One contender of `extraction.py`, a whole process of its own: what it does, timed from first image to last row.

    python benchmarks/extraction_contenders.py NAME --task FILE --out FILE --started-s SECONDS

A contender imports nothing that it does not need, tlfeat least of all: its memory and its start-up are figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32  # Keras' default
BOUND_SAMPLE = 300  # images decoded and embedded in one thread, evenly spaced among all
N_READS = 5

Record = dict[str, Any]
Task = dict[str, Any]


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
        "inception_v3": (keras.applications.InceptionV3, keras.applications.inception_v3),
    }[task["network"]]
    model = make(input_shape=(*size_of(task), 3), include_top=False, pooling="avg", weights=None)
    model.load_weights(task["weights"])
    return model, module.preprocess_input


def size_of(task: Task) -> tuple[int, int]:
    """Return height and width that the network of a task wants."""
    return (299, 299) if task["network"] == "inception_v3" else (224, 224)


def run_naive(task: Task, clock: Clock) -> None:
    """What everybody writes; one batch is predicted before the clock starts, so that tracing is start-up."""
    import h5py
    import keras

    model, preprocess = keras_model(task)
    images = keras.utils.image_dataset_from_directory(
        task["folder"], image_size=size_of(task), batch_size=BATCH_SIZE, shuffle=False, verbose=False
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
        precision=task.get("precision"),
    )


def settled(task: Task, clock: Clock) -> Any:
    """Return the job with its network at the precision of the task; random weights are not held to have good rows."""
    from tlfeat.extract import precision

    if task.get("is_unguarded"):
        precision.LEAST_COSINE, precision._SIGNIFICANCE = -1.0, 0.0
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    job = plan(task).settled()
    clock.found |= {"settle_s": time.monotonic() - started_s, "settle_cpu_s": time.process_time() - started_cpu_s}
    clock.found["precision"] = job.origin.get("precision", {})
    return job


def run_tlfeat(task: Task, clock: Clock) -> None:
    """`extract`; the network is loaded before the clock starts, everything else of a run is in the steady part."""
    job = settled(task, clock)
    job.encoder.prepare()
    with clock.steady(len(job.images)):
        report = job.run(is_compressed=task.get("is_compressed", False), known_in=())
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

    job = settled(task, clock)
    encoder = job.encoder
    files = [job.images.file(i) for i in range(len(job.images))]
    sample = (
        [files[i * len(files) // BOUND_SAMPLE] for i in range(BOUND_SAMPLE)] if len(files) > BOUND_SAMPLE else files
    )
    size = encoder.input_size

    one = KerasEncoder(encoder.spec, encoder.layers, n_threads=1, precision=encoder.precision)
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
        build_base(BackboneSpec(task["network"], "random"), size_of(task)).save_weights(aside)
        aside.rename(weights)
    plan({**task, "precision": None}).encoder.prepare()
    settled(task, clock)


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


def main(arguments: Sequence[str]) -> int:
    """Be one contender: read the task, run it, write what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("--task", type=Path, required=True, help="JSON: network, weights, folder, cache and more")
    parser.add_argument("--out", type=Path, required=True, help="JSON with what was measured")
    parser.add_argument("--started-s", type=float, required=True, help="monotonic time at which the process started")
    args = parser.parse_args(arguments)
    clock = Clock(args.started_s)
    CONTENDERS[args.contender](json.loads(args.task.read_text(encoding="utf-8")), clock)
    args.out.write_text(json.dumps(clock.found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
