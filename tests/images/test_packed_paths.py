"""Paths of a table may lead into archives and tables of bytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tlfeat.errors import DataError
from tlfeat.images.archives import Archives
from tlfeat.images.load import load_images
from tlfeat.images.packed_paths import paths_into


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (5, 4), (number, 7, 9)).save(out, "PNG")
    return out.getvalue()


def write_zip(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, png(i))
    return path


def write_table(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8")
    return path


def test_a_table_names_members_of_an_archive(tmp_path: Path) -> None:
    write_zip(tmp_path / "in" / "a b.zip", "top/x.png", "top/y#%20.png", "top/z.png")
    table = write_table(
        tmp_path / "lists" / "t.csv", "../in/a b.zip/top/y#%20.png,dog,", "../in/a b.zip/top/x.png,cat,"
    )
    images = load_images(table)
    assert (list(images.paths), list(images.labels)) == (["top/y#%20.png", "top/x.png"], ["dog", "cat"])
    assert images.store is not None
    assert [images.store.read(path) for path in images.paths] == [png(1), png(0)]
    assert images.store.url == (tmp_path / "in" / "a b.zip").as_uri()


def test_a_table_names_members_of_several_archives(tmp_path: Path) -> None:
    write_zip(tmp_path / "old" / "1.zip", "x.png")
    write_zip(tmp_path / "old" / "more" / "2.ZIP", "n.tar/x.png", "n.tar/y.png")
    lines = (f"{tmp_path}/old/1.zip/x.png,cat,test", "old/more/2.ZIP/n.tar/y.png,dog,train")
    images = load_images(write_table(tmp_path / "t.csv", *lines))
    assert list(images.paths) == ["1.zip/x.png", "more/2.ZIP/n.tar/y.png"]
    assert list(images.splits) == ["test", "train"]
    assert images.store is not None
    assert [images.store.read(path) for path in images.paths] == [png(0), png(1)]


def test_files_in_a_folder_that_is_called_like_an_archive_are_files(tmp_path: Path) -> None:
    (tmp_path / "old.zip").mkdir()
    (tmp_path / "old.zip" / "x.png").write_bytes(png(3))
    images = load_images(write_table(tmp_path / "t.csv", "old.zip/x.png,cat,"))
    assert images.store is None


def test_a_table_names_rows_of_tables(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet files are read by pyarrow: pip install 'tlfeat[parquet]'")
    for name, start in (("a", 10), ("b", 20)):
        rows = {"picture": [png(start), png(start + 1)], "mask": [b"", b""]}
        pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / f"{name}.parquet")
    images = load_images(write_table(tmp_path / "t.csv", "b.parquet:1,cat,", "a.parquet:0,dog,", "a.parquet:7,dog,"))
    assert images.store is not None
    assert [images.store.read(path) for path in images.paths[:2]] == [png(21), png(10)]
    assert paths_into(images.store, images.paths, tmp_path) == list(images.paths)
    other = type(images.store)(tmp_path / "a.parquet", "mask")  # type: ignore[call-arg]
    with pytest.raises(DataError, match=r"a \.csv cannot say that the images are in the column 'mask' of a\.parquet"):
        paths_into(other, ["a.parquet:0"], tmp_path)


def test_paths_into_archives_are_those_from_the_folder_of_the_table(tmp_path: Path) -> None:
    store = Archives(tmp_path / "in" / "p.zip")
    assert paths_into(store, ["x.png"], tmp_path) == ["in/p.zip/x.png"]
    assert paths_into(store, ["x.png"], tmp_path / "lists") == [f"{tmp_path.as_posix()}/in/p.zip/x.png"]


def test_files_and_members_in_one_table_are_an_error(tmp_path: Path) -> None:
    write_zip(tmp_path / "p.zip", "x.png")
    (tmp_path / "y.png").write_bytes(png(3))
    table = write_table(tmp_path / "t.csv", "p.zip/x.png,cat,", "y.png,dog,")
    with pytest.raises(DataError, match=r"row 3: 'y\.png' does not lead into an archive that is there"):
        load_images(table)
