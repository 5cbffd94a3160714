"""What an image of a bucket costs beside a file: processor time of the whole command, and of its parts.

The bucket is one of moto, an S3 server in a process of its own on loopback, whose time is not counted; it closes every
connection after one answer, which a real one does not. ``tlfeat extract`` runs on the folder and on the bucket in
turns, MobileNetV2 with one thread, each time into a new cache. Needs the data of ``TLFEAT_SHARED`` (default
``../shared``), s3fs and moto.

    python benchmarks/remote.py                  # 5 minutes
    python benchmarks/remote.py --tables-only
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import common
from common import Record
from tlfeat.images.remote import RemoteStore
from tlfeat.text import markdown_table

N_IMAGES, N_ROUNDS, N_OBJECTS, N_LISTED = 600, 3, 400, 2000

_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@contextlib.contextmanager
def bucket_server() -> Iterator[None]:
    """Run an S3 server in a process of its own; the environment says how it is reached."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdin is not None and server.stdout is not None
    port = int(server.stdout.readline())
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield
    finally:
        server.stdin.close()
        server.wait()


def cpu_of(data: str, folder: Path) -> tuple[float, float]:
    """Return processor and wall seconds of one ``tlfeat extract`` into a new cache."""
    for path in folder.glob("*.h5"):
        path.unlink()
    words = [sys.executable, "-m", "tlfeat", "extract", data, "--weights", "random", "--threads", "1", "--quiet"]
    started_s = time.perf_counter()
    process = subprocess.Popen([*words, "--cache", "new.h5"], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"tlfeat extract {data} failed.")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started_s


def cpu_ms(n: int, work: Callable[[], object]) -> float:
    """Return milliseconds of processor each of `n` takes, the second time."""
    work()
    started_s = time.process_time()
    work()
    return 1000 * (time.process_time() - started_s) / n


def read_all(store: RemoteStore, names: list[str]) -> None:
    """Read objects in as many threads as `extract` does."""
    with ThreadPoolExecutor(store.n_ahead) as pool:
        list(pool.map(store.read, names))


def measure_parts() -> Record:
    """Return what one object and one name of a listing cost, by signed requests and by way of s3fs."""
    found: Record = {}
    for name, n_detours in (("signed", 0), ("s3fs", 3)):
        store = RemoteStore("s3://objects")
        remote = store._opened()
        remote._n_detours = n_detours  # type: ignore[attr-defined]
        names = [f"{i}.jpg" for i in range(N_OBJECTS)]

        found[f"read_{name}_ms"] = cpu_ms(N_OBJECTS, partial(read_all, store, names))
        found[f"list_{name}_ms"] = cpu_ms(N_LISTED, store.names)
    return found


def measure(shared: Path, work: Path) -> Record:
    """Return one record: seconds of each run, in turns."""
    import fsspec

    photos = sorted(path for path in common.unpack("cats_dogs", shared, work).rglob("*.jpg"))
    photos = photos[:: max(1, len(photos) // N_IMAGES)][:N_IMAGES]
    with bucket_server(), tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "photos"
        files = fsspec.filesystem("s3")
        for name in ("photos", "objects"):
            files.mkdir(name)
        for i, photo in enumerate(photos):
            path = folder / photo.parent.name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, path)
        files.pipe({f"photos/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*.jpg")})
        files.pipe({f"objects/{i}.jpg": photos[i % len(photos)].read_bytes() for i in range(N_LISTED)})
        record: Record = {**common.conditions(), "n_images": len(photos), **measure_parts()}
        record["mean_kb"] = statistics.mean(photo.stat().st_size for photo in photos) / 1000
        runs: dict[str, list[tuple[float, float]]] = {"folder": [], "bucket": []}
        places = {"folder": str(folder), "bucket": "s3://photos"}
        with common.stage("converting the network"):
            cpu_of(places["folder"], Path(aside))
        for i in range(N_ROUNDS):
            for name in ("folder", "bucket") if i % 2 else ("bucket", "folder"):
                runs[name].append(cpu_of(places[name], Path(aside)))
                common.say(f"{name}: {runs[name][-1][0]:.1f} s of processor")
    return {**record, "runs": runs, "load": common.load_average()}


def table(record: Record) -> str:
    """Return the page's tables."""
    n = record["n_images"]
    per = {name: [1000 * cpu / n for cpu, _ in runs] for name, runs in record["runs"].items()}
    ratios = [far / near for far, near in zip(per["bucket"], per["folder"], strict=True)]
    rows = [(name, f"{statistics.median(ms):.2f}", f"{min(ms):.2f} to {max(ms):.2f}") for name, ms in per.items()]
    parts = [
        ("one object read", f"{record['read_signed_ms']:.2f}", f"{record['read_s3fs_ms']:.2f}"),
        ("one name listed", f"{record['list_signed_ms']:.3f}", f"{record['list_s3fs_ms']:.3f}"),
    ]
    return "\n".join(
        [
            markdown_table(("whole command on", "ms of processor an image, median", "least to greatest"), rows),
            "",
            f"Ratio within a round: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}; "
            f"the aim is at most 1.15).",
            "",
            markdown_table(("ms of processor", "signed requests", "by way of s3fs"), parts),
            "",
            f"{record['date']}, {common.machine_of(record)}, load {record['load']}; {n:,} photos of "
            f"{record['mean_kb']:.0f} kB on average, {len(ratios)} rounds, one thread, MobileNetV2, random weights; "
            f"{common.versions_of(record['environment'])}.",
        ]
    )


def main() -> None:
    """Measure, or write the tables of what was measured."""
    parser = common.parser_for("remote", __doc__)
    common.add_data(parser)
    args = common.read_arguments(parser)
    if not args.tables_only:
        with common.work_folder(args):
            common.write_records(args.json, [measure(args.shared, args.work)])
    common.publish(args, table(common.read_records(args.json)[-1]))


if __name__ == "__main__":
    main()
