"""What 10,000 damaged pictures do to ``images.decode``: each is decoded or a `BadImage`, in bounded memory and time.

    python soak/images.py                    # the figures of docs/benchmarks/soak.md, some minutes
    python soak/images.py --n 500 --seed 7   # a look
    python soak/images.py --only 1234        # one mutant again, in this process

Pictures are decoded in a process of its own that may take 1.5 GiB of address space above what it has with Pillow and
numpy loaded, and 10 s for each picture. Every mutant follows from the seed and its number. Anything but pixels or a
`BadImage` with a reason on one line is a failure; its bytes are kept in the folder ``--keep``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import selectors
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, features

from pages import ROOT, add_places, publish
from tlfeat.errors import BadImage
from tlfeat.images.decode import decode_bytes
from tlfeat.images.resizing import RESIZES, pixel_type
from tlfeat.records import Environment
from tlfeat.workspace import write_json

SIZE = (224, 224)
LIMIT_BYTES = 3 << 29  # 1.5 GiB: the largest picture that is let in is 100 million pixels, 300 MB as RGB
LIMIT_S = 10
INTERESTING = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)

Record = dict[str, Any]


# --- the pictures before damage -----------------------------------------------------------------------------


def make_seeds() -> dict[str, bytes]:
    """Return one small file for each kind that `decode` reads: photographs of 96x72, smooth with some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 6, (72, 96, 3)), 0, 255).astype(np.uint8)
    rgb = Image.fromarray(noisy)
    grey, palette, bits = rgb.convert("L"), rgb.quantize(64), rgb.convert("1")
    rgba = rgb.copy()
    rgba.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: on its side
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"

    def frames() -> dict[str, Any]:
        return {"save_all": True, "append_images": [ImageOps.mirror(rgb), ImageOps.flip(rgb)]}

    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (rgb, "JPEG", {"quality": 90}),
        "jpeg-progressive": (rgb, "JPEG", {"progressive": True, "quality": 80}),
        "jpeg-cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "jpeg-exif": (rgb, "JPEG", {"exif": exif}),
        "jpeg-grey": (grey, "JPEG", {"restart_marker_rows": 1}),
        "jpeg-mpo": (rgb, "MPO", frames()),
        "jpeg-large": (rgb.resize((1200, 900)), "JPEG", {"quality": 60}),
        "png": (rgb, "PNG", {"exif": exif}),
        "png-palette": (palette, "PNG", {"transparency": 3}),
        "png-16-bit": (deep, "PNG", {}),
        "png-alpha": (rgba, "PNG", {}),
        "png-animated": (rgb, "PNG", frames()),
        "webp": (rgb, "WEBP", {"quality": 80, "exif": exif}),
        "webp-lossless": (rgba, "WEBP", {"lossless": True}),
        "webp-animated": (rgb, "WEBP", frames()),
        "bmp": (rgb, "BMP", {}),
        "bmp-palette": (palette, "BMP", {}),
        "dib": (rgb, "DIB", {}),
        "tiff": (rgb, "TIFF", {"exif": exif}),
        "tiff-16-bit": (deep, "TIFF", {}),
        "tiff-cmyk": (rgb.convert("CMYK"), "TIFF", {}),
        "tiff-lzw": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "tiff-deflate": (rgba, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff-packbits": (palette, "TIFF", {"compression": "packbits"}),
        "tiff-jpeg": (rgb, "TIFF", {"compression": "jpeg"}),
        "tiff-fax": (bits, "TIFF", {"compression": "group4"}),
        "tiff-pages": (rgb, "TIFF", frames()),
        "gif": (palette, "GIF", {"transparency": 5}),
        "gif-animated": (rgb, "GIF", frames()),
    }
    seeds = {"png-interlaced": interlaced_png(noisy)}
    for name, (image, file_format, options) in made.items():
        out = io.BytesIO()
        image.copy().save(out, file_format, **options)  # a copy: saving JPEG leaves settings in the image
        seeds[name] = out.getvalue()
    return seeds


def interlaced_png(rgb: Any) -> bytes:
    """Return a PNG in the seven passes of Adam7, which Pillow reads and does not write."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = b"".join(
        b"\0" + line.tobytes() for top, left, down, along in starts for line in rgb[top::down, left::along]
    )
    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


# --- damage -------------------------------------------------------------------------------------------------


def flip(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Flip some bits, in the header as often as anywhere."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 300)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Cut the end off."""
    del data[rng.randrange(1, max(2, len(data))) :]


def splice(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Put a block of any file over a block of this one, or between two."""
    other = rng.choice(seeds)
    at, from_, n = rng.randrange(len(data)), rng.randrange(len(other)), rng.choice((4, 16, 64, 512, 4096))
    block = other[from_ : from_ + n]
    data[at : at + (len(block) if rng.random() < 0.5 else 0)] = block


def set_integer(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Write an extreme number where a header may hold one: sizes, offsets, counts."""
    width, order = rng.choice((1, 2, 4)), rng.choice(("big", "little"))
    end = min(len(data), 300) if rng.random() < 0.7 else len(data)
    at = rng.randrange(max(1, end - width))
    value = rng.choice((*INTERESTING, rng.randrange(1 << 8 * width))) % (1 << 8 * width)
    data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def double(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Repeat a stretch of the file, now and then many times."""
    at, n = rng.randrange(len(data)), rng.choice((2, 13, 100, 1000))
    place = at + n if rng.random() < 0.7 else rng.randrange(len(data))
    data[place:place] = data[at : at + n] * rng.choice((1, 1, 1, 40))


DAMAGES: tuple[Callable[[bytearray, list[bytes], random.Random], None], ...] = (
    *(flip, truncate, splice, set_integer, set_integer, double),
)


def with_right_checksums(data: bytearray) -> None:
    """Make the checksum of every PNG chunk right, so that damage gets past the first look."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def mutant(seeds: dict[str, bytes], seed: int, i: int) -> tuple[str, bytes, str]:
    """Return the kind of file, its damaged bytes and the way of resizing of mutant `i`."""
    rng = random.Random(f"{seed}/{i}")
    name = rng.choice(sorted(seeds))
    data = bytearray(seeds[name])
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data:
            rng.choice(DAMAGES)(data, list(seeds.values()), rng)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        with_right_checksums(data)
    return name, bytes(data), rng.choice(list(RESIZES))


# --- one after another, in a process of its own -------------------------------------------------------------


def outcome_of(data: bytes, resize: str) -> tuple[str, str]:
    """Return "decoded", "BadImage" with its reason, or "FAILURE" with what went wrong."""
    try:
        pixels = decode_bytes(data, SIZE, resize)
    except BadImage as bad:
        reason = str(bad)
        return ("BadImage", reason) if reason.strip() and "\n" not in reason else ("FAILURE", f"reason {reason!r}")
    except BaseException as error:
        return "FAILURE", f"{type(error).__name__}: {error}"
    if pixels.shape != (*SIZE, 3) or pixels.dtype != pixel_type(resize):
        return "FAILURE", f"pixels of {pixels.dtype} {pixels.shape}"
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 255:
        return "FAILURE", "pixels beyond 0 to 255"
    return "decoded", ""


def work(seed: int, first: int, end: int) -> None:
    """Decode mutants and print a line for each; the process that started this one watches the clock."""
    seeds = make_seeds()
    for data in seeds.values():  # plugins, tables and caches are loaded before memory is bounded
        decode_bytes(data, SIZE)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + LIMIT_BYTES,) * 2)
    for i in range(first, end):
        name, data, resize = mutant(seeds, seed, i)
        print(json.dumps({"i": i, "name": name}), flush=True)
        started_s = time.perf_counter()
        outcome, reason = outcome_of(data, resize)
        took_s = time.perf_counter() - started_s
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"outcome": outcome, "reason": reason, "s": took_s, "peak_bytes": peak_bytes}), flush=True)


def run(seed: int, n: int) -> Iterator[Record]:
    """Yield what became of every mutant; a worker that crashes or hangs is a failure and is replaced."""
    first = 0
    while first < n:
        command = [sys.executable, __file__, "--seed", str(seed), "--work", str(first), str(n)]
        before = first
        with tempfile.TemporaryFile() as errors:  # libtiff and libpng write warnings there
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as worker:
                lines = lines_of(worker)
                for line in lines:
                    begun = json.loads(line)
                    first = begun["i"] + 1
                    ended = next(lines, None)
                    yield {**begun, **json.loads(ended)} if ended else {**begun, **how_it_ended(worker)}
                worker.kill()
            if first == before:
                errors.seek(0)
                raise SystemExit(f"The worker does not work: {errors.read().decode(errors='replace')}")


def how_it_ended(worker: subprocess.Popen[bytes]) -> Record:
    """Return the record of the picture at which a worker fell silent."""
    try:
        reason = f"the process ended with {worker.wait(1)}"
    except subprocess.TimeoutExpired:
        reason = f"not done after {LIMIT_S} s"
    return {"outcome": "FAILURE", "reason": reason, "s": 0.0, "peak_bytes": 0}


def lines_of(worker: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the lines that the worker prints until it ends or prints none for `LIMIT_S` (60 s before the first)."""
    assert worker.stdout is not None
    waiting, limit_s = b"", 60.0
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while selector.select(limit_s):
            found = os.read(worker.stdout.fileno(), 1 << 16)
            if not found:
                return
            *lines, waiting = (waiting + found).split(b"\n")
            yield from lines
            limit_s = LIMIT_S


# --- the campaign -------------------------------------------------------------------------------------------


def kind_of(reason: str) -> str:
    """Return a reason without its numbers and names, so that reasons can be counted."""
    reason = re.sub(r"b?'[^']*'|b?\"[^\"]*\"|<[^>]*>", "…", reason)
    return re.sub(r"-?(0x[0-9a-f]+|\d+(\.\d+)?)", "N", reason)[:80]


def campaign(seed: int, n: int, keep: Path) -> Record:
    """Decode `n` mutants and return what became of them; the bytes of failures are written to `keep`."""
    seeds = make_seeds()
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {name: Counter() for name in sorted(seeds)}
    failures = []
    slowest: Record = {"s": 0.0}
    started_s, peak_bytes = time.monotonic(), 0
    for record in run(seed, n):
        outcomes[record["outcome"]] += 1
        by_kind[record["name"]][record["outcome"]] += 1
        peak_bytes = max(peak_bytes, record["peak_bytes"])
        slowest = max(slowest, record, key=lambda each: each["s"])
        if record["outcome"] == "BadImage":
            reasons[kind_of(record["reason"])] += 1
        if record["outcome"] == "FAILURE":
            name, data, resize = mutant(seeds, seed, record["i"])
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{seed}-{record['i']}-{name}").write_bytes(data)
            failures.append({"i": record["i"], "name": name, "resize": resize, "reason": record["reason"][:500]})
            print(f"FAILURE  mutant {record['i']} ({name}, {resize}): {record['reason']}", file=sys.stderr, flush=True)
    return {
        "n": n,
        "seed": seed,
        "outcomes": dict(outcomes.most_common()),
        "failures": failures,
        "reasons": dict(reasons.most_common()),
        "kinds": {name: dict(found) for name, found in by_kind.items()},
        "limit_bytes": LIMIT_BYTES,
        "limit_s": LIMIT_S,
        "peak_bytes": peak_bytes,
        "slowest": {name: slowest[name] for name in ("i", "name", "outcome", "reason", "s") if name in slowest},
        "wall_s": round(time.monotonic() - started_s, 1),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "environment": Environment.current().to_dict(),
        "libraries": {name: features.version(name) for name in ("jpg", "libjpeg_turbo", "libtiff", "webp", "zlib")},
    }


def tables(found: Record) -> str:
    """Return the figures as Markdown."""
    n = found["n"]
    lines = [
        f"{n:,} damaged pictures (seed {found['seed']}), at most {found['limit_bytes'] / 2**30:.1f} GiB above the "
        f"interpreter and {found['limit_s']} s each. Slowest: {found['slowest']['s']:.1f} s "
        f"({found['slowest']['name']}); largest resident memory: {found['peak_bytes'] / 1e6:.0f} MB.",
        "",
        "| outcome | pictures |",
        "| --- | --- |",
        *(f"| {name} | {count:,} |" for name, count in found["outcomes"].items()),
        "",
        "| reason of a bad image | pictures |",
        "| --- | --- |",
        *(f"| {reason} | {count:,} |" for reason, count in list(found["reasons"].items())[:15]),
        f"| {max(0, len(found['reasons']) - 15)} others | {sum(list(found['reasons'].values())[15:]):,} |",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the campaign and return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    add_places(parser, "soak_images")
    parser.add_argument("--keep", type=Path, default=ROOT / "cache" / "soak_images", help="folder for failures")
    parser.add_argument("--only", type=int, metavar="I", help="decode one mutant in this process and say how it ends")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.seed, *options.work)
        return 0
    if options.only is not None:
        name, data, resize = mutant(make_seeds(), options.seed, options.only)
        outcome, reason = outcome_of(data, resize)
        print(f"{name}, {resize}: {outcome} {reason}")
        return int(outcome == "FAILURE")
    if options.tables_only:
        found = json.loads(options.json.read_text(encoding="utf-8"))
    else:
        found = campaign(options.seed, options.n, options.keep)
        write_json(options.json, found)
    publish(options, tables(found))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
