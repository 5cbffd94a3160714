"""What ``tlfeat audit`` finds of what was planted, and what it finds where nothing was; JSON and Markdown tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/audit.py                    # everything; 60,000 pictures of cifar10 are embedded once
    python benchmarks/audit.py --seeds 2 --sets cats_dogs
    python benchmarks/audit.py --tables-only      # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import common
from common import Record
from tlfeat.cache.store import open_cache
from tlfeat.cli.console import Progress
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.duplicates import SAME_ROW, find_duplicates
from tlfeat.images.image_set import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.studies import audit as auditing
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
N_COPIES = 50
WRONG_SHARE = 0.05
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


def plant(folder: Path, seed: int) -> tuple[Path, dict[str, tuple[str, str]], set[str]]:
    """Write copies of training images into the test set and a CSV in which 5 % of the labels are wrong.

    Returns
    -------
    tuple
        The CSV; planted path to (original path, change); the paths with a wrong label.
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
    # of the images that take no part in a planted pair: a copy would give a wrong label away as a conflict
    free = sorted(set(range(len(images))) - set(copied.tolist()))
    wrong = rng.permutation(free)[: round(WRONG_SHARE * len(images))].tolist()
    for i in wrong:
        others = [label for label in images.classes if label != lines[i][1]]
        lines[i][1] = others[int(rng.integers(len(others)))]
    table = folder.with_name(f"{folder.name}-planted{seed}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *lines])
    return table, planted, {lines[i][0] for i in wrong}


def run_planted(folder: Path, cache: Path, args: argparse.Namespace, seed: int) -> Record:
    """Plant, audit, fit, and count."""
    table, planted, wrong = plant(folder, seed)
    embed(table, cache, args)
    with common.stage(f"planted, seed {seed}: audit"), open_cache(cache) as opened:
        found = auditing.audit(opened)
    pairs = {frozenset((f.path, f.other)) for f in found.of_kind("duplicate")}
    true_pairs = {frozenset((path, original)) for path, (original, _) in planted.items()}
    n_found = Counter(change for path, (original, change) in planted.items() if frozenset((path, original)) in pairs)
    doubted = {f.path for f in found.of_kind("label")}
    with open_data(cache, seed=0) as data:
        result = fit_sklearn(data, "logreg", is_fresh=True).result
        rows = data.cache.read("avg_pool", data.split.keys)
        is_test = np.array([role == "test" for role in data.split.roles])
        by_rows = find_duplicates(rows, data.split.keys, None, is_asking=is_test).pairs
        on_rows = {frozenset((data.split.paths[p.one], data.split.paths[p.other])) for p in by_rows}
    assert result.leaks is not None
    return {
        "seed": seed,
        "n_images": found.n_images,
        "copies": {
            change: [n_found[change], sum(other == change for _, other in planted.values())] for change in CHANGES
        },
        "n_false_copies": len(pairs - true_pairs),
        "n_by_rows_alone": len(on_rows & true_pairs),
        "n_false_by_rows_alone": len(on_rows - true_pairs),
        "n_wrong_labels": len(wrong),
        "n_doubted": len(doubted),
        "n_wrong_doubted": len(doubted & wrong),
        "accuracy": result.score.accuracy,
        "ci95": result.score.ci95,
        "n_test": result.split.n_test,
        "accuracy_without_leaks": result.leaks.accuracy,
        "ci95_without_leaks": result.leaks.ci95,
        "n_test_without_leaks": result.leaks.n_test,
    }


# --- nothing planted ----------------------------------------------------------------------------------------


def run_untouched(name: str, cache: Path) -> Record:
    """Count what is found in a set as it is; of cifar10 only copies, all 60,000 pictures."""
    with open_cache(cache) as opened:
        if name == "cifar10":
            with common.stage(f"{name}: leaks"), open_data(cache, seed=0) as data:
                leaks = data.leaks()
            return {
                "n_images": len(data.split.keys),
                "n_leaks": len(leaks.images),
                "leaks": leaks.images,
                "notes": leaks.notes,
            }
        with common.stage(f"{name}: audit"):
            found = auditing.audit(opened)
    return {
        "n_images": found.n_images,
        **{f"n_{kind}": len(found.of_kind(kind)) for kind in auditing.KINDS},
        "findings": [f.to_dict() for f in found.findings],
        "notes": found.notes,
    }


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
    n_seeds, wrong = len(document["planted"]), f"{100 * WRONG_SHARE:.0f} % wrong labels each"
    return "\n\n".join(
        [
            f"Planted in cats_dogs, {n_seeds} seeds, {N_COPIES} copies and {wrong}:",
            copies_table(document["planted"]),
            labels_table(document["planted"]),
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


def labels_table(runs: list[Record]) -> str:
    """Return how many wrong labels were found with each seed, and the accuracy with leaks and without."""
    rows = []
    for run in runs:
        right, doubted, wrong = run["n_wrong_doubted"], run["n_doubted"], run["n_wrong_labels"]
        rows.append(
            (
                *(str(run["seed"]), f"{right} of {wrong}"),
                *(f"{100 * right / max(doubted, 1):.0f} %", f"{100 * right / wrong:.0f} %"),
                f"{_accuracy(run, '')} of {run['n_test']}",
                f"{_accuracy(run, '_without_leaks')} of {run['n_test_without_leaks']}",
            )
        )
    precision, recall = (
        statistics.mean(run["n_wrong_doubted"] / max(run[k], 1) for run in runs)
        for k in ("n_doubted", "n_wrong_labels")
    )
    rows.append(("mean", "", f"{100 * precision:.0f} %", f"{100 * recall:.0f} %", "", ""))
    headings = ("seed", "wrong labels found", "precision", "recall", "accuracy with leaks", "without")
    return markdown_table(headings, rows)


def untouched_table(runs: dict[str, Record]) -> str:
    """Return what was found in each set as it is."""
    rows = []
    for name, run in runs.items():
        copies, conflicts, labels, outliers = (
            str(run.get(f"n_{kind}", "–")) for kind in ("duplicate", "conflict", "label", "outlier")
        )
        leaks = str(run.get("n_leak", run.get("n_leaks")))
        rows.append((name, f"{run['n_images']:,}", copies, leaks, conflicts, labels, outliers))
    return markdown_table(("set", "images", "duplicates", "leaks", "two labels", "suspect labels", "outliers"), rows)


def _accuracy(run: Record, suffix: str) -> str:
    low, high = run[f"ci95{suffix}"]
    return f"{100 * run[f'accuracy{suffix}']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("audit", __doc__)
    common.add_data(parser, work=common.ROOT / "cache" / "benchmark-audit")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--seeds", type=int, default=5)
    args = common.read_arguments(parser)
    if not args.tables_only:
        run_all(args)
    common.publish(args, tables(read_json(args.json)))


def run_all(args: argparse.Namespace) -> None:
    """Run every part, writing the JSON after each."""
    document: Record = {**common.conditions(), "planted": [], "untouched": {}, "aliens": []}
    args.work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(args.work):
        rows = {}
        for name in args.sets:
            folder, cache = common.unpack(name, args.shared, args.work), args.work / f"{name}.h5"
            embed(folder, cache, args)
            document["untouched"][name] = run_untouched(name, cache)
            write_json(args.json, document)
            if name != "cifar10":
                with open_cache(cache) as opened:
                    rows[name] = opened.read("avg_pool", opened.table.keys)
        document["aliens"] = run_aliens(rows)
        folder = common.unpack("cats_dogs", args.shared, args.work)
        for seed in range(args.seeds):
            document["planted"].append(run_planted(folder, args.work / "planted.h5", args, seed))
            write_json(args.json, document)


if __name__ == "__main__":
    main()
