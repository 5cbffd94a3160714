"""``tlfeat adapt`` as a user types it: one document, one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_data import as_json, filled_cache, tlfeat
from made_domains import domain_table, write_cache

QUICK = ["--model", "ridge", "--methods", "standardise", "--labels", "none"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_cache(folder / "c.h5", *domain_table(30))
    return folder


def test_the_document_has_methods_choice_and_split_and_the_model_is_saved(work: Path) -> None:
    words = ["adapt", "--cache", "c.h5", "--target", "scan", "--seed", "3", *QUICK[:-1], "2", "--draws", "2"]
    found = as_json(*words, cwd=work)
    assert (found["sources"], found["target"], found["chosen"]) == (["film", "phone"], "scan", "standardise")
    assert found["n_adapt"] == found["split"]["n_test"] == 15 and found["split"]["seed"] == 3
    assert found["labelled"][0]["labels_a_class"] == 2 and found["labelled"][0]["n_draws"] == 2
    assert found["helped"] in ("yes", "within noise") and found["worth_in_labels_a_class"] is not None
    folder = next(work.rglob("adapted-ridge*/result.json")).parent
    assert {"head.skops", "domain.npz", "model.json", "result.json"} <= {path.name for path in folder.iterdir()}


def test_words_say_the_choice_the_page_and_what_comes_next(work: Path) -> None:
    run = tlfeat("adapt", "--cache", "c.h5", "--source", "phone", "--target", "scan", *QUICK, cwd=work)
    assert "From phone to scan: standardise, chosen without a label of scan" in run.stdout
    assert "standardise *" in run.stdout and "warning: 15 images to adapt to: few" in run.stderr
    assert "Next: tlfeat predict " in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "scam"], "No domain 'scam'. Did you mean 'scan'?"),
        (["--source", "film,scan", "--target", "scan"], "scan is the target and a source. Leave it out of --source."),
        ([], "Say which domain is the new one: --target scan. There are: film, phone, scan."),
        (["--target", "scan", "--model", "logrog"], "No head 'logrog'. Did you mean 'logreg'?"),
        (["--target", "scan", "--methods", "coralle"], "No method 'coralle'. Did you mean 'coral'?"),
        (["--target", "scan", "--labels", "some"], "--labels wants numbers of images a class such as 1,5,20, or none"),
        (["--leave-one-out", "--target", "scan"], "leave out --source, --target and --keras."),
        (["--target", "scan", "--layer", "pool"], "No layer 'pool'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_mistake_is_one_line(work: Path, words: list[str], said: str) -> None:
    run = tlfeat("adapt", "--cache", "c.h5", *words, cwd=work, expect=2)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert said in line


def test_a_cache_without_domains_says_how_to_give_some(tmp_path: Path) -> None:
    filled_cache(tmp_path / "c.h5")
    for words in (["--target", "scan"], ["--leave-one-out"]):
        run = tlfeat("adapt", "--cache", "c.h5", *words, cwd=tmp_path, expect=3)
        assert "have no domains. Say where each comes from: a column domain" in run.stderr
