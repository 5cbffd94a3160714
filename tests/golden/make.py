"""What was saved before the modules moved: this script made ``workspace/``, ``expected.npz`` and ``expected.json``.

It ran once, at commit 2503b30, on the code of that day: ``cd tests/golden && python make.py`` (two minutes). It says
how the files came about, and will not run on later code: do not repair it, and do not make the files again. What they
hold must go on loading (``tests/test_golden.py``). No test imports it.

All is small and made up. Everything was written from inside ``workspace/`` with relative paths, so that no file names a
folder of the machine; where tlfeat itself makes a path absolute, it is made relative again here.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tlfeat.augment import Augmentation
from tlfeat.backbone import KerasEncoder
from tlfeat.candidates import fit_keras, fit_pixel_baseline, fit_sklearn, open_data
from tlfeat.curve import learning_curve
from tlfeat.embedding_map import make_map
from tlfeat.encoder import PixelEncoder
from tlfeat.network import BackboneSpec, import_keras
from tlfeat.predict import Model
from tlfeat.recipes import TrainSettings, choose_settings, find_recipe
from tlfeat.reject import load_rejector
from tlfeat.sweep import plan_sweep

from tlfeat import journal, workspace
from tlfeat.cache import ImageTable, create_cache, open_cache
from tlfeat.errors import Interrupted
from tlfeat.extract import extract_rows
from tlfeat.heads import HEADS, load_head, predict_probabilities
from tlfeat.images import ImageSet, content_key, load_images
from tlfeat.transformer import ImageEmbedder

HERE = Path(__file__).resolve().parent
COVERAGE = 0.7  # not the default
ARRAYS: dict[str, Any] = {}
FACTS: dict[str, Any] = {}


# --- heads on rows of a few columns ------------------------------------------------------------------------


def write_rows(stem: str, classes: dict[str, int], widths: dict[str, int], *, groups: bool, given: bool) -> None:
    """A cache of made-up rows; `classes` to the number of training images (and half as many, but 2, for testing)."""
    rng = np.random.default_rng(len(stem))
    width = sum(widths.values())
    labels, splits = [], []
    for name, n in classes.items():
        n_test = max(2, n // 2)
        labels += [name] * (n + n_test)
        splits += ["train"] * n + ["test"] * n_test
    n = len(labels)
    centres = {name: rng.normal(0, 0.9, width) for name in classes}
    rows = np.array([centres[label] + rng.normal(0, 1, width) for label in labels]).astype(np.float32)
    rows *= np.linspace(0.5, 4, width, dtype=np.float32)
    keys = [content_key(row.tobytes()) for row in rows]
    images = ImageSet(
        Path("rows"),
        Path("rows/table.csv"),
        [f"{label}/{i}.png" for i, label in enumerate(labels)],
        labels,
        splits if given else [""] * n,
        [f"scene {i // 2}" for i in range(n)] if groups else [""] * n,
    )
    path = workspace.CACHE_DIR / f"{stem}.h5"
    source = {"root": "rows", "source": "rows/table.csv", "encoder": {"backbone": "imported"}}
    with create_cache(path, {"backbone": "made up", "weights": "imported", "dtype": "float32"}, source) as cache:
        ends = np.cumsum(list(widths.values())).tolist()
        of_layer = {name: rows[:, end - w : end] for (name, w), end in zip(widths.items(), ends, strict=True)}
        cache.append(of_layer, keys)
        cache.write_table(ImageTable(images, keys, ["ok"] * n, [""] * n, [0] * n, [0] * n))
    strange = rng.normal(0, 9, (3, width))
    new = np.array([centre + rng.normal(0, 1, width) for centre in centres.values() for _ in range(2)])
    ARRAYS[f"{stem}/rows"] = np.concatenate([new, strange]).astype(np.float32) * np.linspace(
        0.5, 4, width, dtype=np.float32
    )


def fit_heads(stem: str, layers: list[str], *, seed: int, test_fraction: float) -> None:
    with open_data(workspace.CACHE_DIR / f"{stem}.h5", seed=seed, test_fraction=test_fraction) as data:
        for head in HEADS:
            for file_format in ("skops", "joblib"):
                outcome = fit_sklearn(
                    data, head.name, layer=layers, is_searched=head.name != "lda", file_format=file_format
                )
                folder = Path(outcome.result.model)
                pipeline = load_head(folder, is_trusted=True)
                taken = outcome.result.layer.split("+")
                names = list(data.cache.layers)
                ends = np.cumsum([data.cache.layers[name][1] for name in names]).tolist()
                columns = [
                    column
                    for name, end in zip(names, ends, strict=True)
                    if name in taken
                    for column in range(end - data.cache.layers[name][1], end)
                ]
                rows = ARRAYS[f"{stem}/rows"][:, columns]
                found = predict_probabilities(pipeline, rows)
                ARRAYS[f"{folder.name}/probabilities"] = found
                fact: dict[str, Any] = {"columns": columns, "labels": [int(i) for i in pipeline.predict(rows)]}
                if (folder / "reject.npz").exists():
                    fact["refused"] = load_rejector(folder).reasons(rows, found, coverage=COVERAGE)
                FACTS[folder.name] = fact


# --- pictures, a network of a few layers -------------------------------------------------------------------


def write_photos() -> None:
    """16x16, as large as the network takes them, so that no resizing is in what is expected."""
    n = 0
    for role, count in (("train", 6), ("val", 3), ("test", 4)):
        for c, name in enumerate(("cat", "dog")):
            folder = Path("photos") / role / name
            folder.mkdir(parents=True)
            for i in range(count):
                n += 1
                small = np.random.default_rng(n).integers(0, 256, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)
                tint = Image.new("RGB", image.size, (255, 0, 0) if c else (0, 0, 255))
                Image.blend(image, tint, 0.15).save(folder / f"{i}.png")
    with Image.open("photos/train/cat/1.png") as image:  # a leak: the same picture, other bytes
        image.save("photos/test/cat/3.png", compress_level=0)
    Path("photos/test/dog/damaged.png").write_bytes(b"not a picture")


def write_network() -> None:
    keras = import_keras()
    keras.utils.set_random_seed(11)
    layers = keras.layers
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.ReLU(name="stem_relu")(layers.Conv2D(5, 3, strides=2, name="stem")(pixels))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, strides=2, name="middle")(x))
    x = layers.ReLU(name="relu")(layers.Conv2D(7, 1, name="last")(layers.ReLU(name="middle_relu")(x)))
    keras.Model(pixels, layers.GlobalAveragePooling2D(name="pool")(x)).save("tiny.keras")


def relative_spec(spec: BackboneSpec) -> dict[str, Any]:
    return asdict(spec)


def interrupt_after(n_epochs: int) -> Any:
    def on_progress(what: str, done: int, total: int) -> None:
        if what.startswith("training") and total and done > n_epochs * total / 6:
            raise KeyboardInterrupt

    return on_progress


def train_networks(path: Path) -> None:
    settings = [
        TrainSettings("frozen", dense=(6,), dropout=0.1, epochs=3, learning_rate=0.02, batch_size=5, seed=5),
        TrainSettings(
            "finetuned", unfreeze_last=4, dense=(4,), epochs=2, augment=Augmentation(flip="horizontal", rotation=0.1),
            views=1, cut="float16", batch_size=5, seed=6,
        ),
        TrainSettings("scratch", dense=(), epochs=2, optimizer="sgd", batch_size=5, seed=7),
        choose_settings(
            find_recipe("inception-last15"), is_as_written=True, unfreeze_last=4, dense="4", epochs=2, batch_size=5
        ),
    ]  # fmt: skip
    with open_data(path, seed=2) as data:
        pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(Path("photos/test").rglob("[0-3].png"))])
        ARRAYS["photos/pixels"] = pixels
        for each in settings:
            folder = Path(fit_keras(data, each).result.model)
            ARRAYS[f"{folder.name}/probabilities"] = Model(folder).probabilities(pixels)
        stopped = TrainSettings("frozen", dense=(3,), epochs=6, patience=6, batch_size=5, seed=8)
        with suppress(Interrupted):
            fit_keras(data, stopped, on_progress=interrupt_after(2))


# --- the rest ----------------------------------------------------------------------------------------------


def write_rich_cache(path: Path) -> None:
    rows = np.random.default_rng(4).normal(0, 3, (7, 5)).astype(np.float32)
    keys = [content_key(row.tobytes()) for row in rows]
    images = ImageSet(
        Path("photos"),
        Path("photos/table.csv"),
        [f"{i}.png" for i in range(8)],
        ["cat", "cat", "cat", "dog", "dog", "dog", "Ziege ä", "dog"],
        ["train", "train", "test", "train", "val", "test", "train", "train"],
        ["one", "one", "two", "", "", "three", "", ""],
    )
    with create_cache(path, {"backbone": "test", "dtype": "float16"}, {"root": "photos"}, is_compressed=True) as cache:
        cache.append({"deep": rows, "shallow:max": rows[:, :2] * 2}, keys)
        cache.write_table(
            ImageTable(
                images,
                [*keys, ""],
                ["ok"] * 7 + ["failed"],
                [""] * 7 + ["it ends too early"],
                list(range(100, 108)),
                list(range(200, 208)),
            )
        )
        status = cache.table.status
    ARRAYS["rich/rows"] = rows
    FACTS["rich"] = {"keys": keys, "status": list(status)}


def write_journalled(path: Path) -> None:
    """A writer that was killed between journal and file: the rows of its last commit are in the journal alone."""
    rows = np.random.default_rng(5).normal(0, 3, (6, 3)).astype(np.float32)
    keys = [content_key(row.tobytes()) for row in rows]
    live = path.with_name("live.h5")
    with create_cache(live, {"backbone": "test", "dtype": "float32"}, {}) as cache:
        cache.append({"a": rows[:2]}, keys[:2])
    apply = journal.JournalledFile._apply

    def copy_first(self: journal.JournalledFile) -> None:
        if not path.exists():
            shutil.copy(live, path)
            shutil.copy(journal.journal_of(live), journal.journal_of(path))
        apply(self)

    with open_cache(live, writable=True) as cache:
        journal.JournalledFile._apply = copy_first
        cache.append({"a": rows[2:]}, keys[2:])
        cache.commit()
        journal.JournalledFile._apply = apply
    live.unlink()
    ARRAYS["journalled/rows"] = rows
    FACTS["journalled"] = {"keys": keys}


def write_pipelines() -> None:
    files = sorted(str(path) for path in Path("photos/train").rglob("*.png"))
    labels = [path.split("/")[2] for path in files]
    embedders = {
        "pixels": ImageEmbedder("pixels"),
        "cached": ImageEmbedder("tiny.keras", "pool", preprocess="tf", cache="cache/photos-tiny.h5", batch_size=3),
    }
    for name, embedder in embedders.items():
        pipeline = make_pipeline(embedder, LogisticRegression(C=2.0)).fit(files, labels)
        Path(f"pipeline-{name}.pkl").write_bytes(pickle.dumps(pipeline))
        asked = sorted(str(path) for path in Path("photos/test").rglob("[0-3].png"))
        ARRAYS[f"pipeline-{name}/probabilities"] = pipeline.predict_proba(asked)


def write_pictures_caches(path: Path) -> None:
    found = load_images(Path("photos"))
    images = replace(found, root=Path("photos"), source=Path("photos"))
    spec = BackboneSpec("tiny.keras", preprocess="tf")
    encoder = KerasEncoder(spec, ["pool", "stem_relu:max"])
    extract_rows(images, encoder, path, origin={"encoder": spec.to_dict(), "class_map": []})
    FACTS["cuts"] = list(plan_sweep(cache=path).cuts)
    with open_data(path, seed=2) as data:
        outcome = fit_sklearn(data, "logreg", layer=["pool", "stem_relu:max"])
        network_rows = {layer: data.cache.read(layer, data.split.keys) for layer in data.cache.layers}
        FACTS["photos"] = {"paths": data.split.paths, "keys": data.split.keys}
        ARRAYS.update({f"photos/{layer}": rows for layer, rows in network_rows.items()})
        small, origin = workspace.baseline_cache_path(path), {"encoder": {"backbone": "pixels"}}
        extract_rows(images, PixelEncoder(), small, is_compressed=True, origin=origin)
        baseline = fit_pixel_baseline(data, head="linear-svm")
        asked = sorted(Path("photos/test").rglob("[0-3].png"))
        for fitted in (outcome.result, baseline.result):
            model = Model(Path(fitted.model), coverage=COVERAGE)
            FACTS[Path(fitted.model).name] = [[p.label, p.probability, p.refused] for p in model.predict(asked)]
        make_map(data.cache, data.split, "pool", ("pca",), seed=3, kept=Path("cache/maps"))


def make_relative() -> None:
    for path in Path("cache/models").rglob("model.json"):
        about = json.loads(path.read_text(encoding="utf-8"))
        about["cache"] = str(Path(about["cache"]).relative_to(Path.cwd()))
        path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    shutil.rmtree(HERE / "workspace", ignore_errors=True)
    (HERE / "workspace").mkdir()
    os.chdir(HERE / "workspace")
    BackboneSpec.to_dict = relative_spec
    write_rows("two", {"cat": 9, "dog": 9}, {"rows": 8}, groups=True, given=False)
    write_rows("several", {"cat": 12, "dog": 7, "emu": 5, "fox": 6}, {"a": 4, "b": 5}, groups=True, given=True)
    write_rows("lonely-two", {"cat": 7, "dog": 1}, {"rows": 3}, groups=False, given=True)
    write_rows("lonely-several", {"cat": 6, "dog": 5, "emu": 1}, {"rows": 4}, groups=False, given=True)
    fit_heads("two", ["rows"], seed=3, test_fraction=0.3)
    fit_heads("several", ["a", "b"], seed=1, test_fraction=0.2)
    fit_heads("lonely-two", ["rows"], seed=0, test_fraction=0.2)
    fit_heads("lonely-several", ["rows"], seed=4, test_fraction=0.2)
    with open_data(Path("cache/several.h5"), seed=1) as data:
        curve = learning_curve(data, layer="b", heads=("ridge", "knn"), has_pixels=False, counts=[2, 0], n_draws=2)
        FACTS["curve"] = {name: [place.accuracies for place in line] for name, line in curve.lines.items()}
    write_photos()
    write_network()
    photos = Path("cache/photos-tiny.h5")
    write_pictures_caches(photos)
    train_networks(photos)
    write_pipelines()
    write_rich_cache(Path("cache/rich.h5"))
    write_journalled(Path("cache/journalled.h5"))
    make_relative()
    FACTS["coverage"] = COVERAGE
    np.savez_compressed(HERE / "expected.npz", **ARRAYS)
    (HERE / "expected.json").write_text(json.dumps(FACTS, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
