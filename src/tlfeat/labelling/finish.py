"""The end of a labelling: the head that its answers make, tested on the pictures that were asked at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tlfeat.cache.reader import Cache
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError, DataError, TlfeatError
from tlfeat.evaluate.data import Data, open_data
from tlfeat.evaluate.leaks import leak_sentence
from tlfeat.evaluate.scores import guessing_sentence
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads.table import SPREAD
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.records import Result
from tlfeat.report.comparison import result_text
from tlfeat.text import counted

#: Without pictures that have no label.
HEAD = "logreg"

#: Confusions that are named, the most frequent first.
_N_CONFUSED = 5


def fit_answers(
    csv: Path, options: Mapping[str, Any], command_line: Callable[..., str], *, others: Path | None = None
) -> dict[str, Any]:
    """Fit a head on the answers in a CSV as ``extract`` and ``fit-sklearn`` do, and return what the page shows.

    Parameters
    ----------
    csv : Path
        Rows of its pictures that some cache has are copied; the others are embedded now.
    options : mapping
        Those of `plan_extraction` that say with what.
    command_line : callable
        Makes a command of its words, quoted for a shell.
    others : Path, optional
        Cache of more pictures, those without an answer: labels are spread to them, as while they are given.

    Returns
    -------
    dict
        `lines`, `details`, `commands`, `accuracy`, `interval`, `confused` (true, predicted, how often) and `error`: why
        there is no head, "" where there is one.
    """
    try:
        cache = plan_extraction(csv, **options).run().cache
        with open_data(cache, seed=0) as data:
            result = _fit(data, others)
            n_random = _n_tested(data.cache) if data.split.info.origin == "given" else 0
    except TlfeatError as error:
        return {"lines": [], "commands": [], "accuracy": None, "interval": None, "confused": [], "error": str(error)}
    tested = f"Tested on {counted(n_random, 'picture')} that were drawn at random; the head learned from the others."
    if not n_random:
        tested = "Tested on a fifth of the labelled pictures, kept for that: few or none were drawn at random."
    warnings = [
        leak_sentence(result.leaks),
        guessing_sentence(result.score, result.classes, name=result.candidate),
    ]
    if n_spread := result.chosen.get("unlabelled", 0):
        tested += f" It also learned from {counted(n_spread, 'picture')} without a label that look like those."
    return {
        "lines": [tested, *filter(None, warnings), *result.notes],
        "details": result_text(result, None, None).splitlines(),
        "commands": [
            command_line("predict", "--model", result.model, "PICTURES"),
            command_line("label", "--predict", result.model, "PICTURES"),
            command_line("compare", "--cache", cache),
        ],
        "accuracy": result.score.accuracy,
        "interval": list(result.score.ci95),
        "confused": _confused(result),
        "error": "",
    }


def _fit(data: Data, others: Path | None) -> Result:
    if others is not None:
        # every picture has a label; extraction has not begun to write
        with suppress(DataError, CacheError), open_cache(others) as more:
            return fit_sklearn(data, SPREAD, unlabelled=more).result
    return fit_sklearn(data, HEAD).result


def _n_tested(cache: Cache) -> int:
    images = cache.table.images
    return sum(split == "test" and bool(label) for split, label in zip(images.splits, images.labels, strict=True))


def _confused(result: Result) -> list[tuple[str, str, int]]:
    pairs = Counter((t, p) for t, p in zip(result.true, result.predicted, strict=True) if t != p)
    return [(result.classes[t], result.classes[p], n) for (t, p), n in pairs.most_common(_N_CONFUSED)]
