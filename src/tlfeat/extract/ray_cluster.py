"""Workers on the machines of a Ray cluster; what they do and what becomes of it is told elsewhere (`cluster`).

The cluster is attached to, or one of this machine is started and ended. Actors are never restarted by Ray: a shard
whose worker died is dealt again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlfeat.errors import ClusterError, UsageError, short_reason
from tlfeat.extract.dealing import Deal, Dealer, Outcome, UnderWay
from tlfeat.extract.shard_lists import lists_in
from tlfeat.extract.shard_worker import Kit, ShardWorker
from tlfeat.images.decode import n_cores
from tlfeat.types import OnProgress

#: Attach to a cluster that runs here, or is named in RAY_ADDRESS; else start one of this machine.
AUTO = "auto"

#: Start one of this machine.
LOCAL = "local"

#: Sockets lie in it, and their names have at most 107 characters.
_LONGEST_TEMP = 40

_ASK_EVERY_S = 1.0

#: For the connection to the head of a cluster.
_REACH_S = 10.0

#: Workers get so long to keep what they have when they are stopped.
_STOP_S = 5.0

#: Workers that may die one after another before they are ready.
_MAX_FAILED_STARTS = 8


def import_ray() -> Any:
    """Import Ray, without its usage statistics.

    Raises
    ------
    UsageError
        It is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--ray needs one more package: pip install 'tlfeat[ray]'. Without it: tlfeat extract --shard K/N."
        ) from error
    return ray


def check_address(address: str) -> None:
    """Raise `UsageError` for what is no address of a cluster."""
    if address not in (AUTO, LOCAL) and ":" not in address:
        raise UsageError(
            f"--ray {address}: an address is auto, local, HOST:PORT or ray://HOST:PORT. If '{address}' is the data, "
            f"name it before --ray."
        )


def _check_reachable(address: str) -> None:
    """Raise where nobody listens: Ray itself tries for five minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(f"Ray at {address} cannot be reached: {short_reason(error)}.") from error


@contextlib.contextmanager
def attached(address: str, store_bytes: int) -> Iterator[Any]:
    """Attach to a cluster, or start one of this machine; give the package Ray. At the end all is as it was.

    Parameters
    ----------
    address : str
        ``auto``, ``local``, HOST:PORT or ray://HOST:PORT.
    store_bytes : int
        What is put into the object store, for a cluster that is started.
    """
    ray = import_ray()
    check_address(address)
    if ray.is_initialized():  # by who calls, and who calls ends it
        yield ray
        return
    if address not in (AUTO, LOCAL):
        _check_reachable(address)
    before = dict(os.environ)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, before, on_sigterm)
        stack.enter_context(_silent(ray))
        stack.callback(ray.shutdown)
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address != LOCAL:
                try:
                    ray.init(
                        address=address,
                        **({} if "://" in address else {"log_to_driver": False}),
                        logging_level=logging.ERROR,
                    )
                except ConnectionError:
                    if address != AUTO or "RAY_ADDRESS" in os.environ:
                        raise
            if not ray.is_initialized():
                temp = stack.enter_context(_short_temp())
                stack.callback(ray.shutdown)  # before the folder goes: what Ray still writes would bring it back
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else one is written to the home folder
                size = max(100 << 20, 2 * store_bytes)
                ray.init(address=LOCAL, num_cpus=n_cores(), object_store_memory=size, _temp_dir=str(temp), **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray at {address} cannot be reached: {short_reason(error)}.") from error
        yield ray


def _restore(environment: Mapping[str, str], on_sigterm: Any) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_") and name not in environment]:
        del os.environ[name]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)


@contextlib.contextmanager
def _short_temp() -> Iterator[Path]:
    """Give a folder for the sockets and logs of a cluster that goes with it."""
    top = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="tlfeat-", dir=top if len(top) <= _LONGEST_TEMP else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Let Ray not print what happened to workers: it goes to stdout, where results go, whatever its options say."""
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    printed = getattr(worker, "print_to_stdstream", None)
    if printed is None:
        yield
        return
    worker.print_to_stdstream = lambda *args, **kwargs: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


def n_workers_of(ray: Any, n_threads: int) -> int:
    """Return how many workers of `n_threads` processors each the cluster has room for."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    n = sum(int(cpus // n_threads) for cpus in nodes)
    if not n:
        raise ClusterError(f"No node of the cluster has {n_threads} processors for a worker. Give fewer --threads.")
    return n


class _Actor(ShardWorker):
    """A `ShardWorker` in a process of Ray's."""

    def __init__(self, kit: Kit) -> None:
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = str(kit.n_threads)
        super().__init__(kit, import_ray().get)


class _Hand:
    """One worker, as the driver sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.deal: Deal | None = None
        self.answer: Any = actor.problem.remote()  # what is waited for
        self.asked: Any = None  # progress
        self.is_ready = False


class Workers:
    """The workers of one run, each with a shard or on its way to one; a context manager that ends them.

    Parameters
    ----------
    ray : module
    kit : Kit
    dealer : Dealer
    n_workers : int
    say : callable
        Told of workers that died.
    on_progress : callable
    """

    def __init__(
        self,
        ray: Any,
        kit: Kit,
        dealer: Dealer,
        n_workers: int,
        say: Callable[[str], None],
        on_progress: OnProgress,
    ) -> None:
        self.ray, self.kit, self.dealer, self.n_workers = ray, kit, dealer, n_workers
        self.say, self.on_progress = say, on_progress
        self.outcomes: list[Outcome] = []
        self.ready_s: float | None = None  # when the first worker was ready
        self._kit = ray.put(kit)
        options = {"num_cpus": kit.n_threads, "max_concurrency": 3, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(**options, scheduling_strategy="SPREAD")(_Actor)
        self._hands: list[_Hand] = []
        self._n_failed_starts = 0
        self._problems: dict[str, int] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """Let workers keep what they have, and end them."""
        for hand in self._hands:
            if hand.deal is not None:
                hand.actor.stop.remote()
        if waiting := [hand.answer for hand in self._hands if hand.deal is not None]:
            self.ray.wait(waiting, num_returns=len(waiting), timeout=_STOP_S)
        for hand in self._hands:
            self._end(hand)
        self._hands = []

    def run(self) -> None:
        """Deal until nothing is left."""
        asked_s = time.monotonic()
        while not self.dealer.is_over:
            self._engage()
            for hand in self._hands:
                if hand.is_ready and hand.answer is None:
                    self._give_work(hand)
            self._take_answers()
            if time.monotonic() - asked_s >= _ASK_EVERY_S:
                asked_s = time.monotonic()
                self._ask()
            self._show()

    def _engage(self) -> None:
        """Start as many workers as there is work for."""
        wanted = min(self.n_workers, self.dealer.n_todo + sum(hand.deal is not None for hand in self._hands))
        while len(self._hands) < wanted:
            self._hands.append(_Hand(self._actor.remote(self._kit)))
        if not self._hands and self._problems:
            raise ClusterError(f"No worker can take part: {max(self._problems, key=self._problems.__getitem__)}.")

    def _give_work(self, hand: _Hand) -> None:
        hand.deal = self.dealer.deal(time.monotonic())
        if hand.deal is not None:
            hand.answer = hand.actor.work.remote(hand.deal)

    def _take_answers(self) -> None:
        waiting = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        asked = {hand.asked: hand for hand in self._hands if hand.asked is not None}
        every = [*waiting, *asked]
        if not every:
            time.sleep(0.1)
            return
        ready, _ = self.ray.wait(every, num_returns=1, timeout=0.5)
        if ready:
            ready, _ = self.ray.wait(every, num_returns=len(every), timeout=0)
        for ref in ready:
            if ref in asked:
                self._take_progress(asked[ref], ref)
        for ref in ready:
            if ref in waiting:
                self._take(waiting[ref], ref)

    def _take_progress(self, hand: _Hand, ref: Any) -> None:
        hand.asked = None
        with contextlib.suppress(self.ray.exceptions.RayError):  # its work says so too
            mark, n_done = self.ray.get(ref)
            if hand.deal is not None and mark == hand.deal.mark:
                self.dealer.note_progress(hand.deal, n_done)

    def _take(self, hand: _Hand, ref: Any) -> None:
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError:
            raise  # a fault of ours, with its traceback
        except self.ray.exceptions.RayError as error:
            self._lose(hand, error)
            return
        hand.answer = None
        if not hand.is_ready:
            self._begin(hand, answer)
            return
        deal, hand.deal = hand.deal, None
        assert deal is not None
        self.outcomes.append(answer)
        self.dealer.finish(deal, answer, time.monotonic())

    def _begin(self, hand: _Hand, problem: str) -> None:
        self._n_failed_starts = 0
        if not problem:
            hand.is_ready = True
            self.ready_s = self.ready_s or time.monotonic()
            return
        self.n_workers -= 1
        if problem not in self._problems:
            self.say(f"warning: {problem}")
        self._problems[problem] = self._problems.get(problem, 0) + 1
        self._hands.remove(hand)
        self._end(hand)

    def _lose(self, hand: _Hand, error: Exception) -> None:
        self._hands.remove(hand)
        self._end(hand)  # it may be one that is only out of reach
        if not hand.is_ready:
            self._n_failed_starts += 1
            if self._n_failed_starts >= _MAX_FAILED_STARTS or "creation task" in str(error):
                raise ClusterError(f"Workers cannot start: {_last_words(error)}") from error
            return
        if hand.deal is None:
            return
        under_way = UnderWay.read(lists_in(self.kit.folder) / hand.deal.mark)
        blamed = self.dealer.lose(hand.deal, under_way)
        self.say(f"A worker died under shard {hand.deal.number}/{self.kit.n_shards}, which is dealt again")
        if blamed:
            self.say(f"warning: {blamed} killed two workers and is skipped")

    def _ask(self) -> None:
        for hand in self._hands:
            if hand.deal is not None and hand.asked is None:
                hand.asked = hand.actor.progress.remote()

    def _show(self) -> None:
        n_ready = sum(hand.is_ready for hand in self._hands)
        if not n_ready:
            self.on_progress("waiting for workers to start", 0, 0)
            return
        dealer, kit = self.dealer, self.kit
        about = f"{n_ready} workers, {dealer.n_finished:,} of {kit.n_shards:,} shards done"
        self.on_progress(f"embedding ({about})", dealer.n_images_done, kit.names.n_images)

    def _end(self, hand: _Hand) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(hand.actor, no_restart=True)


def _last_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
