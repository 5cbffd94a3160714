"""What an earlier version saved loads and says what it said: ``golden/workspace``, which ``golden/make.py`` made."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from tlfeat import workspace
from tlfeat.backbones.graph import Crossing, Cut
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.backbones.runtime import OpenVinoRuntime, is_converted
from tlfeat.cache.store import open_cache
from tlfeat.errors import ModelError
from tlfeat.evaluate.data import Data, open_data
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.epochs import State
from tlfeat.finetune.pixel_store import open_pixels_of
from tlfeat.finetune.recipes import choose_settings, find_recipe
from tlfeat.finetune.settings import TrainSettings
from tlfeat.finetune.sources import CutSource, some_images
from tlfeat.heads.fit import predict_probabilities
from tlfeat.heads.reject import UNLIKE, load_rejector
from tlfeat.heads.saved import load_head
from tlfeat.models.fit_keras import fit_keras
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model
from tlfeat.records import Calibration, Leaks, Result
from tlfeat.report.embedding_map import make_map
from tlfeat.studies.compare import known_comparison
from tlfeat.studies.curve import learning_curve
from tlfeat.studies.sweep import plan_sweep
from tlfeat.studies.trials import _known_trial
from tlfeat.workspace import read_json

GOLDEN = Path(__file__).parent / "golden"
MODELS = GOLDEN / "workspace" / "cache" / "models"
#: One reason to refuse was said in other words then.
TODAY = (GOLDEN / "expected.json").read_text(encoding="utf-8").replace("unlike the pictures it learned from", UNLIKE)
FACTS: dict[str, Any] = json.loads(TODAY)
MADE_BY = "0.1.0"


def arrays_of(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


EXPECTED = arrays_of(GOLDEN / "expected.npz")

HEADS = sorted(path.parent for pattern in ("head.skops", "head.joblib") for path in MODELS.glob(f"*/*/{pattern}"))
ON_ROWS = [folder for folder in HEADS if folder.parent.name != "photos-tiny"]
NETWORKS = sorted(path.parent for path in MODELS.glob("*/*/model.keras"))
FINISHED = [folder for folder in NETWORKS if f"{folder.name}/probabilities" in EXPECTED]
ALL = sorted({*HEADS, *NETWORKS})

#: Seed and share for testing of each cache.
SPLITS = {
    "two": (3, 0.3),
    "several": (1, 0.2),
    "lonely-two": (0, 0.2),
    "lonely-several": (4, 0.2),
    "photos-tiny": (2, 0.2),
}


def named(folder: Path) -> str:
    """`two-logreg-rows-skops`: without the digits of its identity."""
    what = next(path.suffix[1:] for name in ("head.*", "model.keras") for path in folder.glob(name))
    return f"{folder.parent.name}-{folder.name.rpartition('-')[0]}-{what}"


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder that an earlier version worked in, as the working folder."""
    to = tmp_path / "workspace"
    shutil.copytree(GOLDEN / "workspace", to)
    monkeypatch.chdir(to)
    monkeypatch.setattr(workspace, "NETWORKS_DIR", workspace.CACHE_DIR / "networks")
    return to


def opened(stem: str) -> Any:
    seed, test_fraction = SPLITS[stem]
    return open_data(workspace.CACHE_DIR / f"{stem}.h5", seed=seed, test_fraction=test_fraction)


def refuse(*_: object, **__: object) -> Any:
    raise AssertionError("something was computed again that had been saved")


def holds(found: Any, stored: Any) -> bool:
    """Whether everything in a stored document is in another one, which may hold more names."""
    if isinstance(stored, dict):
        return isinstance(found, dict) and all(k in found and holds(found[k], v) for k, v in stored.items())
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(holds, found, stored))
    return bool(found == stored)


# --- heads -------------------------------------------------------------------------------------------------


def test_every_kind_of_head_is_there() -> None:
    kinds = {(folder.parent.name, named(folder).removeprefix(f"{folder.parent.name}-")) for folder in ON_ROWS}
    assert len(kinds) == 6 * 2 * 4
    assert {(folder / "reject.npz").exists() for folder in ON_ROWS} == {True, False}


@pytest.mark.parametrize("folder", ON_ROWS, ids=named)
def test_a_head_says_what_it_said(folder: Path) -> None:
    fact = FACTS[folder.name]
    rows = EXPECTED[f"{folder.parent.name}/rows"][:, fact["columns"]]
    head = load_head(folder, is_trusted=True)
    probabilities, expected = predict_probabilities(head, rows), EXPECTED[f"{folder.name}/probabilities"]
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3)  # next to 0 too, where a head is very sure
    assert head.predict(rows).tolist() == fact["labels"]


@pytest.mark.parametrize("folder", [folder for folder in ON_ROWS if "refused" in FACTS[folder.name]], ids=named)
def test_a_head_refuses_what_it_refused(folder: Path) -> None:
    rows = EXPECTED[f"{folder.parent.name}/rows"][:, FACTS[folder.name]["columns"]]
    probabilities = EXPECTED[f"{folder.name}/probabilities"]
    refused = FACTS[folder.name]["refused"]
    assert "" in refused
    assert any(refused)
    assert load_rejector(folder).reasons(rows, probabilities, coverage=FACTS["coverage"]) == refused


def test_a_joblib_head_of_an_earlier_version_still_wants_trust() -> None:
    folder = next(folder for folder in ON_ROWS if (folder / "head.joblib").exists())
    with pytest.raises(ModelError, match="add --trust"):
        load_head(folder)


ARRAYS = GOLDEN / "heads_of_arrays"


@pytest.mark.parametrize("folder", sorted(ARRAYS.glob("*-*")), ids=lambda folder: folder.name)
def test_a_head_of_arrays_says_what_it_said(folder: Path) -> None:
    """Heads of 0.2 before they became pipelines of scikit-learn; made by its `fit_head` on rows drawn with seed 11."""
    expected = arrays_of(ARRAYS / "expected.npz")
    rows = expected[f"rows {folder.name.split('-')[-2]}"]
    head = load_head(folder, is_trusted=True)
    found = predict_probabilities(head, rows)
    np.testing.assert_allclose(found, expected[f"{folder.name} probabilities"], rtol=0, atol=1e-6)
    assert head.predict(rows).tolist() == found.argmax(axis=1).tolist()


def test_a_head_of_another_search_is_not_taken_for_one_of_today_and_stays(saved: Path) -> None:
    folders = workspace.CACHE_DIR / "models" / "several"
    before = sorted(folders.iterdir())
    with opened("several") as data:
        outcome = fit_sklearn(data, "ridge", layer="b", effort="thorough")
    assert not outcome.is_reused
    assert sorted(folders.iterdir()) == sorted([*before, folders / Path(outcome.result.model).name])


@pytest.mark.parametrize("folder", ALL, ids=named)
def test_a_result_keeps_everything_that_was_stored(folder: Path) -> None:
    stored = read_json(folder / "result.json")
    result = Result.from_dict(stored)
    assert holds(result.to_dict(), stored)
    assert isinstance(result.score.calibration, Calibration)
    assert isinstance(result.leaks, Leaks)


def test_results_tell_layers_leaks_groups_and_recipes() -> None:
    stems = {named(folder): Result.from_dict(read_json(folder / "result.json")) for folder in ALL}
    several = stems["several-svm-a+b-skops"]
    assert (several.layer, several.classes) == ("a+b", ["cat", "dog", "emu", "fox"])
    assert several.notes[0].startswith("4 groups both in the given test set and in training")
    leaked = stems["photos-tiny-logreg-pool+stem_relu-max-skops"].leaks
    assert leaked is not None
    assert [(image["test"], image["learned"]) for image in leaked.images] == [("test/cat/3.png", "train/cat/1.png")]
    recipe = stems["photos-tiny-inception-last15-as-written-keras"]
    assert (recipe.fingerprint["preprocess"], recipe.settings["loss"]) == ("0-1", "categorical_crossentropy")
    assert len(recipe.history["val_loss"]) == 2


def test_a_comparison_lines_up_what_was_fitted_before(saved: Path) -> None:
    with opened("photos-tiny") as data:
        found = known_comparison(data)
    assert {Path(line.result.model).name for line in found.lines} == {
        folder.name for folder in ALL if folder.parent.name == "photos-tiny"
    }


def test_trials_of_a_curve_are_read_and_not_taken_for_those_of_another_search(saved: Path) -> None:
    files = sorted((workspace.CACHE_DIR / "curves").rglob("*.json"))
    trials = [trial for trial in map(_known_trial, files) if trial is not None]
    assert len(trials) == len(files) > 5
    assert {len(trial.right) for trial in trials} == {len(trials[0].right)}
    with opened("several") as data:
        curve = learning_curve(data, layer="b", heads=("ridge",), has_pixels=False, counts=[2, 0], n_draws=2)
    assert curve.n_reused == 0
    assert set(files) < set((workspace.CACHE_DIR / "curves").rglob("*.json"))


def test_cut_points_are_not_looked_for_again(saved: Path) -> None:
    (file,) = workspace.NETWORKS_DIR.glob("*-cuts.json")
    stored = read_json(file)
    stored[1]["compute_share"] = 0.123
    file.write_text(json.dumps(stored))
    cuts = plan_sweep(cache=workspace.CACHE_DIR / "photos-tiny.h5").cuts
    assert list(cuts) == FACTS["cuts"]
    assert [cut.layer for cut in cuts.values()] == [cut["layer"] for cut in stored]
    assert [cut.compute_share for cut in cuts.values()][1] == 0.123
    assert [list(cut.output_shape) for cut in cuts.values()] == [cut["output_shape"] for cut in stored]


@pytest.mark.whole
def test_a_map_that_was_kept_is_not_laid_out_again(saved: Path, tmp_path: Path) -> None:
    (kept,) = (workspace.CACHE_DIR / "maps").iterdir()
    with opened("photos-tiny") as data:

        def laid_out() -> Any:
            return make_map(data.cache, data.split, "pool", ("pca",), seed=3, kept=tmp_path / "maps")

        laid_out()
        (file,) = (tmp_path / "maps").iterdir()  # another version of scikit-learn, another name
        stored = arrays_of(kept)
        np.savez(kept, pca=stored["pca"] * 3, explained=stored["explained"] / 2)
        shutil.copy(kept, file)
        found = laid_out()
    assert found.points["pca"].tolist() == (stored["pca"] * 3).tolist()
    assert found.explained == tuple((stored["explained"] / 2).tolist())


# --- pictures: heads behind their encoder, pipelines ---------------------------------------------------------


def photos(role: str) -> list[Path]:
    return sorted(Path("photos", role).rglob("[0-9].png"))


def test_a_head_on_pixels_predicts_what_it_predicted(saved: Path) -> None:
    (folder,) = (workspace.CACHE_DIR / "models" / "photos-tiny").glob("pixels+*")
    found = list(Model(folder, coverage=FACTS["coverage"]).predict(photos("test")))
    for prediction, (label, probability, refused) in zip(found, FACTS[folder.name], strict=True):
        assert (prediction.label, prediction.refused) == (label, refused)
        assert prediction.probability == pytest.approx(probability, abs=1e-6)


@pytest.mark.keras
def test_a_head_on_layers_of_a_network_predicts_what_it_predicted(saved: Path) -> None:
    (folder,) = (workspace.CACHE_DIR / "models" / "photos-tiny").glob("logreg-*")
    found = list(Model(folder, coverage=FACTS["coverage"]).predict(photos("test")))
    for prediction, (label, probability, refused) in zip(found, FACTS[folder.name], strict=True):
        assert (prediction.label, prediction.refused) == (label, refused)
        assert prediction.probability == pytest.approx(probability, abs=1e-4)  # of another runtime's rows


@pytest.mark.parametrize("name", ["pixels", "cached"])
def test_a_pickled_pipeline_predicts_what_it_predicted(name: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KerasEncoder, "encode", refuse)  # its rows are in the cache
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to unpickle")  # another version of scikit-learn
        pipeline = pickle.loads(Path(f"pipeline-{name}.pkl").read_bytes())
    found = pipeline.predict_proba([str(file) for file in photos("test")])
    np.testing.assert_allclose(found, EXPECTED[f"pipeline-{name}/probabilities"], rtol=0, atol=1e-6)


# --- caches ------------------------------------------------------------------------------------------------


def test_a_cache_of_several_layers_float16_compressed_reads_as_it_was_written(saved: Path) -> None:
    rows, fact = EXPECTED["rich/rows"], FACTS["rich"]
    with h5py.File("cache/rich.h5") as file:
        assert file["layers/deep/rows"].dtype == np.float16
        assert file["layers/deep/rows"].compression == "gzip"
    with open_cache(Path("cache/rich.h5")) as cache:
        assert cache.layers == {"deep": (7, 5), "shallow:max": (7, 2)}
        assert cache.fingerprint == {"backbone": "test", "dtype": "float16"}
        keys = fact["keys"][::-1]
        assert cache.read("deep", keys).tolist() == rows[::-1].astype(np.float16).astype(np.float32).tolist()
        assert cache.read("shallow:max", keys[:2])[1, 1] == np.float16(rows[5, 1] * 2)
        table = cache.table
        assert table.images.labels == ["cat", "cat", "cat", "dog", "dog", "dog", "Ziege ä", "dog"]
        assert table.images.splits[2:6] == ["test", "train", "val", "test"]
        assert table.images.groups == ["one", "one", "two", "", "", "three", "", ""]
        assert (table.status[7], table.errors[7], table.sizes[3]) == ("failed", "it ends too early", 103)
        assert cache.verify() == []


@pytest.mark.parametrize("is_writable", [False, True], ids=["reading", "writing"])
def test_the_journal_of_a_writer_that_was_killed_is_applied(is_writable: bool, saved: Path) -> None:
    path, keys = Path("cache/journalled.h5"), FACTS["journalled"]["keys"]
    with open_cache(path, writable=is_writable) as cache:
        assert cache.layers == {"a": (6, 3)}
        assert cache.read("a", keys).tolist() == EXPECTED["journalled/rows"].tolist()
    assert path.with_name("journalled.h5.journal").exists() != is_writable


def test_the_cache_of_pictures_reads_as_it_was_written(saved: Path) -> None:
    with opened("photos-tiny") as data:
        assert data.split.paths == FACTS["photos"]["paths"]
        assert (data.split.roles.count("train"), data.split.roles.count("val")) == (12, 6)
        for layer in ("pool", "stem_relu:max"):
            assert data.cache.read(layer, FACTS["photos"]["keys"]).tolist() == EXPECTED[f"photos/{layer}"].tolist()
        assert [failure["path"] for failure in data.cache.describe()["failures"]] == ["test/dog/damaged.png"]
        assert data.cache.verify() == []


# --- what training keeps -----------------------------------------------------------------------------------

FROZEN = TrainSettings("frozen", dense=(6,), dropout=0.1, epochs=3, learning_rate=0.02, batch_size=5, seed=5)
STOPPED = TrainSettings("frozen", dense=(3,), epochs=6, patience=6, batch_size=5, seed=8)
TRAINED: dict[str, Callable[[], TrainSettings]] = {
    "frozen": lambda: FROZEN,
    "finetuned": lambda: TrainSettings(
        "finetuned",
        unfreeze_last=4,
        dense=(4,),
        epochs=2,
        augment=Augmentation(flip="horizontal", rotation=0.1),
        views=1,
        cut="float16",
        batch_size=5,
        seed=6,
    ),
    "scratch": lambda: TrainSettings("scratch", dense=(), epochs=2, optimizer="sgd", batch_size=5, seed=7),
    "recipe": lambda: choose_settings(
        find_recipe("inception-last15"), is_as_written=True, unfreeze_last=4, dense="4", epochs=2, batch_size=5
    ),
}


@pytest.mark.parametrize("mode", TRAINED)
def test_a_network_that_is_there_is_not_trained_again(mode: str, saved: Path) -> None:
    with opened("photos-tiny") as data:
        outcome = fit_keras(data, TRAINED[mode]())
    assert outcome.is_reused
    assert Path(outcome.result.model).name in {folder.name for folder in FINISHED}


def pictures(data: Data, *roles: str) -> list[int]:
    return [int(i) for i in data.split.where(*roles)]


def test_decoded_pictures_are_not_decoded_again(saved: Path) -> None:
    with opened("photos-tiny") as data:
        paths, at = data.split.paths, pictures(data, "train", "val")
        files = [Path("gone") / path for path in paths]
        with open_pixels_of(files, data.split.keys, (16, 16), "antialias") as store:
            pixels, is_there = store.read(np.array(at))
    assert len(at) == 18
    assert is_there.all()
    for i, found in zip(at, pixels, strict=True):
        assert found.tolist() == np.asarray(Image.open(Path("photos") / paths[i])).tolist()


def test_what_crosses_a_cut_is_not_computed_again(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KerasEncoder, "encode", refuse)
    cut = Cut((Crossing("middle_relu", (3, 3, 6)),), 0.9)
    with opened("photos-tiny") as data:
        images = some_images(data.cache.table.images, [data.split.paths[i] for i in pictures(data, "train", "val")])
        spec = BackboneSpec.from_dict(data.cache.source["encoder"])
        changed = Augmentation(flip="horizontal", rotation=0.1)
        source = CutSource(spec, images, "photos-tiny", "antialias", "float16", changed, 1, 6)
        at = np.array(pictures(data, "train", "val"))
        with source.open(cut, data.split.keys) as (rows, spent_s):
            assert rows.is_there(at).all()
            (plain,), (view,) = rows(at, None), rows(at, 0)
    assert spent_s > 0
    assert plain.shape == view.shape == (18, 3, 3, 6)
    assert not np.array_equal(plain, view)


def test_the_state_of_training_is_what_it_was(saved: Path) -> None:
    (file,) = (workspace.CACHE_DIR / "training").iterdir()
    state = State.load(file)
    stored = arrays_of(file)
    about = json.loads(str(stored["about"]))
    assert {name: getattr(state, name) for name in about} == about
    assert (state.n_epochs, state.ended) == (2, "interrupted")
    assert [a.shape for a in state.best[-2:]] == [(3, 2), (2,)]
    assert [a.tolist() for a in state.current] == [stored[f"current_{i}"].tolist() for i in range(len(state.current))]


def test_a_converted_network_gives_the_rows_that_it_gave(saved: Path) -> None:
    pixels = EXPECTED["photos/pixels"]
    at = [FACTS["photos"]["paths"].index(str(file.relative_to("photos"))) for file in photos("test")]
    expected = {layer: EXPECTED[f"photos/{layer}"][at] for layer in ("pool", "stem_relu:max")}
    found = []
    for file in sorted(workspace.NETWORKS_DIR.glob("*.xml")):
        assert is_converted(file)
        runtime = OpenVinoRuntime(file, list(expected), 1)
        if len(runtime._compiled.outputs) == 2:
            found.append(runtime(pixels))
    assert len(found) == 1
    for layer, rows in expected.items():
        np.testing.assert_allclose(found[0][layer], rows, rtol=0, atol=1e-4)


@pytest.mark.keras
@pytest.mark.parametrize("folder", FINISHED, ids=named)
def test_a_network_says_what_it_said(folder: Path, saved: Path) -> None:
    model = Model(workspace.CACHE_DIR / "models" / folder.parent.name / folder.name)
    assert model.classes == ["cat", "dog"]
    found = model.probabilities(EXPECTED["photos/pixels"])
    np.testing.assert_allclose(found, EXPECTED[f"{folder.name}/probabilities"], rtol=0, atol=1e-6)


@pytest.mark.keras
def test_training_that_was_stopped_goes_on_from_its_state(saved: Path) -> None:
    (file,) = (workspace.CACHE_DIR / "training").iterdir()
    before = json.loads(str(arrays_of(file)["about"]))["history"]
    with opened("photos-tiny") as data:
        result = fit_keras(data, STOPPED).result
    assert "training went on from epoch 2, where an earlier run was stopped" in result.notes
    assert len(result.history["loss"]) == 6
    assert result.history["val_loss"][:2] == before["val_loss"]
    assert not file.exists()
