"""A cache of texts through the studies: copies, the humble baseline, the audit, a page, and predictions."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from made_data import tlfeat
from made_sentences import LetterEncoder, extracted, sentences, write_table
from tlfeat.cache.contents import read_texts, snippets
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, ModelError
from tlfeat.evaluate.copies import find_copies
from tlfeat.evaluate.data import open_data
from tlfeat.heads.words import fit_words
from tlfeat.images.image_set import content_key
from tlfeat.models.export import export_model
from tlfeat.models.predict import Model, find_files
from tlfeat.report.audit import to_html as audit_page
from tlfeat.report.audit import to_text as audit_text
from tlfeat.report.cluster_map import map_cache
from tlfeat.report.cluster_map import to_html as map_page
from tlfeat.report.page import to_html
from tlfeat.report.similar import to_html as similar_page
from tlfeat.studies.audit import audit
from tlfeat.studies.clean import write_clean_table
from tlfeat.studies.compare import compare_candidates
from tlfeat.studies.curve import learning_curve
from tlfeat.studies.similar import find_similar

HOSTILE = "<script>alert(1)</script> <b>& 'quoted'</b> about one image of bread, soup and curry for ten days"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_table(tmp_path / "s.csv", [*sentences(), (HOSTILE, "foods")])


@pytest.fixture
def cache(table: Path, tmp_path: Path) -> Path:
    return extracted(table, tmp_path / "cache" / "s.h5").cache


def test_a_second_run_encodes_nothing_and_a_changed_text_alone(table: Path, tmp_path: Path) -> None:
    first, second, third = (LetterEncoder() for _ in range(3))
    cache = tmp_path / "s.h5"
    assert extracted(table, cache, first).n_embedded == first.n_encoded == 61
    assert extracted(table, cache, second).n_known == 61
    assert second.n_encoded == 0
    lines = [*sentences(), (HOSTILE, "foods")]
    write_table(table, [("A new sentence above all others.", "foods"), *lines[1:], ("", "animals"), lines[5]])
    report = extracted(table, cache, third)
    assert (report.n_embedded, third.n_encoded) == (1, 1)
    assert report.failures == [("s.csv:63", "empty text")]
    assert (first.n_encoded, report.n_known) == (61, 61)


def test_rows_of_another_cache_are_taken_for_the_same_texts(table: Path, tmp_path: Path) -> None:
    extracted(table, tmp_path / "one.h5")
    encoder, said = LetterEncoder(), []
    from tlfeat.extract.extract import extract_rows
    from tlfeat.texts.text_set import load_texts

    extract_rows(load_texts(table), encoder, tmp_path / "two.h5", known_in=[tmp_path / "one.h5"], say=said.append)
    assert encoder.n_encoded == 0
    assert said[0].startswith("61 of 61")


def test_texts_are_read_again_by_their_key_wherever_they_stand_now(cache: Path, table: Path) -> None:
    lines = [*sentences(), (HOSTILE, "foods")]
    write_table(table, [("something else", "foods"), *reversed(lines[1:])])
    keys = [content_key(text.encode()) for text, _ in lines]
    with open_cache(cache) as opened:
        assert read_texts(opened, keys) == {key: text for key, (text, _) in list(zip(keys, lines, strict=True))[1:]}
        assert snippets(opened, keys)[keys[-1]] == HOSTILE
        table.unlink()
        assert read_texts(opened, keys) == {}


def test_copies_of_texts_are_found_and_look_alikes_are_not(tmp_path: Path) -> None:
    lines = sentences()
    text = (
        "It has been raining for three days and the river is as high as the old bridge now. " * 2 + "Nobody went out."
    )
    copies = [
        text,
        f"  {text.upper()} ",
        text.replace("three", "four", 1),
        text.replace("river", "lake").replace("old", ""),
    ]
    short = ["Yes, please do so.", "Yes, please do it."]
    table = write_table(tmp_path / "s.csv", [*lines, *((t, "foods") for t in (*copies, *short))])
    with open_cache(extracted(table, tmp_path / "s.h5").cache) as opened:
        found = find_copies(opened)
        keys = [content_key(each.encode()) for each in copies]
        groups = found.groups()
        kinds = {pair.kind for pair in found.pairs}
    assert groups[keys[0]] == groups[keys[1]] == groups[keys[2]]
    assert len({groups[key] for key in groups}) == len(groups) - 2
    assert kinds == {"words", "runs"}
    assert found.notes == []


def test_the_baseline_of_texts_counts_words_of_the_training_texts(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=["logreg"], keras_modes=())
        best = {line.result.candidate: line.result for line in found.lines}
        again = compare_candidates(data, heads=["logreg"], keras_modes=())
        learned = {data.split.paths[i] for i in data.split.where("train", "val")}
    words = best["tfidf+logreg"]
    assert words.score.accuracy == 1.0
    assert (words.layer, words.backbone, words.fingerprint["backbone"]) == ("tfidf", "tfidf", "tfidf")
    assert words.timing.predict_s_per_image and words.timing.search_s
    assert words.held_out_accuracy == pytest.approx(1.0, abs=0.1)
    assert all(line.is_reused for line in again.lines)
    assert found.backbone == "letters"
    assert not learned & set(words.test_paths)
    model = Model(words.model)
    vocabulary = model.head.steps[0][1].vocabulary_
    assert "chased number" in vocabulary  # pairs of words, too


def test_a_table_that_has_gone_costs_the_baseline_alone(cache: Path, table: Path) -> None:
    table.unlink()
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=["logreg"], keras_modes=())
        page = to_html(found, data)
    ((name, why),) = found.skipped
    assert name == "tfidf+logreg"
    assert re.match(r"61 texts of 61 cannot be read again from .*s\.csv: it has gone or changed", why)
    assert "the text has gone or changed" in page


def test_c_is_chosen_on_folds_and_words_of_held_out_texts_are_not_counted() -> None:
    texts, labels = zip(*sentences(20), strict=True)
    y = np.array([label == "foods" for label in labels]).astype(np.int64)
    folds = [(np.arange(10, 40), np.arange(10)), (np.arange(30), np.arange(30, 40))]
    found = fit_words(texts, y, folds)
    assert found.held_out is not None and found.chosen["C"] in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    assert np.isfinite(found.held_out[:, 0]).tolist() == [True] * 10 + [False] * 20 + [True] * 10
    assert fit_words(texts, y, []).chosen["C"] == 10
    with pytest.raises(DataError, match="no word of two letters"):
        fit_words(["a", "!"], np.array([0, 1]), [])


def test_the_page_shows_beginnings_of_texts_and_runs_nothing_of_them(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        page = to_html(compare_candidates(data, heads=["knn"], keras_modes=()), data)
    assert "<script>alert" not in page
    assert "test texts" in page and "test images" not in page
    assert '"noun":"text"' in page
    pictures = re.search(r'"pictures":\[(.*?)\],"sheets"', page)
    assert (pictures and "The cat chased number" in pictures[1].replace("\\u003c", "<")) or "chased number" in page


def test_the_curve_has_the_baseline_of_texts(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = learning_curve(data, heads=["knn"], counts=[5, 10], n_draws=2)
        again = learning_curve(data, heads=["knn"], counts=[5, 10], n_draws=2)
    assert list(found.lines) == ["knn", "tfidf+logreg"]
    assert found.lines["tfidf+logreg"][1].mean > 0.8
    assert again.n_reused == 8


def test_the_audit_shows_texts_where_it_shows_pictures_of_images(tmp_path: Path) -> None:
    lines = sentences()
    wrong = (lines[0][0].replace(".", "!!"), "foods")
    table = write_table(tmp_path / "s.csv", [*lines, wrong, (HOSTILE, "foods"), (HOSTILE.upper(), "foods")])
    with open_cache(extracted(table, tmp_path / "s.h5").cache) as opened:
        found = audit(opened)
        clean = write_clean_table(opened, found, tmp_path / "clean.csv")
    text, page = audit_text(found), audit_page(found)
    assert "63 texts in 2 classes" in text
    assert re.search(r"one text under two labels +2 in 1 group", text)
    assert "the same words; white space or case differ" in text
    assert "<blockquote>&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    with (tmp_path / "clean.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert (clean.n_images, clean.n_conflicts) == (len(rows), 2) == (61, 2)
    assert {row["group"] for row in rows if row["text"] in (HOSTILE, HOSTILE.upper())} == {"copies-2"}


def test_predict_takes_tables_folders_and_files_of_texts(cache: Path, tmp_path: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=[], keras_modes=())
    new = write_table(
        tmp_path / "new.csv", [("Cook rice and beans with soup",), ("",), ("The fox chased the hen",)], ["text"]
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1.txt").write_text("The owl chased the mouse")
    (tmp_path / "latin.txt").write_bytes("Café".encode("latin-1"))
    files = find_files([new, tmp_path / "more", tmp_path / "latin.txt"])
    predictions = list(Model(found.lines[0].result.model).predict(files))
    assert [p.label for p in predictions] == ["foods", "", "animals", "animals", ""]
    assert [p.path.rpartition("/")[2] for p in predictions] == [
        "new.csv:2",
        "new.csv:3",
        "new.csv:4",
        "1.txt",
        "latin.txt",
    ]
    assert [p.error for p in predictions if p.error] == ["empty text", "not UTF-8 text: byte 3 is 0xe9"]
    said = tlfeat("predict", found.lines[0].result.model, str(new), cwd=tmp_path)
    assert said.stdout.splitlines()[0].split() == ["text", "prediction"]


def test_a_words_head_that_somebody_changed_is_refused(cache: Path) -> None:
    import skops.io

    with open_data(cache, seed=0) as data:
        folder = Path(compare_candidates(data, heads=[], keras_modes=()).lines[0].result.model)
    head = Model(folder).head
    head.steps[0][1].token_pattern = "(a+)+$"
    skops.io.dump(head, folder / "head.skops")
    with pytest.raises(ModelError, match="counted with another token_pattern"):
        Model(folder)


def test_the_commands_speak_of_texts(cache: Path) -> None:
    said = tlfeat("compare", "--cache", str(cache), "--heads", "knn", "--map", "none", cwd=cache.parent.parent)
    assert "Comparing on" in said.stderr and "test texts" in said.stderr
    assert "image" not in said.stdout + said.stderr.replace("IMAGE", "")
    assert "predict" in said.stderr and "TEXT..." in said.stderr


def test_similar_texts_and_the_map_show_beginnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "s.csv", [(HOSTILE, "foods"), *sentences()])
    with open_cache(extracted(table, tmp_path / "s.h5").cache) as opened:
        near = similar_page(find_similar(opened, [Path("s.csv:3")], k=3))
        mapped = map_page(map_cache(opened, kind="pca", n_clusters=2))
    for page in (near, mapped):
        assert "<blockquote>" in page and "<script>alert" not in page
        assert "Similar texts" in page or "Map" in page
    assert near.count("<blockquote>") == 3


def test_networks_are_not_trained_on_texts_nor_exported(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=[], keras_modes=["frozen"])
    assert found.skipped[0][0] == "keras-frozen"
    assert "holds texts: networks are trained on images alone" in found.skipped[0][1]
    with pytest.raises(ModelError, match=r"takes texts.*use tlfeat predict"):
        export_model(found.lines[0].result.model, "onnx")
