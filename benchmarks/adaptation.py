"""What adapting to another domain brings, as JSON and as Markdown tables: PACS, every domain as the target in turn.

Two real networks, splits of the target by seed, and three kinds of target: as it is (every class as often), uneven
(classes thinned out geometrically down to a tenth, another order in each split) and lacking three of the seven classes.
Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/adaptation.py                          # all that the JSON lacks, an hour of one core
    python benchmarks/adaptation.py --cases v2@uneven        # one part again
    python benchmarks/adaptation.py --tables-only            # the tables from the JSON, runs nothing

A round is written to the JSON when it is finished; a script that was stopped goes on after it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.adapt.methods import EVEN, METHODS, Fitter, find_methods, probabilities_of
from tlfeat.cache.contents import choose_layers
from tlfeat.cache.store import Cache, open_cache
from tlfeat.evaluate.copies import find_copies
from tlfeat.evaluate.domain_split import find_domains, make_domain_split
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads.domain_check import APART, DomainRows
from tlfeat.images.image_set import ImageTable
from tlfeat.models.adapted_rows import prepare
from tlfeat.studies.adapt import adapt
from tlfeat.studies.leave_one_out import BEST, CHOSEN, Round, round_of, rows_of
from tlfeat.text import markdown_table

KINDS = {"even": 5, "uneven": 3, "lacking": 3}
#: Batches of new pictures, of the domain that was adapted to and of others.
BATCHES = "batches"
CASES = tuple(f"{network}@{kind}" for network in common.BACKBONES for kind in (*KINDS, BATCHES))
#: Limits of evenness that are compared; `EVEN` is the one in use.
LIMITS = (0.0, 0.9, 0.92, EVEN, 0.95, 0.96, 2.0)
BATCH_SIZES = (25, 50, 140)
BATCH_SEEDS = 3
COUNTS = (1, 5, 20)
#: Splits of an even target in which labels are counted, and draws of each number.
LABEL_SEEDS, N_DRAWS = 2, 3
THINNEST = 0.1
N_LACKING = 3


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = common.parser_for("adaptation", __doc__)
    parser.add_argument("--cases", type=common.chosen_from(CASES), default=(), help="NETWORK@KIND,... to run again")
    parser.add_argument("--seeds", type=common.positive, help="splits of each target; default: 5 even, 3 of others")
    common.add_data(parser)
    return common.read_arguments(parser, arguments)


def cache_of(network: str, args: argparse.Namespace) -> Any:
    """Embed PACS with a network unless that was done."""
    path = args.work / f"pacs-{network}.h5"
    data = common.unpack("pacs_sample", args.shared, args.work)
    job = plan_extraction(data, cache=path, domains=True, **common.backbone_options(network, args.shared))
    job.run()
    return path


def thinned(table: ImageTable, target: str, kind: str, seed: int) -> ImageTable:
    """Return the images with some of the target's left out."""
    if kind == "even":
        return table
    images = table.images
    classes = sorted(set(images.labels) - {""})
    order = np.random.default_rng([7, seed]).permutation(classes).tolist()
    if kind == "lacking":
        share = {name: float(i >= N_LACKING) for i, name in enumerate(order)}
    else:
        share = dict(zip(order, np.geomspace(1, THINNEST, len(order)).tolist(), strict=True))
    kept = np.array([domain != target for domain in images.domains])
    for name in classes:
        places = enumerate(zip(images.labels, images.domains, strict=True))
        own = [i for i, place in places if place == (name, target)]
        own = np.random.default_rng([8, seed]).permutation(own).tolist()
        kept[own[: round(share[name] * len(own))]] = True
    return table.at(np.flatnonzero(kept).tolist())


def measure(case: str, known: Record | None, args: argparse.Namespace, save: Any) -> None:
    """Run the rounds of a case that are missing; `save` is called with the record after each."""
    network, kind = case.split("@")
    if kind == BATCHES:
        with common.stage(case), open_cache(cache_of(network, args)) as cache:
            batches = [one for seed in range(BATCH_SEEDS) for one in measure_batches(cache, seed)]
        save({"case": case, "batches": batches, **common.conditions(), "load_average": common.load_average(),
              "is_complete": True})  # fmt: skip
        return
    record = known or {"case": case, "rounds": [], "labelled": [], "is_complete": False}
    done = {(r["target"], r["seed"]) for r in record["rounds"]}
    path = cache_of(network, args)
    with open_cache(path) as cache:
        copies = find_copies(cache)
        targets = find_domains(cache.table)
        for seed in range(args.seeds or KINDS[kind]):
            for target in targets:
                if (target, seed) in done:
                    continue
                with common.stage(f"{case}: {target}, split {seed}"):
                    one, labelled = run_round(cache, copies, targets, target, kind, seed)
                record["rounds"].append({**one.to_dict(), "keys": [key[:12] for key in one.keys]})
                record["labelled"] += labelled
                save({**record, **common.conditions(), "load_average": common.load_average()})
    save({**record, **common.conditions(), "load_average": common.load_average(), "is_complete": True})


def run_round(
    cache: Cache, copies: Any, targets: list[str], target: str, kind: str, seed: int
) -> tuple[Round, list[Record]]:
    """Adapt once; labels are counted in some splits of an even target."""
    table = thinned(cache.table, target, kind, seed)
    split = make_domain_split(table, [name for name in targets if name != target], target, seed=seed)
    has_labels = kind == "even" and seed < LABEL_SEEDS
    found = adapt(cache, split, leaks=split.leaks_among(copies), labels=COUNTS if has_labels else (), n_draws=N_DRAWS)
    return round_of(found, seed, target), [{"target": target, **one.to_record()} for one in found.labelled]


def measure_batches(cache: Cache, seed: int) -> list[Record]:
    """Return how well batches are told from the images that were adapted to, with the names that the head gives."""
    copies, targets, found = find_copies(cache), find_domains(cache.table), []
    method = find_methods("standardise+self")[1]
    for target in targets:
        split = make_domain_split(cache.table, [name for name in targets if name != target], target, seed=seed)
        prepared = prepare(cache, split, choose_layers(cache, None), split.leaks_among(copies))
        head = Fitter(prepared.task).fit(method).head
        source, new, test = (np.asarray(r[:]) for r in (prepared.task.source, prepared.task.target, prepared.test))
        rng = np.random.default_rng(seed)
        known = DomainRows(target, new, named(head, new, split.split.classes))
        one_class = int(rng.choice(np.unique(prepared.true)))
        kinds = {"the same domain": [test], "one class of it": [test[prepared.true == one_class]]}
        kinds["another domain"] = [source[prepared.task.domains == name] for name in split.sources]
        for kind, batches in kinds.items():
            for rows in batches:
                for size in BATCH_SIZES:
                    batch = rows[rng.permutation(len(rows))[:size]]
                    auc = known.apart(batch, named(head, batch, split.split.classes))
                    found.append({"kind": kind, "size": size, "auc": auc})
    return found


def named(head: Any, rows: Any, classes: list[str]) -> Any:
    """Return the classes that a head names, as numbers."""
    return probabilities_of(head, rows, classes).argmax(axis=1)


# --- tables -------------------------------------------------------------------------------------------------


def tables(records: Sequence[Record]) -> str:
    """Return all tables."""
    parts = []
    for record in records:
        network, kind = record["case"].split("@")
        if kind == BATCHES:
            parts += [f"### {common.BACKBONES[network]}, batches of new pictures", batch_table(record["batches"])]
            continue
        rounds = [Round.from_dict(one) for one in record["rounds"]]
        if not rounds:
            continue
        n_seeds = len({one.seed for one in rounds})
        parts += [
            f"### {common.BACKBONES[network]}, target {kind} ({n_seeds} splits)",
            f"{common.machine_of(record)}, {record['date']}, load {record['load_average']}; "
            f"{common.versions_of(record['environment'])}",
            method_table(rounds),
            choice_sentence(rounds),
            limit_sentence(rounds),
        ]
        if record["labelled"]:
            parts += ["Labels of the target (means over targets, splits and draws):", label_table(record, rounds)]
    return "\n\n".join(parts)


def method_table(rounds: Sequence[Round]) -> str:
    """Return accuracy by target of every method."""
    targets = list(dict.fromkeys(one.target for one in rounds))
    lines = []
    for row in rows_of(rounds, targets):
        ci95 = row.difference_ci95
        lines.append(
            (
                row.name,
                *(f"{100 * share:.1f}" for share in row.by_target),
                f"{100 * row.mean:.1f}",
                f"{100 * row.difference:+.1f}",
                f"{100 * ci95[0]:+.1f} to {100 * ci95[1]:+.1f}" if ci95 else "",
                "" if row.p_value is None else "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}",
            )
        )
    return markdown_table(("method", *targets, "mean", "to none", "95 % interval", "p"), lines)


def choice_sentence(rounds: Sequence[Round]) -> str:
    """Say what was chosen, and what would have been if covariance maps could be chosen."""
    targets = list(dict.fromkeys(one.target for one in rounds))
    rows = {row.name: row for row in rows_of(rounds, targets)}
    names = [one.chosen for one in rounds]
    free = [max(one.circular, key=lambda name: one.circular[name]) for one in rounds]
    gain = float(np.mean([one.accuracy(name) - one.accuracy("none") for one, name in zip(rounds, free, strict=True)]))
    least = min(rows[CHOSEN].differences)
    chosen = ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names))
    other = ", ".join(f"{name} {free.count(name)}" for name in dict.fromkeys(free))
    return (
        f"Chosen: {chosen}. The least gain on a target is {100 * least:+.1f} points, the distance to the best in "
        f"hindsight {100 * (rows[BEST].mean - rows[CHOSEN].mean):.1f}. If CORAL, linear transport and subspaces could "
        f"be chosen, too: {other}; {100 * gain:+.1f} points to none."
    )


def limit_sentence(rounds: Sequence[Round]) -> str:
    """Say what the limit of evenness does to the gain."""
    gains = [
        np.mean([one.accuracy(chosen_at(one, limit)) - one.accuracy("none") for one in rounds]) for limit in LIMITS
    ]
    told = ", ".join(f"{limit:g}: {100 * gain:+.1f}" for limit, gain in zip(LIMITS, gains, strict=True))
    return (
        f"Gain by the limit of evenness below which the same share of each class is taken (0 never, 2 always): {told}."
    )


def chosen_at(one: Round, limit: float) -> str:
    """Return the method that is chosen with another limit of evenness; see ``studies.adapt``."""
    known = [method for method in METHODS if method.is_choosable and method.name in one.circular]
    best = max(known, key=lambda method: one.circular[method.name])
    shares = [method.name for method in known if method.quota == "share" and one.evenness[method.name] < limit]
    return shares[0] if shares and best.quota == "equal" else best.name


def batch_table(batches: Sequence[Record]) -> str:
    """Return quantiles of the area under the ROC curve by which a batch is told apart."""
    lines = []
    for kind in dict.fromkeys(one["kind"] for one in batches):
        for size in BATCH_SIZES:
            own = [one["auc"] for one in batches if (one["kind"], one["size"]) == (kind, size)]
            judged = [auc for auc in own if auc is not None]
            ends = [f"{q:.2f}" for q in np.quantile(judged, (0, 0.5, 1))] if judged else ["–"] * 3
            warned = sum(auc >= APART for auc in judged)
            lines.append((kind, str(size), *ends, f"{warned} of {len(judged)}", str(len(own) - len(judged))))
    headings = ("batch", "pictures at most", "least AUC", "median", "largest", "warned of", "too few to judge")
    return markdown_table(headings, lines)


def label_table(record: Record, rounds: Sequence[Round]) -> str:
    """Return accuracy with labels of the target."""
    seeds = [one for one in rounds if one.seed < LABEL_SEEDS]

    def mean(method: str) -> float:
        return float(np.mean([one.accuracy(one.named(method)) for one in seeds]))

    lines = [("0", "–", f"{100 * mean(CHOSEN):.1f} (none: {100 * mean('none'):.1f})")]
    for count in COUNTS:
        own = [one for one in record["labelled"] if one["labels_a_class"] == count]
        alone, both = (float(np.mean([one[side] for one in own])) for side in ("target_only", "both"))
        lines.append((str(count), f"{100 * alone:.1f}", f"{100 * both:.1f}"))
    return markdown_table(("labels a class", "these alone", "with the sources"), lines)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and write the tables."""
    args = parse_arguments(arguments)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    records = {record["case"]: record for record in common.read_records(args.json)}

    def save(record: Record) -> None:
        records[record["case"]] = record
        common.write_records(args.json, [records[case] for case in CASES if case in records])

    with common.work_folder(args):
        for case in [] if args.tables_only else CASES:
            known = records.get(case)
            if case in args.cases or (not args.cases and not (known and known["is_complete"])):
                measure(case, None if case in args.cases else known, args, save)
    common.publish(args, tables([records[case] for case in CASES if case in records]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
