"""Training in Keras on the same split as the heads: a head on the frozen backbone, the last layers, or from scratch.

What is frozen always runs in inference mode. Where its outputs are the same at every epoch (no augmentation, or a fixed
number of changed copies) they are computed once and only what lies above the `cut` is trained; else pixels go through
the whole network. Both train the same layers from the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.backbones.graph import Cut
from tlfeat.errors import DataError, Interrupted
from tlfeat.evaluate.split import Split
from tlfeat.finetune.epochs import Feed, PhaseRun, State, begin_phase, make_batches
from tlfeat.finetune.network import Network
from tlfeat.finetune.settings import Phase, TrainSettings
from tlfeat.finetune.sources import Sources, cut_feed, pixel_feed
from tlfeat.text import counted
from tlfeat.types import Labels, OnProgress, silent


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network from pixels of 0 to 255 to probabilities, and how it came about.

    Attributes
    ----------
    model : keras.Model
    history : dict of str to list of float
        By epoch.
    chosen : dict
        What training decided: best epoch, epochs run, how it ended, what it was fed with.
    fit_s : float
        Wall seconds of all epochs, validation included, decoding too where pixels were not kept already.
    extract_s : float or None
        Seconds to compute what crosses the cut, once; None where pixels were fed.
    notes : list of str
    """

    model: Any
    history: dict[str, list[float]]
    chosen: dict[str, Any]
    fit_s: float
    extract_s: float | None
    notes: list[str]

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it; the weights are the best so far."""
        return bool(self.chosen["ended"] == "interrupted")


def train(
    network: Network,
    split: Split,
    sources: Sources,
    *,
    state_path: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_progress: OnProgress = silent,
) -> Trained:
    """Train on the training images, choosing the epoch by the validation loss.

    Parameters
    ----------
    network : Network
    split : Split
        May be another one than that of `sources` in its roles.
    sources : Sources
    state_path : Path, optional
        Where the state is kept while training goes on; what is there from a stopped run is gone on from. It is
        removed at the end.
    say : callable, optional
        Called with loss and accuracy of an epoch in words, once a second at most.

    Raises
    ------
    DataError
        No epoch ended with a finite loss, or no training image can be read any more.
    Interrupted
        Ctrl-C before the first epoch had ended; later it ends training, and `Trained` says so.
    """
    settings = network.settings
    state = State.load(state_path) if state_path else State()
    phases = settings.phases(len(split.where("train")))
    if state.phase >= len(phases):
        state = State()  # of nobody's training
    if state.ended == "interrupted":
        state.ended = ""
    n_resumed = state.n_epochs
    notes: list[str] = []
    fed: list[_Fed] = []
    for number, phase in enumerate(phases):
        network.unfreeze(phase.unfreeze_last)
        if number < state.phase:
            continue
        if number > state.phase:
            begin_phase(state, number)
        trunk, tail, cut = network.split()
        if phase.unfreeze_last and not tail.trainable_weights:
            notes.append(
                f"the last {phase.unfreeze_last} {network.unit}s of {network.spec.name} have no weights that train: "
                f"this is the frozen backbone. Unfreeze more"
            )
        if phase.unfreeze_last > len(network.units):
            n_units = counted(len(network.units), network.unit)
            notes.append(f"{network.spec.name} has {n_units}, not {phase.unfreeze_last}: the whole backbone trains")
        fed.append(_connect(network, trunk, tail, sources, cut, split))
        run = _phase_run(network, tail, fed[-1], split, phase, state)
        run.save = lambda reached: reached.save(state_path) if state_path else None
        run.say, run.on_progress = say, on_progress
        if run.run().ended in ("diverged", "interrupted"):
            break
    _check_that_it_learned(state, settings)
    if state_path and state.ended != "interrupted":
        state_path.unlink(missing_ok=True)
    notes += _notes(split, settings, state, sources, n_resumed)
    is_last = settings.keep == "last" and state.ended != "diverged"
    chosen = {
        "best_epoch": state.n_epochs if is_last else state.best_epoch,
        "epochs_run": state.n_epochs,
        "ended": state.ended,
        "fed": "; then ".join(dict.fromkeys(one.what for one in fed)),
        "trainable_parameters": _n_trainable(network),
    }
    computed_s = [one.computed_s for one in fed if one.computed_s is not None]
    extract_s = sum(computed_s) if computed_s else None
    return Trained(network.in_float32(), state.history, chosen, state.fit_s, extract_s, notes)


@dataclass(frozen=True, slots=True)
class _Fed:
    """A model to train and what feeds it: pixels, or what crosses the cut."""

    model: Any
    feed: Feed
    what: str
    computed_s: float | None


def _connect(network: Network, trunk: Any, tail: Any, sources: Sources, cut: Cut, split: Split) -> _Fed:
    settings = network.settings
    found = sources.rows(cut, settings)
    rows = found.rows
    if rows is None:
        model = network.pixel_model(trunk, tail)
        return _Fed(model, pixel_feed(sources.pixels(), settings), f"pixels: {found.reason}", None)
    for role in ("train", "val"):
        at = split.where(role)
        there = at[rows.is_there(at)]
        if len(at) and not len(there):
            raise DataError(f"None of the {role} images can be read any more; the first: {split.paths[at[0]]}.")
        rows.hold(there, is_training=role == "train")
    what = f"{', '.join(rows.layers)}" + (f" of {settings.views} views" if settings.views else "")
    return _Fed(network.tail_model(tail), cut_feed(rows, settings), what, found.computed_s)


def _phase_run(network: Network, tail: Any, fed: _Fed, split: Split, phase: Phase, state: State) -> PhaseRun:
    settings, val_at = network.settings, split.where("val")
    targets = network.targets(split.labels)
    network.compile(fed.model, phase.rate)
    return PhaseRun(
        fed.model,
        _changing(tail, network.head),
        make_batches(
            fed.feed, targets, split.where("train"), settings.batch_size, seed=settings.seed, passes=phase.passes
        ),
        make_batches(fed.feed, targets, val_at, settings.batch_size) if len(val_at) else None,
        phase,
        state,
        plateau=settings.plateau,
        keeps_last=settings.keep == "last",
        chance=_chance(split.labels[val_at]) if settings.mode == "scratch" else 0.0,
        what=f"training {settings.name}, at most {counted(phase.epochs, 'epoch')}",
    )


def _chance(labels: Labels) -> float:
    """Return the accuracy that naming the most frequent class reaches, give or take one standard error."""
    if not len(labels):
        return 0.0
    share = np.bincount(labels).max() / len(labels)
    return float(share + np.sqrt(share * (1 - share) / len(labels)))


def _check_that_it_learned(state: State, settings: TrainSettings) -> None:
    if not state.n_epochs and state.ended == "interrupted":
        raise Interrupted("Stopped before the first epoch of training had ended: there is nothing to keep of it.")
    if not state.n_epochs:
        raise DataError(
            f"Training diverged in its first epoch: the loss is not finite. Try a lower --learning-rate than "
            f"{settings.rate}."
        )


def _changing(tail: Any, head: Sequence[Any]) -> list[Any]:
    """Return every variable that training may change: weights, moving statistics, states of random generators."""
    return [*tail.variables, *(variable for layer in head for variable in layer.variables)]


def _n_trainable(network: Network) -> int:
    return int(sum(np.prod(weight.shape) for weight in network.whole.trainable_weights))


def _notes(split: Split, settings: TrainSettings, state: State, sources: Sources, n_resumed: int) -> list[str]:
    notes = []
    if not len(split.where("val")):
        notes.append("no validation images: early stopping watches the training loss")
    if n_resumed:
        notes.append(f"training went on from epoch {n_resumed}, where an earlier run was stopped")
    if state.ended == "diverged":
        notes.append(
            f"the loss was not finite in epoch {state.n_epochs + 1}: the weights are those of epoch {state.best_epoch}"
            f". Try a lower --learning-rate than {settings.rate}"
        )
    if state.ended == "interrupted":
        notes.append(f"interrupted: the weights are the best of {counted(state.n_epochs, 'epoch')}")
    if sources.unstored:
        notes.append(f"decoded images could not be kept and were decoded again at every epoch: {sources.unstored}")
    failures = sources.failures()
    if failures:
        path, reason = failures[0]
        notes.append(
            f"{counted(len(failures), 'image')} could not be read any more and took no part in training; the first: "
            f"{path}: {reason}"
        )
    return notes
