"""Training that stops: by Ctrl-C, by a kill, by a loss that is not finite; and goes on as if it had not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones.frameworks import import_keras
from tlfeat.errors import DataError, Interrupted
from tlfeat.evaluate.data import Data, open_data
from tlfeat.finetune import epochs as training
from tlfeat.finetune.epochs import PhaseRun, State, make_batches
from tlfeat.finetune.saved import load_model
from tlfeat.finetune.settings import Phase, TrainSettings
from tlfeat.models.fit_keras import fit_keras
from tlfeat.records import Result

pytestmark = pytest.mark.keras

SHORT = {"epochs": 3, "patience": 3}
LAST_BLOCK = {"mode": "finetuned", "unfreeze_last": 4, **SHORT}


@pytest.fixture
def data(small_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Data]:
    monkeypatch.chdir(small_cache.parents[1])
    with open_data(small_cache, seed=0) as opened:
        yield opened


def weights_of(result: Result) -> list[Any]:
    return [np.array(w.numpy()) for w in load_model(Path(result.model) / "model.keras").weights]


def stopping_at(n_epochs: int, error: type[BaseException], *, of: int = SHORT["epochs"]) -> Callable[..., None]:
    """A progress function that stops training in the epoch after so many."""

    def on_progress(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done > (total // of) * n_epochs + 1:
            raise error

    return on_progress


@pytest.mark.sample("float32")
@pytest.mark.parametrize("cut", ["float32", "off"])
def test_ctrl_c_leaves_the_best_weights_and_the_same_call_goes_on(data: Data, cut: str, eagerly: None) -> None:
    settings = TrainSettings(**LAST_BLOCK, cut=cut, seed=11, batch_size=20)
    whole = fit_keras(data, settings).result
    saved = Path(whole.model)
    with pytest.raises(Interrupted, match=r"Stopped after 2 epochs.*goes on from there"):
        fit_keras(data, settings, is_fresh=True, on_progress=stopping_at(2, KeyboardInterrupt))
    stopped = Result.from_dict(json.loads((saved / "result.json").read_text()))
    assert stopped.chosen["ended"] == "interrupted"
    assert stopped.history["loss"] == whole.history["loss"][:2]
    assert len(stopped.predicted) == stopped.split.n_test
    outcome = fit_keras(data, settings)
    assert not outcome.is_reused, "an interrupted result is not a finished one"
    assert outcome.result.history["loss"] == whole.history["loss"]
    assert outcome.result.predicted == whole.predicted
    assert any("went on from epoch 2" in note for note in outcome.result.notes)
    assert fit_keras(data, settings).is_reused


def test_a_killed_training_goes_on_from_its_last_saved_epoch(
    data: Data, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written but at the ends of epochs, so that a kill is the same as any other error here."""
    monkeypatch.setattr(training, "_SAVE_EVERY_S", 0.0)
    settings = TrainSettings(**{**LAST_BLOCK, "epochs": 4}, seed=12, plateau=1, learning_rate=1e-9, batch_size=20)
    whole = fit_keras(data, settings).result
    assert len(set(whole.history["learning_rate"])) == 3, "the learning rate fell before the stop and after it"
    shutil.rmtree(whole.model)
    with pytest.raises(MemoryError):
        fit_keras(data, settings, is_fresh=True, on_progress=stopping_at(2, MemoryError, of=4))
    resumed = fit_keras(data, settings).result
    assert any("went on from epoch 2" in note for note in resumed.notes)
    for name in ("loss", "val_loss", "learning_rate"):
        assert resumed.history[name] == whole.history[name]
    assert resumed.predicted == whole.predicted


def test_a_state_that_is_damaged_is_no_state(tmp_path: Path) -> None:
    state = State(history={"loss": [1.0]}, current=[np.zeros(3)], best=[np.ones(2)])
    state.save(tmp_path / "s.npz")
    assert State.load(tmp_path / "s.npz").n_epochs == 1
    written = (tmp_path / "s.npz").read_bytes()
    for spoiled in (written[: len(written) // 2], b"", b"nonsense"):
        (tmp_path / "s.npz").write_bytes(spoiled)
        assert State.load(tmp_path / "s.npz").n_epochs == 0


def test_a_loss_that_is_not_finite_leaves_the_best_weights() -> None:
    keras = import_keras()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rows = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)

    def feed(at: Any, epoch: int | None) -> Any:
        poison = np.nan if epoch == 2 else 0.0
        return rows[at] + np.float32(poison), np.ones(len(at), bool)

    state, best = State(), []
    PhaseRun(
        model,
        model.variables,
        make_batches(feed, rows[:, 0], np.arange(16), 4, seed=0),
        make_batches(feed, rows[:, 0], np.arange(16), 4),
        Phase(0, 5, 5, 0.1),
        state,
        plateau=0,
        keeps_last=True,
        save=best.append,
        what="",
        on_progress=lambda *_: None,
    ).run()
    assert (state.ended, state.n_epochs) == ("diverged", 2)
    assert np.isfinite(model.variables[0].numpy()).all()
    np.testing.assert_array_equal(model.variables[0], state.best[0])


TWO_PHASES = {**LAST_BLOCK, "epochs": 2, "head_epochs": 1}


def test_a_second_phase_that_diverges_at_once_leaves_the_weights_of_the_first(data: Data, eagerly: None) -> None:
    settings = TrainSettings(**{**TWO_PHASES, "optimizer": "sgd", "learning_rate": 1e30})
    result = fit_keras(data, settings).result
    assert (result.chosen["ended"], result.chosen["epochs_run"]) == ("diverged", 1)
    assert all(np.isfinite(weights).all() for weights in weights_of(result))


@pytest.mark.sample("off")
@pytest.mark.parametrize("cut", ["float32", "off"])
def test_ctrl_c_in_the_first_epoch_of_the_second_phase_loses_nothing_of_the_first(
    data: Data, cut: str, eagerly: None
) -> None:
    settings = TrainSettings(**TWO_PHASES, cut=cut, seed=21, batch_size=20)
    whole = fit_keras(data, settings).result
    shutil.rmtree(whole.model)

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "training keras-finetuned, at most 2 epochs" and done > 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Stopped after 1 epoch"):
        fit_keras(data, settings, on_progress=on_progress)
    resumed = fit_keras(data, settings).result
    assert any("went on from epoch 1" in note for note in resumed.notes)
    assert resumed.history["loss"] == whole.history["loss"]
    assert resumed.predicted == whole.predicted


def test_a_first_epoch_that_diverges_is_an_error_that_says_what_to_do(data: Data, eagerly: None) -> None:
    with pytest.raises(DataError, match="lower --learning-rate"):
        fit_keras(data, TrainSettings(**{**LAST_BLOCK, "optimizer": "sgd", "learning_rate": 1e30}))
