"""One stretch of Keras training that keeps the best weights, and goes on from its last epoch after a stop.

What happens at the end of an epoch is all here: the best weights so far, early stopping, the state on disk. A loss that
is not finite and Ctrl-C end a stretch like any other, with the weights of its best epoch.
"""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_keras
from tlfeat.documents import misfit
from tlfeat.errors import CacheError
from tlfeat.files import check_archive, open_regular
from tlfeat.finetune.settings import Phase
from tlfeat.types import Labels, OnProgress, silent
from tlfeat.workspace import written_aside

#: The state is written to disk so often at most: a kill costs these seconds, or one epoch where that is longer.
_SAVE_EVERY_S = 5.0

_SAY_EVERY_S = 1.0

Arrays = list[npt.NDArray[Any]]

#: Positions and the epoch (None: not for training) to the inputs of a batch, and which of the images are in it.
Feed = Callable[[Labels, int | None], tuple[Any, npt.NDArray[np.bool_]]]


class _About(TypedDict):
    """What a state holds beside its arrays."""

    phase: int
    n_before: int
    history: dict[str, list[float]]
    best_loss: float
    best_epoch: int
    has_learned: NotRequired[bool]
    n_waited: int
    ended: str
    fit_s: float


@dataclass
class State:
    """Where training stands at the end of an epoch: enough to go on from there as if nothing had happened.

    Attributes
    ----------
    phase : int
        Number of the `Phase` under way.
    n_before : int
        Epochs of the phases before it.
    history : dict of str to list of float
        What Keras reports, by epoch, of all phases.
    best_loss, best_epoch
        Lowest monitored loss, and the epoch (from 1, over all phases) that had it.
    has_learned : bool
        Whether the best epoch was above `PhaseRun.chance`.
    n_waited : int
        Epochs since then, within the phase.
    ended : str
        "" while it goes on, then "finished", "stopped early", "diverged" or "interrupted".
    fit_s : float
        Wall seconds spent, validation included.
    current, best : list of arrays
        Variables and the optimizer's, at the end of the last epoch; variables of the best one.
    """

    phase: int = 0
    n_before: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best_loss: float = float("inf")
    best_epoch: int = 0
    has_learned: bool = False
    n_waited: int = 0
    ended: str = ""
    fit_s: float = 0.0
    current: Arrays = field(default_factory=list)
    best: Arrays = field(default_factory=list)

    @property
    def n_epochs(self) -> int:
        """Epochs that ended well, over all phases."""
        return len(self.history.get("loss", []))

    def save(self, path: Path) -> None:
        """Write it aside and rename."""
        about = {name: value for name, value in vars(self).items() if name not in ("current", "best")}
        arrays = {f"{kind}_{i}": a for kind in ("current", "best") for i, a in enumerate(getattr(self, kind))}
        try:
            with written_aside(path) as aside, aside.open("wb") as file:
                np.savez(file, about=np.array(json.dumps(about)), **arrays)
        except OSError as error:
            raise CacheError(f"The state of training cannot be kept in {path}: {error.strerror or error}.") from error

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what `save` wrote; a new state where there is nothing, or nothing whole."""
        try:
            check_archive(path)
            with open_regular(path, within=path.parent) as file, np.load(file, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if misfit(about, _About, "about", is_finite=False) or about["n_before"] < 0 or about["phase"] < 0:
                    return cls()
                arrays = {
                    kind: [stored[f"{kind}_{i}"] for i in range(sum(name.startswith(f"{kind}_") for name in stored))]
                    for kind in ("current", "best")
                }
            return cls(**about, current=arrays["current"], best=arrays["best"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile):
            return cls()


def make_batches(
    feed: Feed,
    targets: npt.NDArray[Any],
    positions: Labels,
    batch_size: int,
    *,
    seed: int | None = None,
    passes: int = 1,
) -> Any:
    """Return a Keras data set of batches, made ahead in a thread of TensorFlow's.

    Parameters
    ----------
    feed : Feed
    targets : array of shape (n_images, ...)
        What the network is to give for each position.
    positions : int array
        Images to take.
    batch_size : int
    seed : int, optional
        The order is drawn from it and the number of the pass alone; without it it stays as it is.
    passes : int, default=1
        How often an epoch goes through the images. To `feed` every pass is an epoch.
    """
    keras = import_keras()
    n_batches = -(-len(positions) // batch_size)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.begin(0)

        def begin(self, epoch: int) -> None:
            self.first = epoch * passes
            self.orders = [self.order_of(self.first + i) for i in range(passes)]

        def order_of(self, number: int) -> Labels:
            return positions if seed is None else np.random.default_rng([seed, number]).permutation(positions)

        def __len__(self) -> int:
            return n_batches * passes

        def __getitem__(self, i: int) -> tuple[Any, npt.NDArray[Any]]:
            number, batch = divmod(i, n_batches)
            at = self.orders[number][batch * batch_size : (batch + 1) * batch_size]
            at = np.sort(at)  # files are then read forwards
            x, is_there = feed(at, None if seed is None else self.first + number)
            return x, targets[at[is_there]]

    return Batches()


@dataclass
class PhaseRun:
    """One phase of training under way: what happens at the end of an epoch is decided here.

    Attributes
    ----------
    model : keras.Model
        Compiled. At the end it has the weights to keep.
    variables : sequence of Keras variables
        All that training changes in it.
    train, val
        Of `make_batches`; `val` None watches the training loss.
    phase : Phase
    state : State
        Changed; where it holds the end of an epoch of this phase, training goes on from there.
    plateau : int
        See ``settings.TrainSettings``.
    keeps_last : bool
        Keep the last epoch's weights, not the best one's.
    chance : float
        Validation accuracy of guessing. An epoch that is not above it is the best only until one is, however low its
        loss, and patience begins then: a network from random weights names one class for many epochs, at a lower loss
        than that of the first epochs that tell classes apart. 0 switches this off.
    save : callable
        Called with the state, every few seconds and after Ctrl-C.
    say : callable
        Called with loss and accuracy of an epoch in words, once a second at most.
    what : str
        For `on_progress`.
    """

    model: Any
    variables: Sequence[Any]
    train: Any
    val: Any
    phase: Phase
    state: State
    plateau: int = 0
    keeps_last: bool = False
    chance: float = 0.0
    save: Callable[[State], None] = lambda state: None
    say: Callable[[str], None] = lambda text: None
    what: str = "training"
    on_progress: OnProgress = silent

    def run(self) -> State:
        """Train until the phase ends, one way or another, and return where it stands."""
        state = self.state
        self.model.optimizer.build(self.model.trainable_variables)
        if state.current:
            _assign(self._everything, state.current)
        elif state.best:  # a phase begins with the best weights of the one before, and may end before its first epoch
            state.best, state.current = _values(self.variables), _values(self._everything)
        first = state.n_epochs - state.n_before
        self._counted_s = time.perf_counter()
        try:
            if first < self.phase.epochs and not state.ended:
                self._fit(first)
            state.ended = state.ended or "finished"
        except KeyboardInterrupt:
            state.ended = "interrupted"
        self._count_seconds()
        if state.current:
            if state.ended == "interrupted":
                self.save(state)
            is_last = self.keeps_last and state.ended != "diverged"
            _assign(self.variables, state.current if is_last else state.best)
        return state

    @property
    def _everything(self) -> list[Any]:
        return [*self.variables, *self.model.optimizer.variables]

    @property
    def _monitor(self) -> str:
        return "loss" if self.val is None else "val_loss"

    def _fit(self, first: int) -> None:
        callbacks = import_keras().callbacks
        self._slower = (
            [callbacks.ReduceLROnPlateau(self._monitor, factor=0.1, patience=self.plateau, mode="min")]
            if self.plateau
            else []
        )
        ours = callbacks.LambdaCallback(
            on_train_begin=self._begin,
            on_epoch_begin=self._begin_epoch,
            on_train_batch_end=self._end_batch,
            on_epoch_end=self._end_epoch,
        )
        self.model.fit(
            self.train,
            validation_data=self.val,
            initial_epoch=first,
            epochs=self.phase.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*self._slower, ours],
        )

    def _begin(self, logs: Any) -> None:
        self._saved_s = self._counted_s = self._said_s = time.perf_counter()
        for done, loss in enumerate(self.state.history.get(self._monitor, [])[self.state.n_before :]):
            for callback in self._slower:
                callback.on_epoch_end(done, {self._monitor: loss})
        if self.state.current:  # the rate that it had come to is among them
            _assign(self._everything, self.state.current)

    def _begin_epoch(self, epoch: int, logs: Any) -> None:
        self._epoch, self._epoch_started_s = epoch, time.perf_counter()
        self.train.begin(self.state.n_before + epoch)

    def _end_batch(self, batch: int, logs: Any) -> None:
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            self._stop("diverged")
        steps = len(self.train)
        self.on_progress(self.what, self._epoch * steps + batch + 1, self.phase.epochs * steps)

    def _end_epoch(self, epoch: int, logs: Any) -> None:
        state = self.state
        loss = float((logs or {}).get(self._monitor, np.nan))
        if state.ended == "diverged" or not np.isfinite(loss):
            self._stop("diverged")
            return
        now_s = time.perf_counter()
        for name, value in {**(logs or {}), "epoch_s": now_s - self._epoch_started_s}.items():
            state.history.setdefault(name, []).append(float(value))
        has_learned = float((logs or {}).get("val_accuracy", 1.0)) > self.chance
        if has_learned > state.has_learned or (has_learned == state.has_learned and loss < state.best_loss):
            state.best_loss, state.best_epoch, state.n_waited = loss, state.n_epochs, 0
            state.has_learned, state.best = has_learned, _values(self.variables)
        elif state.has_learned:
            state.n_waited += 1
        if now_s - self._said_s > _SAY_EVERY_S:
            self.say(_epoch_text(state.n_epochs, logs or {}))
            self._said_s = now_s
        state.current = _values(self._everything)
        if state.n_waited >= self.phase.patience:
            self._stop("stopped early")
        if now_s - self._saved_s > _SAVE_EVERY_S:
            self._count_seconds()
            self.save(state)
            self._saved_s = time.perf_counter()

    def _stop(self, ended: str) -> None:
        self.state.ended, self.model.stop_training = ended, True

    def _count_seconds(self) -> None:
        now_s = time.perf_counter()
        self.state.fit_s, self._counted_s = self.state.fit_s + now_s - self._counted_s, now_s


def begin_phase(state: State, number: int) -> None:
    """Get a state ready for the next phase: its optimizer is new, its best weights are still those of the last."""
    state.phase, state.n_before, state.n_waited, state.ended, state.current = number, state.n_epochs, 0, "", []


def _epoch_text(number: int, logs: dict[str, float]) -> str:
    def told(prefix: str) -> str:
        return f"loss {logs[prefix + 'loss']:.3f}, accuracy {100 * logs.get(prefix + 'accuracy', math.nan):.1f} %"

    return f"epoch {number}: {told('')}" + (f"; validation {told('val_')}" if "val_loss" in logs else "")


def _values(variables: Sequence[Any]) -> Arrays:
    return [np.array(variable.numpy()) for variable in variables]  # a copy: training goes on


def _assign(variables: Sequence[Any], values: Arrays) -> None:
    pairs = list(zip(variables, values, strict=False))  # values of the optimizer may follow
    if len(pairs) < len(variables) or any(tuple(one.shape) != tuple(value.shape) for one, value in pairs):
        raise CacheError(
            "The state of a stopped training is of another network. Train from the start.", add=["--fresh"]
        )
    for variable, value in pairs:
        variable.assign(value)
