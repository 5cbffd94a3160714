"""How much data: accuracy against labelled images a class, and the labels saved for equal accuracy.

Every candidate learns from the same seeded draws of the images to learn from and is tested on the same test images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.backbone import KerasEncoder
from tlfeat.candidates import Data, choose_layers, encoder_name, open_pixels, spec_of
from tlfeat.encoder import Rows
from tlfeat.errors import DataError, Interrupted, KnownError, UsageError, counted
from tlfeat.evaluate import VAL_FRACTION, Labels, Split, draw_per_class
from tlfeat.figures import Chart, Finding, Point, Series
from tlfeat.heads import find_head, fit_head, predict_probabilities
from tlfeat.intervals import mean_interval, wilson_interval
from tlfeat.progress import OnProgress, silent
from tlfeat.recipes import TrainSettings
from tlfeat.records import Environment, Record, SplitInfo, distribution_version, read_json, write_json
from tlfeat.report import percent, seconds

COUNTS = "1,2,5,10,20,50,all"
KERAS_MODES = ("frozen", "scratch")

#: Below this many images a class Keras trains on all of them: a fold of one image says nothing about when to stop.
_MIN_FOR_VALIDATION = 10

#: Fewer times as many labels than that are called about as many.
_ABOUT_EQUAL = 1.1

#: Of each epoch in Keras beside its images; what makes few images slow, as they need many epochs.
_EPOCH_S = 0.2

_N_RESAMPLES = 1000

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """One candidate fitted on one draw and tested: what is kept on disk, so that nothing is fitted twice."""

    candidate: str
    count: int  # images a class that were asked for; 0 is all
    draw: int
    n_labels: int  # images that were drawn
    right: str  # "1" for each test image that it gets right, else "0"
    fit_s: float  # choosing parameters and fitting, without extraction and decoding
    chosen: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of the test images."""
        return self.right.count("1") / len(self.right)


@dataclass(frozen=True)
class Place:
    """One candidate at one number of images a class: the mean over draws, with its 95 % t-interval."""

    count: int
    n_labels: float
    trials: list[Trial]

    @property
    def accuracies(self) -> list[float]:
        """Of each draw."""
        return [trial.accuracy for trial in self.trials]

    @property
    def mean(self) -> float:
        """Over the draws."""
        return float(np.mean(self.accuracies))

    @cached_property
    def right(self) -> npt.NDArray[np.float64]:
        """1 where a draw gets a test image right, of shape (n_draws, n_test)."""
        return np.array([[mark == "1" for mark in trial.right] for trial in self.trials], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Curve:
    """The curves of all candidates on one split.

    Attributes
    ----------
    lines : dict of candidate to list of Place
        The first candidate is the one that the others are compared with.
    n_reused : int
        Trials of earlier commands.
    """

    cache: Path
    backbone: str
    layer: str
    classes: list[str]
    split: SplitInfo
    n_draws: int
    n_keras_draws: int
    counts: list[int]
    lines: dict[str, list[Place]]
    n_reused: int
    skipped: list[tuple[str, str]]
    notes: list[str]


#: Fits on the images at the given positions and tests: (positions, count, draw) to a trial without its identity.
_Run = Callable[[Labels, int, int], Trial]


def _union(*counts: Sequence[int]) -> list[int]:
    """Return all counts in ascending order, all images (0) last."""
    return sorted(set().union(*counts), key=lambda count: count or math.inf)


def parse_counts(text: str) -> list[int]:
    """Return the numbers of ``1,2,5,all`` in ascending order; 0 stands for all and comes last."""
    found = set()
    for word in (part.strip() for part in text.split(",") if part.strip()):
        if word != "all" and not (word.isdecimal() and int(word) > 0):
            raise UsageError(f"--counts wants numbers of images a class such as {COUNTS}, received '{word}'.")
        found.add(0 if word == "all" else int(word))
    if not found:
        raise UsageError(f"--counts wants numbers of images a class such as {COUNTS}, received '{text}'.")
    return _union(list(found))


def learning_curve(
    data: Data,
    *,
    layer: str | None = None,
    heads: Sequence[str] = ("logreg", "knn"),
    keras_modes: Sequence[str] = (),
    keras_options: dict[str, Any] | None = None,
    has_pixels: bool = True,
    counts: Sequence[int] = tuple(parse_counts(COUNTS)),
    keras_counts: Sequence[int] | None = None,
    n_draws: int = 5,
    n_keras_draws: int = 2,
    is_fresh: bool = False,
    on_progress: OnProgress = silent,
) -> Curve:
    """Fit every candidate on nested draws of the images to learn from, and test each on the same test images.

    Parameters
    ----------
    data : Data
    layer : str, optional
        For the heads; `avg_pool` by default, or the only layer there is.
    heads, keras_modes : sequences of str
        Of ``heads.HEADS`` and `KERAS_MODES`.
    keras_options : dict, optional
        Fields of ``recipes.TrainSettings``.
    has_pixels : bool, default=True
        With logistic regression on raw pixels.
    counts : sequence of int
        Images a class, as `parse_counts` gives them.
    keras_counts : sequence of int, optional
        The same for networks, which are slow; `counts` by default.
    n_draws, n_keras_draws : int
        Draws for heads and for networks; all images there are make one draw.
    is_fresh : bool, default=False
        Fit again what an earlier command has fitted.

    Raises
    ------
    UsageError
        An unknown head, layer or way of training, or counts beyond what every class has.

    Notes
    -----
    All labelled images count, those too that Keras stops early on: 15 % of a draw, none below 10 images a class.
    A trial that is finished is on disk: a command that was stopped goes on behind it.
    """
    for head in heads:
        find_head(head)
    unknown = sorted(set(keras_modes) - set(KERAS_MODES))
    if unknown:
        raise UsageError(f"No Keras candidate '{unknown[0]}' in a curve. Known: {', '.join(KERAS_MODES)}.")
    if n_draws < 1 or n_keras_draws < 1:
        raise UsageError("--draws and --keras-draws are at least 1.")
    (layer,) = choose_layers(data.cache, layer)
    learn_at = data.split.where("train", "val")
    counts, notes = _within(counts, data.split, learn_at)
    keras_counts, _ = _within(keras_counts or counts, data.split, learn_at)
    book = _Book(data, learn_at, is_fresh, on_progress)
    if heads:
        rows = data.cache.read(layer, data.split.keys)
        for head in heads:
            settings = {"layer": layer, "grid": repr(find_head(head).family)}
            book.run(head, counts, n_draws, settings, _head_run(data, head, head, rows))
        del rows
    if has_pixels:
        with book.kept_going("pixels+logreg"), open_pixels(data, on_progress=on_progress) as small:
            pixel_rows = small.read("pixels", data.split.keys)
            run = _head_run(data, "pixels+logreg", "logreg", pixel_rows)
            settings = {"layer": "pixels", "grid": repr(find_head("logreg").family)}
            book.run("pixels+logreg", counts, n_draws, settings, run)
    for mode in keras_modes:
        with book.kept_going(f"keras-{mode}"):
            _run_keras(data, book, mode, keras_counts, n_keras_draws, keras_options or {}, on_progress)
    if not book.lines:
        reasons = " ".join(f"{name}: {why}" for name, why in book.skipped)
        raise DataError(f"No candidate could run. {reasons}" if reasons else "Nothing to measure: no candidate.")
    return Curve(
        data.cache.path,
        encoder_name(data.cache),
        layer,
        data.split.classes,
        data.split.info,
        n_draws,
        n_keras_draws,
        [
            count
            for count in _union(counts, keras_counts)
            if any(place.count == count for line in book.lines.values() for place in line)
        ],
        book.lines,
        book.n_reused,
        book.skipped,
        [*data.split.notes, *notes],
    )


def _within(counts: Sequence[int], split: Split, learn_at: Labels) -> tuple[list[int], list[str]]:
    """Drop the counts that are all images of every class, and say so."""
    n_of_class = np.bincount(split.labels[learn_at])
    least, most = int(n_of_class.min()), int(n_of_class.max())
    beyond = [count for count in counts if count >= most]
    kept = [count for count in counts if count < most]
    if not kept:
        raise UsageError(
            f"The largest class has {most:,} images to learn from; {', '.join(map(str, beyond))} a class are more than "
            f"there are. Ask for fewer, or for all."
        )
    notes = []
    if beyond:  # what was asked for is all there is: that is what it gets
        kept = kept if 0 in kept else [*kept, 0]
        notes.append(f"{', '.join(map(str, beyond))} images a class: no class has more than {most:,}, this is all")
    if least < most and 0 in kept:
        notes.append(f"all are {least:,} to {most:,} images a class, in proportions that balanced draws do not have")
    return kept, notes


def _head_run(data: Data, candidate: str, head: str, rows: Rows) -> _Run:
    split, test_at = data.split, data.split.where("test")

    def run(positions: Labels, count: int, draw: int) -> Trial:
        fitted = fit_head(head, rows[positions], split, positions, seed=data.seed)
        predicted = fitted.pipeline.classes_[predict_probabilities(fitted.pipeline, rows[test_at]).argmax(axis=1)]
        spent_s = fitted.search_s + fitted.fit_s
        right = _marks(predicted == split.labels[test_at])
        return Trial(candidate, count, draw, len(positions), right, spent_s, fitted.chosen, fitted.notes)

    return run


def _marks(is_right: npt.NDArray[np.bool_]) -> str:
    return "".join("01"[int(right)] for right in is_right)


def _run_keras(
    data: Data,
    book: _Book,
    mode: str,
    counts: Sequence[int],
    n_draws: int,
    options: dict[str, Any],
    on_progress: OnProgress,
) -> None:
    from tlfeat import finetune

    candidate = f"keras-{mode}"
    spec, split, test_at = spec_of(data.cache), data.split, data.split.where("test")
    train_settings = TrainSettings(mode=mode, **options)
    settings = {"train": {**train_settings.to_dict(), "seed": data.seed}, "val": [VAL_FRACTION, _MIN_FOR_VALIDATION]}
    size, resize = KerasEncoder(spec, ()).input_size, str(data.cache.fingerprint.get("resize"))
    images = data.cache.table.images
    with finetune.Sources(spec, images, split, size, resize, data.stem, embeddings=data.cache) as sources:

        def run(positions: Labels, count: int, draw: int) -> Trial:
            drawn = _for_keras(split, positions, count, seed=data.seed, draw=draw)
            seeded = replace(train_settings, seed=data.seed + draw)
            network = finetune.Network(spec, size, len(split.classes), seeded)
            trained = finetune.train(network, drawn, sources, on_progress=on_progress)
            if trained.is_interrupted:
                raise Interrupted("Stopped. Every draw that was finished is kept; the same command goes on from there.")
            pixels, is_there = sources.pixels().read(test_at)
            if not is_there.all():
                raise DataError("Test images cannot be read any more. Run the same tlfeat extract again.")
            predicted = finetune.predict_pixels(trained.model, pixels).argmax(axis=1)
            right = _marks(predicted == split.labels[test_at])
            return Trial(candidate, count, draw, len(positions), right, trained.fit_s, trained.chosen, trained.notes)

        book.run(candidate, counts, n_draws, settings, run)


def _for_keras(split: Split, positions: Labels, count: int, *, seed: int, draw: int) -> Split:
    """Return the split with the drawn images alone to learn from, some of them to stop early on."""
    if not count:
        return split
    roles = [role if role == "test" else "" for role in split.roles]
    n_train = count - round(VAL_FRACTION * count) if count >= _MIN_FOR_VALIDATION else count
    train = draw_per_class(split, positions, n_train, seed=seed, draw=draw)  # nested: part of `positions`
    for i in positions:
        roles[i] = "val"
    for i in train:
        roles[i] = "train"
    return replace(split, roles=roles)


class _Book:
    """Runs trials, writes each to disk when it is finished, and reads those that are there."""

    def __init__(self, data: Data, learn_at: Labels, is_fresh: bool, on_progress: OnProgress) -> None:
        self.data, self.learn_at = data, learn_at
        self.is_fresh, self.on_progress = is_fresh, on_progress
        self.lines: dict[str, list[Place]] = {}
        self.skipped: list[tuple[str, str]] = []
        self.n_reused = 0

    @contextmanager
    def kept_going(self, candidate: str) -> Iterator[None]:
        """List a candidate that cannot run with its reason; the others are not lost."""
        try:
            yield
        except Interrupted:
            raise
        except KnownError as error:
            self.skipped.append((candidate, str(error)))

    def run(self, candidate: str, counts: Sequence[int], n_draws: int, settings: dict[str, Any], run: _Run) -> None:
        """Bring one candidate's curve together; draw by draw, so that one that is stopped has whole curves."""
        plan = [(count, draw) for draw in range(n_draws) for count in counts if count or draw == 0]
        trials: dict[int, list[Trial]] = {count: [] for count in counts}
        failed: set[int] = set()
        for i, (count, draw) in enumerate(plan):
            self.on_progress(f"{candidate}: draws", i, len(plan))
            if count not in failed:
                failed.add(count)
                with self.kept_going(candidate if not count else f"{candidate} on {count} a class"):
                    trials[count].append(self._trial(candidate, count, draw, settings, run))
                    failed.discard(count)
        places = [
            Place(count, float(np.mean([trial.n_labels for trial in trials[count]])), trials[count])
            for count in counts
            if count not in failed
        ]
        if places:
            self.lines[candidate] = places

    def _trial(self, candidate: str, count: int, draw: int, settings: dict[str, Any], run: _Run) -> Trial:
        split, seed = self.data.split, self.data.seed
        at = draw_per_class(split, self.learn_at, count, seed=seed, draw=draw) if count else self.learn_at
        learned = "\n".join(split.keys[i] for i in at)
        identity = workspace.digest(
            {
                "settings": settings,
                "fingerprint": self.data.cache.fingerprint,
                "split": split.info.to_dict(),
                "seed": seed,
                "learned": hashlib.sha256(learned.encode()).hexdigest(),
                "version": [_FORMAT_VERSION, distribution_version("tlfeat")],
            },
            16,
        )
        name = f"{candidate}-{count or 'all'}-{draw}-{identity}.json"
        file = workspace.CACHE_DIR / "curves" / self.data.stem / name
        if not self.is_fresh and (known := _known_trial(file)) is not None:
            self.n_reused += 1
            return known
        trial = run(at, count, draw)
        write_json(file, trial.to_dict())
        return trial


def _known_trial(file: Path) -> Trial | None:
    try:
        return Trial.from_dict(read_json(file)) if file.exists() else None
    except (DataError, TypeError, AttributeError):
        return None  # damaged: fit again


# --- labels for equal accuracy --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Saving(Record):
    """How many labels two candidates need for the same accuracy.

    Attributes
    ----------
    accuracy : float
        That both reach; that `thrifty` alone reaches, where `is_never`.
    thrifty_labels, other_labels : float
        In all classes together; interpolated in the logarithm on monotone mean curves.
    is_first : bool
        Whether `thrifty` has it with the fewest labels that were tried: it may need fewer.
    is_never : bool
        Whether `other` does not reach it with all its labels: it needs more.
    interval : tuple of float, optional
        95 % interval of `times_fewer`; see `savings`.
    """

    thrifty: str
    other: str
    accuracy: float
    thrifty_labels: float
    other_labels: float
    is_first: bool = False
    is_never: bool = False
    interval: tuple[float, float] | None = None

    @property
    def times_fewer(self) -> float:
        """Labels of the other per label of the thrifty one."""
        return self.other_labels / self.thrifty_labels


def labels_saved(
    one: str, ones: Sequence[tuple[float, float]], other: str, others: Sequence[tuple[float, float]]
) -> Saving:
    """Compare two curves of (labels, mean accuracy) at the highest accuracy that both reach.

    Where the worse one does not reach, with all labels, what the better one has with its fewest, that stands instead.
    Means are made monotone by isotonic regression before: more labels never count as worse.
    """
    one_curve, other_curve = _monotone(ones), _monotone(others)
    level = min(one_curve[-1][1], other_curve[-1][1])
    needed = [
        (labels_needed(one_curve, level), one, one_curve),
        (labels_needed(other_curve, level), other, other_curve),
    ]
    (n_few, thrifty, few), (n_many, wasteful, many) = sorted(needed, key=lambda entry: entry[0])
    if few[0][1] > many[-1][1]:
        return Saving(thrifty, wasteful, few[0][1], few[0][0], many[-1][0], is_never=True)
    return Saving(thrifty, wasteful, level, n_few, n_many, is_first=n_few == few[0][0])


def _monotone(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    from scipy.optimize import isotonic_regression

    ordered = sorted(curve)
    means = isotonic_regression([mean for _, mean in ordered]).x
    return [(n, float(mean)) for (n, _), mean in zip(ordered, means, strict=True)]


def labels_needed(curve: Sequence[tuple[float, float]], accuracy: float) -> float:
    """Return where a monotone curve of (labels, accuracy) reaches `accuracy`, straight in the logarithm of labels.

    The first number of labels, where that is enough; infinity, where all are not.
    """
    before = curve[0]
    if before[1] >= accuracy:
        return before[0]
    for after in curve[1:]:
        if after[1] >= accuracy:
            share = (accuracy - before[1]) / (after[1] - before[1])
            return float(before[0] * (after[0] / before[0]) ** share)
        before = after
    return math.inf


def savings(curve: Curve) -> list[Saving]:
    """Return the first candidate compared with each of the others.

    Notes
    -----
    The interval is a percentile bootstrap over draws (whole curves of them, as they are nested) and test images, the
    same resampled ones for both candidates; Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    It holds no more than the draws and test images do: with one or two draws, next to nothing of their spread.
    """
    first, *others = curve.lines
    found = []
    for other in others:
        ones, more = curve.lines[first], curve.lines[other]
        saved = labels_saved(first, _means(ones), other, _means(more))
        rng = np.random.default_rng(curve.split.seed)
        ratios = []
        for _ in range(_N_RESAMPLES):
            images = rng.multinomial(curve.split.n_test, np.full(curve.split.n_test, 1 / curve.split.n_test))
            draws = rng.random(max(curve.n_draws, curve.n_keras_draws))
            again = labels_saved(first, _means(ones, images, draws), other, _means(more, images, draws))
            ratios.append(again.times_fewer if again.thrifty == saved.thrifty else 1 / again.times_fewer)
        low, high = np.percentile(ratios, [2.5, 97.5])
        found.append(replace(saved, interval=(float(low), float(high))))
    return found


def _means(
    line: Sequence[Place], images: npt.NDArray[np.int64] | None = None, draws: npt.NDArray[np.float64] | None = None
) -> list[tuple[float, float]]:
    """Return (labels, mean accuracy); of resampled test images (how often each) and draws (from 0 to 1) if given."""
    if images is None or draws is None:
        return [(place.n_labels, place.mean) for place in line]
    found = []
    for place in line:
        n = len(place.trials)
        chosen = place.right[(draws[:n] * n).astype(np.int64)]
        found.append((place.n_labels, float((chosen @ images).mean() / images.sum())))
    return found


def saving_text(saving: Saving, n_classes: int, names: dict[str, str]) -> str:
    """Return one comparison as a sentence; `names` are what candidates are called in it."""

    def amount(n_labels: float) -> str:
        a_class = _few(n_labels / n_classes)
        return f"{a_class} image{'s' * (a_class != '1')} a class ({counted(round(n_labels), 'label')})"

    thrifty, other = names.get(saving.thrifty, saving.thrifty), names.get(saving.other, saving.other)
    few, many, accuracy = amount(saving.thrifty_labels), amount(saving.other_labels), percent(saving.accuracy)
    times = _few(saving.times_fewer)
    if saving.times_fewer < _ABOUT_EQUAL:
        return f"{thrifty} and {other} need about as many labels for {accuracy}: {few}."
    noise = ""
    if saving.interval is not None:
        low, high = saving.interval
        noise = f" (95 % interval {_few(low)} to {_few(high)}{', within noise' if low <= 1 else ''})"
    if saving.is_never:
        return (
            f"{thrifty} has {accuracy} with {few}, which {other} does not reach with {many}: more than {times} times "
            f"fewer labels{noise}."
        )
    times = f"at least {times}" if saving.is_first else times
    return (
        f"{thrifty} reaches with {few} what {other} reaches with {many}, {accuracy}: {times} times fewer labels{noise}."
    )


def _few(n: float) -> str:
    return f"{n:.1f}".removesuffix(".0") if n < 10 else f"{n:,.0f}"


# --- words, chart, table --------------------------------------------------------------------------------------


def finding(curve: Curve) -> Finding:
    """Return words, chart, table and records of the curves."""
    n_classes = len(curve.classes)
    names = {
        name: name if "+" in name or name.startswith("keras-") else f"{name} on {curve.layer}" for name in curve.lines
    }
    labels = {place.count: place.n_labels for line in curve.lines.values() for place in line}
    saved = savings(curve)
    return Finding(
        name="curve",
        title=f"{curve.cache.stem}: how many labels with {curve.backbone}",
        sentences=[saving_text(saving, n_classes, names) for saving in saved] or [_alone(curve)],
        chart=Chart(
            "labelled images a class",
            [(labels[n] / n_classes, str(n) if n else f"all ({_few(labels[n] / n_classes)})") for n in curve.counts],
            [
                Series(
                    name,
                    [
                        Point(
                            place.n_labels / n_classes,
                            place.mean,
                            *mean_interval(place.accuracies),
                            f"{name}, {place.count or 'all'} a class: {percent(place.mean)}",
                        )
                        for place in line
                    ],
                )
                for name, line in curve.lines.items()
            ],
            is_log_x=True,
        ),
        headings=("images a class", "labels", *curve.lines),
        rows=[
            (str(count or "all"), f"{labels[count]:,.0f}", *(_cell(line, count) for line in curve.lines.values()))
            for count in curve.counts
        ],
        legend=_legend(curve),
        records=[_flat(name, place, n_classes) for name, line in curve.lines.items() for place in line],
        about={
            "cache": str(curve.cache),
            "backbone": curve.backbone,
            "layer": curve.layer,
            "labels_saved": [{**saving.to_dict(), "times_fewer": saving.times_fewer} for saving in saved],
            "split": curve.split.to_dict(),
            "skipped": [list(pair) for pair in curve.skipped],
            "environment": Environment.current().to_dict(),
        },
    )


def _alone(curve: Curve) -> str:
    ((name, line),) = curve.lines.items()
    n = counted(round(line[-1].n_labels), "label")
    return f"{name} has {percent(line[-1].mean)} with {n}; there is nothing to compare it with."


def _cell(line: Sequence[Place], count: int) -> str:
    place = next((place for place in line if place.count == count), None)
    if place is None:
        return "–"
    low, high = mean_interval(place.accuracies)
    return percent(place.mean) if len(place.trials) < 2 else f"{100 * place.mean:.1f} ± {50 * (high - low):.1f} %"


def _flat(name: str, place: Place, n_classes: int) -> dict[str, Any]:
    low, high = mean_interval(place.accuracies)
    return {
        "model": name,
        "count": place.count or "all",
        "n_labels": place.n_labels,
        "images_per_class": place.n_labels / n_classes,
        "n_draws": len(place.trials),
        "accuracy": place.mean,
        "draws95_low": low,
        "draws95_high": high,
        "fit_s": float(np.mean([trial.fit_s for trial in place.trials])),
        "n_test": len(place.trials[0].right),
        "accuracies": place.accuracies,
    }


def _legend(curve: Curve) -> list[str]:
    split = curve.split
    best = max(line[-1].mean for line in curve.lines.values())
    low, high = wilson_interval(round(best * split.n_test), split.n_test)
    has_keras = any(name.startswith("keras-") for name in curve.lines)
    places = [place for line in curve.lines.values() for place in line]
    off = [place for place in places if place.count and place.n_labels != place.count * len(curve.classes)]
    draws = f"{curve.n_draws} draws" + (f" ({curve.n_keras_draws} for networks)" if has_keras else "")
    return [
        f"Mean over {draws} of the {split.n_train + split.n_val:,} images to learn from, ± the 95 % t-interval of that "
        "mean (band); all of them are one draw, without a band. Draws are nested and seeded; large ones overlap.",
        f"All on the same {split.n_test:,} test images (split: {split.origin}, seed {split.seed}). Their own "
        f"error is not in the bands: it leaves {percent(best)} between {100 * low:.1f} and {100 * high:.1f}.",
        "Heads choose parameters by cross-validation on the draw; with 1 image a class there is none: defaults.",
        "Labels for equal accuracy: interpolated in the logarithm on mean curves made monotone (isotonic regression); "
        "where curves are flat, a small difference in accuracy is a large one in labels. Its interval: bootstrap over "
        "draws and test images.",
        *(
            [
                "Networks: every labelled image counts, those too that training stops early on "
                f"({100 * VAL_FRACTION:.0f} %; none below {_MIN_FOR_VALIDATION} a class: the training loss stops it)."
            ]
            if has_keras
            else []
        ),
        *(["Groups stay whole and classes give what they have: see labels for what was drawn."] if off else []),
        *(f"not run: {name}: {why}" for name, why in curve.skipped),
        *(f"note: {note}" for note in curve.notes),
    ]


def keras_estimate_s(data: Data, counts: Sequence[int], n_draws: int) -> float | None:
    """Return at most about how long `KERAS_MODES` would train, from the seconds an image took to embed.

    A frozen network runs forwards for 500 steps of 32 images or 20 epochs, one from scratch forwards and backwards,
    three times as much, for 800 steps or 30 epochs; early stopping often halves that, other work on the cores doubles
    it.
    """
    timing = data.cache.timing
    if not timing["n_embedded"] or data.cache.source.get("encoder", {}).get("backbone") in (None, "pixels", "imported"):
        return None
    image_s, learn_at = timing["embed_s"] / timing["n_embedded"], data.split.where("train", "val")
    spent = 0.0
    for count in counts:
        at = draw_per_class(data.split, learn_at, count, seed=data.seed, draw=0) if count else learn_at
        for mode in KERAS_MODES:
            phase = TrainSettings(mode=mode).phases(len(at))[-1]
            epoch_s = _EPOCH_S + phase.passes * len(at) * image_s * (3 if mode == "scratch" else 1)
            spent += (n_draws if count else 1) * phase.epochs * epoch_s
    return spent


def keras_hint(data: Data, counts: Sequence[int], n_draws: int) -> str:
    """Return the next step in words: the same curve with networks, and how long it takes; "" where there is none."""
    spent_s = keras_estimate_s(data, counts, n_draws)
    return (
        f"Next: --keras frozen,scratch adds networks, {n_draws} draws (at most about {seconds(spent_s)}; "
        "Ctrl-C keeps what is finished)"
        if spent_s
        else ""
    )
