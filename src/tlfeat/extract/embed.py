"""Files to rows: read, decode and encode in the same threads, one for each core, in order and in bounded memory.

The step in the middle of `extract`, and what `predict` and the scikit-learn transformer share with it: paths in,
keys and rows out, no cache and no labels. An engine for many machines would call it on its share of the paths.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from tlfeat.backbones.encoder import Encoder
from tlfeat.images.decode import Decoded, Picture, decode_all, n_cores
from tlfeat.types import OnProgress, Rows, silent


@dataclass(slots=True)
class Profile:
    """Where the time of one run went, in seconds.

    Attributes
    ----------
    n_threads : int
        Threads that read, decode and encode; `read_s`, `decode_s` and `encode_s` are sums over them.
    is_parallel : bool
        Whether encoding ran in those threads, a core each, or beside them with threads of its own.
    wait_read_s, wait_decode_s, wait_encode_s, write_s : float
        What the one thread that drives waited for: bytes of a store that is far away, pictures, rows, and the cache.
    prepare_s : float
        Building the encoder; in none of the other figures.
    wall_s, cpu_s : float
        From the first file to the last row, and the processor time of the process in it.
    """

    n_threads: int
    is_parallel: bool = True
    read_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    wait_read_s: float = 0.0
    wait_decode_s: float = 0.0
    wait_encode_s: float = 0.0
    write_s: float = 0.0
    prepare_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """One batch: the files, and for each layer the rows of shape (n_files, width), in the same order."""

    files: list[Decoded]
    rows: dict[str, Rows]


def embed_files(
    files: Iterable[tuple[int, Picture]],
    encoder: Encoder,
    *,
    is_wanted: Callable[[Decoded], bool] = lambda decoded: decoded.pixels is not None,
    is_known: Callable[[str], bool] = lambda key: False,
    is_prepared_first: bool = False,
    n_reads: int = 0,
    size_of: Callable[[int], int] = lambda i: 0,
    profile: Profile | None = None,
    on_progress: OnProgress = silent,
) -> Generator[Embedded, None, None]:
    """Decode and encode files, in order.

    Parameters
    ----------
    files : iterable of (number, path)
        Or in place of a path a function that gives the bytes of a file.
    encoder : Encoder
        It is prepared when the first batch is there, and not at all where there is none; before anything is read
        with `is_prepared_first`.
    is_wanted : callable
        Told of every file in order, in the caller's thread: the failed, the known and the decoded. Whether it shall
        be encoded; never true where there are no pixels.
    is_known : callable
        Asked for every content key, in the threads: whether pixels are not needed.
    n_reads : int, default=0
        Reads under way at once where images lie far away (`Store.n_ahead`).
    size_of : callable
        Bytes of image `i`, 0 where that is not known: it bounds the memory of what was read ahead.
    profile : Profile, optional
        Filled in; its `n_threads` says how many threads are used, one a core where there is none.
    on_progress : callable, optional
        For the encoder's preparation.

    Yields
    ------
    Embedded
        At most ``encoder.batch_size`` files.
    """
    profile = profile or Profile(n_cores())
    batch: list[Decoded] = []

    def waited(seconds: float) -> None:
        profile.wait_read_s += seconds
        profile.wait_decode_s -= seconds  # which counts all until a picture is there

    on_way: deque[tuple[list[Decoded], Future[tuple[dict[str, Rows], float]]]] = deque()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(profile.n_threads, thread_name_prefix="embed"))
        decoded_all = decode_all(
            files,
            encoder.input_size,
            resize=encoder.resize,
            is_known=is_known,
            n_ahead=max(64, 3 * encoder.batch_size),
            pool=pool,
            decode=getattr(encoder, "decode", None),
            n_reads=n_reads,
            size_of=size_of,
            on_wait=waited,
        )
        stack.callback(decoded_all.close)

        def prepare() -> Executor:
            _prepare(encoder, profile, on_progress)
            if encoder.is_parallel:
                return pool
            return stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="encode"))

        encoding_pool = prepare() if is_prepared_first else None
        stack.callback(lambda: [future.cancel() for _, future in on_way])
        for decoded in chain(_timed(decoded_all, profile), [None]):
            if decoded is not None:
                profile.read_s += decoded.read_s
                profile.decode_s += decoded.decode_s
                if is_wanted(decoded):
                    batch.append(decoded)
            if len(batch) == encoder.batch_size or (batch and decoded is None):
                encoding_pool = encoding_pool or prepare()
                on_way.append((batch, encoding_pool.submit(_encode, encoder, batch)))
                batch = []
            n_bound = 0 if decoded is None else 2 * profile.n_threads
            while on_way and (len(on_way) > n_bound or on_way[0][1].done()):
                started_s = time.perf_counter()
                encoded, encoding = on_way.popleft()
                rows, encode_s = encoding.result()
                profile.wait_encode_s += time.perf_counter() - started_s
                profile.encode_s += encode_s
                yield Embedded(encoded, rows)


def _prepare(encoder: Encoder, profile: Profile, on_progress: OnProgress) -> None:
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    encoder.prepare(on_progress)
    profile.prepare_s += time.perf_counter() - started_s
    profile.cpu_s -= time.process_time() - started_cpu_s
    profile.is_parallel = encoder.is_parallel


def _encode(encoder: Encoder, batch: Sequence[Decoded]) -> tuple[dict[str, Rows], float]:
    started_s = time.perf_counter()
    items: Any = [decoded.pixels for decoded in batch if decoded.pixels is not None]
    if not hasattr(encoder, "decode"):  # texts have different lengths, and their encoder takes them one by one
        items = np.stack(items)
    return encoder.encode(items), time.perf_counter() - started_s


def _timed(decoded_all: Iterable[Decoded], profile: Profile) -> Iterator[Decoded]:
    waited_for = iter(decoded_all)
    while True:
        started_s = time.perf_counter()
        decoded = next(waited_for, None)
        if decoded is None:
            return
        profile.wait_decode_s += time.perf_counter() - started_s
        yield decoded
