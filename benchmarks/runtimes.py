"""Rows of OpenVINO against rows of TensorFlow for every architecture of ``backbones.catalog``, as JSON and as a table.

Weights are random, but such that no layer's values vanish or explode (see `awaken`), because under Keras' own random
weights the rows of some networks are of size 1e-11. The four pictures are two photographs of cats_dogs, where
``TLFEAT_SHARED`` (default ``../shared``) is there, noise and one colour. The two real weights files of that folder are
run as well. Each network runs in a process of its own; those in the JSON are not run again, unless the conversion has
changed since (`tlfeat.backbones.runtime.CONVERSION`).

    python benchmarks/runtimes.py                       # all that is missing, an hour on 2 cores, 12 GB and more
    python benchmarks/runtimes.py resnet50 vgg16        # some, again
    python benchmarks/runtimes.py --tables-only         # the table from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.backbones import catalog
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.backbones.preprocess import preprocess
from tlfeat.backbones.runtime import CONVERSION, TOLERANCE, convert, largest_difference
from tlfeat.images.decode import decode_bytes
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table, seconds
from tlfeat.types import Pixels
from tlfeat.workspace import read_json, write_json

#: Key on the command line to the options in `common.backbone_options`.
REAL = {"shared:mobilenet_v2_0.35": "v2", "shared:mobilenet_1.0": "v1"}
TIMEOUT_S = 1800

#: Above this input size two pictures, not four, give BatchNormalization its statistics: Keras keeps the values of every
#: layer at once, 12 GB for EfficientNetB6.
LARGE_PX = 500

#: A block ends in one of these; the earlier kinds are taken where there are any.
BLOCK_ENDS = (("Add", "Concatenate"), ("LayerScale", "MaxPooling2D", "Activation", "ReLU"))


# --- one network, in a process of its own -------------------------------------------------------------------


def awaken(base: Any, x: Any) -> None:
    """Set weights in place under which every layer's values keep a size of about 1 and differ between pictures.

    Kernels are drawn as He et al. 2015 (equation 10) do, scales of BatchNormalization from 0.8 to 1.2, its offsets
    from 0 to 1 and LayerScale's factors from 0.3 to 1. Mean and variance of each BatchNormalization are then those of
    `x`, in the order of the layers, the variance of a channel at least the mean over its layer's channels: a channel
    that hardly moves would otherwise be blown up, and rounding errors with it, tenfold every few blocks.
    """
    rng = np.random.default_rng(0)
    for layer in base.layers:
        kind = type(layer).__name__
        for weight in layer.weights:
            if len(weight.shape) == 4:
                is_depthwise = kind == "DepthwiseConv2D" or "depthwise" in weight.path
                fan_in = np.prod(weight.shape[:2]) * (1 if is_depthwise else weight.shape[2])
                weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))
        if kind == "LayerScale":
            layer.gamma.assign(rng.uniform(0.3, 1, layer.gamma.shape))
        if kind == "BatchNormalization":
            for weight, low, high in ((layer.gamma, 0.8, 1.2), (layer.beta, 0, 1)):
                if weight is not None:
                    weight.assign(rng.uniform(low, high, weight.shape))
            layer.call = _measuring(layer)
    base(x, training=False)
    for layer in base.layers:
        if type(layer).__name__ == "BatchNormalization":
            del layer.call


def _measuring(layer: Any) -> Any:
    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        maps = np.asarray(inputs)
        axes = tuple(range(maps.ndim - 1))
        variance = maps.var(axis=axes)  # (c,)
        layer.moving_mean.assign(maps.mean(axis=axes))
        layer.moving_variance.assign(np.maximum(variance, variance.mean()))
        return type(layer).call(layer, inputs, training=False)

    return call


def awakened(name: str, pixels: Pixels, file: Path) -> BackboneSpec:
    """Write such weights for an architecture of the catalog to `file` and return how it is built with them."""
    size = pixels.shape[1:3]
    build_base(BackboneSpec(name, "random", size), size).save_weights(file)
    spec = BackboneSpec(name, str(file), size)
    base = build_base(spec, size)  # as for ImageNet weights: EfficientNet's graph is another one for random weights
    some = pixels[::2] if size[0] > LARGE_PX else pixels
    awaken(base, preprocess(some.astype(np.float32), spec.mode))
    base.save_weights(file)
    return spec


def pictures(shared: Path, size: tuple[int, int]) -> Pixels:
    """Return two photographs (noise, where there are none), noise and one colour."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(3)]
    archive = shared / "data" / "cats_dogs.tar"
    if archive.exists():
        with tarfile.open(archive) as opened:
            names = sorted(member.name for member in opened if member.isfile() and "/test/" in member.name)
            for k, name in enumerate((names[0], names[-1])):
                file = opened.extractfile(name)
                assert file is not None
                found[k] = decode_bytes(file.read(), size)
    return np.stack([*found, np.full_like(found[0], (30, 120, 200))])  # (4, h, w, 3)


def middle_block(base: Any) -> str:
    """Return the name of the layer that ends the block nearest to the middle."""
    for kinds in BLOCK_ENDS:
        ends = [
            (abs(i - len(base.layers) / 2), layer.name)
            for i, layer in enumerate(base.layers)
            if type(layer).__name__ in kinds and len(layer.output.shape) == 4
        ]
        if ends:
            return str(min(ends)[1])
    raise AssertionError(f"{base.name}: no layer that ends a block")


def cpu_s_per_image(encoder: KerasEncoder, pixels: Pixels) -> float:
    """Return seconds of processor for one picture, on all cores together, after one pass that is not counted."""
    encoder.encode(pixels)
    started_s = time.process_time()
    encoder.encode(pixels)
    return (time.process_time() - started_s) / len(pixels)


def measure(name: str, shared: Path, work: Path) -> Record:
    """Compare the two runtimes on one network."""
    if name in REAL:
        spec = BackboneSpec(**common.backbone_options(REAL[name], shared))
        pixels = pictures(shared, KerasEncoder(spec, ()).input_size)
    else:
        pixels = pictures(shared, catalog.find(name).input_size)
        spec = awakened(name, pixels, work / f"{name}.weights.h5")
    size = pixels.shape[1:3]
    middle = middle_block(build_base(spec, size))
    layers = ("avg_pool", middle, f"{middle}:max")

    slow = KerasEncoder(spec, layers, runtime="tensorflow", batch_size=len(pixels), networks_dir=work)
    expected = slow.encode(pixels)
    tensorflow_cpu_s = cpu_s_per_image(slow, pixels)
    del slow
    gc.collect()  # ConvNeXt XLarge: 1.4 GB for each copy of the weights

    converting_s = []
    convert = convert

    def timed(*args: Any) -> None:
        started_s = time.perf_counter()
        try:
            convert(*args)
        finally:
            converting_s.append(time.perf_counter() - started_s)

    convert = timed
    KerasEncoder(spec, layers, runtime="openvino", networks_dir=work, n_threads=1).prepare()
    gc.collect()
    again = KerasEncoder(spec, layers, runtime="openvino", networks_dir=work, n_threads=1)
    started_s = time.perf_counter()
    again.prepare()
    is_converted = again.is_parallel
    record = {
        "conversion": CONVERSION,
        "input_size": list(size),
        "layers": list(layers),
        "is_converted": is_converted,
        "why_not": "; ".join(again.notes).replace(str(work), "…"),
        "convert_s": converting_s[0],
        "tensorflow_cpu_s": tensorflow_cpu_s,
        "rows": {
            layer: {
                "largest": float(np.abs(rows).max()),
                "spread": float(rows.std(axis=0).max() / np.abs(rows).max()),
            }
            for layer, rows in expected.items()
        },
    }
    if is_converted:
        record["load_s"] = time.perf_counter() - started_s
        found = again.encode(pixels)
        for layer in layers:
            record["rows"][layer]["difference"] = largest_difference({layer: found[layer]}, {layer: expected[layer]})
        record["difference"] = largest_difference(found, expected)
        record["openvino_cpu_s"] = cpu_s_per_image(again, pixels)
    record["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return record


# --- all of them --------------------------------------------------------------------------------------------


def measure_in_child(name: str, shared: Path) -> Record:
    """Run `measure` in a process of its own; how it ended is part of the record."""
    with tempfile.TemporaryDirectory(prefix="tlfeat-runtimes-") as work:
        out = Path(work) / "record.json"
        command = [sys.executable, __file__, "--shared", str(shared), "--child", work, name]
        started_s = time.perf_counter()
        try:
            run = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
            ended = f"exit code {run.returncode}: {run.stderr.strip().splitlines()[-1:]}" if run.returncode else ""
        except subprocess.TimeoutExpired:
            ended = f"not done after {TIMEOUT_S} s"
        record = read_json(out) if out.exists() and not ended else {"is_converted": False, "why_not": ended}
        assert isinstance(record, dict)
    return {
        "name": name,
        "elapsed_s": time.perf_counter() - started_s,
        "failed": ended.replace(work, "…"),
        **record,
        **common.conditions(),
        "openvino": distribution_version("openvino"),
    }


def all_names() -> list[str]:
    """Return the names to run, small networks first, so that an interrupted run has most of them."""
    cost = {b.name: b.parameters * b.input_size[0] * b.input_size[1] for b in catalog.BACKBONES}
    return [*REAL, *sorted(cost, key=lambda name: cost[name])]


def tables(records: Sequence[Record]) -> str:
    """Return the conditions and one row for each network."""
    if not records:
        return "Nothing was measured yet."
    machines = common.distinct(common.machine_of(record) for record in records)
    versions = common.distinct(common.versions_of(r["environment"], {"openvino": r["openvino"]}) for r in records)
    order = [*(entry.name for entry in catalog.BACKBONES), *REAL]
    by_name = {record["name"]: record for record in records}
    rows = [row_of(by_name[name]) for name in order if name in by_name]
    done = [record for record in records if record.get("is_converted")]
    stale = [record["name"] for record in done if record.get("conversion") != CONVERSION]
    missing = [name for name in all_names() if name not in by_name]
    least = min((rows["spread"] for r in done for rows in r["rows"].values()), default=float("nan"))
    worst = max((record["difference"] for record in done), default=float("nan"))
    return "\n".join(
        [
            f"- {len(done)} of {len(records)} networks convert; the largest difference is {worst:.1g}, the tolerance "
            f"{TOLERANCE:.0e}.",
            f"- Machine: {'; '.join(machines)}, shared with other work. Versions: {'; '.join(versions)}.",
            "- difference: largest over the rows of avg_pool and of one block in the middle (average and maximum) of "
            "four images, each over the largest magnitude in them.",
            "- Weights: random (seed 0), made such that values neither vanish nor explode; shared: real ones. The rows "
            f"of the four images differ: standard deviation over largest magnitude at least {least:.2f}.",
            "- TensorFlow, OpenVINO: processor time of one image, all cores together, one pass of four after one to "
            "warm up: rough. convert: once, after Keras has built the network.",
            *([f"- {len(stale)} networks were measured with an earlier form of the conversion."] if stale else []),
            *([f"- Not measured: {', '.join(missing)}."] if missing else []),
            "",
            markdown_table(("network", "difference", "TensorFlow", "OpenVINO", "ratio", "convert"), rows),
        ]
    )


def row_of(record: Record) -> tuple[str, ...]:
    """Return the cells of one network."""
    if not record.get("is_converted"):
        slow = seconds(record["tensorflow_cpu_s"]) if "tensorflow_cpu_s" in record else "–"
        return (record["name"], f"not converted: {record['why_not']}", slow, "–", "–", "–")
    slow_s, fast_s = record["tensorflow_cpu_s"], record["openvino_cpu_s"]
    return (
        record["name"],
        f"{record['difference']:.1e}",
        seconds(slow_s),
        seconds(fast_s),
        f"{slow_s / fast_s:.1f}",
        seconds(record["convert_s"]),
    )


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = common.parser_for("runtimes", __doc__)
    common.add_shared(parser)
    add = parser.add_argument
    add("names", nargs="*", choices=[[], *all_names()], help="default: all that the JSON lacks or that have changed")
    add("--child", type=Path, help=argparse.SUPPRESS)
    return common.read_arguments(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Run what is missing and return how it went: 1 if a network does not convert or differs."""
    args = parse_arguments(arguments)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the table speaks of a CPU
    if args.child:
        write_json(args.child / "record.json", measure(args.names[0], args.shared, args.child))
        return 0
    records = {record["name"]: record for record in common.read_records(args.json)}
    stale = [name for name in all_names() if name in records and records[name].get("conversion") != CONVERSION]
    missing = args.names or [*(name for name in all_names() if name not in records), *stale]
    for name in [] if args.tables_only else missing:
        if name in REAL and not (args.shared / "weights").is_dir():
            common.say(f"{name}: left out, no weights in {args.shared}")
            continue
        records[name] = record = measure_in_child(name, args.shared)
        common.write_records(args.json, records.values())
        how = f"{record['difference']:.1e}" if record["is_converted"] else record["why_not"]
        common.say(f"{datetime.now(UTC):%H:%M:%S}  {name}: {how}, {seconds(record['elapsed_s'])}")
    text = tables(list(records.values()))
    common.publish(args, text)
    return 0 if all(r["is_converted"] and r["difference"] <= TOLERANCE for r in records.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
