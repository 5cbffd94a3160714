"""How fast `extract` is beside what users run today, and beside what the cores allow, as JSON and as Markdown tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``). Every contender is a whole process of its
own; they run in rounds, in another order each round, on the same photographs of cats_dogs, and ratios are taken
within a round. Weights are random (seed 0) but for `storage`, and the same for every contender.

    python benchmarks/extraction.py                                    # everything; hours on two cores
    python benchmarks/extraction.py --parts speed --networks resnet50  # one part of it, the others keep their figures
    python benchmarks/extraction.py --parts curve scan --curve 1000 10000 60000
    python benchmarks/extraction.py --images 40 --rounds 1 --curve 30 60 --json /tmp/t.json   # a look
    python benchmarks/extraction.py --tables-only                      # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common
from common import Record
from extraction_tables import MEMORY_IMAGES, NETWORKS, TITLES, VARIANTS, tables
from tlfeat.records import distribution_version
from tlfeat.workspace import read_json, write_json

PARTS = ("speed", "layers", "curve", "scan", "storage")
CONTENDERS = Path(__file__).with_name("extraction_contenders.py")
ISA = "ONEDNN_MAX_CPU_ISA"  # the variable that TensorFlow's and OpenVINO's kernels both ask
CHECKED_IMAGES = 48  # of which rows of different contenders are compared

#: One layer, and the same with three more; these maps are the taps of TensorFlow's image segmentation tutorial.
LAYERS = {
    "one": ("avg_pool",),
    "four": ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "avg_pool"),
}
STORAGE_SETS = ("cats_dogs", "potato")

Task = dict[str, Any]


# --- running processes --------------------------------------------------------------------------------------


def environment_for(contender: str) -> dict[str, str]:
    """Return the variables of a contender's process: no GPU, and oneDNN as TensorFlow or the contender has it."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    if contender in ("naive_onednn", "tfdata"):
        return environment | {"TF_ENABLE_ONEDNN_OPTS": "1"}
    # without AVX-512, TensorFlow on AMD leaves oneDNN off unless it is told otherwise
    return environment | ({"TF_ENABLE_ONEDNN_OPTS": "0"} if contender == "naive" and ISA in environment else {})


def run_process(command: Sequence[str | Path], work: Path, environment: dict[str, str]) -> Record:
    """Run a command and return its wall and processor seconds (its children's included) and peak memory."""
    with (work / "stdout").open("wb") as out, (work / "stderr").open("wb") as errors:
        started_s = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), cwd=work, env=environment, stdout=out, stderr=errors)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.monotonic() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = (work / "stderr").read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{tail}")
    scale = 1 if sys.platform == "darwin" else 1024
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * scale}


def run_contender(contender: str, task: Task, work: Path) -> Record:
    """Run one contender as a process and return all that was measured of it."""
    task_file, out = work / "task.json", work / "out.json"
    task_file.write_text(json.dumps(task), encoding="utf-8")
    out.unlink(missing_ok=True)
    command = [sys.executable, CONTENDERS, contender, "--task", task_file, "--out", out]
    load = os.getloadavg()[0]
    used = run_process([*command, "--started-s", str(time.monotonic())], work, environment_for(contender))
    return {**json.loads(out.read_text(encoding="utf-8")), **used, "load_average_before": round(load, 2)}


def in_turn(names: Sequence[str], n_rounds: int) -> Iterator[tuple[int, str]]:
    """Give every name once a round, in an order that is drawn for each round but the first (seed: the round)."""
    for n in range(n_rounds):
        order = list(names)
        if n:
            random.Random(n).shuffle(order)
        yield from ((n, name) for name in order)


# --- pictures -----------------------------------------------------------------------------------------------


def evenly(values: Sequence[Any], n: int | None) -> list[Any]:
    """Return `n` of the values, evenly spaced; all where there are no more."""
    if n is None or n >= len(values):
        return list(values)
    return [values[i * len(values) // n] for i in range(n)]


def flat_photos(shared: Path, work: Path, n: int | None) -> Path:
    """Return a folder CLASS/SPLIT-NAME of cats_dogs photographs, train and test together: one list for everyone."""
    source = common.unpack("cats_dogs", shared, work)
    files = evenly(sorted(source.glob("*/*/*.jpg")), n)
    places = {file: f"{file.parent.name}/{file.parent.parent.name}-{file.name}" for file in files}
    return link_all(places, work / f"photographs-{len(files)}")


def link_all(places: dict[Path, str], folder: Path) -> Path:
    """Fill a folder with links to files, so that one picture lies on the disk once."""
    shutil.rmtree(folder, ignore_errors=True)
    for file, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / place)
    return folder


def many_photos(shared: Path, work: Path, n: int) -> Path:
    """Return a folder of `n` photographs, all different: bytes behind the end of the JPEG change the content key.

    They are an hour old: `extract` trusts no time stamp of the last two seconds.
    """
    folder = work / f"curve-{n}"
    files = sorted(common.unpack("cats_dogs", shared, work).glob("*/*/*.jpg"))
    random.Random(0).shuffle(files)  # so that the first thousand are as large as all
    common.say(f"writing {n:,} photographs")
    shutil.rmtree(folder, ignore_errors=True)
    for name in {file.parent.name for file in files}:
        (folder / name).mkdir(parents=True)
    hour_ago_s = time.time() - 3600
    for i in range(n):
        file = files[i % len(files)]
        place = folder / file.parent.name / f"{i:06d}.jpg"
        place.write_bytes(file.read_bytes() + b"copy %06d" % (i // len(files)))
        os.utime(place, (hour_ago_s, hour_ago_s))
    return folder


def first_of(folder: Path, n: int) -> Path:
    """Return a folder of the first `n` of `many_photos`."""
    files = sorted(folder.glob("*/*.jpg"), key=lambda file: file.name)[:n]
    return link_all({file: f"{file.parent.name}/{file.name}" for file in files}, folder.with_name(f"curve-{n}"))


# --- the parts ----------------------------------------------------------------------------------------------


def measure_speed(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run all contenders in rounds, for each network."""
    folder = flat_photos(args.shared, args.work, args.images)
    files = sorted(folder.glob("*/*.jpg"))
    for network in args.networks:
        task = base_task(network, folder, args.work)
        common.say(f"{network}: making and converting it, in no figure")
        run_contender("convert", task, args.work)
        record = new_record(args, len(files), network=network, runs=[])
        for n, name in in_turn(list(TITLES), args.rounds):
            found = run_contender(name, {**task, "rows": str(args.work / f"{name}.h5")}, args.work)
            record["runs"].append({"round": n, "name": name, **found})
            common.say(f"{network} round {n + 1}: {name}: {found['images_per_s']:.1f} images/s")
            save(network + args.isa, record)
        places = {file: f"{file.parent.name}/{file.name}" for file in evenly(files, CHECKED_IMAGES)}
        checked = link_all(places, args.work / "checked")
        compared = {name: str(args.work / f"{name}.h5") for name in ("naive", "naive_onednn", "tfdata")}
        check = {**task, "folder": str(checked), "resize": "dataset", "compared": compared}
        found = run_contender("check", check, args.work)
        record["check"] = {name: found[name] for name in (*compared, "accurate")}
        save(network + args.isa, {**record, "is_complete": True})


def run_in_turn(what: str, tasks: dict[str, Task], n_rounds: int, record: Record, work: Path) -> None:
    """Run tlfeat on each of the tasks in rounds; their figures go into the record."""
    for n, name in in_turn(list(tasks), n_rounds):
        found = run_contender("tlfeat", tasks[name], work)
        record["runs"].append({"round": n, "name": name, **found})
        common.say(f"{what} round {n + 1}: {name}: {found['images_per_s']:.1f} images/s")


def measure_layers(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run one layer against four, in rounds."""
    folder = flat_photos(args.shared, args.work, args.images)
    tasks = {
        name: {**base_task("mobilenet_v2", folder, args.work), "layers": layers} for name, layers in LAYERS.items()
    }
    for task in tasks.values():
        run_contender("convert", task, args.work)
    record = new_record(args, len(list(folder.glob("*/*"))), layers=LAYERS, runs=[])
    run_in_turn("layers", tasks, args.rounds, record, args.work)
    save("", {**record, "is_complete": True})


def measure_curve(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run tlfeat on more and more photographs."""
    sizes = sorted({*args.curve, *({MEMORY_IMAGES} if max(args.curve) > MEMORY_IMAGES else set())})
    largest = many_photos(args.shared, args.work, sizes[-1])
    folders = {n: largest if n == sizes[-1] else first_of(largest, n) for n in sizes}
    tasks = {
        str(n): {**base_task("mobilenet_v2", folder, args.work), "cache": str(args.work / f"curve-{n}.h5")}
        for n, folder in folders.items()
    }
    run_contender("convert", {**tasks[str(sizes[0])], "cache": str(args.work / "none.h5")}, args.work)
    record = new_record(args, sizes[-1], n_rounds=args.curve_rounds, runs=[])
    run_in_turn("curve", tasks, args.curve_rounds, record, args.work)
    save("", {**record, "is_complete": True})


def measure_scan(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run the command again on unchanged photographs, then on a few that changed.

    Where `curve` was run before, on its photographs and its cache; else with the "pixels" backbone, which makes a
    cache of as many images sooner.
    """
    n_images = max(args.curve)
    folder, cache = args.work / f"curve-{n_images}", args.work / f"curve-{n_images}.h5"
    backbone = "mobilenet_v2"
    if not cache.exists():
        folder, cache, backbone = many_photos(args.shared, args.work, n_images), args.work / "scan.h5", "pixels"
    options = ["--backbone", backbone, "--cache", cache]
    options += ["--weights", args.work / f"{backbone}.weights.h5"] if backbone != "pixels" else []
    command = [sys.executable, "-m", "tlfeat", "extract", folder, *options, "--json", "--quiet"]

    def extract() -> Record:
        used = run_process(command, args.work, environment_for("tlfeat"))
        report = json.loads((args.work / "stdout").read_text(encoding="utf-8"))
        return {**used, "n_embedded": report["n_embedded"], "n_failed": len(report["failures"])}

    record = new_record(args, n_images, backbone=backbone, runs=[])
    if backbone == "pixels":
        extract()
    for n in range(args.rounds):
        record["runs"].append({"round": n, "name": "unchanged", **extract()})
        common.say(f"scan: {n_images:,} unchanged: {record['runs'][-1]['cpu_s']:.2f} s of processor time")
    record["n_expected"] = change_some(folder)
    try:
        record["runs"].append({"round": 0, "name": "changed", **extract()})
        record["runs"].append({"round": 0, "name": "and again", **extract()})
    finally:
        shutil.rmtree(folder)  # it is not what its name says any more
        cache.unlink(missing_ok=True)
    save("", {**record, "is_complete": True})


def change_some(folder: Path) -> int:
    """Change one photograph, add ten, remove five, move forty; return how many pictures are new by that."""
    files = sorted(folder.glob("*/*.jpg"))
    changed, removed, moved = files[0], files[1:6], files[6:46]
    data = changed.read_bytes()
    changed.unlink()  # a link of another folder keeps the old bytes
    changed.write_bytes(data + b"changed")
    for k in range(10):
        (folder / "cats" / f"added-{k}.jpg").write_bytes(data + b"added %d" % k)
    for file in removed:
        file.unlink()
    for file in moved:
        file.rename(file.with_name(f"moved-{file.name}"))
    return 1 + 10


def measure_storage(args: argparse.Namespace, save: Callable[[str, Record], None]) -> None:
    """Run every kind of cache file on two sets, with the shared weights, which have learned something."""
    weights = common.weights_v2(args.shared)
    for name in STORAGE_SETS:
        folder = common.unpack(name, args.shared, args.work)
        source, n_images = limited_table(folder, args.images, args.work)
        seeds = [0] if (folder / "test").is_dir() else list(range(args.splits))
        tasks = {
            variant: {
                "network": "mobilenet_v2_0.35",
                "weights": str(weights),
                "folder": str(source),
                "cache": str(args.work / f"{name}-{variant.replace(' ', '-')}.h5"),
                "seeds": seeds,
                **options,
            }
            for variant, options in VARIANTS.items()
        }
        run_contender("convert", tasks["float32"], args.work)  # the kind of file is not its business
        record = new_record(args, n_images, set=name, seeds=seeds, runs=[], accuracies={})
        for n, variant in in_turn(list(VARIANTS), args.rounds):
            found = run_contender("storage", tasks[variant], args.work)
            record["runs"].append({"round": n, "name": variant, **found})
            common.say(f"storage {name} round {n + 1}: {variant}: {found['file_bytes']:,} bytes")
        for variant, task in tasks.items():
            record["accuracies"][variant] = run_contender("accuracy", task, args.work)["accuracies"]
        save(name, {**record, "is_complete": True})


def limited_table(folder: Path, n: int | None, work: Path) -> tuple[Path, int]:
    """Return the folder, or a folder with `n` of its pictures in the same places, and how many there are."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if n is None or n >= len(files):
        return folder, len(files)
    places = {file: str(file.relative_to(folder)) for file in evenly(files, n)}
    return link_all(places, work / f"{folder.name}-{n}"), n


MEASURE = {
    "speed": measure_speed,
    "layers": measure_layers,
    "curve": measure_curve,
    "scan": measure_scan,
    "storage": measure_storage,
}


def base_task(network: str, folder: Path, work: Path) -> Task:
    """Return the task that every contender understands."""
    return {
        "network": network,
        "weights": str(work / f"{network}.weights.h5"),
        "folder": str(folder),
        "cache": str(work / "rows.h5"),
    }


def new_record(args: argparse.Namespace, n_images: int, **more: Any) -> Record:
    """Return what is known of a part before it starts."""
    return {
        "is_complete": False,
        "n_images": n_images,
        "n_rounds": args.rounds,
        "command": command_line(args),
        **common.conditions(),
        "openvino": distribution_version("openvino"),
        **more,
    }


def command_line(args: argparse.Namespace) -> str:
    """Return the command without the options that only say where things lie."""
    parts = ["python benchmarks/extraction.py", "--parts", *args.parts, "--networks", *args.networks]
    parts += ["--rounds", str(args.rounds), *(["--images", str(args.images)] if args.images else [])]
    if {"curve", "scan"} & set(args.parts):
        parts += ["--curve", *map(str, args.curve), "--curve-rounds", str(args.curve_rounds)]
    return " ".join([*parts, *(["--splits", str(args.splits)] if "storage" in args.parts else [])])


# --- the JSON file ------------------------------------------------------------------------------------------


def read_results(path: Path) -> dict[str, dict[str, Record]]:
    """Return the records of earlier runs: part, then network or set ("" where there is one), to record."""
    results: dict[str, dict[str, Record]] = read_json(path)["parts"] if path.exists() else {}
    return results


def save_record(path: Path, part: str, key: str, record: Record) -> None:
    """Take a record into the file; a complete one gives way to nothing but a complete one."""
    results = read_results(path)
    if common.gives_way(results.setdefault(part, {}).get(key), record):
        results[part][key] = record
    parts = {name: results[name] for name in PARTS if name in results}
    write_json(path, {"format_version": 1, "parts": parts})


def what_would_be_lost(known: Record, n_images: int | None, n_rounds: int) -> str:
    """Return what a complete earlier record has more than this run would measure, "" for nothing."""
    losses = [
        (f"{known['n_images']:,} images", n_images is not None and n_images < known["n_images"]),
        (f"{known['n_rounds']} rounds", n_rounds < known["n_rounds"]),
    ]
    return ", ".join(what for what, is_lost in losses if is_lost and known["is_complete"])


def check_losses(args: argparse.Namespace) -> None:
    """Stop before anything is measured where earlier and larger results would be replaced."""
    for part, records in read_results(args.json).items():
        for key, known in records.items():
            if part not in args.parts or (part == "speed" and key not in [n + args.isa for n in args.networks]):
                continue
            is_long = part in ("curve", "scan")
            n_rounds = args.curve_rounds if part == "curve" else args.rounds
            lost = what_would_be_lost(known, max(args.curve) if is_long else args.images, n_rounds)
            if lost:
                raise SystemExit(f"{args.json} has {part} {key} with {lost}. --replace or another --json helps.")


# --- the command --------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; every path is absolute, because contenders run in a folder of their own."""
    parser = common.parser_for("extraction", __doc__)
    common.add_data(parser)
    add, positive = parser.add_argument, common.positive
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    add("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="of speed; default: both")
    add("--isa", choices=["AVX2"], help="of speed: what a processor with these instructions and no more would take")
    add("--images", type=positive, help="at most so many of each set, evenly spaced; default: all")
    add("--rounds", type=positive, default=5, help="every contender once a round (5)")
    add(
        "--curve",
        type=positive,
        nargs="+",
        default=[1000, 10_000, 60_000],
        help="numbers of images; scan: the most",
    )
    add("--curve-rounds", type=positive, default=1, help="rounds of the curve (1)")
    add("--splits", type=positive, default=5, help="seeds of the split of potato in storage (5)")
    add("--replace", action="store_true", help="also replace results of more images or rounds")
    args = common.read_arguments(parser, arguments)
    if args.isa:
        os.environ[ISA] = args.isa
    args.isa = f"@{args.isa}" if args.isa else ""
    if {"curve", "scan"} & set(args.parts) and max(args.curve) < 60 and not args.tables_only:
        parser.error("--curve needs at least 60 images: scan changes, removes and moves 46 of them")
    return args


def main(arguments: Sequence[str]) -> int:
    """Run what the options ask for and return the exit code."""
    args = parse_arguments(arguments)
    if not args.tables_only:
        if not args.replace:
            check_losses(args)
        with common.work_folder(args):
            for part in PARTS:
                if part in args.parts:
                    MEASURE[part](args, lambda key, record, part=part: save_record(args.json, part, key, record))
    text = tables(read_results(args.json))
    common.publish(args, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
