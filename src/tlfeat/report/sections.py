"""What each section of the page of a comparison says: sentences, cells and charts, ready for the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tlfeat.evaluate.calibration import calibration_text
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.domains import domain_name, shown_domains
from tlfeat.evaluate.scores import confused_pairs, guessing_sentence
from tlfeat.records import Environment, Result
from tlfeat.report.charts import Chart, to_svg
from tlfeat.report.commands import commands
from tlfeat.report.comparison import coverage_text, legend, n_scored, p_text
from tlfeat.report.drawings import accuracy_seconds, learning_curves, reliability, style_of
from tlfeat.report.embedding_map import KINDS, EmbeddingMap
from tlfeat.report.terms import explained, explanations
from tlfeat.report.verdict import page_rows, short_legend, verdict, warnings
from tlfeat.studies.compare import Comparison, Line
from tlfeat.studies.showing import difference_text
from tlfeat.studies.tradeoff import COSTS, seconds_of
from tlfeat.text import in_words_of, interval_text, one_line, percent, words_for

if TYPE_CHECKING:
    from markupsafe import Markup

#: Tables of classes beyond this many lines are left to comparison.json.
_MAX_CLASS_ROWS = 2000

#: Mistakes listed where scripts are off.
_MAX_MISTAKES = 20

#: Classes, and letters side by side, beyond which the headings of the confusion matrix stand upright.
_MANY_CLASSES, _MANY_LETTERS = 12, 100


#: Width and height of the chart of seconds on a screen and on a telephone, so that letters keep their size.
_WIDE, _NARROW = (760, 400), (340, 320)

#: Of the charts that stand side by side, or alone on a telephone.
_SMALL, _SQUARE = (340, 280), (380, 340)


def sections(
    comparison: Comparison, data: Data, found_map: EmbeddingMap | None, folded: Sequence[Line] = ()
) -> dict[str, Any]:
    """Return what the template wants besides the pictures; `folded` are the lines of a sweep, which stand apart."""
    results = [line.result for line in comparison.lines]
    holds = words_for(data.cache.table.images.holds, comparison.classes)
    in_words = partial(in_words_of, holds)
    headings, rows = page_rows(comparison)
    sweep = _sweep(folded, comparison)
    set_apart = {*warnings(comparison), *(sweep["notes"] if sweep else ())}
    return {
        "title": f"tlfeat: {one_line(comparison.cache.stem)}",
        "holds": holds,
        "counts": in_words(_counts(comparison)),
        "verdict": verdict(comparison),
        "explained": lambda text: explained(in_words(text)),
        "terms": [(element, word, in_words(meaning)) for element, word, meaning in explanations()],
        "n_test": f"{n_scored(comparison):,}",
        "headings": [in_words(name) for name in headings],
        "rows": rows,
        "short_legend": short_legend(comparison),
        "legend": legend(comparison),
        "skipped": [(name, in_words(why)) for name, why in comparison.skipped],
        "notes": [note for note in comparison.notes if note not in set_apart],
        "sweep": sweep,
        "candidates": [f"{line.name}, {percent(line.result.score.accuracy)}" for line in comparison.lines],
        "has_domains": any(data.split.domains),
        "domains": _domains(comparison.lines, in_words),
        "costs": _costs(comparison.lines, in_words),
        "curves": _curves(comparison.lines),
        "best": comparison.lines[0].name,
        "classes": results[0].classes,
        "confusion": results[0].score.confusion,
        "has_upright_names": has_upright_names(results[0].classes),
        "mistakes": _mistakes(results[0], data.scored_tests()),
        "has_reliability": results[0].score.calibration is not None,
        "details": _details(comparison.lines),
        "map": found_map and _map(found_map, in_words),
        **_origin(comparison, data, in_words),
    }


def _svg(chart: Chart, measures: tuple[int, int] | None = None) -> Markup:
    from markupsafe import Markup

    if measures:
        chart = replace(chart, width=measures[0], height=measures[1])
    return Markup(to_svg(chart))  # every text in it was escaped when it was drawn


def has_upright_names(classes: Sequence[str]) -> bool:
    """Whether the names of the columns of a confusion matrix are too wide to stand side by side."""
    return len(classes) > _MANY_CLASSES or len(classes) * max(map(len, classes)) > _MANY_LETTERS


def _counts(comparison: Comparison) -> str:
    split = comparison.split
    return (
        f"{len(comparison.classes):,} classes, {split.n_train + split.n_val:,} training images, "
        f"{n_scored(comparison):,} test images."
    )


def _sweep(folded: Sequence[Line], comparison: Comparison) -> dict[str, Any] | None:
    """Return the table of the layers that a sweep tried, the most accurate first, and the notes on these models."""
    if not folded:
        return None
    scores = [(line, line.result.score) for line in folded]
    guesses = {guessing_sentence(score, comparison.classes, name=line.name) for line, score in scores}
    return {
        "headings": ("head", "layer", "accuracy", "95 % interval", "against the best", "verdict"),
        "rows": [
            (
                line.result.candidate,
                line.result.layer,
                percent(score.accuracy),
                interval_text(score.ci95),
                difference_text(line),
                p_text(line),
            )
            for line, score in scores
        ],
        "notes": [note for note in comparison.notes if note in guesses],
    }


def _domains(lines: Sequence[Line], in_words: Callable[[str], str]) -> dict[str, Any] | None:
    """Return the table of accuracies by domain, a line a candidate; of many domains the lowest of the best candidate.

    Where there are fewer than two domains there is none.
    """
    best = lines[0].result.by_domain
    if len(best) < 2:
        return None
    shown = shown_domains(best)
    rows = []
    for line in lines:
        known = {of["domain"]: of for of in line.result.by_domain}
        found = [known.get(of["domain"]) for of in shown]
        rows.append((line.name, [(percent(of["accuracy"]), interval_text(of["ci95"])) if of else None for of in found]))
    few = (
        f"The {len(shown)} domains, of {len(best):,}, in which the interval of {lines[0].name} ends lowest; "
        f"all: comparison.json."
    )
    return {
        "headings": [
            (domain_name(of), in_words(f"{of['n']:,} test {'image' if of['n'] == 1 else 'images'}")) for of in shown
        ],
        "rows": rows,
        "note": few if len(shown) < len(best) else "",
    }


def _costs(lines: Sequence[Line], in_words: Callable[[str], str]) -> list[tuple[str, str, Markup, Markup]]:
    """Return (name, what it includes, chart for a screen, chart for a telephone) of every cost that is known."""
    known = [cost for cost in COSTS if any(seconds_of(line.result, cost) is not None for line in lines)]
    charts = [accuracy_seconds(lines, cost) for cost in known]
    charts = [replace(chart, y=replace(chart.y, label=in_words(chart.y.label))) for chart in charts]
    return [
        (in_words(cost), COSTS[cost], _svg(chart, _WIDE), _svg(chart, _NARROW))
        for cost, chart in zip(known, charts, strict=True)
    ]


def _curves(lines: Sequence[Line]) -> list[tuple[str, Any, list[tuple[str, Markup]]]]:
    """Return (candidate, chosen epoch, charts with their titles) of every candidate with a history."""
    return [
        (line.name, line.result.chosen.get("best_epoch"), [(chart.title, _svg(chart, _SMALL)) for chart in charts])
        for line in lines
        if (charts := learning_curves(line.result))
    ]


def _details(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return what is shown of one candidate at a time."""
    is_long = len(lines) * len(lines[0].result.classes) > _MAX_CLASS_ROWS
    return [
        {
            "name": line.name,
            "pairs": _pairs(line.result),
            "classes": [] if is_long and i else class_rows(line.result),
            **_reliability(line.result),
        }
        for i, line in enumerate(lines)
    ]


def _pairs(result: Result) -> list[tuple[int, int, str]]:
    """Return (row, column, sentence) of the cells of the confusion matrix that hold the most mistakes."""
    return [
        (
            result.classes.index(pair["true"]),
            result.classes.index(pair["predicted"]),
            f"{pair['n']} of class {pair['true']} predicted as {pair['predicted']}",
        )
        for pair in confused_pairs(result.score, result.classes)
    ]


def class_rows(result: Result) -> list[tuple[str, ...]]:
    """Return the cells of the table of classes."""
    return [
        (
            c["class"],
            f"{c['n']:,}",
            percent(c["recall"]),
            interval_text(c.get("recall_ci95")),
            percent(c["precision"]),
            interval_text(c.get("precision_ci95")),
            f"{c['f1']:.3f}",
        )
        for c in result.score.per_class
    ]


def _reliability(result: Result) -> dict[str, Any]:
    found = result.score.calibration
    if found is None:
        return {"reliability": None}
    rows = [
        (f"{row['n']:,}", percent(row["probability"]), percent(row["right"]), interval_text(row["right_ci95"]))
        for row in found.table
    ]
    return {
        "reliability": _svg(reliability(found, style_of(result)), _SQUARE),
        "calibration": calibration_text(found),
        "bins": rows,
    }


def _mistakes(result: Result, is_scored: npt.NDArray[np.bool_]) -> list[tuple[str, str, str, str]]:
    """Return (path, true, predicted, probability) of the most certain mistakes, the most certain first."""
    columns = zip(result.certainty, result.test_paths, result.true, result.predicted, strict=True)
    wrong = sorted((row for row in compress(columns, is_scored) if row[2] != row[3]), reverse=True)
    return [
        (path, result.classes[true], result.classes[predicted], percent(certainty))
        for certainty, path, true, predicted in wrong[:_MAX_MISTAKES]
    ]


def _map(found: EmbeddingMap, in_words: Callable[[str], str]) -> dict[str, Any]:
    """Return the words about the map; its points are drawn by the script, which moves and colours them."""
    n, n_images = len(found.at), found.n_images
    shown = (
        f"A seeded sample of {n:,} of {n_images:,} images, of each class and role the same share"
        if n < n_images
        else f"All {n:,} images"
    )
    return {
        "shown": f"{in_words(shown)}, by their rows of {found.layer}; labels had no part in it.",
        "explained": " and ".join(percent(share) for share in found.explained),
        "kinds": [(kind, KINDS[kind]) for kind in found.points],
    }


def _origin(comparison: Comparison, data: Data, in_words: Callable[[str], str]) -> dict[str, Any]:
    """Return how the comparison was made."""
    split = comparison.split
    share = f" (a share of {split.test_fraction})" if split.test_fraction else ""
    return {
        "split": f"Split {split.digest}: {split.origin}, seed {data.seed}, {split.n_train:,} training, "
        + in_words(f"{split.n_val:,} validation, {split.n_test:,} test images{share}."),
        "commands": commands(data.cache, [line.result for line in comparison.lines]),
        "settings": [
            (line.name, _indented(line.result.settings), _indented(line.result.chosen), coverage_text(line.result))
            for line in comparison.lines
        ],
        "environment": _indented(Environment.current().to_dict()),
        "environments": _environments(comparison.lines),
        "fingerprint": _indented(data.cache.fingerprint),
    }


def _indented(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, default=str)


def _environments(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return what the candidates were fitted with, one entry for all that were fitted alike."""
    names: dict[str, list[str]] = {}
    for line in lines:
        names.setdefault(_indented(line.result.environment.to_dict()), []).append(line.name)
    return [(", ".join(fitted), environment) for environment, fitted in names.items()]
