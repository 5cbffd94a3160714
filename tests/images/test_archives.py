"""Archives are read in place: the same images, labels and bytes as the folder that was packed."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import MakePhotos
from tlfeat.errors import BadImage, DataError, UsageError
from tlfeat.images import archive_index, archives, zip_index
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.images.packed import archive_store


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
    return path


def deflated(path: Path, members: dict[str, bytes]) -> Path:
    return write_zip(path, members, zipfile.ZIP_DEFLATED)


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "p.zip": write_zip,
    "d.zip": deflated,
    "p.tar": write_tar,
    "g.tar": lambda path, members: write_tar(path, members, tarfile.GNU_FORMAT),
    "u.tar": lambda path, members: write_tar(path, members, tarfile.USTAR_FORMAT),
}

every_kind = pytest.mark.parametrize("name", WRITERS)


def contents(images: ImageSet) -> list[bytes]:
    assert images.store is not None
    return [images.store.read(path) for path in images.paths]


def members_of(folder: Path, above: str = "") -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {above + path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@every_kind
@pytest.mark.parametrize("above", ["", "photos/", "./", "data/photos/"])
def test_an_archive_is_what_the_folder_is(tmp_path: Path, make_photos: MakePhotos, name: str, above: str) -> None:
    folder = make_photos(3, ("cat", "käfer", "a class with a name of more than a hundred letters" + "." * 60))
    (folder / "notes.txt").write_text("no image")
    source = WRITERS[name](tmp_path / name, members_of(folder, above))
    images, files = load_images(source), load_images(folder)
    top = above.removeprefix("./")
    assert [path.removeprefix(top) for path in images.paths] == files.paths
    assert (images.labels, images.splits, images.passed_over) == (files.labels, files.splits, files.passed_over)
    assert contents(images) == [files.file(i).read_bytes() for i in range(len(files))]


@every_kind
def test_splits_and_domains_are_those_of_folders(tmp_path: Path, name: str) -> None:
    names = [f"{split}/{domain}/{label}/1.png" for split in ("train", "test") for domain in "xy" for label in "ab"]
    source = WRITERS[name](tmp_path / name, {f"top/{each}": png(i) for i, each in enumerate(names)})
    images = load_images(source, domains=True)
    assert (images.splits, images.domains) == (["test"] * 4 + ["train"] * 4, list("xxyy") * 2)
    assert images.labels == list("ab") * 4


@every_kind
def test_many_threads_read_at_once_and_a_store_made_again_reads_the_same(tmp_path: Path, name: str) -> None:
    source = WRITERS[name](tmp_path / name, {f"{'ab'[i % 2]}/{i:03}.png": png(i) for i in range(60)})
    images = load_images(source)
    assert images.store is not None
    again = archive_store(images.store.url)
    with ThreadPoolExecutor(8) as pool:
        read = dict(zip(images.paths, pool.map(again.read, images.paths), strict=True))
    assert read == {path: png(int(path[2:5])) for path in images.paths}
    assert pickle.loads(pickle.dumps(again)).read("b/007.png") == png(7)


def test_a_single_folder_of_a_split_or_of_images_is_no_top_folder(tmp_path: Path) -> None:
    one_class = write_zip(tmp_path / "a.zip", {"cat/1.png": png(1), "cat/2.png": png(2)})
    assert load_images(one_class).labels == ["cat", "cat"]
    one_split = write_zip(tmp_path / "b.zip", {"train/cat/1.png": png(1), "train/dog/2.png": png(2)})
    assert load_images(one_split).labels == ["cat", "dog"]
    assert load_images(one_split).splits == ["train", "train"]


def test_the_folders_that_a_zip_names_above_its_images_are_no_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "here" / "deep" / "photos"  # the two above have an entry of their own
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(png(40))
    made = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "here", "deep")
    assert zipfile.ZipFile(made).namelist()[:2] == ["deep/", "deep/photos/"]
    images = load_images(made)
    assert (images.labels, images.passed_over, images.notes) == (["cat", "dog"], {}, [])
    write_zip(tmp_path / "dot.zip", {"./": b"", "./cat/1.png": png(1), "./dog/1.png": png(2)})
    assert load_images(tmp_path / "dot.zip").passed_over == {}


def test_what_macos_puts_into_a_zip_is_passed_by(tmp_path: Path) -> None:
    names = ["p/cat/1.png", "p/dog/1.png", "__MACOSX/p/cat/._1.png", "p/.DS_Store"]
    images = load_images(write_zip(tmp_path / "p.zip", dict.fromkeys(names, png(1))))
    assert (images.paths, images.labels) == (["p/cat/1.png", "p/dog/1.png"], ["cat", "dog"])


def test_large_archives_those_with_a_comment_and_those_behind_a_program_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 40)  # of zipfile, which writes what this test reads
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for number, name in enumerate(["a/1.png", "b/1.png"]):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(png(number))
        archive.comment = b"PK\5 a comment"
    source.write_bytes(b"#!/bin/sh\n" * 9 + source.read_bytes())
    assert contents(load_images(source)) == [png(0), png(1)]


@pytest.mark.sample("3")
@pytest.mark.parametrize("n_members", [3, 70_000])
def test_the_directory_is_read_as_zipfile_reads_it(tmp_path: Path, n_members: int) -> None:
    rng = np.random.default_rng(5)
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(n_members)]
    source = write_zip(tmp_path / "p.zip", {name: rng.bytes(int(rng.integers(9))) for name in names})
    index = zip_index.ZipIndex(source)
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
    assert list(index.places) == [member.filename for member in members]
    assert list(index.at) == [member.header_offset for member in members]
    assert list(index.sizes) == [member.file_size for member in members]


# --- WebDataset -----------------------------------------------------------------------------------------------


def shard(first: int, n: int = 4) -> dict[str, bytes]:
    members = {}
    for i in range(first, first + n):
        members[f"{i:06}.png"] = png(i)
        members[f"{i:06}.cls"] = str(i % 3).encode()
    return members


def test_labels_lie_beside_the_images_of_shards_and_splits_are_in_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(["imagenet-train-000000", "imagenet-train-000001", "imagenet-val-000000"]):
        write_tar(tmp_path / f"{name}.tar", shard(10 * number))
    images = load_images(tmp_path)
    assert images.splits == ["train"] * 8 + ["val"] * 4
    assert images.labels == [str(i % 3) for i in (0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23)]
    assert images.paths[4] == "imagenet-train-000001.tar/000010.png"
    assert contents(images)[4] == png(10)
    assert not images.passed_over
    assert images.store is not None
    again = archive_store(images.store.url)
    assert again.read(images.paths[-1]) == png(23)


def test_labels_are_read_from_json_beside_the_images(tmp_path: Path) -> None:
    beside = [b'{"label": 4, "class": "no"}', b'{"class": "owl"}', b'{"caption": "x"}', b"[1", b'{"label": [1, 2]}']
    members = {f"a.b/{i}.seg.png": png(i) for i in range(5)} | {f"a.b/{i}.json": beside[i] for i in range(5)}
    images = load_images(write_tar(tmp_path / "s.tar", members))
    assert images.labels == ["4", "owl", "a.b", "a.b", "a.b"]


def test_label_from_wins_over_what_lies_beside(tmp_path: Path) -> None:
    members = {"cat_1.png": png(1), "cat_1.cls": b"7", "dog_1.png": png(2), "dog_1.cls": b"8"}
    assert load_images(write_tar(tmp_path / "s.tar", members), label_from="name").labels == ["cat", "dog"]


def test_a_folder_of_an_archive_a_split_has_the_classes_inside(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_zip(tmp_path / f"{name}.zip", {f"{name}/{c}/{i}.png": png(i) for c in ("Cats", "Dogs") for i in (1, 2)})
    images = load_images(tmp_path, class_map={"Cats": "cat"})
    assert images.splits == ["test"] * 4 + ["train"] * 4
    assert images.labels == ["cat", "cat", "Dogs", "Dogs"] * 2


def test_archives_of_a_folder_with_classes_that_differ_are_an_error(tmp_path: Path) -> None:
    write_zip(tmp_path / "train.zip", {f"{c}/1.png": png(1) for c in ("cats", "dogs")})
    write_zip(tmp_path / "test.zip", {f"{c}/1.png": png(1) for c in ("cats", "owls")})
    with pytest.raises(DataError, match="Classes differ between splits"):
        load_images(tmp_path)


# --- faults ---------------------------------------------------------------------------------------------------


@every_kind
def test_names_that_lead_out_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    bad = ["../out.png", "/abs/out.png", "a/../../out.png"]
    source = WRITERS[name](tmp_path / name, dict.fromkeys(["a/1.png", "b/1.png", *bad], png(1)))
    images = load_images(source)
    assert images.paths == ["a/1.png", "b/1.png"]
    assert images.passed_over == {"with an odd name": 3}


def test_links_and_devices_of_a_tar_are_listed_skips(tmp_path: Path) -> None:
    kinds = {"sym.png": tarfile.SYMTYPE, "dev.png": tarfile.CHRTYPE, "pipe.png": tarfile.FIFOTYPE}
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for name, kind in {**kinds, "h.png": tarfile.LNKTYPE}.items():
            info = tarfile.TarInfo(f"a/{name}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("b/1.png")
        info.size = len(png(3))
        archive.addfile(info, io.BytesIO(png(3)))
        info = tarfile.TarInfo("b/again.png")
        info.type, info.linkname = tarfile.LNKTYPE, "b/1.png"
        archive.addfile(info)
    images = load_images(tmp_path / "p.tar")
    assert images.store is not None
    assert len(images) == 6
    reasons = {"sym": "a symbolic link", "dev": "a device", "pipe": "a named pipe", "h": "a hard link to what is not"}
    for name, reason in reasons.items():
        with pytest.raises(BadImage, match=reason):
            images.store.read(f"a/{name}.png")
    assert images.store.read("b/again.png") == png(3)  # another name of a member


def test_a_symbolic_link_in_a_zip_is_a_listed_skip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        info = zipfile.ZipInfo("a/1.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("b/1.png", png(1))
    store = load_images(tmp_path / "p.zip").store
    assert store is not None
    with pytest.raises(BadImage, match="symbolic link"):
        store.read("a/1.png")


def test_a_member_that_unfolds_to_many_times_its_size_is_refused_unread(tmp_path: Path) -> None:
    bomb = {"a/bomb.png": bytes(70 << 20), "b/1.png": png(1)}
    store = load_images(deflated(tmp_path / "p.zip", bomb)).store
    assert store is not None
    with pytest.raises(BadImage, match=r"too large: 73 MB from 0\.1 MB"):
        store.read("a/bomb.png")
    assert store.read("b/1.png") == png(1)


def test_a_member_that_unfolds_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    source = deflated(tmp_path / "p.zip", {"a/1.png": bytes(5 << 20), "b/1.png": png(1)})
    content = bytearray(source.read_bytes())
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", 1000)
    source.write_bytes(content)
    store = load_images(source).store
    assert store is not None
    with pytest.raises(BadImage, match="not what the archive says"):
        store.read("a/1.png")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    source = deflated(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(2), "c/1.png": png(3)})
    content = bytearray(source.read_bytes())
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    content[second + 42 : second + 46] = struct.pack("<I", 10)  # where its header is said to lie: within the first
    source.write_bytes(content)
    store = load_images(source).store
    assert store is not None
    for path in ("a/1.png", "b/1.png"):
        with pytest.raises(BadImage, match="shares its bytes"):
            store.read(path)
    assert store.read("c/1.png") == png(3)


def test_a_member_larger_than_any_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "MAX_FILE_BYTES", 50)
    for name in ("p.zip", "p.tar"):
        store = load_images(WRITERS[name](tmp_path / name, {"a/1.png": png(1), "b/1.png": b"x" * 50})).store
        assert store is not None and store.read("b/1.png") == b"x" * 50
        with pytest.raises(BadImage, match="too large"):
            store.read("a/1.png")


def test_an_encrypted_member_is_a_listed_skip(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(2)})
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(content)
    store = load_images(source).store
    assert store is not None
    with pytest.raises(BadImage, match="encrypted"):
        store.read("a/1.png")
    assert store.read("b/1.png") == png(2)


def test_a_method_of_packing_that_is_not_read_is_a_listed_skip(tmp_path: Path) -> None:
    store = load_images(write_zip(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(2)}, zipfile.ZIP_LZMA)).store
    assert store is not None
    with pytest.raises(BadImage, match="method 14; only stored and deflated"):
        store.read("a/1.png")


def test_a_zip_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(2)})
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(DataError, match="no zip archive, or cut short"):
        load_images(source)


def test_of_a_tar_that_is_cut_short_the_whole_members_are_taken_with_a_note(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "p.tar", {f"{c}/{i}.png": bytes(2000) for i in range(2) for c in "ab"})
    os.truncate(source, 3 * (512 + 2048) + 512 + 700)
    images = load_images(source)
    assert images.paths == ["a/0.png", "a/1.png", "b/0.png"]
    assert any("cut short after 3 members" in note for note in images.notes)


def test_a_tar_that_is_none_or_damaged_in_the_middle(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "p.tar", {f"{c}/{i}.png": bytes(2000) for i in range(2) for c in "ab"})
    content = bytearray(source.read_bytes())
    content[2 * 2560 + 3] ^= 1
    source.write_bytes(content)
    images = load_images(source)
    assert len(images) == 2 and any("damaged or cut short after 2 members" in note for note in images.notes)
    source.write_bytes(b"no tar" * 500)
    with pytest.raises(DataError, match="no tar archive, or damaged"):
        load_images(source)


@every_kind
def test_an_archive_that_changes_while_it_is_read_is_a_bad_image(tmp_path: Path, name: str) -> None:
    store = load_images(WRITERS[name](tmp_path / name, {"a/1.png": png(1), "b/1.png": png(2)})).store
    assert store is not None and store.read("a/1.png") == png(1)
    WRITERS[name](tmp_path / name, {"b/1.png": png(1), "a/1.png": png(2), "c/1.png": png(3)})
    with pytest.raises(BadImage, match="was changed while it was read"):
        store.read("a/1.png")
    (tmp_path / name).unlink()
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        store.read("a/1.png")


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile, which writes what this test reads
@every_kind
def test_of_members_with_one_name_the_last_is_taken_and_it_is_said(tmp_path: Path, name: str) -> None:
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, number in (("a/1.png", 1), ("b/1.png", 2), ("a/1.png", 3)):
                archive.writestr(member, png(number))
    else:
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, number in (("a/1.png", 1), ("b/1.png", 2), ("a/1.png", 3)):
                info = tarfile.TarInfo(member)
                info.size = len(png(number))
                tar.addfile(info, io.BytesIO(png(number)))
    images = load_images(tmp_path / name)
    assert contents(images) == [png(3), png(2)]
    assert any("1 member with the name of a later one left out" in note for note in images.notes)


def test_names_that_are_not_utf_8_and_those_of_windows_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        for name in ("käfer/1.png", "b/1.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
    images = load_images(tmp_path / "p.tar")
    assert images.labels == ["b", "k\udce4fer"]
    assert contents(images) == [png(1)] * 2
    source = write_zip(tmp_path / "p.zip", {"kaefer1/1.png": png(1), "b\\2.png": png(2)})
    content = source.read_bytes().replace(b"kaefer1", "käfer1".encode())  # as macOS writes it, without saying so
    source.write_bytes(content)
    images = load_images(source)
    assert (images.labels, contents(images)) == (["b", "käfer1"], [png(2), png(1)])


@every_kind
def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path, name: str) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"c/1.png": png(3)}).read_bytes()
    members = {"a/1.png": png(1), "b/1.png": png(2), "b/inner.zip": inner}
    images = load_images(WRITERS[name](tmp_path / name, members))
    assert (images.paths, images.passed_over) == (["a/1.png", "b/1.png"], {".zip": 1})


@pytest.mark.parametrize(
    ("name", "advice"),
    [("p.tar.gz", "gunzip -k p.tar.gz"), ("p.TGZ", "gunzip"), ("p.tar.xz", "unxz"), ("p.7z", "unpack it")],
)
def test_an_archive_that_is_packed_as_a_whole_is_an_error_that_says_how_to_make_a_plain_one(
    tmp_path: Path, name: str, advice: str
) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=advice):
        load_images(tmp_path / name)


def test_an_archive_without_images_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No images in .*p\.zip \(left out: 2 \.txt\)"):
        load_images(write_zip(tmp_path / "p.zip", {"a/1.txt": b"1", "b/1.txt": b"2"}))


def test_an_option_of_tables_is_refused_for_an_archive(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "p.zip", {"a/1.png": png(1)})
    with pytest.raises(UsageError, match="--label-column is for tables"):
        load_images(source, label_column="x")


def test_stamps_change_with_the_content_of_a_zip_and_with_the_time_of_a_tar(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        source = write_zip(tmp_path / "p.zip", {"a/1.png": png(1), "b/1.png": png(number)})
        store = load_images(source).store
        assert store is not None
        found.append(store.stamps(["a/1.png", "b/1.png", "c/1.png"]))
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]
    assert found[0][2] == (0, 0) and (0, 0) not in found[0][:2]
    source = write_tar(tmp_path / "p.tar", {"a/1.png": png(1), "b/1.png": png(1)})
    stamps = []
    for time_s in (0, 1_700_000_000, 1_700_000_000, 1_700_000_009):
        if time_s:
            os.utime(source, (time_s, time_s))
        store = load_images(source).store
        assert store is not None
        stamps.append(store.stamps(["a/1.png", "b/1.png"]))
    assert stamps[0] == [(0, 0)] * 2  # written just now: it may change again
    assert stamps[1] == stamps[2] and not set(stamps[2]) & set(stamps[3])
    assert stamps[1][0] != stamps[1][1]


def test_members_of_eight_gigabytes_and_more_are_known_by_their_size(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a/1.png")
        info.size = 9 << 30
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
        archive.fileobj.seek(9 << 30, os.SEEK_CUR)  # type: ignore[union-attr]  a hole
        archive.offset += 512 + (9 << 30)
        info = tarfile.TarInfo("b/1.png")
        info.size = len(png(2))
        archive.addfile(info, io.BytesIO(png(2)))
    store = load_images(tmp_path / "p.tar").store
    assert store is not None and store.read("b/1.png") == png(2)
    with pytest.raises(BadImage, match=r"too large: 9\.7 GB"):
        store.read("a/1.png")


def test_a_store_says_why_nothing_can_be_read(tmp_path: Path) -> None:
    store = archives.Archives(tmp_path / "gone.zip")
    with pytest.raises(BadImage, match="No such file"):
        store.read("a/1.png")
    assert store.stamps(["a/1.png"]) == [(0, 0)]
