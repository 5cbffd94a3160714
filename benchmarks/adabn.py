"""What BatchNorm statistics of the target bring on PACS: every domain as the target, two networks, five seeds.

    python benchmarks/adabn.py
    python benchmarks/adabn.py --tables-only

A plain script around ``adapt_batch_norm``: one network in memory, given its old statistics back before each measuring.
Half of the target's images, drawn by lot, are measured without their labels, the other half is tested. Heads are
scikit-learn's logistic regression (C = 0.01) on standardised rows of the other three domains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat.text import markdown_table
from tlfeat.types import Bools, Labels, Pixels, Rows
from tlfeat.workspace import read_json, write_json

SET, C = "pacs_sample", 0.01

#: Name of a way to measure to its options. What is done once is measured for the first seed alone, and every domain on
#: the same half of it, whether it is the target or a source; otherwise sources are measured on all their images.
WAYS: dict[str, Record] = {
    "half new": {"weight": 0.5},
    "all new": {"weight": 1.0, "is_once": True},
    "all new, training mode, batches of 32": {"is_in_batches": True, "is_once": True},
    "half new, of 32 images": {"weight": 0.5, "n_most": 32, "is_once": True},
    "half new, of 8 images": {"weight": 0.5, "n_most": 8, "is_once": True},
    "a quarter new": {"weight": 0.25, "is_once": True},
}
NONE = "none"


class Network:
    """One network with its old statistics, and the rows that it gives."""

    def __init__(self, options: dict[str, Any]) -> None:
        import tensorflow as tf

        from tlfeat.backbones.frameworks import import_keras
        from tlfeat.backbones.graph import embedding_output
        from tlfeat.backbones.network import BackboneSpec, build_base
        from tlfeat.backbones.preprocess import preprocess

        weights = options.get("weights", "imagenet")
        self.spec = BackboneSpec(options["backbone"], weights, preprocess=options.get("preprocess"))
        self.base = build_base(self.spec, self.spec.size)
        self.old = self.base.get_weights()
        pooled = import_keras().Model(self.base.inputs[0], embedding_output(self.base, self.spec, "avg_pool"))

        def call(pixels: Any, is_training: bool = False) -> Any:
            return pooled(preprocess(tf.cast(pixels, "float32"), self.spec.mode), training=is_training)

        self.call, self.graph = call, tf.function(call, autograph=False)

    def measure(self, pixels: Pixels, way: Record, seed: int) -> float:
        """Measure the statistics again, and return the seconds of processor time."""
        from tlfeat.backbones.batch_norm import adapt_batch_norm

        self.base.set_weights(self.old)
        some = pixels[: way.get("n_most")]
        started_s = time.process_time()
        if way.get("is_in_batches"):
            self._measure_in_batches(some[np.random.default_rng(seed).permutation(len(some))])
        else:
            adapt_batch_norm(self.base, some, self.spec.mode, weight=way["weight"])
        return time.process_time() - started_s

    def _measure_in_batches(self, pixels: Pixels, n: int = 32) -> None:
        """Measure as a pass in training mode does: batches are normalised by themselves, their moments averaged."""
        from tlfeat.backbones.batch_norm import batch_norms

        layers, moments = batch_norms(self.base), []
        for layer in layers:
            layer.momentum = 0.0
        for start in range(0, len(pixels) - n + 1, n):
            self.call(pixels[start : start + n], is_training=True)
            moments.append([(np.array(la.moving_mean), np.array(la.moving_variance)) for la in layers])
        for k, layer in enumerate(layers):
            means = np.array([batch[k][0] for batch in moments], np.float64)
            variances = np.array([batch[k][1] for batch in moments], np.float64)
            layer.moving_mean.assign(means.mean(axis=0))
            layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))

    def rows(self, pixels: Pixels) -> Rows:
        """Return rows in batches of 20, which divides every number of images here."""
        return np.concatenate([np.asarray(self.graph(pixels[i : i + 20])) for i in range(0, len(pixels), 20)])


def read(folder: Any, size: tuple[int, int]) -> dict[str, tuple[Pixels, Labels]]:
    """Return pixels and labels of every domain, in the order of content keys."""
    from tlfeat.images.decode import decode_all
    from tlfeat.images.load import load_images

    found = {}
    for domain in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = load_images(domain)
        decoded = list(decode_all([(i, images.file(i)) for i in range(len(images))], size))
        order = sorted(range(len(decoded)), key=lambda i: decoded[i].key)
        pixels = np.stack([decoded[i].pixels for i in order])
        found[domain.name] = pixels, np.array([images.classes.index(images.labels[i]) for i in order])
    return found


def halves(n: int, seed: int, domain: int) -> Bools:
    """Return which images are measured; the others are tested."""
    is_measured = np.zeros(n, bool)
    is_measured[np.random.default_rng([seed, domain]).permutation(n)[: n // 2]] = True
    return is_measured


def standardised(rows: Rows, by: Rows) -> Rows:
    return (rows - by.mean(axis=0)) / (by.std(axis=0) + 1e-6)


def head(rows: list[Rows], labels: list[Labels]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300))
    return classifier.fit(np.concatenate(rows), np.concatenate(labels))


def measure(name: str, args: Any, say: Callable[[Record], None]) -> Record:
    """Return accuracies of one network by way, rows of the source, scaling and target: one a seed."""
    network = Network(common.backbone_options(name, args.shared))
    data = read(common.unpack(SET, args.shared, args.work), network.spec.size)
    domains, cpu_s = list(data), {}
    plain = {domain: network.rows(pixels) for domain, (pixels, _) in data.items()}
    record: Record = {"network": name, "domains": domains, "n_seeds": args.seeds, "accuracy": {}, "cpu_s": cpu_s}

    def score(way: str, is_source_adapted: bool, sources: dict[str, Rows], of_target: dict[Any, Any]) -> None:
        for scaling in ("together", "per domain"):
            is_own = scaling == "per domain"
            for target in domains:
                others = [domain for domain in domains if domain != target]
                rows = [standardised(sources[d], sources[d]) if is_own else sources[d] for d in others]
                fitted = head(rows, [data[d][1] for d in others])
                for seed, (measured, tested, labels) in of_target[target].items():
                    given = standardised(tested, measured) if is_own else tested
                    key = f"{way}|{'all' if is_source_adapted else 'target'}|{scaling}|{target}"
                    record["accuracy"].setdefault(key, {})[str(seed)] = float(fitted.score(given, labels))
        say(record)

    def parts(rows: Rows, seed: int, target: str) -> tuple[Rows, Rows, Labels]:
        is_measured = halves(len(rows), seed, domains.index(target))
        return rows[is_measured], rows[~is_measured], data[target][1][~is_measured]

    of_none = {d: {seed: parts(plain[d], seed, d) for seed in range(args.seeds)} for d in domains}
    score(NONE, False, plain, of_none)
    for way in args.ways:
        options = WAYS[way]
        sources: dict[str, Rows] = {}
        of_target: dict[str, Any] = {}
        spent: list[float] = []
        for domain, (pixels, _) in data.items():
            if not options.get("is_once"):
                network.measure(pixels, options, 0)
                sources[domain] = network.rows(pixels)
            of_target[domain] = {}
            for seed in range(1 if options.get("is_once") else args.seeds):
                is_measured = halves(len(pixels), seed, domains.index(domain))
                spent.append(network.measure(pixels[is_measured], options, seed))
                found = network.rows(pixels)
                sources.setdefault(domain, found)
                of_target[domain][seed] = parts(found, seed, domain)
        cpu_s[way] = float(np.mean(spent))
        score(way, True, sources, of_target)
        score(way, False, plain, of_target)
        common.say(f"{name} {way}: {cpu_s[way]:.1f} s of processor time a domain")
    return record


def cells(record: Record, way: str, source: str, scaling: str) -> list[str]:
    """Return mean over targets with its deviation over seeds, that of the first seed, and each target, in percent."""
    by_target = [record["accuracy"].get(f"{way}|{source}|{scaling}|{d}") for d in record["domains"]]
    if None in by_target:
        return []
    values = 100 * np.array([[of[seed] for seed in sorted(of)] for of in by_target])  # (targets, seeds)
    means = values.mean(axis=0)
    deviation = f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else ""
    first = f"{means[0]:.1f}"
    return [
        f"{means.mean():.1f}{deviation}",
        first,
        *(f"{value:.1f}" for value in values.mean(axis=1)),
        str(values.shape[1]),
    ]


def tables(document: Record) -> str:
    """Return a table for each network."""
    texts = []
    for record in document["runs"]:
        lines = []
        for way in (NONE, *WAYS):
            for source, scaling in (
                (source, scaling) for source in ("target", "all") for scaling in ("together", "per domain")
            ):
                found = cells(record, way, source, scaling)
                if found:
                    whose = {"target": "the target", "all": "every domain"}[source] if way != NONE else ""
                    lines.append((way, whose, scaling, *found))
        headings = (
            "statistics",
            "of",
            "standardised",
            "mean of targets, %",
            "first seed alone",
            *record["domains"],
            "seeds",
        )
        spent = ", ".join(f"{way} {seconds:.1f}" for way, seconds in record["cpu_s"].items())
        texts.append(
            f"{common.BACKBONES[record['network']]}\n\n{markdown_table(headings, lines)}\n\n"
            f"Seconds of processor time to measure one target: {spent}."
        )
    texts.append(f"{document['date']}, {common.machine_of(document)}; {common.versions_of(document['environment'])}.")
    return "\n\n".join(texts)


def main() -> None:
    """Run what is asked for and write the tables."""
    parser = common.parser_for("adabn", __doc__)
    common.add_data(parser)
    parser.add_argument("--networks", type=common.chosen_from(tuple(common.BACKBONES)), default=("v2", "v1"))
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), help="those of before are kept")
    parser.add_argument("--seeds", type=common.positive, default=5)
    args = common.read_arguments(parser)
    document = read_json(args.json) if args.json.exists() else {"runs": []}
    if not args.tables_only:
        with common.work_folder(args):
            for name in args.networks:

                def save(record: Record) -> None:
                    runs = {run["network"]: run for run in document["runs"]}
                    known = runs.get(record["network"], {"accuracy": {}, "cpu_s": {}})
                    together = {part: known[part] | record[part] for part in ("accuracy", "cpu_s")}
                    runs[record["network"]] = record | together
                    document.update(common.conditions() | {"runs": [*runs.values()]})
                    write_json(args.json, document)

                with common.stage(f"{name} on {SET}"):
                    save(measure(name, args, save))
    common.publish(args, tables(document))


if __name__ == "__main__":
    main()
