"""Rows as they come: from a cache that is being written, in a process of its own that stops when it is told to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from children import exit_code_of_child
from conftest import MakePhotos
from tlfeat.cache.store import open_cache
from tlfeat.extract.plan import plan_extraction
from tlfeat.images.load import load_images
from tlfeat.labelling.background import Extraction
from tlfeat.labelling.order import embedding_order
from tlfeat.labelling.pool import Pool
from tlfeat.system import is_running


def started(folder: Path, options: dict[str, Any], *, seed: int = 0) -> Extraction:
    extraction = Extraction(folder, options, seed)
    extraction.begin()
    return extraction


def wait_for(is_so: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def test_rows_belong_to_their_pictures(make_photos: MakePhotos) -> None:
    folder = make_photos(9)
    (folder / "cat" / "3.png").write_bytes(b"no picture")
    images = load_images(folder)
    pool = Pool(images.paths, wanted=[17, 3, 4, 11])
    cache = Path("other.h5")
    assert not pool.look_into(cache)
    plan_extraction(folder, backbone="pixels", cache=cache).run()
    assert pool.look_into(cache) and pool.is_whole
    assert not pool.look_into(cache)
    look = pool.look
    assert look.numbers.tolist() == [17, 4, 11]  # in the order in which they are wanted
    assert list(pool.failures) == [3]
    with open_cache(cache) as opened:
        keys = dict(zip(opened.table.images.paths, opened.table.keys, strict=True))
        for number, row, key in zip(look.numbers, look.rows, look.keys, strict=True):
            assert key == keys[images.paths[number]]
            assert np.array_equal(row, opened.read(*opened.layers, [key])[0])


def test_a_look_stays_as_it_was_when_more_rows_come(make_photos: MakePhotos) -> None:
    folder = make_photos(4)
    images, cache = load_images(folder), Path("some.h5")
    pool = Pool(images.paths, wanted=list(range(8)))
    moved = [(folder / "dog" / f"{i}.png") for i in range(4)]
    for file in moved:
        file.rename(folder.parent / file.name)
    plan_extraction(folder, backbone="pixels", cache=cache).run()
    assert pool.look_into(cache)
    before = pool.look
    copied = before.rows.copy()
    for file in moved:
        (folder.parent / file.name).rename(file)
    plan_extraction(folder, backbone="pixels", cache=cache).run()
    assert pool.look_into(cache)
    assert len(before) == 4 and np.array_equal(before.rows, copied)
    assert sorted(pool.look.numbers.tolist()) == list(range(8))


def test_extraction_goes_through_the_order_of_the_questions(make_photos: MakePhotos) -> None:
    folder = make_photos(20)
    extraction = started(folder, {"backbone": "pixels"}, seed=5)
    wait_for(lambda: extraction.is_over)
    extraction.stop()
    assert not extraction.error and extraction.cache is not None
    assert extraction.n_done == extraction.n_todo == 40
    images = load_images(folder)
    with open_cache(extraction.cache) as cache:
        order = [images.paths[i] for i in embedding_order(images.paths, seed=5)]
        assert list(cache.table.images.paths) == order
        known = cache.known(*cache.layers)
        assert known.numbers(list(cache.table.keys)).tolist() == list(range(40))


def test_a_pool_watches_until_all_is_there(make_photos: MakePhotos) -> None:
    folder = make_photos(15)
    told: list[int] = []
    extraction = started(folder, {"backbone": "pixels"})
    pool = Pool(load_images(folder).paths, wanted=list(range(30)))
    pool.watch(extraction, lambda: told.append(len(pool.look)))
    assert told[-1] == 30 and pool.is_whole
    extraction.stop()


def test_what_cannot_be_embedded_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    extraction = started(tmp_path / "empty", {"backbone": "pixels"})
    wait_for(lambda: extraction.is_over)
    extraction.stop()
    assert "empty" in extraction.error
    pool = Pool([], wanted=[1])
    pool.watch(extraction, lambda: pytest.fail("there is nothing"))


def test_it_stops_when_it_is_told_to_and_goes_on_the_next_time(make_photos: MakePhotos) -> None:
    folder = make_photos(200)
    extraction = started(folder, {"backbone": "pixels", "n_threads": 1})
    wait_for(lambda: extraction.cache is not None)
    extraction.stop()
    assert extraction.is_over and not extraction.error
    again = started(folder, {"backbone": "pixels"})
    wait_for(lambda: again.is_over)
    again.stop()
    assert not again.error and again.cache == extraction.cache is not None
    with open_cache(again.cache) as cache:
        assert cache.table.count("ok") == 400


def test_it_ends_with_the_process_that_started_it(make_photos: MakePhotos, tmp_path: Path) -> None:
    folder, said = make_photos(3), tmp_path / "pid"

    def start_and_die() -> None:
        extraction = started(folder, {"backbone": "pixels"})
        assert extraction._process is not None
        said.write_text(str(extraction._process.pid))
        os._exit(9)

    assert exit_code_of_child(start_and_die) == 9
    wait_for(lambda: not is_running(int(said.read_text())))
