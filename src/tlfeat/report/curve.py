"""A learning curve as sentences, table, chart and page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tlfeat.evaluate.data import Data
from tlfeat.evaluate.intervals import mean_interval, wilson_interval
from tlfeat.evaluate.split import VAL_FRACTION
from tlfeat.report.charts import Chart, Mark, percent_axis, series, tick_axis
from tlfeat.report.finding import Finding, about, remarks
from tlfeat.studies.curve import Curve, keras_estimate_s
from tlfeat.studies.doubling import Doubling, doublings
from tlfeat.studies.savings import Saving, savings
from tlfeat.studies.trials import MIN_FOR_VALIDATION, Place
from tlfeat.text import counted, interval_text, percent, seconds

#: Points of accuracy.
_WORTH_LABELLING = 0.5

#: Fewer times as many labels than that are called about as many.
_ABOUT_EQUAL = 1.1


def saving_text(saving: Saving, n_classes: int, names: dict[str, str]) -> str:
    """Return one comparison as a sentence; `names` are what candidates are called in it."""

    def amount(n_labels: float) -> str:
        a_class = _few(n_labels / n_classes)
        return f"{a_class} image{'s' * (a_class != '1')} a class ({counted(round(n_labels), 'label')})"

    thrifty, other = names.get(saving.thrifty, saving.thrifty), names.get(saving.other, saving.other)
    few, many, accuracy = amount(saving.thrifty_labels), amount(saving.other_labels), percent(saving.accuracy)
    times = _few(saving.times_fewer)
    low, high = saving.interval or (saving.times_fewer, saving.times_fewer)
    if saving.times_fewer < _ABOUT_EQUAL:
        return f"{thrifty} and {other} need about as many labels for {accuracy}: {few}."
    if low <= 1:
        return f"{thrifty} and {other} need as many labels for {accuracy} within noise: {few}."
    noise = f" (95 % interval {_few(low)} to {_few(high)})" if saving.interval else ""
    if saving.is_never:
        return (
            f"{thrifty} has {accuracy} with {few}, which {other} does not reach with {many}: more than {times} times "
            f"fewer labels{noise}."
        )
    times = f"at least {times}" if saving.is_first else times
    return (
        f"{thrifty} reaches with {few} what {other} reaches with {many}, {accuracy}: {times} times fewer labels{noise}."
    )


def doubling_text(forecast: Doubling, names: dict[str, str]) -> str:
    """Return a forecast as a sentence; `names` are what candidates are called in it."""
    name, n = names.get(forecast.candidate, forecast.candidate), round(forecast.n_labels)
    low, high = (100 * end for end in forecast.interval)
    said = (
        f"Twice the labels ({2 * n:,} in place of {n:,}) would bring {name} from {percent(forecast.accuracy)} to about "
        f"{percent(min(1.0, forecast.accuracy + forecast.gain))}: {100 * forecast.gain:+.1f} points (95 % interval "
        f"{low:+.1f} to {high:+.1f})"
    )
    return f"{said}." if high >= _WORTH_LABELLING else f"{said}. More images like these are not worth labelling."


def _few(n: float) -> str:
    return f"{n:.1f}".removesuffix(".0") if n < 10 else f"{n:,.0f}"


def curve_finding(curve: Curve) -> Finding:
    """Return words, chart, table and records of the curves."""
    n_classes = len(curve.classes)
    names = {
        name: name if "+" in name or name.startswith("keras-") else f"{name} on {curve.layer}" for name in curve.lines
    }
    labels = _labels(curve)
    saved, forecasts = savings(curve), doublings(curve)
    return Finding(
        name="curve",
        title=f"{curve.cache.stem}: how many labels with {curve.backbone}",
        sentences=[
            *(doubling_text(forecast, names) for forecast in forecasts[:1]),
            *([saving_text(saving, n_classes, names) for saving in saved] or [_alone(curve)]),
        ],
        chart=_chart(curve),
        headings=("images a class", "labels", *curve.lines),
        rows=[
            (str(count or "all"), f"{labels[count]:,.0f}", *(_cell(line, count) for line in curve.lines.values()))
            for count in curve.counts
        ],
        legend=_legend(curve),
        records=[_place_record(name, place, n_classes) for name, line in curve.lines.items() for place in line],
        about=about(
            curve,
            layer=curve.layer,
            doubling=[forecast.to_dict() for forecast in forecasts],
            labels_saved=[{**saving.to_dict(), "times_fewer": saving.times_fewer} for saving in saved],
        ),
    )


def _labels(curve: Curve) -> dict[int, float]:
    """Return the labels that a number of images a class makes."""
    return {place.count: place.n_labels for line in curve.lines.values() for place in line}


def _chart(curve: Curve) -> Chart:
    n_classes, labels = len(curve.classes), _labels(curve)
    ticks = [(labels[n] / n_classes, str(n) if n else f"all ({_few(labels[n] / n_classes)})") for n in curve.counts]
    lines, marks = [], []
    for i, (name, line) in enumerate(curve.lines.items()):
        drawn, its_marks = series(name, i, [_mark(name, place, n_classes) for place in line])
        lines.append(drawn)
        marks += its_marks
    ends = [end for line in curve.lines.values() for place in line for end in mean_interval(place.accuracies)]
    return Chart(
        "Accuracy against labelled images a class",
        tick_axis("labelled images a class", ticks, is_log=True),
        percent_axis("accuracy on test images", ends),
        marks,
        lines,
        width=760,
        height=420,
    )


def _mark(name: str, place: Place, n_classes: int) -> Mark:
    low, high = mean_interval(place.accuracies)
    says = f"{name}, {place.count or 'all'} a class: {percent(place.mean)}"
    return Mark(place.n_labels / n_classes, place.mean, says, low=low, high=high)


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


def _place_record(name: str, place: Place, n_classes: int) -> dict[str, Any]:
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
    has_keras = any(name.startswith("keras-") for name in curve.lines)
    places = [place for line in curve.lines.values() for place in line]
    is_uneven = any(place.count and place.n_labels != place.count * len(curve.classes) for place in places)
    draws = f"{curve.n_draws} draws" + (f" ({curve.n_keras_draws} for networks)" if has_keras else "")
    sentences = [
        f"Mean over {draws} of the {split.n_train + split.n_val:,} training images, ± the 95 % t-interval of that mean "
        "(band). All training images are one draw, without a band. Draws are nested and seeded; large ones overlap.",
        f"All on the same {curve.n_test:,} test images (split: {split.origin}, seed {split.seed}). The bands leave out "
        f"the error of the test set, which alone gives {percent(best)} a 95 % interval of "
        f"{interval_text(wilson_interval(round(best * curve.n_test), curve.n_test))}.",
        "Heads choose their parameters by cross-validation on the draw; with 1 image a class they take the defaults.",
        "Twice the labels: a straight line through the last four points of labels and error, in logarithms. Its "
        "interval: bootstrap over draws and test images, and half of the gain at either end, as curves are not that "
        "straight. It holds for more images like these.",
        "Labels for equal accuracy: interpolated in the logarithm on mean curves made monotone (isotonic regression); "
        "where curves are flat, a small difference in accuracy is a large one in labels. Its interval: bootstrap over "
        "draws and test images.",
    ]
    if has_keras:
        sentences.append(
            "Networks: every labelled image counts, those too that training stops early on "
            f"({100 * VAL_FRACTION:.0f} %; none below {MIN_FOR_VALIDATION} a class: the training loss stops it)."
        )
    if is_uneven:
        sentences.append("Groups stay whole and small classes give what they have: the labels say what was drawn.")
    return [*sentences, *remarks(curve, "not run")]


def keras_hint(data: Data, counts: Sequence[int], n_draws: int) -> str:
    """Return the next step in words: the same curve with networks, and how long it takes; "" where there is none."""
    spent_s = keras_estimate_s(data, counts, n_draws)
    return (
        f"Next: --keras frozen,scratch adds networks, {n_draws} draws (at most about {seconds(spent_s)}; "
        "Ctrl-C keeps what is finished)"
        if spent_s
        else ""
    )
