"""A comparison as text: terminal table, Markdown, CSV, JSON and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

from tlfeat.compare import Comparison, Line
from tlfeat.console import aligned
from tlfeat.evaluate import confused_pairs
from tlfeat.leaks import leak_sentence
from tlfeat.records import Environment, Result, write_json, write_text

#: A wider confusion matrix does not fit a terminal; the most confused pairs are shown instead.
_MAX_CONFUSION_COLUMNS = 15

_HEADINGS = ("model", "accuracy", "95 % interval", "macro F1", "fit", "image", "size", "against the best")


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Return a duration with a unit that keeps two or three digits."""
    if value is None:
        return "–"
    if value < 0.001:
        return f"{1e6 * value:.0f} µs"
    if value < 1:
        return f"{1e3 * value:.1f} ms" if value < 0.1 else f"{1e3 * value:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def size(n_bytes: int) -> str:
    """Return a number of bytes in kB or MB (powers of ten)."""
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:.1f} MB"


def result_text(result: Result) -> str:
    """Return what ``fit-sklearn`` and ``fit-keras`` print: scores, confusion matrix, times."""
    found, timing = result.score, result.timing
    low, high = found.ci95
    chosen = ", ".join(f"{name} {_short(value)}" for name, value in result.chosen.items())
    times = [
        ("extract", timing.extract_s, "all images, once for all heads"),
        ("decode", timing.decode_s, "all images, once"),
        ("search", timing.search_s, "cross-validation"),
        ("fit", timing.fit_s, "all epochs, validation included" if result.kind == "keras" else "final fit"),
        (
            "predict",
            timing.predict_s_per_image,
            "an image, decoding included" if result.kind == "keras" else "a row",
        ),
    ]
    confusion = [[name, *row] for name, row in zip(result.classes, found.confusion, strict=True)]
    lines = [
        f"{result.candidate}{' on ' + result.layer if result.layer else ''} of {result.backbone}",
        f"  test images        {result.split.n_test:,} (learned from {result.split.n_train + result.split.n_val:,}; "
        f"split {result.split.origin}, seed {result.split.seed})",
        f"  accuracy           {percent(found.accuracy)}  (95 % interval {100 * low:.1f} to {100 * high:.1f})",
        *_leak_lines(result),
        f"  balanced accuracy  {percent(found.balanced_accuracy)}",
        f"  macro F1           {found.macro_f1:.3f}",
        "  times              " + ", ".join(f"{n} {seconds(s)} ({what})" for n, s, what in times if s is not None),
        *([f"  chosen             {chosen}"] if chosen else []),
    ]
    if len(result.classes) <= _MAX_CONFUSION_COLUMNS:
        return "\n".join([*lines, "", aligned(("true \\ predicted", *result.classes), confusion)])
    pairs = [(p["true"], p["predicted"], p["n"]) for p in confused_pairs(found, result.classes, n=10)]
    return "\n".join([*lines, "", aligned(("true", "predicted", "images"), pairs, n_left=2)])


def _leak_lines(result: Result) -> list[str]:
    if result.leaks is None or not result.leaks.images:
        return []
    lines = [f"  {leak_sentence(result.leaks)}"]
    if result.leaks.accuracy is not None and result.leaks.ci95 is not None:
        low, high = result.leaks.ci95
        lines.append(
            f"  without leaks      {percent(result.leaks.accuracy)}  (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f}, {result.leaks.n_test:,} test images)"
        )
    return lines


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fit_s(line: Line) -> float:
    timing = line.result.timing
    return (timing.decode_s or 0.0) + (timing.search_s or 0.0) + (timing.fit_s or 0.0)


def _cells(line: Line) -> tuple[str, ...]:
    result, low_high = line.result, line.result.score.ci95
    if line.p_value == 1.0 and line.is_within_noise:
        verdict = "within noise"
    else:
        verdict = f"{'within noise' if line.is_within_noise else 'worse'}, p = {line.p_value:.2g}"
    return (
        result.candidate,
        percent(result.score.accuracy),
        f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f}",
        f"{result.score.macro_f1:.3f}",
        seconds(_fit_s(line)),
        seconds(line.image_s),
        size(result.model_bytes),
        verdict,
    )


def table_rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells, best candidate first (its last cell says "best").

    A column with the accuracy without leaks comes in where there are any.
    """
    rows = [_cells(line) for line in comparison.lines]
    rows[0] = (*rows[0][:-1], "best")
    if not _has_leaks(comparison):
        return _HEADINGS, rows
    without = [line.result.leaks.accuracy if line.result.leaks else None for line in comparison.lines]
    cells = ["–" if accuracy is None else percent(accuracy) for accuracy in without]
    return (*_HEADINGS[:3], "without leaks", *_HEADINGS[3:]), [
        (*row[:3], cell, *row[3:]) for row, cell in zip(rows, cells, strict=True)
    ]


def _has_leaks(comparison: Comparison) -> bool:
    leaks = comparison.lines[0].result.leaks
    return leaks is not None and bool(leaks.images)


def legend(comparison: Comparison) -> list[str]:
    """Return the sentences that say what the numbers of the table include."""
    split = comparison.split
    extract = next(
        (
            line.result.timing
            for line in comparison.lines
            if line.result.timing.extract_s and line.result.layer != "pixels"
        ),
        None,
    )
    sentences = [
        f"{split.n_test:,} test images that chose nothing; learned from {split.n_train + split.n_val:,} "
        f"({split.n_val:,} of them are what Keras stops early on; heads cross-validate on all). Split: "
        f"{split.origin}, seed {split.seed}.",
        "fit: choosing parameters and fitting, without extraction; for Keras decoding once and all epochs with "
        "validation.",
        "image: one image from file to probabilities in a batch, decoding and network included.",
        "against the best: exact McNemar test on the same test images, Holm-adjusted; within noise means p >= 0.05.",
    ]
    if extract is not None and extract.extract_s is not None:
        layers = sorted({line.result.layer for line in comparison.lines} - {"", "pixels"})
        sentences.insert(
            1,
            f"Heads on {', '.join(layers)} of {comparison.backbone}. Extraction, once for all heads: "
            f"{seconds(extract.extract_s)}.",
        )
    leaks = comparison.lines[0].result.leaks
    if leaks is not None and leaks.images:
        sentences.insert(
            1, f"{leak_sentence(leaks)} without leaks: accuracy on the other {leaks.n_test:,} test images."
        )
    return sentences


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table with its legend."""
    headings, rows = table_rows(comparison)
    lines = [
        f"# {comparison.cache.stem}: {', '.join(comparison.classes)}",
        "",
        "| " + " | ".join(headings) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {sentence}" for sentence in legend(comparison)),
        *(f"- not run: {name}: {why}" for name, why in comparison.skipped),
        *(f"- note: {note}" for note in comparison.notes),
    ]
    return "\n".join(lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return one line a candidate, plain numbers, without the nested fields."""
    records = [line.to_record() for line in comparison.lines]
    flat = [
        {
            name: value
            for name, value in {**r, "ci95_low": r["ci95"][0], "ci95_high": r["ci95"][1]}.items()
            if not isinstance(value, list | dict)
        }
        for r in records
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(flat[0]))
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def to_html(comparison: Comparison) -> str:
    """Return one page that needs nothing from elsewhere; every text in it is escaped."""
    import jinja2

    headings, rows = table_rows(comparison)
    best = comparison.lines[0].result
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        resources.files("tlfeat").joinpath("templates/report.html").read_text(encoding="utf-8")
    )
    mistakes = sorted(
        (
            (certainty, path, best.classes[true], best.classes[predicted])
            for certainty, path, true, predicted in zip(
                best.certainty, best.test_paths, best.true, best.predicted, strict=True
            )
            if true != predicted
        ),
        reverse=True,
    )
    page: str = template.render(
        title=f"tlfeat: {comparison.cache.stem}",
        comparison=comparison,
        headings=headings,
        rows=rows,
        legend=legend(comparison),
        best=best,
        pairs=confused_pairs(best.score, best.classes),
        mistakes=mistakes[:20],
        points=_points(comparison),
        environment=json.dumps(Environment.current().to_dict(), indent=1),
        fingerprint=json.dumps(best.fingerprint, indent=1),
        percent=percent,
    )
    return page


def _points(comparison: Comparison) -> dict[str, Any]:
    """Place every candidate in a chart of 640 x 310 units: seconds (log) to the right, accuracy upwards."""
    lines = comparison.lines
    xs = [math.log10(max(_fit_s(line), 1e-3)) for line in lines]
    intervals = [line.result.score.ci95 for line in lines]
    left, right = math.floor(min(xs)), math.floor(max(xs)) + 1
    step = next(s for s in (1, 2, 5, 10, 20) if s >= 20 * (max(h for _, h in intervals) - min(w for w, _ in intervals)))
    bottom = step * math.floor(100 * min(low for low, _ in intervals) / step)
    top = min(100, step * math.ceil(100 * max(high for _, high in intervals) / step))

    def x_of(power: float) -> float:
        return round(60 + 540 * (power - left) / (right - left), 1)

    def y_of(value: float) -> float:
        return round(270 - 250 * (100 * value - bottom) / (top - bottom), 1)

    candidates = [
        {
            "name": line.result.candidate,
            "kind": line.result.kind,
            "x": x_of(x),
            "y": y_of(line.result.score.accuracy),
            "low": y_of(low),
            "high": y_of(high),
            "text": f"{line.result.candidate}: {percent(line.result.score.accuracy)}, {seconds(_fit_s(line))}",
        }
        for line, x, (low, high) in zip(lines, xs, intervals, strict=True)
    ]
    return {
        "candidates": candidates,
        "x_ticks": [(x_of(power), f"{10.0**power:,.3g} s") for power in range(left, right + 1)],
        "y_ticks": [(y_of(tick / 100), f"{tick} %") for tick in range(bottom, top + 1, step)],
    }


def write_reports(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write comparison.md, .csv, .json and .html into `folder` and return their paths by ending."""
    paths = {ending: folder / f"comparison.{ending}" for ending in ("md", "csv", "json", "html")}
    write_text(paths["md"], to_markdown(comparison))
    write_text(paths["csv"], to_csv(comparison))
    write_json(paths["json"], [line.to_record() for line in comparison.lines])
    write_text(paths["html"], to_html(comparison))
    return paths
