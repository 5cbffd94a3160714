"""How well pictures of other sets, and of a class left out, are told from known ones, as JSON and Markdown tables.

Each set in turn is the known one: statistics and thresholds come from its training images (five folds), the known
pictures that count are its test images, strangers are the images of the other sets, or of one class that was left
out of everything. Neither chose anything. Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``).

    python benchmarks/reject.py                   # both backbones, half an hour on two cores
    python benchmarks/reject.py --backbones v2    # one of them
    python benchmarks/reject.py --tables-only     # the tables from the JSON, runs nothing

The product's method was chosen with these sets and both backbones: the residual, chosen first and on MobileNetV2 alone,
failed on MobileNet v1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import common
from common import Record
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads.known_rows import fit_known_rows
from tlfeat.heads.reject import COVERAGE, fit_rejector
from tlfeat.images.load import load_images
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits", "cifar10")
CIFAR_IMAGES_PER_CLASS = 300
N_STRANGERS = 1000
#: Sets of which every third class is left out in turn.
NEAR = ("sign_digits", "cifar10")
PRODUCT = "tlfeat: neighbours in 64 components and max probability"

Score = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Known:
    """Embeddings and labels for training and for testing."""

    rows: Any
    labels: Any
    test_rows: Any
    test_labels: Any
    classes: list[str]

    def without(self, c: int) -> Known:
        """Leave a class out; labels stay without a gap."""

        def closed(labels: Any) -> Any:
            return labels - (labels > c)

        learn, test = self.labels != c, self.test_labels != c
        names = [name for i, name in enumerate(self.classes) if i != c]
        return Known(
            self.rows[learn], closed(self.labels[learn]), self.test_rows[test], closed(self.test_labels[test]), names
        )


def read_set(name: str, backbone: str, args: argparse.Namespace) -> Known:
    """Embed a set once and return it under its own split, or that of seed 0."""
    source = common.unpack(name, args.shared, args.work)
    if name == "cifar10":
        source, _ = common.write_sample(load_images(source), CIFAR_IMAGES_PER_CLASS, source)
    cache = args.work / f"{name}-{backbone}.h5"
    with common.stage(f"embedding {name} by {backbone}"):
        plan_extraction(source, cache=cache, **common.backbone_options(backbone, args.shared)).run()
    with open_data(cache, seed=0) as data:
        split, (layer,) = data.split, data.cache.layers
        learn, test = split.where("train", "val"), split.where("test")
        rows = [data.cache.read(layer, [split.keys[i] for i in at]) for at in (learn, test)]
    return Known(rows[0], split.labels[learn], rows[1], split.labels[test], split.classes)


def normal(rows: Any) -> Any:
    """Return rows of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def fit_methods(rows: Any, labels: Any) -> tuple[dict[str, Score], Any]:
    """Return for each method a function of rows that is the larger the stranger they are, and the head."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(rows, labels)
    scale = head[0]
    standard = scale.transform(rows)
    means = np.stack([standard[labels == c].mean(axis=0) for c in np.unique(labels)])
    within = np.linalg.inv(ledoit_wolf(standard - means[labels])[0])
    around = np.linalg.inv(ledoit_wolf(standard)[0])
    directions = normal(rows)
    axes = np.linalg.eigh(np.cov(standard.T))[1][:, -32:]
    known = fit_known_rows(rows)

    def probabilities(q: Any) -> Any:
        return head.predict_proba(q)

    def logits(q: Any) -> Any:
        scores = head.decision_function(q)
        return np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores

    def energy(q: Any) -> Any:
        return -logsumexp(logits(q), axis=1)

    def mahalanobis(q: Any) -> Any:
        z = scale.transform(q)
        product = z @ within
        own = np.einsum("ij,ij->i", product, z)
        return np.min([own - 2 * product @ m + m @ within @ m for m in means], axis=0)

    def relative(q: Any) -> Any:
        z = scale.transform(q)
        return mahalanobis(q) - np.einsum("ij,ij->i", z @ around, z)

    def residual(q: Any) -> Any:
        z = scale.transform(q)
        return np.sqrt(np.maximum(np.sum(z**2, axis=1) - np.sum((z @ axes) ** 2, axis=1), 0))

    weight = float(logits(rows).max(axis=1).mean() / residual(rows).mean())
    return {
        "max probability": lambda q: -probabilities(q).max(axis=1),
        "entropy": lambda q: -(probabilities(q) * np.log(probabilities(q) + 1e-12)).sum(axis=1),
        "max logit": lambda q: -logits(q).max(axis=1),
        "energy": energy,
        "cosine k-NN, 10th (Sun 2022)": lambda q: -np.partition(normal(q) @ directions.T, -10, axis=1)[:, -10],
        "Mahalanobis (Lee 2018)": mahalanobis,
        "relative Mahalanobis (Ren 2021)": relative,
        "residual and energy (ViM, Wang 2022)": lambda q: weight * residual(q) + energy(q),
        "residual of 32 components": residual,
        "neighbours in 64 components": known.distances,
    }, head


def measure(known: Known, strangers: Mapping[str, Any]) -> Record:
    """Return for each method how many known pictures are answered and how many strangers refused."""
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(known.rows, known.labels))
    methods, head = fit_methods(known.rows, known.labels)
    held_out = {name: np.zeros(len(known.rows)) for name in methods}
    probabilities = np.zeros((len(known.rows), len(known.classes)))
    for learn_at, held_at in folds:
        fitted, fold_head = fit_methods(known.rows[learn_at], known.labels[learn_at])
        probabilities[held_at] = fold_head.predict_proba(known.rows[held_at])
        for name, of in fitted.items():
            held_out[name][held_at] = of(known.rows[held_at])
    found: Record = {}
    for name, of in methods.items():
        limit, of_known = np.quantile(held_out[name], COVERAGE), of(known.test_rows)
        found[name] = {"answered": float(np.mean(of_known <= limit)), "strangers": {}}
        for other, rows in strangers.items():
            scores = of(rows)
            truth = np.r_[np.zeros(len(of_known)), np.ones(len(scores))]
            found[name]["strangers"][other] = {
                "auroc": float(roc_auc_score(truth, np.r_[of_known, scores])),
                "refused": float(np.mean(scores > limit)),
            }
    rejector = fit_rejector(known.rows, folds, probabilities)
    assert rejector is not None

    def refused(rows: Any) -> list[str]:
        return [why[:6] for why in rejector.reasons(rows, head.predict_proba(rows))]

    known_reasons = np.array(refused(known.test_rows))
    right = head.predict_proba(known.test_rows).argmax(axis=1) == known.test_labels
    found[PRODUCT] = {
        "answered": float(np.mean(known_reasons == "")),
        "accuracy": float(np.mean(right)),
        "accuracy_of_answered": float(np.mean(right[known_reasons == ""])),
        "strangers": {},
    }
    for other, rows in strangers.items():
        reasons = np.array(refused(rows))
        found[PRODUCT]["strangers"][other] = {
            "refused": float(np.mean(reasons != "")),
            "unlike": float(np.mean(reasons == "unlike")),
        }
    return found


def run(backbone: str, args: argparse.Namespace) -> Record:
    """Return the record of one backbone."""
    sets = {name: read_set(name, backbone, args) for name in SETS}
    everything = {name: np.concatenate([k.test_rows, k.rows])[:N_STRANGERS] for name, k in sets.items()}
    cases = []
    for name, known in sets.items():
        with common.stage(f"{backbone}: {name} known"):
            others = {other: rows for other, rows in everything.items() if other != name}
            cases.append({"known": name, "left_out": "", "methods": measure(known, others)})
        for c in range(0, len(known.classes), 3) if name in NEAR else ():
            with common.stage(f"{backbone}: {name} without {known.classes[c]}"):
                rows = np.concatenate([known.rows[known.labels == c], known.test_rows[known.test_labels == c]])
                found = measure(known.without(c), {"left out": rows})
                cases.append({"known": name, "left_out": known.classes[c], "methods": found})
    return {
        "backbone": backbone,
        "n_learn": {name: len(known.rows) for name, known in sets.items()},
        "n_test": {name: len(known.test_rows) for name, known in sets.items()},
        "cases": cases,
        **common.conditions(),
    }


# --- the tables -------------------------------------------------------------------------------------------------

_TITLES = {"v2": "MobileNetV2 0.35", "v1": "MobileNet v1"}

_HEADINGS = ("AUROC, other sets", "refused (least of a pair)", "AUROC, class left out", "refused (least)")


def share(value: float) -> str:
    """Return a percentage."""
    return f"{100 * value:.1f} %"


def tables(records: Sequence[Record]) -> str:
    """Return the conditions, the table of methods and the tables of pairs."""
    parts = ["- Versions: " + "; ".join(common.distinct(common.versions_of(r["environment"]) for r in records)) + "."]
    for record in records:
        rows = []
        for name in record["cases"][0]["methods"]:
            far = [case["methods"][name] for case in record["cases"] if not case["left_out"]]
            near = [case["methods"][name] for case in record["cases"] if case["left_out"]]
            cells = [name, share(np.mean([m["answered"] for m in far + near]))]
            for group in (far, near):
                pairs = [s for m in group for s in m["strangers"].values()]
                refused = [s["refused"] for s in pairs]
                aurocs = [s["auroc"] for s in pairs if "auroc" in s]
                cells += [
                    f"{np.mean(aurocs):.3f}" if aurocs else "–",
                    f"{share(np.mean(refused))} ({share(min(refused))})",
                ]
            rows.append(cells)
        parts += [
            f"### {_TITLES[record['backbone']]}: methods",
            markdown_table(
                ("method", "known answered", *_HEADINGS),
                rows,
            ),
            f"### {_TITLES[record['backbone']]}: `predict --reject`, unknown images refused at a coverage of 95 %",
            markdown_table(
                ("known", "answered", "accuracy: all, answered", *SETS),
                [
                    (
                        case["known"],
                        share(found["answered"]),
                        f"{share(found['accuracy'])}, {share(found['accuracy_of_answered'])}",
                        *(share(found["strangers"][o]["refused"]) if o in found["strangers"] else "–" for o in SETS),
                    )
                    for case in record["cases"]
                    if not case["left_out"]
                    for found in [case["methods"][PRODUCT]]
                ],
            ),
            "Of a class left out: "
            + ", ".join(
                f"{case['known']} {case['left_out']} "
                + share(case["methods"][PRODUCT]["strangers"]["left out"]["refused"])
                for case in record["cases"]
                if case["left_out"]
            )
            + ".",
        ]
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for, save it after each backbone, print the tables."""
    parser = common.parser_for("reject", __doc__)
    common.add_data(parser)
    parser.add_argument("--backbones", nargs="+", choices=list(_TITLES), default=list(_TITLES))
    args = common.read_arguments(parser, arguments)
    known = {record["backbone"]: record for record in (read_json(args.json) if args.json.exists() else [])}
    if not args.tables_only:
        with common.work_folder(args):
            for backbone in args.backbones:
                known[backbone] = run(backbone, args)
                write_json(args.json, [known[name] for name in _TITLES if name in known])
    text = tables([known[name] for name in _TITLES if name in known])
    common.publish(args, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
