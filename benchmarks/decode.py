"""What it costs to bring a JPEG to the pixels that a network takes, step by step, and what others would cost.

Steps: `decode_steps.py` in processes of its own, in turns with another version of tlfeat where ``--before`` names its
``src``. Decoders: the same bytes to all pixels, by Pillow and by packages that are installed. Ways: bytes to pixels of
224x224, by tlfeat's default and by cheaper ways, with the accuracy of heads. Needs the data and weights of
``TLFEAT_SHARED`` (default ``../shared``); packages that are not installed are left out.

    python benchmarks/decode.py                         # all of it, 20 minutes on 2 cores
    python benchmarks/decode.py --parts steps --before ../older/src
    python benchmarks/decode.py --tables-only           # the tables from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from threadpoolctl import threadpool_limits

import common
from common import Record
from decode_steps import STEPS
from decode_ways import DECODERS, WAYS, installed
from resizing import BATCH_SIZE, SEEDS, accuracies, paired
from tlfeat.backbones.encoder import Encoder
from tlfeat.extract.embed import Profile, embed_files
from tlfeat.images.decode import n_cores
from tlfeat.images.load import load_images
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table
from tlfeat.types import Pixels, silent

PARTS = ("steps", "decoders", "ways", "extract", "accuracy")
SETS = ("cats_dogs", "potato", "sign_digits")
SIZE_PX = 224
#: Where heads are judged; at the smaller sizes JPEG is decoded at a part of its size.
CASES = (*((name, SIZE_PX) for name in SETS), ("cats_dogs", 160), ("cats_dogs", 96), ("potato", 96))
JUDGED = ("antialias", "quick", "quick, DCT down to 2x", "DCT down to 1x", "box")
#: Of each set this many pictures, evenly spaced, where speed alone is measured; and rounds of them.
N_PICTURES, N_ROUNDS = 150, 5
LARGE_BYTES = 500_000  # the three photographs of 12 megapixels in sign_digits
MADE_SIZE_PX = (640, 480)
PACKAGES = ("simplejpeg", "cv2", "imagecodecs", "pyvips", "cykooz_resizer")


# --- pictures -----------------------------------------------------------------------------------------------


def speed_sets(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Return the pictures of each set, the large photographs of sign_digits and some made at 640x480 aside."""
    found: dict[str, list[Path]] = {}
    for name in SETS:
        folder = common.unpack(name, args.shared, args.work)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
        large = [path for path in paths if path.stat().st_size > LARGE_BYTES]
        small = [path for path in paths if path not in large]
        found[name] = small[:: max(1, len(small) // args.pictures)][: args.pictures]
        if large:
            found["12 megapixels"] = large
    made = args.work / "made"
    made.mkdir(exist_ok=True)
    for path in found["cats_dogs"][: len(found["cats_dogs"]) // 2]:
        Image.open(path).convert("RGB").resize(MADE_SIZE_PX).save(made / path.name, quality=85)
    return found | {"made, 640x480": sorted(made.iterdir())}


# --- steps --------------------------------------------------------------------------------------------------


def measure_steps(args: argparse.Namespace) -> list[Record]:
    """Run `decode_steps.py` on every set, with one thread and two, in turns for both versions."""
    versions = {"now": common.ROOT / "src"} | ({"before": args.before} if args.before else {})
    records = []
    for name, files in speed_sets(args).items():
        for n_threads in (1, 2):
            runs: dict[str, list[Record]] = defaultdict(list)
            with common.stage(f"steps of {name}, threads: {n_threads}"):
                for n in range(args.rounds):
                    for version in sorted(versions, reverse=bool(n % 2)):
                        runs[version].append(steps_run(versions[version], n_threads, files))
            record = {"part": "steps", "set": name, "n_threads": n_threads, "n_images": len(files), "runs": runs}
            records.append(common.conditions() | record)
    return records


def steps_run(source: Path, n_threads: int, files: Sequence[Path]) -> Record:
    """Return what one process measured."""
    script = Path(__file__).with_name("decode_steps.py")
    command = [sys.executable, str(script), str(SIZE_PX), str(n_threads)]
    environment = os.environ | {"PYTHONPATH": str(source)}
    names = json.dumps([str(path) for path in files])
    done = subprocess.run(command, env=environment, input=names, capture_output=True, text=True, check=True)
    found: Record = json.loads(done.stdout)
    return found


# --- decoders and ways ----------------------------------------------------------------------------------------


def in_turns(
    contenders: dict[str, Callable[..., Pixels]], pictures: Sequence[tuple[Any, ...]], n_rounds: int
) -> Record:
    """Return for each contender the processor microseconds a picture, and how far its pixels are from the first's.

    Every picture is given to all, another one first for each; of the rounds each contender keeps its quickest.
    """
    rounds: dict[str, list[float]] = defaultdict(list)
    distances: dict[str, list[float]] = defaultdict(list)
    first, *_ = names = list(contenders)
    for n in range(n_rounds + 1):  # the first is not counted
        spent_s: dict[str, float] = dict.fromkeys(contenders, 0.0)
        for i, picture in enumerate(pictures):
            found = {}
            for name in names[(i + n) % len(names) :] + names[: (i + n) % len(names)]:
                started_s = time.process_time()
                found[name] = contenders[name](*picture)
                spent_s[name] += time.process_time() - started_s
            for name, pixels in found.items() if n == 0 else ():
                distances[name].append(float(np.abs(pixels.astype(int) - found[first].astype(int)).mean()))
        for name in names if n else ():
            rounds[name].append(1e6 * spent_s[name] / len(pictures))
    return {
        name: {
            "cpu_us": [min(rounds[name]), statistics.median(rounds[name]), max(rounds[name])],
            "distance": statistics.mean(distances[name]),
            "equal": statistics.mean(distance == 0 for distance in distances[name]),
        }
        for name in names
    }


def measure_speed(part: str, args: argparse.Namespace) -> list[Record]:
    """Measure decoders or ways on every set."""
    contenders = installed(DECODERS if part == "decoders" else WAYS)
    records = []
    for name, files in speed_sets(args).items():
        size = () if part == "decoders" else ((SIZE_PX, SIZE_PX),)
        with common.stage(f"{part} on {name}"), threadpool_limits(1):
            found = in_turns(contenders, [(path.read_bytes(), *size) for path in files], args.rounds)
        record = {"part": part, "set": name, "n_images": len(files), "found": found, "libraries": libraries()}
        records.append(common.conditions() | record)
    return records


def libraries() -> dict[str, str]:
    """Return the versions of the packages that were tried."""
    turbo = {"libjpeg-turbo in Pillow": features.version("libjpeg_turbo") or ""}
    return {name: distribution_version(name) for name in PACKAGES} | turbo


def encoder_for(size_px: int, args: argparse.Namespace, resize: str | None = None) -> Encoder:
    """Return the smallest network that has real weights."""
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec

    spec = BackboneSpec(**common.backbone_options("v2", args.shared), input_size=(size_px, size_px))
    return KerasEncoder(spec, ["avg_pool"], runtime="openvino", networks_dir=args.work, resize=resize)


def measure_extract(args: argparse.Namespace) -> list[Record]:
    """Measure files to rows, on all cores, in the default way and quickly, in turns."""
    records = []
    for name, files in speed_sets(args).items():
        runs: dict[str, list[Record]] = defaultdict(list)
        encoders = {way: encoder_for(SIZE_PX, args, way) for way in ("antialias", "quick")}
        with common.stage(f"extract on {name}"):
            for n in range(args.rounds + 1):
                for way in sorted(encoders, reverse=bool(n % 2)):
                    profile = Profile(n_cores())
                    encoders[way].prepare(silent)
                    started_s, started_cpu_s = time.perf_counter(), time.process_time()
                    for _ in embed_files(enumerate(files), encoders[way], profile=profile):
                        pass
                    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
                    shares = {"decode_share": profile.decode_s / (profile.decode_s + profile.encode_s)}
                    found = {"images_per_s": len(files) / wall_s, "cpu_us": 1e6 * cpu_s / len(files)}
                    runs[way] += [found | shares] if n else []  # the first is not counted
        record = {"part": "extract", "set": name, "n_images": len(files), "found": runs, "libraries": libraries()}
        records.append(common.conditions() | record)
    return records


def measure_accuracy(args: argparse.Namespace) -> list[Record]:
    """Embed whole sets in every way, and score heads on the same splits."""
    ways = {name: way for name, way in installed(WAYS).items() if name in JUDGED}
    records = []
    for name, size_px in CASES:
        size = (size_px, size_px)
        encoder = encoder_for(size_px, args)
        images = load_images(common.unpack(name, args.shared, args.work))
        rows: dict[str, list[Any]] = defaultdict(list)
        with common.stage(f"accuracy on {name} at {size_px}, {len(images):,} pictures in {len(ways)} ways"):
            for start in range(0, len(images), BATCH_SIZE):
                batch = [images.file(i).read_bytes() for i in range(start, min(start + BATCH_SIZE, len(images)))]
                for way, decode in ways.items():
                    pixels = np.stack([decode(data, size) for data in batch])
                    rows[way].append(encoder.encode(pixels)["avg_pool"])
            with threadpool_limits(1):  # quicker on rows this few
                labels, given = (np.asarray(list(values)) for values in (images.labels, images.splits))
                found = {way: accuracies(np.concatenate(rows[way]), labels, given)["seeded"] for way in ways}
        record = {"part": "accuracy", "set": f"{name} at {size_px} px", "n_images": len(images), "found": found}
        records.append(common.conditions() | record | {"libraries": libraries()})
    return records


# --- the tables ---------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> str:
    """Return the conditions and the tables of all parts."""
    if not records:
        return "Nothing was measured yet."
    parts = {part: [record for record in records if record["part"] == part] for part in PARTS}
    tried = next((record["libraries"] for record in records if "libraries" in record), {})
    machines = common.distinct(f"{common.machine_of(record)}, {record['date']}" for record in records)
    versions = common.distinct(common.versions_of(record["environment"], tried) for record in records)
    texts = [
        f"Machine: {'; '.join(machines)}, shared with other work. Versions: {'; '.join(versions)}.",
        "## Steps",
        "Processor microseconds an image, median of the rounds; in brackets before the changes.",
        steps_table(parts["steps"]),
        "## Decoders",
        "Processor microseconds an image from bytes to an array of all its pixels, not resized: the quickest round. "
        "In brackets the share of images whose pixels are Pillow's to the bit.",
        speed_table(parts["decoders"], lambda found: f"{found['cpu_us'][0]:,.0f} ({found['equal']:.0%})"),
        "## Cheaper ways",
        f"Processor microseconds an image from bytes to {SIZE_PX}x{SIZE_PX} pixels: the quickest round. In brackets "
        "the mean distance of its pixels from antialias in grey levels.",
        speed_table(parts["ways"], lambda found: f"{found['cpu_us'][0]:,.0f} ({found['distance']:.2f})"),
        "Files to rows on all cores, MobileNetV2 0.35 in float32, medians of the rounds: processor microseconds an "
        "image. In brackets images a second, and the share of decoding in the time of the threads.",
        speed_table(parts["extract"], extract_cell),
        "Accuracy: MobileNetV2 0.35 with ImageNet weights, avg_pool, StandardScaler and LogisticRegression(C=0.01). "
        f"Mean ± standard deviation over {len(SEEDS)} stratified splits; other ways: mean difference in points on the "
        "same splits ± its standard error, corrected for test sets that overlap.",
        accuracy_table(parts["accuracy"]),
    ]
    return "\n\n".join(text for text in texts if text)


def steps_table(records: Sequence[Record]) -> str:
    """Return a row for each step, a column for each set and number of threads."""
    rows = [(step, *(cell(r, lambda run, s=step: run["steps_us"].get(s, 0.0)) for r in records)) for step in STEPS]
    rows += [("rest", *(cell(r, lambda run: run["steps_us"]["rest"]) for r in records))]
    rows += [("all, nothing counted", *(cell(r, lambda run: run["cpu_us"]) for r in records))]
    rows += [("images a second", *(cell(r, lambda run: run["images_per_s"]) for r in records))]
    return markdown_table(("step", *(f"{r['set']}, {r['n_threads']} thr." for r in records)), rows) if records else ""


def cell(record: Record, figure: Callable[[Record], float]) -> str:
    """Return the median of a figure now, and before where that was measured."""
    medians = {version: statistics.median(map(figure, runs)) for version, runs in record["runs"].items()}
    return f"{medians['now']:,.0f}" + (f" ({medians['before']:,.0f})" if "before" in medians else "")


def speed_table(records: Sequence[Record], show: Callable[[Record], str]) -> str:
    """Return a row for each contender, a column for each set."""
    if not records:
        return ""
    rows = [(name, *(show(record["found"][name]) for record in records)) for name in records[0]["found"]]
    return markdown_table(("", *(f"{r['set']} ({r['n_images']:,} images)" for r in records)), rows)


def extract_cell(runs: Sequence[Record]) -> str:
    """Return the medians of what one way took."""
    cpu_us, rate, share = (
        statistics.median(run[name] for run in runs) for name in ("cpu_us", "images_per_s", "decode_share")
    )
    return f"{cpu_us:,.0f} ({rate:,.0f}, {share:.0%})"


def accuracy_table(records: Sequence[Record]) -> str:
    """Return the accuracy of the first way, and of the others the difference from it."""
    if not records:
        return ""
    first, *others = records[0]["found"]
    base = [100 * np.asarray(record["found"][first]) for record in records]
    rows = [(first, *(f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f} %" for accuracy in base))]
    for way in others:
        found = [paired(record["found"][way], record["found"][first]) for record in records]
        rows.append((way, *(f"{100 * difference:+.2f} ± {100 * error:.2f}" for difference, error in found)))
    return markdown_table(("", *(f"{r['set']} ({r['n_images']:,} images)" for r in records)), rows)


# --- the command --------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = common.parser_for("decode", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[], help="default: all that the JSON lacks")
    parser.add_argument("--before", type=Path, help="the src of another version, measured in turns with this one")
    parser.add_argument("--pictures", type=common.positive, default=N_PICTURES, help="of each set, for speed")
    parser.add_argument("--rounds", type=common.positive, default=N_ROUNDS)
    return common.read_arguments(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and write the tables."""
    args = parse_arguments(arguments)
    records = common.read_records(args.json)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tables speak of a CPU
    with common.work_folder(args):
        for part in () if args.tables_only else PARTS:
            if part in args.parts or (not args.parts and not any(record["part"] == part for record in records)):
                found = MEASURES[part](args)
                records = [record for record in records if record["part"] != part] + found
                common.write_records(args.json, records)
    common.publish(args, tables(records))
    return 0


MEASURES: dict[str, Callable[[argparse.Namespace], list[Record]]] = {
    "steps": measure_steps,
    "decoders": lambda args: measure_speed("decoders", args),
    "ways": lambda args: measure_speed("ways", args),
    "extract": measure_extract,
    "accuracy": measure_accuracy,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
