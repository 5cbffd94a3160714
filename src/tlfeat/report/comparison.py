"""A comparison as text: terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlfeat.evaluate.calibration import calibration_text
from tlfeat.evaluate.domains import domain_lines, domain_name, shown_domains
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.scores import confused_pairs, guessing_sentence
from tlfeat.heads.reject import reference_text
from tlfeat.records import BASELINE_LAYERS, Result
from tlfeat.studies.showing import difference_text
from tlfeat.studies.tradeoff import break_evens, frontier, seconds_of
from tlfeat.text import (
    aligned,
    counted,
    csv_text,
    in_markdown,
    interval_text,
    markdown_table,
    percent,
    seconds,
    size,
    value_text,
)
from tlfeat.workspace import write_json, write_text

if TYPE_CHECKING:
    from tlfeat.studies.compare import Comparison, Line

#: A wider confusion matrix does not fit a terminal; the most confused pairs are shown instead.
_MAX_CONFUSION_COLUMNS = 15

_HEADINGS = ("model", "accuracy", "95 % interval", "macro F1", "fit", "image", "size", "against the best")


#: What a narrow terminal leaves out first.
_DROPPABLE = ("macro F1", "size", "image", "fit")

_DROPPABLE_OF_DOMAINS = ("lowest of all", "highest of all")


def terminal_text(comparison: Comparison, width: int | None = None) -> str:
    """Return what ``compare`` prints: the table as wide as the terminal allows, and three lines of notes."""
    headings, rows = table_rows(comparison)
    if width is not None and len(aligned(headings, rows).partition("\n")[0]) > width:
        rows = [(*row[:-1], _short_verdict(line, row[-1])) for line, row in zip(comparison.lines, rows, strict=True)]
    table = aligned(headings, rows, width=width, droppable=_DROPPABLE)
    domains = domain_table(comparison.lines)
    by_domain = [aligned(*domains, width=width, droppable=_DROPPABLE_OF_DOMAINS), ""] if domains else []
    return "\n".join([table, "", *by_domain, *_short_legend(comparison)])


def _short_verdict(line: Line, verdict: str) -> str:
    if verdict == "best":
        return verdict
    return f"{_points_of(line.difference)}, {'within noise' if line.is_within_noise else 'worse'}"


def _short_legend(comparison: Comparison) -> list[str]:
    """Return three lines; `legend` has all."""
    split, leaks = comparison.split, comparison.lines[0].result.leaks
    n_leaks = split.n_test - n_scored(comparison)
    left_out = f" ({counted(n_leaks, 'leak')} left out)" if leaks and n_leaks else ""
    extraction = _extraction(comparison)
    return [
        f"{n_scored(comparison):,} test images{left_out}, {split.n_train + split.n_val:,} training images. "
        + (f"Extraction, once for all heads: {seconds(extraction)}." if extraction else ""),
        "fit: choosing parameters and fitting, without extraction. image: from file to probabilities, in a batch.",
        "within noise: these test images cannot tell it from the best (p >= 0.05). All notes: -v, or the report.",
    ]


def _extraction(comparison: Comparison) -> float | None:
    """Return the seconds of extraction, once for all heads."""
    heads = (
        line.result
        for line in comparison.lines
        if line.result.kind == "head" and line.result.layer not in BASELINE_LAYERS
    )
    return next((result.timing.extract_s for result in heads if result.timing.extract_s), None)


def result_text(result: Result, command_s: float | None = None, width: int | None = None) -> str:
    """Return what ``fit-sklearn`` and ``fit-keras`` print: scores, confusion matrix, times.

    Parameters
    ----------
    result : Result
    command_s : float, optional
        Wall seconds of the command that fitted a head, from its start: what no other time names is named too.
    width : int, optional
        Of the terminal: a confusion matrix that does not fit becomes the pairs most confused.
    """
    found, timing = result.score, result.timing
    chosen = ", ".join(f"{name} {value_text(value)}" for name, value in result.chosen.items())
    of_keras = result.kind == "keras"
    before = [
        ("extract", timing.extract_s, "all images, once for all heads"),
        ("decode", timing.decode_s, "all images, once"),
    ]
    parts = [
        ("leaks", timing.leaks_s, "once for all heads of a comparison"),
        ("search", timing.search_s, "cross-validation"),
        ("fit", timing.fit_s, "all epochs, validation included" if of_keras else "final fit"),
        ("reject", timing.reject_s, "thresholds"),
    ]
    if command_s is not None:
        named_s = sum(s or 0.0 for _, s, _ in parts)
        parts.append(("rest", max(command_s - named_s, 0.0), "starting Python, reading, scoring, saving"))
    after = [("predict", timing.predict_s_per_image, "an image, decoding included" if of_keras else "a row")]
    times = [*before, *parts, *after]
    confusion = [[name, *row] for name, row in zip(result.classes, found.confusion, strict=True)]
    lines = [
        f"{result.candidate}{' on ' + result.layer if result.layer else ''} of {result.backbone}",
        f"  test images        {found.n_images:,} ({result.split.n_train + result.split.n_val:,} training images; "
        f"split {result.split.origin}, seed {result.split.seed})",
        f"  accuracy           {percent(found.accuracy)}  (95 % interval {interval_text(found.ci95)})",
        *_leak_lines(result),
        f"  balanced accuracy  {percent(found.balanced_accuracy)}{_interval(found.balanced_accuracy_ci95, 100, 1)}",
        f"  macro F1           {found.macro_f1:.3f}{_interval(found.macro_f1_ci95, 1, 3)}",
        *_domain_lines(result),
        *([f"  with --reject      {coverage_text(result)}"] if result.coverage else []),
        *([f"                     {reference_text(result.reference)}"] if result.reference else []),
        *([f"  calibration        {calibration_text(found.calibration)}"] if found.calibration else []),
        "  times              " + ", ".join(f"{n} {seconds(s)} ({what})" for n, s, what in times if s is not None),
        *([f"  whole command      {seconds(command_s)}: leaks to rest"] if command_s is not None else []),
        *([f"  chosen             {chosen}"] if chosen else []),
    ]
    matrix = aligned(("true \\ predicted", *result.classes), confusion)
    if len(result.classes) <= _MAX_CONFUSION_COLUMNS and (width is None or len(matrix.partition("\n")[0]) <= width):
        return "\n".join([*lines, "", matrix])
    pairs = [(p["true"], p["predicted"], p["n"]) for p in confused_pairs(found, result.classes, n=10)]
    if not pairs:
        return "\n".join([*lines, "", "No test image was given a wrong class."])
    return "\n".join([*lines, "", aligned(("true", "predicted", "images"), pairs, n_left=2)])


def _interval(interval: tuple[float, float] | None, scale: int, n_digits: int) -> str:
    if interval is None:
        return ""
    low, high = (f"{scale * end:.{n_digits}f}" for end in interval)
    return f"  (95 % interval {low} to {high})"


def coverage_text(result: Result) -> str:
    """Return how many test images are answered at each coverage, and how many of the answers are right."""
    return ", ".join(
        f"{100 * c['answered']:.0f} % answered: "
        + ("–" if c["accuracy"] is None else f"{100 * c['accuracy']:.1f} % right")
        for c in result.coverage
        if c["asked"] < 1
    )


def _domain_lines(result: Result) -> list[str]:
    heads = ["by domain", *[""] * len(result.by_domain)]
    return [f"  {head:<17}  {line}" for head, line in zip(heads, domain_lines(result.by_domain), strict=False)]


def _leak_lines(result: Result) -> list[str]:
    if result.leaks is None or not result.leaks.images:
        return []
    return [f"  {leak_sentence(result.leaks)}"]


def _cells(line: Line) -> tuple[str, ...]:
    result = line.result
    return (
        line.name,
        percent(result.score.accuracy),
        interval_text(result.score.ci95),
        f"{result.score.macro_f1:.3f}",
        seconds(seconds_of(result, "choosing and fitting")),
        seconds(line.image_s),
        size(result.model_bytes),
        f"{difference_text(line)}, {verdict_text(line)}",
    )


def p_text(line: Line) -> str:
    """Return what the test says: "within noise", or "worse" with the p-value in two digits."""
    if line.is_within_noise:
        return "within noise"
    return "worse, p < 0.001" if line.p_value < 0.001 else f"worse, p = {line.p_value:.2g}"


def verdict_text(line: Line) -> str:
    """Return what the test says, and whether the candidate only guesses."""
    guesses = guessing_sentence(line.result.score, line.result.classes, name="")
    return p_text(line) + (", no better than guessing" if guesses else "")


def _points_of(share: float) -> str:
    """Return a difference of shares in percentage points."""
    return f"{100 * share:+.1f}"


def table_rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells, best candidate first (its last cell says "best")."""
    rows = [_cells(line) for line in comparison.lines]
    rows[0] = (*rows[0][:-1], "best")
    return _HEADINGS, rows


def domain_table(lines: Sequence[Line]) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Return headings and cells of the accuracy by domain of the first candidate; None for fewer than two domains.

    Of many domains there are those in which it is least accurate.
    """
    best = lines[0].result
    if len(best.by_domain) < 2:
        return None
    of_all = [{of["domain"]: of["accuracy"] for of in line.result.by_domain} for line in lines]
    rows: list[tuple[str, ...]] = []
    for of in shown_domains(best.by_domain):
        others = [found[of["domain"]] for found in of_all if of["domain"] in found]
        cells = (f"{of['n']:,}", percent(of["accuracy"]), interval_text(of["ci95"]))
        rows.append((domain_name(of), *cells, percent(min(others)), percent(max(others))))
    if n_more := len(best.by_domain) - len(rows):
        rows.append((f"and {n_more:,} more", *[""] * 5))
    return ("domain", "test images", lines[0].name, "95 % interval", "lowest of all", "highest of all"), rows


def n_scored(comparison: Comparison) -> int:
    """Return on how many test images the candidates were scored."""
    return comparison.lines[0].result.score.n_images


def leak_footnote(comparison: Comparison) -> list[str]:
    """Return what the leaks are and the accuracies with them, in one sentence; none where there are no leaks."""
    leaks = comparison.lines[0].result.leaks
    if leaks is None or not (leaks.images and leaks.n_test):
        return []
    with_them = [
        f"{line.name} {percent(line.result.leaks.accuracy_with)}"
        for line in comparison.lines
        if line.result.leaks and line.result.leaks.accuracy_with is not None
    ]
    n, n_test = len(leaks.images), comparison.split.n_test
    return [
        f"Leaks: {counted(n, 'test image')} of {n_test:,} show a picture of the training images and are left out of "
        f"every number here. With them: {', '.join(with_them)}."
    ]


def legend(comparison: Comparison) -> list[str]:
    """Return the sentences that say what the numbers of the table include."""
    split = comparison.split
    extract_s = _extraction(comparison)
    sentences = [
        f"{n_scored(comparison):,} test images, used for nothing else; {split.n_train + split.n_val:,} training images "
        f"({split.n_val:,} of them are the validation images of Keras; heads cross-validate on all). Split: "
        f"{split.origin}, seed {split.seed}.",
        "fit: choosing parameters and fitting, without extraction. For Keras: all epochs with validation, decoding in "
        "the first one; where the frozen layers ran once, that is extraction and left out.",
        "image: one image from file to probabilities, in a batch, decoding and network included.",
        "against the best: difference in accuracy with its 95 % interval (Tango 1998), on the same test images. "
        "within noise: p >= 0.05 (McNemar's mid-p test, adjusted for the number of models after Holm). The best was "
        "chosen on these images, which flatters it a little.",
    ]
    if extract_s is not None:
        layers = sorted({line.result.layer for line in comparison.lines} - {"", *BASELINE_LAYERS})
        sentences.insert(
            1,
            f"Heads on {', '.join(layers)} of {comparison.backbone}. Extraction, once for all heads: "
            f"{seconds(extract_s)}.",
        )
    return [*sentences, *tradeoff_sentences(comparison), *leak_footnote(comparison)]


def tradeoff_sentences(comparison: Comparison) -> list[str]:
    """Return who is on the frontier of accuracy and seconds, and after how many trainings extraction has paid."""
    results = [line.result for line in comparison.lines]
    costs = [seconds_of(result, "choosing and fitting") for result in results]
    ahead = frontier(list(zip(costs, [result.score.accuracy for result in results], strict=True)))
    names = [line.name for line, is_ahead in zip(comparison.lines, ahead, strict=True) if is_ahead]
    sentences = [f"frontier: none is both faster to fit and more accurate than {', '.join(names)}."] if names else []
    evens = break_evens(results)
    if not evens:
        return sentences
    head = comparison.lines[evens[0].head]
    told = ", ".join(
        f"{comparison.lines[even.keras].name} "
        + ("never" if even.n_trainings is None else f"after {counted(even.n_trainings, 'training')}")
        for even in evens
    )
    return [
        *sentences,
        f"break-even: extraction ({seconds(head.result.timing.extract_s)}, once) and a fit of {head.name} each time "
        f"({seconds(seconds_of(head.result, 'choosing and fitting'))}) cost less than training in Keras each "
        f"time and decoding (or extraction up to its cut) once: {told}.",
    ]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table with its legend."""
    headings, rows = table_rows(comparison)
    lines = [
        f"# {in_markdown(comparison.cache.stem)}: {in_markdown(', '.join(comparison.classes))}",
        "",
        markdown_table(headings, rows),
        "",
        *([markdown_table(*by_domain), ""] if (by_domain := domain_table(comparison.lines)) else []),
        *(f"- {in_markdown(sentence)}" for sentence in legend(comparison)),
        *(f"- not run: {in_markdown(f'{name}: {why}')}" for name, why in comparison.skipped),
        *(f"- note: {in_markdown(note)}" for note in comparison.notes),
    ]
    return "\n".join(lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return one line a candidate, plain numbers, without the nested fields."""
    return csv_text([{**record, **_ends(record)} for record in (line.to_record() for line in comparison.lines)])


def _ends(record: dict[str, Any]) -> dict[str, float]:
    """Return the ends of every interval, and the plain numbers of the calibration, under names of their own."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if name.endswith("ci95") and value is not None:
            found |= {f"{name}_low": value[0], f"{name}_high": value[1]}
    for name, value in (record["calibration"] or {}).items():
        if isinstance(value, float):
            found[name] = value
    return found


def write_tables(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write comparison.md, .csv and .json into `folder` and return their paths by ending."""
    paths = {ending: folder / f"comparison.{ending}" for ending in ("md", "csv", "json")}
    write_text(paths["md"], to_markdown(comparison))
    write_text(paths["csv"], to_csv(comparison))
    write_json(paths["json"], [line.to_record() for line in comparison.lines])
    return paths
