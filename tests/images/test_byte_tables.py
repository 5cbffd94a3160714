"""Parquet and Arrow files with a column of bytes become sets of images; `datasets` is not needed."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlfeat.errors import BadImage, DataError, UsageError
from tlfeat.images import byte_store
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.images.packed import archive_store

pa = pytest.importorskip("pyarrow", reason="tables of bytes need pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="tables of bytes need pyarrow")

CLASS_LABEL = {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


def structs(n: int, *, first: int = 0) -> Any:
    cells = [{"bytes": png(first + i), "path": f"dir/{'xyz'[i % 3]}_{i}.png"} for i in range(n)]
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def hugging_face(n: int, *, first: int = 0, labels: list[int | None] | None = None) -> Any:
    """A table as `datasets` writes it: structs, numbers for classes, and their names in the heading."""
    table = pa.table({"image": structs(n, first=first), "label": labels or [(i + 1) % 3 for i in range(n)]})
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": CLASS_LABEL}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def write_stream(path: Path, table: Any, *, rows: int = 4, compression: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_file(path: Path, table: Any, *, rows: int = 4, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)


def save_to_disk(folder: Path, table: Any, n_parts: int = 2) -> None:
    """What ``Dataset.save_to_disk`` leaves."""
    n = -(-len(table) // n_parts)
    names = [f"data-{i:05}-of-{n_parts:05}.arrow" for i in range(n_parts)]
    for i, name in enumerate(names):
        write_stream(folder / name, table.slice(i * n, n))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": CLASS_LABEL}}))


def contents(images: ImageSet) -> list[bytes]:
    assert images.store is not None
    return [images.store.read(path) for path in images.paths]


WRITERS = {
    "parquet": ("d.parquet", lambda path, table: pq.write_table(table, path, row_group_size=4)),
    "parquet of one row group": ("d.parquet", lambda path, table: pq.write_table(table, path)),
    "arrow stream": ("d.arrow", write_stream),
    "arrow file": ("d.arrow", write_file),
    "packed stream": ("d.arrow", lambda path, table: write_stream(path, table, compression="zstd")),
    "packed file": ("d.feather", lambda path, table: write_file(path, table, compression="lz4")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_bytes_and_names_of_classes_come_out_as_they_were_written(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name, hugging_face(11))
    images = load_images(tmp_path / name)
    assert images.paths == [f"{name}:{row}" for row in range(11)]
    assert images.labels == [["ant", "bee", "cat"][(i + 1) % 3] for i in range(11)]
    assert contents(images) == [png(i) for i in range(11)]
    assert contents(images.at([9, 2, 10, 0])) == [png(i) for i in (9, 2, 10, 0)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_store_made_again_from_its_url_reads_the_same(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name, pa.table({"the photo": [png(i) for i in range(6)], "class": list("aabbcc")}))
    images = load_images(tmp_path / name)
    assert images.store is not None
    again = archive_store(images.store.url)
    assert again.read(f"{name}:5") == png(5)
    assert pickle.loads(pickle.dumps(images.store)).read(f"{name}:5") == png(5)


def test_labels_of_a_pandas_category_are_read_in_a_packed_file(tmp_path: Path) -> None:
    labels = pa.array(["a", "b", "a"]).dictionary_encode()
    write_file(tmp_path / "d.feather", pa.table({"image": structs(3), "label": labels}), rows=2, compression="lz4")
    images = load_images(tmp_path / "d.feather")
    assert (images.labels, contents(images)) == (["a", "b", "a"], [png(0), png(1), png(2)])


@pytest.mark.parametrize("kind", ["large", "view", "plain"])
def test_every_type_of_bytes_is_read(tmp_path: Path, kind: str) -> None:
    type_of = {"large": pa.large_binary(), "view": pa.binary_view(), "plain": pa.binary()}[kind]
    write_stream(tmp_path / "d.arrow", pa.table({"jpg": pa.array([png(7), png(8)], type_of), "cls": [4, 11]}))
    images = load_images(tmp_path / "d.arrow")
    assert (contents(images), images.labels) == ([png(7), png(8)], ["4", "11"])


def test_rows_in_order_are_decoded_once_by_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(hugging_face(64), tmp_path / "d.parquet", row_group_size=8)
    begun: list[int] = []
    pieces = byte_store._ParquetPart.pieces
    monkeypatch.setattr(
        byte_store._ParquetPart, "pieces", lambda part, group: [begun.append(group), pieces(part, group)][1]
    )
    images = load_images(tmp_path / "d.parquet")
    assert images.store is not None
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(images.store.read, images.paths)) == [png(i) for i in range(64)]
    assert begun == list(range(8))


def test_a_large_row_group_is_decoded_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_store, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(byte_store, "_PIECE_BYTES", 500)
    pq.write_table(hugging_face(60), tmp_path / "d.parquet")
    images = load_images(tmp_path / "d.parquet")
    begun: list[int] = []
    pieces = byte_store._ParquetPart.pieces
    monkeypatch.setattr(
        byte_store._ParquetPart, "pieces", lambda part, group: [begun.append(group), pieces(part, group)][1]
    )
    assert contents(images) == [png(i) for i in range(60)]
    assert begun == [0]  # and was read from its beginning once
    assert isinstance(images.store, byte_store.ByteTable)
    assert max(len(piece.cells) for piece in images.store._kept) < 10
    assert contents(images.at([40, 3])) == [png(40), png(3)]


def test_parts_of_a_hub_folder_have_the_splits_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        pq.write_table(hugging_face(3, first=10 * number), tmp_path / "data" / f"{name}.parquet")
    (tmp_path / "README.md").write_text("---")
    images = load_images(tmp_path)
    assert images.splits == ["test"] * 3 + ["train"] * 6
    assert images.paths[0] == "data/test-00000-of-00001.parquet:0"
    assert contents(images)[-1] == png(12)


def test_folders_of_splits_name_the_splits_of_parts(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        pq.write_table(hugging_face(3), tmp_path / name / "0000.parquet")
    assert load_images(tmp_path).splits == ["train"] * 3 + ["val"] * 3


def test_a_part_beside_those_of_splits_is_an_error_that_names_it(tmp_path: Path) -> None:
    for name in ("train", "test", "more"):
        pq.write_table(hugging_face(2), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"beside them others \(more\.parquet\)"):
        load_images(tmp_path)


def test_a_saved_data_set_has_its_parts_in_its_own_order_and_its_names(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "saved", hugging_face(7).replace_schema_metadata(None))
    images = load_images(tmp_path / "saved")
    assert contents(images) == [png(i) for i in range(7)]
    assert images.labels[:3] == ["bee", "cat", "ant"]
    assert images.splits == [""] * 7


def test_a_saved_dict_has_splits_and_says_what_is_left_out(tmp_path: Path) -> None:
    names = ["train", "test", "unsupervised"]
    for number, name in enumerate(names):
        save_to_disk(tmp_path / name, hugging_face(3, first=10 * number), 1)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    images = load_images(tmp_path)
    assert images.splits == ["train"] * 3 + ["test"] * 3
    assert contents(images)[3] == png(10)
    assert any("unsupervised" in note for note in images.notes)
    assert len(images.notes) == 1  # nothing that takes folders of splits for classes


def test_minus_one_of_a_class_label_is_no_label(tmp_path: Path) -> None:
    pq.write_table(hugging_face(3, labels=[2, -1, None]), tmp_path / "d.parquet")
    assert load_images(tmp_path / "d.parquet").labels == ["cat", "", ""]


def test_a_number_without_a_name_is_an_error(tmp_path: Path) -> None:
    pq.write_table(hugging_face(2, labels=[0, 3]), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet:1: the label is 3, and there are names for 0 to 2"):
        load_images(tmp_path / "d.parquet")


def test_a_cell_without_bytes_is_the_file_that_it_names_or_a_listed_skip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "here.png").write_bytes(png(77))
    (tmp_path / "outside.png").write_bytes(png(78))
    named = ["here.png", "gone.png", "../outside.png", str(tmp_path / "outside.png"), None]
    cells = [{"bytes": png(5), "path": "x"}, *({"bytes": None, "path": path} for path in named)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, write in (("d.parquet", lambda path, table: pq.write_table(table, path)), ("d.arrow", write_stream)):
        write_to = tmp_path / "in" / name
        table = pa.table({"image": pa.array(cells, kind), "label": list("ababab")})
        write(write_to, table)
        store = load_images(write_to).store
        assert store is not None
        assert (store.read(f"{name}:0"), store.read(f"{name}:1")) == (png(5), png(77))
        for row in (2, 3, 4):
            with pytest.raises(BadImage, match="no file"):
                store.read(f"{name}:{row}")
        with pytest.raises(BadImage, match="empty"):
            store.read(f"{name}:5")


def test_several_columns_of_bytes_are_an_error_that_names_them_and_an_option_chooses(tmp_path: Path) -> None:
    table = pa.table({"left": [png(1)] * 2, "right": [png(2)] * 2, "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"\(left, right\).*--path-column NAME"):
        load_images(tmp_path / "d.parquet")
    images = load_images(tmp_path / "d.parquet", path_column="right")
    assert contents(images) == [png(2)] * 2
    with pytest.raises(DataError, match=r"'label' holds no bytes. Those that do: left, right"):
        load_images(tmp_path / "d.parquet", path_column="label")
    with pytest.raises(DataError, match="no column 'rihgt'"):
        load_images(tmp_path / "d.parquet", path_column="rihgt")


def test_the_usual_name_is_taken_where_a_mask_holds_bytes_too(tmp_path: Path) -> None:
    table = pa.table({"mask": [png(1)] * 2, "Image": [png(2)] * 2, "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "d.parquet")
    assert contents(load_images(tmp_path / "d.parquet")) == [png(2)] * 2


def test_without_labels_images_are_taken_and_the_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": structs(3), "species": ["a", "b", "c"]}), tmp_path / "d.parquet")
    images = load_images(tmp_path / "d.parquet")
    assert images.labels == [""] * 3
    assert any("among species; name one with --label-column" in note for note in images.notes)
    assert load_images(tmp_path / "d.parquet", label_column="species").labels == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow"])
def test_labels_come_from_the_name_beside_the_bytes(tmp_path: Path, name: str) -> None:
    table = pa.table({"image": structs(4)})
    pq.write_table(table, tmp_path / name) if name == "d.parquet" else write_stream(tmp_path / name, table)
    assert load_images(tmp_path / name, label_from="name").labels == ["x", "y", "z", "x"]


def test_columns_of_split_group_and_domain_are_read(tmp_path: Path) -> None:
    columns = {"split": ["train", "Test"], "group": ["p", None], "hospital": ["n", "s"], "target": [True, False]}
    pq.write_table(pa.table({"image": structs(2), **columns}), tmp_path / "d.parquet")
    images = load_images(tmp_path / "d.parquet", domain_column="hospital")
    assert (images.splits, images.groups, images.domains) == (["train", "test"], ["p", ""], ["n", "s"])
    assert images.labels == ["true", "false"]


def test_lists_of_labels_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": structs(2), "label": [[1, 2], [3]]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="several values in a row"):
        load_images(tmp_path / "d.parquet")


def test_a_table_without_bytes_says_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"], "label": ["x"]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"no column of image bytes, received: path, label"):
        load_images(tmp_path / "d.parquet")


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow"])
def test_a_file_that_is_cut_short_or_something_else_is_one_error(tmp_path: Path, name: str) -> None:
    table = hugging_face(9)
    pq.write_table(table, tmp_path / name) if name == "d.parquet" else write_stream(tmp_path / name, table)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"something else", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"damaged or no (Parquet|Arrow) file"):
            load_images(tmp_path / name)


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow"])
def test_a_part_that_changes_after_it_was_listed_is_a_bad_image(tmp_path: Path, name: str) -> None:
    def write(table: Any) -> None:
        pq.write_table(table, tmp_path / name) if name == "d.parquet" else write_stream(tmp_path / name, table)

    write(hugging_face(9))
    store = load_images(tmp_path / name).store
    assert store is not None and store.read(f"{name}:0") == png(0)
    if name == "d.parquet":
        store = archive_store(store.url)
        assert store is not None
        store.stamps([f"{name}:0"])
    write(hugging_face(30))
    with pytest.raises(BadImage, match="was changed while it was read"):
        store.read(f"{name}:8")


@pytest.mark.parametrize("path", ["d.parquet:4", "d.parquet:x", "gone.parquet:0", "../d.parquet:0", "d.parquet"])
def test_a_path_to_no_row_is_a_bad_image(tmp_path: Path, path: str) -> None:
    pq.write_table(hugging_face(4), tmp_path / "d.parquet")
    store = load_images(tmp_path / "d.parquet").store
    assert store is not None
    with pytest.raises(BadImage):
        store.read(path)
    assert store.stamps([path]) == [(0, 0)]


def test_stamps_change_with_the_file_and_are_none_where_files_stand_in_for_bytes(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(hugging_face(4), path, row_group_size=2)
    store = load_images(path).store
    assert store is not None
    paths = [f"d.parquet:{i}" for i in range(4)]
    assert store.stamps(paths) == [(0, 0)] * 4  # written just now: it may change again
    found = []
    for time_s in (1_700_000_000, 1_700_000_000, 1_700_000_050):
        os.utime(path, (time_s, time_s))
        again = archive_store(store.url)
        found.append(again.stamps(paths))
    assert found[0] == found[1] != found[2]
    assert len(set(found[0])) == 4 and (0, 0) not in found[0]


def test_a_row_group_that_unfolds_to_many_times_its_size_is_refused(tmp_path: Path) -> None:
    cells = [b"\0" * (3 << 20)] * 20
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"image": cells, "label": ["a"] * 20}), path, compression="zstd", use_dictionary=False)
    store = load_images(path).store
    assert store is not None
    with pytest.raises(BadImage, match="far smaller"):
        store.read("d.parquet:0")


def test_without_pyarrow_there_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(hugging_face(4), tmp_path / "d.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'tlfeat\[parquet\]'"):
        load_images(tmp_path / "d.parquet")


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    pq.write_table(hugging_face(4).slice(0, 0), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="Expected a row for each image"):
        load_images(tmp_path / "d.parquet")


def test_a_name_that_leads_out_of_the_folder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for place in (tmp_path / "d.parquet", tmp_path / "in" / "d.parquet"):
        pq.write_table(hugging_face(2), place)
    store = load_images(tmp_path / "in" / "d.parquet").store
    assert store is not None
    for path in ("../d.parquet:0", f"{tmp_path}/d.parquet:0"):
        with pytest.raises(BadImage, match="leads out of the folder"):
            store.read(path)


def test_a_saved_data_set_is_read_in_the_order_of_its_state(tmp_path: Path) -> None:
    save_to_disk(tmp_path, hugging_face(4))
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": state["_data_files"][::-1]}))
    assert contents(load_images(tmp_path)) == [png(2), png(3), png(0), png(1)]


def test_images_win_over_a_table_that_lies_beside_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(png(3))
    pq.write_table(hugging_face(4), tmp_path / "photos" / "rows.parquet")
    assert load_images(tmp_path / "photos").paths == ["a/1.png", "b/1.png"]
