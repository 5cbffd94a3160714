"""Archives and tables of bytes go the whole way: extract, resume, thumbnails, heads, predict; rows as of files."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import CountingEncoder, MakePhotos
from tlfeat.cache.store import open_cache
from tlfeat.extract.extract import ExtractReport, extract_rows
from tlfeat.images.archives import Archives
from tlfeat.images.byte_store import ByteTable
from tlfeat.images.load import load_images
from tlfeat.images.pictures import pictures_of
from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.models.predict import find_files

KINDS = ["p.zip", "p.tar", "p.parquet", "p.arrow", "saved"]


def pack(folder: Path, target: Path) -> Path:
    """Write the images of a folder into an archive or a table whose time stamp is old."""
    images = load_images(folder)
    contents = [images.file(i).read_bytes() for i in range(len(images))]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in zip(images.paths, contents, strict=True):
                archive.writestr(name, content)
    elif target.suffix == ".tar":
        with tarfile.open(target, "w") as tar:
            for i, name in enumerate(images.paths):
                tar.add(images.file(i), name)
    else:
        pa = pytest.importorskip("pyarrow", reason="tables of bytes need pyarrow")
        table = pa.table({"image": contents, "label": images.labels})
        if target.suffix == ".parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, target, row_group_size=5)
        else:
            file = target if target.suffix else target / "data-00000-of-00001.arrow"
            file.parent.mkdir(exist_ok=True)
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=5)
            if file != target:
                (target / "state.json").write_text("{}")
                (target / "dataset_info.json").write_text("{}")
    for path in [target, *target.glob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return target


def extract(source: Path, cache: Path, encoder: CountingEncoder) -> ExtractReport:
    return extract_rows(load_images(source), encoder, cache, known_in=[])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_files_and_a_second_run_reads_nothing(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = make_photos(6, ("cat", "dog", "owl"))
    source, encoder = pack(folder, tmp_path / kind), CountingEncoder()
    extract(folder, tmp_path / "files.h5", encoder)
    assert extract(source, tmp_path / "packed.h5", encoder).n_embedded == 18
    with open_cache(tmp_path / "files.h5") as files, open_cache(tmp_path / "packed.h5") as packed:
        keys = files.table.keys
        assert packed.table.keys == keys and packed.table.images.labels == files.table.images.labels
        assert np.array_equal(files.read("pixels", keys), packed.read("pixels", keys))
        images = packed.table.images
        assert images.source == source and images.store is not None
        assert known_thumbnail(images.home, images.paths[3], keys[3], 8)
        assert not known_thumbnail(images.home, images.paths[3], keys[4], 8)

    def never(store: object, path: str) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(Archives, "read", never)
    monkeypatch.setattr(ByteTable, "read", never)
    again = extract(source, tmp_path / "packed.h5", encoder)
    assert (again.n_known, again.n_embedded, again.failures) == (18, 0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_predict_and_python_take_what_is_packed_and_name_each_image_from_there(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = make_photos(2)
    pack(folder, tmp_path / kind)
    names = [name for name, _ in pictures_of(Path(kind))]
    found = find_files([Path(kind)])
    assert [file.name for file in found] == names
    assert (
        names[1]
        == {
            "p.zip": "p.zip/cat/1.png",
            "p.tar": "p.tar/cat/1.png",
            "p.parquet": "p.parquet:1",
            "p.arrow": "p.arrow:1",
            "saved": "saved/data-00000-of-00001.arrow:1",
        }[kind]
    )
    assert found[1]() == (folder / "cat" / "1.png").read_bytes()  # type: ignore[operator]


def test_a_member_that_cannot_be_read_is_a_listed_skip_and_is_tried_again(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    source, encoder = pack(make_photos(3), tmp_path / "p.zip"), CountingEncoder()
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(content)
    assert extract(source, tmp_path / "c.h5", encoder).failures == [("cat/0.png", "it is encrypted")]
    content[content.index(b"PK\1\2") + 8] ^= 1
    source.write_bytes(content)
    again = extract(source, tmp_path / "c.h5", encoder)
    assert (again.n_embedded, again.n_known, again.failures) == (1, 5, [])
