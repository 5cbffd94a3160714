"""What the way of resizing costs and what it does to the accuracy of heads, as JSON and as Markdown tables.

Ways: those of ``images.resizing.RESIZES`` and some that are measured here only; two of them need simplejpeg (a binding
to libjpeg-turbo) and OpenCV, and are left out where these are not installed. Needs the data and weights of
``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/resizing.py                           # all that the JSON lacks, half an hour on 2 cores
    python benchmarks/resizing.py --cases cats_dogs@64      # one part again
    python benchmarks/resizing.py --tables-only             # the tables from the JSON, runs nothing

Every picture is decoded in all ways one after another, in one thread, the first way another one for each picture.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps, features
from threadpoolctl import threadpool_limits

import common
from common import Record
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.images.decode import decode_bytes
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.images.resizing import RESIZE, RESIZES, is_possible
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table
from tlfeat.types import Pixels

#: (set, height and width wanted); strong reduction with real detail is that of cats_dogs at 96 and 64.
CASES = (
    *(("cats_dogs", 224), ("cats_dogs", 96), ("cats_dogs", 64)),
    *(("potato", 224), ("sign_digits", 224), ("cifar10", 224)),
)
CIFAR_IMAGES_PER_CLASS = 200
SEEDS = tuple(range(10))
TEST_SHARE = 0.2
LARGE_PIXELS = 8_000_000
BATCH_SIZE = 32


# --- ways ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One way from the bytes of a file to pixels."""

    name: str
    about: str
    decode: Callable[[bytes, tuple[int, int]], Pixels]
    dtype: str = "uint8"


def drafted(data: bytes, least_px: int) -> Image.Image:
    """Return the picture as `images.decode` has it before resizing, JPEG decoded at least `least_px` wide and high."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, (least_px, least_px))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image if image.mode == "RGB" else image.convert("RGB")


def antialias_float(data: bytes, size: tuple[int, int]) -> Pixels:
    """As "antialias", without rounding."""
    channels = drafted(data, 2 * max(size)).split()
    wide = [band.convert("F").resize((size[1], size[0]), Image.Resampling.BILINEAR) for band in channels]
    return np.dstack([np.asarray(band) for band in wide])  # (h, w, 3)


def dataset_rounded(data: bytes, size: tuple[int, int]) -> Pixels:
    """As "dataset", rounded."""
    return np.rint(decode_bytes(data, size, "dataset")).astype(np.uint8)


def dct_1x(data: bytes, size: tuple[int, int]) -> Pixels:
    """As "antialias", JPEG decoded as small as leaves the size wanted, not twice that."""
    return np.asarray(drafted(data, max(size)).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def with_simplejpeg(data: bytes, size: tuple[int, int], resize: Callable[[Pixels, tuple[int, int]], Pixels]) -> Pixels:
    """Decode by simplejpeg what it takes (upright JPEG in colour), as far reduced as "antialias" does it."""
    import simplejpeg

    image = Image.open(io.BytesIO(data))
    if image.format != "JPEG" or image.mode != "RGB" or image.getexif().get(0x0112, 1) != 1:
        return decode_bytes(data, size)
    least = 2 * max(size)
    rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least, min_factor=2)
    return resize(rgb, size)


def by_pillow(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize as "antialias" does."""
    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def by_opencv(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize by averaging areas, or bilinear where the picture grows."""
    import cv2

    is_smaller = rgb.shape[0] > size[0] and rgb.shape[1] > size[1]
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR))


def all_ways() -> list[Way]:
    """Return what can be measured on this machine, the default first."""

    def of_tlfeat(name: str) -> Way:
        dtype = "float32" if name == "dataset" else "uint8"
        return Way(name, RESIZES[name], lambda data, size: decode_bytes(data, size, name), dtype)

    ways = [
        *(of_tlfeat(name) for name in RESIZES if is_possible(name)),
        Way("antialias, float32", "as antialias, not rounded", antialias_float, "float32"),
        Way("dataset, uint8", "as dataset, rounded", dataset_rounded),
        Way("DCT down to 1x", "as antialias, JPEG decoded down to the size wanted, not twice that", dct_1x),
    ]
    if distribution_version("simplejpeg"):
        ways += [
            Way(
                "simplejpeg + Pillow",
                "as antialias, JPEG decoded by simplejpeg",
                lambda data, size: with_simplejpeg(data, size, by_pillow),
            )
        ]
    if distribution_version("simplejpeg") and distribution_version("cv2"):
        import cv2

        cv2.setNumThreads(1)
        ways += [
            Way(
                "simplejpeg + OpenCV",
                "JPEG decoded by simplejpeg, then cv2.resize with INTER_AREA",
                lambda data, size: with_simplejpeg(data, size, by_opencv),
            )
        ]
    return ways


# --- measuring ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Measured:
    """What one way gave on one set."""

    cpu_s: float = 0.0
    distance: float = 0.0  # grey levels from the default, summed over pictures
    rows: list[Any] = field(default_factory=list)


def chosen_images(name: str, images: ImageSet) -> list[int]:
    """Return the pictures to use: all, or a seeded draw of cifar10's training half."""
    if name != "cifar10":
        return list(range(len(images)))
    rng = np.random.default_rng(0)
    members = [
        [i for i, label in enumerate(images.labels) if label == c and images.splits[i] == "train"]
        for c in images.classes
    ]
    return [i for inside in members for i in sorted(rng.permutation(inside)[:CIFAR_IMAGES_PER_CLASS].tolist())]


def measure(name: str, size_px: int, args: argparse.Namespace) -> Record:
    """Decode, embed and classify one set in every way."""
    images = load_images(common.unpack(name, args.shared, args.work))
    chosen = chosen_images(name, images)
    size, ways = (size_px, size_px), all_ways()
    spec = BackboneSpec(**common.backbone_options("v2", args.shared), input_size=size)
    encoders = {
        "uint8": KerasEncoder(spec, ["avg_pool"], runtime="openvino", resize=RESIZE, networks_dir=args.work),
        "float32": KerasEncoder(spec, ["avg_pool"], runtime="openvino", resize="dataset", networks_dir=args.work),
    }
    measured = {way.name: Measured() for way in ways}
    large = []
    with common.stage(f"{name} at {size_px}: {len(chosen):,} pictures in {len(ways)} ways"):
        for start in range(0, len(chosen), BATCH_SIZE):
            batch: dict[str, list[Pixels]] = {way.name: [] for way in ways}
            for i in chosen[start : start + BATCH_SIZE]:
                data = images.file(i).read_bytes()
                cpu_s = {}
                for k in range(len(ways)):
                    way = ways[(i + k) % len(ways)]
                    started_s = time.thread_time()
                    batch[way.name].append(way.decode(data, size))
                    cpu_s[way.name] = time.thread_time() - started_s
                now = {way.name: batch[way.name][-1].astype(np.float32) for way in ways}
                for way in ways:
                    measured[way.name].cpu_s += cpu_s[way.name]
                    measured[way.name].distance += float(np.abs(now[way.name] - now[RESIZE]).mean())
                with Image.open(io.BytesIO(data)) as image:
                    if image.width * image.height >= LARGE_PIXELS:
                        large.append(large_record(image.size, now, cpu_s))
            for way in ways:
                measured[way.name].rows.append(encoders[way.dtype].encode(np.stack(batch[way.name]))["avg_pool"])
    labels = np.array([images.classes.index(images.labels[i]) for i in chosen])
    given = np.array([images.splits[i] for i in chosen])
    with common.stage(f"{name} at {size_px}: heads"), threadpool_limits(1):  # quicker on rows this few
        found = {
            way.name: {
                "about": way.about,
                "cpu_ms": 1000 * measured[way.name].cpu_s / len(chosen),
                "distance": measured[way.name].distance / len(chosen),
                **accuracies(np.concatenate(measured[way.name].rows), labels, given),
            }
            for way in ways
        }
    return {
        "set": name,
        "size_px": size_px,
        "n_images": len(chosen),
        "n_classes": len(images.classes),
        "ways": found,
        "large": large,
        **common.conditions(),
        "load_average": common.load_average(),
        "libraries": {
            **{package: distribution_version(package) for package in ("openvino", "simplejpeg", "cv2")},
            "libjpeg_turbo in Pillow": features.version("libjpeg_turbo"),
        },
    }


def large_record(size: tuple[int, int], now: dict[str, Any], cpu_s: dict[str, float]) -> Record:
    """Return the distances and the cost on one large photograph."""
    return {
        "width": size[0],
        "height": size[1],
        "ways": {
            name: {
                "cpu_ms": 1000 * cpu_s[name],
                "mean": float(np.abs(pixels - now["load_img"]).mean()),
                "largest": float(np.abs(pixels - now["load_img"]).max()),
            }
            for name, pixels in now.items()
        },
    }


def accuracies(rows: Any, labels: Any, given: Any) -> Record:
    """Return the accuracy of logistic regression on the set's own split, where it has one, and on seeded ones."""
    from sklearn.model_selection import train_test_split

    found: Record = {
        "seeded": [
            accuracy(
                rows,
                labels,
                *train_test_split(np.arange(len(rows)), test_size=TEST_SHARE, stratify=labels, random_state=seed),
            )
            for seed in SEEDS
        ]
    }
    if set(given) == {"train", "test"}:
        found["own"] = accuracy(rows, labels, np.flatnonzero(given == "train"), np.flatnonzero(given == "test"))
    return found


def accuracy(rows: Any, labels: Any, train: Any, test: Any) -> float:
    """Return the share of test pictures that are right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(head.fit(rows[train], labels[train]).score(rows[test], labels[test]))


# --- the tables ---------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> str:
    """Return the conditions, accuracies, costs, and a table of the large photographs."""
    if not records:
        return "Nothing was measured yet."
    machines = common.distinct(common.machine_of(record) for record in records)
    versions = common.distinct(common.versions_of(r["environment"], r["libraries"]) for r in records)
    parts = [
        "\n".join(
            [
                f"- Machine: {'; '.join(machines)}, shared with other work. Versions: {'; '.join(versions)}.",
                "- Network: MobileNetV2 0.35 with ImageNet weights, avg_pool; StandardScaler and "
                "LogisticRegression(C=0.01).",
                f"- accuracy: mean ± standard deviation over {len(SEEDS)} stratified splits with {TEST_SHARE:.0%} for "
                "testing; other ways: mean difference in points on the same splits ± its standard error, corrected for "
                "test sets that overlap (Nadeau and Bengio 2003, section 3).",
                "- CPU: one thread decodes and resizes one image that is in memory. distance: mean over images, in "
                "grey levels, from antialias.",
            ]
        ),
        accuracy_table(records),
        cost_table(records),
    ]
    parts += [large_table(record) for record in records if record["large"]]
    return "\n\n".join(parts)


def case_of(record: Record) -> str:
    """Return the name of a set and size in the tables."""
    return f"{record['set']} at {record['size_px']} px ({record['n_images']:,} images)"


def accuracy_table(records: Sequence[Record]) -> str:
    """Return the accuracy of the default, and of the other ways the difference from it."""
    rows = []
    for name in records[0]["ways"]:
        cells = []
        for record in records:
            found, default = record["ways"][name]["seeded"], record["ways"][RESIZE]["seeded"]
            if name == RESIZE:
                cells.append(f"{100 * statistics.mean(found):.2f} ± {100 * statistics.stdev(found):.2f} %")
            else:
                difference, error = paired(found, default)
                cells.append(f"{100 * difference:+.2f} ± {100 * error:.2f}")
        rows.append((name, *cells))
    return markdown_table(("way", *map(case_of, records)), rows)


def cost_table(records: Sequence[Record]) -> str:
    """Return what each way costs, and how far its pixels are from the default's."""
    rows = [
        (name, *(f"{r['ways'][name]['cpu_ms']:.2f} ms, {r['ways'][name]['distance']:.2f}" for r in records))
        for name in records[0]["ways"]
    ]
    return markdown_table(("CPU, distance", *(f"{r['set']} at {r['size_px']} px" for r in records)), rows)


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference and its standard error; the share of test to training pictures enters it."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    factor = 1 / len(differences) + TEST_SHARE / (1 - TEST_SHARE)
    return statistics.mean(differences), (factor * statistics.variance(differences)) ** 0.5


def large_table(record: Record) -> str:
    """Return the ways on each large photograph of a set, against load_img."""
    rows = [
        (
            name,
            *(
                f"{photo['ways'][name]['cpu_ms']:.0f} ms, {photo['ways'][name]['mean']:.2f}, "
                f"{photo['ways'][name]['largest']:.0f}"
                for photo in record["large"]
            ),
        )
        for name in record["ways"]
    ]
    headings = [f"{photo['width']}x{photo['height']}" for photo in record["large"]]
    title = (
        f"Large photographs of {record['set']} at {record['size_px']} px: CPU, mean and largest distance from "
        "load_img in grey levels, single runs."
    )
    return f"{title}\n\n{markdown_table(('way', *headings), rows)}"


# --- the command --------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = common.parser_for("resizing", __doc__)
    common.add_data(parser)
    names = [f"{name}@{size_px}" for name, size_px in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=[], help="default: all that the JSON lacks")
    return common.read_arguments(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and write the tables."""
    args = parse_arguments(arguments)
    records = {(r["set"], r["size_px"]): r for r in common.read_records(args.json)}
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tables speak of a CPU
    with common.work_folder(args):
        for name, size_px in [] if args.tables_only else CASES:
            if f"{name}@{size_px}" in args.cases or (not args.cases and (name, size_px) not in records):
                records[name, size_px] = measure(name, size_px, args)
                common.write_records(args.json, [records[case] for case in CASES if case in records])
    text = tables([records[case] for case in CASES if case in records])
    common.publish(args, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
