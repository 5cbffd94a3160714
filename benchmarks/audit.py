"""What ``tlfeat audit`` finds of what was planted, and what it finds where nothing was; JSON and Markdown tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/audit.py                    # everything
    python benchmarks/audit.py --parts planted --seeds 2     # the rest of the JSON stays
    python benchmarks/audit.py --tables-only      # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import os
import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import common
from common import Record
from tlfeat.cache.store import open_cache
from tlfeat.cli.console import Progress
from tlfeat.evaluate.copies import Copies, find_copies
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.split import make_split
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.duplicates import SAME_ROW, find_duplicates
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.studies import audit as auditing
from tlfeat.studies.doubted_labels import find_doubted_labels
from tlfeat.studies.findings import KINDS
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10", "pacs_sample")
PARTS = ("untouched", "aliens", "planted", "labels", "speed")
N_CIFAR10 = 666  # training images of each of ten classes, and half as many test images
N_COPIES = 50
WRONG_SHARE = 0.05
N_SUREST = 20
DRAWS = ((WRONG_SHARE, 0), (0.01, 0))  # share of wrong labels, seed
MAX_LABELLED = 1500
N_ALIENS, N_DRAWS = 4, 5  # fewer than the neighbours that an outlier has to be far from; drawn five times


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut 5 % off each side length, at a random place."""
    width, height = round(0.95 * image.width), round(0.95 * image.height)
    left, top = (int(rng.integers(0, gap + 1)) for gap in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


#: What is done to a copy; all but the first are written as JPEG.
CHANGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "byte copy": lambda data, rng: data,
    "JPEG quality 60": lambda data, rng: _jpeg(_opened(data), 60),
    "80 % of the size": lambda data, rng: _jpeg(_scaled(_opened(data), 0.8), 90),
    "cropped by 5 %": lambda data, rng: _jpeg(_crop(_opened(data), rng), 90),
    "mirrored": lambda data, rng: _jpeg(ImageOps.mirror(_opened(data)), 90),
    "20 % brighter": lambda data, rng: _jpeg(ImageEnhance.Brightness(_opened(data)).enhance(1.2), 90),
}


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _scaled(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(share * image.width), round(share * image.height)), Image.Resampling.BILINEAR)


# --- planting -----------------------------------------------------------------------------------------------


def plant(folder: Path, seed: int) -> tuple[Path, dict[str, tuple[str, str]]]:
    """Write copies of training images into the test set, and a CSV.

    Returns
    -------
    tuple
        The CSV; planted path to (original path, change).
    """
    rng = np.random.default_rng(seed)
    images = load_images(folder)
    lines = [
        [f"{folder.name}/{path}", label, split]
        for path, label, split in zip(images.paths, images.labels, images.splits, strict=True)
    ]
    train = [i for i, line in enumerate(lines) if line[2] == "train"]
    copied = rng.permutation(train)[:N_COPIES]
    planted = {}
    aside = folder.with_name(f"{folder.name}-planted{seed}")
    aside.mkdir(exist_ok=True)
    names = list(CHANGES)
    for n, i in enumerate(copied.tolist()):
        change = names[n % len(names)]
        path = aside / f"{n}.jpg"
        path.write_bytes(CHANGES[change](images.file(i).read_bytes(), rng))
        planted[f"{aside.name}/{path.name}"] = lines[i][0], change
        lines.append([f"{aside.name}/{path.name}", lines[i][1], "test"])
    table = folder.with_name(f"{folder.name}-planted{seed}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *lines])
    return table, planted


def run_planted(folder: Path, cache: Path, args: argparse.Namespace, seed: int) -> Record:
    """Plant, look for copies, fit, and count."""
    table, planted = plant(folder, seed)
    embed(table, cache, args)
    with common.stage(f"planted, seed {seed}"), open_data(cache, seed=0) as data:
        copies, table = find_copies(data.cache), data.cache.table
    inside, group_of = defaultdict(set), copies.groups()
    for key, path in zip(table.keys, table.images.paths, strict=True):
        inside[group_of[key]].add(path)
    groups = {frozenset(paths) for paths in inside.values() if len(paths) > 1}
    true_pairs = {frozenset((path, original)) for path, (original, _) in planted.items()}
    n_found = Counter(change for path, (original, change) in planted.items() if frozenset((path, original)) in groups)
    with open_data(cache, seed=0) as data:
        result = fit_sklearn(data, "logreg", is_fresh=True).result
        rows = data.cache.read("avg_pool", data.split.keys)
        by_rows = find_duplicates(rows, data.split.keys, None).pairs
        on_rows = {frozenset((data.split.paths[p.one], data.split.paths[p.other])) for p in by_rows}
    assert result.leaks is not None
    return {
        "seed": seed,
        "n_images": len(table.keys),
        "copies": {
            change: [n_found[change], sum(other == change for _, other in planted.values())] for change in CHANGES
        },
        "n_false_copies": len(groups - true_pairs),
        "n_leaks": len(result.leaks.images),
        "n_by_rows_alone": len(on_rows & true_pairs),
        "n_false_by_rows_alone": len(on_rows - true_pairs),
        "accuracy": result.leaks.accuracy_with,
        "ci95": result.leaks.ci95_with,
        "n_test": result.split.n_test,
        "accuracy_without_leaks": result.score.accuracy,
        "ci95_without_leaks": result.score.ci95,
        "n_test_without_leaks": result.leaks.n_test,
    }


# --- nothing planted ----------------------------------------------------------------------------------------


def run_untouched(name: str, cache: Path) -> Record:
    """Count what is found in a set as it is; of cifar10 only copies."""
    if name == "cifar10":
        with common.stage(f"{name}: copies"), open_data(cache, seed=0) as data:
            groups = Counter(find_copies(data.cache).groups().values())
            leaks = data.leaks().images
        n_groups = sum(n > 1 for n in groups.values())
        return {"n_images": len(data.split.keys), "n_groups": n_groups, "n_leak": len(leaks), "leaks": leaks}
    with common.stage(f"{name}: audit"), open_cache(cache) as opened:
        found = auditing.audit(opened)
    return {
        "n_images": found.n_images,
        **{f"n_{kind}": len(found.of_kind(kind)) for kind in KINDS},
        "n_groups": len(found.groups),
        "agreement": found.agreement,
        "findings": [f.to_dict() for f in found.findings],
        "notes": found.notes,
    }


# --- wrong labels -------------------------------------------------------------------------------------------


def label_sets(caches: dict[str, Path]) -> Iterator[tuple[str, Any, Any]]:
    """Give name, split and rows of the sets that labels are planted in: whole, and easier and harder parts."""
    for name, path in caches.items():
        with open_cache(path) as cache:
            table = cache.table
            if name == "pacs_sample":  # DOMAIN/CLASS/...
                labels = [path.split("/")[-2] for path in table.images.paths]
                table = replace(table, images=replace(table.images, labels=labels))
            split = make_split(table)
            rows = cache.read("avg_pool", split.keys)
        rng = np.random.default_rng(0)
        everything = np.arange(len(rows))
        parts = {name: everything}
        if name == "cifar10":
            chosen = np.isin(split.labels, [split.classes.index(c) for c in ("airplane", "frog", "horse", "truck")])
            parts["cifar10, 4 classes"] = everything[chosen]
        if name == "pacs_sample":
            for domain in ("photo", "cartoon"):
                parts[f"pacs_sample, {domain}s"] = everything[[f"{domain}/" in path for path in split.paths]]
        for part, at in parts.items():
            at = np.sort(rng.permutation(at)[:MAX_LABELLED])
            classes, labels = np.unique(split.labels[at], return_inverse=True)
            smaller = replace(
                split,
                classes=[split.classes[c] for c in classes],
                labels=labels,
                **{field: [getattr(split, field)[i] for i in at] for field in ("keys", "paths", "roles")},
                groups=np.unique(split.groups[at], return_inverse=True)[1],
            )
            yield part, smaller, rows[at]


def run_labels(name: str, split: Any, rows: Any, share: float, seed: int) -> Record:
    """Change a share of the labels to another one by chance and count which are doubted."""
    rng = np.random.default_rng([seed, round(1000 * share)])
    n, n_classes = len(split.keys), len(split.classes)
    labels = split.labels.copy()
    wrong = rng.permutation(n)[: round(share * n)]
    labels[wrong] = (labels[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    with common.stage(f"{name}, {100 * share:.0f} % wrong, seed {seed}"):
        found = find_doubted_labels(rows, replace(split, labels=labels), Copies(sorted(set(split.keys)), [], []))
    planted = {split.paths[i] for i in wrong}
    hits = [finding.path in planted for finding in found.findings]
    return {
        "set": name,
        "n_images": n,
        "n_classes": n_classes,
        "share": share,
        "seed": seed,
        "agreement": found.agreement,
        "n_wrong": len(wrong),
        "n_listed": len(hits),
        "n_hits": sum(hits),
        "n_surest": len(hits[:N_SUREST]),
        "n_surest_hits": sum(hits[:N_SUREST]),
    }


# --- speed --------------------------------------------------------------------------------------------------


def run_speed(name: str, cache: Path) -> Record:
    """Measure how long the copies of a set take to find, and to read when they are kept."""
    times = []
    for _ in range(3):
        shutil.rmtree("cache/copies", ignore_errors=True)
        for _ in range(2):
            with open_cache(cache) as opened:
                started_s, cpu_s = time.perf_counter(), time.process_time()
                copies = find_copies(opened)
                times.append((time.perf_counter() - started_s, time.process_time() - cpu_s))
    return {
        "set": name,
        "n_images": len(copies.keys),
        "n_pairs": len(copies.pairs),
        "find_s": min(wall for wall, _ in times[::2]),
        "find_cpu_s": min(cpu for _, cpu in times[::2]),
        "read_s": min(wall for wall, _ in times[1::2]),
        "load": os.getloadavg()[0],
    }


# --- strangers ----------------------------------------------------------------------------------------------


def run_aliens(rows: dict[str, Any]) -> list[Record]:
    """Put pictures of one set among those of another and count which are called outliers."""
    rng = np.random.default_rng(0)
    counted = []
    for host, own in rows.items():
        for guest, others in rows.items():
            if guest != host:
                n_found = 0
                for _ in range(N_DRAWS):
                    aliens = others[rng.permutation(len(others))[:N_ALIENS]]
                    is_outlier = auditing.outlier_scores(np.vstack([own, aliens])) > auditing.OUTLIER_Z
                    n_found += int(is_outlier[len(own) :].sum())
                counted.append(
                    {
                        "set": host,
                        "aliens": guest,
                        "n_found": n_found,
                        "n_aliens": N_ALIENS * N_DRAWS,
                        "n_own": int(is_outlier[: len(own)].sum()),
                        "n_images": len(own),
                    }
                )
    return counted


def embed(source: Path, cache: Path, args: argparse.Namespace) -> None:
    """Embed what the cache does not know yet."""
    job = plan_extraction(source, **common.backbone_options("v2", args.shared), cache=cache)
    with Progress() as progress:
        job.run(on_progress=progress)


# --- tables -------------------------------------------------------------------------------------------------


def tables(document: Record) -> str:
    """Return the Markdown between the markers of docs/benchmarks/audit.md."""
    n_seeds = len(document["planted"])
    return "\n\n".join(
        [
            f"Planted in cats_dogs, {n_seeds} seeds, {N_COPIES} copies each:",
            copies_table(document["planted"]),
            leaks_table(document["planted"]),
            f"Wrong labels planted by chance in at most {MAX_LABELLED:,} images, one draw of 5 % and one of 1 %. The "
            "agreement is what the audit says of a set: the share of images for which a head that had not seen them "
            "names the given label:",
            labels_table(document["labels"]),
            "The same by agreement; what `tlfeat audit` says:",
            bands_table(document["labels"]),
            "Nothing planted:",
            untouched_table(document["untouched"]),
            f"{N_ALIENS} images of another set among them, {N_DRAWS} draws:",
            markdown_table(
                ("set", "images of", "found", "false alarms"),
                [
                    (
                        *(a["set"], a["aliens"], f"{a['n_found']} of {a['n_aliens']}"),
                        f"{a['n_own']} of {a['n_images']:,}",
                    )
                    for a in document["aliens"]
                ],
            ),
            "Seconds to find all copies, and to read them when they are kept (best of three):",
            speed_table(document["speed"]),
        ]
    )


def copies_table(runs: list[Record]) -> str:
    """Return how many copies of each kind were found, over all seeds."""

    def summed(changes: Iterable[str]) -> str:
        n_found, n = (sum(run["copies"][change][k] for run in runs for change in changes) for k in (0, 1))
        return f"{n_found} of {n}"

    n = sum(run["copies"][change][1] for run in runs for change in CHANGES)
    by_rows = sum(run["n_by_rows_alone"] for run in runs)
    false, false_rows = (sum(run[k] for run in runs) for k in ("n_false_copies", "n_false_by_rows_alone"))
    return markdown_table(
        ("change", "found", "by embeddings alone"),
        [
            *((change, summed([change]), "") for change in CHANGES),
            ("all", summed(CHANGES), f"{by_rows} of {n} (cosine {SAME_ROW})"),
            ("false alarms", str(false), str(false_rows)),
        ],
    )


def leaks_table(runs: list[Record]) -> str:
    """Return the accuracy with leaks and without for each seed."""
    rows = [
        (
            str(run["seed"]),
            f"{_accuracy(run, '')} of {run['n_test']}",
            f"{_accuracy(run, '_without_leaks')} of {run['n_test_without_leaks']}",
        )
        for run in runs
    ]
    return markdown_table(("seed", "accuracy with leaks", "without"), rows)


def summed(runs: list[Record]) -> tuple[str, str, str, str]:
    """Return the agreement, the precision of the surest and of all, and the recall of several runs."""
    low, high = (end(run["agreement"] for run in runs) for end in (min, max))
    n = {key: sum(run[key] for run in runs) for key in ("n_surest", "n_surest_hits", "n_listed", "n_hits", "n_wrong")}
    return (
        f"{100 * low:.0f} %" if low == high else f"{100 * low:.0f} to {100 * high:.0f} %",
        f"{100 * n['n_surest_hits'] / max(n['n_surest'], 1):.0f} %",
        f"{100 * n['n_hits'] / max(n['n_listed'], 1):.0f} %",
        f"{100 * n['n_hits'] / max(n['n_wrong'], 1):.0f} %",
    )


def labels_table(runs: list[Record]) -> str:
    """Return how many wrong labels were found in each set, and how many of those listed were wrong."""
    cells: dict[tuple[float, str], list[Record]] = {}
    for run in runs:
        cells.setdefault((-run["share"], run["set"]), []).append(run)
    rows = [
        (name, f"{own[0]['n_images']:,}", f"{-100 * share:.0f} %", *summed(own))
        for (share, name), own in sorted(
            cells.items(), key=lambda cell: (cell[0][0], -statistics.mean(run["agreement"] for run in cell[1]))
        )
    ]
    headings = ("set", "images", "wrong", "agreement", f"wrong of the surest {N_SUREST}", "wrong of all", "found")
    return markdown_table(headings, rows)


def bands_table(runs: list[Record]) -> str:
    """Return the same by agreement."""
    edges = (1.01, 0.9, 0.8, 0.0)
    rows = []
    for share in sorted({run["share"] for run in runs}, reverse=True):
        for high, low in itertools.pairwise(edges):
            own = [run for run in runs if run["share"] == share and low <= run["agreement"] < high]
            if own:
                rows.append((f"{100 * share:.0f} %", str(len(own)), *summed(own)))
    headings = ("wrong", "runs", "agreement", f"wrong of the surest {N_SUREST}", "wrong of all", "found")
    return markdown_table(headings, rows)


def speed_table(runs: list[Record]) -> str:
    """Return the seconds of the search for copies."""
    rows = [
        (
            *(run["set"], f"{run['n_images']:,}", f"{run['find_s']:.1f} s", f"{run['find_cpu_s']:.1f} s"),
            *(f"{1000 * run['read_s']:.0f} ms", f"{run['load']:.1f}"),
        )
        for run in runs
    ]
    return markdown_table(("set", "images", "find", "of the processor", "read", "load of the machine"), rows)


def untouched_table(runs: dict[str, Record]) -> str:
    """Return what was found in each set as it is."""
    rows = [
        (
            *(name, f"{run['n_images']:,}", str(run["n_groups"]), str(run["n_leak"])),
            *(str(run.get(f"n_{kind}", "–")) for kind in ("conflict", "label", "outlier")),
        )
        for name, run in runs.items()
    ]
    headings = ("set", "images", "groups of copies", "leaks", "two labels", "doubted labels", "outliers")
    return markdown_table(headings, rows)


def _accuracy(run: Record, suffix: str) -> str:
    low, high = run[f"ci95{suffix}"]
    return f"{100 * run[f'accuracy{suffix}']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("audit", __doc__)
    common.add_data(parser, work=common.ROOT / "cache" / "benchmark-audit")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    args = common.read_arguments(parser)
    if not args.tables_only:
        run_all(args)
    common.publish(args, tables(read_json(args.json)))


def run_all(args: argparse.Namespace) -> None:
    """Run the parts that are asked for, writing the JSON after each."""
    document: Record = read_json(args.json) if args.json.exists() else {}
    document.update(common.conditions())
    args.work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(args.work):
        caches = {name: args.work / f"{name}.h5" for name in SETS}
        for name, cache in caches.items():
            folder = common.unpack(name, args.shared, args.work)
            embed(
                folder if name != "cifar10" else common.write_sample(load_images(folder), N_CIFAR10, folder)[0],
                cache,
                args,
            )
        for part in args.parts:
            document[part] = run_part(part, caches, args)
            write_json(args.json, document)


def run_part(part: str, caches: dict[str, Path], args: argparse.Namespace) -> Any:
    """Run one of `PARTS`."""
    if part == "untouched":
        return {name: run_untouched(name, cache) for name, cache in caches.items() if name != "pacs_sample"}
    if part == "speed":
        return [run_speed(name, caches[name]) for name in ("cats_dogs", "potato", "cifar10")]
    if part == "planted":
        folder = common.unpack("cats_dogs", args.shared, args.work)
        return [run_planted(folder, args.work / "planted.h5", args, seed) for seed in range(args.seeds)]
    if part == "labels":
        sets = list(label_sets(caches))
        runs = []
        for share, seed in DRAWS:
            for name, split, rows in sets:
                runs.append(run_labels(name, split, rows, share, seed))
                write_json(args.json.with_suffix(".labels.json"), runs)  # an hour on a slow machine
        return runs
    rows = {}
    for name in ("cats_dogs", "potato", "sign_digits"):
        with open_cache(caches[name]) as opened:
            rows[name] = opened.read("avg_pool", opened.table.keys)
    return run_aliens(rows)


if __name__ == "__main__":
    main()
