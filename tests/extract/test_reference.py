"""Reference images: always the same ones, embedded once for each encoder, never in the way of a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CountingEncoder, MakePhotos
from tlfeat.extract.plan import ExtractionJob, plan_extraction
from tlfeat.extract.reference import embed_reference, read_reference, reference_file
from tlfeat.images.reference import reference_images


@pytest.fixture
def job(make_photos: MakePhotos, encoder: CountingEncoder) -> ExtractionJob:
    return replace(plan_extraction(make_photos(n=3), backbone="pixels"), encoder=encoder)


def test_reference_images_are_the_same_ones_each_time_and_no_two_are_alike() -> None:
    one, again = reference_images(), reference_images.__wrapped__()
    assert [len(kind) for kind in one] == [36, 36, 36]
    every = [picture.tobytes() for kind in one for picture in kind]
    assert every == [picture.tobytes() for kind in again for picture in kind]
    assert len(set(every)) == 108


def test_reference_images_are_embedded_once_for_an_encoder(job: ExtractionJob, encoder: CountingEncoder) -> None:
    report = job.run()
    n_pictures = report.n_embedded
    assert encoder.n_encoded == n_pictures + 108
    found = read_reference(job.cache_path, encoder.fingerprint, ["pixels"])
    assert found is not None
    assert [len(rows) for rows in (found.known, found.drawings, found.photographs)] == [36, 36, 36]
    assert not np.allclose(found.known, found.drawings)
    job.run()
    replace(job, cache_path=job.cache_path.with_name("other.h5")).run(known_in=())
    assert encoder.n_encoded == 2 * n_pictures + 108
    reference_file(job.cache_path, encoder.fingerprint).unlink()
    job.run()  # nothing to embed: a network is not built for reference images alone
    assert encoder.n_encoded == 2 * n_pictures + 108


@pytest.mark.parametrize("content", [b"no archive", b""], ids=["text", "empty"])
def test_a_damaged_file_is_as_none_and_is_written_again(
    tmp_path: Path, encoder: CountingEncoder, content: bytes
) -> None:
    path = reference_file(tmp_path / "c.h5", encoder.fingerprint)
    path.parent.mkdir()
    path.write_bytes(content)
    assert read_reference(tmp_path / "c.h5", encoder.fingerprint, ["pixels"]) is None
    embed_reference(encoder, tmp_path / "c.h5")
    assert read_reference(tmp_path / "c.h5", encoder.fingerprint, ["pixels"]) is not None
    assert read_reference(tmp_path / "c.h5", encoder.fingerprint, ["another"]) is None
    both = read_reference(tmp_path / "c.h5", encoder.fingerprint, ["pixels", "pixels"])
    assert both is not None and both.known.shape[1] == 2 * 8 * 8 * 3
