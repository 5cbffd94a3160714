"""Training in Keras beside the heads: the same split, the same seed the same result, and a saved model predicts so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlfeat.candidates import fit_keras, fit_sklearn, open_data
from tlfeat.plan import plan_extraction
from tlfeat.predict import Model
from tlfeat.recipes import TrainSettings

pytestmark = pytest.mark.keras


def test_every_way_of_training_gives_a_result_on_the_split_of_the_heads() -> None:
    n_epochs = {"frozen": 12, "finetuned": 2, "scratch": 2}
    with open_data(plan_extraction().run().cache, seed=0) as data:
        head = fit_sklearn(data, "svm").result
        results = {
            mode: fit_keras(data, TrainSettings(mode, epochs=n, patience=12, unfreeze_last=4)).result
            for mode, n in n_epochs.items()
        }
        again = fit_keras(data, TrainSettings("frozen", epochs=12, patience=12))
    trainable = {mode: result.chosen["trainable_parameters"] for mode, result in results.items()}
    assert trainable["frozen"] < trainable["finetuned"] < trainable["scratch"]
    for mode, result in results.items():
        assert result.split == head.split
        assert result.test_keys == head.test_keys
        assert len(result.history["val_loss"]) == result.chosen["epochs_run"] == n_epochs[mode]
        assert len(result.history["epoch_s"]) == result.chosen["epochs_run"]
        assert len(result.predicted) == result.split.n_test
    assert results["frozen"].score.accuracy > 0.6, "a frozen pretrained backbone is far above 1 in 5"
    assert again.is_reused


def test_unfreezing_layers_without_weights_is_said(small_cache: Path, eagerly: None) -> None:
    with open_data(small_cache, seed=0) as data:
        nothing = fit_keras(data, TrainSettings("finetuned", epochs=1, unfreeze_last=3)).result
        something = fit_keras(data, TrainSettings("finetuned", epochs=1, unfreeze_last=4)).result
    assert any("no weights that train" in note for note in nothing.notes)
    assert not any("no weights that train" in note for note in something.notes)


def test_small_sets_train_for_enough_steps_and_large_ones_for_enough_epochs() -> None:
    assert TrainSettings().budget(n_train=42) == (250, 38)  # 2 steps an epoch
    assert TrainSettings().budget(n_train=850) == (20, 3)
    assert TrainSettings("scratch").budget(n_train=850) == (30, 8)
    assert TrainSettings(epochs=4, patience=2).budget(n_train=42) == (4, 2)


def test_keras_training_is_seeded(small_cache: Path) -> None:
    with open_data(small_cache, seed=0) as data:
        one = fit_keras(data, TrainSettings(epochs=2, seed=3)).result
        two = fit_keras(data, TrainSettings(epochs=2, seed=3), is_fresh=True).result
    assert one.history["loss"] == two.history["loss"]
    assert one.predicted == two.predicted


def test_a_saved_network_predicts_what_it_was_tested_with(small_cache: Path) -> None:
    with open_data(small_cache, seed=0) as data:
        result = fit_keras(data, TrainSettings(epochs=2)).result
        root = data.cache.table.images.root
    model = Model(Path(result.model))
    found = list(model.predict([root / path for path in result.test_paths]))
    assert [p.label for p in found] == [result.classes[i] for i in result.predicted]
    np.testing.assert_allclose([p.probability for p in found], result.certainty, atol=1e-4)


def test_a_saved_head_predicts_what_it_was_tested_with(small_cache: Path) -> None:
    with open_data(small_cache, seed=0) as data:
        result = fit_sklearn(data, "svm").result
        root = data.cache.table.images.root
    found = list(Model(Path(result.model)).predict([root / path for path in result.test_paths]))
    assert [p.label for p in found] == [result.classes[i] for i in result.predicted]
    np.testing.assert_allclose([p.probability for p in found], result.certainty, atol=1e-4)


def test_a_head_on_several_layers_predicts_what_it_was_tested_with(small_cache: Path, small_network: Path) -> None:
    photos = small_cache.parents[1] / "photos"
    job = plan_extraction(photos, backbone=str(small_network), preprocess="tf", layers=["block2_relu", "avg_pool"])
    with open_data(job.run().cache, seed=0) as data:
        # not searched: all layers side by side
        result = fit_sklearn(data, "ridge", layer=["block2_relu", "avg_pool"], is_searched=False).result
        root = data.cache.table.images.root
    assert result.layer == "block2_relu+avg_pool"
    found = list(Model(Path(result.model)).predict([root / path for path in result.test_paths]))
    assert [p.label for p in found] == [result.classes[i] for i in result.predicted]
    np.testing.assert_allclose([p.probability for p in found], result.certainty, atol=1e-4)
