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
import io
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
from resizing import BATCH_SIZE, SEEDS, accuracies, dct_1x, drafted, paired
from tlfeat.images.decode import decode_bytes
from tlfeat.images.load import load_images
from tlfeat.images.resizing import resized
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table
from tlfeat.types import Pixels

PARTS = ("steps", "decoders", "ways", "accuracy")
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


# --- decoders -----------------------------------------------------------------------------------------------


def by_pillow(data: bytes) -> Pixels:
    """Decode as tlfeat does."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_simplejpeg(data: bytes) -> Pixels:
    """Decode by libjpeg-turbo, straight to an array."""
    import simplejpeg

    return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))


def by_opencv(data: bytes) -> Pixels:
    """Decode by OpenCV's libjpeg-turbo; EXIF is ignored as by the others."""
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION))


def by_imagecodecs(data: bytes) -> Pixels:
    """Decode by the libjpeg-turbo within imagecodecs."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace="RGB"))


def by_vips(data: bytes) -> Pixels:
    """Decode by libvips."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "", access="sequential")
    return np.asarray(image if image.bands == 3 else image.colourspace("srgb"))


DECODERS: dict[str, tuple[str, Callable[[bytes], Pixels]]] = {
    "Pillow": ("PIL", by_pillow),
    "simplejpeg": ("simplejpeg", by_simplejpeg),
    "OpenCV": ("cv2", by_opencv),
    "imagecodecs": ("imagecodecs", by_imagecodecs),
    "pyvips": ("pyvips", by_vips),
}


# --- ways ---------------------------------------------------------------------------------------------------


def box(data: bytes, size: tuple[int, int]) -> Pixels:
    """As antialias, but where both sides shrink the mean of the pixels whose centres lie within the new one."""
    rgb = drafted(data, 2 * max(size))
    is_smaller = rgb.height > size[0] and rgb.width > size[1]
    return np.asarray(rgb.resize(size[::-1], Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR))


def quick_2x(data: bytes, size: tuple[int, int]) -> Pixels:
    """As quick, JPEG decoded at a part of its size where twice the size wanted is left, as for antialias."""
    return resized(drafted(data, 2 * max(size)), size, "quick")


def vips_thumbnail(data: bytes, size: tuple[int, int]) -> Pixels:
    """Decode and resize by libvips, JPEG at a part of its size."""
    import pyvips

    image = pyvips.Image.thumbnail_buffer(data, size[1], height=size[0], size="force")
    return np.asarray(image if image.bands == 3 else image.colourspace("srgb"))


def opencv_area(data: bytes, size: tuple[int, int]) -> Pixels:
    """Decode by OpenCV, resize by averaging areas where the picture shrinks."""
    import cv2

    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    is_smaller = rgb.shape[0] > size[0] and rgb.shape[1] > size[1]
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR))


#: The first is the default; for each the package it needs.
WAYS: dict[str, tuple[str, Callable[[bytes, tuple[int, int]], Pixels]]] = {
    "antialias": ("PIL", decode_bytes),
    "quick": ("cykooz_resizer", lambda data, size: decode_bytes(data, size, "quick")),
    "quick, DCT down to 2x": ("cykooz_resizer", quick_2x),
    "DCT down to 1x": ("PIL", dct_1x),
    "box": ("PIL", box),
    "pyvips thumbnail": ("pyvips", vips_thumbnail),
    "OpenCV, areas": ("cv2", opencv_area),
}


def installed(table: dict[str, tuple[str, Any]]) -> dict[str, Callable[..., Pixels]]:
    """Return the functions whose package is there."""
    return {name: function for name, (package, function) in table.items() if distribution_version(package)}


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


def measure_accuracy(args: argparse.Namespace) -> list[Record]:
    """Embed whole sets in every way, and score heads on the same splits."""
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec

    ways = {name: way for name, way in installed(WAYS).items() if name in JUDGED}
    records = []
    for name, size_px in CASES:
        size = (size_px, size_px)
        spec = BackboneSpec(**common.backbone_options("v2", args.shared), input_size=size)
        encoder = KerasEncoder(spec, ["avg_pool"], runtime="openvino", networks_dir=args.work)
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
    "accuracy": measure_accuracy,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
