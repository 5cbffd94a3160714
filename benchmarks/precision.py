"""Time, rows and accuracy of `extract` in float32, bfloat16 and int8, as JSON and as tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``) and NNCF (``pip install tlfeat[int8]``).

    python benchmarks/precision.py                                   # everything; two hours on two cores
    python benchmarks/precision.py --parts road --networks resnet50  # one part of it; the others keep their figures
    python benchmarks/precision.py --tables-only                     # the tables from the JSON, runs nothing

Parts: `network`, one picture after another through the network alone, in one thread; `road`, the whole of `extract`
beside the script that users write with Keras and beside decoding and inference alone; `heads`, accuracy on real sets
with real weights; `auto`, what it chose and what choosing cost; `memory`, peaks at 2,000 and 60,000 images. Contenders
take turns in rounds, and ratios are taken within a round. Processor time is user and system, of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import common
import extraction
from common import Record
from tlfeat.backbones import int8
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.precision import BFLOAT16, FLOAT32, INT8, cosines, has_bfloat16
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.intervals import mcnemar
from tlfeat.extract import precision
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.text import markdown_table

#: Random weights; the figures of speed are those of any weights.
ALONE = ("mobilenet_v2", "mobilenet_v3_small", "resnet50", "inception_v3", "efficientnet_b0", "deit_small")
ROAD = ("mobilenet_v2", "resnet50", "inception_v3")
#: Least times less processor time than the Keras script, on AVX2 alone and with VNNI or AMX.
AIMS = {"mobilenet_v2": (3.5, 5), "resnet50": (2.5, 6), "inception_v3": (2.5, 5)}
SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
DRAWN = ("potato", "sign_digits")  # whose splits are drawn; the others have their own
CIFAR_PER_CLASS = 500
HEADS = ("logreg", "svm")
PARTS = ("network", "overflow", "road", "heads", "auto", "memory")

Save = Callable[[str, Record], None]


def kinds() -> list[str]:
    return [FLOAT32, *([BFLOAT16] if has_bfloat16() else []), INT8]


# --- the network alone --------------------------------------------------------------------------------------


def measure_network(args: argparse.Namespace, save: Save) -> None:
    """Time pictures one after another in one thread, precisions taking turns."""
    folder = extraction.flat_photos(args.shared, args.work, args.images)
    images = load_images(folder)
    precision.LEAST_COSINE, precision._SIGNIFICANCE = -1.0, 0.0  # random weights
    for name in args.networks or ALONE:
        encoder = KerasEncoder(BackboneSpec(name, "random"), ["avg_pool"], n_threads=1, networks_dir=args.work / "nets")
        paths = {kind: args.work / f"none-{kind}.h5" for kind in kinds()}
        common.say(f"{name}: converting it")
        encoder.prepare()
        started_s = time.perf_counter()
        found = {kind: precision.settle(encoder, kind, images, paths).encoder for kind in kinds() if kind != FLOAT32}
        settle_s = time.perf_counter() - started_s
        found = {FLOAT32: encoder, **found}
        pixels = precision.draw_sample(images, encoder, 16).pixels
        for one in found.values():
            one.encode(pixels[0][None])
        ms: dict[str, list[float]] = {kind: [] for kind in found}
        for _ in range(args.rounds * 5):
            for kind, one in found.items():
                started_s = time.process_time()
                for picture in pixels:
                    one.encode(picture[None])
                ms[kind].append(1e3 * (time.process_time() - started_s) / len(pixels))
        common.say(f"{name}: " + ", ".join(f"{kind} {statistics.median(each):.1f} ms" for kind, each in ms.items()))
        save(name, {"ms": ms, "settle_s": settle_s})


# --- sums that overflow -------------------------------------------------------------------------------------


def measure_overflow(args: argparse.Namespace, save: Save) -> None:
    """Take the cosines of rows to those of float32 for each of NNCF's ways with the eighth bit of the weights."""
    nncf: Any = int8._import_nncf()
    images = load_images(common.unpack("cats_dogs", args.shared, args.work))
    spec = BackboneSpec("mobilenet_v2_0.35", str(common.weights_v2(args.shared)))
    encoder = KerasEncoder(spec, ["avg_pool"], networks_dir=args.work / "nets")
    sample, float32, real = precision.draw_sample(images, encoder, 364), encoder.converted(), nncf.quantize
    probe = np.stack(sample.pixels[300:])
    reference = encoder.encode(probe)["avg_pool"]
    for fix in ("DISABLE", "FIRST_LAYER", "ENABLE"):

        def quantize(*values: Any, advanced_parameters: Any, fix: str = fix, **named: Any) -> Any:
            advanced_parameters.overflow_fix = getattr(nncf.OverflowFix, fix)
            return real(*values, advanced_parameters=advanced_parameters, **named)

        nncf.quantize, to = quantize, args.work / f"overflow-{fix}.xml"
        int8.quantise(
            float32, sample.pixels[:300], to, layers=["avg_pool"], backbone=spec.backbone, is_transformer=False
        )
        nncf.quantize = real
        ours = KerasEncoder(spec, ["avg_pool"], precision=f"{INT8}:{fix}", network=to).encode(probe)["avg_pool"]
        found = cosines(ours, reference)
        save(fix, {"median": float(np.median(found)), "smallest": float(found.min()), "n": len(probe)})
        common.say(f"{fix}: {np.median(found):.3f} ({found.min():.3f})")


# --- the whole road -----------------------------------------------------------------------------------------


def measure_road(args: argparse.Namespace, save: Save) -> None:
    """Run the Keras script, `extract` at each precision and its bound in rounds, for each network."""
    folder = extraction.flat_photos(args.shared, args.work, args.images)
    n_images = len([*folder.glob("*/*.jpg")])
    for name in args.networks or ROAD:
        base = {**extraction.base_task(name, folder, args.work), "is_unguarded": True}
        tasks: dict[str, Record] = {"naive": {**base, "rows": str(args.work / "naive.h5")}}
        settle: Record = {}
        for kind in kinds():
            task = {**base, "precision": kind, "cache": str(args.work / f"{kind}.h5")}
            common.say(f"{name}: making its {kind} form")
            settle[kind] = extraction.run_contender("convert", task, args.work)
            tasks |= {f"tlfeat {kind}": task, f"bound {kind}": task}
        runs = []
        for n, contender in extraction.in_turn(list(tasks), args.rounds):
            found = extraction.run_contender(contender.split()[0], tasks[contender], args.work)
            runs.append({"round": n, "name": contender, **found})
            common.say(f"{name} round {n + 1}: {contender}: {found['cpu_ms_per_image']:.1f} ms of processor an image")
        save(name, {"n_images": n_images, "runs": runs, "settle": settle})


# --- heads --------------------------------------------------------------------------------------------------


def backbones_of(shared: Path) -> dict[str, dict[str, Any]]:
    """Return the options of the two networks with real weights."""
    return {
        "MobileNetV2 0.35": common.backbone_options("v2", shared),
        "MobileNet v1": common.backbone_options("v1", shared),
    }


def source_of(name: str, args: argparse.Namespace) -> Path:
    folder = common.unpack(name, args.shared, args.work)
    if name != "cifar10":
        return folder
    return common.write_sample(load_images(folder), CIFAR_PER_CLASS, args.work / "cifar10-sample")[0]


def measure_heads(args: argparse.Namespace, save: Save) -> None:
    """Fit heads on the rows of each precision, same splits, and test them in pairs."""
    asked = precision.LEAST_COSINE, precision._SIGNIFICANCE
    for backbone, options in backbones_of(args.shared).items():
        for name in args.sets if backbone in args.backbones else ():
            source, caches, records = source_of(name, args), {}, {}
            for kind in kinds():
                job = plan_extraction(
                    source, precision=kind, cache=args.work / f"{name}-{backbone[-4:]}-{kind}.h5", **options
                )
                precision.LEAST_COSINE, precision._SIGNIFICANCE = -1.0, 0.0  # what is refused is measured, too
                report = job.run(known_in=())
                precision.LEAST_COSINE, precision._SIGNIFICANCE = asked
                caches[kind] = report.cache
                with open_cache(report.cache) as cache:
                    records[kind] = cache.source.get("precision", {})
            record: Record = {"cosines": cosines_of(caches), "records": records, "heads": {}}
            for head in HEADS:
                record["heads"][head] = [
                    fits(caches, head, seed) for seed in range(args.splits if name in DRAWN else 1)
                ]
            save(f"{backbone} {name}", record)
            common.say(f"{backbone} {name}: " + json.dumps(record["heads"]))


def cosines_of(caches: dict[str, Path]) -> Record:
    """Return quantiles of the cosine of all rows to those of float32."""
    rows = {}
    for kind, path in caches.items():
        with open_cache(path) as cache:
            keys = sorted({k for k, s in zip(cache.table.keys, cache.table.status, strict=True) if s == "ok"})
            rows[kind] = cache.read(next(iter(cache.layers)), keys)
    found = {kind: cosines(rows[kind], rows[FLOAT32]) for kind in caches if kind != FLOAT32}
    return {kind: [float(np.quantile(each, q)) for q in (0.01, 0.5)] for kind, each in found.items()}


def fits(caches: dict[str, Path], head: str, seed: int) -> Record:
    """Return the test accuracy at each precision for one split, and the p-value against float32."""
    results = {}
    for kind, path in caches.items():
        with open_data(path, seed=seed) as data:
            results[kind] = fit_sklearn(data, head, is_fresh=True).result
    reference = results[FLOAT32]
    return {
        kind: {
            "accuracy": result.score.accuracy,
            "p": mcnemar(np.array(result.true), np.array(result.predicted), np.array(reference.predicted)),
        }
        for kind, result in results.items()
    }


# --- auto and memory ----------------------------------------------------------------------------------------


def measure_auto(args: argparse.Namespace, save: Save) -> None:
    """Let `auto` choose for the pictures of CIFAR-10, and time what it saves and costs."""
    folder = common.unpack("cifar10", args.shared, args.work)
    for backbone, options in backbones_of(args.shared).items():
        said: list[str] = []
        cache = args.work / "auto.h5"
        cache.unlink(missing_ok=True)
        job = plan_extraction(folder, precision="auto", cache=cache, **options).settled(say=said.append)
        save(backbone, {"n_images": len(job.images), "said": said, **job.origin.get("precision", {})})
        common.say("\n".join(said))


def measure_memory(args: argparse.Namespace, save: Save) -> None:
    """Run whole commands on 2,000 and 60,000 photographs and keep their peaks, with and without making the network."""
    largest = extraction.many_photos(args.shared, args.work, args.memory[-1])
    weights = ["--backbone", "mobilenet_v2_0.35", "--weights", str(common.weights_v2(args.shared))]
    for kind in (FLOAT32, INT8):
        peaks: dict[str, Any] = {}
        for n in args.memory:
            folder = largest if n == args.memory[-1] else extraction.first_of(largest, n)
            for run in ("first", "again"):  # the first makes the network where there is none
                cache = args.work / "memory.h5"
                cache.unlink(missing_ok=True)
                words = ["extract", folder, "--precision", kind, "--cache", cache, *weights]
                used = extraction.run_process(
                    [sys.executable, "-m", "tlfeat", *words], args.work, extraction.environment_for("tlfeat")
                )
                peaks.setdefault(run, {})[str(n)] = used
                common.say(f"{kind}, {n:,} photographs, {run}: {used['peak_bytes'] / 1e6:.0f} MB")
        save(kind, {"runs": peaks["again"], "first": peaks["first"]})


MEASURE = {
    "network": measure_network,
    "overflow": measure_overflow,
    "road": measure_road,
    "heads": measure_heads,
    "auto": measure_auto,
    "memory": measure_memory,
}


# --- tables -------------------------------------------------------------------------------------------------


def _spread(values: Sequence[float], digits: int = 1) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"


def network_table(records: list[Record]) -> str:
    """Return the milliseconds of the network alone."""
    shown = [FLOAT32, *(kind for kind in (BFLOAT16, INT8) if any(kind in record["ms"] for record in records))]
    rows = []
    for record in records:
        ms = record["ms"]
        ratio = [a / b for a, b in zip(ms[FLOAT32], ms[INT8], strict=True)]
        times = [_spread(ms[kind]) if kind in ms else "–" for kind in shown]
        rows.append((record["name"], *times, _spread(ratio, 2), f"{record['settle_s']:.0f} s"))
    return markdown_table(["network", *(f"{kind}, ms" for kind in shown), "float32 / int8", "made and tried in"], rows)


def overflow_table(records: list[Record]) -> str:
    """Return the cosines for each of NNCF's ways."""
    ways = {"DISABLE": "8 bits", "FIRST_LAYER": "7 in the first layer (NNCF's default)", "ENABLE": "7 (tlfeat)"}
    rows = [(ways[record["name"]], f"{record['median']:.3f}", f"{record['smallest']:.3f}") for record in records]
    return markdown_table(
        ["bits of the weights, MobileNetV2 0.35", "cosine, median", f"smallest of {records[0]['n']}"], rows
    )


def road_table(records: list[Record]) -> str:
    """Return processor milliseconds an image of the whole road, and its ratios within a round."""
    rows = []
    for record in records:
        by_round: dict[int, dict[str, Record]] = {}
        for run in record["runs"]:
            by_round.setdefault(run["round"], {})[run["name"]] = run
        for name in dict.fromkeys(run["name"] for run in record["runs"] if not run["name"].startswith("bound")):
            runs = [found[name] for found in by_round.values()]
            less = [found["naive"]["cpu_ms_per_image"] / found[name]["cpu_ms_per_image"] for found in by_round.values()]
            bound = [
                found[f"bound {name.split()[1]}"]["one_thread_ms"] / found[name]["cpu_ms_per_image"]
                for found in by_round.values()
                if name != "naive"
            ]
            aim = AIMS[record["name"]][0 if "avx2" in record["isa"] else 1] if INT8 in name else None
            rows.append(
                (
                    record["name"],
                    "Keras script" if name == "naive" else name,
                    _spread([run["cpu_ms_per_image"] for run in runs]),
                    _spread([run["images_per_s"] for run in runs], 0),
                    "–" if name == "naive" else _spread(less, 2) + (f", aim {aim}" if aim else ""),
                    _spread(bound, 2) if bound else "–",
                )
            )
    headings = ["network", "", "processor ms an image", "images/s", "times less than the script", "share of the bound"]
    return markdown_table(headings, rows)


def heads_table(records: list[Record]) -> str:
    """Return accuracies in per cent, mean over the splits, with how many splits differ significantly."""
    rows = []
    for record in records:
        for head, fitted in record["heads"].items():
            others = [kind for kind in fitted[0] if kind != FLOAT32]
            means = {kind: 100 * statistics.mean(fit[kind]["accuracy"] for fit in fitted) for kind in fitted[0]}
            for kind in others:
                n_below = sum(fit[kind]["p"] < 0.05 for fit in fitted)
                low, median = record["cosines"][kind]
                tried = record["records"][kind]
                is_refused = tried["cosine"] < precision.LEAST_COSINE or tried["p_value"] < precision._SIGNIFICANCE
                rows.append(
                    (
                        record["name"], head, kind, f"{median:.3f} ({low:.3f})", f"{means[FLOAT32]:.1f} %",
                        f"{means[kind]:.1f} %", f"{means[kind] - means[FLOAT32]:+.1f}", f"{n_below} of {len(fitted)}",
                        f"refused ({tried['cosine']:.3f})" if is_refused else f"passes ({tried['cosine']:.3f})",
                    )
                )  # fmt: skip
    return markdown_table(
        [
            "network and set",
            "head",
            "precision",
            "cosine, median (1 %)",
            "float32",
            "its rows",
            "points",
            "p < 0.05",
            "guard",
        ],
        rows,
    )


def auto_table(records: list[Record]) -> str:
    """Return what `auto` said."""
    return "\n".join(
        f"- {record['name']}, {record['n_images']:,} images: " + "; ".join(record["said"]) for record in records
    )


def memory_table(records: list[Record]) -> str:
    """Return peaks of memory."""
    rows = []
    for record in records:
        peaks = {int(n): used["peak_bytes"] / 1e6 for n, used in record["runs"].items()}
        least, most = min(peaks), max(peaks)
        first = max(used["peak_bytes"] / 1e6 for used in record["first"].values())
        cells = [f"{peaks[n]:.0f} MB" for n in (least, most)]
        rows.append((record["name"], *cells, f"{peaks[most] / peaks[least]:.2f}", f"{first:.0f} MB"))
    sizes = [f"{int(n):,} photographs" for n in (records[0]["runs"] if records else ())]
    return markdown_table(["precision", *sizes, "ratio", "a run that makes the network"], rows)


TABLES = {
    "network": network_table,
    "overflow": overflow_table,
    "road": road_table,
    "heads": heads_table,
    "auto": auto_table,
    "memory": memory_table,
}


def tables(records: list[Record]) -> str:
    """Return the tables of the page, each with the machine it was measured on."""
    return common.tables_of_parts(records, TABLES, lambda last: str(last["isa"]))


def isa() -> str:
    """Return the widest integer instructions that the processor has."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").exists() else []
    for flag in ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2"):
        if flag in flags:
            return flag
    return "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the figures, write the page."""
    parser = common.parser_for("precision", __doc__)
    common.add_data(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", help="of `network` and `road`")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--backbones", nargs="+", default=["MobileNetV2 0.35", "MobileNet v1"], help="of `heads`")
    parser.add_argument("--images", type=common.positive, default=600, help="photographs of `network` and `road`")
    parser.add_argument("--rounds", type=common.positive, default=5)
    parser.add_argument("--splits", type=common.positive, default=5)
    parser.add_argument("--memory", type=common.positive, nargs="+", default=[2_000, 60_000])
    args = common.read_arguments(parser, arguments)
    common.publish(args, tables(common.measure_parts(args, MEASURE, isa=isa())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
