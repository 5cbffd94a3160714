"""When a stretch of training ends, which epoch is kept, and the epochs that batches are drawn for.

One weight learns w x = y from images that say y = 1 and is watched on images that say 0.36. From 0, at a learning rate
of 0.1, it is 1 - 0.8^n after n epochs: 0.2, 0.36, 0.488, 0.59, ... The validation loss falls twice, then rises.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlfeat.backbones.frameworks import import_keras
from tlfeat.finetune import epochs
from tlfeat.finetune.epochs import PhaseRun, State, begin_phase, make_batches
from tlfeat.finetune.settings import Phase

pytestmark = pytest.mark.keras

N = 4


class Run:
    """A model of two layers, of which one learns one weight, and what its batches were drawn for."""

    def __init__(self, watched: float = 0.36, *, has_val: bool = True) -> None:
        keras = import_keras()
        self.model = keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
                keras.layers.Activation("linear"),
            ]
        )
        self.epochs: list[int] = []
        self.saved: list[int] = []
        at = np.arange(N)
        self.train = make_batches(self._feed, np.ones((N, 1), np.float32), at, N, seed=5)
        self.val = make_batches(self._feed, np.full((N, 1), watched, np.float32), at, N) if has_val else None
        begin = self.train.begin

        def noted(epoch: int) -> None:
            self.epochs.append(epoch)
            begin(epoch)

        self.train.begin = noted

    @staticmethod
    def _feed(at: Any, epoch: int | None) -> Any:
        return np.ones((len(at), 1), np.float32), np.ones(len(at), bool)

    def go(self, phase: Phase, state: State, *, plateau: int = 0, keeps_last: bool = False) -> None:
        self.model.compile(import_keras().optimizers.SGD(phase.rate), "mse", run_eagerly=True)  # nothing to trace
        PhaseRun(
            self.model,
            self.model.variables,
            self.train,
            self.val,
            phase,
            state,
            plateau=plateau,
            keeps_last=keeps_last,
            save=lambda state: self.saved.append(state.n_epochs),
            what="",
            on_progress=lambda *_: None,
        ).run()

    @property
    def weight(self) -> float:
        return float(self.model.variables[0].numpy()[0, 0])


def after(n_epochs: int) -> Callable[[float], bool]:
    """What the weight is after so many epochs from 0."""
    return pytest.approx(1 - 0.8**n_epochs, abs=1e-5)


@pytest.mark.parametrize(("patience", "n_epochs"), [(2, 4), (4, 6), (5, 6)])
def test_training_stops_after_so_many_epochs_without_a_lower_validation_loss(patience: int, n_epochs: int) -> None:
    run, state = Run(), State()
    run.go(Phase(0, 6, patience, 0.1), state)
    assert (state.n_epochs, state.best_epoch) == (n_epochs, 2)
    assert state.ended == ("finished" if patience == 5 else "stopped early")
    assert state.history["val_loss"][1] == min(state.history["val_loss"]) == pytest.approx(0, abs=1e-9)
    assert run.weight == after(2)
    assert run.epochs == list(range(n_epochs))


def test_the_last_weights_are_kept_where_that_is_asked_for() -> None:
    run, state = Run(), State()
    run.go(Phase(0, 10, 2, 0.1), state, keeps_last=True)
    assert run.weight == after(4)


def test_without_validation_images_the_training_loss_is_watched() -> None:
    run, state = Run(has_val=False), State()
    run.go(Phase(0, 6, 2, 0.1), state)
    assert (state.ended, state.n_epochs, state.best_epoch) == ("finished", 6, 6)
    assert run.weight == after(6)


def test_the_second_phase_waits_anew_goes_on_from_the_best_weights_and_counts_epochs_on() -> None:
    run, state = Run(), State()
    run.go(Phase(0, 10, 2, 0.1), state)
    assert state.ended == "stopped early"
    begin_phase(state, 1)
    run.go(Phase(3, 10, 3, 0.1), state)
    # from 0.36 on the validation loss rises at once: three epochs of patience, three epochs
    assert (state.ended, state.n_epochs, state.best_epoch, state.n_before) == ("stopped early", 4 + 3, 2, 4)
    assert run.epochs == list(range(7)), "an epoch of the second phase drew what one of the first had drawn"
    np.testing.assert_allclose(
        state.history["val_loss"][4:], [*state.history["val_loss"][2:4], (0.8**5 - 0.64) ** 2], rtol=1e-4
    )
    assert run.weight == after(2)


def test_a_phase_that_is_resumed_goes_on_with_its_epochs_and_its_waiting() -> None:
    whole, state = Run(), State()
    whole.go(Phase(0, 10, 2, 0.1), state)
    begun, stopped = Run(), State()
    begun.go(Phase(0, 3, 2, 0.1), stopped)  # as far as a stop after three epochs
    assert (stopped.ended, stopped.n_waited) == ("finished", 1)
    stopped.ended = ""
    resumed = Run()
    resumed.go(Phase(0, 10, 2, 0.1), stopped)
    assert resumed.epochs == [3]
    assert (stopped.ended, stopped.n_epochs) == ("stopped early", 4)
    assert stopped.history["val_loss"] == state.history["val_loss"]
    assert resumed.weight == whole.weight


def test_a_second_phase_that_is_resumed_draws_for_its_own_epochs() -> None:
    run, state = Run(watched=1.0), State()
    run.go(Phase(0, 2, 5, 0.1), state)
    begin_phase(state, 1)
    run.go(Phase(3, 1, 5, 0.1), state)
    state.ended = ""
    resumed = Run(watched=1.0)
    resumed.go(Phase(3, 3, 5, 0.1), state)
    assert run.epochs + resumed.epochs == [0, 1, 2, 3, 4]
    assert resumed.weight == after(5)


class Told:
    """A phase of training that is told the loss and accuracy of each epoch; its one weight is the epoch's number."""

    def __init__(self, chance: float, patience: int = 2) -> None:
        weight = SimpleNamespace(numpy=lambda: np.array(self.state.n_epochs))
        model = SimpleNamespace(optimizer=SimpleNamespace(variables=[]), stop_training=False)
        self.state, self.said = State(), list[str]()
        self.run = PhaseRun(
            model, [weight], SimpleNamespace(begin=lambda epoch: None), True, Phase(0, 20, patience, 0.1), self.state,
            chance=chance, say=self.said.append,
        )  # fmt: skip
        self.run._slower = []
        self.run._begin(None)

    def tell(self, *epochs: tuple[float, float]) -> State:
        for number, (loss, accuracy) in enumerate(epochs):
            self.run._begin_epoch(number, None)
            self.run._end_epoch(
                number, {"loss": loss + 0.25, "accuracy": 0.875, "val_loss": loss, "val_accuracy": accuracy}
            )
        return self.state


#: One class is named for three epochs, then the classes are told apart at a higher loss, as confidence grows.
GUESSING_FIRST = [(0.69, 0.5), (0.66, 0.5), (0.68, 0.5), (0.9, 0.7), (0.8, 0.75), (0.85, 0.8), (0.95, 0.7)]


def test_an_epoch_that_only_guesses_is_not_the_best_and_patience_waits_for_one_that_learned() -> None:
    state = Told(chance=0.58).tell(*GUESSING_FIRST)
    assert (state.best_epoch, state.best_loss, state.has_learned) == (5, 0.8, True)
    assert state.best[0] == 5
    assert (state.ended, state.n_epochs) == ("stopped early", 7)


def test_without_a_chance_the_lowest_loss_is_the_best() -> None:
    state = Told(chance=0.0, patience=5).tell(*GUESSING_FIRST)
    assert (state.best_epoch, state.ended) == (2, "stopped early")


def test_where_no_epoch_learns_the_lowest_loss_is_the_best_and_all_epochs_are_run() -> None:
    state = Told(chance=0.58).tell((0.7, 0.5), (0.65, 0.55), *[(0.8, 0.5)] * 6)
    assert (state.best_epoch, state.has_learned, state.ended, state.n_epochs) == (2, False, "", 8)


def test_loss_and_accuracy_are_said_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(chance=0.0, patience=9)
    told.tell((0.7, 0.5), (0.6, 0.52))
    assert told.said == []
    monkeypatch.setattr(epochs, "_SAY_EVERY_S", -1.0)
    told.tell((0.5, 0.625))
    assert told.said == ["epoch 3: loss 0.750, accuracy 87.5 %; validation loss 0.500, accuracy 62.5 %"]


def test_no_pass_through_the_images_repeats_the_order_or_the_number_of_another() -> None:
    fed: list[tuple[int, tuple[int, ...]]] = []

    def feed(at: Any, epoch: int) -> Any:
        fed.append((epoch, tuple(at.tolist())))
        return at, np.ones(len(at), bool)

    batches = make_batches(feed, np.arange(40), np.arange(10, 40), 6, seed=5, passes=3)
    assert len(batches) == 3 * 5
    orders = []
    for epoch in (0, 1, 2):
        batches.begin(epoch)
        fed.clear()
        for i in range(len(batches)):
            _, targets = batches[i]
            assert tuple(targets.tolist()) == fed[-1][1]
        assert [number for number, _ in fed] == [3 * epoch + i for i in range(3) for _ in range(5)]
        orders += [tuple(at for _, at in fed[5 * i : 5 * i + 5]) for i in range(3)]
    assert len(set(orders)) == 9
    assert all(sorted(sum(order, ())) == list(range(10, 40)) for order in orders)
