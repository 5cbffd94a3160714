"""A moved folder: rows that another cache of the same encoder holds are copied, and only new images are embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import CountingEncoder, MakePhotos, picture
from tlfeat.cache.store import open_cache
from tlfeat.cli.app import app
from tlfeat.errors import Interrupted
from tlfeat.extract.extract import ExtractReport
from tlfeat.extract.plan import ExtractionJob, default_cache_path
from tlfeat.images.load import load_images
from tlfeat.types import Pixels, Rows


class Run:
    """`tlfeat extract FOLDER` with an encoder that counts; what it said, and what it did."""

    def __init__(self, folder: Path, encoder: CountingEncoder | None = None) -> None:
        self.encoder = encoder or CountingEncoder(batch_size=4)
        self.said: list[str] = []
        images = load_images(folder)
        path = default_cache_path(images, self.encoder.name, self.encoder.fingerprint)
        self.job = ExtractionJob(images, self.encoder, {}, path)

    def __call__(self, **options: Any) -> ExtractReport:
        return self.job.run(say=self.said.append, **options)


def rows_of(path: Path) -> dict[str, bytes]:
    with open_cache(path) as cache:
        keys = sorted(cache.known("pixels"))
        return {key: row.tobytes() for key, row in zip(keys, cache.read("pixels", keys), strict=True)}


def test_a_moved_folder_sends_no_image_through_the_encoder(make_photos: MakePhotos) -> None:
    photos = make_photos(n=7)
    first = Run(photos)().cache
    moved = Run(photos.rename(photos.with_name("elsewhere")))
    report = moved()
    assert report.cache != first
    assert (moved.encoder.n_encoded, moved.encoder.n_prepared) == (0, 0)
    assert (report.n_embedded, report.n_known, report.n_images) == (0, 14, 14)
    assert moved.said == [f"14 of 14 images are known from {first}: nothing of them is embedded again"]
    assert rows_of(report.cache) == rows_of(first)
    with open_cache(report.cache) as cache:
        assert cache.verify() == []
        assert cache.table.count("ok") == 14


def test_only_what_no_other_cache_holds_is_embedded(make_photos: MakePhotos) -> None:
    photos = make_photos(n=5)
    first = Run(photos)().cache
    moved = photos.rename(photos.with_name("elsewhere"))
    (moved / "cat" / "0.png").rename(moved / "dog" / "under-another-name.png")
    for i in range(3):
        picture(90_000 + i).save(moved / "dog" / f"new{i}.png")
    (moved / "dog" / "bad.png").write_bytes(b"no picture")
    again = Run(moved)
    report = again()
    assert (again.encoder.n_encoded, report.n_embedded, report.n_known) == (3, 3, 10)
    assert [path for path, _ in report.failures] == ["dog/bad.png"]
    assert again.said == [f"10 of 14 images are known from {first}: nothing of them is embedded again"]
    third = Run(moved)
    assert third().n_embedded == 0
    assert third.said == []


def test_the_times_of_rows_come_along_with_them(make_photos: MakePhotos) -> None:
    photos = make_photos(n=5)
    first = Run(photos)().cache
    with open_cache(first, writable=True) as cache:
        cache.write_document("timing", {"extract_s": 30.0, "embed_s": 20.0, "n_embedded": 10, "runtime": "slow"})
    moved = photos.rename(photos.with_name("elsewhere"))
    for i in range(4):
        (moved / "cat" / f"{i}.png").unlink()
    with open_cache(Run(moved)().cache) as cache:
        assert cache.timing == {"extract_s": 18.0, "embed_s": 12.0, "n_embedded": 6, "runtime": "slow"}


def test_a_damaged_row_is_embedded_again_and_not_copied(make_photos: MakePhotos) -> None:
    photos = make_photos(n=5)
    first = Run(photos)().cache
    sound = rows_of(first)
    with h5py.File(first, "r+") as file:
        file["layers/pixels/rows"][3, 7] += 1
    again = Run(photos.rename(photos.with_name("elsewhere")))
    report = again()
    assert (report.n_embedded, again.encoder.n_encoded) == (1, 1)
    assert rows_of(report.cache) == sound


def test_rows_of_another_encoder_and_a_cache_that_is_in_use_or_no_cache_are_left_alone(make_photos: MakePhotos) -> None:
    photos = make_photos(n=3)
    Run(photos, CountingEncoder((9, 9)))()
    used = Run(photos)().cache
    (used.parent / "text.h5").write_text("no cache")
    moved = photos.rename(photos.with_name("elsewhere"))
    with h5py.File(used, "r+"):
        again = Run(moved)
        assert again().n_embedded == 6
    assert again.said == []


def test_rows_that_another_extract_has_committed_so_far_are_copied_while_it_goes_on(make_photos: MakePhotos) -> None:
    photos = make_photos(n=3)
    used = Run(photos)().cache
    moved = photos.rename(photos.with_name("elsewhere"))
    with open_cache(used, writable=True):
        assert Run(moved)().n_embedded == 0


def test_what_was_copied_before_a_stop_is_kept(make_photos: MakePhotos) -> None:
    class Stopping(CountingEncoder):
        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            raise KeyboardInterrupt

    photos = make_photos(n=4)
    Run(photos)()
    moved = photos.rename(photos.with_name("elsewhere"))
    picture(91_000).save(moved / "dog" / "new.png")
    stopped = Run(moved, Stopping(batch_size=1))
    with pytest.raises(Interrupted, match="8 of 9 images are done and kept"):
        stopped()
    again = Run(moved)
    assert (again().n_embedded, again.said) == (1, [])


def test_half_precision_rows_are_copied_bit_by_bit(make_photos: MakePhotos) -> None:
    class Half(CountingEncoder):
        @property
        def fingerprint(self) -> dict[str, Any]:  # type: ignore[override]
            return {**super().fingerprint, "dtype": "float16"}

        def encode(self, pixels: Pixels) -> dict[str, Rows]:
            return {"pixels": super().encode(pixels)["pixels"] / np.float32(3)}

    photos = make_photos(n=3)
    first = Run(photos, Half())().cache
    again = Run(photos.rename(photos.with_name("elsewhere")), Half())
    report = again(is_compressed=True)
    assert report.n_embedded == 0
    assert rows_of(report.cache) == rows_of(first)


def test_the_command_says_it_in_one_line(make_photos: MakePhotos) -> None:
    photos = make_photos(n=4)
    CliRunner().invoke(app, ["extract", str(photos), "--backbone", "pixels", "--cache", "mine.h5"])
    moved = photos.rename(photos.with_name("elsewhere"))
    ran = CliRunner().invoke(app, ["extract", str(moved), "--backbone", "pixels", "--cache", "other.h5"])
    assert "8 of 8 images are known from mine.h5: nothing of them is embedded again\n" in ran.stderr
    assert ran.stdout.startswith("0 embedded, 8 known already")
