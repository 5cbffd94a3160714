"""The page of a comparison: its size, and what making it takes, for the shared data sets and 2,000 pictures of noise.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``); heads are fitted where no Result exists.

    python benchmarks/page.py                   # 3 minutes on two cores
    python benchmarks/page.py --tables-only     # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

import common
from common import Record
from tlfeat.evaluate.data import Data, open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.embedding_map import make_map
from tlfeat.report.page import map_layer, to_html
from tlfeat.studies.compare import compare_candidates
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits")
HEADS = ("logreg", "svm", "knn")
N_REPEATS = 3


def write_noise(folder: Path) -> Path:
    """2,000 pictures of 4 classes, coarse noise at 320x240: nothing that a JPEG could leave out."""
    rng = np.random.default_rng(0)
    for i in range(0 if folder.exists() else 2000):
        (folder / str(i % 4)).mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(folder / str(i % 4) / f"{i}.jpg")
    return folder


def measure(data: Data) -> Record:
    """Return size and seconds; medians of repeats in turn."""
    found = compare_candidates(data, heads=HEADS, keras_modes=(), has_pixels=False)
    layer = map_layer(found, data, None)
    seconds: dict[str, list[float]] = {"pca": [], "tsne": [], "page": []}
    for _ in range(N_REPEATS):
        started_s = time.perf_counter()
        make_map(data.cache, data.split, layer, ["pca"])
        pca_s = time.perf_counter()
        layout = make_map(data.cache, data.split, layer)
        map_s = time.perf_counter()
        page = to_html(found, data, layout)
        page_s = time.perf_counter()
        seconds["pca"].append(pca_s - started_s)
        seconds["tsne"].append((map_s - pca_s) - (pca_s - started_s))
        seconds["page"].append(page_s - map_s)
    return {
        "n_images": len(data.split.keys),
        "n_on_map": len(layout.at),
        "width": data.cache.layers[layer][1],
        "n_candidates": len(found.lines),
        "page_bytes": len(page.encode("utf-8", "surrogateescape")),
        "seconds": seconds,
    }


def table(record: Record) -> str:
    """Return the Markdown table of docs/benchmarks/page.md."""
    rows = []
    for name, found in record["sets"].items():
        times = [f"{statistics.median(values):.1f} s" for values in found["seconds"].values()]
        rows.append((name, f"{found['n_on_map']:,}", f"{found['page_bytes'] / 1e6:.2f} MB", *times))
    return markdown_table(("set", "images on the map", "page", "PCA", "t-SNE", "pictures and page"), rows)


def main() -> None:
    """Run what is asked for and write the table."""
    parser = common.parser_for("page", __doc__)
    common.add_data(parser, work=common.ROOT / "cache" / "bench")
    parser.add_argument("--data", type=Path, help="folder that holds the unpacked sets")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    args = common.read_arguments(parser)
    if not args.tables_only:
        record: Record = {**common.conditions(), "sets": {}}
        for name in [*args.sets, "noise"]:
            place = args.work / "runs" / f"page-{name}"
            place.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(place), common.stage(name):
                if name == "noise":
                    job = plan_extraction(write_noise(args.work / "noise"), backbone="pixels")
                else:
                    folder = args.data / name if args.data else common.unpack(name, args.shared, args.work)
                    job = plan_extraction(folder, **common.backbone_options("v2", args.shared))
                with open_data(job.run().cache, seed=0) as data:
                    record["sets"][name] = measure(data)
            write_json(args.json, record)
    text = table(read_json(args.json))
    common.publish(args, text)


if __name__ == "__main__":
    main()
