"""Every head beside what plain scikit-learn fits with its settings on the same rows: coefficients, labels, times.

    python benchmarks/scikit_heads.py --caches a.h5 b.h5
    python benchmarks/scikit_heads.py --tables-only

``clone(head).fit(rows, labels)``, in float64: the settings of the saved head, and nothing of tlfeat.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

HEADS = ("logreg", "linear-svm", "ridge", "lda", "svm", "knn")


def measure(cache: Path, heads: list[str], seed: int, save: Callable[[Record], None]) -> None:
    """Fit every head, and a clone of it with scikit-learn's own fit."""
    from sklearn.base import clone

    from tlfeat.cache.contents import read_rows
    from tlfeat.evaluate.data import open_data
    from tlfeat.heads.fit import fit_head, predict_probabilities
    from tlfeat.heads.pipelines import classifier_of

    with open_data(cache, seed=seed) as data:
        split = data.split
        rows = read_rows(data.cache, ["avg_pool"], split.keys)
    at, test_at = split.where("train", "val"), split.where("test")
    names = np.array(split.classes)[split.labels]
    for name in heads:
        fitted = fit_head(name, rows[at], split, at, seed=seed)
        head, started_s = fitted.head, time.perf_counter()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            plain = clone(head).fit(rows[at].astype(np.float64), names[at])
        plain_s = time.perf_counter() - started_s
        mine, theirs = head.predict_proba(rows[test_at]), plain.predict_proba(rows[test_at])
        record: Record = {
            "set": cache.stem,
            "head": name,
            "seed": seed,
            "chosen": fitted.chosen,
            "classifier": repr(classifier_of(head)[0]),
            "steps": [step for step, _ in head.steps],
            "coefficients": difference(classifier_of(head)[0], classifier_of(plain)[0]),
            "labels": float(np.mean(head.predict(rows[test_at]) == plain.predict(rows[test_at]))),
            "probabilities": float(np.abs(mine - theirs).max()),
            "own": float(np.abs(predict_probabilities(head, rows[test_at]) - mine).max()),
            "n_test": len(test_at),
            "fit_s": fitted.fit_s,
            "search_s": fitted.search_s,
            "plain_s": plain_s,
            "warnings": sorted({str(w.message) for w in said}),
        }
        save(record)
        common.say(f"{cache.stem} {name}: coefficients {record['coefficients']}, labels {record['labels']}")


def difference(mine: Any, theirs: Any) -> float | None:
    """Return the largest difference of coefficients, as a share of the largest; of support vectors the dual ones."""
    of = "coef_" if not hasattr(mine, "dual_coef_") else "dual_coef_"
    if not hasattr(mine, of):
        return None
    a, b = getattr(mine, of), getattr(theirs, of)
    return float(np.abs(a - b).max() / np.abs(b).max()) if a.shape == b.shape else None


def table(runs: list[Record]) -> str:
    """Return one line a set and head."""
    rows = []
    for run in runs:
        same = run["coefficients"]
        rows.append(
            (
                *(run["set"], run["head"], run["chosen"]["rows"]),
                "" if same is None else f"{same:.1e}",
                f"{100 * run['labels']:.1f} % of {run['n_test']}",
                f"{run['probabilities']:.3f}",
                f"{run['own']:.0e}",
                f"{run['search_s'] + run['fit_s']:.1f}",
                f"{run['plain_s']:.1f}",
            )
        )
    headings = ("set", "head", "rows", "largest difference of a coefficient", "same labels", "largest difference of a")
    return markdown_table(
        (
            *headings[:5],
            f"{headings[5]} probability",
            "tlfeat and its pipeline",
            "search and fit, s",
            "fit of clone, s",
        ),
        rows,
    )


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("scikit_heads", __doc__)
    parser.add_argument("--caches", type=Path, nargs="*", default=[], help="caches with avg_pool")
    parser.add_argument("--heads", type=common.chosen_from(HEADS), default=HEADS)
    parser.add_argument("--seed", type=int, default=0)
    args = common.read_arguments(parser)
    document = read_json(args.json) if args.json.exists() else {"runs": []}
    if not args.tables_only:
        document |= common.conditions() | {"runs": []}

        def save(run: Record) -> None:
            document["runs"].append(run)
            write_json(args.json, document)

        for cache in args.caches:
            measure(cache.resolve(), list(args.heads), args.seed, save)
    common.publish(args, table(document["runs"]))


if __name__ == "__main__":
    main()
