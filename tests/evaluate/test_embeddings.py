"""The rows of a cache as one object: what belongs together stays together, and the split is the commands' own."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

import tlfeat
from conftest import CountingEncoder, MakePhotos
from made_data import key_of, make_table, some_rows
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import CacheError, DataError, ModelError, UsageError
from tlfeat.evaluate.embeddings import Embeddings, load
from tlfeat.evaluate.split import make_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images


@pytest.fixture
def cache(make_photos: MakePhotos, tmp_path: Path) -> Path:
    path = tmp_path / "c.h5"
    extract_rows(load_images(make_photos(n=8)), CountingEncoder(), path)
    return path


def made_cache(path: Path, labels: list[str], **columns: list[str]) -> Path:
    """A cache of two layers, `one` and `two`, without pictures."""
    rows, _ = some_rows(len(labels), width=7)
    table = make_table(labels, **columns)
    with create_cache(path, {"backbone": "test", "dtype": "float32"}, {}) as cache:
        for layer, part in (("one", rows[:, :3]), ("two", rows[:, 3:])):
            cache.append({layer: part}, table.keys)
        cache.write_table(table)
    return path


def test_every_row_stands_beside_its_own_label_path_and_part_of_the_split(cache: Path) -> None:
    rows = load(str(cache), layer="pixels", seed=3)
    with open_cache(cache) as opened:
        split = make_split(opened.table, seed=3)
        stored = opened.read("pixels", split.keys)
    place = {path: i for i, path in enumerate(rows.paths)}
    order = [place[path] for path in split.paths]
    assert len(rows) == 16 and rows.X.dtype == np.float32 and rows.shape == rows.X.shape == stored.shape
    assert rows.X[order].tobytes() == stored.tobytes()
    assert rows.y[order].tolist() == split.labels.tolist()
    assert rows.split[order].tolist() == split.roles
    assert rows.classes == split.classes == ["cat", "dog"]
    assert [rows.classes[y] for y in rows.y] == rows.labels.tolist()
    assert all(file.exists() for file in rows.files)
    assert load(cache, layer="pixels", seed=4).split.tolist() != rows.split.tolist()


def test_training_images_are_those_that_heads_are_fitted_on(cache: Path) -> None:
    rows = load(cache, test_fraction=0.4)
    assert len(rows.test) == 6 and len(rows.train) == 10 and set(rows.train.split) == {"train", "val"}
    assert set(rows.val.paths) < set(rows.train.paths)
    assert rows.test.X.tobytes() == rows.X[rows.split == "test"].tobytes()


def test_a_part_is_read_alone_and_is_what_the_whole_has(cache: Path) -> None:
    whole, other = load(cache), load(cache)
    _ = whole.X
    chosen = [3, 1, 5]
    for part, expected in (
        (slice(2, 9, 3), range(2, 9, 3)),
        (chosen, chosen),
        (np.isin(np.arange(16), chosen), sorted(chosen)),
        ([], []),
    ):
        for rows in (whole, other):
            found = rows[part]
            assert found.X.tobytes() == whole.X[list(expected)].tobytes()
            assert found.paths.tolist() == whole.paths[list(expected)].tolist()
    assert other[4:][[1, 0]].paths.tolist() == other.paths[[5, 4]].tolist()
    assert other._rows is None
    one = other[-2]
    assert (one.path, one.label, one.y) == (other.paths[14], other.labels[14], other.y[14])
    assert one.x.tobytes() == whole.X[14].tobytes()
    with pytest.raises(IndexError):
        _ = whole[16]
    with pytest.raises(IndexError, match=r"\(3,\)"):
        _ = whole[np.array([True, False, True])]


def test_it_goes_through_all_images_in_order_without_reading_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlfeat.evaluate.embeddings._BLOCK", 5)
    rows = load(cache)
    found = list(rows)
    assert rows._rows is None
    assert np.array([one.x for one in found]).tobytes() == rows.X.tobytes()
    assert [one.path for one in found] == rows.paths.tolist()
    assert [one.split for one in found] == rows.split.tolist()


def test_scikit_learn_takes_it_for_an_array_and_parts_it(cache: Path) -> None:
    rows = load(cache)
    assert np.asarray(rows).tobytes() == rows.X.tobytes()
    train, test = train_test_split(rows, test_size=0.25, random_state=2)
    assert isinstance(train, Embeddings) and (len(train), len(test)) == (12, 4)
    assert not set(train.paths) & set(test.paths)


def test_several_layers_stand_side_by_side_with_a_name_for_each_column(tmp_path: Path) -> None:
    path = made_cache(tmp_path / "two.h5", ["a", "b"] * 6)
    rows = load(path, layer=["two", "one"])
    assert rows.feature_names == ["two_0", "two_1", "two_2", "two_3", "one_0", "one_1", "one_2"]
    assert rows.X[:, 4:].tobytes() == load(path, layer="one").X.tobytes()
    with pytest.raises(UsageError, match="one, two"):
        load(path)


def test_copies_and_groups_of_the_user_have_one_number(tmp_path: Path) -> None:
    keys = [key_of(i) for i in (0, 1, 1, 3, 4, 5)]
    rows = load(
        made_cache(tmp_path / "g.h5", list("ababab"), keys=keys, groups=["", "", "", "g", "", "g"]), layer="one"
    )
    assert [rows.groups.tolist().count(g) for g in rows.groups] == [1, 2, 2, 2, 1, 2]


def test_without_labels_there_are_rows_and_no_split(tmp_path: Path) -> None:
    rows = load(made_cache(tmp_path / "u.h5", [""] * 5), layer="one")
    assert rows.X.shape == (5, 3) and set(rows.y) == {-1} and set(rows.split) == {""} and rows.classes == []
    assert "At least two classes" in rows.notes[0]
    assert "split: none can be made" in repr(rows)


def test_one_class_has_numbers_though_nothing_can_be_tested(tmp_path: Path) -> None:
    rows = load(made_cache(tmp_path / "o.h5", ["a", "a", ""]), layer="one")
    assert rows.classes == ["a"] and rows.y.tolist() == [0, 0, -1]


def test_an_image_whose_class_is_too_small_to_be_tested_has_no_number(tmp_path: Path) -> None:
    rows = load(made_cache(tmp_path / "s.h5", [*"aabbaabb", "rare"]), layer="one")
    assert rows.classes == ["a", "b"] and rows.y[-1] == -1 and rows.labels[-1] == "rare" and rows.split[-1] == ""


def test_images_that_are_not_embedded_yet_are_an_error(tmp_path: Path) -> None:
    path = made_cache(tmp_path / "p.h5", [*"abab"], status=["ok", "ok", "ok", "pending"])
    with pytest.raises(DataError, match="not embedded yet"):
        load(path, layer="one")


def test_a_frame_has_a_line_an_image(cache: Path) -> None:
    rows = load(cache)
    frame = rows.frame()
    assert frame.columns[:6].tolist() == ["path", "label", "y", "split", "group", "key"]
    assert frame.filter(like="pixels_").to_numpy().tobytes() == rows.X.tobytes()
    assert frame["label"].tolist() == rows.labels.tolist()
    assert rows.frame(has_rows=False).shape == (16, 6)


def test_without_pandas_one_line_says_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"frame\(\) needs pandas, .*: pip install 'tlfeat\[notebook\]'"):
        load(cache).frame()


def test_it_shows_itself_with_pictures_and_no_name_becomes_html(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = make_photos(n=20, classes=("a<b>&", "dog"))
    extract_rows(load_images(photos), CountingEncoder(), tmp_path / "c.h5")
    rows = load(tmp_path / "c.h5")
    (photos / "dog" / "9.png").write_bytes((photos / "dog" / "8.png").read_bytes())  # another one than was embedded
    shown = rows._repr_html_()
    assert "a&lt;b&gt;&amp;" in shown and "<b>" not in shown
    assert shown.count("<tr>") == 11 and shown.count("data:image/jpeg;base64,") == 10
    assert "40 embeddings of 192 numbers: pixels of pixels, c.h5" in shown
    assert "<img" not in rows[rows.paths == "dog/9.png"]._repr_html_()
    assert rows._rows is None, "a look reads no rows"
    text = repr(rows[:3])
    assert text.count("\n") == 7 and "a<b>&/1.png" in text


def test_rows_of_a_file_that_another_encoder_has_written_since_are_an_error(cache: Path) -> None:
    rows = load(cache)
    cache.unlink()
    extract_rows(load_images(rows.files[0].parents[1]), CountingEncoder((4, 4)), cache)
    with pytest.raises(CacheError, match="another encoder"):
        _ = rows.X


def test_dir_is_the_public_names() -> None:
    import tlfeat.text  # a module that was imported is no public name

    assert [name for name in dir(tlfeat) if not name.startswith("__")] == sorted(tlfeat._HOME)


def test_a_string_is_taken_wherever_a_path_is(make_photos: MakePhotos) -> None:
    photos = make_photos(n=6)
    job = tlfeat.plan_extraction(str(photos), backbone="pixels", layers=["pixels"], cache="kept/c.h5")
    assert job.cache_path == Path("kept/c.h5")
    job.run()
    tlfeat.extract_rows(tlfeat.load_images(str(photos)), tlfeat.PixelEncoder(), "other.h5", known_in=["kept/c.h5"])
    with tlfeat.open_cache("other.h5") as opened:
        assert len(opened.table.keys) == 12
    with tlfeat.open_data("kept/c.h5", seed=0) as data:
        assert data.split.info.n_test == 2
    for use in (tlfeat.Model, partial(tlfeat.export_model, to="onnx", output="a.onnx")):
        with pytest.raises(ModelError, match="nowhere"):
            use("nowhere")


def test_domains_come_along_and_have_a_column_where_there_are_some(tmp_path: Path) -> None:
    names = ["Süd", "", "photo", "photo"] * 5
    path = made_cache(tmp_path / "c.h5", ["cat", "dog"] * 10, domains=names)
    rows = load(path, layer="one")
    assert rows.domains.tolist() == names
    assert rows[[2, 0]].domains.tolist() == ["photo", "Süd"]
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert rows.frame(has_rows=False)["domain"].tolist() == names
    plain = load(made_cache(tmp_path / "plain.h5", ["cat", "dog"] * 10), layer="one")
    assert set(plain.domains) == {""} and "domain" not in plain.frame(has_rows=False)
