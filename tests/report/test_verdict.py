"""What the page says in words, which lines it folds away, and the words that it explains."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from conftest import ROOT
from made_results import a_result, lined_up
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.heads.shift import shift_sentence
from tlfeat.records import Leaks, Result, Shift
from tlfeat.report.folding import fold_sweep
from tlfeat.report.terms import TERMS, explained, explanations
from tlfeat.report.verdict import page_rows, short_legend, verdict
from tlfeat.studies.compare import Comparison


def a_model(candidate: str, accuracy: float = 0.8125, *, n_bytes: int = 900_000, **more: Any) -> Result:
    """A Result that is better than guessing."""
    found = a_result(candidate, accuracy=accuracy, **more)
    return replace(found, model_bytes=n_bytes, score=replace(found.score, ci95=(0.71, 0.93)))


def lines_of(comparison: Comparison, **changes: Any) -> Comparison:
    """The same, with the second line changed."""
    first, second, *others = comparison.lines
    return replace(comparison, lines=[first, replace(second, **changes), *others])


BEST = a_model("svm", search_s=20.0, fit_s=1.5)
NEAR = a_model("knn", 0.79, search_s=1.0, fit_s=0.5, n_bytes=950_000)
FAR = a_model("pixels+logreg", 0.61, layer="pixels", fit_s=7.0, n_bytes=300_000)


def test_the_verdict_names_the_best_and_what_is_as_good_but_faster() -> None:
    found = verdict(lined_up(BEST, NEAR, FAR))
    assert found.take == "svm" and found.warnings == []
    assert found.why == "It is right on 81.2 % of 5 test images, the most of 3 models; 95 % interval: 71.0 to 93.0."
    others, networks, confused = found.others
    assert others == (
        "1 of the 2 others is within noise of it; the fastest to fit is knn: 1.5 s against 21.5 s, 79.0 % right."
    )
    assert networks == "No network was trained in Keras to compare it with."
    assert confused == "It is wrong on 3 test images, most often by taking b for a: 2 of 3 images of b."


@pytest.mark.parametrize(
    ("results", "changes", "says"),
    [
        pytest.param((NEAR, BEST), {}, "The other one, svm, is within noise of it; none of these is faster to fit "
                     "(1.5 s).", id="the best is the fastest"),
        pytest.param((BEST, replace(NEAR, model_bytes=400_000), a_model("lda", 0.78, fit_s=0.25)), {},
                     "1 of the 2 others is within noise of it; the fastest to fit is knn: 1.5 s against 21.5 s, 79.0 % "
                     "right.", id="fastest and smallest"),
        pytest.param((BEST, FAR), {"is_within_noise": False}, "pixels+logreg is 1.0 points behind, more than noise.",
                     id="one that is worse"),
        pytest.param((BEST, FAR, NEAR), {"is_within_noise": False}, "None of the 2 others is within noise of it: "
                     "pixels+logreg, the next, is 1.0 points behind.", id="all are worse"),
        pytest.param((BEST, a_model("lda", 0.8), NEAR), {}, "1 of the 2 others is within noise of it.", id="no times"),
        pytest.param((BEST, a_model("knn", 0.79, n_bytes=400_000, fit_s=30.0)), {},
                     "The other one, knn, is within noise of it; none of these is faster to fit (21.5 s); the smallest "
                     "is knn: 400 kB against 900 kB.", id="smaller"),
    ],
)  # fmt: skip
def test_other_models_are_put_in_words(results: tuple[Result, ...], changes: dict[str, Any], says: str) -> None:
    assert verdict(lines_of(lined_up(*results), **changes)).others[0] == says


def test_networks_are_told_against_the_best_head_and_a_head_against_the_best_network() -> None:
    tuned = a_model("keras-finetuned", 0.79, kind="keras", settings={"mode": "finetuned"}, fit_s=97.0)
    scratch = a_model("keras-scratch", 0.5, kind="keras", settings={"mode": "scratch"}, fit_s=400.0)
    assert verdict(lined_up(BEST, tuned, scratch)).others[1] == (
        "Networks in Keras against it: fine-tuning -1.0 points (-2.0 to +0.5), within noise, fitted in 97.0 s; "
        "training from scratch -2.0 points (-4.0 to +1.0), worse, p = 0.12, fitted in 6.7 min. It was fitted in 21.5 s."
    )
    assert verdict(lined_up(tuned, BEST)).others[1] == (
        "The best head, svm (81.2 %): -1.0 points (-2.0 to +0.5), within noise, fitted in 21.5 s, not in 97.0 s."
    )


def test_leaks_and_a_shift_are_warnings_and_other_notes_are_none() -> None:
    leak = {"test": "t.png", "learned": "l.png", "kind": "bytes", "similarity": 1.0}
    leaks = Leaks([leak], 5, 0.8, (0.6, 0.9), 0.9, (0.7, 0.97))
    best = replace(BEST, leaks=leaks, shift=Shift(0.97, 0.95, 0.25, (0.11, 0.4)))
    notes = [leak_sentence(leaks), shift_sentence(best.shift)]
    assert all(notes)
    found = replace(lined_up(best, NEAR), notes=["the split is small", *notes])
    assert verdict(found).warnings == notes


def test_nothing_is_recommended_that_only_guesses() -> None:
    found = verdict(lined_up(a_result("svm", accuracy=0.5), NEAR))
    assert found.take == "" and found.why.startswith("svm is not shown to have learned") and found.why.endswith(").")


@pytest.mark.parametrize(
    ("confusion", "says"),
    [
        ([[3, 0], [0, 2]], "It is wrong on no test image."),
        ([[2, 1], [1, 1]], "It is wrong on 2 test images, and confuses no two classes more than once."),
        ([[2, 1], [0, 2]], "It is wrong on 1 test image by taking a for b: 1 of 3 images of a."),
    ],
)
def test_the_most_frequent_confusion_is_told_where_there_is_one(confusion: list[list[int]], says: str) -> None:
    best = replace(BEST, score=replace(BEST.score, confusion=confusion))
    assert verdict(lined_up(best)).others[-1] == says


@pytest.mark.parametrize(
    ("p_value", "text"),
    [(5.1e-7, "worse, p < 0.001"), (0.00099, "worse, p < 0.001"), (0.0012, "worse, p = 0.0012"),
     (0.0449, "worse, p = 0.045")],
)  # fmt: skip
def test_p_values_are_short(p_value: float, text: str) -> None:
    found = lines_of(lined_up(BEST, NEAR, FAR), p_value=p_value, is_within_noise=False)
    headings, rows = page_rows(found)
    assert headings[-2:] == ("against the best", "verdict") and all(len(row) == len(headings) for row in rows)
    assert rows[0][-2:] == ("best", "") and rows[1][-2:] == ("-1.0 points (-2.0 to +0.5)", text)


def test_the_legend_of_the_page_has_three_short_lines() -> None:
    lines = short_legend(lined_up(BEST, NEAR, FAR))
    assert len(lines) == 3 and max(map(len, lines)) < 130 and lines[-1].startswith("frontier: ")


def swept(candidate: str, *layers: str) -> list[Result]:
    return [a_model(candidate, 0.7 - i / 100, layer=layer, fit_s=2.0 + i) for i, layer in enumerate(layers)]


@pytest.mark.parametrize(
    ("results", "folded"),
    [
        pytest.param([a_model("svm"), *swept("logreg", "block_5", "avg_pool", "block_9")], ["block_5", "block_9"],
                     id="the layer of the other heads stays"),
        pytest.param([*swept("logreg", "block_5", "avg_pool", "block_9"), a_model("svm", 0.4)], ["block_9"],
                     id="the best of all stays"),
        pytest.param([FAR, *swept("logreg", "block_5", "block_7", "block_9")], ["block_7", "block_9"],
                     id="a sweep alone: its best layer stays"),
        pytest.param([a_model("svm"), *swept("logreg", "block_5", "avg_pool")], [], id="two layers are no sweep"),
        pytest.param([a_model("svm"), *(a_model("logreg", settings={"C": c}) for c in (1, 2, 3))], [],
                     id="one layer, other settings"),
    ],
)  # fmt: skip
def test_what_a_sweep_fitted_is_folded_away(results: list[Result], folded: list[str]) -> None:
    lines = lined_up(*results).lines
    shown, hidden = fold_sweep(lines)
    assert [line.result.layer for line in hidden] == folded
    assert [line for line in lines if line not in hidden] == shown


def test_words_are_explained_once_a_sentence_and_everything_else_is_escaped() -> None:
    found = str(explained("<b>macro F1</b> & ECE: within noise, within noise"))
    assert (
        re.sub("<button[^>]*>|</button>", "", found)
        == "&lt;b&gt;macro F1&lt;/b&gt; &amp; ECE: within noise, within noise"
    )
    names = {word: name for name, word, _ in explanations()}
    targets = re.findall('popovertarget="(.*?)">(.*?)<', found)
    assert targets == [(names["macro F1"], "macro F1"), (names["ECE"], "ECE"), (names["within noise"], "within noise")]
    said = unescape(explained("the 95 % interval, by McNemar's mid-p test, of LEAK and held-out; leaky"))
    assert re.findall(">(.*?)</button>", said) == ["95 % interval", "McNemar's mid-p test", "LEAK", "held-out"]


def test_the_words_of_the_page_are_those_of_the_glossary() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", (ROOT / "docs" / "glossary.md").read_text(), flags=re.MULTILINE)
    glossary = dict(rows)
    assert {word: glossary.get(word) for word in TERMS} == {word: meaning for word, (_, meaning) in TERMS.items()}
    assert [word.lower() for word, _ in rows[1:]] == sorted(word.lower() for word, _ in rows[1:])
