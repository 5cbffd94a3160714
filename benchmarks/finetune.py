"""Fine-tuning from the cut against ordinary Keras: seconds an epoch and in total, on the same images and batches.

Ordinary Keras is a script as anyone would write it: images decoded beforehand and held in memory, a ``tf.data``
pipeline, the whole network in ``model.fit``, frozen layers with ``trainable = False``. From the cut is
``finetune.train`` with nothing there beforehand: its first pass through the frozen layers, the conversion of the
network and the reading of the images are in its total.

The two run in alternation. An ordinary epoch is timed by itself after two batches of warm-up; totals over more epochs
are that time the number of epochs, plus the warm-up once. From the cut really runs all its epochs.

    python benchmarks/finetune.py potato/ [--only inception] [--rounds 2]
    python benchmarks/finetune.py potato/ --agreement mobilenet_v2_0.35_224_no_top.weights.h5

Weights are random where time is measured: they change nothing in it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import common
from common import Record
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.frameworks import import_keras
from tlfeat.backbones.network import BackboneSpec, build_base
from tlfeat.backbones.preprocess import preprocess
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.split import Split, make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.finetune import train as finetune
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.network import Network
from tlfeat.finetune.recipes import find_recipe
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import Sources
from tlfeat.images.decode import decode_all
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.text import markdown_table
from tlfeat.workspace import read_json, write_json

EPOCHS = (10, 30, 50)


@dataclass(frozen=True)
class Case:
    """What is trained, and what the issue asks of it: times faster over so many epochs."""

    name: str
    backbone: str
    size: tuple[int, int]
    settings: TrainSettings
    aims: dict[int, float]


_PLAIN = {"augment": Augmentation(), "keep": "last"}
CASES = (
    Case(
        "InceptionV3, last 15 layers",
        "inception_v3",
        (224, 224),
        find_recipe("inception-last15").make(**_PLAIN),
        {10: 4, 30: 8},
    ),
    Case(
        "MobileNetV2, last block",  # block_16 and Conv_1
        "mobilenet_v2",
        (224, 224),
        TrainSettings("finetuned", unfreeze_last=11, keep="last"),
        {10: 4, 30: 8},
    ),
    Case(
        "ResNet50, last block",  # conv5_block3
        "resnet50",
        (256, 256),
        TrainSettings("finetuned", unfreeze_last=10, keep="last"),
        {10: 4, 30: 8},
    ),
    Case(
        "ResNet50, frozen, the recipe's head",
        "resnet50",
        (256, 256),
        find_recipe("resnet50-potato").make(**_PLAIN),
        {50: 50},
    ),
)


def ordinary(case: Case, pixels: Any, split: Split) -> dict[str, float]:
    """Time one epoch of the whole network, validation included, after a warm-up of two batches."""
    keras = import_keras()
    import tensorflow as tf

    keras.backend.clear_session()
    base = build_base(BackboneSpec(case.backbone, "random", case.size), case.size)
    n = case.settings.unfreeze_last if case.settings.mode == "finetuned" else 0
    for layer in base.layers[: len(base.layers) - n - 1]:
        layer.trainable = False
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = keras.Input((*case.size, 3))
    x = base(preprocess(inputs, BackboneSpec(case.backbone).mode))
    for units in case.settings.dense:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(case.settings.dropout)(x)
    model = keras.Model(inputs, keras.layers.Dense(len(split.classes), activation="softmax")(x))
    model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def batches(at: Any) -> Any:
        data = tf.data.Dataset.from_tensor_slices((pixels[at], split.labels[at]))
        return data.batch(32).map(lambda p, y: (tf.cast(p, tf.float32), y)).prefetch(2)

    train, val = batches(split.where("train")), batches(split.where("val"))
    started_s = time.perf_counter()
    model.fit(train.take(2), validation_data=val.take(1), shuffle=False, verbose=0)
    warm_up_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    model.fit(train, validation_data=val, shuffle=False, verbose=0)
    return {"warm_up_s": warm_up_s, "epoch_s": time.perf_counter() - started_s}


def from_the_cut(case: Case, images: ImageSet, split: Split) -> dict[str, Any]:
    """Time `finetune.train` from nothing: filling the cache, then all epochs, summed up to each of `EPOCHS`."""
    shutil.rmtree(workspace.CACHE_DIR, ignore_errors=True)
    spec = BackboneSpec(case.backbone, "random", case.size)
    n_epochs = max(case.aims)
    settings = replace(case.settings, epochs=n_epochs, patience=n_epochs)
    started_s = time.perf_counter()
    network = Network(spec, case.size, len(split.classes), settings)
    with Sources(spec, images, split, case.size, "antialias", "bench") as sources:
        trained = finetune.train(network, split, sources)
    total_s = time.perf_counter() - started_s
    epochs_s = trained.history["epoch_s"]
    before_s = total_s - sum(epochs_s)  # building, converting, filling, reading it back
    cut = network.split()[2]
    return {
        "before_s": before_s,
        "extract_s": trained.extract_s,
        "epoch_s": statistics.median(epochs_s[1:]),
        "total_s": {str(n): before_s + sum(epochs_s[:n]) for n in EPOCHS if n <= n_epochs},
        "fed": trained.chosen["fed"],
        "share_below": cut.share,
        "values_an_image": cut.n_values,
        "trainable_parameters": trained.chosen["trainable_parameters"],
    }


def agreement(weights: Path, images: ImageSet, split: Split, *, n_epochs: int = 1) -> dict[str, Any]:
    """Train MobileNetV2 0.35's last block from the cut and in plain Keras, from the same seed on the same batches.

    Returns
    -------
    dict
        By optimizer: over all weights that trained the largest and the mean difference, the largest and the mean
        change that training made, the correlation of both changes. The yardstick: plain Keras again, with every
        starting weight off by about one part in ten million, which is what rounding does to it anyway.
    """
    spec = BackboneSpec("mobilenet_v2_0.35", str(weights), (224, 224))
    found: dict[str, Any] = {"n_epochs": n_epochs}
    for optimizer, rate in (("sgd", 1e-3), ("adam", 1e-4)):
        settings = TrainSettings("finetuned", unfreeze_last=11, keep="last", epochs=n_epochs, patience=n_epochs)
        settings = replace(settings, optimizer=optimizer, learning_rate=rate)
        networks = [Network(spec, (224, 224), len(split.classes), settings) for _ in range(3)]
        before = _weights(networks[0].whole)
        rng = np.random.default_rng(0)
        for weight in networks[2].whole.trainable_weights:
            noise = 1 + 1e-7 * rng.standard_normal(weight.shape)
            weight.assign((weight.numpy() * noise).astype(np.float32))
        with Sources(spec, images, split, (224, 224), "antialias", "bench") as sources:
            finetune.train(networks[0], split, sources)
            _train_plainly(networks[1], split, sources, n_epochs)
            _train_plainly(networks[2], split, sources, n_epochs)
        cut, plain, rounded = (_weights(network.whole) - before for network in networks)
        found[optimizer] = {
            "n_weights": len(plain),
            "change": {"largest": float(np.abs(plain).max()), "mean": float(np.abs(plain).mean())},
            "cut_against_plain": _difference(cut, plain),
            "plain_against_plain_rounded": _difference(rounded, plain),
        }
    return found


def _train_plainly(network: Network, split: Split, sources: Sources, n_epochs: int) -> None:
    settings, train_at = network.settings, split.where("train")
    network.compile(network.whole, settings.rate)
    for epoch in range(n_epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(train_at)
        for first in range(0, len(order), settings.batch_size):
            at = np.sort(order[first : first + settings.batch_size])
            network.whole.train_on_batch(sources.pixels().read(at)[0].astype(np.float32), split.labels[at])


def _weights(model: Any) -> Any:
    return np.concatenate([np.array(w.numpy()).ravel() for w in model.trainable_weights])


def _difference(one: Any, other: Any) -> dict[str, float]:
    distance = np.abs(one - other)
    return {
        "largest": float(distance.max()),
        "mean": float(distance.mean()),
        "correlation": float(np.corrcoef(one, other)[0, 1]),
    }


def measure(
    case: Case, images: ImageSet, split: Split, n_rounds: int, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """Run more rounds and add them to those of an earlier run."""
    files = ((i, images.root / path) for i, path in enumerate(split.paths))
    pixels = np.empty((len(split.paths), *case.size, 3), np.uint8)
    for decoded in decode_all(files, case.size):
        pixels[decoded.i] = decoded.pixels
    whole, tail = (earlier["ordinary"], earlier["from_the_cut"]) if earlier else ([], [])
    for number in range(n_rounds):
        tail.append(from_the_cut(case, images, split))
        whole.append(ordinary(case, pixels, split))
        print(f"{case.name}, round {number + 1}: ordinary {whole[-1]}, from the cut {tail[-1]}", file=sys.stderr)
    # what would be left if extraction were free and an epoch of the tail cost its share of the multiply-adds alone:
    # forwards 1, backwards 2 for what trains
    above = 1 - tail[0]["share_below"]
    return {
        "case": case.name,
        "n_train": len(split.where("train")),
        "n_val": len(split.where("val")),
        "aims": case.aims,
        "multiply_add_ratio": round((1 + 2 * above) / max(3 * above, 1e-9), 1) if above > 1e-6 else None,
        "ordinary": whole,
        "from_the_cut": tail,
        "load": [*(earlier["load"] if earlier else []), common.load_average()],
        **common.conditions(),
    }


def to_markdown(found: dict[str, Any]) -> str:
    """Return one line a case: medians of the rounds, the ratios with the smallest and the largest."""
    headings = ["", "images", "below the cut", "values an image", "epoch, ordinary", "epoch, from the cut", "filling"]
    headings += ["times faster an epoch", "multiply-adds allow", "10 epochs", "30 epochs", "50 epochs", "aim"]
    rows = []
    for name, of in found.items():
        tails, wholes = of["from_the_cut"], of["ordinary"]
        totals = [
            _range([_total_s(w, n) / t["total_s"][str(n)] for w, t in zip(wholes, tails, strict=True)])
            if str(n) in tails[0]["total_s"]
            else "–"
            for n in EPOCHS
        ]
        rows.append(
            [
                name,
                f"{of['n_train']:,} + {of['n_val']:,}",
                f"{100 * tails[0]['share_below']:.1f} %",
                f"{tails[0]['values_an_image']:,}",
                f"{statistics.median(w['epoch_s'] for w in wholes):.0f} s",
                f"{statistics.median(t['epoch_s'] for t in tails):.2f} s",
                f"{statistics.median(t['before_s'] for t in tails):.0f} s",
                _range([w["epoch_s"] / t["epoch_s"] for w, t in zip(wholes, tails, strict=True)]),
                f"{of['multiply_add_ratio']:g}" if of["multiply_add_ratio"] else "no bound",
                *totals,
                ", ".join(f"{n}: {aim:g}" for n, aim in of["aims"].items()),
            ]
        )
    return markdown_table(headings, rows)


def agreement_table(found: dict[str, Any]) -> str:
    """Return how far weights from the cut are from those of plain Keras, beside what rounding alone does."""

    def cell(difference: dict[str, float]) -> str:
        return f"{difference['mean']:.1e}, {difference['largest']:.1e}"

    names = {name: of for name, of in found.items() if isinstance(of, dict)}
    rows = [
        (
            *(name, f"{of['change']['mean']:.1e}", cell(of["cut_against_plain"])),
            cell(of["plain_against_plain_rounded"]),
        )
        for name, of in names.items()
    ]
    headings = ("optimizer", "mean change by training", "cut against plain: mean, largest")
    return markdown_table((*headings, "plain, weights off by 1e-7, against plain: mean, largest"), rows)


def _total_s(whole: dict[str, float], n_epochs: int) -> float:
    return whole["warm_up_s"] + n_epochs * whole["epoch_s"]


def _range(ratios: list[float]) -> str:
    middle = f"{statistics.median(ratios):.1f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.1f} to {max(ratios):.1f})"


def main() -> None:
    """Run what is asked for and write the table."""
    parser = common.parser_for("finetune", __doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of class folders; without it: the table alone")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--agreement", type=Path, metavar="WEIGHTS", help="compare MobileNetV2 0.35 after training, time nothing"
    )
    parser.add_argument("--rounds", type=int, default=2)
    args = common.read_arguments(parser)
    found: Record = read_json(args.json) if args.json.exists() else {}
    if args.data is not None and not args.tables_only:
        images = load_images(args.data)
        args.agreement = args.agreement and args.agreement.resolve()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            extract_rows(images, PixelEncoder(), Path("split.h5"))
            with open_cache(Path("split.h5")) as cache:
                split = make_split(cache.table)
            if args.agreement:
                write_json(args.json.with_name("finetune_agreement.json"), agreement(args.agreement, images, split))
                return
            for case in CASES:
                if args.only.lower() in case.name.lower():
                    found[case.name] = measure(case, images, split, args.rounds, found.get(case.name))
                    write_json(args.json, found)
    agreed = args.json.with_name("finetune_agreement.json")
    text = to_markdown(found) + (f"\n\n{agreement_table(read_json(agreed))}" if agreed.exists() else "")
    common.publish(args, text)


if __name__ == "__main__":
    main()
