"""A saved model as one file: the same labels and probabilities in each runtime, without tlfeat."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from conftest import ALL_RESIZES, SHARED, MakePhotos, needs_shared, picture
from tlfeat.backbones.frameworks import import_keras
from tlfeat.cli.app import app
from tlfeat.errors import ModelError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.settings import TrainSettings
from tlfeat.heads.discriminant import Discriminant
from tlfeat.heads.family import ROW_CHOICES, Family, Problem, Setting, Values
from tlfeat.heads.kernel import Kernel
from tlfeat.heads.linear import Penalised
from tlfeat.heads.neighbours import Neighbours
from tlfeat.heads.pipelines import calibrated, classifier_of
from tlfeat.heads.saved import load_head
from tlfeat.images.decode import decode_batches, decode_file
from tlfeat.images.resizing import CROPPED
from tlfeat.models import export, formats, head_layers
from tlfeat.models.export import TOLERANCE, as_network, export_model
from tlfeat.models.fit_keras import fit_keras
from tlfeat.models.fit_sklearn import fit_pixel_baseline, fit_sklearn
from tlfeat.models.formats import FORMATS, Run, find_format
from tlfeat.models.model_card import Check, DataSet, Exported, model_card, read_data_set
from tlfeat.models.predict import Model
from tlfeat.records import Result
from tlfeat.types import Rows
from tlfeat.workspace import read_json, write_json

pytestmark = pytest.mark.keras

NAMES = [entry.name for entry in FORMATS]
HEADS = ("logreg", "linear-svm", "ridge", "lda", "svm", "knn")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Folders of saved models of the built-in example, by name; small enough to be made in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        cache = plan_extraction(layers=["avg_pool", "block2_conv:gem"]).run().cache
        with open_data(cache, seed=0) as data:
            # one is searched, which gives it rows of another mapping; the layers of all are the same
            found = {name: fit_sklearn(data, name, layer="avg_pool", is_searched=name == "ridge") for name in HEADS}
            found["two layers"] = fit_sklearn(data, "ridge", layer=["avg_pool", "block2_conv:gem"], is_searched=False)
            found["pixels"] = fit_pixel_baseline(data)
            found["keras-frozen"] = fit_keras(data, TrainSettings(dense=(8,), epochs=3))
        yield {name: Path(outcome.result.model).resolve() for name, outcome in found.items()}


def files_to_test(folder: Path, n: int = 24) -> list[Path]:
    """Test images of a model, of every class, and not only those that `_check` of the export itself looks at."""
    result = Result.from_dict(read_json(folder / "result.json"))
    data = read_data_set(folder, result)
    assert isinstance(data.home, Path)
    return [data.home / path for path in result.test_paths[:: -(len(result.test_paths) // n)][:n]]


@functools.cache
def answers_of(folder: Path) -> tuple[Model, list[Path], list[str], np.ndarray[Any, Any]]:
    """A model, its files to test and what it answers; once for all formats."""
    model, files = Model(folder), files_to_test(folder)
    return model, files, *answers(model, files)


def answers(model: Model, files: list[Path]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """What `predict` says of files: labels, and probabilities in the order of the classes."""
    found = list(model.predict(files, n_top=len(model.classes)))
    table = np.array([[dict(p.top)[name] for name in model.classes] for p in found])
    return [p.label for p in found], table


def run_on(run: Run, model: Model, files: list[Path]) -> tuple[list[str], np.ndarray[Any, Any]]:
    batches = [run(p) for p in decode_batches(files, model.encoder.input_size, 32, model.encoder.resize)]
    return [label for labels, _ in batches for label in labels], np.concatenate([p for _, p in batches])


#: Each kind of head and each format; the linear heads are all one layer.
SAMPLE = [
    ("logreg", "keras"),
    ("svm", "onnx"),
    ("knn", "tflite"),
    ("keras-frozen", "openvino"),
    ("ridge", "openvino"),
    ("two layers", "onnx"),
    ("pixels", "tflite"),
]

PAIRS = [*itertools.product(("logreg", "svm", "knn", "keras-frozen"), NAMES), ("linear-svm", "keras"), ("lda", "onnx")]


@pytest.fixture(scope="module")
def exported(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Exported]:
    """A function that exports a model to a format, once for all tests."""

    @functools.cache
    def export_once(name: str, to: str) -> Exported:
        return export_model(digits[name], to, output=tmp_path_factory.mktemp("out") / f"model{find_format(to).suffix}")

    return export_once


@pytest.mark.sample(*map("-".join, SAMPLE))
@pytest.mark.parametrize(("name", "to"), dict.fromkeys([*SAMPLE, *PAIRS]))
def test_every_model_gives_in_every_runtime_what_predict_gives(
    digits: dict[str, Path], exported: Callable[[str, str], Exported], name: str, to: str
) -> None:
    written = exported(name, to)
    model, files, labels, expected = answers_of(digits[name])
    assert len(set(labels)) > 2, "one answer to all would prove little"
    named, probabilities = run_on(find_format(to).load(written.file), model, files)
    assert named == labels
    np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE)
    assert written.check.largest_difference < TOLERANCE
    assert written.check.what == "16 test images"


WIDTH = 24


#: Each with settings under which no probability is 0 or 1.
FAMILIES: dict[str, tuple[Family, Values]] = {
    "logistic": (Penalised("logistic", "C", (0.1,)), {"C": 0.1}),
    "squared hinge": (Penalised("squared hinge", "C", (0.1,)), {"C": 0.1}),
    "discriminant": (Discriminant((0.5,)), {"shrinkage": 0.5}),
    "kernel": (Kernel((3.0,), (0.2,)), {"C": 3.0, "gamma": 0.2}),
    "neighbours": (Neighbours((9,)), {"n_neighbors": 9, "weights": "distance"}),
    "equal neighbours": (Neighbours((9,)), {"n_neighbors": 9, "weights": "uniform"}),
}


def head_of(kind: str, rows_choice: str, n_classes: int, *, is_signed: bool) -> Any:
    """A head that learned 80 rows of overlapping classes, at a temperature of 0.7."""
    rng = np.random.default_rng(n_classes)
    labels = np.arange(80) % n_classes
    rows = rng.normal(size=(80, WIDTH)) + rng.normal(0, 0.4, (n_classes, WIDTH))[labels]
    rows = (rows if is_signed else np.abs(rows)).astype(np.float32)
    problem = Problem(rows, labels, n_classes, np.full(80, -1), 0, is_signed=is_signed)
    family, values = FAMILIES[kind]
    fitted = family.fit(problem, Setting(rows_choice, (0, WIDTH), is_balanced=False, values=values))
    classifier = fitted.classifier if kind == "logistic" else calibrated(fitted.classifier, 0.7)
    return Pipeline([*fitted.steps, ("head", classifier)])


@pytest.fixture(scope="module")
def rows() -> Rows:
    rows = 2 * np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
    rows[7] = 0  # of no length
    return rows


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(
    ("kind", "rows_choice"),
    [*(("logistic", rows) for rows in ROW_CHOICES), *((kind, "root-l2") for kind in FAMILIES if kind != "logistic")],
)
def test_layers_compute_what_the_head_computes(kind: str, rows_choice: str, n_classes: int, rows: Rows) -> None:
    keras = import_keras()
    is_signed = n_classes == 4
    head = head_of(kind, rows_choice, n_classes, is_signed=is_signed)
    rows = rows if is_signed else np.abs(rows)
    inputs = keras.Input((WIDTH,))
    network = keras.Model(inputs, head_layers.add_head(head, inputs))
    expected = head.predict_proba(rows)
    assert expected.max(axis=1).std() > 0.005
    assert len(set(expected.argmax(axis=1))) == n_classes
    np.testing.assert_allclose(np.asarray(network(rows)), expected, atol=1e-5)


EARLIER = Path(__file__).parents[1] / "golden" / "heads_of_arrays"


@pytest.mark.parametrize("folder", sorted(EARLIER.glob("*-*")), ids=lambda folder: folder.name)
def test_layers_compute_what_a_head_of_an_earlier_version_computes(folder: Path) -> None:
    keras = import_keras()
    with np.load(EARLIER / "expected.npz") as stored:
        rows = stored[f"rows {folder.name.split('-')[-2]}"]
        expected = stored[f"{folder.name} probabilities"]
    inputs = keras.Input((rows.shape[1],))
    network = keras.Model(inputs, head_layers.add_head(load_head(folder, is_trusted=True), inputs))
    np.testing.assert_allclose(np.asarray(network(rows)), expected, atol=1e-5)


def test_a_linear_head_is_one_dense_layer(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    keras = import_keras()
    network = as_network(Model(digits["ridge"]))
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.name for layer in dense] == ["probabilities"]
    assert network.layers[-1] is dense[0]


@pytest.mark.sample("temperature", "order of the classes")
@pytest.mark.parametrize("part", ["temperature", "mapping", "preprocessing", "order of the classes"])
def test_a_file_that_answers_otherwise_is_refused(
    digits: dict[str, Path], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = digits["ridge" if part == "mapping" else "svm"]
    message = "differ from those of tlfeat predict"
    if part == "temperature":
        monkeypatch.setattr(head_layers, "classifier_of", lambda head: (classifier_of(head)[0], 1.0))
    elif part == "mapping":
        assert "unit" in Model(model).head.named_steps, "rows that the file must take so, too"
        monkeypatch.setattr(head_layers, "_over_length", lambda x: x)
    elif part == "preprocessing":
        monkeypatch.setattr("tlfeat.backbones.keras_encoder.preprocess", lambda x, mode: x / 255)
    else:

        def write_reversed(network: Any, to: formats.Format, labels: list[str], file: Path) -> Run:
            return formats.write(network, to, labels[::-1], file)

        monkeypatch.setattr(export, "write", write_reversed)
        message = "says '.' where tlfeat predict says '.'"
    with pytest.raises(ModelError, match=message):
        export_model(model, "openvino", output=tmp_path / "out" / "model.xml")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_gives_nan_is_refused() -> None:
    def run(pixels: object) -> tuple[list[str], Any]:
        return ["a", "b"], np.array([[0.75, 0.25], [0.25, np.nan]], np.float32)

    expected = np.array([[0.75, 0.25], [0.25, 0.75]])
    with pytest.raises(ModelError, match="differ from those of tlfeat predict by nan"):
        export.compare(run, np.zeros((2, 4, 4, 3), np.uint8), expected, ["a", "b"])


def example_of(card: Path) -> str:
    return card.read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.sample("svm-onnx", "knn-tflite", "ridge-openvino")
@pytest.mark.parametrize(
    ("name", "to"), [("logreg", "keras"), ("svm", "onnx"), ("knn", "tflite"), ("ridge", "openvino")]
)
def test_the_example_of_the_card_runs_without_tlfeat_and_says_what_predict_says(
    digits: dict[str, Path], exported: Callable[[str, str], Exported], name: str, to: str
) -> None:
    written = exported(name, to)
    folder = written.file.parent
    image = files_to_test(digits[name])[0]
    (folder / "new.jpg").write_bytes(image.read_bytes())
    script = example_of(folder / f"{written.file.name}.card.md")
    script += "import sys\nassert not [name for name in sys.modules if name.startswith('tlfeat')]\n"
    # isolated: neither the folder of the sources nor PYTHONPATH
    run = subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    label, probability = run.stdout.split()
    expected = next(iter(Model(digits[name]).predict([image])))
    assert label == expected.label
    assert float(probability) == pytest.approx(expected.probability, abs=TOLERANCE)


@pytest.mark.parametrize("resize", ALL_RESIZES)
@pytest.mark.parametrize(("width", "height"), [(301, 200), (40, 90)], ids=["smaller", "larger"])
def test_the_example_reads_pixels_as_tlfeat_does(
    digits: dict[str, Path], resize: str, width: int, height: int, tmp_path: Path
) -> None:
    size = (64, 96)
    card = model_card(
        Result.from_dict(read_json(digits["svm"] / "result.json")),
        DataSet("digits"),
        Exported(
            file=Path("m.onnx"),
            format="onnx",
            beside=[],
            runtime="onnxruntime",
            n_bytes=1,
            labels=list("56789"),
            input_size=size,
            resize=resize,
            check=Check("noise", 1, 0.0, TOLERANCE),
        ),
    )
    file = tmp_path / "photo.jpg"
    image = picture(3, (width, height))
    image.getexif()[274] = 6  # lies on its side
    image.save(file, exif=image.getexif())
    namespace: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("pixels = ")[0], namespace)
    decoded = decode_file(0, file, size, lambda key: False, resize).pixels
    assert decoded is not None
    np.testing.assert_allclose(namespace["read"](file), decoded, atol=1e-3 if resize == "dataset" else 0)
    assert ("Only the middle of a picture" in card) is (resize in CROPPED)


def test_labels_travel_in_the_file(make_photos: MakePhotos, small_network: Path, tmp_path: Path) -> None:
    """Spaces, quotes, bars, accents and a line break; each format gives them back, from where it has a place."""
    import onnx
    import openvino as ov

    names = ("a cat", "d|o'g\"<b>&", "éléphant", "two\nlines")
    lines = sorted(name.replace("\n", " ") for name in names)
    with open_data(
        plan_extraction(make_photos(8, names), backbone=str(small_network), preprocess="tf").run().cache, seed=0
    ) as data:
        folder = Path(fit_sklearn(data, "ridge", is_searched=False).result.model)
        files = [data.cache.table.images.file(i) for i in data.split.where("train")]
    model = Model(folder)
    expected = [label.replace("\n", " ") for label in answers(model, files)[0]]
    assert set(expected) == set(lines)
    for entry in FORMATS:
        exported = export_model(folder, entry.name, output=tmp_path / f"m{entry.suffix}")
        assert run_on(entry.load(exported.file), model, files)[0] == expected
        assert "&lt;b>" in (tmp_path / f"m{entry.suffix}.card.md").read_text()
    assert (tmp_path / "m.labels.txt").read_text().splitlines() == lines
    network = import_keras().saving.load_model(tmp_path / "m.keras", compile=False)
    assert network.get_layer("label").get_vocabulary() == lines
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(props["labels"]) == lines
    info = ov.Core().read_model(tmp_path / "m.xml").get_rt_info(["model_info", "labels"])
    assert info.astype(str).split() == [line.replace(" ", "_") for line in lines]
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == lines


def test_the_card_says_data_split_scores_and_limits(
    digits: dict[str, Path], exported: Callable[[str, str], Exported]
) -> None:
    written = exported("svm", "onnx")
    result = Result.from_dict(read_json(digits["svm"] / "result.json"))
    card = (written.file.parent / "model.onnx.card.md").read_text()
    low, high = result.score.ci95
    assert f"| accuracy | {100 * result.score.accuracy:.1f} % | {100 * low:.1f} to {100 * high:.1f} % |" in card
    assert f"Split {result.split.digest}: given, seed 0" in card
    assert "| 5 | 8 | 2 | 91 |" in card
    assert "Apache-2.0" in card
    assert 'it has no "unknown"' in card
    assert "on 16 test images with onnxruntime" in card
    assert str(Path.home()) not in card
    assert str(digits["svm"].parent) not in card
    assert {path.name for path in written.beside} == {"model.onnx.card.md", "model.labels.txt"}


@pytest.mark.parametrize(("backbone", "to", "is_said"), [("dinov2", "keras", True), ("dinov3_small", "onnx", False)])
def test_the_card_says_what_a_keras_file_with_layers_of_kerashub_needs(
    digits: dict[str, Path], backbone: str, to: str, is_said: bool
) -> None:
    result = Result.from_dict(read_json(digits["svm"] / "result.json"))
    exported = Exported(Path("m"), to, [], to, 1, list("56789"), (8, 8), "crop", Check("noise", 1, 0.0, TOLERANCE))
    card = model_card(replace(result, backbone=backbone), read_data_set(digits["svm"], result), exported)
    assert ("\nimport keras_hub" in card) is is_said


def test_without_the_images_noise_is_what_a_file_is_checked_on(digits: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    lonely = tmp_path / "lonely" / "model"
    shutil.copytree(digits["lda"], lonely)
    exported = export_model(lonely, "openvino", output=tmp_path / "m.xml")
    assert exported.check.what == "16 test images", "the model says which cache it was fitted on"
    about = read_json(lonely / "model.json")
    write_json(lonely / "model.json", {**about, "cache": str(tmp_path / "gone.h5")})
    (lonely / "LICENSE.md").write_text("the terms of the weights")
    exported = export_model(lonely, "openvino", output=tmp_path / "m.xml")
    assert exported.check.what == "16 pictures of noise (no test image was found)"
    card = (tmp_path / "m.xml.card.md").read_text()
    assert "lonely: 40 training images" in card
    assert "Its text: m.xml.LICENSE.md, beside this file" in card
    assert (tmp_path / "m.xml.LICENSE.md").read_text() == "the terms of the weights"
    assert tmp_path / "m.xml.LICENSE.md" in exported.beside


def test_the_command_says_what_it_wrote(digits: dict[str, Path]) -> None:
    run = CliRunner().invoke(app, ["export", str(digits["logreg"]), "--to", "openvino", "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    file = Path(said["file"])
    assert file.parent == Path("cache/exports")
    assert file.name.startswith("digits-digits_cnn-")
    assert sorted([said["file"], *said["beside"]]) == sorted(map(str, file.parent.iterdir()))
    assert said["n_bytes"] == sum(path.stat().st_size for path in (file, file.with_suffix(".bin")))
    assert said["labels"] == list("56789")
    run = CliRunner().invoke(app, ["export", str(digits["logreg"]), "--to", "openvino", "--quiet"])
    assert "same labels" in run.stdout
    assert len(list(file.parent.iterdir())) == 4, "the same files again, and nothing left over"


def test_bad_requests_are_one_clear_line(
    digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"No format 'onx' .* Did you mean 'onnx'"):
        export_model(digits["svm"], "onx")
    with pytest.raises(UsageError, match=r"ends in \.onnx, received --output model\.tflite"):
        export_model(digits["svm"], "onnx", output=Path("model.tflite"))
    with pytest.raises(UsageError, match="within the model"):
        export_model(digits["keras-frozen"], "keras", output=digits["keras-frozen"] / "model.keras")
    with pytest.raises(ModelError, match=r"There is no model in"):
        export_model(tmp_path, "keras")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else name)
    with pytest.raises(ModelError, match=r"--to onnx needs tf2onnx: pip install 'tlfeat\[export\]'"):
        export_model(digits["svm"], "onnx")


def test_heads_that_cannot_be_layers_say_what_can_be_done(
    digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"an older tlfeat fitted .* Fit it again"):
        head_layers.add_head(GaussianNB(), None)
    with pytest.raises(ModelError, match=r"A GaussianNB cannot be exported. tlfeat predict takes it"):
        head_layers.add_head(make_pipeline(StandardScaler(), GaussianNB()), None)
    monkeypatch.setattr(head_layers, "MAX_BYTES", 1000)
    for name in ("svm", "knn"):
        with pytest.raises(ModelError, match=r"more than one file can take .* Fit a linear head"):
            as_network(Model(digits[name]))


def test_a_network_that_a_format_cannot_take_is_one_line_and_no_file(
    digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(network: Any, labels: Any, file: Path) -> None:
        file.write_text("half")
        raise RuntimeError("No conversion rule for Foo\nat line 3")

    broken = [formats.Format("openvino", ".xml", "openvino", (), fails, formats.FORMATS[2].load)]
    monkeypatch.setattr(formats, "FORMATS", broken)
    with pytest.raises(
        ModelError, match=r"^openvino cannot take this network: No conversion rule for Foo\. Another of"
    ):
        export_model(digits["ridge"], "openvino", output=tmp_path / "out" / "m.xml")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("to", NAMES)
def test_a_network_with_swish_keeps_the_names_of_its_outputs(to: str, tmp_path: Path) -> None:
    """EfficientNet's: its own gradient once made the TFLite converter fall back to a file without names."""
    keras = import_keras()
    inputs = keras.Input((8, 8, 3), name="pixels")
    maps = keras.layers.Conv2D(4, 3, activation="silu")(inputs / 255.0)
    network = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(maps)))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(network(pixels))
    entry = find_format(to)
    run = formats.write(network, entry, ["a", "b", "c"], tmp_path / f"m{entry.suffix}")
    labels, probabilities = run(pixels)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert labels == ["abc"[i] for i in expected.argmax(axis=1)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logistic regression on 20 real photographs a class, MobileNetV2 0.35 with ImageNet weights; 24 to test."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(SHARED / "data" / "cats_dogs.tar") as archive:
        taken = []
        for part, n in (("train", 20), ("test", 12)):
            for name in ("cats", "dogs"):
                members = [m for m in archive.getmembers() if m.name.startswith(f"cats_dogs/{part}/{name}/")]
                taken += sorted((m for m in members if m.isfile()), key=lambda m: m.name)[:n]
        archive.extractall(folder, members=taken, filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        job = plan_extraction(
            folder / "cats_dogs",
            backbone="mobilenet_v2_0.35",
            weights=str(SHARED / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"),
        )
        with open_data(job.run().cache, seed=0) as data:
            assert data.split.info.n_test == 24
            return Path(fit_sklearn(data, "logreg", is_searched=False).result.model).resolve()


@needs_shared
@pytest.mark.soak
@pytest.mark.parametrize("to", NAMES)
def test_real_images_get_the_labels_and_probabilities_of_predict(real: Path, to: str, tmp_path: Path) -> None:
    exported = export_model(real, to, output=tmp_path / f"cats{find_format(to).suffix}")
    model, files, labels, expected = answers_of(real)
    named, probabilities = run_on(find_format(to).load(exported.file), model, files)
    assert len(files) == len(named) == 24
    assert set(labels) == {"cats", "dogs"}
    assert named == labels
    assert np.abs(probabilities - expected).max() < TOLERANCE
