"""The steps from one file to pixels, in processor time of the thread; `decode.py` runs this for two versions in turns.

    python benchmarks/decode_steps.py 224 1 < FILES    # height and width, threads; a JSON list of paths; prints JSON

Functions are replaced by ones that count their own time, without that of others within them. It asks nothing of tlfeat
but the names below, so that an older version can be measured with ``PYTHONPATH``; a name it lacks is left out.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, ImageOps

from tlfeat.images import decode, resizing

ROUNDS = 3

#: Step to where its function stands; what is left of the whole is "rest".
STEPS: dict[str, tuple[Any, str]] = {
    "read": (decode, "read_picture"),
    "sha256": (decode, "content_key"),
    "silence warnings": (decode, "_silence_pillow"),
    "open: header and EXIF": (Image, "open"),
    "count scans": (decode, "check_scans"),
    "draft": (decode, "draft"),
    "decode": (ImageFile.ImageFile, "load"),
    "turn by EXIF": (Image.Image, "transpose"),
    "turn and write EXIF": (ImageOps, "exif_transpose"),
    "to RGB": (decode, "_to_rgb"),
    "resize": (Image.Image, "resize"),
    "to an array": (resizing.np, "asarray"),
}

_here = threading.local()


def counted(step: str, function: Callable[..., Any], spent_ns: dict[str, int]) -> Callable[..., Any]:
    """Return `function` so that the time of its calls, less that of counted calls within, is added to `spent_ns`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        before_ns, inner_ns = time.thread_time_ns(), getattr(_here, "inner_ns", 0)
        _here.inner_ns = 0
        try:
            return function(*args, **kwargs)
        finally:
            whole_ns = time.thread_time_ns() - before_ns
            spent_ns[step] += whole_ns - _here.inner_ns
            _here.inner_ns = inner_ns + whole_ns

    return call


def count_all(spent_ns: dict[str, int]) -> Callable[..., Any]:
    """Put counting functions in place of the steps, and return that of the whole."""
    for step, (home, name) in STEPS.items():
        if hasattr(home, name):
            setattr(home, name, counted(step, getattr(home, name), spent_ns))
    return counted("rest", decode.decode_file, spent_ns)


def measure(size_px: int, n_threads: int, files: Sequence[Path]) -> dict[str, Any]:
    """Return seconds and microseconds a picture, of the whole as it is and of its steps, after one round unmeasured."""
    size = (size_px, size_px)

    def decode_all(whole: Callable[..., Any]) -> tuple[float, float]:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(n_threads) as pool:
            for found in pool.map(lambda at: whole(at[0], at[1], size, lambda key: False), enumerate(files)):
                assert found.pixels is not None, found.error
        return time.perf_counter() - started_s, time.process_time() - started_cpu_s

    decode_all(decode.decode_file)
    plain = [decode_all(decode.decode_file) for _ in range(ROUNDS)]
    spent_ns: dict[str, int] = defaultdict(int)
    whole = count_all(spent_ns)
    for _ in range(ROUNDS):
        decode_all(whole)
    return {
        "images_per_s": len(files) / min(wall_s for wall_s, _ in plain),
        "cpu_us": 1e6 * min(cpu_s for _, cpu_s in plain) / len(files),
        "steps_us": {step: ns / 1000 / ROUNDS / len(files) for step, ns in spent_ns.items()},
    }


if __name__ == "__main__":
    files = [Path(name) for name in json.load(sys.stdin)]
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), files)))
