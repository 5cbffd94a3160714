"""Images of a store are embedded as files are: the same rows, each read once, nothing read where nothing changed."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_servers import serving, status
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.errors import BadImage, DataError, Interrupted
from tlfeat.extract.extract import extract_rows
from tlfeat.images import remote
from tlfeat.images.fsspec_remote import FsspecRemote
from tlfeat.images.load import load_images
from tlfeat.images.read_ahead import read_ahead

fsspec = pytest.importorskip("fsspec")

N = 12


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(N):
        path = tmp_path / "photos" / ("cat" if i % 3 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 9), (20 * i, i, 7)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for path in folder.rglob("*.png"):
        files.pipe(f"/far/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield "memory://far"
    files.rm("/far", recursive=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was read, and "listing" how often all were listed."""
    found: Counter[str] = Counter()
    fetch, entries = FsspecRemote.fetch, FsspecRemote.entries

    def counted_fetch(self: FsspecRemote, path: str, max_bytes: int) -> tuple[bytes, int]:
        found[path] += 1
        return fetch(self, path, max_bytes)

    def counted_entries(self: FsspecRemote) -> Iterator[tuple[str, int, int]]:
        found["listing"] += 1
        return entries(self)

    monkeypatch.setattr(FsspecRemote, "fetch", counted_fetch)
    monkeypatch.setattr(FsspecRemote, "entries", counted_entries)
    return found


def rows_of(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    with open_cache(path) as cache:
        table = cache.table
        return table.images.paths, table.keys, cache.read("pixels", [key for key in table.keys if key])


def test_rows_of_a_bucket_are_those_of_the_files_to_the_bit(folder: Path, bucket: str, tmp_path: Path) -> None:
    extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5")
    near, far = rows_of(tmp_path / "near.h5"), rows_of(tmp_path / "far.h5")
    assert near[:2] == far[:2]
    assert near[2].tobytes() == far[2].tobytes()


def test_an_unchanged_bucket_is_listed_once_and_nothing_is_read(
    bucket: str, tmp_path: Path, asked: Counter[str]
) -> None:
    extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5", known_in=[])
    assert asked == {**dict.fromkeys(load_images(bucket).paths, 1), "listing": 2}
    asked.clear()
    report = extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5")
    assert (report.n_known, dict(asked)) == (N, {"listing": 1})
    fsspec.filesystem("memory").pipe("/far/cat/01.png", fsspec.filesystem("memory").cat("/far/cat/02.png"))
    report = extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5")
    assert (report.n_known, report.n_embedded, asked["cat/01.png"], asked["cat/04.png"]) == (N, 0, 1, 0)


def test_an_image_as_large_as_one_of_another_cache_is_not_read_twice(
    folder: Path, bucket: str, tmp_path: Path, asked: Counter[str]
) -> None:
    files = fsspec.filesystem("memory")
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        files.pipe(f"/far/{path.relative_to(folder).as_posix()}", path.read_bytes().ljust(2000, b"\0"))
        path.write_bytes(path.read_bytes().ljust(2000, bytes([i + 1])))
    extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5", known_in=[tmp_path / "near.h5"])
    assert {n for path, n in asked.items() if path != "listing"} == {1}


def test_a_cache_knows_where_its_images_lie_and_reads_them_there_again(bucket: str, tmp_path: Path) -> None:
    extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5")
    with open_cache(tmp_path / "far.h5") as cache:
        assert cache.source == {"root": bucket, "source": bucket, "store": bucket}
        images = cache.table.images
        assert (images.named, images.place, images.name) == (bucket, bucket, "far")
        content = images.content(0)
        assert callable(content)
        assert content() == fsspec.filesystem("memory").cat(f"/far/{images.paths[0]}")


def test_a_run_that_was_stopped_goes_on_and_reads_no_image_again(
    folder: Path, bucket: str, tmp_path: Path, asked: Counter[str]
) -> None:
    n_seen = []

    def stop(what: str, n: int, n_all: int) -> None:
        n_seen.append(n)
        if len(n_seen) == 9:
            raise KeyboardInterrupt

    encoder = PixelEncoder()
    encoder.batch_size = 1
    with pytest.raises(Interrupted):
        extract_rows(load_images(bucket), encoder, tmp_path / "far.h5", on_progress=stop, n_threads=1)
    with open_cache(tmp_path / "far.h5") as cache:
        n_done = cache.table.count("ok")
        done = [p for p, s in zip(cache.table.images.paths, cache.table.status, strict=True) if s == "ok"]
    assert 0 < n_done < N
    asked.clear()
    report = extract_rows(load_images(bucket), encoder, tmp_path / "far.h5")
    assert report.n_known == n_done
    assert not set(done) & set(asked)
    extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    assert sorted(rows_of(tmp_path / "near.h5")[1]) == sorted(rows_of(tmp_path / "far.h5")[1])


def test_what_cannot_be_read_is_a_listed_skip_with_the_reason_and_tried_again_next_time(
    folder: Path, tmp_path: Path
) -> None:
    files = {f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.png")}
    with serving(files) as site:
        site.etags = {path: path for path in files}
        site.rules = {
            "/cat/01.png": lambda handler, n: handler.command == "GET" and status(403)(handler, n),
            "/cat/02.png": lambda handler, n: handler.command == "GET" and status(404)(handler, n),
            "/cat/04.png": lambda handler, n: handler.command == "GET" and status(503, times=3)(handler, n),
        }
        report = extract_rows(load_images(site.url), PixelEncoder(), tmp_path / "far.h5")
        assert report.failures == [("cat/01.png", "no permission (403)"), ("cat/02.png", "not there (404)")]
        site.rules.clear()
        site.asked.clear()
        report = extract_rows(load_images(site.url), PixelEncoder(), tmp_path / "far.h5")
        assert (report.failures, site.n_asked("GET"), site.n_asked("HEAD")) == ([], 2, N)


# --- reading ahead --------------------------------------------------------------------------------------------


def taken(files: Iterator[tuple[int, object]]) -> list[tuple[int, object]]:
    return [(i, picture() if callable(picture) else picture) for i, picture in files]


def test_many_reads_are_under_way_at_once_and_come_in_order() -> None:
    under_way, most = Counter[str](), Counter[str]()
    lock = threading.Lock()

    def read(i: int) -> bytes:
        with lock:
            under_way["n"] += 1
            most["n"] = max(most["n"], under_way["n"])
        time.sleep(0.03 if i == 0 else 0.01)
        with lock:
            under_way["n"] -= 1
        return bytes([i])

    files = [(i, Path("near.png") if i == 5 else (lambda i=i: read(i))) for i in range(40)]
    started_s = time.perf_counter()
    assert taken(read_ahead(files, 16)) == [(i, Path("near.png") if i == 5 else bytes([i])) for i in range(40)]
    assert 8 <= most["n"] <= 16
    assert time.perf_counter() - started_s < 0.2


def test_what_is_read_ahead_is_bounded_in_bytes_and_one_large_image_comes_alone() -> None:
    held, most = Counter[str](), Counter[str]()
    lock = threading.Lock()

    def read(n: int) -> bytes:
        with lock:
            held["n"] += n
            most["n"] = max(most["n"], held["n"])
        return bytes(n)

    sizes = [30, 30, 500, 30, 30, 30, 30, 30]
    files = [(i, lambda n=n: read(n)) for i, n in enumerate(sizes)]
    found = []
    for _, picture in read_ahead(iter(files), 8, size_of=sizes.__getitem__, max_bytes=100):
        time.sleep(0.005)
        assert callable(picture)
        data = picture()
        found.append(len(data))
        with lock:
            held["n"] -= len(data)
    assert found == sizes
    assert most["n"] <= 500 + 30


def test_the_reason_of_a_read_that_failed_comes_at_its_place() -> None:
    def bad() -> bytes:
        raise BadImage("not there")

    good, failed, last = read_ahead([(0, lambda: b"a"), (1, bad), (2, lambda: b"b")], 2)
    assert callable(good[1]) and callable(last[1]) and callable(failed[1])
    assert (good[1](), last[1]()) == (b"a", b"b")
    with pytest.raises(BadImage, match="not there"):
        failed[1]()


def test_nobody_waits_for_a_read_that_hangs_when_the_run_is_stopped() -> None:
    release = threading.Event()
    files = [(0, lambda: b"a"), (1, lambda: bytes(release.wait(5)))]
    reading = read_ahead(files, 2)
    next(reading)
    started_s = time.perf_counter()
    reading.close()
    assert time.perf_counter() - started_s < 0.5
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "read")
    release.set()


def test_a_server_that_is_gone_ends_the_run_and_keeps_its_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MOST_LOST", 4)
    files = {f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.png")}
    encoder = PixelEncoder()
    encoder.batch_size = 1
    with serving(files) as site:
        site.rules = {path: status(503) for path in sorted(files)[1:]}  # the one answer may come between any others
        images = load_images(site.url)
        with pytest.raises(DataError, match="4 images in a row could not be read"):
            extract_rows(images, encoder, tmp_path / "far.h5")


# --- clocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [30, 1800], ids=["half a minute", "half an hour"])
def test_a_change_within_a_second_is_seen_though_the_clock_of_a_file_server_is_late(
    folder: Path, tmp_path: Path, late_s: int
) -> None:
    """Its times are in whole seconds and look old here: the file is as large as before and has the same time."""
    path = folder / "cat" / "01.png"
    second_ns = (time.time_ns() // 10**9 - late_s) * 10**9

    def written(content: bytes) -> None:
        path.write_bytes(content.ljust(2000, b"\0"))
        os.utime(path, ns=(second_ns, second_ns))

    first, other = path.read_bytes(), (folder / "cat" / "02.png").read_bytes()
    written(first)
    extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    written(other)
    report = extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    assert report.n_embedded == 1


def test_old_times_in_whole_seconds_are_trusted_and_those_of_the_future_are_not(folder: Path, tmp_path: Path) -> None:
    now_s = time.time_ns() // 10**9
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        at_ns = (now_s + (86_400 if i == 3 else -86_400)) * 10**9
        os.utime(path, ns=(at_ns, at_ns))
    extract_rows(load_images(folder), PixelEncoder(), tmp_path / "near.h5")
    with open_cache(tmp_path / "near.h5") as cache:
        assert [t == 0 for t in cache.table.mtimes_ns] == [i == 3 for i in range(N)]


def test_stamps_of_a_store_are_no_times_and_are_kept_whatever_the_clock_says(bucket: str, tmp_path: Path) -> None:
    extract_rows(load_images(bucket), PixelEncoder(), tmp_path / "far.h5")
    with open_cache(tmp_path / "far.h5") as cache:
        images = cache.table.images
        stamps = [stamp for _, stamp in load_images(bucket).store.stamps(images.paths)]  # type: ignore[union-attr]
        assert list(cache.table.mtimes_ns) == stamps
        assert all(stamps)
