"""A document of a stranger: what is wrong with it is found before it is used, and told in words."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, NotRequired, TypedDict

import pytest

from conftest import script
from tlfeat.documents import misfit
from tlfeat.errors import DataError
from tlfeat.finetune.epochs import State
from tlfeat.records import Score, Timing


class Part(TypedDict):
    n: int
    name: NotRequired[str]


class Whole(TypedDict, total=False):
    parts: list[Part]
    size: tuple[int, int] | None
    of: dict[str, float]
    any: Any


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"parts": [{"n": 3}, {"n": 4, "name": "x", "more": []}], "size": [3, 4], "of": {"a": 1, "b": 0.5}, "any": [{}]},
        {"size": None, "unknown": float("nan")},
    ],
)
def test_a_document_that_fits_has_nothing_wrong(document: dict[str, Any]) -> None:
    assert misfit(document, Whole, "it") == ""


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "it is [], expected dict"),
        ({"parts": {}}, "it.parts is {}, expected list[test_documents.Part]"),
        ({"parts": [{"n": 1}, {"name": "x"}]}, "it.parts[1] lacks 'n'"),
        ({"parts": [{"n": True}]}, "it.parts[0].n is True, expected int"),
        ({"parts": [{"n": 1 << 63}]}, f"it.parts[0].n is {1 << 63}, expected int"),
        ({"parts": [{"n": 3.0}]}, "it.parts[0].n is 3.0, expected int"),
        ({"parts": [{"n": 3, "name": None}]}, "it.parts[0].name is None, expected str"),
        ({"size": [3]}, "it.size is [3], expected tuple[int, int]"),
        ({"size": [3, "x"]}, "it.size[1] is 'x', expected int"),
        ({"size": "3x4"}, "it.size is '3x4', expected tuple[int, int] | None"),
        ({"of": {"a": float("nan")}}, "it.of.a is nan, expected float"),
        ({"of": {"a": float("-inf")}}, "it.of.a is -inf, expected float"),
        ({"of": {"a": "y" * 500}}, f"it.of.a is '{'y' * 59}, expected float"),
        ({"of": {"a": 10**5000}}, "it.of.a is int, expected float"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(document: Any, words: str) -> None:
    assert misfit(document, Whole, "it") == words


def test_numbers_that_are_not_finite_pass_where_that_is_said() -> None:
    assert misfit(float("inf"), float, "loss", is_finite=False) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"accuracy": 0.5}, "Score: ci95 is missing"),
        ([], "Score: a JSON object is expected, received list"),
        ({"accuracy": "0.5", "ci95": [0, 1]}, "Score: accuracy is '0.5', expected float"),
        ({"accuracy": 0.5, "ci95": [0.1]}, r"Score: ci95 is \[0\.1\], expected tuple"),
    ],
)
def test_a_record_is_not_built_of_what_does_not_fit(values: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Score.from_dict(values)


def test_a_record_takes_whole_numbers_for_seconds_and_passes_over_what_it_does_not_know() -> None:
    assert Timing.from_dict({"fit_s": 3, "new": "x"}) == Timing(fit_s=3)


@pytest.mark.parametrize(
    "about",
    [
        {"phase": "x"},
        {"history": {"loss": "abc"}},
        {"n_waited": None},
        {"best_loss": []},
        {"history": [1]},
        [],
        {"x": 1},
    ],
    ids=str,
)
def test_a_state_of_training_that_does_not_fit_is_none(about: Any, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "s.npz"
    State(phase=1, history={"loss": [0.5]}, best=[np.ones(3)]).save(path)
    assert State.load(path).phase == 1
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "about"}
    changed = {**vars(State()), **about} if isinstance(about, dict) else about
    kept = {k: v for k, v in changed.items() if k not in ("current", "best")} if isinstance(changed, dict) else changed
    np.savez(path, about=np.array(json.dumps(kept)), **arrays)
    assert State.load(path) == State()


# --- a sample of the campaign: soak/forged.py -----------------------------------------------------------------


@pytest.fixture(scope="module")
def forging() -> ModuleType:
    return script("soak/forged.py")


@pytest.fixture(scope="module")
def home(forging: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("forged") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        return forging.make_home(folder)


@pytest.mark.parametrize(
    ("kind", "seed"),
    # the first of each line ended in a traceback before documents were checked
    [
        *(("model folder", seed) for seed in (31, 43, 48, 55, 1, 2, 3, 4, 5, 6)),
        *(("cache", seed) for seed in (26, 27, 51, 56, 5126, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_a_forged_document_ends_in_one_line(
    forging: ModuleType, home: Any, kind: str, seed: int, tmp_path: Path
) -> None:
    what, ran = forging.try_one(home, kind, seed, tmp_path / "work")
    assert ran.is_sound, f"{what}\n{ran.error}{ran.trace}"
