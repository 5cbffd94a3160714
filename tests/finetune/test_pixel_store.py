"""Pixels on disk are those of the image files, whatever happens to the disk, or they are decoded again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MakePhotos
from tlfeat.errors import CacheError
from tlfeat.finetune import pixel_store as pixelstore
from tlfeat.finetune.pixel_store import PixelStore, n_bytes, open_pixels_of
from tlfeat.images.decode import decode_bytes, decode_file, read_file
from tlfeat.images.image_set import content_key
from tlfeat.types import Pixels

SIZE = (9, 7)
RECORD = 4 + 9 * 7 * 3


@pytest.fixture
def files(make_photos: MakePhotos) -> list[Path]:
    return sorted(make_photos(n=6).rglob("*.png"))


def keys_of(files: Sequence[Path]) -> list[str]:
    return [content_key(read_file(file)) for file in files]


def decoded(files: Sequence[Path], resize: str = "antialias") -> Pixels:
    return np.stack([decode_bytes(read_file(file), SIZE, resize) for file in files])


def every(files: Sequence[Path]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(len(files))


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a store has read, in order."""
    names: list[str] = []

    def counting(i: int, path: Path, *rest: Any) -> Any:
        names.append(str(path))
        return decode_file(i, path, *rest)

    monkeypatch.setattr(pixelstore, "decode_file", counting)
    return names


def fill(files: Sequence[Path]) -> Path:
    with open_pixels_of(files, keys_of(files), SIZE, "antialias") as store:
        store.read(every(files))
    return store.path


def check_whole(files: Sequence[Path]) -> None:
    with open_pixels_of(files, keys_of(files), SIZE, "antialias") as store:
        pixels, is_there = store.read(every(files))
    assert is_there.all()
    np.testing.assert_array_equal(pixels, decoded(files))
    assert store.failures == {}


@pytest.mark.parametrize("resize", ["antialias", "crop", "dataset"])
def test_second_run_decodes_nothing_and_reads_the_same_pixels(
    files: list[Path], decodes: list[str], resize: str
) -> None:
    keys = keys_of(files)
    for n_expected in (12, 0):
        decodes.clear()
        with open_pixels_of(files, keys, SIZE, resize) as store:
            pixels, is_there = store.read(every(files))
        assert len(decodes) == n_expected
        assert is_there.all()
        assert pixels.dtype == ("float32" if resize == "dataset" else "uint8")
        np.testing.assert_array_equal(pixels, decoded(files, resize))
    assert store.path.stat().st_size == store.n_bytes == n_bytes(12, SIZE, resize)


def test_batches_are_of_any_order_and_an_image_in_one_twice_is_decoded_once(
    files: list[Path], decodes: list[str]
) -> None:
    with open_pixels_of(files, keys_of(files), SIZE, "antialias") as store:
        pixels, is_there = store.read(np.array([7, 2, 7, 11]))
        assert sorted(decodes) == sorted(str(files[i]) for i in (2, 7, 11))
        np.testing.assert_array_equal(pixels, decoded(files)[[7, 2, 7, 11]])
        assert is_there.all()
        assert store.read(np.array([], np.int64))[0].shape == (0, *SIZE, 3)


def test_copies_of_a_picture_are_stored_once(files: list[Path], decodes: list[str]) -> None:
    copy = files[0].with_name("copy.png")
    shutil.copy(files[3], copy)
    images = [*files, copy]
    with open_pixels_of(images, keys_of(images), SIZE, "antialias") as store:
        pixels, _ = store.read(every(images))
    np.testing.assert_array_equal(pixels, decoded(images))
    assert len(decodes) == 12
    assert store.path.stat().st_size == 12 * RECORD


def test_the_same_pictures_in_other_places_and_another_order_share_a_store(
    files: list[Path], decodes: list[str], tmp_path: Path
) -> None:
    path = fill(files)
    decodes.clear()
    moved = [Path(shutil.move(file, tmp_path / f"{i}.png")) for i, file in enumerate(reversed(files))]
    with open_pixels_of(moved, keys_of(moved), SIZE, "antialias") as store:
        pixels, _ = store.read(every(moved))
    np.testing.assert_array_equal(pixels, decoded(moved))
    assert store.path == path
    assert decodes == []


def test_other_pictures_sizes_and_resizes_have_other_files(files: list[Path]) -> None:
    keys = keys_of(files)
    asked: list[tuple[int, tuple[int, int], str]] = [
        (12, SIZE, "antialias"),
        (11, SIZE, "antialias"),
        (12, SIZE[::-1], "antialias"),
        (12, SIZE, "load_img"),
    ]
    paths = set()
    for n, size, resize in asked:
        with open_pixels_of(files[:n], keys[:n], size, resize) as store:
            paths.add(store.path)
    assert len(paths) == 4


@pytest.mark.parametrize("at", [0, 3, 4, 4 + 100, RECORD - 1], ids=lambda at: f"byte {at}")
def test_a_flipped_bit_makes_that_image_be_decoded_again(files: list[Path], decodes: list[str], at: int) -> None:
    path = fill(files)
    content = bytearray(path.read_bytes())
    content[5 * RECORD + at] ^= 16
    path.write_bytes(content)
    decodes.clear()
    check_whole(files)
    assert decodes == [str(files[sorted(range(12), key=keys_of(files).__getitem__)[5]])]
    decodes.clear()
    check_whole(files)
    assert decodes == [], "it was stored again"


@pytest.mark.parametrize("n_left", [0, 2, RECORD, 3 * RECORD + 2, 3 * RECORD + 50, 12 * RECORD - 1])
def test_a_file_cut_off_is_filled_again_from_there(files: list[Path], decodes: list[str], n_left: int) -> None:
    path = fill(files)
    with path.open("r+b") as file:
        file.truncate(n_left)
    decodes.clear()
    check_whole(files)
    assert len(decodes) == 12 - n_left // RECORD


def test_a_file_cut_off_while_it_is_open_is_filled_again(files: list[Path]) -> None:
    with open_pixels_of(files, keys_of(files), SIZE, "antialias") as store:
        store.read(every(files))
        with store.path.open("r+b") as file:
            file.truncate(3 * RECORD + 50)
        pixels, is_there = store.read(every(files))
    assert is_there.all()
    np.testing.assert_array_equal(pixels, decoded(files))


def test_the_record_of_another_picture_is_not_taken(files: list[Path], decodes: list[str]) -> None:
    path = fill(files)
    content = path.read_bytes()
    path.write_bytes(content[RECORD : 2 * RECORD] + content[:RECORD] + content[2 * RECORD :])
    decodes.clear()
    check_whole(files)
    assert len(decodes) == 2


def test_pixels_of_another_size_or_resize_are_not_taken(files: list[Path], tmp_path: Path, decodes: list[str]) -> None:
    keys = keys_of(files)
    for size, resize in ((SIZE, "load_img"), (SIZE, "antialias"), (SIZE[::-1], "antialias")):
        decodes.clear()
        with PixelStore(tmp_path / "one file", files, keys, size, resize) as store:
            assert store.read(every(files))[1].all()
        assert len(decodes) == 12, f"{size} {resize}"


def test_an_image_that_cannot_be_had_says_why_and_is_tried_once_a_run(files: list[Path], decodes: list[str]) -> None:
    keys = keys_of(files)
    before = decoded(files)
    shutil.copy(files[0], files[1])  # changed
    files[4].unlink()
    files[6].write_bytes(files[6].read_bytes()[:60])
    keys[6] = content_key(files[6].read_bytes())  # damaged before its key was taken
    for _ in range(2):  # and again in the next run
        decodes.clear()
        with open_pixels_of(files, keys, SIZE, "antialias") as store:
            for _ in range(2):
                pixels, is_there = store.read(every(files))
                assert np.flatnonzero(~is_there).tolist() == [1, 4, 6]
                assert not pixels[[1, 4, 6]].any()
                np.testing.assert_array_equal(pixels[is_there], before[is_there])
        assert sorted(store.failures) == [1, 4, 6]
        assert "has changed" in store.failures[1]
        assert "No such file" in store.failures[4]
        assert "truncated" in store.failures[6]
        assert [decodes.count(str(files[i])) for i in (1, 4, 6)] == [1, 1, 1]


def test_a_stored_picture_stays_when_its_file_has_gone(files: list[Path]) -> None:
    keys, before = keys_of(files), decoded(files)
    fill(files)
    for file in files:
        file.unlink()
    with open_pixels_of(files, keys, SIZE, "antialias") as store:
        np.testing.assert_array_equal(store.read(every(files))[0], before)


@pytest.mark.parametrize("asked", [3, 12], ids=["the one that is gone", "its copy"])
def test_a_picture_is_there_as_long_as_one_copy_is(files: list[Path], asked: int) -> None:
    copy = files[0].with_name("copy.png")
    shutil.copy(files[3], copy)
    images = [*files, copy]
    keys, before = keys_of(images), decoded(images)
    files[3].unlink()
    with open_pixels_of(images, keys, SIZE, "antialias") as store:
        pixels, is_there = store.read(np.array([asked]))
        assert is_there.all()
        np.testing.assert_array_equal(pixels[0], before[3])
        assert store.failures == {}


#: Fills a store one image at a time, says so, and waits to be killed.
FILLER = """
import sys, time
from pathlib import Path
import numpy as np
from tlfeat.finetune import pixel_store as pixelstore
from tlfeat.images.image_set import content_key
files = sorted(Path(sys.argv[1]).rglob("*.png"))
store = pixelstore.open_pixels_of(files, [content_key(f.read_bytes()) for f in files], (9, 7), "antialias")
if sys.argv[2] == "in the middle of a record":
    class Dying:
        def __init__(self, file): self.file, self.n = file, 0
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, data):
            self.n += 1
            if self.n < 10: return self.file.write(data)
            self.file.write(bytes(data)[:len(bytes(data)) // 2])
            print("dying", flush=True)
            time.sleep(60)
    store._file = Dying(store._file)
for i in range(len(files)):
    store.read(np.array([i]))
    print("read", flush=True)
    if i == 4: time.sleep(60)
"""


@pytest.mark.parametrize("when", ["between two records", "in the middle of a record"])
def test_what_a_killed_run_has_stored_is_used_and_the_rest_decoded(
    files: list[Path], decodes: list[str], when: str
) -> None:
    command = [sys.executable, "-c", FILLER, str(files[0].parents[1]), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(5)]
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert lines == ["read"] * 4 + ["read" if when == "between two records" else "dying"]
    check_whole(files)
    assert len(decodes) == (7 if when == "between two records" else 8)


def test_two_stores_on_one_file_share_what_either_has_decoded(files: list[Path], decodes: list[str]) -> None:
    keys = keys_of(files)
    with (
        open_pixels_of(files, keys, SIZE, "antialias") as one,
        open_pixels_of(files, keys, SIZE, "antialias") as other,
    ):
        one.read(np.arange(6))
        other.read(np.arange(12))
        pixels, _ = one.read(np.arange(12))
    assert len(decodes) == 12
    np.testing.assert_array_equal(pixels, decoded(files))


def read_at_once(stores: Sequence[PixelStore], expected: Pixels) -> None:
    """Read random batches from every store in a thread of its own, all at once."""
    wrong: list[str] = []

    def read(store: PixelStore, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            positions = rng.integers(0, 12, 5)
            pixels, is_there = store.read(positions)
            if not is_there.all() or not np.array_equal(pixels, expected[positions]):
                wrong.append(f"{seed}: {positions}")

    threads = [threading.Thread(target=read, args=(store, i)) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_and_stores_that_fill_one_file_all_get_the_right_pixels(files: list[Path]) -> None:
    keys = keys_of(files)
    with (
        open_pixels_of(files, keys, SIZE, "antialias") as one,
        open_pixels_of(files, keys, SIZE, "antialias") as other,
    ):
        read_at_once([one, one, other, other], decoded(files))
    check_whole(files)


def test_threads_that_read_a_full_store_do_not_disturb_each_other(files: list[Path], decodes: list[str]) -> None:
    fill(files)
    decodes.clear()
    with open_pixels_of(files, keys_of(files), SIZE, "antialias") as store:
        read_at_once([store] * 4, decoded(files))
    assert decodes == []


def test_too_little_room_is_said_before_anything_is_made(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000_000

    monkeypatch.setattr(pixelstore.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(CacheError, match=r"need 4\.32 GB in cache/pixels, 1\.00 GB are free"):
        open_pixels_of(files, keys_of(files), (10_000, 12_000), "antialias")
    assert list(Path("cache/pixels").iterdir()) == []


#: A limit on the size of files fails like a full disk: with an error at the write that goes beyond it.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from tlfeat.finetune import pixel_store as pixelstore
from tlfeat.images.decode import decode_bytes
from tlfeat.errors import CacheError
from tlfeat.images.image_set import content_key
files = sorted(Path(sys.argv[1]).rglob("*.png"))
keys = [content_key(f.read_bytes()) for f in files]
def limit(n): resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))
limit(500)
try:
    pixelstore.open_pixels_of(files, keys, (9, 7), "antialias")
except CacheError as error:
    print(error)
limit(resource.RLIM_INFINITY)
store = pixelstore.open_pixels_of(files, keys, (9, 7), "antialias")
limit(500)
for _ in range(2):
    pixels, is_there = store.read(np.arange(12))
    assert is_there.all()
    assert all((p == decode_bytes(f.read_bytes(), (9, 7))).all() for p, f in zip(pixels, files))
print(store.unstored)
"""


def test_a_disk_that_is_full_is_an_error_at_the_start_and_none_while_reading(files: list[Path]) -> None:
    command = [sys.executable, "-c", LIMITED, str(files[0].parents[1])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    at_the_start, while_reading = run.stdout.splitlines()
    assert at_the_start.startswith("Decoded images need 0.00 GB at cache/pixels/9x7-antialias-")
    assert at_the_start.endswith(".pixels: File too large.")
    assert while_reading.endswith(".pixels: File too large")
    check_whole(files)


def test_a_folder_that_cannot_be_made_is_one_line(files: list[Path]) -> None:
    Path("cache").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match=r"Cannot write cache/pixels/.*: (Not a directory|File exists)"):
        open_pixels_of(files, keys_of(files), SIZE, "antialias")
