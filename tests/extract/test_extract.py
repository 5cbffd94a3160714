"""Extraction: nothing twice, nothing lost, bad images listed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from children import KILLED, exit_code_of_child, killed
from conftest import CountingEncoder, MakePhotos, picture
from tlfeat.cache.store import open_cache
from tlfeat.errors import CacheError, DataError, FingerprintError, Interrupted
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.types import OnProgress, Pixels, Rows, silent

WRITER = """
import sys, time
from pathlib import Path
from typing import Any
from tlfeat.cache import cache_file as cache
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
class Slow(PixelEncoder):
    def encode(self, pixels):
        time.sleep(0.05)
        return super().encode(pixels)
    batch_size = 4
cache._COMMIT_S = 0
extract_rows(load_images(Path(sys.argv[1])), Slow((8, 8)), Path(sys.argv[2]))
"""


def rows_by_path(cache_path: Path) -> dict[str, bytes]:
    with open_cache(cache_path) as cache:
        table = cache.table
        return {
            path: cache.read("pixels", [key])[0].tobytes()
            for path, key in zip(table.images.paths, table.keys, strict=True)
        }


def age(folder: Path) -> None:
    """Make every file look an hour old, so that its time stamp is trusted."""
    then = time.time() - 3600
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_second_extract_sends_no_image_through_the_encoder_and_reads_no_file(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, cache = make_photos(), tmp_path / "c.h5"
    age(photos)
    first = extract_rows(load_images(photos), encoder, cache)
    assert (first.n_embedded, encoder.n_encoded, encoder.n_prepared) == (20, 20, 1)
    before = cache.read_bytes()

    def never(*args: object) -> None:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("tlfeat.images.decode.read_file", never)
    again = CountingEncoder(batch_size=4)
    second = extract_rows(load_images(photos), again, cache)
    assert (second.n_embedded, second.n_known) == (0, 20)
    assert (again.n_encoded, again.n_prepared) == (0, 0)
    assert cache.read_bytes() == before


def test_changed_added_removed_and_moved_images_cost_exactly_the_new_pictures(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos, cache = make_photos(n=30), tmp_path / "c.h5"
    age(photos)
    extract_rows(load_images(photos), encoder, cache)
    picture(77_777).save(photos / "cat" / "0.png")  # changed
    for i in range(10):
        picture(88_000 + i).save(photos / "dog" / f"new{i}.png")  # added
    for i in range(5):
        (photos / "cat" / f"{20 + i}.png").unlink()  # removed
    for i in range(10):
        (photos / "dog" / f"{i}.png").rename(photos / "dog" / f"moved{i}.png")
    again = CountingEncoder(batch_size=4)
    report = extract_rows(load_images(photos), again, cache)
    assert again.n_encoded == report.n_embedded == 11
    assert report.n_images == 65
    fresh = tmp_path / "fresh.h5"
    extract_rows(load_images(photos), CountingEncoder(), fresh)
    assert rows_by_path(cache) == rows_by_path(fresh)


def test_copies_of_a_picture_share_a_row_and_both_stay_in_the_table(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=3)
    shutil.copy(photos / "cat" / "0.png", photos / "dog" / "copy.png")
    encoder.batch_size = 2
    report = extract_rows(load_images(photos), encoder, tmp_path / "c.h5")
    assert encoder.n_encoded == 6
    assert report.layers["pixels"][0] == 6
    with open_cache(report.cache) as cache:
        keys = dict(zip(cache.table.images.paths, cache.table.keys, strict=True))
        assert keys["cat/0.png"] == keys["dog/copy.png"]
        assert cache.read("pixels", cache.table.keys).shape[0] == 7


def test_changed_labels_cost_no_forward_pass(make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder) -> None:
    photos, cache_path = make_photos(n=3), tmp_path / "c.h5"
    extract_rows(load_images(photos), encoder, cache_path)
    again = CountingEncoder(batch_size=4)
    extract_rows(load_images(photos, class_map={"cat": "feline"}), again, cache_path)
    assert again.n_encoded == 0
    with open_cache(cache_path) as cache:
        assert cache.table.images.classes == ["dog", "feline"]


def test_a_new_layer_keeps_the_old_rows(make_photos: MakePhotos, tmp_path: Path) -> None:
    class TwoLayers(CountingEncoder):
        layers = ("pixels", "mean")  # type: ignore[assignment]

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            rows = super().encode(pixels)["pixels"]
            return {"pixels": rows, "mean": rows.mean(axis=1, keepdims=True)}

    photos, path = make_photos(n=5), tmp_path / "c.h5"
    extract_rows(load_images(photos), CountingEncoder(), path)
    old = rows_by_path(path)
    both = TwoLayers()
    report = extract_rows(load_images(photos), both, path)
    assert both.n_encoded == 10
    assert {name: n for name, (n, _) in report.layers.items()} == {"mean": 10, "pixels": 10}
    assert rows_by_path(path) == old


def test_bad_images_are_listed_and_the_others_embedded(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=4)
    (photos / "cat" / "empty.jpg").write_bytes(b"")
    (photos / "cat" / "text.jpg").write_text("not a picture")
    whole = (photos / "dog" / "0.png").read_bytes()
    (photos / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = extract_rows(load_images(photos), encoder, tmp_path / "c.h5")
    assert report.n_embedded == 8
    assert dict(report.failures) == {
        "cat/empty.jpg": "empty file",
        "cat/text.jpg": "not an image in a known format",
        "dog/cut.png": "image file is truncated",
    }
    with pytest.raises(DataError, match="--strict"):
        extract_rows(load_images(photos), encoder, tmp_path / "c.h5", is_strict=True)


def test_rows_that_are_not_finite_are_failures_and_never_in_the_cache(make_photos: MakePhotos, tmp_path: Path) -> None:
    class Diverging(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            rows = super().encode(pixels)["pixels"].copy()
            rows[0, 0] = np.nan
            return {"pixels": rows}

    report = extract_rows(load_images(make_photos(n=4)), Diverging(batch_size=4), tmp_path / "c.h5")
    assert (len(report.failures), report.n_embedded, report.n_known) == (2, 8, 0)
    assert report.layers["pixels"][0] == 6
    with open_cache(report.cache) as cache:
        assert cache.verify() == []


def test_a_cache_of_another_encoder_is_refused_and_both_are_named(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos = make_photos(n=2)
    extract_rows(load_images(photos), encoder, tmp_path / "c.h5")
    with pytest.raises(FingerprintError, match=r"input_size: the cache has \[8, 8\], asked was \[9, 9\]"):
        extract_rows(load_images(photos), CountingEncoder((9, 9)), tmp_path / "c.h5")


@pytest.mark.sample("0.25")
@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.25, 0.4])
def test_killed_extract_goes_on_and_ends_with_the_same_bits(
    make_photos: MakePhotos, tmp_path: Path, after_s: float
) -> None:
    photos = make_photos(n=60)
    undisturbed, killed = tmp_path / "undisturbed.h5", tmp_path / "killed.h5"
    extract_rows(load_images(photos), CountingEncoder(batch_size=4), undisturbed)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(photos), str(killed)])
    deadline = time.monotonic() + 60
    while not killed.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed: the test shows nothing"
    with open_cache(killed) as cache:
        n_before = cache.n_rows("pixels") if "pixels" in cache.layers else 0
        damage = [problem for problem in cache.verify() if "extract again" not in problem]
        assert damage == []
    again = CountingEncoder(batch_size=4)
    report = extract_rows(load_images(photos), again, killed)
    assert again.n_encoded == 120 - n_before
    assert report.n_embedded + report.n_known == 120
    assert rows_by_path(killed) == rows_by_path(undisturbed)


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(make_photos: MakePhotos, tmp_path: Path) -> None:
    class Stopped(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            if self.n_encoded >= 8:
                raise KeyboardInterrupt
            return super().encode(pixels)

    photos, path = make_photos(n=10), tmp_path / "c.h5"
    with pytest.raises(Interrupted, match="8 of 20 images are done and kept"):
        extract_rows(load_images(photos), Stopped(batch_size=4), path)
    again = CountingEncoder(batch_size=4)
    extract_rows(load_images(photos), again, path)
    assert again.n_encoded == 12


def test_a_picture_that_comes_again_while_its_batch_is_collected_is_embedded_once(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        picture(1).save(tmp_path / "photos" / "a" / f"{i}.png")
    counting = CountingEncoder()
    report = extract_rows(load_images(tmp_path / "photos"), counting, tmp_path / "c.h5")
    assert (counting.n_encoded, report.n_known) == (1, 4)


def test_a_run_that_fails_before_its_first_row_leaves_no_cache_behind(make_photos: MakePhotos, tmp_path: Path) -> None:
    class Broken(CountingEncoder):
        def prepare(self, on_progress: OnProgress = silent) -> None:
            raise DataError("no such layer")

    with pytest.raises(DataError, match="no such layer"):
        extract_rows(load_images(make_photos(n=2)), Broken(), tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_a_folder_of_bad_images_alone_is_an_error(tmp_path: Path, encoder: CountingEncoder) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "x.jpg").write_text("no")
    with pytest.raises(DataError, match="No image of 1 could be read"):
        extract_rows(load_images(tmp_path / "photos"), encoder, tmp_path / "c.h5")


def test_a_new_layer_that_was_stopped_leaves_the_old_one_usable(make_photos: MakePhotos, tmp_path: Path) -> None:
    class Stopped(CountingEncoder):
        layers = ("mean",)  # type: ignore[assignment]

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            if self.n_encoded >= 8:
                raise KeyboardInterrupt
            return {"mean": super().encode(pixels)["pixels"].mean(axis=1, keepdims=True)}

    photos, path = make_photos(n=10), tmp_path / "c.h5"
    age(photos)
    extract_rows(load_images(photos), CountingEncoder(), path)
    with pytest.raises(Interrupted, match="8 of 20 images are done"):
        extract_rows(load_images(photos), Stopped(batch_size=4), path)
    with open_cache(path) as cache:
        table = cache.table
        assert table.count("ok") == 20
        assert cache.read("pixels", table.keys).shape == (20, 192)
        with pytest.raises(CacheError, match="12 of 20 images have no row in layer 'mean'"):
            cache.read("mean", table.keys)
        assert cache.verify() == ["layer 'mean': 12 images have no row; run tlfeat extract again"]


def test_what_changed_costs_its_forward_passes_and_nothing_else(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos, path = make_photos(n=60), tmp_path / "c.h5"
    age(photos)
    extract_rows(load_images(photos), CountingEncoder(), path)
    (photos / "cat" / "0.png").write_bytes((photos / "dog" / "0.png").read_bytes() + b"changed")
    for i in range(10):
        picture(5000 + i).save(photos / "dog" / f"new{i}.png")
    for i in range(1, 6):
        (photos / "cat" / f"{i}.png").unlink()
    (photos / "other").mkdir()
    for i in range(10, 50):
        (photos / "cat" / f"{i}.png").rename(photos / "other" / f"{i}.png")
    again = CountingEncoder()
    report = extract_rows(load_images(photos), again, path)
    assert again.n_encoded == report.n_embedded == 11
    assert report.n_images == 125
    assert report.n_known == 114
    with open_cache(path) as cache:
        assert cache.verify() == []
    third = CountingEncoder()
    extract_rows(load_images(photos), third, path)
    assert (third.n_encoded, third.n_prepared) == (0, 0)


def test_float16_rows_are_half_the_size_and_what_overflows_is_listed(make_photos: MakePhotos, tmp_path: Path) -> None:
    class Half(CountingEncoder):
        @property
        def fingerprint(self) -> dict[str, Any]:
            return {**super().fingerprint, "dtype": "float16"}

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            rows = super().encode(pixels)["pixels"].copy()
            rows[0, 0] = 70_000  # beyond float16
            return {"pixels": rows}

    report = extract_rows(load_images(make_photos(n=4)), Half(batch_size=4), tmp_path / "c.h5", is_compressed=True)
    assert [reason for _, reason in report.failures] == ["the network's output is not finite as float16"] * 2
    with open_cache(report.cache) as cache:
        table = cache.table
        keys = [key for key, status in zip(table.keys, table.status, strict=True) if status == "ok"]
        rows = cache.read("pixels", keys)
        assert rows.dtype == np.float32
        assert np.array_equal(rows, rows.astype(np.float16))
        assert cache.verify() == []


def to_bmp(folder: Path) -> Path:
    """Store every picture without compression: one of the same size in pixels has the same number of bytes."""
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()
    return folder


def test_a_picture_with_another_one_s_number_of_bytes_and_a_new_time_stamp_gets_its_own_row(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos, cache = to_bmp(make_photos(n=4)), tmp_path / "c.h5"
    age(photos)
    extract_rows(load_images(photos), encoder, cache)
    before, file = rows_by_path(cache), photos / "cat" / "2.bmp"
    n_bytes = file.stat().st_size
    picture(4321).save(file)
    assert file.stat().st_size == n_bytes
    assert extract_rows(load_images(photos), CountingEncoder(), cache).n_embedded == 1
    after = rows_by_path(cache)
    assert [path for path in after if after[path] != before[path]] == ["cat/2.bmp"]


def test_a_picture_with_another_size_and_its_old_time_stamp_gets_its_own_row(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    photos, cache = to_bmp(make_photos(n=4)), tmp_path / "c.h5"
    age(photos)
    extract_rows(load_images(photos), encoder, cache)
    file = photos / "cat" / "2.bmp"
    stamp = file.stat().st_mtime_ns
    picture(4321, (13, 11)).save(file)
    os.utime(file, ns=(stamp, stamp))
    assert extract_rows(load_images(photos), CountingEncoder(), cache).n_embedded == 1


def test_a_file_written_just_now_is_read_again_although_size_and_time_stamp_are_the_same(
    make_photos: MakePhotos, tmp_path: Path, encoder: CountingEncoder
) -> None:
    """Two writes within the granularity of time stamps cannot be told apart by them."""
    photos, cache = to_bmp(make_photos(n=4)), tmp_path / "c.h5"
    age(photos)
    file = photos / "cat" / "2.bmp"
    now_ns = time.time_ns()
    os.utime(file, ns=(now_ns, now_ns))
    extract_rows(load_images(photos), encoder, cache)
    before = rows_by_path(cache)
    picture(4321).save(file)
    os.utime(file, ns=(now_ns, now_ns))
    assert extract_rows(load_images(photos), CountingEncoder(), cache).n_embedded == 1
    assert rows_by_path(cache)["cat/2.bmp"] != before["cat/2.bmp"]


def test_a_later_copy_of_a_picture_whose_row_was_not_finite_fails_like_it_and_is_not_embedded_again(
    tmp_path: Path,
) -> None:
    class Diverging(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            rows = super().encode(pixels)["pixels"].copy()
            rows[(pixels > 250).all(axis=(1, 2, 3))] = np.nan  # white pictures
            return {"pixels": rows}

    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for i in range(100):  # more than are decoded ahead
        (Image.new("RGB", (8, 8), "white") if i == 0 else picture(i)).save(folder / f"{i:03}.png")
    shutil.copy(folder / "000.png", folder / "last.png")
    encoder = Diverging(batch_size=1)
    report = extract_rows(load_images(folder.parent), encoder, tmp_path / "c.h5", n_threads=1)
    assert [path for path, _ in report.failures] == ["a/000.png", "a/last.png"]
    assert {reason for _, reason in report.failures} == {"the network's output is not finite as float32"}
    assert (encoder.n_encoded, report.n_embedded, report.n_known) == (100, 100, 0)


def test_building_the_network_counts_as_extraction_but_not_as_embedding(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    class Slow(CountingEncoder):
        def prepare(self, on_progress: OnProgress = silent) -> None:
            time.sleep(0.2)

    photos, path = make_photos(n=3), tmp_path / "c.h5"
    for n_runs in (1, 2):
        picture(999 + n_runs).save(photos / "cat" / f"new{n_runs}.png")
        report = extract_rows(load_images(photos), Slow(), path)
        with open_cache(path) as cache:
            timing = cache.timing
        assert report.profile.prepare_s >= 0.2
        assert timing["extract_s"] - timing["embed_s"] >= 0.199 * n_runs  # summed over runs
        assert timing["embed_s"] > 0
    assert timing["n_embedded"] == 8


def test_a_journal_of_another_file_is_kept_under_another_name_and_told_of(
    make_photos: MakePhotos, encoder: CountingEncoder, tmp_path: Path
) -> None:
    images = load_images(make_photos(n=3))
    cache = tmp_path / "c.h5"
    extract_rows(images, encoder, cache)
    cache.with_name("c.h5.journal").write_bytes(b"of another program")
    report = extract_rows(images, encoder, cache)
    assert report.notes == [
        "c.h5.journal belonged to another file; it was not applied, and is kept as c.h5.journal.set-aside"
    ]
    assert cache.with_name("c.h5.journal.set-aside").read_bytes() == b"of another program"


# --- beside a run -----------------------------------------------------------------------------------------------


def test_who_reads_beside_a_run_finds_the_images_that_are_done_and_a_killed_run_knows_them(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlfeat.extract.extract._TABLE_EVERY_S", 0.0)
    monkeypatch.setattr("tlfeat.extract.extract._TABLE_SHARE", 0)
    photos, path = make_photos(n=10), tmp_path / "c.h5"
    age(photos)
    seen: list[int] = []

    class Watched(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            with open_cache(path) as cache:
                table = cache.table
                keys = [key for key, status in zip(table.keys, table.status, strict=True) if status == "ok"]
                seen.append(len(cache.read("pixels", keys)) if keys else 0)
            return super().encode(pixels)

    extract_rows(load_images(photos), Watched(batch_size=3), path)
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    path.unlink()

    class Killed(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            if self.n_encoded >= 18:
                killed()
            return super().encode(pixels)

    assert exit_code_of_child(lambda: extract_rows(load_images(photos), Killed(batch_size=3), path)) == KILLED
    again = CountingEncoder()
    with open_cache(path) as cache:
        n_done = cache.table.count("ok")
    assert n_done > 3
    monkeypatch.setattr("tlfeat.images.decode.read_file", _only_new(n_left=20 - n_done))
    assert extract_rows(load_images(photos), again, path).n_known == n_done
    assert again.n_encoded == 20 - n_done


def _only_new(n_left: int) -> Any:
    from tlfeat.images import decode

    read, n_read = decode.read_file, 0

    def counted(*args: Any, **named: Any) -> bytes:
        nonlocal n_read
        n_read += 1
        assert n_read <= n_left, "a file that a killed run had done is read again"
        return read(*args, **named)

    return counted


def test_a_table_that_was_written_meanwhile_is_written_again_at_the_end(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although at the end all is as it was before the run: the same image cannot be read."""
    photos, path = make_photos(n=4), tmp_path / "c.h5"
    (photos / "dog" / "3.png").write_bytes(b"no image")
    age(photos)
    extract_rows(load_images(photos), CountingEncoder(), path)
    with open_cache(path) as cache:
        before = cache.table
    assert before.count("failed") == 1
    with open_cache(path, writable=True) as cache, cache.changing() as file:
        del file["layers/pixels"]
    monkeypatch.setattr("tlfeat.extract.extract._TABLE_EVERY_S", 0.0)
    extract_rows(load_images(photos), CountingEncoder(batch_size=2), path)
    with open_cache(path) as cache:
        assert cache.table == before
        assert cache.verify() == []
