"""Files to rows: order, overlap, bounds, and ends that leave nothing behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos, picture
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.errors import UsageError
from tlfeat.extract.embed import Profile, embed_files
from tlfeat.extract.extract import extract_rows
from tlfeat.images import decode
from tlfeat.images.decode import Decoded
from tlfeat.images.load import load_images
from tlfeat.types import OnProgress, Pixels, Rows, silent


@pytest.fixture
def files(make_photos: MakePhotos) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(make_photos(n=20).rglob("*.png"))))


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("embed", "encode", "decode"))]


class Uneven(PixelEncoder):
    """Earlier batches take longer, so that later ones are done first."""

    batch_size = 4

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        rows = super().encode(pixels)
        time.sleep(0.03 if self.n_left % 2 else 0)
        self.n_left -= 1
        return rows

    n_left = 10


def test_rows_come_in_the_order_of_the_files_whoever_is_done_first(files: list[tuple[int, Path]]) -> None:
    batches = list(embed_files(files, Uneven((8, 8)), profile=Profile(4)))
    assert [decoded.i for batch in batches for decoded in batch.files] == list(range(40))
    expected = PixelEncoder((8, 8)).encode(
        np.stack([d.pixels for b in batches for d in b.files if d.pixels is not None])
    )
    assert np.concatenate([batch.rows["pixels"] for batch in batches]).tobytes() == expected["pixels"].tobytes()


class Meeting(PixelEncoder):
    """Counts how many calls are inside at once, and waits a little for company."""

    batch_size = 4

    def __init__(self, *, is_parallel: bool) -> None:
        super().__init__((8, 8))
        self.is_parallel = is_parallel
        self.lock = threading.Lock()
        self.n_inside = self.most = 0

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        with self.lock:
            self.n_inside += 1
            self.most = max(self.most, self.n_inside)
        time.sleep(0.02)
        with self.lock:
            self.n_inside -= 1
        return super().encode(pixels)


@pytest.mark.parametrize(("is_parallel", "most"), [(True, 3), (False, 1)])
def test_as_many_encode_at_once_as_the_encoder_allows(
    files: list[tuple[int, Path]], is_parallel: bool, most: int
) -> None:
    encoder = Meeting(is_parallel=is_parallel)
    assert sum(len(batch.files) for batch in embed_files(files, encoder, profile=Profile(3))) == 40
    assert encoder.most == most


def test_a_slow_consumer_bounds_what_is_decoded_and_encoded(tmp_path: Path) -> None:
    for i in range(300):
        picture(i).save(tmp_path / f"{i:03d}.png")
    taken: list[int] = []

    def wanted(decoded: Decoded) -> bool:
        taken.append(decoded.i)
        return True

    encoder = PixelEncoder((8, 8))
    encoder.batch_size = 4
    embedding = embed_files(enumerate(sorted(tmp_path.iterdir())), encoder, is_wanted=wanted, profile=Profile(2))
    next(embedding)
    time.sleep(0.2)
    assert len(taken) <= 4 * (2 * 2 + 1), "2 batches on their way for each thread, and the one being given"
    embedding.close()
    assert threads() == []


def test_an_encoder_that_fails_ends_the_run_and_leaves_no_thread(files: list[tuple[int, Path]]) -> None:
    class Broken(PixelEncoder):
        batch_size = 4

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            raise LookupError("no such weight")

    with pytest.raises(LookupError, match="no such weight"):
        list(embed_files(files, Broken((8, 8))))
    assert threads() == []


def test_nothing_is_prepared_where_nothing_is_wanted(files: list[tuple[int, Path]]) -> None:
    class Unprepared(PixelEncoder):
        def prepare(self, on_progress: OnProgress = silent) -> None:
            raise AssertionError("prepared")

    assert list(embed_files(files, Unprepared((8, 8)), is_wanted=lambda decoded: False)) == []


def test_bad_files_are_told_of_and_left_out(files: list[tuple[int, Path]]) -> None:
    files[3][1].write_bytes(b"no picture")
    told: list[Decoded] = []

    def wanted(decoded: Decoded) -> bool:
        told.append(decoded)
        return decoded.pixels is not None

    batches = list(embed_files(files, PixelEncoder((8, 8)), is_wanted=wanted))
    assert [decoded.i for decoded in told] == list(range(40))
    assert [decoded.i for decoded in told if decoded.error] == [3]
    assert [d.i for b in batches for d in b.files] == [i for i in range(40) if i != 3]


def test_the_profile_adds_up(files: list[tuple[int, Path]]) -> None:
    class Slow(PixelEncoder):
        batch_size = 4

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            time.sleep(0.05)
            return super().encode(pixels)

    profile = Profile(2)
    assert len(list(embed_files(files, Slow((8, 8)), profile=profile))) == 10
    assert 0.5 <= profile.encode_s < 5, "10 batches of 0.05 s"
    assert profile.wait_encode_s + profile.wait_decode_s >= 0.1
    assert profile.read_s > 0
    assert profile.decode_s > 0


def test_no_more_threads_than_cores_that_may_be_used(
    files: list[tuple[int, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    encoder = Meeting(is_parallel=True)
    assert sum(len(batch.files) for batch in embed_files(files, encoder)) == 40
    assert encoder.most == 1


class LacksItsLayer(PixelEncoder):
    """A network that turns out to have no such layer when it is built."""

    def prepare(self, on_progress: OnProgress = silent) -> None:
        raise UsageError("No layer 'pixels'")


def test_an_encoder_that_is_prepared_first_can_fail_before_any_file_is_read(
    files: list[tuple[int, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(decode, "read_file", lambda path: read.append(path) or b"")
    with pytest.raises(UsageError, match="No layer"):
        list(embed_files(files, LacksItsLayer((8, 8)), profile=Profile(2), is_prepared_first=True))
    assert (read, threads()) == ([], [])


def test_a_layer_that_a_cache_does_not_have_yet_is_tried_before_images_are_read(
    make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(decode, "read_file", lambda path: read.append(path) or b"")
    with pytest.raises(UsageError, match="No layer"):
        extract_rows(load_images(make_photos(n=3)), LacksItsLayer((8, 8)), Path("c.h5"))
    assert read == []
    assert not Path("c.h5").exists()
