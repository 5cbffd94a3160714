"""A saved model: one writer, one reader, and a name that tells when to fit again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import MakePhotos
from tlfeat import workspace
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.errors import ModelError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.extract import extract_rows
from tlfeat.heads import table
from tlfeat.heads.table import HEADS, SEARCH_VERSION, THOROUGH_VERSION
from tlfeat.images.load import load_images
from tlfeat.models import fit_sklearn as fitting
from tlfeat.models.listing import saved_models
from tlfeat.models.saved import Outcome, _name, model_folders, read_model, read_result
from tlfeat.report.commands import commands
from tlfeat.studies import curve as curving
from tlfeat.studies.compare import known_comparison
from tlfeat.workspace import read_json, write_json

#: What the heads try, by the version that stands in the settings of a fit.
NUMBERS_OF_VERSION = {3: "a5a21c66ca049b3f", 4: "6e13768d6bc5d4aa"}


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path) -> Path:
    return extract_rows(load_images(make_photos(n=16)), PixelEncoder(), tmp_path / "c.h5").cache


def fitted(cache: Path, head: str = "knn", **options: Any) -> Outcome:
    with open_data(cache, seed=2) as data:
        return fitting.fit_sklearn(data, head, **options)


def folders() -> list[Path]:
    return sorted(workspace.models_dir(Path.cwd() / "c.h5").iterdir())


def test_another_version_of_the_search_fits_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fitted(cache).is_reused
    assert fitted(cache).is_reused
    monkeypatch.setattr(table, "SEARCH_VERSION", SEARCH_VERSION + 1)
    assert not fitted(cache).is_reused
    assert fitted(cache).is_reused
    assert len(folders()) == 2
    with open_data(cache, seed=2) as data:
        names = [line.name for line in known_comparison(data).lines]
    assert all(re.fullmatch(r"knn \[[0-9a-f]{8}\]", name) for name in names)


def test_another_version_of_the_search_runs_the_trials_of_a_curve_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> int:
        with open_data(cache, seed=2) as data:
            return curving.learning_curve(data, heads=("knn",), counts=(2,), n_draws=2).n_reused

    assert [run(), run()] == [0, 4]
    monkeypatch.setattr(table, "SEARCH_VERSION", SEARCH_VERSION + 1)
    assert [run(), run()] == [0, 4]


@pytest.mark.parametrize(("effort", "version"), [("quick", SEARCH_VERSION), ("thorough", THOROUGH_VERSION)])
def test_what_the_heads_try_is_what_their_version_says(effort: str, version: int) -> None:
    """Other values mean other fits: raise the version and add a line here."""
    tried = [(head.name, re.findall(r"[-\w.]+", repr(head.family(effort))), head.rows, head.default) for head in HEADS]
    numbers = [(name, [float(w) for w in words if is_number(w)], *rest) for name, words, *rest in tried]
    assert hashlib.sha256(repr(numbers).encode()).hexdigest()[:16] == NUMBERS_OF_VERSION[version]


def test_the_settings_of_a_fit_say_which_search_was_asked_for(cache: Path) -> None:
    quick, thorough = fitted(cache, "lda"), fitted(cache, "lda", effort="thorough")
    assert quick.result.settings["effort"] == "quick"
    assert "effort" not in thorough.result.settings  # as every fit before there were two
    assert not thorough.is_reused
    assert fitted(cache, "lda", effort="thorough").is_reused
    assert "--search thorough" in commands_of(cache, thorough)
    assert "--search" not in commands_of(cache, quick)
    with pytest.raises(UsageError, match="No search 'thoroughly'"):
        fitted(cache, "lda", effort="thoroughly")


def commands_of(cache: Path, outcome: Outcome) -> str:
    with open_data(cache, seed=2) as data:
        return commands(data.cache, [outcome.result])[1]


def is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", word) is not None


def test_a_fit_that_replaces_another_leaves_one_folder(cache: Path) -> None:
    first = Path(fitted(cache, effort="thorough").result.model)
    again = fitted(cache, is_fresh=True, effort="thorough")
    assert (again.is_reused, again.result.settings["search"]) == (False, THOROUGH_VERSION)
    assert folders() == [first]
    assert fitted(cache, effort="thorough").is_reused
    assert not fitted(cache).is_reused  # the quick search is another


def test_a_fit_is_not_taken_for_one_of_another_version(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(cache, effort="thorough")
    monkeypatch.setattr(table, "THOROUGH_VERSION", THOROUGH_VERSION + 1)
    assert not fitted(cache, effort="thorough").is_reused
    assert Path(first.result.model) in folders()  # which still predicts


def test_what_was_written_is_read_back(cache: Path) -> None:
    result = fitted(cache, "ridge").result
    folder = Path(result.model)
    info = read_model(folder)
    assert (info.kind, info.layer, info.classes) == ("head", "pixels", ["cat", "dog"])
    assert info.fingerprint == result.fingerprint
    assert info.cache == cache.resolve()
    assert read_result(folder).certainty == result.certainty
    assert result.model_bytes == sum(
        path.stat().st_size for path in folder.iterdir() if path.name not in ("model.json", "result.json")
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: write_json(path, {**read_json(path), "score": None}),
        lambda path: write_json(path, {"candidate": "knn"}),
    ],
    ids=["gone", "cut-off", "list", "score", "fields"],
)
def test_a_result_that_cannot_be_read_says_what_to_do(cache: Path, spoil: Callable[[Path], Any]) -> None:
    folder = Path(fitted(cache).result.model)
    spoil(folder / "result.json")
    with pytest.raises(ModelError, match=r"result\.json is missing or damaged\. Fit the model again"):
        read_result(folder)
    assert not fitted(cache).is_reused


@pytest.mark.sample("half a head", "no rejector")
@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("head.skops", lambda path: path.unlink()),
        ("head.skops", lambda path: path.write_bytes(b"")),
        ("head.skops", lambda path: path.write_bytes(path.read_bytes()[:-7])),
        ("reject.npz", lambda path: path.unlink()),
    ],
    ids=["no head", "empty head", "half a head", "no rejector"],
)
def test_a_result_is_known_only_together_with_its_head(cache: Path, name: str, spoil: Callable[[Path], Any]) -> None:
    folder = Path(fitted(cache, "logreg").result.model)
    assert fitted(cache, "logreg").is_reused
    whole = (folder / name).read_bytes()
    spoil(folder / name)
    assert saved_models(cache) == []
    assert not fitted(cache, "logreg").is_reused
    assert len((folder / name).read_bytes()) == len(whole)
    assert [model.folder.name for model in saved_models(cache)] == [folder.name]


def test_what_a_killed_writer_left_is_no_model(cache: Path) -> None:
    folder = Path(fitted(cache).result.model)
    folder.rename(folder.with_name(f".{folder.name}.77.tmp"))
    assert model_folders(cache) == []


def test_a_folder_that_cannot_be_filled_is_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "save_rejector", stopped)
    with pytest.raises(KeyboardInterrupt):
        fitted(cache)
    assert folders() == []


def test_models_on_layers_whose_names_differ_in_case_only_get_folders_that_differ_in_more() -> None:
    """A file system of Windows or macOS takes ``A`` and ``a`` for one name."""
    data: Any = SimpleNamespace(split=SimpleNamespace(info=SimpleNamespace(identity=lambda: {"n": 3})))
    names = {_name(data, "svm", {"layer": layer}, {"backbone": "b"}) for layer in ("Conv:max", "conv:max", "CONV:max")}
    assert len({name.casefold() for name in names}) == 3
