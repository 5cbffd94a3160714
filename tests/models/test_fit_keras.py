"""Training in Keras beside the heads: the same split, the same seed the same result, and a saved model predicts so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.epochs import make_batches
from tlfeat.finetune.settings import TrainSettings
from tlfeat.models.fit_keras import fit_keras
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model

pytestmark = pytest.mark.keras


def test_every_way_of_training_gives_a_result_on_the_split_of_the_heads(request: pytest.FixtureRequest) -> None:
    n_epochs = {"frozen": 12, "finetuned": 2, "scratch": 2}
    results = {}
    with open_data(plan_extraction(layers=["avg_pool"]).run().cache, seed=0) as data:
        head = fit_sklearn(data, "ridge", is_searched=False).result
        for mode, n in n_epochs.items():
            results[mode] = fit_keras(data, TrainSettings(mode, epochs=n, patience=12, unfreeze_last=5)).result
            request.getfixturevalue("eagerly")  # the first with graphs
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
    def of(settings: TrainSettings, n_train: int) -> tuple[int, int, int]:
        phase = settings.phases(n_train)[-1]
        return phase.passes, phase.epochs, phase.patience

    assert of(TrainSettings(), 42) == (13, 20, 3)  # 2 steps a pass: 520 steps, validated after every 26th
    assert of(TrainSettings("scratch"), 42) == (13, 31, 8)  # 806 steps
    assert of(TrainSettings(batch_size=8), 65) == (3, 20, 3)  # 9 steps a pass
    assert of(TrainSettings(), 850) == (1, 20, 3)
    assert of(TrainSettings("scratch"), 850) == (1, 30, 8)
    assert of(TrainSettings(epochs=4, patience=2), 42) == (1, 4, 2)


def test_an_epoch_of_several_passes_takes_what_as_many_epochs_of_one_would_take() -> None:
    fed: dict[int, list[tuple[list[int], int | None]]] = {}

    def batches(passes: int) -> Any:
        fed[passes] = []

        def feed(at: Any, epoch: int | None) -> Any:
            fed[passes].append((at.tolist(), epoch))
            return at, np.ones(len(at), bool)

        return make_batches(feed, np.arange(40), np.arange(30, 37), 3, seed=5, passes=passes)

    once, thrice = batches(1), batches(3)
    for epoch in range(6):
        once.begin(epoch)
        for i in range(len(once)):
            once[i]
    for epoch in range(2):
        thrice.begin(epoch)
        assert len(thrice) == 9
        for i in range(len(thrice)):
            thrice[i]
    assert fed[3] == fed[1]
    assert len({str(at) for at, _ in fed[3]}) > 9, "another order in every pass"


def test_keras_training_is_seeded(small_cache: Path) -> None:
    with open_data(small_cache, seed=0) as data:
        one = fit_keras(data, TrainSettings(epochs=2, seed=3)).result
        two = fit_keras(data, TrainSettings(epochs=2, seed=3), is_fresh=True).result
    assert one.history["loss"] == two.history["loss"]
    assert one.predicted == two.predicted


def test_a_saved_network_predicts_what_it_was_tested_with(small_cache: Path) -> None:
    with open_data(small_cache, seed=0) as data:
        result = fit_keras(data, TrainSettings(epochs=2, seed=3)).result  # of the test above
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
