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
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from common import ARCHIVES, BACKBONES, Record
from tlfeat.cli.console import Progress
from tlfeat.errors import TlfeatError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.recipes import RECIPES
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.studies.compare import ALL_HEADS, ALL_KERAS, Comparison, compare_candidates
from tlfeat.text import markdown_table, percent, seconds, size

CIFAR_IMAGES_PER_CLASS = 200  # and 100 for testing: 60,000 images at 224 px are no evening of Keras on two cores
FULL_CIFAR_HEADS = ("logreg", "ridge", "lda", "knn")  # both SVMs are quadratic in 50,000 images and more
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
    recipes: tuple[str, ...] = ()

    @property
    def candidates(self) -> set[str]:
        """The names that `compare_candidates` gives them."""
        pixels = {"pixels+logreg"} if self.has_pixels else set()
        recipes = {*self.recipes, *(f"{name}-as-written" for name in self.recipes)}
        return pixels | set(self.heads) | {f"keras-{mode}" for mode in self.keras_modes} | recipes


# --- data ---------------------------------------------------------------------------------------------------


def make_task(name: str, backbone: str, args: argparse.Namespace) -> Task:
    """Unpack the set, sample it where asked or needed, and say what to run on it."""
    folder = common.unpack(name, args.shared, args.work)
    source, images, sample = folder, load_images(folder), ""
    is_full_cifar = name == "cifar10" and args.cifar_full
    n_per_class = args.images_per_class or (CIFAR_IMAGES_PER_CLASS if name == "cifar10" and not is_full_cifar else 0)
    if n_per_class:
        source, sample = common.write_sample(images, n_per_class, folder)
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
        recipes=() if is_full_cifar else args.recipes,
    )


# --- running ------------------------------------------------------------------------------------------------


def run_task(task: Task, args: argparse.Namespace, save: Callable[[Record], None]) -> None:
    """Extract, then heads, their repeats and each Keras mode, calling `save` with the record after each of them."""
    title = f"{task.name} {task.backbone}"
    run_dir = args.work / "runs" / f"{task.name}-{task.backbone}"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    with contextlib.chdir(run_dir), Progress() as progress:
        record = new_record(task, args)
        with common.stage(f"{title}: extraction of {len(task.images):,} images"):
            job = plan_extraction(task.source, **common.backbone_options(task.backbone, args.shared))
            report = job.run(on_progress=progress)
        record["extraction"] = {
            "n_embedded": report.n_embedded,
            "n_failed": len(report.failures),
            "prepare_s": report.profile.prepare_s,
            "elapsed_s": report.profile.wall_s,
        }
        with common.stage(f"{title}: heads"):
            comparison = compare(task, report.cache, seed=0, progress=progress, has_pixels=task.has_pixels)
        put_comparison(record, comparison, args)
        save(record)
        for seed in task.seeds[1:]:
            with common.stage(f"{title}: heads, split {seed}"):
                put_repeat(record, compare(task, report.cache, seed=seed, progress=progress), seed)
        trained = [("keras", mode) for mode in task.keras_modes] + [("recipe", name) for name in task.recipes]
        for n, (kind, name) in enumerate(trained, start=1):
            with common.stage(f"{title}: {kind} {name}"):  # what this run fitted is taken over, times included
                modes, recipes = ([of for of_kind, of in trained[:n] if of_kind == k] for k in ("keras", "recipe"))
                comparison = compare(
                    *(task, report.cache),
                    seed=0,
                    progress=progress,
                    has_pixels=task.has_pixels,
                    keras_modes=modes,
                    recipes=recipes,
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
    recipes: Sequence[str] = (),
) -> Comparison:
    """Run the candidates on the split of one seed; only with Keras modes, heads fitted before are taken over."""
    with open_data(cache, seed=seed) as data:
        return compare_candidates(
            data,
            heads=task.heads,
            keras_modes=keras_modes,
            keras_options={"epochs": task.epochs} if task.epochs else None,
            recipes=recipes,
            has_pixels=has_pixels,
            is_fresh=not (keras_modes or recipes),
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
        **common.conditions(),
        "load_average_at_start": common.load_average(),
        "epochs": task.epochs,
    }


def put_comparison(record: Record, comparison: Comparison, args: argparse.Namespace) -> None:
    """Write the candidates of seed 0 into the record, best first."""
    flat = [line.to_record() for line in comparison.lines]
    record["split"] = comparison.split.to_dict()
    record["lines"] = [{name: line[name] for name in KEPT_FIELDS} for line in flat]
    record["skipped"] = [[name, common.without_places(why, args)] for name, why in comparison.skipped]
    record["notes"] = [common.without_places(note, args) for note in comparison.notes]
    record.setdefault("seeds", [0])
    heads = {line["model"]: [line["accuracy"]] for line in flat if line["kind"] == "head" and line["layer"] != "pixels"}
    record.setdefault("accuracies", heads)


def put_repeat(record: Record, comparison: Comparison, seed: int) -> None:
    """Add the accuracies of one more split; a head that could not run on it leaves a gap."""
    found = {line.result.candidate: line.result.score.accuracy for line in comparison.lines}
    record["seeds"].append(seed)
    for head, accuracies in record["accuracies"].items():
        accuracies.append(found.get(head))


def command_line(args: argparse.Namespace) -> str:
    """Return the command without the options that only say where things lie."""
    parts = ["python benchmarks/accuracy_and_time.py", f"--sets {','.join(args.sets)}"]
    parts += [f"--backbones {','.join(args.backbones)}", f"--keras {','.join(args.keras) or 'none'}"]
    parts += [f"--recipes {','.join(args.recipes)}"] if args.recipes else []
    parts += [f"--splits {args.splits}"]
    parts += [f"--epochs {args.epochs}"] if args.epochs else []
    parts += [f"--images-per-class {args.images_per_class}"] if args.images_per_class else []
    return " ".join([*parts, *(["--cifar-full"] if args.cifar_full else [])])


# --- the JSON file ------------------------------------------------------------------------------------------


def key_of(record: Record) -> tuple[int, int]:
    """Return the place of a record in the tables; two of the same place are of the same (set, backbone)."""
    return SET_ORDER.index(record["set"]), list(BACKBONES).index(record["backbone"])


def save_record(path: Path, record: Record) -> None:
    """Take a record into the file; a complete one gives way to nothing but a complete one."""
    by_key = {key_of(known): known for known in common.read_records(path)}
    if common.gives_way(by_key.get(key_of(record)), record):
        by_key[key_of(record)] = record
    common.write_records(path, [by_key[key] for key in sorted(by_key)])


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


def tables(records: Sequence[Record]) -> str:
    """Return the conditions, one table for each set and the repeats beside what to expect."""
    if not records:
        return "\nNothing was measured yet.\n"
    parts = [conditions_text(records), runs_table(records)]
    for name in SET_ORDER:
        own = [record for record in records if record["set"] == name]
        if own:
            parts += [f"### {name}", caption(own), candidates_table(own)]
            parts += [repeats_table(own)] if any(len(record["seeds"]) > 1 for record in own) else [expected(own)]
            parts += [remarks(own)]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def conditions_text(records: Sequence[Record]) -> str:
    """Return what the numbers were measured with, what they include and what they do not show."""
    machines = common.distinct(f"{common.machine_of(record)}, no GPU used" for record in records)
    versions = common.distinct(common.versions_of(record["environment"]) for record in records)
    return "\n".join(
        [
            f"- Machine: {'; '.join(machines)}, shared with other work: load average (1 minute) in the table of runs.",
            f"- Versions: {'; '.join(versions)}.",
            "- Seed 0 for split, heads, Keras and samples; tables over splits say theirs. Every time is a single run.",
            "- Start: an empty cache folder for each set and backbone, images unpacked, TensorFlow imported.",
            "- extraction: once for all heads, from the first file read to the last row written.",
            "- fit: search and final fit on cached embeddings; for Keras reading the images once and all epochs.",
            "- image: one image from file to probabilities, in batches of 32, with decoding and network.",
            "- size: what comes on top of the backbone (heads), or the whole network (Keras).",
            "- within noise: exact McNemar test against the most accurate candidate of the same backbone on the same "
            "test images, adjusted for many comparisons (Holm), p >= 0.05. That candidate is chosen by test accuracy, "
            "which flatters it.",
        ]
    )


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
    headings = ("set", "backbone", "images", "extraction", "building the network", "load", "date (UTC)", "command")
    return markdown_table(headings, rows)


def caption(records: Sequence[Record]) -> str:
    """Return a sentence on the images and the split, once where all backbones had the same."""
    return " ".join(common.distinct(caption_of(record) for record in records))


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
    return markdown_table((*headings, "against the best"), rows)


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
    return f"{note}\n\n" + markdown_table(("backbone", "head", "accuracy", "expected"), rows)


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
    return "\n".join([*common.distinct(f"- {note}" for record in records for note in record["notes"]), *lines])


# --- the command --------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; every path is absolute, because each run works in a folder of its own."""
    parser = common.parser_for("accuracy_and_time", __doc__)
    common.add_data(parser)
    add, positive = parser.add_argument, common.positive
    add("--sets", type=common.chosen_from(list(ARCHIVES)), default=tuple(ARCHIVES), help="comma list; default: all")
    add("--backbones", type=common.chosen_from(list(BACKBONES)), default=tuple(BACKBONES), help="comma list of v2, v1")
    modes = common.chosen_from(ALL_KERAS, has_all_and_none=True)
    add("--keras", type=modes, default=ALL_KERAS, help=f"all, none or a comma list of {', '.join(ALL_KERAS)}")
    recipes = common.chosen_from([recipe.name for recipe in RECIPES])
    add("--recipes", type=recipes, default=(), help="comma list of `tlfeat recipes`, also as written; default: none")
    add("--epochs", type=positive, help="at most, of every Keras candidate; default: tlfeat's own")
    add("--splits", type=positive, default=5, help="seeds of the split that heads are repeated with (5)")
    add(
        "--images-per-class",
        type=positive,
        help="a seeded sample; half as many for testing in a set's own split",
    )
    add("--cifar-full", action="store_true", help=f"all of cifar10, with {', '.join(FULL_CIFAR_HEADS)} only")
    add("--replace", action="store_true", help="also replace results that this run measures only in part")
    args = common.read_arguments(parser, arguments)
    if args.cifar_full and args.images_per_class:
        parser.error("--cifar-full takes all images, --images-per-class does not: name one of them")
    return args


def run_all(args: argparse.Namespace) -> int:
    """Run every (set, backbone) asked for and return how many were refused or failed."""
    from tlfeat.backbones.frameworks import import_keras

    n_failed = 0
    with common.stage("importing TensorFlow"):
        import_keras()
    for name in args.sets:
        for backbone in args.backbones:
            task = make_task(name, backbone, args)
            earlier = [r for r in common.read_records(args.json) if (r["set"], r["backbone"]) == (task.name, backbone)]
            lost = what_would_be_lost(earlier[0], task) if earlier and not args.replace else ""
            if lost:
                n_failed += 1
                common.say(
                    f"{task.name} {backbone} left as it is: {args.json} has {lost}. --replace or another --json helps."
                )
                continue
            try:
                run_task(task, args, lambda record: save_record(args.json, record))
            except TlfeatError as error:
                n_failed += 1
                common.say(f"FAILED  {task.name} {backbone}: {error}")
            common.publish(args, tables(common.read_records(args.json)))
    return n_failed


def main(arguments: Sequence[str]) -> int:
    """Run what the options ask for and return the exit code."""
    args = parse_arguments(arguments)
    if args.markdown:
        common.around_markers(args.markdown, args.name)  # a file without them should fail now, not in an hour
    if args.tables_only:
        common.publish(args, tables(common.read_records(args.json)))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tables speak of a CPU
    with common.work_folder(args):
        return 1 if run_all(args) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
