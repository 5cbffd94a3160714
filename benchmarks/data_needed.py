"""Which layer, and how many labels: `tlfeat sweep` and `tlfeat curve` on the shared data sets, as JSON and tables.

Needs the data and weights of ``TLFEAT_SHARED`` (default ``../shared``). What is finished is kept below ``--work``
and in the JSON after each stage, so that a run that was stopped goes on, and one with networks adds to one without.

    python benchmarks/data_needed.py                                        # sweeps, and curves of heads: 5 minutes
    python benchmarks/data_needed.py --sets cats_dogs --keras "frozen=10,50,all;scratch=all"        # and networks: 20
    python benchmarks/data_needed.py --tables-only                          # Markdown from the JSON, runs nothing
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

import common
from common import Record
from tlfeat.cli.console import Progress
from tlfeat.evaluate.data import open_data
from tlfeat.report import finding as figures
from tlfeat.report.curve import curve_finding
from tlfeat.report.sweep import sweep_finding
from tlfeat.studies import curve, sweep
from tlfeat.text import markdown_table, percent
from tlfeat.workspace import read_json, write_json

SETS = ("cats_dogs", "potato", "sign_digits")
HEADS = ("logreg", "knn")
N_DRAWS = 5
SEED = 0


def run_set(name: str, args: argparse.Namespace, record: Record) -> None:
    """Sweep, then the curves of heads, then those of networks, saving after each."""
    data = args.data / name if args.data else common.unpack(name, args.shared, args.work)
    place = args.work / "runs" / name
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(place), Progress() as progress:
        with common.stage(f"{name}: extraction of all layers"):
            job = sweep.plan_sweep(data, **common.backbone_options("v2", args.shared))
            report = job.extraction.run(on_progress=progress)
        if report.n_embedded:
            record["extraction"] = {"n_images": report.n_embedded, "elapsed_s": report.profile.wall_s}
        with open_data(report.cache, seed=SEED) as opened:
            with common.stage(f"{name}: sweep"):
                found = sweep.sweep_layers(opened, job.cuts, on_progress=progress)
            save(args.json, name, record | {"sweep": kept(sweep_finding(found))})
            record |= {"sweep": kept(sweep_finding(found))}
            with common.stage(f"{name}: curves of heads"):
                curves = curve.learning_curve(opened, heads=HEADS, n_draws=N_DRAWS, on_progress=progress)
            for mode, counts in args.keras.items():
                with common.stage(f"{name}: curve of keras-{mode} at {counts} images a class"):
                    networks = curve.learning_curve(
                        opened,
                        heads=(),
                        has_pixels=False,
                        keras_modes=[mode],
                        counts=curve.parse_counts(counts),
                        n_keras_draws=args.keras_draws,
                        on_progress=progress,
                    )
                curves = replace(curves, n_keras_draws=args.keras_draws, lines=curves.lines | networks.lines)
                save(args.json, name, record | {"curve": kept(curve_finding(curves))})
        save(args.json, name, record | {"curve": kept(curve_finding(curves))})
        figures.write_finding(curve_finding(curves), Path("report"))
        figures.write_finding(sweep_finding(found), Path("report"))


def kept(finding: figures.Finding) -> Record:
    """Return what the JSON keeps of a finding: no confusion matrices, no folders of this machine."""
    dropped = {"confusion", "classes", "path", "notes", "chosen", "model_bytes", "extract_s", "decode_s"}
    document = figures.document(finding)
    document.pop("cache")
    document.pop("title")
    lines = [{k: v for k, v in line.items() if k not in dropped} for line in document.pop("lines")]
    table = {"headings": list(finding.headings), "rows": [list(row) for row in finding.rows]}
    return {**document, "lines": lines, "table": table}


def save(path: Path, name: str, record: Record) -> None:
    """Take the record of one set into the JSON."""
    sets = read_json(path)["sets"] if path.exists() else {}
    sets[name] = record
    write_json(path, {"format_version": 1, "sets": {known: sets[known] for known in SETS if known in sets}})


def new_record() -> Record:
    """Return the conditions of a run."""
    return {
        **common.conditions(),
        "load_average_at_start": common.load_average(),
        "backbone": "MobileNetV2 0.35, ImageNet weights, 224x224",
        "n_draws": N_DRAWS,
        "seed": SEED,
    }


def sweep_table(sets: dict[str, Record]) -> str:
    """Return one table of all sets: a layer a row, the chosen one in bold."""
    found = {name: record["sweep"] for name, record in sets.items() if "sweep" in record}
    headings = ["layer", "columns", "layers reused", "compute"]
    headings += [f"{name}: {what}" for name in found for what in ("held out", "test")]
    rows = []
    for i, line in enumerate(next(iter(found.values()))["lines"]):
        row = [line["layer"], f"{line['width']:,}", f"{line['n_reused']} of {line['n_weight_layers']}"]
        row.append(f"{100 * line['compute_share']:.0f} %")
        for sweep_of_set in found.values():
            own = sweep_of_set["lines"][i]
            is_chosen = own["layer"] == sweep_of_set["chosen"]
            row += [f"**{percent(own['held_out_accuracy'])}**" if is_chosen else percent(own["held_out_accuracy"])]
            row += [percent(own["accuracy"])]
        rows.append(row)
    return markdown_table(headings, rows)


def curve_tables(sets: dict[str, Record]) -> str:
    """Return the sentences and the table of each set."""
    found = {name: record["curve"] for name, record in sets.items() if "curve" in record}
    parts = []
    for name, own in found.items():
        table = markdown_table(own["table"]["headings"], own["table"]["rows"])
        parts += [f"**{name}**: {' '.join(own['sentences'])}", table]
    return "\n\n".join(parts)


def tables(sets: dict[str, Record]) -> str:
    """Return both parts of docs/benchmarks/data_needed.md."""
    return f"## Which layer\n\n{sweep_table(sets)}\n\n## How many labels\n\n{curve_tables(sets)}"


def parse_modes(text: str) -> dict[str, str]:
    """Return the images a class for each network of ``frozen=10,50,all;scratch=all``."""
    return {mode: counts for mode, _, counts in (part.partition("=") for part in text.split(";"))}


def main() -> None:
    """Run what is asked for."""
    parser = common.parser_for("data_needed", __doc__)
    common.add_data(parser, work=Path.home() / ".cache" / "tlfeat-benchmarks" / "data_needed")
    parser.add_argument("--sets", default=",".join(SETS), type=lambda text: text.split(","))
    parser.add_argument("--keras", default={}, type=parse_modes, metavar="MODE=COUNTS;...", help="networks to train")
    parser.add_argument("--keras-draws", default=1, type=int, help="draws for networks")
    parser.add_argument("--data", type=Path, help="folder with the sets unpacked")
    args = common.read_arguments(parser)
    if not args.tables_only:
        for name in args.sets:
            known = read_json(args.json)["sets"].get(name, {}) if args.json.exists() else {}
            run_set(name, args, {**new_record(), **{k: known[k] for k in ("extraction",) if k in known}})
    common.publish(args, tables(read_json(args.json)["sets"]))


if __name__ == "__main__":
    main()
