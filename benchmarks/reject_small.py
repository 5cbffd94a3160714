"""How much ``predict --reject`` refuses where training images are few and varied, as JSON and a Markdown table.

Known are small parts of cats_dogs and of pacs_sample (photographs, paintings, cartoons and sketches of seven things);
unknown are the other sets and the other kinds of picture. Three draws of each. A quarter of the known images only
test. Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/reject_small.py                # MobileNetV2 0.35, a quarter of an hour on two cores
    python benchmarks/reject_small.py --tables-only  # the table from the JSON, runs nothing

The method was chosen with these sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import common
from common import Record
from reject import CIFAR_IMAGES_PER_CLASS, fit_methods, normal, share
from tlfeat.cache.store import open_cache
from tlfeat.extract.plan import plan_extraction
from tlfeat.extract.reference import ReferenceRows, read_reference
from tlfeat.heads.known_rows import fit_known_rows
from tlfeat.heads.reject import COVERAGE, fit_rejector
from tlfeat.images.load import load_images
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10", "pacs_sample")
N_STRANGERS, N_SEEDS = 200, 3
TWO = ("dog", "horse")
#: Name to the kinds of picture, the classes (none: all), and the training images of each class.
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "cats, dogs": (("cats_dogs",), (), 100),
    "photographs, 7 classes": (("photo",), (), 30),
    "photographs, 7 classes, fewer": (("photo",), (), 16),
    "paintings, 7 classes": (("art_painting",), (), 30),
    "cartoons, 7 classes": (("cartoon",), (), 30),
    "photographs and paintings, 2 classes": (("photo", "art_painting"), TWO, 60),
    "photographs, paintings, cartoons, 2 classes": (("photo", "art_painting", "cartoon"), TWO, 90),
}
PRODUCT, PLAIN, OLD = "tlfeat", "tlfeat without drawings", "distance of tlfeat 0.1 alone"
FROM_REJECT = ("energy", "cosine k-NN, 10th (Sun 2022)", "Mahalanobis (Lee 2018)", "relative Mahalanobis (Ren 2021)")
ONE_CLASS = "logistic regression against drawings"
_STRANGERS = ("cats_dogs", "potato", "sign_digits", "cifar10", "photo", "art_painting", "cartoon", "sketch")

Pools = dict[str, tuple[Any, Any]]


def read_pools(args: argparse.Namespace) -> tuple[Pools, ReferenceRows]:
    """Return rows and labels of every set, pacs_sample by kind of picture, and the reference rows."""
    pools: Pools = {}
    for name in SETS:
        source = common.unpack(name, args.shared, args.work)
        if name == "cifar10":
            source, _ = common.write_sample(load_images(source), CIFAR_IMAGES_PER_CLASS, source)
        cache = args.work / f"{name}-v2.h5"
        with common.stage(f"embedding {name}"):
            plan_extraction(source, cache=cache, **common.backbone_options("v2", args.shared)).run()
        with open_cache(cache) as opened:
            table, (layer,) = opened.table, opened.layers
            rows, labels = opened.read(layer, table.keys), np.array(table.images.labels)
            reference = read_reference(cache, opened.fingerprint, [layer])
        if name == "pacs_sample":  # its first folders are kinds of picture, the second ones classes
            classes = np.array([path.split("/")[1] for path in table.images.paths])
            pools |= {kind: (rows[labels == kind], classes[labels == kind]) for kind in np.unique(labels).tolist()}
        else:
            pools[name] = rows, labels
    assert reference is not None
    return pools, reference


def draw(pools: Pools, case: str, seed: int) -> tuple[Any, Any, Any]:
    """Return training rows, their labels, and test rows."""
    kinds, classes, n = CASES[case]
    rows, names = (np.concatenate(part) for part in zip(*(pools[kind] for kind in kinds), strict=True))
    rng, learn, test = np.random.default_rng(seed), [], []
    chosen = classes or np.unique(names).tolist()
    for name in chosen:
        at = rng.permutation(np.flatnonzero(names == name))
        learn, test = [*learn, *at[:n]], [*test, *at[n : n + max(10, n // 2)]]
    return rows[learn], np.searchsorted(np.sort(chosen), names[learn]), rows[test]


def measure(rows: Any, labels: Any, asked: Mapping[str, Any], reference: ReferenceRows) -> dict[str, dict[str, float]]:
    """Return for each method the share refused of each group of rows, at a coverage of 95 %."""
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(rows, labels))
    held_out = {name: np.zeros(len(rows)) for name in (*FROM_REJECT, ONE_CLASS, OLD)}
    probabilities = np.zeros((len(rows), len(np.unique(labels))))

    def fit(at: Any) -> tuple[dict[str, Any], Any]:
        methods, head = fit_methods(rows[at], labels[at])
        against = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))
        both = np.concatenate([normal(rows[at]), normal(reference.known)])
        against.fit(both, np.arange(len(both)) >= len(rows[at]))
        found = {name: methods[name] for name in FROM_REJECT}
        found[ONE_CLASS] = lambda q: against.decision_function(normal(q))
        found[OLD] = fit_known_rows(rows[at]).distances
        return found, head

    for learn_at, held_at in folds:
        fitted, head = fit(learn_at)
        probabilities[held_at] = head.predict_proba(rows[held_at])
        for name, of in fitted.items():
            held_out[name][held_at] = of(rows[held_at])
    fitted, head = fit(np.arange(len(rows)))
    found: dict[str, dict[str, float]] = {}
    for name, drawings in ((PRODUCT, reference.known), (PLAIN, None)):
        rejector = fit_rejector(rows, folds, probabilities, drawings)
        assert rejector is not None
        found[name] = {
            group: float(np.mean([bool(why) for why in rejector.reasons(q, head.predict_proba(q))]))
            for group, q in asked.items()
        }
    rank = min(int(np.ceil(COVERAGE * (len(rows) + 1))), len(rows)) - 1
    for name, of in fitted.items():
        limit = np.sort(held_out[name])[rank]
        found[name] = {group: float(np.mean(of(q) > limit)) for group, q in asked.items()}
    return found


def run(args: argparse.Namespace) -> Record:
    """Return the record."""
    pools, reference = read_pools(args)
    cases: dict[str, Any] = {}
    for case, (kinds, _, _) in CASES.items():
        draws = []
        for seed in range(N_SEEDS):
            with common.stage(f"{case}, draw {seed}"):
                rows, labels, test = draw(pools, case, seed)
                rng = np.random.default_rng(seed)
                asked = {"known": test, "drawings": reference.drawings, "photographs": reference.photographs}
                for other in _STRANGERS:
                    if other not in kinds:
                        strange = pools[other][0]
                        asked[other] = strange[rng.permutation(len(strange))[:N_STRANGERS]]
                draws.append(measure(rows, labels, asked, reference))
        cases[case] = {"n_learn": len(rows), "n_test": len(test), "draws": draws}
    return {"cases": cases, **common.conditions()}


def mean_of(case: Record, method: str, group: str) -> float:
    """Return the mean share refused over the draws."""
    return float(np.mean([found[method][group] for found in case["draws"]]))


def others_of(case: Record) -> list[str]:
    """Return the groups of unknown images that are no reference images."""
    return [group for group in _STRANGERS if group in case["draws"][0][PRODUCT]]


def tables(record: Record) -> str:
    """Return the conditions, the table of methods, and the table of cases."""
    cases = record["cases"].values()
    methods = []
    for name in (OLD, PLAIN, PRODUCT, *FROM_REJECT, ONE_CLASS):
        answered = [1 - mean_of(case, name, "known") for case in cases]
        refused = [[mean_of(case, name, group) for group in others_of(case)] for case in cases]
        sketches = [mean_of(case, name, "sketch") for case in cases]
        methods.append(
            (
                name,
                f"{share(np.mean(answered))} ({share(min(answered))})",
                share(np.mean([np.mean(r) for r in refused])),
                share(min(map(min, refused))),
                f"{share(np.mean(sketches))} ({share(min(sketches))})",
            )
        )
    headings = ("known", "images", "answered", *_STRANGERS, "drawings", "photographs")
    lines = [
        (
            name,
            str(case["n_learn"]),
            share(1 - mean_of(case, PRODUCT, "known")),
            *(
                f"{100 * mean_of(case, PRODUCT, group):.0f} %" if group in case["draws"][0][PRODUCT] else "–"
                for group in headings[3:]
            ),
        )
        for name, case in record["cases"].items()
    ]
    return "\n\n".join(
        [
            f"- Versions: {common.versions_of(record['environment'])}. {N_SEEDS} draws.",
            "### Methods",
            markdown_table(
                ("method", "answered (least)", "refused, mean", "least of a pair", "sketches (least)"), methods
            ),
            "### `predict --reject`, refused at a coverage of 95 %",
            markdown_table(headings, lines),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, save, print the tables."""
    parser = common.parser_for("reject_small", __doc__)
    common.add_data(parser)
    args = common.read_arguments(parser, arguments)
    if not args.tables_only:
        with common.work_folder(args):
            write_json(args.json, run(args))
    common.publish(args, tables(read_json(args.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
