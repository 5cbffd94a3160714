"""What the scripts of this folder share: data sets, options, stages, records, and the pages that tables are written to.

A script NAME.py writes what it measured to ``benchmarks/results/NAME.json`` and its tables between two markers of
``docs/benchmarks/NAME.md``; ``--tables-only`` does the second from the first.
With another ``--json`` no page is written.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tlfeat.images.image_set import ImageSet
from tlfeat.records import Environment
from tlfeat.text import seconds
from tlfeat.workspace import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "benchmarks"
SAMPLE_SEED = 0

ARCHIVES = {
    "potato": "potato.tar",
    "cats_dogs": "cats_dogs.tar",
    "sign_digits": "sign_digits.tar",
    "cifar10": "cifar10.tar.gz",
}
#: Key in a record and on the command line to the name in the tables.
BACKBONES = {"v2": "MobileNetV2 0.35", "v1": "MobileNet v1, own file"}

Record = dict[str, Any]


def say(text: str) -> None:
    """Tell the progress on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Say what begins and how long it took."""
    say(f"{datetime.now(UTC):%H:%M:%S}  {what} ...")
    started_s = time.perf_counter()
    yield
    say(f"{datetime.now(UTC):%H:%M:%S}  {what}: {seconds(time.perf_counter() - started_s)}")


# --- data ---------------------------------------------------------------------------------------------------


def unpack(name: str, shared: Path, work: Path) -> Path:
    """Unpack a data set below `work` unless it is there, and return its folder."""
    folder = work / "data" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive_name = ARCHIVES.get(name, f"{name}.tar")
        with (
            stage(f"unpacking {name}"),
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as aside,
            tarfile.open(shared / "data" / archive_name) as archive,
        ):
            archive.extractall(aside, filter="data")
            (Path(aside) / name).rename(folder)
    return folder


def write_sample(images: ImageSet, n_per_class: int, folder: Path) -> tuple[Path, str]:
    """Write a CSV beside `folder` with a seeded draw of each class and split; return it and a sentence about it."""
    rng = np.random.default_rng(SAMPLE_SEED)
    members = defaultdict(list)
    for i, key in enumerate(zip(images.splits, images.labels, strict=True)):
        members[key].append(i)
    n_test = max(1, n_per_class // 2)
    chosen: list[int] = []
    for (split, _), inside in sorted(members.items()):
        n_wanted = n_test if split == "test" else n_per_class
        chosen += sorted(rng.permutation(inside)[:n_wanted].tolist())
    table = folder.with_name(f"{folder.name}-sample{n_per_class}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows((f"{folder.name}/{images.paths[i]}", images.labels[i], images.splits[i]) for i in chosen)
    parts = f"{n_per_class} training and {n_test} test images" if "test" in images.splits else f"{n_per_class} images"
    return table, f"a sample of at most {parts} a class, drawn with seed {SAMPLE_SEED}"


def weights_v2(shared: Path) -> Path:
    """Return the ImageNet weights of MobileNetV2 0.35."""
    return shared / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"


def backbone_options(backbone: str, shared: Path) -> dict[str, Any]:
    """Return the options of `plan_extraction` for a backbone of `BACKBONES`."""
    if backbone == "v2":
        return {"backbone": "mobilenet_v2_0.35", "weights": str(weights_v2(shared))}
    return {"backbone": str(shared / "weights" / "mobilenet_1.0_224_to_conv_pw_12.keras"), "preprocess": "tf"}


# --- records ------------------------------------------------------------------------------------------------


def conditions() -> Record:
    """Return the day, the processor and the versions of a run."""
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", **cpu(), "environment": Environment.current().to_dict()}


def cpu() -> Record:
    """Return the processor's name and the number of cores that ``/proc/cpuinfo`` lists."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    n_cores = sum(line.startswith("processor") for line in lines)
    return {"cpu": models[0] if models else "unknown", "n_cores": n_cores or os.cpu_count()}


def load_average() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def machine_of(record: Record) -> str:
    """Return the processor of a record on a line."""
    return f"{record['cpu']}, {record['n_cores']} cores"


def versions_of(environment: Record, more: Mapping[str, str] | None = None) -> str:
    """Return the versions of one environment on a line, those of `more` packages at its end."""
    packages = {"tlfeat": environment["tlfeat"], "Python": environment["python"], **environment["packages"]}
    return ", ".join(f"{name} {version}" for name, version in (packages | dict(more or {})).items() if version)


def distinct(texts: Iterable[str]) -> list[str]:
    """Return every text once, in the order of first appearance."""
    return list(dict.fromkeys(texts))


def read_records(path: Path) -> list[Record]:
    """Return the records of an earlier run, none where there is no file."""
    records: list[Record] = read_json(path)["records"] if path.exists() else []
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write what `read_records` reads."""
    write_json(path, {"format_version": 1, "records": list(records)})


def gives_way(known: Record | None, record: Record) -> bool:
    """Return whether a record may take the place of a known one; a complete one gives way to a complete one alone."""
    return known is None or record["is_complete"] or not known["is_complete"]


def with_record(records: Sequence[Record], record: Record) -> list[Record]:
    """Return the records with one more, in place of that of the same part and name."""
    place = record["part"], record["name"]
    return [*(one for one in records if (one["part"], one["name"]) != place), record]


def measure_parts(
    args: argparse.Namespace,
    measure: Mapping[str, Callable[[argparse.Namespace, Callable[[str, Record], None]], None]],
    **about: Any,
) -> list[Record]:
    """Run the parts that were asked for, each of which gives its records by name; return them with those of before.

    They are written at once, with `about` and the conditions they were taken under.
    """
    records = read_records(args.json)
    if args.tables_only:
        return records
    with work_folder(args):
        for part in args.parts:

            def save(name: str, record: Record, part: str = part) -> None:
                nonlocal records
                new = {"part": part, "name": name, **about, **record, **conditions(), "load": load_average()}
                records = with_record(records, new)
                write_records(args.json, records)

            measure[part](args, save)
    return records


def tables_of_parts(
    records: Sequence[Record],
    tables: Mapping[str, Callable[[list[Record]], str]],
    about: Callable[[Record], str] = lambda _: "",
) -> str:
    """Return the table of each part that was measured; below it the machine, what `about` adds, and the load."""
    of_parts = {part: [record for record in records if record["part"] == part] for part in tables}
    found = [(part, own) for part, own in of_parts.items() if own]
    return "\n\n".join(f"### {part}\n\n{tables[part](own)}\n\n{_taken(own, about)}" for part, own in found)


def _taken(records: Sequence[Record], about: Callable[[Record], str]) -> str:
    last, loads = records[-1], sorted(record["load"] for record in records)
    load = f"load average {' to '.join(str(one) for one in dict.fromkeys((loads[0], loads[-1])))}"
    facts = ", ".join(filter(None, [last["date"], machine_of(last), about(last), load]))
    return f"{facts}; {versions_of(last['environment'])}."


# --- pages --------------------------------------------------------------------------------------------------


def around_markers(page: Path, name: str) -> tuple[str, str]:
    """Return the text of a Markdown file up to and from the markers of `name`, both of them included."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Benchmarks\n\n{start}\n{end}\n"
    before, has_start, rest = text.partition(start)
    _, has_end, after = rest.partition(end)
    if not (has_start and has_end):
        raise SystemExit(f"{page} lacks the lines {start} and {end}, between which the tables go.")
    return before + start, end + after


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a Markdown file, which is made if it is not there."""
    before, after = around_markers(page, name)
    write_text(page, f"{before}\n{text}\n{after}")


def publish(args: argparse.Namespace, text: str) -> None:
    """Write the tables of a script to its page, if it has one, and to stdout."""
    if args.markdown:
        write_between(args.markdown, args.name, text)
    print(text)


# --- options ------------------------------------------------------------------------------------------------


def parser_for(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of the script NAME.py with the options that every script has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(name=name)
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="what was measured")
    help_text = f"the page that tables go to; default: docs/benchmarks/{name}.md, with another --json none"
    parser.add_argument("--markdown", type=Path, help=help_text)
    parser.add_argument("--tables-only", action="store_true", help="only write the tables from the JSON")
    return parser


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where data and weights are."""
    shared = os.environ.get("TLFEAT_SHARED")
    default = Path(shared) if shared else ROOT.parent / "shared"
    parser.add_argument("--shared", type=Path, default=default, help="folder with data and weights (TLFEAT_SHARED)")


def add_data(parser: argparse.ArgumentParser, *, work: Path | None = None) -> None:
    """Add the options of a script that cannot do without the data sets."""
    add_shared(parser)
    help_text = f"folder for unpacked images and caches; default: {work or 'a temporary one'}"
    parser.add_argument("--work", type=Path, default=work, help=help_text)


def read_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, every place absolute, because runs work in folders of their own."""
    args = parser.parse_args(arguments)
    for name in ("shared", "work", "json", "markdown"):
        if getattr(args, name, None) is not None:
            setattr(args, name, getattr(args, name).resolve())
    if args.markdown is None and args.json == RESULTS / f"{args.name}.json":
        args.markdown = PAGES / f"{args.name}.md"
    if hasattr(args, "work") and not args.tables_only and not (args.shared / "data").is_dir():
        parser.error(f"no data in {args.shared}: set TLFEAT_SHARED or --shared")
    return args


@contextlib.contextmanager
def work_folder(args: argparse.Namespace) -> Iterator[None]:
    """Make ``args.work``, a temporary folder where none was asked for."""
    with contextlib.ExitStack() as stack:
        if args.work is None:
            args.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlfeat-benchmark-"))).resolve()
        args.work.mkdir(parents=True, exist_ok=True)
        yield


def without_places(text: str, args: argparse.Namespace) -> str:
    """Return a message without the folders of this machine."""
    for place in (args.work, args.shared, ROOT):
        text = text.replace(str(place), "…")
    return text


def chosen_from(known: Sequence[str], *, has_all_and_none: bool = False) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of comma lists of known names, in the order of the known ones."""

    def parse(text: str) -> tuple[str, ...]:
        if has_all_and_none and text in ("all", "none"):
            return tuple(known) if text == "all" else ()
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"no '{unknown[0]}', expected some of {','.join(known)}")
        return tuple(name for name in known if name in names)

    return parse


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)
