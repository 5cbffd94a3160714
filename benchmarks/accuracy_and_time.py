"""Accuracy and seconds of every candidate of ``compare`` on the shared data sets, as JSON and as Markdown tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``). Each (set, backbone) starts from an empty
cache folder, so that every time is measured; the JSON is written after each of its stages and takes in the results
of earlier runs, so that parts can be run one after another.

    python benchmarks/accuracy_and_time.py --keras none                      # extraction and heads
    python benchmarks/accuracy_and_time.py --sets potato --backbones v2      # one part with Keras; replaces its rows
    python benchmarks/accuracy_and_time.py --tables-only                     # Markdown from the JSON, runs nothing
    python benchmarks/accuracy_and_time.py --images-per-class 20 --keras none --json /tmp/t.json --markdown /tmp/t.md
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.cli.console import Progress
from tlfeat.errors import TlfeatError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.image_set import ImageSet, load_images
from tlfeat.records import Environment
from tlfeat.studies.compare import ALL_HEADS, ALL_KERAS, Comparison, compare_candidates
from tlfeat.text import percent, seconds, size
from tlfeat.workspace import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SEED = 0
CIFAR_IMAGES_PER_CLASS = 200  # and 100 for testing: 60,000 images at 224 px are no evening of Keras on two cores
FULL_CIFAR_HEADS = ("logreg", "ridge", "lda", "knn")  # both SVMs are quadratic in 50,000 images and more
MARKERS = ("<!-- accuracy_and_time -->", "<!-- /accuracy_and_time -->")

ARCHIVES = {
    "potato": "potato.tar",
    "cats_dogs": "cats_dogs.tar",
    "sign_digits": "sign_digits.tar",
    "cifar10": "cifar10.tar.gz",
}
#: Key in a record and on the command line to the name in the tables.
BACKBONES = {"v2": "MobileNetV2 0.35", "v1": "MobileNet v1, own file"}
SET_ORDER = (*ARCHIVES, "cifar10_full")

#: (set, backbone) to accuracy in percent of a plain script with LogisticRegression(C=0.01), from shared/README.md.
EXPECTED = {
    ("cats_dogs", "v2"): "96.8 %",
    ("cats_dogs", "v1"): "98.2 %",
    ("potato", "v2"): "98.0 ± 0.5 %",
    ("potato", "v1"): "99.1 ± 0.2 %",
    ("sign_digits", "v2"): "93.7 ± 0.8 %",
    ("sign_digits", "v1"): "96.4 ± 1.1 %",
}
KEPT_FIELDS = (
    *("model", "kind", "layer", "accuracy", "ci95", "balanced_accuracy", "macro_f1", "decode_s", "search_s", "fit_s"),
    *("predict_s_per_image", "image_s", "model_bytes", "chosen", "p_value_vs_best", "is_within_noise_of_best", "notes"),
)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One (set, backbone): what to embed and which candidates to run on it."""

    name: str
    backbone: str
    source: Path
    images: ImageSet
    sample: str
    heads: tuple[str, ...]
    keras_modes: tuple[str, ...]
    has_pixels: bool
    seeds: tuple[int, ...]
    epochs: int | None

    @property
    def candidates(self) -> set[str]:
        """The names that `compare_candidates` gives them."""
        pixels = {"pixels+logreg"} if self.has_pixels else set()
        return pixels | set(self.heads) | {f"keras-{mode}" for mode in self.keras_modes}


def say(text: str) -> None:
    """Tell the progress on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Say what begins and how long it took."""
    say(f"{datetime.now(UTC):%H:%M:%S}  {what} ...")
    started_s = time.perf_counter()
    yield
    say(f"{datetime.now(UTC):%H:%M:%S}  {what}: {seconds(time.perf_counter() - started_s)}")


# --- data ---------------------------------------------------------------------------------------------------


def unpack(name: str, shared: Path, work: Path) -> Path:
    """Unpack a data set below `work` unless it is there, and return its folder."""
    folder = work / "data" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            stage(f"unpacking {name}"),
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as aside,
            tarfile.open(shared / "data" / ARCHIVES[name]) as archive,
        ):
            archive.extractall(aside, filter="data")
            (Path(aside) / name).rename(folder)
    return folder


def write_sample(images: ImageSet, n_per_class: int, folder: Path) -> tuple[Path, str]:
    """Write a CSV beside `folder` with a seeded draw of each class and split; return it and a sentence about it."""
    rng = np.random.default_rng(SAMPLE_SEED)
    members = defaultdict(list)
    for i, key in enumerate(zip(images.splits, images.labels, strict=True)):
        members[key].append(i)
    n_test = max(1, n_per_class // 2)
    chosen: list[int] = []
    for (split, _), inside in sorted(members.items()):
        n_wanted = n_test if split == "test" else n_per_class
        chosen += sorted(rng.permutation(inside)[:n_wanted].tolist())
    table = folder.with_name(f"{folder.name}-sample{n_per_class}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows((f"{folder.name}/{images.paths[i]}", images.labels[i], images.splits[i]) for i in chosen)
    parts = f"{n_per_class} training and {n_test} test images" if "test" in images.splits else f"{n_per_class} images"
    return table, f"a sample of at most {parts} a class, drawn with seed {SAMPLE_SEED}"


def make_task(name: str, backbone: str, args: argparse.Namespace) -> Task:
    """Unpack the set, sample it where asked or needed, and say what to run on it."""
    folder = unpack(name, args.shared, args.work)
    source, images, sample = folder, load_images(folder), ""
    is_full_cifar = name == "cifar10" and args.cifar_full
    n_per_class = args.images_per_class or (CIFAR_IMAGES_PER_CLASS if name == "cifar10" and not is_full_cifar else 0)
    if n_per_class:
        source, sample = write_sample(images, n_per_class, folder)
        images = load_images(source)
    return Task(
        name="cifar10_full" if is_full_cifar else name,
        backbone=backbone,
        source=source,
        images=images,
        sample=sample,
        heads=FULL_CIFAR_HEADS if is_full_cifar else ALL_HEADS,
        keras_modes=() if is_full_cifar else args.keras,
        has_pixels=not is_full_cifar,
        seeds=(0,) if "test" in images.splits else tuple(range(args.splits)),
        epochs=args.epochs,
    )


def backbone_options(backbone: str, shared: Path) -> dict[str, Any]:
    """Return the options of `plan_extraction` for a backbone of the table."""
    weights = shared / "weights"
    if backbone == "v2":
        weights_file = weights / "mobilenet_v2_0.35_224_no_top.weights.h5"
        return {"backbone": "mobilenet_v2_0.35", "weights": str(weights_file)}
    return {"backbone": str(weights / "mobilenet_1.0_224_to_conv_pw_12.keras"), "preprocess": "tf"}


# --- running ------------------------------------------------------------------------------------------------


def run_task(task: Task, args: argparse.Namespace, save: Callable[[Record], None]) -> None:
    """Extract, then heads, their repeats and each Keras mode, calling `save` with the record after each of them."""
    title = f"{task.name} {task.backbone}"
    run_dir = args.work / "runs" / f"{task.name}-{task.backbone}"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    with contextlib.chdir(run_dir), Progress() as progress:
        record = new_record(task, args)
        with stage(f"{title}: extraction of {len(task.images):,} images"):
            job = plan_extraction(task.source, **backbone_options(task.backbone, args.shared))
            report = job.run(on_progress=progress)
        record["extraction"] = {
            "n_embedded": report.n_embedded,
            "n_failed": len(report.failures),
            "prepare_s": report.profile.prepare_s,
            "elapsed_s": report.profile.wall_s,
        }
        with stage(f"{title}: heads"):
            comparison = compare(task, report.cache, seed=0, progress=progress, has_pixels=task.has_pixels)
        put_comparison(record, comparison, args)
        save(record)
        for seed in task.seeds[1:]:
            with stage(f"{title}: heads, split {seed}"):
                put_repeat(record, compare(task, report.cache, seed=seed, progress=progress), seed)
        for n_modes, mode in enumerate(task.keras_modes, start=1):
            with stage(f"{title}: keras-{mode}"):  # what this run fitted is taken over, times included
                modes = task.keras_modes[:n_modes]
                comparison = compare(
                    task, report.cache, seed=0, progress=progress, has_pixels=task.has_pixels, keras_modes=modes
                )
            put_comparison(record, comparison, args)
            save(record)
    record["is_complete"] = True
    save(record)


def compare(
    task: Task,
    cache: Path,
    *,
    seed: int,
    progress: Progress,
    has_pixels: bool = False,
    keras_modes: Sequence[str] = (),
) -> Comparison:
    """Run the candidates on the split of one seed; only with Keras modes, heads fitted before are taken over."""
    with open_data(cache, seed=seed) as data:
        return compare_candidates(
            data,
            heads=task.heads,
            keras_modes=keras_modes,
            keras_options={"epochs": task.epochs} if task.epochs else None,
            has_pixels=has_pixels,
            is_fresh=not keras_modes,
            on_progress=progress,
        )


def new_record(task: Task, args: argparse.Namespace) -> Record:
    """Return what is known of a run before it starts: data, conditions, nothing measured."""
    return {
        "set": task.name,
        "backbone": task.backbone,
        "is_complete": False,
        "n_images": len(task.images),
        "n_classes": len(task.images.classes),
        "sample": task.sample,
        "command": command_line(args),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load_average_at_start": round(os.getloadavg()[0], 2),
        **cpu(),
        "environment": Environment.current().to_dict(),
        "epochs": task.epochs,
    }


def put_comparison(record: Record, comparison: Comparison, args: argparse.Namespace) -> None:
    """Write the candidates of seed 0 into the record, best first."""
    flat = [line.to_record() for line in comparison.lines]
    record["split"] = comparison.split.to_dict()
    record["lines"] = [{name: line[name] for name in KEPT_FIELDS} for line in flat]
    record["skipped"] = [[name, without_places(why, args)] for name, why in comparison.skipped]
    record["notes"] = [without_places(note, args) for note in comparison.notes]
    record.setdefault("seeds", [0])
    heads = {line["model"]: [line["accuracy"]] for line in flat if line["kind"] == "head" and line["layer"] != "pixels"}
    record.setdefault("accuracies", heads)


def put_repeat(record: Record, comparison: Comparison, seed: int) -> None:
    """Add the accuracies of one more split; a head that could not run on it leaves a gap."""
    found = {line.result.candidate: line.result.score.accuracy for line in comparison.lines}
    record["seeds"].append(seed)
    for head, accuracies in record["accuracies"].items():
        accuracies.append(found.get(head))


def without_places(text: str, args: argparse.Namespace) -> str:
    """Return a message without the folders of this machine."""
    for place in (args.work, args.shared, ROOT):
        text = text.replace(str(place), "…")
    return text


def command_line(args: argparse.Namespace) -> str:
    """Return the command without the options that only say where things lie."""
    parts = ["python benchmarks/accuracy_and_time.py", f"--sets {','.join(args.sets)}"]
    parts += [f"--backbones {','.join(args.backbones)}", f"--keras {','.join(args.keras) or 'none'}"]
    parts += [f"--splits {args.splits}"]
    parts += [f"--epochs {args.epochs}"] if args.epochs else []
    parts += [f"--images-per-class {args.images_per_class}"] if args.images_per_class else []
    return " ".join([*parts, *(["--cifar-full"] if args.cifar_full else [])])


def cpu() -> dict[str, Any]:
    """Return the processor's name and the number of cores that ``/proc/cpuinfo`` lists."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    n_cores = sum(line.startswith("processor") for line in lines)
    return {"cpu": models[0] if models else "unknown", "n_cores": n_cores or os.cpu_count()}


# --- the JSON file ------------------------------------------------------------------------------------------


def read_records(path: Path) -> list[Record]:
    """Return the records of an earlier run, none where there is no file."""
    records: list[Record] = read_json(path)["records"] if path.exists() else []
    return records


def key_of(record: Record) -> tuple[int, int]:
    """Return the place of a record in the tables; two of the same place are of the same (set, backbone)."""
    return SET_ORDER.index(record["set"]), list(BACKBONES).index(record["backbone"])


def save_record(path: Path, record: Record) -> None:
    """Take a record into the file; a complete one gives way to nothing but a complete one."""
    by_key = {key_of(known): known for known in read_records(path)}
    known = by_key.get(key_of(record))
    if known is None or record["is_complete"] or not known["is_complete"]:
        by_key[key_of(record)] = record
    write_json(path, {"format_version": 1, "records": [by_key[key] for key in sorted(by_key)]})


def what_would_be_lost(known: Record, task: Task) -> str:
    """Return what an earlier record has and the task would not measure, "" for nothing."""
    missing = {line["model"] for line in known["lines"]} - task.candidates
    losses = [
        (f"the candidates {', '.join(sorted(missing))}", bool(missing)),
        (f"all {known['n_images']:,} images", known["n_images"] > len(task.images)),
        (f"{len(known['seeds'])} splits", len(known["seeds"]) > len(task.seeds)),
        (
            f"Keras with {known['epochs'] or 'its own number of'} epochs",
            task.epochs is not None and task.epochs < (known["epochs"] or float("inf")) and bool(task.keras_modes),
        ),
    ]
    return "; ".join(what for what, is_lost in losses if is_lost)


# --- the Markdown file --------------------------------------------------------------------------------------


def write_tables(markdown: Path, records: Sequence[Record]) -> None:
    """Replace what stands between the markers of a Markdown file, which is made if it is not there."""
    before, after = around_markers(markdown)
    start, end = MARKERS
    write_text(markdown, f"{before}{start}\n{tables(records)}\n{end}{after}")


def around_markers(markdown: Path) -> tuple[str, str]:
    """Return the text before the first and after the second marker."""
    start, end = MARKERS
    text = markdown.read_text(encoding="utf-8") if markdown.exists() else f"# Benchmarks\n\n{start}\n{end}\n"
    before, has_start, rest = text.partition(start)
    _, has_end, after = rest.partition(end)
    if not (has_start and has_end):
        raise SystemExit(f"{markdown} lacks the lines {start} and {end}, between which the tables go.")
    return before, after


def tables(records: Sequence[Record]) -> str:
    """Return the conditions, one table for each set and the repeats beside what to expect."""
    if not records:
        return "\nNothing was measured yet.\n"
    parts = [conditions(records), runs_table(records)]
    for name in SET_ORDER:
        own = [record for record in records if record["set"] == name]
        if own:
            parts += [f"### {name}", caption(own), candidates_table(own)]
            parts += [repeats_table(own)] if any(len(record["seeds"]) > 1 for record in own) else [expected(own)]
            parts += [remarks(own)]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def conditions(records: Sequence[Record]) -> str:
    """Return what the numbers were measured with, what they include and what they do not show."""
    machines = distinct(f"{record['cpu']}, {record['n_cores']} cores, no GPU used" for record in records)
    versions = distinct(versions_of(record["environment"]) for record in records)
    return "\n".join(
        [
            f"- Machine: {'; '.join(machines)}. It is shared with other work; the load average (1 minute) at the "
            "start of each run is in the table of runs.",
            f"- Versions: {'; '.join(versions)}.",
            f"- Seeds: 0 for split, heads, Keras and samples ({SAMPLE_SEED}); the tables of splits say theirs. "
            "Repeats: 1, every time is from a single run.",
            "- Start: an empty cache folder for each set and backbone; images unpacked before and TensorFlow imported "
            "before, neither is in any time.",
            "- extraction: once for all heads, from the first file read to the last row written, without building the "
            "network, which stands beside it.",
            "- fit: for heads the search (cross-validation over the grid) and the final fit on cached rows, without "
            "extraction; for Keras decoding the images once and all epochs with validation.",
            "- image: one image from file to probabilities in batches of 32, decoding and network included, loading "
            "and tracing the network not; heads: extraction per image plus head.",
            "- size: what comes on top of the backbone (heads), or the whole network (Keras).",
            "- within noise: exact McNemar test against the most accurate candidate of the same backbone on the same "
            "test images, Holm-adjusted, p >= 0.05. The reference is chosen by test accuracy, which flatters it.",
            "- Not shown: how much the times vary from run to run or with less load, other machines, GPUs, other "
            "backbones, networks trained longer or tuned.",
        ]
    )


def versions_of(environment: dict[str, Any]) -> str:
    """Return the versions of one environment on a line."""
    packages = {"tlfeat": environment["tlfeat"], "Python": environment["python"], **environment["packages"]}
    return ", ".join(f"{name} {version}" for name, version in packages.items() if version)


def distinct(texts: Iterator[str]) -> list[str]:
    """Return every text once, in the order of first appearance."""
    return list(dict.fromkeys(texts))


def runs_table(records: Sequence[Record]) -> str:
    """Return a table with the extraction of each (set, backbone) and the command that measured it."""
    rows = [
        (
            record["set"],
            BACKBONES[record["backbone"]],
            f"{record['extraction']['n_embedded']:,}",
            seconds(record["extraction"]["elapsed_s"]),
            seconds(record["extraction"]["prepare_s"]),
            f"{record['load_average_at_start']:.1f}",
            record["date"],
            f"`{record['command']}`",
        )
        for record in records
    ]
    headings = ("set", "backbone", "pictures", "extraction", "building the network", "load", "date (UTC)", "command")
    return table(headings, rows)


def caption(records: Sequence[Record]) -> str:
    """Return a sentence on the images and the split, once where all backbones had the same."""
    return " ".join(distinct(caption_of(record) for record in records))


def caption_of(record: Record) -> str:
    """Return that sentence for one backbone."""
    split = record["split"]
    of_what = record["sample"] or "all images"
    origin = "the set's own split" if split["origin"] == "given" else f"split seeded with {split['seed']}"
    epochs = f" Keras epochs: at most {record['epochs']}." if record["epochs"] else ""
    return (
        f"{record['n_images']:,} images in {record['n_classes']} classes ({of_what}); {origin}: "
        f"{split['n_train']:,} to train, {split['n_val']:,} to validate, {split['n_test']:,} to test.{epochs}"
    )


def candidates_table(records: Sequence[Record]) -> str:
    """Return one row for each backbone and candidate, best accuracy of a backbone first."""
    headings = ("backbone", "candidate", "accuracy", "95 % interval", "macro F1", "fit", "image", "size")
    rows = [
        (BACKBONES[record["backbone"]], *candidate_cells(line), verdict(line, is_best=rank == 0))
        for record in records
        for rank, line in enumerate(record["lines"])
    ]
    return table((*headings, "against the best"), rows)


def candidate_cells(line: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells from the candidate's name to its size."""
    low, high = line["ci95"]
    return (
        line["model"],
        percent(line["accuracy"]),
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{line['macro_f1']:.3f}",
        seconds(sum(line.get(part) or 0.0 for part in ("decode_s", "search_s", "fit_s"))),
        seconds(line["image_s"]),
        size(line["model_bytes"]),
    )


def verdict(line: dict[str, Any], *, is_best: bool) -> str:
    """Return "best", or whether the test can tell the candidate from the best."""
    if is_best:
        return "best"
    return f"{'within noise' if line['is_within_noise_of_best'] else 'worse'}, p = {line['p_value_vs_best']:.2g}"


def repeats_table(records: Sequence[Record]) -> str:
    """Return mean and standard deviation of each head over the splits, beside what a plain script gave."""
    rows = [
        (
            BACKBONES[record["backbone"]],
            head,
            mean_and_deviation(accuracies),
            expected_of(record) if head == "logreg" else "–",
        )
        for record in records
        for head, accuracies in sorted(record["accuracies"].items(), key=lambda item: item[0] != "logreg")
    ]
    seeds = max((record["seeds"] for record in records), key=len)
    note = (
        f"Accuracy over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}; 20 % of each for testing): mean ± "
        "standard deviation (n - 1). Expected: a plain script with LogisticRegression(C=0.01) on other splits."
    )
    return f"{note}\n\n" + table(("backbone", "head", "accuracy", "expected"), rows)


def mean_and_deviation(accuracies: Sequence[float | None]) -> str:
    """Return "98.0 ± 0.5 %", with the number of splits where a head could not run on all."""
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if len(known) < 2:
        return percent(known[0]) if known else "–"
    text = f"{100 * statistics.mean(known):.1f} ± {100 * statistics.stdev(known):.1f} %"
    return text if len(known) == len(accuracies) else f"{text} ({len(known)} splits)"


def expected_of(record: Record) -> str:
    """Return the figure of a plain script; none for a sample, which it does not speak about."""
    return "–" if record["sample"] else EXPECTED.get((record["set"], record["backbone"]), "–")


def expected(records: Sequence[Record]) -> str:
    """Return what a plain script gave, for sets with one split."""
    found = [f"{expected_of(r)} ({BACKBONES[r['backbone']]})" for r in records if expected_of(r) != "–"]
    text = ", ".join(found)
    return f"Expected of a plain script with LogisticRegression(C=0.01): {text}." if found else ""


def remarks(records: Sequence[Record]) -> str:
    """Return what could not run and what the split noted, as a list."""
    lines = []
    for record in records:
        title = BACKBONES[record["backbone"]]
        n_failed = record["extraction"]["n_failed"]
        lines += [f"- {title}: not run: {name}: {why}" for name, why in record["skipped"]]
        lines += [f"- {title}: {n_failed:,} images could not be read"] if n_failed else []
        lines += [] if record["is_complete"] else [f"- {title}: the run was stopped before its end"]
    return "\n".join([*distinct(f"- {note}" for record in records for note in record["notes"]), *lines])


# --- the command --------------------------------------------------------------------------------------------


def chosen_from(known: Sequence[str], *, has_all_and_none: bool = False) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of comma lists of known names, in the order of the known ones."""

    def parse(text: str) -> tuple[str, ...]:
        if has_all_and_none and text in ("all", "none"):
            return tuple(known) if text == "all" else ()
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"no '{unknown[0]}', expected some of {','.join(known)}")
        return tuple(name for name in known if name in names)

    return parse


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; every path is absolute, because each run works in a folder of its own."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add, shared = parser.add_argument, os.environ.get("TLFEAT_SHARED")
    add("--shared", type=Path, default=Path(shared) if shared else ROOT.parent / "shared", help="data and weights")
    add("--work", type=Path, help="folder for unpacked images and caches; default: a temporary one")
    add("--sets", type=chosen_from(list(ARCHIVES)), default=tuple(ARCHIVES), help="comma list; default: all")
    add("--backbones", type=chosen_from(list(BACKBONES)), default=tuple(BACKBONES), help="comma list of v2, v1")
    modes = chosen_from(ALL_KERAS, has_all_and_none=True)
    add("--keras", type=modes, default=ALL_KERAS, help=f"all, none or a comma list of {', '.join(ALL_KERAS)}")
    add("--epochs", type=positive, help="at most, of every Keras candidate; default: tlfeat's own")
    add("--splits", type=positive, default=5, help="seeds of the split that heads are repeated with (5)")
    add("--images-per-class", type=positive, help="a seeded sample; half as many for testing in a set's own split")
    add("--cifar-full", action="store_true", help=f"all of cifar10, with {', '.join(FULL_CIFAR_HEADS)} only")
    add("--json", type=Path, default=ROOT / "benchmarks" / "results" / "accuracy_and_time.json")
    add("--markdown", type=Path, default=ROOT / "docs" / "benchmarks.md")
    add("--tables-only", action="store_true", help="only write the Markdown from the JSON")
    add("--replace", action="store_true", help="also replace results that this run measures only in part")
    args = parser.parse_args(arguments)
    if args.cifar_full and args.images_per_class:
        parser.error("--cifar-full takes all images, --images-per-class does not: name one of them")
    args.shared, args.json, args.markdown = args.shared.resolve(), args.json.resolve(), args.markdown.resolve()
    if not args.tables_only and not (args.shared / "data").is_dir():
        parser.error(f"no data in {args.shared}: set TLFEAT_SHARED or --shared")
    return args


def run_all(args: argparse.Namespace) -> int:
    """Run every (set, backbone) asked for and return how many were refused or failed."""
    from tlfeat.backbones.network import import_keras

    n_failed = 0
    with stage("importing TensorFlow"):
        import_keras()
    for name in args.sets:
        for backbone in args.backbones:
            task = make_task(name, backbone, args)
            earlier = [r for r in read_records(args.json) if (r["set"], r["backbone"]) == (task.name, backbone)]
            lost = what_would_be_lost(earlier[0], task) if earlier and not args.replace else ""
            if lost:
                n_failed += 1
                say(f"{task.name} {backbone} left as it is: {args.json} has {lost}. --replace or another --json helps.")
                continue
            try:
                run_task(task, args, lambda record: save_record(args.json, record))
            except TlfeatError as error:
                n_failed += 1
                say(f"FAILED  {task.name} {backbone}: {error}")
            write_tables(args.markdown, read_records(args.json))
    return n_failed


def main(arguments: Sequence[str]) -> int:
    """Run what the options ask for and return the exit code."""
    args = parse_arguments(arguments)
    around_markers(args.markdown)  # a file without them should fail now, not in an hour
    if args.tables_only:
        write_tables(args.markdown, read_records(args.json))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tables speak of a CPU
    with contextlib.ExitStack() as stack:
        if args.work is None:
            args.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlfeat-benchmark-")))
        args.work = args.work.resolve()
        return 1 if run_all(args) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
