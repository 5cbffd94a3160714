"""Lists of shards, dealing, blame, and a worker, each without an engine."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.shard_join import join_shards
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.cli.app import app, with_address
from tlfeat.errors import CacheLocked, UsageError
from tlfeat.extract import shard_lists, shard_worker
from tlfeat.extract.cluster import _driving, _lines_of, extract_on_cluster
from tlfeat.extract.dealing import KILLED, MAX_DEATHS, Deal, Dealer, Outcome, UnderWay
from tlfeat.extract.plan import plan_extraction
from tlfeat.extract.ray_cluster import check_address
from tlfeat.extract.shard_lists import choose_n_shards, lists_in, n_shards_in, read_list, write_lists
from tlfeat.extract.shard_worker import TOKEN, Kit, ShardWorker, luggage, unpack, versions
from tlfeat.images.image_set import ImageSet
from tlfeat.images.lines import Line, Names
from tlfeat.images.load import load_images
from tlfeat.images.shards import Shard

EVERY = Names({}, frozenset(), 0)


def deal_of(dealer: Dealer, now_s: float = 0.0) -> Deal:
    deal = dealer.deal(now_s)
    assert deal is not None
    return deal


# --- lists ----------------------------------------------------------------------------------------------------


def test_lists_hold_every_line_in_its_shard_whatever_is_in_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_lists, "_BUFFER_BYTES", 300)
    monkeypatch.setattr(shard_lists, "_BLOCK_BYTES", 64)
    lines = [Line(f"a/{i}\n\t{chr(233)}\udcff.png", f"label {i % 3}", "train", "g", "d") for i in range(200)]
    lines += [Line("b.png", "", "", "", "")]
    sizes = write_lists(iter(lines), tmp_path, 7, 2)
    images = ImageSet(tmp_path, tmp_path / "table.csv", [], [], [], [])
    held = [read_list(tmp_path, Shard(k, 7), images, EVERY) for k in range(1, 8)]
    assert [len(part) for part in held] == sizes and sum(sizes) == 201
    assert sorted(line for part in held for line in _lines_of(part)) == sorted(lines)
    monkeypatch.setattr(shard_lists, "choose_n_shards", lambda n_images, n_workers: 7 if n_images == 201 else 1)
    assert write_lists(iter(lines), tmp_path, None, 2) == sizes
    assert [*_lines_of(read_list(tmp_path, Shard(3, 7), images, EVERY))] == [*_lines_of(held[2])]


def test_a_shard_of_lists_is_the_shard_of_the_whole_set(make_photos: MakePhotos, tmp_path: Path) -> None:
    images = load_images(make_photos(9, ("cat", "dog")))
    write_lists(reversed([*_lines_of(images)]), tmp_path, 3, 1)
    for number in (1, 2, 3):
        shard = Shard(number, 3)
        assert read_list(tmp_path, shard, images.at([]), EVERY) == replace(shard.of(images), notes=[])


@pytest.mark.parametrize(
    ("n_images", "n_workers", "n_shards"),
    [(60, 2, 1), (900, 2, 2), (10_000, 2, 8), (10_000, 64, 64), (1_000_000, 2, 20), (10**9, 64, 10_000), (0, 4, 1)],
)
def test_sets_are_cut_so_that_workers_end_together(n_images: int, n_workers: int, n_shards: int) -> None:
    assert choose_n_shards(n_images, n_workers) == n_shards


def test_a_folder_keeps_its_number_of_shards(tmp_path: Path) -> None:
    assert n_shards_in(tmp_path, 5) == 5
    (tmp_path / Shard(2, 9).file_name).touch()
    assert n_shards_in(tmp_path, None) == n_shards_in(tmp_path, 9) == 9
    with pytest.raises(UsageError, match="holds 9 shards, and --shards asks for 5"):
        n_shards_in(tmp_path, 5)


# --- dealing --------------------------------------------------------------------------------------------------


def test_an_image_under_which_two_workers_died_is_skipped_and_no_other() -> None:
    dealer = Dealer({1: 10, 2: 30})
    first = deal_of(dealer)
    assert (first.number, first.is_careful) == (2, False)  # the large one first
    assert dealer.lose(first, {"a", "b"}) == ""
    second = deal_of(dealer)
    assert (second.number, second.is_careful, second.skipped) == (2, True, {})
    assert dealer.lose(second, {"c"}) == ""
    assert dealer.lose(deal_of(dealer), {"b"}) == "b"
    assert deal_of(dealer).skipped == {"b": KILLED}
    assert dealer.n_deaths == 3


def test_a_shard_is_given_up_after_deaths_without_progress_alone() -> None:
    dealer = Dealer({1: 10})
    for n_done in range(3 * MAX_DEATHS):
        deal = deal_of(dealer)
        dealer.note_progress(deal, n_done)
        dealer.lose(deal, ())
    assert not dealer.given_up
    for _ in range(MAX_DEATHS - 1):
        assert not dealer.is_over
        dealer.lose(deal_of(dealer), ())
    assert dealer.is_over and "one after another" in dealer.given_up[1]


def test_a_shard_that_another_process_writes_is_tried_later_and_given_up_at_last() -> None:
    dealer = Dealer({1: 10, 2: 5})
    locked = Outcome(1, kind="CacheLocked", error="in use")
    dealer.finish(deal_of(dealer, 100), locked, 100)
    other = deal_of(dealer, 100)
    assert other.number == 2 and dealer.deal(101) is None
    dealer.finish(other, Outcome(2, n_images=5), 101)
    assert (dealer.n_finished, dealer.n_images_done) == (1, 5)
    dealer.finish(deal_of(dealer, 103), locked, 103)
    dealer.finish(deal_of(dealer, 170), locked, 170)
    assert dealer.given_up == {1: "in use"} and dealer.is_over


def test_what_threads_were_at_is_read_after_they_died(tmp_path: Path) -> None:
    with UnderWay(tmp_path / "mark") as under_way:
        under_way.note("cat/1.png")
        under_way.note("")
        under_way.note("cat/\udcff.png")
        thread = threading.Thread(target=under_way.note, args=("dog/2.png",))
        thread.start()
        thread.join()
        assert UnderWay.read(tmp_path / "mark") == {"cat/\udcff.png", "dog/2.png"}
    assert UnderWay.read(tmp_path / "mark") == set()


def test_a_second_driver_of_a_folder_is_refused(tmp_path: Path) -> None:
    with _driving(tmp_path), pytest.raises(CacheLocked, match="Another tlfeat extract --ray"), _driving(tmp_path):
        pass


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["extract", "d", "--ray"], ["extract", "d", "--ray", "auto"]),
        (["extract", "d", "--ray", "--strict"], ["extract", "d", "--ray", "auto", "--strict"]),
        (["extract", "--ray", "h:1", "d"], ["extract", "--ray", "h:1", "d"]),
        (["extract", "d"], ["extract", "d"]),
    ],
)
def test_ray_without_an_address_is_auto(words: list[str], read: list[str]) -> None:
    assert with_address(words) == read


def test_data_after_ray_is_told_from_an_address() -> None:
    check_address("ray://head:10001")
    with pytest.raises(UsageError, match="If 'photos' is the data, name it before --ray"):
        check_address("photos")


def test_without_ray_one_line_says_what_to_install(make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    job = plan_extraction(make_photos(1), backbone="pixels", cache="shards", is_dealt=True)
    with pytest.raises(UsageError, match=r"pip install 'tlfeat\[ray\]'"):
        extract_on_cluster(job, "auto")
    assert not Path("shards").exists()


@pytest.mark.parametrize("words", [["--ray", "auto", "--shard", "1/2"], ["--workers", "2"], ["--shards", "2"]])
def test_options_that_do_not_go_together_are_refused(words: list[str], make_photos: MakePhotos) -> None:
    run = CliRunner().invoke(app, ["extract", str(make_photos(1)), "--backbone", "pixels", *words])
    assert run.exit_code == 2 and "--ray" in run.stderr


# --- a worker -------------------------------------------------------------------------------------------------


def kit_of(photos: Path, folder: Path, n_shards: int = 2, **changes: Any) -> Kit:
    images = load_images(photos)
    write_lists(_lines_of(images), folder, n_shards, 1)
    (lists_in(folder) / TOKEN).write_text("here", encoding="utf-8")
    kit = Kit(
        folder, "here", images.at([]), EVERY, n_shards, PixelEncoder(), {}, {"class_map": []}, versions=versions()
    )
    return replace(kit, **changes)


def test_a_worker_says_in_one_line_why_it_cannot_take_part(make_photos: MakePhotos, tmp_path: Path) -> None:
    kit = kit_of(make_photos(2), tmp_path / "shards")
    assert ShardWorker(kit, bytes).problem() == ""
    assert "does not see" in ShardWorker(replace(kit, token="other"), bytes).problem()
    gone = replace(kit.images, root=tmp_path / "gone")
    assert f"does not see {tmp_path / 'gone'}" in ShardWorker(replace(kit, images=gone), bytes).problem()
    assert "rows could differ" in ShardWorker(replace(kit, versions={"openvino": "0.1"}), bytes).problem()


def test_shards_without_images_or_without_one_that_can_be_read_are_finished(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos = make_photos(1, ("cat", "dog"))
    (photos / "dog" / "0.png").write_bytes(b"no image")
    folder = tmp_path / "shards"
    worker = ShardWorker(kit_of(photos, folder, 6), bytes)
    outcomes = [worker.work(Deal(k, f"mark{k}")) for k in range(1, 7)]
    assert not any(outcome.error for outcome in outcomes)
    assert sum(outcome.n_embedded for outcome in outcomes) == 1 and sum(o.n_failed for o in outcomes) == 1
    assert [p.name for p in lists_in(folder).iterdir() if p.suffix not in (".lines", ".owner")] == [TOKEN]
    manifest = join_shards(folder)
    assert manifest.layers == {"pixels": 1}
    with open_cache(folder) as joined:
        assert sorted(joined.table.status) == ["failed", "ok"]


class AsksOnce:
    """A store that knows the stamps of those images alone for which it was asked first."""

    url, n_ahead = "memory://once", 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def stamps(self, paths: Sequence[str]) -> list[tuple[int, int]]:
        self.seen = self.seen or set(paths)
        return [(7, 7) if path in self.seen else (0, 0) for path in paths]


def test_stamps_are_asked_for_in_every_shard(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(4)
    kit = kit_of(photos, tmp_path / "shards")
    worker = ShardWorker(replace(kit, images=replace(kit.images, store=AsksOnce(photos))), bytes)
    for number in (1, 2):
        assert worker.work(Deal(number, f"mark{number}")).n_embedded > 0
        with open_cache(kit.folder / Shard(number, 2).file_name) as cache:
            assert set(cache.table.sizes) == {7}


def test_of_two_writers_of_one_shard_the_second_is_refused_and_tries_later(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    kit = kit_of(make_photos(3), tmp_path / "shards", 1)
    worker = ShardWorker(kit, bytes)
    with create_cache(kit.folder / Shard(1, 1).file_name, PixelEncoder().fingerprint, {}):
        assert worker.work(Deal(1, "a")).kind == "CacheLocked"
    assert worker.work(Deal(1, "b")).n_embedded == 6


def test_a_worker_whose_shard_was_dealt_to_another_one_stops(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_worker, "_LOOK_EVERY_S", 0.0)
    kit = kit_of(make_photos(5), tmp_path / "shards", 1)

    class Overtaken(PixelEncoder):
        batch_size = 1

        def encode(self, pixels: Any) -> dict[str, Any]:
            (lists_in(kit.folder) / f"{Shard(1, 1).file_name}.owner").write_text("another", encoding="utf-8")
            return super().encode(pixels)

    outcome = ShardWorker(replace(kit, encoder=Overtaken()), bytes).work(Deal(1, "a"))
    assert (outcome.kind, outcome.n_embedded) == ("CacheLocked", 0)


def test_a_skipped_image_is_recorded_with_the_reason_and_a_stopped_worker_keeps_its_rows(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    kit = kit_of(make_photos(4), tmp_path / "shards", 1)
    worker = ShardWorker(kit, bytes)
    outcome = worker.work(Deal(1, "a", {"cat/2.png": KILLED}, is_careful=True, with_reference=True))
    assert outcome.failures == [("cat/2.png", KILLED)] and outcome.n_embedded == 7
    assert len([*(kit.folder / "reference").iterdir()]) == 1
    worker.stop()
    assert worker.work(Deal(1, "b")).kind == "Interrupted"
    with open_cache(kit.folder / Shard(1, 1).file_name) as cache:
        assert len(cache.known("pixels")) == 7


def test_a_clock_that_is_an_hour_off_costs_reading_again_at_most(make_photos: MakePhotos, tmp_path: Path) -> None:
    kit = kit_of(make_photos(3), tmp_path / "shards", 1)
    worker = ShardWorker(kit, bytes)
    assert worker.work(Deal(1, "a")).n_embedded == 6
    for path in (tmp_path / "photos").rglob("*.png"):  # as the clock of the storage has it, an hour ahead of this node
        os.utime(path, ns=(path.stat().st_mtime_ns + 3600 * 10**9,) * 2)
    again = worker.work(Deal(1, "b"))
    assert (again.n_embedded, again.n_known) == (0, 6)


# --- what travels ---------------------------------------------------------------------------------------------


def test_a_converted_network_is_written_once_a_node_and_again_if_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    encoder = KerasEncoder(BackboneSpec("digits_cnn"), ["avg_pool"], networks_dir=here)
    monkeypatch.setattr(KerasEncoder, "converted", lambda self, on_progress: here / "net.xml")
    monkeypatch.setattr(shard_worker, "is_converted", lambda path: b"damaged" not in path.read_bytes())
    (here / "net.xml").write_bytes(b"graph")
    (here / "net.bin").write_bytes(b"weights")
    sent, files = luggage(encoder)
    assert sorted(files) == ["net.bin", "net.xml"] and "_engine" not in vars(sent)
    fetched: list[Path] = []

    def fetch(path: Path) -> bytes:
        fetched.append(path)
        return path.read_bytes()

    assert unpack(sent, files, fetch, there).networks_dir == there  # type: ignore[attr-defined]
    unpack(sent, files, fetch, there)
    assert len(fetched) == 2
    (there / "net.xml").write_bytes(b"damaged")
    unpack(sent, files, fetch, there)
    assert len(fetched) == 3 and (there / "net.xml").read_bytes() == b"graph"


def test_weights_named_by_path_travel_where_tensorflow_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "own.weights.h5"
    weights.write_bytes(b"numbers")
    spec = BackboneSpec("mobilenet_v2", str(weights))
    encoder = KerasEncoder(spec, ["avg_pool"], runtime="tensorflow", networks_dir=tmp_path)
    sent, files = luggage(encoder)
    assert files == {"own.weights.h5": weights}
    weights.rename(tmp_path / "gone")
    arrived = unpack(sent, {"own.weights.h5": b"numbers"}, bytes, tmp_path / "node")
    assert isinstance(arrived, KerasEncoder)
    assert Path(arrived.spec.weights).read_bytes() == b"numbers"
    assert arrived.fingerprint == encoder.fingerprint
