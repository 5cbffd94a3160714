"""How commands speak: results to stdout, everything else to stderr, errors as one line and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tlfeat.cli.progress import Progress
from tlfeat.errors import DataError, TlfeatError
from tlfeat.text import one_line, printable

INTERRUPTED_EXIT_CODE = 130


class Console:
    """What one command says.

    Parameters
    ----------
    is_json : bool
        stdout gets one JSON document and nothing else.
    is_quiet : bool
        stderr gets errors and nothing else.
    is_verbose : bool
        Details too.
    """

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.is_verbose = is_verbose

    def say(self, text: str) -> None:
        """Tell the user something beside the result."""
        if not self.is_quiet:
            print(printable(text), file=sys.stderr, flush=True)  # noqa: T201

    def detail(self, text: str) -> None:
        """Tell the user something that only ``-v`` asks for."""
        if self.is_verbose:
            self.say(text)

    def warn(self, text: str) -> None:
        """Tell the user something that should not be missed."""
        self.say(f"warning: {text}")

    def result(self, text: str, document: object) -> None:
        """Give the result: `document` with ``--json``, else `text`."""
        out = json.dumps(document, indent=1) if self.is_json else printable(text)
        print(out, flush=True)  # noqa: T201

    def progress(self) -> Progress:
        """Return a progress display that keeps quiet when asked to."""
        return Progress(is_shown=not self.is_quiet)


@contextlib.contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """End the process with the code and the one line that errors.py promises; bugs keep their traceback."""
    try:
        yield
    except TlfeatError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(error.exit_code) from None
    except MemoryError as error:
        print(f"error: there is not enough memory ({one_line(str(error)) or 'no more could be had'}).", file=sys.stderr)  # noqa: T201
        raise SystemExit(DataError.exit_code) from None
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on from there.", file=sys.stderr)  # noqa: T201
        raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    except BrokenPipeError:  # `tlfeat layers ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


#: How pixels reach the network, of a fingerprint.
_FED = ("input_size", "resize", "preprocess")


def cache_text(about: Mapping[str, Any], *, is_long: bool = False) -> str:
    """Return what ``tlfeat cache info`` prints of ``Cache.describe()``."""
    images, encoder = about["images"], about["fingerprint"]
    lines = [
        f"{about['cache']}  ({about['bytes'] / 1e6:.1f} MB, format {about['format_version']})",
        f"  images    {about['source']}",
        "            " + ", ".join(f"{n:,} {status}" for status, n in images["status"].items()),
        *(f"            {split}: {n:,}" for split, n in images["splits"].items()),
        f"  classes   {', '.join(f'{one_line(name)} ({n:,})' for name, n in images['classes'].items()) or 'none'}",
        f"  encoder   {encoder.get('backbone')}, weights {encoder.get('weights')}",
        *(f"            {name.replace('_', ' ')} {encoder[name]}" for name in _FED if name in encoder),
        *(
            f"  layer     {name}: {n:,} rows of {width:,}, {encoder.get('dtype')}"
            for name, (n, width) in about["layers"].items()
        ),
        f"  time      {about['timing']['extract_s']:.1f} s for {about['timing']['n_embedded']:,} images embedded"
        + (f", last by {about['timing']['runtime']}" if about["timing"].get("runtime") else ""),
    ]
    failures = about["failures"] if is_long else about["failures"][:10]
    lines += [f"  skipped   {one_line(f['path'])}: {one_line(f['reason'])}" for f in failures]
    if len(about["failures"]) > len(failures):
        lines.append(f"            ... and {len(about['failures']) - len(failures):,} more (-v shows all)")
    return "\n".join(lines)


def profile_text(profile: Mapping[str, Any], n_images: int, runtime: str) -> str:
    """Return what ``tlfeat extract --profile`` prints of an `embed.Profile`."""
    wall_s, n_threads = max(profile["wall_s"], 1e-9), profile["n_threads"]
    in_threads = {name: profile[f"{name}_s"] for name in ("read", "decode", "encode")}
    lines = [
        f"Where the time went: {n_images:,} images in {wall_s:.1f} s with {runtime}, {n_threads} threads",
        f"  {1000 * wall_s / n_images:.2f} ms and {1000 * profile['cpu_s'] / n_images:.2f} ms of processor an image; "
        f"{profile['prepare_s']:.1f} s before, to build the network",
        *(f"  {name:<8} {1000 * s / n_images:7.2f} ms an image" for name, s in in_threads.items()),
        f"  waited for pictures {profile['wait_decode_s']:.1f} s, for rows {profile['wait_encode_s']:.1f} s; "
        f"wrote for {profile['write_s']:.1f} s",
    ]
    busy = sum(in_threads.values()) if profile["is_parallel"] else in_threads["read"] + in_threads["decode"]
    share, cpu_share = busy / (wall_s * n_threads), profile["cpu_s"] / (wall_s * n_threads)
    lines.append(f"  threads busy {100 * min(share, 1):.0f} % of the time, {100 * cpu_share:.0f} % on a processor")
    return "\n".join([*lines, f"  {_advice(profile, in_threads, wall_s, min(share, cpu_share))}"])


def _advice(profile: Mapping[str, Any], in_threads: Mapping[str, float], wall_s: float, busy_share: float) -> str:
    if profile["write_s"] > 0.2 * wall_s:
        return "Writing is the bottleneck: put the cache on a faster disk, or take fewer columns (--pool avg)."
    slowest = max(in_threads, key=lambda name: in_threads[name])
    if slowest == "read":
        return "The disk is the bottleneck: copy the images to a local disk, or give more --threads than cores."
    if slowest == "decode":
        return "Decoding is the bottleneck: store smaller pictures, such as twice the network's input."
    if profile["is_parallel"] and busy_share < 0.75:
        return "The threads had to wait for a processor: other work is using the cores."
    return "The network is the bottleneck: a smaller backbone or --input-size, more cores or a GPU would change that."
