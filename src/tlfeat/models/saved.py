"""The folder of a saved model: its name, and one writer and one reader of what is in it.

``head.skops`` (or ``head.joblib``, ``model.keras``), ``reject.npz`` (beside a head: when to answer "unknown"),
``domain.npz`` (beside a head that was adapted: rows of its domain),
``model.json`` (`ModelInfo`: how to build again what feeds it, and whose weights these are), ``result.json``
(`records.Result`), and beside a network the licence of the weights that it was made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.documents import EncoderSource, Fingerprint, misfit, shown
from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.domains import accuracy_by_domain
from tlfeat.evaluate.leaks import LeakedImages, scored_tests, with_leaked
from tlfeat.evaluate.scores import score
from tlfeat.evaluate.split import Split
from tlfeat.heads.domain_check import FILE_NAME as DOMAIN_FILE
from tlfeat.heads.reject import FILE_NAME as REJECT_FILE
from tlfeat.heads.shift import HeldOut, measure_shift
from tlfeat.models.licences import credits_of, licence_texts
from tlfeat.models.network_copy import copy_network
from tlfeat.records import Environment, Leaks, Result, Score, Shift, Timing
from tlfeat.types import Labels
from tlfeat.workspace import read_json, write_json

MODEL_FORMAT_VERSION = 1

_FORMAT = "tlfeat-model"

#: Of ten thousand classes with names of hundreds of characters.
_MAX_ABOUT_BYTES = 16 << 20

#: What `predict` loads; a folder has one of the first three.
_MODEL_FILES = ("head.skops", "head.joblib", "model.keras", REJECT_FILE, DOMAIN_FILE)


class _About(TypedDict):
    """What model.json has to hold."""

    kind: str
    layer: str
    classes: list[str]
    fingerprint: Fingerprint
    encoder: EncoderSource
    cache: NotRequired[str | None]


_TAKEN = ("kind", "layer", "classes", "fingerprint", "encoder")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A Result, and whether it was there already."""

    result: Result
    is_reused: bool

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted candidate with its answers for the test images, before it is scored and saved.

    Attributes
    ----------
    candidate, kind, backbone, layer, settings, fingerprint, chosen, timing, history, coverage, reference
        As in `records.Result`.
    encoder : dict
        How to build again what feeds the model.
    probabilities : float64 array of shape (n_test, n_classes)
    notes : list of str
        Beside those of the split.
    held_out : HeldOut, optional
        Training images that heads were tried on which had not seen them.
    auc : float, optional
        How well a head tells test from training rows, of a given split.
    """

    candidate: str
    kind: str
    backbone: str
    layer: str
    settings: dict[str, Any]
    fingerprint: dict[str, Any]
    encoder: dict[str, Any]
    chosen: dict[str, Any]
    probabilities: npt.NDArray[np.float64]
    timing: Timing
    notes: list[str]
    history: dict[str, list[float]] = field(default_factory=dict)
    coverage: list[dict[str, Any]] = field(default_factory=list)
    held_out: HeldOut | None = None
    auc: float | None = None
    reference: dict[str, Any] = field(default_factory=dict)

    def score(self, split: Split, leaks: LeakedImages) -> Result:
        """Return the Result on the test images that are no leaks; of a model that lies nowhere yet."""
        test_at = split.where("test")
        true, predicted = split.labels[test_at], self.probabilities.argmax(axis=1).astype(np.int64)
        found = _score(split, leaks, true, predicted, self.probabilities)
        return Result(
            candidate=self.candidate,
            kind=self.kind,
            backbone=self.backbone,
            layer=self.layer,
            settings=self.settings,
            chosen=self.chosen,
            fingerprint=self.fingerprint,
            classes=split.classes,
            split=split.info,
            score=found,
            timing=self.timing,
            environment=Environment.current(),
            model_bytes=0,
            test_keys=[split.keys[i] for i in test_at],
            test_paths=[split.paths[i] for i in test_at],
            true=true.tolist(),
            predicted=predicted.tolist(),
            certainty=[round(float(p), 6) for p in self.probabilities.max(axis=1)],
            held_out_accuracy=self.held_out.accuracy if self.held_out else None,
            shift=self._shift(split, leaks, found),
            coverage=self.coverage,
            reference=self.reference,
            history=self.history,
            notes=[*split.notes, *self.notes],
            leaks=with_leaked(leaks, split, true, predicted),
            by_domain=_by_domain(split, leaks, true == predicted),
        )

    def _shift(self, split: Split, leaks: LeakedImages, found: Score) -> Shift | None:
        if self.held_out is None or self.auc is None:
            return None
        by_groups = split.test_groups(scored_tests(leaks, split)) is not None
        return measure_shift(self.held_out, self.auc, found.accuracy, found.ci95, by_groups=by_groups)


def _score(
    split: Split,
    leaks: LeakedImages,
    true: Labels,
    predicted: Labels,
    probabilities: npt.NDArray[np.float64] | None,
) -> Score:
    is_scored = scored_tests(leaks, split)
    return score(
        true[is_scored],
        predicted[is_scored],
        split.classes,
        groups=split.test_groups(is_scored),
        probabilities=None if probabilities is None else probabilities[is_scored],
    )


def _by_domain(split: Split, leaks: LeakedImages, right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    is_scored = scored_tests(leaks, split)
    domains = [split.domains[i] for i in split.where("test")[is_scored]]
    return accuracy_by_domain(domains, right[is_scored], split.test_groups(is_scored))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What model.json says: what `predict` needs beside the head or the network.

    Attributes
    ----------
    kind : str
        "head" or "keras".
    layer : str
        See `records.side_by_side`; "" for Keras.
    classes : list of str
    fingerprint : dict
        Of the encoder that the model was fitted behind.
    encoder : dict
        How to build that encoder again.
    cache : Path or None
        Where the images are to be found; None where an older version did not say.
    """

    kind: str
    layer: str
    classes: list[str]
    fingerprint: dict[str, Any]
    encoder: dict[str, Any]
    cache: Path | None


def model_folder(data: Data, candidate: str, settings: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
    """Return where a candidate is saved: settings, encoder and split decide the name."""
    cache, name = data.cache.path, _name(data, candidate, settings, fingerprint)
    known = (folder / name for folder in workspace.models_dirs(cache))
    return next((folder for folder in known if folder.exists()), workspace.models_dir(cache) / name)


def _name(data: Data, candidate: str, settings: dict[str, Any], fingerprint: dict[str, Any]) -> str:
    identity = workspace.digest(
        {
            "settings": settings,
            "fingerprint": fingerprint,
            "split": data.split.info.identity(),
            "version": MODEL_FORMAT_VERSION,
        }
    )
    layer = str(settings.get("layer", "")).replace(":", "-")[:60]
    return "-".join(filter(None, [candidate.replace(":", "."), layer, identity]))


def model_folders(cache: Path) -> list[Path]:
    """Return the folders of the models fitted on a cache, in order of name; of equal names the one beside the cache."""
    folders = reversed(workspace.models_dirs(cache))
    found = {path.parent.name: path.parent for folder in folders for path in folder.glob("[!.]*/result.json")}
    return [found[name] for name in sorted(found)]


def write_model(folder: Path, fitted: Fitted, data: Data, leaks: LeakedImages, save: Callable[[Path], Any]) -> Result:
    """Score a candidate and write its folder, whole or not at all; what is there is replaced.

    Parameters
    ----------
    folder : Path
    fitted : Fitted
    data : Data
    leaks : LeakedImages
        Of `data`.
    save : callable
        Writes the head or the network into the folder that it is given.

    Returns
    -------
    Result
        With the size and the place of the model.
    """
    saved = result = fitted.score(data.split, leaks)

    def fill(aside: Path) -> None:
        nonlocal saved
        save(aside)
        if result.kind == "head":
            copy_network(fitted.encoder, result.layer, result.fingerprint, aside)
        n_bytes = sum(path.stat().st_size for path in aside.iterdir())
        if result.kind == "keras":  # the weights are in it; a head holds none of them
            for name, text in licence_texts(fitted.encoder).items():
                (aside / name).write_bytes(text)
        saved = replace(result, model_bytes=n_bytes, model=str(folder))
        write_json(aside / "result.json", saved.to_dict())
        write_json(
            aside / "model.json",
            {
                "format": _FORMAT,
                "format_version": MODEL_FORMAT_VERSION,
                "kind": result.kind,
                "candidate": result.candidate,
                "layer": result.layer,
                "classes": result.classes,
                "fingerprint": result.fingerprint,
                "encoder": fitted.encoder,
                "credits": asdict(credits_of(result, fitted.encoder)),
                "cache": str(data.cache.path.resolve()),
            },
        )

    workspace.write_folder(folder, fill)
    return saved


def read_model(folder: Path) -> ModelInfo:
    """Read model.json.

    Raises
    ------
    ModelError
        There is none, it is damaged, or of a later version.
    """
    path = folder / "model.json"
    if not os.path.lexists(path):
        raise ModelError(
            f"There is no model in {folder}: model.json is missing. Name a folder that fit-sklearn or fit-keras wrote."
        )
    try:
        about = read_json(path, max_bytes=_MAX_ABOUT_BYTES)
    except (OSError, DataError) as error:
        raise ModelError(str(error)) from error
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise ModelError(f"{path} is not the description of a tlfeat model.")
    if about.get("format_version") != MODEL_FORMAT_VERSION:
        raise ModelError(
            f"{path} has format {shown(about.get('format_version'))}; this tlfeat reads {MODEL_FORMAT_VERSION}. "
            f"Update tlfeat."
        )
    if wrong := misfit(about, _About, "model.json"):
        raise ModelError(f"{path} is not the description of a tlfeat model: {wrong}.")
    cache = about.get("cache")
    return ModelInfo(**{name: about[name] for name in _TAKEN}, cache=Path(cache) if cache else None)


def read_result(folder: Path) -> Result:
    """Read result.json.

    Raises
    ------
    ModelError
        There is none, or it is damaged.
    """
    path = folder / "result.json"
    try:
        result = Result.from_dict(read_json(path))
        _check_result(result)
    except (OSError, DataError) as error:
        raise ModelError(f"{path} is missing or damaged. Fit the model again.") from error
    return replace(result, model=str(folder))


def _check_result(result: Result) -> None:
    """Raise `DataError` where parts of a Result do not belong together."""
    n, n_classes = len(result.true), len(result.classes)
    lists = (result.test_keys, result.test_paths, result.predicted, result.certainty)
    if not n or {len(values) for values in lists} != {n}:
        raise DataError("the lists of test images differ in length")
    if not all(0 <= number < n_classes for number in (*result.true, *result.predicted)):
        raise DataError("a class number is beyond the classes")
    confusion = result.score.confusion
    if len(confusion) != n_classes or any(len(row) != n_classes for row in confusion):
        raise DataError("the confusion matrix is not of the classes")
    if result.kind not in ("head", "keras"):
        raise DataError(f"a model of kind '{result.kind}'")


def known_result(folder: Path, split: Split, leaks: LeakedImages) -> Result | None:
    """Return the Result in a folder with today's leaks; None where there is none that can be read."""
    try:
        known = read_result(folder)
    except ModelError:
        return None  # damaged, or half-written by an older version: fit again
    return with_leaks(known, split, leaks) if has_model(known) else None


def has_model(result: Result) -> bool:
    """Whether what `predict` loads lies beside a Result, as large as it was: a power cut may have taken it."""
    folder = Path(result.model)
    sizes = {path.name: path.stat().st_size for name in _MODEL_FILES if (path := folder / name).is_file()}
    return bool(sizes.keys() - {REJECT_FILE}) and sum(sizes.values()) == result.model_bytes


def with_leaks(known: Result, split: Split, leaks: LeakedImages) -> Result:
    """Return a saved Result scored without today's leaks, and by today's domains.

    Paths may be others by now, and older versions looked for fewer leaks, or for none, or scored them too. Where other
    images count than did, there is no calibration: only the probability of the named class is saved.
    """
    true, predicted = np.array(known.true), np.array(known.predicted)
    n_scored = int(scored_tests(leaks, split).sum())
    is_as_saved = n_scored == known.score.n_images and (
        n_scored == len(true) or _leaked(known.leaks) == {image["test"] for image in leaks.images}
    )
    found = known.score if is_as_saved else _score(split, leaks, true, predicted, None)
    shift = known.shift if is_as_saved else None
    return replace(
        known,
        score=found,
        leaks=with_leaked(leaks, split, true, predicted),
        shift=shift,
        by_domain=_by_domain(split, leaks, true == predicted),
    )


def _leaked(leaks: Leaks | None) -> set[str]:
    return {image["test"] for image in leaks.images} if leaks else set()
