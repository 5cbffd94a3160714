"""The tables of `extraction.py`, from what its contenders measured, beside what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from common import Record, distinct, versions_of
from tlfeat.text import markdown_table

NETWORKS = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50"}
TITLES = {
    "naive": "Keras script: image_dataset_from_directory, predict",
    "naive_onednn": "the same, TF_ENABLE_ONEDNN_OPTS=1",
    "tfdata": "tf.data and a frozen graph, oneDNN on",
    "tlfeat": "tlfeat",
    "memory": "its runtime fed from memory",
    "bound": "bound: decode and encode in a thread a core, nothing else",
}

VARIANTS = {
    "float32": {"dtype": "float32", "is_compressed": False},
    "float16": {"dtype": "float16", "is_compressed": False},
    "float32 compressed": {"dtype": "float32", "is_compressed": True},
    "float16 compressed": {"dtype": "float16", "is_compressed": True},
}
MEMORY_IMAGES = 2_000  # what the peak memory of the longest run is compared with


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio of two figures of the same round, and what it should be for each network; {} for no aim."""

    text: str
    above: tuple[str, str]  # contender, field
    below: tuple[str, str]
    limits: dict[str, float]
    is_at_least: bool = True


AIMS = (
    Aim(
        "images/s, tlfeat over the bound as measured",
        ("tlfeat", "images_per_s"),
        ("bound", "images_per_s"),
        dict.fromkeys(NETWORKS, 0.90),
    ),
    Aim(
        "images/s, tlfeat over cores / (decode + inference in one thread)",
        ("tlfeat", "images_per_s"),
        ("bound", "computed_images_per_s"),
        dict.fromkeys(NETWORKS, 0.90),
    ),
    Aim(  # processor time against processor time: says the same as the line above where other work shares the cores
        "CPU per image, decode + inference in one thread over tlfeat",
        ("bound", "one_thread_ms"),
        ("tlfeat", "cpu_ms_per_image"),
        {},
    ),
    Aim("images/s, tlfeat over fed from memory", ("tlfeat", "images_per_s"), ("memory", "images_per_s"), {}),
    Aim("images/s, tlfeat over Keras script", ("tlfeat", "images_per_s"), ("naive", "images_per_s"), {}),
    Aim("images/s, tlfeat over tf.data", ("tlfeat", "images_per_s"), ("tfdata", "images_per_s"), {}),
    Aim(
        "CPU per image, Keras script over tlfeat",
        ("naive", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {"mobilenet_v2": 3.3, "resnet50": 1.9},
    ),
    Aim(
        "CPU per image, Keras script with oneDNN over tlfeat",
        ("naive_onednn", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {},
    ),
    Aim(
        "CPU per image, tf.data over tlfeat",
        ("tfdata", "cpu_ms_per_image"),
        ("tlfeat", "cpu_ms_per_image"),
        {"mobilenet_v2": 1.8, "resnet50": 1.2},
    ),
    Aim(
        "peak memory, tlfeat over Keras script",
        ("tlfeat", "peak_bytes"),
        ("naive", "peak_bytes"),
        dict.fromkeys(NETWORKS, 0.3),
        is_at_least=False,
    ),
)
LAYERS_AIMS = (
    Aim("CPU per image, four over one", ("four", "cpu_ms_per_image"), ("one", "cpu_ms_per_image"), {"": 1.1}, False),
    Aim("wall seconds, four over one", ("four", "steady_s"), ("one", "steady_s"), {"": 1.1}, False),
)
MEMORY_AIM = 1.10
SCAN_AIM_S, SCAN_IMAGES = 3.0, 60_000
STRAIGHT = 0.10  # seconds per image of the slowest run over those of the fastest, less 1


def ratios(runs: Sequence[Record], above: tuple[str, str], below: tuple[str, str]) -> list[float]:
    """Return one field of a contender over one of another, for each round that has both."""
    by_round = {(run["round"], run["name"]): run for run in runs}
    rounds = sorted({run["round"] for run in runs})
    pairs = [(by_round.get((n, above[0])), by_round.get((n, below[0]))) for n in rounds]
    return [one[above[1]] / other[below[1]] for one, other in pairs if one is not None and other is not None]


def summarise(runs: Sequence[Record], aims: Sequence[Aim], network: str = "") -> list[Record]:
    """Return for each aim the median of its ratios, their range, the limit and whether it is met (None: no aim)."""
    found = []
    for aim in aims:
        values = ratios(runs, aim.above, aim.below)
        if not values:
            continue
        limit, median = aim.limits.get(network), statistics.median(values)
        found.append(
            {
                "text": aim.text,
                "median": median,
                "low": min(values),
                "high": max(values),
                "limit": limit,
                "is_at_least": aim.is_at_least,
                "is_met": None if limit is None else median >= limit if aim.is_at_least else median <= limit,
            }
        )
    return found


def verdict(is_met: bool | None) -> str:
    """Return the word of the tables."""
    return "–" if is_met is None else "met" if is_met else "**not met**"


def aims_table(summary: Sequence[Record]) -> str:
    """Return the ratios beside the aims."""
    rows = [
        (
            line["text"],
            f"{line['median']:.2f} ({line['low']:.2f} to {line['high']:.2f})",
            "–" if line["limit"] is None else f"{'≥' if line['is_at_least'] else '≤'} {line['limit']:.2f}",
            verdict(line["is_met"]),
        )
        for line in summary
    ]
    return markdown_table(("ratio within a round", "median (range)", "aim", ""), rows)


def spread(runs: Sequence[Record], name: str, field: str, form: str, scale: float = 1.0) -> str:
    """Return median and range of one field of one contender, "–" where it was not measured."""
    values = [scale * run[field] for run in runs if run["name"] == name]
    if not values:
        return "–"
    low, high = format(min(values), form), format(max(values), form)
    median = format(statistics.median(values), form)
    return median if low == high else f"{median} ({low} to {high})"


def runs_table(runs: Sequence[Record], titles: dict[str, str]) -> str:
    """Return what every contender took, one a line."""
    columns = (
        ("images/s", "images_per_s", ".1f", 1.0),
        ("CPU ms/image", "cpu_ms_per_image", ".1f", 1.0),
        ("start-up s", "startup_s", ".1f", 1.0),
        ("peak memory MB", "peak_bytes", ".0f", 1e-6),
    )
    rows = [
        (title, *(spread(runs, name, field, form, scale) for _, field, form, scale in columns))
        for name, title in titles.items()
        if any(run["name"] == name for run in runs)
    ]
    return markdown_table(("contender", *(heading for heading, *_ in columns)), rows)


def conditions(record: Record) -> str:
    """Return how one record was measured, on a line."""
    loads = [run["load_average_before"] for run in record["runs"] if "load_average_before" in run]
    load = f" Load average (1 minute) before a run: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    state = "" if record["is_complete"] else " **Stopped before its end.**"
    images, rounds, date = f"{record['n_images']:,}", record["n_rounds"], record["date"]
    return f"Images: {images}; rounds: {rounds}; {date}; `{record['command']}`.{load}{state}"


def machines(results: dict[str, dict[str, Record]]) -> str:
    """Return processors and versions of all records, each that differs on a line."""
    records = [record for part in results.values() for record in part.values()]
    return "\n".join(
        distinct(
            f"- {record['cpu']}, {record['environment']['n_cpus']} cores, no GPU used; "
            f"{versions_of(record['environment'], {'openvino': record['openvino']})}."
            for record in records
        )
    )


def speed_tables(records: dict[str, Record]) -> str:
    """Return the contenders, the ratios and the check of rows for each network."""
    parts = [
        "Median (range) over rounds. images/s and CPU: from the first image to the last row. Start-up: from the start "
        "of the process to the first image, the network loaded and run once; in it the last two contenders decode "
        "everything, or measure one thread.",
    ]
    order = list(NETWORKS)
    summaries: dict[str, list[Record]] = {}
    for key in sorted(records, key=lambda key: ("@" in key, order.index(key.partition("@")[0]))):
        record = records[key]
        network, _, isa = key.partition("@")
        runs = record["runs"]
        title = NETWORKS[network] + (f" with {isa} alone" if isa else "")
        parts += [f"### {title}", conditions(record), runs_table(runs, TITLES)]
        parts.append(
            f"One thread: {spread(runs, 'bound', 'decode_ms', '.2f')} ms to read and decode, "
            f"{spread(runs, 'bound', 'inference_ms', '.2f')} ms of inference (CPU per image); all cores at that: "
            f"{spread(runs, 'bound', 'computed_images_per_s', '.1f')} images/s."
        )
        parts.append(check_text(record.get("check", {})))
        summaries[title] = summarise(runs, AIMS, network)
    return "\n\n".join([*(part for part in parts if part), "### Ratios", ratios_table(summaries)])


def ratios_table(summaries: dict[str, list[Record]]) -> str:
    """Return the ratios of all networks side by side: median, range over rounds, and the aim where there is one."""

    def cell(line: Record | None) -> str:
        if line is None:
            return "–"
        text = f"{line['median']:.2f} ({line['low']:.2f} to {line['high']:.2f})"
        if line["limit"] is None:
            return text
        return f"{text}; {'≥' if line['is_at_least'] else '≤'} {line['limit']:.2f} {verdict(line['is_met'])}"

    found = {(title, line["text"]): line for title, lines in summaries.items() for line in lines}
    rows = [(aim.text, *(cell(found.get((title, aim.text))) for title in summaries)) for aim in AIMS]
    return markdown_table(("ratio within a round: median (range); aim", *summaries), rows)


def check_text(checks: dict[str, Record]) -> str:
    """Return how near the rows of the scripts are to those of tlfeat where it resizes as they do."""
    if not checks:
        return ""
    scripts = [check for name, check in checks.items() if name != "accurate"]
    accurate = checks.get("accurate")
    nearest = min(check["share_nearest_to_itself"] for check in checks.values())
    return (
        "Largest difference of a script's rows from those of tlfeat with resize=dataset, over the largest value: "
        f"{max(check['largest_difference'] for check in scripts):.1e}"
        + (f"; {accurate['largest_difference']:.1e} with dct_method=INTEGER_ACCURATE" if accurate else "")
        + f". For {100 * nearest:.0f} % of {scripts[0]['n_images']} images the nearest row is that of the same image."
    )


def layers_tables(records: dict[str, Record]) -> str:
    """Return one layer against four."""
    record = records[""]
    titles = {name: f"{name}: {', '.join(layers)}" for name, layers in record["layers"].items()}
    summary = summarise(record["runs"], LAYERS_AIMS)
    return "\n\n".join([conditions(record), runs_table(record["runs"], titles), aims_table(summary)])


def curve_summary(runs: Sequence[Record]) -> Record:
    """Return how straight the line is, and how the peak memory of the longest run compares."""
    sizes = sorted({int(run["name"]) for run in runs})

    def median(n: int, field: str) -> float:
        return statistics.median(run[field] for run in runs if run["name"] == str(n))

    wall = [median(n, "steady_s") / n for n in sizes]
    cpu = [median(n, "cpu_ms_per_image") for n in sizes]
    base = MEMORY_IMAGES if MEMORY_IMAGES in sizes else sizes[0]
    memory = median(sizes[-1], "peak_bytes") / median(base, "peak_bytes")
    return {
        "wall_deviation": max(wall) / min(wall) - 1,
        "cpu_deviation": max(cpu) / min(cpu) - 1,
        "memory_base": base,
        "memory_ratio": memory,
        "is_straight": max(wall) / min(wall) - 1 <= STRAIGHT,
        "is_memory_flat": memory <= MEMORY_AIM,
    }


def curve_tables(records: dict[str, Record]) -> str:
    """Return seconds, rate and memory against the number of images."""
    record = records[""]
    runs = record["runs"]
    sizes = sorted({int(run["name"]) for run in runs})
    rows = [
        (
            f"{n:,}",
            spread(runs, str(n), "steady_s", ".1f"),
            spread(runs, str(n), "images_per_s", ".1f"),
            spread(runs, str(n), "cpu_ms_per_image", ".2f"),
            spread(runs, str(n), "peak_bytes", ".0f", 1e-6),
        )
        for n in sizes
    ]
    found = curve_summary(runs)
    return "\n\n".join(
        [
            conditions(record),
            markdown_table(("images", "seconds", "images/s", "CPU ms/image", "peak memory MB"), rows),
            f"- Straight line: seconds per image are the same within {100 * found['wall_deviation']:.0f} % (aim: "
            f"{100 * STRAIGHT:.0f} %), {verdict(found['is_straight'])}; CPU per image within "
            f"{100 * found['cpu_deviation']:.0f} %.\n"
            f"- Peak memory for {sizes[-1]:,} over that for {found['memory_base']:,}: {found['memory_ratio']:.2f} "
            f"(aim: ≤ {MEMORY_AIM:.2f}), {verdict(found['is_memory_flat'])}.",
        ]
    )


def scan_tables(records: dict[str, Record]) -> str:
    """Return what a run costs where nothing or little changed."""
    record = records[""]
    runs = record["runs"]
    titles = {
        "unchanged": "nothing changed",
        "changed": "1 changed, 10 added, 5 removed, 40 moved",
        "and again": "the same once more",
    }
    rows = [
        (
            title,
            spread(runs, name, "cpu_s", ".2f"),
            spread(runs, name, "wall_s", ".2f"),
            spread(runs, name, "peak_bytes", ".0f", 1e-6),
            spread(runs, name, "n_embedded", ".0f"),
        )
        for name, title in titles.items()
    ]
    median = statistics.median(run["cpu_s"] for run in runs if run["name"] == "unchanged")
    is_met = median <= SCAN_AIM_S if record["n_images"] >= SCAN_IMAGES else None
    n_embedded = next(run["n_embedded"] for run in runs if run["name"] == "changed")
    headings = ("tlfeat extract", "CPU s, process", "wall s, process", "peak memory MB", "forward passes")
    return "\n\n".join(
        [
            f"{conditions(record)} Backbone: {record['backbone']}.",
            markdown_table(headings, rows),
            f"- {record['n_images']:,} unchanged images: {median:.2f} s of processor time (aim: ≤ {SCAN_AIM_S:.0f} s "
            f"for {SCAN_IMAGES:,}), {verdict(is_met)}.\n"
            f"- Forward passes after the changes: {n_embedded} (aim: {record['n_expected']}), "
            f"{verdict(n_embedded == record['n_expected'])}.",
        ]
    )


def storage_tables(records: dict[str, Record]) -> str:
    """Return size, times and accuracy of every kind of file for each set."""
    parts = ["Reading is all rows at once, from the page cache; accuracies are those of logreg on the test images."]
    for name, record in records.items():
        runs = record["runs"]
        first = next(iter(VARIANTS))
        sizes = {
            variant: statistics.median(run["file_bytes"] for run in runs if run["name"] == variant)
            for variant in VARIANTS
        }
        rows = [
            (
                variant,
                f"{sizes[variant] / 1e6:.2f} MB",
                f"{sizes[variant] / sizes[first]:.2f}",
                spread(runs, variant, "steady_s", ".1f"),
                spread(runs, variant, "read_s", ".1f", 1e3),
                accuracy_text(record["accuracies"][variant]),
            )
            for variant in VARIANTS
        ]
        headings = ("rows", "file", f"over {first}", "extract s", "read ms", "accuracy")
        parts += [f"### {name}", conditions(record), markdown_table(headings, rows)]
    return "\n\n".join(parts)


def accuracy_text(accuracies: Sequence[float]) -> str:
    """Return one accuracy, or mean and standard deviation over the splits."""
    text = f"{100 * statistics.mean(accuracies):.2f}"
    return f"{text} %" if len(accuracies) < 2 else f"{text} ± {100 * statistics.stdev(accuracies):.2f} %"


TABLES = {
    "speed": ("Speed", speed_tables),
    "layers": ("Several layers in one pass", layers_tables),
    "curve": ("More and more images", curve_tables),
    "scan": ("Nothing twice", scan_tables),
    "storage": ("float16 and compression", storage_tables),
}


def tables(results: dict[str, dict[str, Record]]) -> str:
    """Return the tables of every part that was measured."""
    parts = [f"## {title}\n\n{show(results[part])}" for part, (title, show) in TABLES.items() if part in results]
    return "\n\n".join([machines(results), *parts]) if parts else "Nothing was measured yet."
