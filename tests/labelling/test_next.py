"""Which pictures to label next: typical, then unsure, every fifth at random, whatever state the labels are in."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import MakePhotos
from made_data import FINGERPRINT, as_json, key_of, make_table, tlfeat
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.extract.plan import plan_extraction
from tlfeat.labelling import next as labelling_next
from tlfeat.labelling.next import NextPictures, names_in, next_pictures, read_labels
from tlfeat.labelling.order import pool_and_reserve, random_order
from tlfeat.types import Rows

N = 150
PATHS = [f"{i}.png" for i in range(N)]
RESERVE = [f"{i}.png" for i in pool_and_reserve(random_order(PATHS))[1]]


class Bucket:
    """As much of a store as is needed here."""

    def __init__(self, url: str) -> None:
        self.url = url


def rows_of(n: int = N, n_kinds: int = 3) -> Rows:
    """Rows near one direction for each kind; picture i is of kind i modulo their number."""
    rng = np.random.default_rng(0)
    directions = 4 * np.eye(n_kinds, 12)
    return (directions[np.arange(n) % n_kinds] + 0.3 * rng.normal(size=(n, 12))).astype(np.float32)


def kind_of(path: str, n_kinds: int = 3) -> str:
    return "abcdef"[int(path.partition(".")[0]) % n_kinds]


def write_cache(
    rows: Rows,
    *,
    labels: Sequence[str] = (),
    keys: Sequence[str] = (),
    status: Sequence[str] = (),
    paths: Sequence[str] = (),
    layers: Sequence[str] = ("pooled",),
) -> Path:
    n, path = len(rows), Path("a.h5")
    keys = keys or [key_of(i) for i in range(n)]
    table = make_table(
        labels or [""] * n, keys=keys, paths=paths or [f"{i}.png" for i in range(n)], status=status or None
    )
    firsts = {key: i for i, key in reversed(list(enumerate(keys)))}
    has_row = [i for i in sorted(firsts.values()) if table.status[i] == "ok"]
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve(dict.fromkeys(layers, rows.shape[1]), len(has_row))
        cache.append(dict.fromkeys(layers, rows[has_row]), [keys[i] for i in has_row])
        cache.write_table(table)
    return path


def chosen(cache: Path, labels: dict[str, str] | Path | None = None, n: int = 20, **options: int) -> NextPictures:
    with open_cache(cache) as opened:
        return next_pictures(opened, labels, n, **options)  # type: ignore[arg-type]


@pytest.fixture
def cache() -> Path:
    return write_cache(rows_of())


# --- the choice ---------------------------------------------------------------------------------------------


def test_without_labels_typical_pictures_come_first_and_every_fifth_is_random(cache: Path) -> None:
    found = chosen(cache, n=7)
    assert [each.why for each in found.pictures] == ["random", *["typical"] * 4, "random", "typical"]
    assert len({kind_of(each.path) for each in found.pictures if each.why == "typical"}) == 3
    assert {(each.suggestion, each.probability) for each in found.pictures} == {("", None)}
    assert [each.path for each in found.pictures if each.why == "random"] == RESERVE[:2]
    assert [PATHS[each.number] for each in found.pictures] == [each.path for each in found.pictures]
    assert (found.classes, found.n_labelled) == ([], 0)
    assert found.notes == ["there is no label yet: nothing is suggested before there are two classes"]


def test_labels_make_suggestions_but_none_for_what_is_drawn_at_random(cache: Path) -> None:
    labels = {path: kind_of(path) for path in PATHS if path not in RESERVE[3:] and int(path.partition(".")[0]) < 60}
    found = chosen(cache, labels)
    assert found.classes == ["a", "b", "c"]
    assert (found.n_labelled, found.notes) == (len(labels), [])
    for each in found.pictures:
        if each.why == "random":
            assert (each.suggestion, each.probability) == ("", None)
        else:
            assert (each.why, each.suggestion) == ("unsure", kind_of(each.path))
            assert each.probability is not None
            assert 1 / 3 < each.probability <= 1
    assert {each.why for each in found.pictures} == {"random", "unsure"}


def test_what_lies_between_two_classes_is_asked_before_what_is_sure() -> None:
    rows = rows_of()
    between = [i for i in range(100, N) if f"{i}.png" not in RESERVE][:5]
    rows[between] = rows[0] + rows[1]
    labels = {path: kind_of(path) for path in PATHS[:90]}
    first = [each.path for each in chosen(write_cache(rows), labels).pictures if each.why == "unsure"][:5]
    assert set(first) == {f"{i}.png" for i in between}


def test_all_pictures_come_in_turn_and_a_fifth_of_them_at_random(cache: Path) -> None:
    labels: dict[str, str] = {}
    whys = []
    while found := chosen(cache, labels, 7).pictures:
        assert len(found) == min(7, N - len(labels))
        assert not labels.keys() & {each.path for each in found}
        labels |= {each.path: kind_of(each.path) for each in found}
        whys += [each.why for each in found]
        if len(whys) in (49, 98):
            assert abs(whys.count("random") - len(whys) / 5) <= 1
    assert len(whys) == len(labels) == N
    assert chosen(cache, labels).notes == ["every picture has an answer"]
    assert whys.count("random") == len(RESERVE)


def test_another_seed_draws_other_pictures_and_one_seed_the_same(cache: Path) -> None:
    assert chosen(cache, seed=3) == chosen(cache, seed=3)
    drawn = [each.number for each in chosen(cache, seed=3).pictures if each.why == "random"]
    assert drawn == random_order(PATHS, seed=3)[:4].tolist()


def test_the_reserve_is_drawn_from_when_nothing_else_is_left(cache: Path) -> None:
    found = chosen(cache, {path: kind_of(path) for path in PATHS if path not in RESERVE})
    assert [each.path for each in found.pictures] == RESERVE[:20]
    assert {each.why for each in found.pictures} == {"random"}


def test_what_is_chosen_fills_the_place_of_what_cannot_be_drawn() -> None:
    status = ["failed" if path in RESERVE else "ok" for path in PATHS]
    found = chosen(write_cache(rows_of(), status=status))
    assert {each.why for each in found.pictures} == {"typical", "unsure"}
    assert len(found.pictures) == 20


def test_labels_outside_of_the_sample_that_is_chosen_among_teach_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_cache(rows_of())
    order = random_order(PATHS).tolist()
    small = partial(pool_and_reserve, pool=40)
    monkeypatch.setattr(labelling_next, "pool_and_reserve", small)
    found = chosen(cache, {PATHS[i]: kind_of(PATHS[i]) for i in order[60:]}, N)
    assert {each.number for each in found.pictures} == set(order[:40])
    assert all(each.suggestion == kind_of(each.path) for each in found.pictures if each.why == "unsure")
    assert any(each.suggestion for each in found.pictures)


def test_no_copy_of_a_picture_that_tests_is_chosen() -> None:
    keys = [key_of(i) for i in range(N)]
    tested = int(RESERVE[-1].partition(".")[0])
    copies = [i for i in range(N) if PATHS[i] not in RESERVE][:30]
    for i in copies:
        keys[i] = keys[tested]
    found = chosen(write_cache(rows_of(), keys=keys), n=N)
    assert {each.path for each in found.pictures} == set(PATHS) - {PATHS[i] for i in copies}


def test_pictures_without_a_row_are_not_chosen() -> None:
    status = ["failed" if i % 3 == 0 else "pending" if i % 3 == 1 else "ok" for i in range(N)]
    found = chosen(write_cache(rows_of(), status=status), n=N)
    assert {kind_of(each.path) for each in found.pictures} == {"c"}
    assert f"{N * 2 // 3} pictures without a row cannot be chosen" in found.notes


def test_a_layer_may_be_named(tmp_path: Path) -> None:
    cache = write_cache(rows_of(), layers=("one", "two"))
    with open_cache(cache) as opened:
        assert len(next_pictures(opened, n=3, layer="two").pictures) == 3
        with pytest.raises(UsageError, match="three"):
            next_pictures(opened, layer="three")


def test_none_is_not_a_number_of_pictures(cache: Path) -> None:
    with pytest.raises(UsageError, match="received 0"):
        chosen(cache, n=0)


# --- the labels so far --------------------------------------------------------------------------------------


def test_one_class_alone_suggests_nothing(cache: Path) -> None:
    found = chosen(cache, dict.fromkeys(PATHS[:9], "a"))
    assert found.classes == ["a"]
    assert {each.suggestion for each in found.pictures} == {""}
    assert found.notes == ["the only label so far is 'a': nothing is suggested before there are two classes"]


def test_a_picture_without_a_label_for_good_is_not_asked_again(cache: Path) -> None:
    found = chosen(cache, {**dict.fromkeys(PATHS[:100], ""), "100.png": "a"}, N)
    assert {each.path for each in found.pictures} == set(PATHS[101:])
    assert found.n_labelled == 1


def test_labels_of_pictures_that_have_gone_are_told_and_stop_nothing(cache: Path) -> None:
    found = chosen(cache, {**{f"gone{i}\n.png": "a" for i in range(4)}, "3.png": "a"})
    assert found.n_labelled == 1
    assert found.notes[0] == (
        "4 labels of pictures that the cache does not have: gone0\\n.png, gone1\\n.png, gone2\\n.png, ..."
    )


def test_labels_of_the_cache_count_where_some_pictures_have_none() -> None:
    order = random_order(PATHS).tolist()
    labels = [kind_of(path) if i in order[:90] else "" for i, path in enumerate(PATHS)]
    cache = write_cache(rows_of(), labels=labels)
    found = chosen(cache, {PATHS[order[3]]: "z", PATHS[order[100]]: "a"})
    assert found.classes == ["a", "b", "c", "z"]
    assert {each.number for each in found.pictures} <= set(order[90:]) - {order[100]}
    assert found.notes == ["89 pictures of the cache have a label from there"]
    found = chosen(cache, n=N)
    assert len(found.pictures) == 60
    assert [each.number for each in found.pictures if each.why == "random"] == order[90:102]
    assert found.pictures[0].why == "random"  # nobody was asked about the others


def test_labels_of_the_cache_do_not_count_where_all_have_one() -> None:
    found = chosen(write_cache(rows_of(), labels=[kind_of(path) for path in PATHS]), {"3.png": "a"})
    assert (found.classes, found.n_labelled, len(found.pictures)) == (["a"], 1, 20)
    assert found.notes[0].startswith("the labels of the cache do not count: every picture has one")


def test_what_folders_said_was_not_asked(cache: Path) -> None:
    order = random_order(PATHS).tolist()
    lines = [f"{PATHS[i]},{kind_of(PATHS[i])},,folder" for i in order[:100]]
    Path("labels.csv").write_text("\n".join(["path,label,time,how", *lines]) + "\n")
    found = chosen(cache, Path("labels.csv"), N).pictures
    assert len(found) == 50
    assert [each.number for each in found if each.why == "random"] == order[100:110]


def test_a_file_that_is_not_there_has_no_labels_yet(cache: Path) -> None:
    found = chosen(cache, Path("labels.csv"))
    assert found.pictures == chosen(cache).pictures
    assert found.notes[0] == "labels.csv is not there yet"
    Path("labels.csv").write_text("")
    assert chosen(cache, Path("labels.csv")).pictures == found.pictures


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n1.png,a\n2.png,b\n",
        "\ufeffLabel;Path;note\n a ;1.png;x\nb;2.png;\n",
        "path,label,time,how\n1.png,b,,typical\n2.png,b,,unsure\n1.png,a,,\n3.png,,,random\n",
        "filename\tclass\n1.png\ta\n\n2.png\tb\n3.png\t\n",
    ],
    ids=["plain", "by a spreadsheet", "by hand in the middle", "of another tool"],
)
def test_labels_are_read_as_they_come(text: str) -> None:
    Path("labels.csv").write_text(text, encoding="utf-8")
    found = read_labels(Path("labels.csv"))
    assert {path: answer.label for path, answer in found.items()} == {"1.png": "a", "2.png": "b"}


def test_bad_and_unknown_pictures_of_a_csv_have_an_answer() -> None:
    Path("labels.csv").write_text('path,label,how\n1.png,,"random, bad"\n2.png,,"unsure, unknown, was a"\n')
    assert {path: answer.label for path, answer in read_labels(Path("labels.csv")).items()} == {
        "1.png": "",
        "2.png": "",
    }


def test_a_table_without_labels_is_refused() -> None:
    Path("labels.csv").write_text("path,time\n1.png,now\n")
    with pytest.raises(DataError, match="label"):
        read_labels(Path("labels.csv"))


def test_paths_lead_from_the_folder_of_the_csv(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=6)
    cache = plan_extraction(photos, backbone="pixels").run().cache
    with open_cache(cache) as opened:
        paths = opened.table.images.paths
        folder = tmp_path / "lists"
        assert names_in(opened, photos) == list(paths)
        assert names_in(opened, tmp_path) == [f"photos/{path}" for path in paths]
        names = names_in(opened, folder)
    assert names == [f"../photos/{path}" for path in paths]
    folder.mkdir()
    Path("lists/labels.csv").write_text(f"path,label\n{names[0]},new\n{paths[1]},new\n")
    found = chosen(cache, Path("lists/labels.csv"))
    assert found.n_labelled == 2
    assert not any("does not have" in note for note in found.notes)
    shutil.rmtree(photos)
    assert chosen(cache, Path("lists/labels.csv")) == found


@pytest.mark.parametrize(
    ("url", "name"),
    [("s3://mine/photos", "s3://mine/photos/a.png"), ("file:///data/photos.zip", "a.png"), ("", "a.png")],
)
def test_images_of_a_bucket_are_called_by_their_addresses_others_as_in_the_cache(url: str, name: str) -> None:
    images = replace(make_table([""], paths=["a.png"]).images, store=Bucket(url))  # type: ignore[arg-type]
    cache: Any = SimpleNamespace(source={}, table=SimpleNamespace(images=images))
    assert names_in(cache, Path()) == [name]


def test_rows_that_were_imported_are_chosen_among_by_the_names_of_their_table(tmp_path: Path) -> None:
    np.save("rows.npy", rows_of(60))
    Path("table.csv").write_text("label,path\n" + "".join(f",text{i}\n" for i in range(60)))
    tlfeat("cache", "import", "rows.npy", "table.csv", cwd=tmp_path)
    (tmp_path / "lists").mkdir()
    Path("lists/labels.csv").write_text("path,label\ntext1,a\ntext2,b\n")
    found = as_json("next", "-n", "4", "--labels", "lists/labels.csv", cwd=tmp_path)
    assert found["n_labelled"] == 2
    assert all(each["path"].startswith("text") for each in found["pictures"])
