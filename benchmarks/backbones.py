"""Which backbone, which layer, which pooling: what ``tlfeat compare`` with several caches says on three sets.

MobileNetV2 0.35 against MobileNet v1, logistic regression on the last layer, on an earlier one, and on other poolings
of the last map; several seeds. Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/backbones.py                # 15 minutes of processor
    python benchmarks/backbones.py --tables-only
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from statistics import mean, median, pstdev

import common
from common import Record
from tlfeat.evaluate.together import open_together
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.choice import choice_finding
from tlfeat.studies.choice import compare_backbones
from tlfeat.studies.contenders import rows_of
from tlfeat.text import markdown_table, size

SETS = ("cats_dogs", "potato", "sign_digits")
N_SEEDS = 3

#: Of each backbone, the layers of its one pass.
LAYERS = {
    "v2": ("avg_pool", "out_relu:max", "out_relu:gem"),
    "v1": ("conv_pw_11_relu", "avg_pool", "conv_pw_12_relu:max", "conv_pw_12_relu:gem"),
}

#: What a record keeps of a line of the comparison.
KEPT = (
    *("encoder", "layers", "width", "accuracy", "held_out_accuracy", "extract_cpu_ms", "extract_cpu_known"),
    *("row_bytes", "network_bytes", "search_s", "fit_s", "is_on_frontier", "is_chosen", "p_value_vs_chosen"),
)


def extract(name: str, data: Path, args: argparse.Namespace) -> list[Path]:
    """Embed one set with every backbone, and return the caches."""
    caches = []
    for backbone, layers in LAYERS.items():
        cache = Path(f"{name}-{backbone}.h5")
        options = common.backbone_options(backbone, args.shared)
        with common.stage(f"{name}: {backbone} at {', '.join(layers)}"):
            plan_extraction(data, layers=layers, cache=cache, **options).run(known_in=[])
        caches.append(cache)
    return caches


def run_set(name: str, args: argparse.Namespace) -> Record:
    """Return every line of the comparison on one data set, by seed."""
    data = common.unpack(name, args.shared, args.work)
    place = args.work / "runs" / name
    place.mkdir(parents=True, exist_ok=True)
    lines: list[Record] = []
    answers = []
    with contextlib.chdir(place):
        caches = extract(name, data, args)
        for seed in range(args.seeds):
            with common.stage(f"{name}: seed {seed}"), open_together(caches, seed=seed) as together:
                rows = rows_of(together)
                found = choice_finding(compare_backbones(together, rows, heads=("logreg",)))
                lines += [{"seed": seed, **{key: one[key] for key in KEPT}} for one in found.records]
                answers.append(found.sentences[0])
                n = {"n_images": together.n_common, "split": together.data[0].split.info.to_dict()}
    return {"set": name, **common.conditions(), "is_complete": True, **n, "answers": answers, "lines": lines}


def layer_name(line: Record) -> str:
    """Return the layer of a line; several in short."""
    layers = line["layers"]
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers side by side"


def short_name(encoder: str) -> str:
    """Return a backbone as the tables call it."""
    return {"mobilenet_v2_0.35": "MobileNetV2 0.35", "pixels": "raw pixels"}.get(encoder, "MobileNet v1")


def spread(values: list[float]) -> str:
    """Return mean and standard deviation in percent; of one value, that."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * pstdev(values):.1f} %" if len(values) > 1 else " %")


def row(lines: list[Record], n_seeds: int) -> tuple[str, ...]:
    """Return the line of one set of rows over the seeds in which it was there."""
    first = lines[0]
    sign = {"measured": "", "at most": "≤ ", "estimated": "~"}[first["extract_cpu_known"]]
    return (
        short_name(first["encoder"]),
        layer_name(first) + ("" if len(lines) == n_seeds else f" ({len(lines)} of {n_seeds} seeds)"),
        f"{sign}{first['extract_cpu_ms']:.1f} ms",
        size(first["network_bytes"]) if first["network_bytes"] else "–",
        f"{first['row_bytes']:,} B",
        f"{median((one['search_s'] or 0) + one['fit_s'] for one in lines):.1f} s",
        spread([one["held_out_accuracy"] for one in lines]),
        spread([one["accuracy"] for one in lines]),
        f"{sum(one['is_on_frontier'] for one in lines)} of {n_seeds}",
        f"{sum(one['is_chosen'] for one in lines)} of {n_seeds}",
    )


def table(record: Record) -> str:
    """Return the table of one data set, the cheapest rows first."""
    headings = (
        *("backbone", "layer", "processor", "network", "row", "fit", "held out", "test", "on the frontier", "chosen"),
    )
    groups: dict[tuple[str, str], list[Record]] = {}
    for line in record["lines"]:
        groups.setdefault((line["encoder"], layer_name(line)), []).append(line)
    n_seeds = len(record["answers"])
    ordered = sorted(groups.values(), key=lambda lines: lines[0]["extract_cpu_ms"])
    return markdown_table(headings, [row(lines, n_seeds) for lines in ordered])


def tables(records: list[Record]) -> str:
    """Return the tables of all sets, with the answer of each seed."""
    parts = []
    for record in records:
        split = record["split"]
        n_learn = split["n_train"] + split["n_val"]
        parts += [
            f"### {record['set']}",
            f"{record['n_images']:,} images, {n_learn:,} of them for training and {split['n_test']:,} for testing"
            f"{' (the given test set at every seed)' if split['origin'] == 'given' else ''}.",
            table(record),
            "\n".join(f"- seed {seed}: {answer}" for seed, answer in enumerate(record["answers"])),
        ]
    first = records[0]
    n_seeds = len(first["answers"])
    versions = common.versions_of(first["environment"])
    parts.append(
        f"{first['date']}, {common.machine_of(first)}, shared with other work; {versions}. "
        f"Mean ± standard deviation over {n_seeds} seeds. Logistic regression."
    )
    return "\n\n".join(parts)


def main() -> None:
    """Measure, or write the tables of what was measured."""
    parser = common.parser_for("backbones", __doc__)
    common.add_data(parser)
    parser.add_argument("--sets", type=common.chosen_from(SETS), default=SETS, help="comma-separated data sets")
    parser.add_argument("--seeds", type=common.positive, default=N_SEEDS, help="seeds of the split and of the folds")
    args = common.read_arguments(parser)
    if not args.tables_only:
        with common.work_folder(args):
            found = []
            for name in args.sets:
                found.append(run_set(name, args))
                common.write_records(args.json, found)
    common.publish(args, tables(common.read_records(args.json)))


if __name__ == "__main__":
    main()
