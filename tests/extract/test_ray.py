"""Workers, nodes and drivers of a real Ray cluster on this machine are killed, and no row is lost."""

from __future__ import annotations

import _thread
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MakePhotos, skip_without
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import create_cache, open_cache
from tlfeat.errors import ClusterError, Interrupted
from tlfeat.extract.cluster import ClusterReport, extract_on_cluster
from tlfeat.extract.dealing import KILLED
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.plan import ExtractionJob, plan_extraction
from tlfeat.extract.shard_lists import lists_in
from tlfeat.images.load import load_images
from tlfeat.system import is_running
from tlfeat.types import Pixels, Rows

skip_without("ray", reason="--ray needs pip install 'tlfeat[ray]'")
if sys.platform == "win32":
    pytest.skip("clusters of several nodes on one machine are for Linux and macOS", allow_module_level=True)


class Cluster:
    """A head, to which drivers attach, and nodes that can be killed, of one processor each."""

    def __init__(self, folder: Path) -> None:
        import ray.cluster_utils

        self.folder = folder
        self.nodes: list[Any] = []
        self._cluster = ray.cluster_utils.Cluster(
            initialize_head=True,
            # a process each for logs and for growing the cluster is two that nothing here asks
            head_node_args={
                "num_cpus": 1,
                "include_dashboard": False,
                "no_monitor": True,
                "include_log_monitor": False,
            },
        )
        self.address: str = self._cluster.address

    def add_node(self) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=1, include_dashboard=False))

    def kill_node(self) -> None:
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor; their folder is short, since sockets lie in it."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="tlr"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        started = Cluster(folder)
        try:
            started.add_node()
            yield started
        finally:
            ray.shutdown()
            started.end()
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
            shutil.rmtree(folder, ignore_errors=True)


class SlowPixels(PixelEncoder):
    """Takes its time, and writes down who it is; a picture with a certain size in bytes kills its process."""

    batch_size = 4

    def __init__(self, pids: Path, pause_s: float = 0.05, deadly_bytes: int = 0) -> None:
        super().__init__()
        self.pids, self.pause_s, self.deadly_bytes = pids, pause_s, deadly_bytes

    def decode(self, data: bytes) -> Pixels:
        from tlfeat.images.decode import decode_bytes

        if len(data) == self.deadly_bytes:
            os._exit(9)
        return decode_bytes(data, self.input_size)

    def encode(self, pixels: Any) -> dict[str, Rows]:
        (self.pids / str(os.getpid())).touch()
        time.sleep(self.pause_s)
        return super().encode(np.stack(pixels))


def planned(photos: Path, encoder: PixelEncoder | None = None, **options: Any) -> ExtractionJob:
    options = {"backbone": "pixels", "cache": photos.parent / "shards", **options}
    job = plan_extraction(photos, is_dealt=True, **options)
    return job if encoder is None else ExtractionJob(job.images, encoder, job.origin, job.cache_path)


def rows_by_path(cache: Path) -> dict[str, bytes]:
    with open_cache(cache) as opened:
        table = opened.table.without("failed")
        rows = opened.read("pixels" if "pixels" in opened.layers else "avg_pool", table.keys)
    return {path: row.tobytes() for path, row in zip(table.images.paths, rows, strict=True)}


def rows_of_one_process(photos: Path) -> dict[str, bytes]:
    extract_rows(load_images(photos), PixelEncoder(), photos.parent / "one.h5")
    return rows_by_path(photos.parent / "one.h5")


def first_pid(pids: Path) -> int:
    """Return the number of a worker that is at work."""
    while not (found := sorted(pids.iterdir())):
        time.sleep(0.02)
    return int(found[0].name)


def both_at_work(pids: Path, patience_s: float = 20.0) -> bool:
    """Wait until the workers of both nodes are at work."""
    until_s = time.monotonic() + patience_s
    while len([*pids.iterdir()]) < 2 and time.monotonic() < until_s:
        time.sleep(0.02)
    return len([*pids.iterdir()]) == 2


def run_while(job: ExtractionJob, address: str, meanwhile: Callable[[], object], **options: Any) -> ClusterReport:
    thread = threading.Thread(target=meanwhile, daemon=True)
    thread.start()
    try:
        return extract_on_cluster(job, address, **options)
    finally:
        thread.join(timeout=30)


@pytest.mark.keras
def test_a_converted_network_travels_and_rows_equal_those_of_one_process_to_the_bit(
    cluster: Cluster, make_photos: MakePhotos, small_network: Path, tmp_path: Path
) -> None:
    photos, network = make_photos(12), tmp_path / "network.keras"
    shutil.copy(small_network, network)
    options = {"backbone": str(network), "preprocess": "tf"}
    alone = plan_extraction(photos, cache=tmp_path / "alone" / "one.h5", **options)
    alone.run()
    job = planned(photos, **options)
    _ = job.encoder.fingerprint
    network.unlink()  # workers need the converted one alone
    report = extract_on_cluster(job, cluster.address, n_shards=3)
    assert report.runtime.startswith("openvino") and report.n_embedded == 24 and report.n_shards == 3
    assert rows_by_path(report.cache) == rows_by_path(tmp_path / "alone" / "one.h5")
    assert sorted(path.name for path in cluster.folder.glob("tlfeat-*/*/network-*")) == [
        path.name
        for path in sorted(alone.encoder.networks_dir.glob("network-*"))  # type: ignore[attr-defined]
    ]
    assert not lists_in(report.cache).exists()


def test_no_row_is_lost_to_a_killed_worker_a_deadly_image_and_another_writer(
    cluster: Cluster, make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos, pids = make_photos(20), tmp_path / "pids"
    pids.mkdir()
    deadly = photos / "cat" / "7.png"
    deadly.write_bytes(deadly.read_bytes() + bytes(5000))
    encoder = SlowPixels(pids, pause_s=0.2, deadly_bytes=deadly.stat().st_size)
    job = planned(photos, encoder)
    other = create_cache(job.cache_path / "shard-00002-of-00003.h5", encoder.fingerprint, {})

    def meanwhile() -> None:
        os.kill(first_pid(pids), signal.SIGKILL)
        time.sleep(2)
        other.close()

    said: list[str] = []
    report = run_while(job, cluster.address, meanwhile, n_shards=3, say=said.append)
    expected = rows_of_one_process(photos)
    del expected["cat/7.png"]
    assert rows_by_path(report.cache) == expected
    assert report.failures == [("cat/7.png", KILLED)] and report.n_failed == 1
    assert report.n_deaths == 3, said  # one was killed, two met the image
    assert any("cat/7.png killed two workers" in text for text in said)


def test_a_killed_driver_goes_on_though_a_node_is_lost(
    cluster: Cluster, make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos, pids = make_photos(30), tmp_path / "pids"
    pids.mkdir()
    job = planned(photos, SlowPixels(pids, pause_s=0.3))
    words = ["extract", str(photos), "--ray", cluster.address, "--backbone", "pixels", "--shards", "4", "--cache"]
    driver = subprocess.Popen([sys.executable, "-m", "tlfeat", *words, str(job.cache_path)], stderr=subprocess.PIPE)
    while not any(job.cache_path.glob("shard-*.h5")):
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        time.sleep(0.02)
    driver.kill()
    driver.communicate()
    was_at_work = False

    def meanwhile() -> None:
        nonlocal was_at_work
        was_at_work = both_at_work(pids)
        cluster.kill_node()

    report = run_while(job, cluster.address, meanwhile)
    assert rows_by_path(report.cache) == rows_of_one_process(photos)
    assert report.n_shards == 4 and report.n_images == 60
    assert report.n_deaths == was_at_work  # on a busy machine one worker may be done before the other begins


def test_ctrl_c_ends_the_workers_and_keeps_what_is_done(
    cluster: Cluster, make_photos: MakePhotos, tmp_path: Path
) -> None:
    photos, pids = make_photos(30), tmp_path / "pids"
    pids.mkdir()
    job = planned(photos, SlowPixels(pids, pause_s=0.3))

    def meanwhile() -> None:
        first_pid(pids)
        time.sleep(0.5)
        _thread.interrupt_main()

    with pytest.raises(Interrupted, match="The same command goes on from there"):
        run_while(job, cluster.address, meanwhile, n_shards=2, n_workers=1)
    deadline_s = time.monotonic() + 10
    while any(is_running(int(path.name)) for path in pids.iterdir()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(is_running(int(path.name)) for path in pids.iterdir())
    report = extract_on_cluster(job, cluster.address, n_workers=1)
    assert report.n_known > 0 and report.n_known + report.n_embedded == 60
    assert rows_by_path(report.cache) == rows_of_one_process(photos)


def test_no_cluster_at_an_address_is_one_line(make_photos: MakePhotos) -> None:
    with pytest.raises(ClusterError, match=r"Ray at 127\.0\.0\.1:9 cannot be reached"):
        extract_on_cluster(planned(make_photos(1)), "127.0.0.1:9")
