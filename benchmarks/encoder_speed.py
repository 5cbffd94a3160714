"""What vision transformers cost beside ResNet50: ``tlfeat extract`` as a whole, and one picture at once or several.

Weights are random: they change nothing of the time. The command runs on photographs of cats_dogs, in a process of its
own, in turn with the other networks, in float32, on as many cores as there are. It runs on few photographs and on many:
the difference is what a photograph costs, without the start. Needs the data of ``TLFEAT_SHARED`` (default
``../shared``).

    python benchmarks/encoder_speed.py                # 20 minutes of processor
    python benchmarks/encoder_speed.py --tables-only
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import common
from common import Record
from tlfeat.backbones import catalog
from tlfeat.backbones.frameworks import import_openvino
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.runtime import freeze, to_openvino
from tlfeat.images.load import load_images
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table

BACKBONES = {
    "resnet50": "ResNet50",
    "dinov2_small": "DINOv2 small (ViT-S/14)",
    "dinov3_small": "DINOv3 small (ViT-S/16)",
}

#: Photographs of the short and of the long run.
FEW, MANY = 16, 160
ROUNDS = 3

#: Pictures handed over at once, in one thread.
BATCHES = (1, 4, 16)
BATCH_ROUNDS = 5


# --- the whole command ----------------------------------------------------------------------------------------


def run_command(backbone: str, photos: Path, place: Path) -> Record:
    """Run ``tlfeat extract`` once without a cache, and return seconds, seconds of processor and peak memory."""
    cache = place / "cache" / f"{backbone}.h5"
    cache.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tlfeat", "extract", str(photos), "--backbone", backbone, "--weights", "random"]
    command += ["--runtime", "openvino", "--cache", str(cache), "--quiet"]
    started_s = time.perf_counter()
    with subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed.")
    return {
        "wall_s": time.perf_counter() - started_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
    }


def run_commands(args: argparse.Namespace) -> dict[str, Record]:
    """Return what the command took for each network, in turn, after a first run that converts it."""
    images = load_images(common.unpack("cats_dogs", args.shared, args.work))
    chosen = np.random.default_rng(0).permutation(len(images))[:MANY].tolist()
    folders = {n: args.work / f"photos{n}" for n in (FEW, MANY)}
    for n, folder in folders.items():
        for i in chosen[:n]:
            (folder / images.labels[i]).mkdir(parents=True, exist_ok=True)
            shutil.copy(images.file(i), folder / images.labels[i] / f"{i}.jpg")
    place = args.work / "runs"
    place.mkdir(exist_ok=True)
    found: dict[str, Record] = {}
    for backbone in BACKBONES:
        with common.stage(f"{backbone}: the first run"):
            found[backbone] = {"first": run_command(backbone, folders[FEW], place), FEW: [], MANY: []}
    for k in range(ROUNDS):
        for n, folder in folders.items():
            for backbone in BACKBONES:
                with common.stage(f"round {k + 1}: {backbone}, {n} photographs"):
                    found[backbone][n].append(run_command(backbone, folder, place))
    return {
        backbone: {"first": runs["first"], "few": runs[FEW], "many": runs[MANY]} for backbone, runs in found.items()
    }


# --- batches ----------------------------------------------------------------------------------------------------


def run_batches(backbone: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the milliseconds of processor that a picture takes in OpenVINO, by the size of the batch, in turn."""
    encoder = KerasEncoder(BackboneSpec(backbone, "random"), ["avg_pool"], runtime="openvino", networks_dir=args.work)
    frozen, core = freeze(encoder._forward), import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    requests = {}
    for n in BATCHES:
        model = to_openvino(frozen, (n, *encoder.input_size, 3), args.work)
        requests[n] = core.compile_model(model, "CPU", settings).create_infer_request()
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), *encoder.input_size, 3)).astype(np.uint8)
    found: dict[str, list[float]] = {str(n): [] for n in BATCHES}
    for k in range(BATCH_ROUNDS + 1):
        for n, request in requests.items():
            started_s = time.process_time()
            for start in range(0, len(pixels), n):
                request.infer([pixels[start : start + n]], share_inputs=True)
            if k:  # the first one warms up
                found[str(n)].append(1000 * (time.process_time() - started_s) / len(pixels))
    return found


# --- the tables -------------------------------------------------------------------------------------------------


def median(runs: Sequence[Record], key: str) -> float:
    """Return the median of one figure of runs."""
    return statistics.median(run[key] for run in runs)


def per_photo(runs: Record, key: str) -> list[float]:
    """Return what a photograph adds, by round: the difference of the long and the short run."""
    return [(many[key] - few[key]) / (MANY - FEW) for few, many in zip(runs["few"], runs["many"], strict=True)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, and the least and the most."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def command_row(name: str, record: Record) -> tuple[str, ...]:
    """Return the line of one network in the table of the command.

    ``later``, where a record has it, are runs on few photographs after a change that left the rate as it was.
    """
    entry, runs = catalog.find(name), record["commands"][name]
    short = record.get("later", {}).get(name, runs["few"])
    return (
        BACKBONES[name],
        f"{getattr(entry, 'parameters', 0) / 1e6:.1f} M",
        spread([1 / wall_s for wall_s in per_photo(runs, "wall_s")], 1),
        f"{spread([1000 * cpu_s for cpu_s in per_photo(runs, 'cpu_s')])} ms",
        f"{median(short, 'peak_mb'):.0f} MB",
        f"{median(short, 'cpu_s') - FEW * statistics.median(per_photo(runs, 'cpu_s')):.1f} s",
        f"{runs['first']['cpu_s']:.0f} s, {runs['first']['peak_mb']:.0f} MB",
    )


def tables(record: Record) -> str:
    """Return conditions and both tables."""
    headings = (
        *("network", "parameters", "images/s", "processor an image", "peak memory", "start"),
        "first run (builds and converts)",
    )
    n_rounds = len(next(iter(record["commands"].values()))["many"])
    parts = [
        "\n".join(
            [
                f"- Machine: {common.machine_of(record)}, shared with other work (load average "
                f"{record['load_average'][0]} to {record['load_average'][1]}): trust processor time, not images/s. "
                f"Versions: {common.versions_of(record['environment'], record['libraries'])}.",
                f"- `tlfeat extract` on photographs of cats_dogs (about 450x370), 224x224 pixels, float32, random "
                f"weights, OpenVINO, {record['n_cores']} cores; {n_rounds} rounds in turn. Images/s and processor time "
                f"are the difference of runs on {MANY} and {FEW} photographs, decoding included; median (least to "
                f"most). Peak memory and start (seconds of processor): of the process on {FEW} photographs.",
            ]
        ),
        markdown_table(headings, [command_row(name, record) for name in record["commands"]]),
        f"OpenVINO alone, one thread, float32: milliseconds of processor a picture, by the number of pictures that are "
        f"handed over at once; median (least to most) of {BATCH_ROUNDS} rounds in turn.",
        markdown_table(
            ("network", *(f"{n} at once" for n in BATCHES)),
            [(BACKBONES[name], *(spread(found[str(n)]) for n in BATCHES)) for name, found in record["batches"].items()],
        ),
    ]
    return "\n\n".join(parts)


# --- the command ------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("encoder_speed", __doc__)
    common.add_data(parser)
    args = common.read_arguments(parser, arguments)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tables speak of a CPU
    if not args.tables_only:
        with common.work_folder(args):
            loads = [common.load_average()]
            commands = run_commands(args)
            loads.append(common.load_average())
            with common.stage("batches"):
                batches = {name: run_batches(name, args) for name in BACKBONES}
            loads.append(common.load_average())
        record = {
            **common.conditions(),
            "load_average": [min(loads), max(loads)],
            "libraries": {name: distribution_version(name) for name in ("openvino", "keras-hub")},
            "commands": commands,
            "batches": batches,
        }
        common.write_records(args.json, [record])
    for record in common.read_records(args.json):
        common.publish(args, tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
