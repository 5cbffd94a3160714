"""What somebody named is opened only if it is a regular file: no device that never ends, no pipe that never begins."""

from __future__ import annotations

import os
import signal
import socket
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import MakePhotos, picture
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.network import BackboneSpec, stored_input_size, weights_digest
from tlfeat.backbones.weights_files import check_weights_file, layer_names
from tlfeat.cache.store import open_cache
from tlfeat.errors import BadImage, DataError, KnownError, UsageError, WeightsError
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.reference import read_reference, reference_file
from tlfeat.extract.transfer import import_rows
from tlfeat.files import kept_inside, open_regular
from tlfeat.finetune.epochs import State
from tlfeat.finetune.saved import load_model
from tlfeat.heads.reject import load_rejector
from tlfeat.heads.saved import load_head
from tlfeat.images.decode import read_file
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.models.saved import read_model, read_result
from tlfeat.workspace import read_json

Place = Callable[[Path], Any]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        server.bind(path.name)
        os.chdir(here)


PLACES: dict[str, Place] = {
    "a named pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
}

every_kind = pytest.mark.parametrize("kind", PLACES)


@pytest.fixture(autouse=True)
def _in_five_seconds() -> Iterator[None]:
    """Nobody waits for a pipe or reads a device to its end: a test that would is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError("still waiting after five seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "image": ("a.jpg", read_file),
    "table": ("a.csv", load_images),
    "weights": ("w.weights.h5", lambda path: weights_digest(BackboneSpec("mobilenet_v2", str(path)))),
    "network": ("n.keras", stored_input_size),
    "layers": ("n.keras", layer_names),
    "skops": ("head.skops", lambda path: load_head(path.parent)),
    "joblib": ("head.joblib", lambda path: load_head(path.parent, is_trusted=True)),
    "rejector": ("reject.npz", lambda path: load_rejector(path.parent)),
    "keras": ("model.keras", load_model),
    "about": ("model.json", lambda path: read_model(path.parent)),
    "result": ("result.json", lambda path: read_result(path.parent)),
    "json": ("a.json", read_json),
    "rows": ("rows.npy", lambda path: import_rows(path, path.with_name("t.csv"), path.with_name("c.h5"), name="x")),
    "cache": ("c.h5", lambda path: open_cache(path).close()),
}


@every_kind
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_in_one_line(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    if reader == "table" and kind == "a folder":
        pytest.skip("a folder of images is no table, whatever it is called")
    PLACES[kind](tmp_path / name)
    with pytest.raises(KnownError) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    words = "Is a directory" if kind == "a folder" else kind
    assert words in str(caught.value) or reader in ("result", "cache")


@every_kind
def test_what_is_kept_is_made_again_where_there_is_no_regular_file(kind: str, tmp_path: Path) -> None:
    path = reference_file(tmp_path / "c.h5", {"backbone": "b"})
    path.parent.mkdir()
    PLACES[kind](path)
    assert read_reference(tmp_path / "c.h5", {"backbone": "b"}, ["a"]) is None
    PLACES[kind](tmp_path / "state.npz")
    assert State.load(tmp_path / "state.npz") == State()
    check_weights_file(path, "mobilenet_v2")  # unsure passes; nothing is read


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a socket"])
def test_an_image_that_is_no_file_is_listed_and_the_others_are_embedded(
    kind: str, make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos = make_photos(n=3)
    PLACES[kind](photos / "cat" / "z.png")
    names = sorted(path.relative_to(tmp_path) for path in photos.rglob("*.png"))
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{name},{name.parent.name}\n" for name in names))
    report = extract_rows(load_images(tmp_path / "t.csv"), PixelEncoder(), tmp_path / "c.h5")
    assert report.n_embedded == 6
    assert report.failures == [("photos/cat/z.png", f"cannot be read: it is {kind}, not a file")]


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening."""
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_text("x")
    as_file = file.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: as_file)
    with pytest.raises(OSError, match="a named pipe"):
        open_regular(pipe)


def test_a_file_that_grows_while_it_is_read_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlfeat.images.decode.MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1001))
    with pytest.raises(BadImage, match=r"^too large: "):
        read_file(path)
    path.write_bytes(bytes(1000))
    assert len(read_file(path)) == 1000
    fstat = os.fstat

    def grows(handle: int) -> os.stat_result:
        about = fstat(handle)
        path.write_bytes(bytes(5000))
        return about

    monkeypatch.setattr(os, "fstat", grows)
    with pytest.raises(BadImage, match="too large"):
        read_file(path)


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 3000)
    tracemalloc.start()
    try:
        assert read_file(path) == b"x" * 3000
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_file_that_says_it_is_empty_is_read_to_its_end() -> None:
    """As those under /proc do."""
    if not Path("/proc/self/maps").is_file():
        pytest.skip("files without a size: Linux")
    assert len(read_file(Path("/proc/self/maps"))) > 5000


@pytest.mark.parametrize(
    "name", ["head.skops", "head.joblib", "reject.npz", "model.keras", "model.json", "result.json"]
)
def test_a_file_of_a_model_is_no_link_out_of_its_folder(name: str, tmp_path: Path) -> None:
    model, secret = tmp_path / "model", tmp_path / "secret"
    model.mkdir()
    if name.endswith(".json"):
        secret.write_text("{}")
    else:
        with zipfile.ZipFile(secret, "w") as archive:
            archive.writestr("x", "of the user")
    (model / name).symlink_to(secret)
    read = dict(READERS.values())[name]
    with pytest.raises(KnownError) as caught:
        read(model / name)
    assert "leads out of" in str(caught.value) or name == "result.json"


def test_a_model_folder_may_be_a_link_and_hold_links_to_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.json").write_text("[1]")
    (tmp_path / "model" / "b.json").symlink_to("a.json")
    (tmp_path / "link").symlink_to("model")
    assert read_json(tmp_path / "link" / "b.json") == [1]


# --- paths of a table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("a/b.png", "a/b.png"),
        ("a/../b.png", "a/../b.png"),
        ("../b.png", "(..)/b.png"),
        ("a/../../etc/x", "a/(..)/(..)/etc/x"),
        ("./../x", "./(..)/x"),
        ("a/b/../../../x", "a/b/(..)/(..)/(..)/x"),
        ("..", "(..)"),
        ("..b/x..png", "..b/x..png"),
        ("/data/../b.png", "/data/../b.png"),
    ],
)
def test_a_relative_path_that_leads_out_leads_nowhere(path: str, kept: str) -> None:
    assert kept_inside(path) == kept


def test_a_stranger_s_cache_does_not_lead_out_of_its_folder(make_photos: MakePhotos, tmp_path: Path) -> None:
    images = load_images(make_photos(n=3))
    (tmp_path / "secret.png").write_bytes((images.root / "cat" / "0.png").read_bytes())
    paths = [*images.paths[:-1], "../secret.png"]
    forged = ImageSet(images.root, images.source, paths, images.labels, images.splits, images.groups)
    cache = extract_rows(forged, PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(cache) as opened:
        found = opened.table.images
    assert found.paths[:-1] == paths[:-1]
    assert not found.file(len(paths) - 1).exists()
    assert found.file(0).exists()


def test_a_table_may_name_files_beside_its_own_folder(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=3)
    (tmp_path / "lists" / "old").mkdir(parents=True)
    (tmp_path / "lists" / "near.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    picture(77).save(tmp_path / "lists" / "old" / "own.png")
    outside = tmp_path / "absolute.png"
    picture(78).save(outside)
    table = tmp_path / "lists" / "old" / "t.csv"
    named = ["../../photos/cat/1.png", "../near.png", "own.png", str(outside), "x/../../../photos/dog/2.png"]
    (tmp_path / "lists" / "old" / "x").mkdir()
    table.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(named, "ababa", strict=True)))
    images = load_images(table)
    assert images.root == tmp_path
    assert images.paths == [
        "photos/cat/1.png",
        "lists/near.png",
        "lists/old/own.png",
        str(outside),
        "lists/old/x/../../../photos/dog/2.png",
    ]
    report = extract_rows(images, PixelEncoder(), tmp_path / "c.h5")
    assert (report.n_embedded, report.failures) == (5, [])
    with open_cache(tmp_path / "c.h5") as opened:
        assert [opened.table.images.file(i) for i in range(5)] == [images.file(i) for i in range(5)]
        assert all(opened.table.images.file(i).exists() for i in range(5))
    assert extract_rows(load_images(table), PixelEncoder(), tmp_path / "c.h5").n_embedded == 0


def test_more_steps_up_than_there_are_folders_end_at_the_topmost(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\n{'../' * 60}{str(tmp_path)[1:]}/a.png,a\n")
    images = load_images(table)
    assert images.root == Path("/")
    assert images.file(0) == tmp_path / "a.png"


# --- archives that unfold -------------------------------------------------------------------------------------


def _bomb(path: Path, member: str, n_bytes: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as opened:
        opened.write(b'{"class_name": "Functional", "config": {}}')
        for _ in range(n_bytes >> 20):
            opened.write(bytes(1 << 20).replace(b"\0", b" "))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("head.skops", lambda path: load_head(path.parent)),
        ("n.keras", layer_names),
        ("n.keras", stored_input_size),
        ("model.keras", load_model),
    ],
    ids=["head", "layers", "input size", "network"],
)
@pytest.mark.parametrize("member", ["config.json", "schema.json", "x.npy"])
def test_an_archive_that_would_unfold_to_many_times_its_size_is_refused_before_it_is_read(
    name: str, read: Callable[[Path], Any], member: str, tmp_path: Path
) -> None:
    _bomb(tmp_path / "m" / name, member, 40 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(KnownError, match=r"it holds 41\.9 MB in 0\.\d MB"):
            read(tmp_path / "m" / name)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_json_in_a_large_archive_is_limited_too(tmp_path: Path) -> None:
    path = tmp_path / "n.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", bytes(10 << 20))
        archive.writestr("config.json", b" " * (17 << 20))
    with pytest.raises(WeightsError, match=r"its config\.json is 17\.8 MB"):
        layer_names(path)


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 1 << 40), (4096, 4097)])
def test_an_input_that_no_network_takes_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"{size[0]}x{size[1]} pixels is too large: the limit is 17 million"):
        BackboneSpec("mobilenet_v2", "random", size)
    assert BackboneSpec("mobilenet_v2", "random", (4096, 4096)).size == (4096, 4096)


@pytest.mark.parametrize("size", [[60_000, 60_000], [0, 9], [3], "32x32", [3.5, 3], [True, True], {"a": 1}])
def test_an_input_size_of_a_stranger_s_description_is_refused_as_data(size: Any) -> None:
    with pytest.raises(DataError, match="input"):
        BackboneSpec.from_dict({"backbone": "mobilenet_v2", "weights": "random", "input_size": size})
