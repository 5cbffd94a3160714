"""How far exported files agree with `tlfeat predict` on real images, their size and speed, as JSON and Markdown.

For each set every head, and a network of ``fit-keras``, in every format; then 200 test images, spread evenly over all,
through the file and through `predict.Model` on the same decoded pixels. Needs the data and weights of
``TLFEAT_SHARED`` (default ``../shared``) and ``pip install 'tlfeat[export]'``.

    python benchmarks/export.py                  # both sets, half an hour on two busy cores
    python benchmarks/export.py --no-keras       # without the network, five minutes
    python benchmarks/export.py --tables-only    # the tables from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import common
from common import Record
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.settings import TrainSettings
from tlfeat.heads.table import HEADS
from tlfeat.images.decode import decode_batches
from tlfeat.models.export import export_model
from tlfeat.models.fit_keras import fit_keras
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.formats import FORMATS
from tlfeat.models.predict import Model
from tlfeat.records import distribution_version
from tlfeat.text import markdown_table, size
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "sign_digits")
N_IMAGES = 200
#: Of the timing: one image a call, as a server or a phone gets them.
N_CALLS = 100
RUNTIMES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "openvino", "ai-edge-litert")


def run_set(name: str, args: argparse.Namespace) -> Iterator[Record]:
    """Fit on a set, export in every format, compare; a record as soon as it is there."""
    source = common.unpack(name, args.shared, args.work)
    folder = args.work / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        cache = plan_extraction(source, **common.backbone_options("v2", args.shared)).run().cache
        with open_data(cache, seed=0) as data:
            test_at = data.split.where("test")
            some = test_at[np.unique(np.linspace(0, len(test_at) - 1, N_IMAGES).astype(np.int64))]
            files = [data.cache.table.images.file(i) for i in some.tolist()]
            for head in HEADS:
                yield from run_model(name, head.name, Path(fit_sklearn(data, head.name).result.model), files)
            if args.keras:
                with common.stage(f"{name}: fit-keras"):
                    network = fit_keras(data, TrainSettings()).result.model
                yield from run_model(name, "keras-frozen", Path(network), files)


def run_model(set_name: str, name: str, folder: Path, files: list[Path]) -> Iterator[Record]:
    """Export one model in every format."""
    model = Model(folder)
    size_px, resize = model.encoder.input_size, model.encoder.resize
    batches = list(decode_batches(files, size_px, 32, resize))
    expected = np.concatenate([model.probabilities(pixels) for pixels in batches])
    labels = [model.classes[j] for j in expected.argmax(axis=1)]
    for entry in FORMATS:
        with common.stage(f"{set_name}: {name} as {entry.name}"):
            started_s = time.perf_counter()
            exported = export_model(folder, entry.name)
            export_s = time.perf_counter() - started_s
            run = entry.load(exported.file)
            found = [run(pixels) for pixels in batches]
            probabilities = np.concatenate([p for _, p in found])
            times_ms = []
            for i in range(N_CALLS):
                image = batches[0][i % len(batches[0])][None].astype(np.float32)
                started_s = time.perf_counter()
                run(image)
                times_ms.append(1e3 * (time.perf_counter() - started_s))
        yield {
            "set": set_name,
            "n_classes": len(model.classes),
            "model": name,
            "mapping": "" if model.head is None else model.head.mapping,
            "format": entry.name,
            "runtime": exported.runtime,
            "n_images": len(files),
            "n_same_label": sum(a == b for a, b in zip(labels, (x for some, _ in found for x in some), strict=True)),
            "largest_difference": float(np.abs(probabilities - expected).max()),
            "n_bytes": exported.n_bytes,
            "export_s": export_s,
            "ms_per_image": float(np.median(times_ms)),
        }


def tables(document: Record) -> str:
    """Return the conditions and one table a set."""
    records = document["records"]
    parts = [
        f"- Machine: {common.machine_of(document)}, no GPU, shared with other work; load average (1 "
        f"minute) {document['load_average']:.1f} at the start, {document['load_average_at_end']:.1f} at the end. "
        f"{document['date']}.\n"
        f"- Versions: {common.versions_of(document['environment'], document['runtimes'])}.\n"
        f"- Seed 0, one run; ms: median of {N_CALLS} calls with one decoded image each, every runtime as it comes (all "
        f"cores)."
    ]
    for name in common.distinct(record["set"] for record in records):
        own = [record for record in records if record["set"] == name]
        rows = []
        for model in common.distinct(record["model"] for record in own):
            of_model = {record["format"]: record for record in own if record["model"] == model}
            cells = [
                f"{r['largest_difference']:.1e}, {r['n_same_label']}/{r['n_images']}, {size(r['n_bytes'])}, "
                f"{r['ms_per_image']:.1f} ms"
                for r in of_model.values()
            ]
            mapping = next(iter(of_model.values()))["mapping"]
            rows.append((f"{model} ({mapping})" if mapping else model, *cells))
        headings = ("model (rows)", *common.distinct(record["format"] for record in own))
        parts += [f"### {name}, {own[0]['n_classes']} classes", markdown_table(headings, rows)]
    return "\n\n".join(parts)


def main(arguments: list[str]) -> None:
    """Run what is asked for and write the JSON."""
    parser = common.parser_for("export", __doc__)
    common.add_data(parser, work=Path(tempfile.gettempdir()) / "tlfeat-export")
    parser.add_argument("--keras", action=argparse.BooleanOptionalAction, default=True)
    args = common.read_arguments(parser, arguments)
    if not args.tables_only:
        document: Record = {
            **common.conditions(),
            "load_average": common.load_average(),
            "runtimes": {name: distribution_version(name) for name in RUNTIMES},
            "records": [],
        }
        for name in SETS:
            for record in run_set(name, args):
                document["records"].append(record)
                write_json(args.json, {**document, "load_average_at_end": common.load_average()})
    text = tables(read_json(args.json))
    common.publish(args, text)


if __name__ == "__main__":
    main(sys.argv[1:])
