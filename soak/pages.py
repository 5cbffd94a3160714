"""The page that the campaigns of this folder write their tables to."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks" / "soak.md"


def add_places(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that say where figures and tables go."""
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json")
    help_text = "the page for the table; default: docs/benchmarks/soak.md, with another --json none"
    parser.add_argument("--markdown", type=Path, help=help_text)
    parser.add_argument("--tables-only", action="store_true", help="only write the tables from the JSON")
    parser.set_defaults(name=name)


def publish(options: argparse.Namespace, text: str) -> None:
    """Print tables, and write them between the markers of their page."""
    is_kept = options.json.resolve() == RESULTS / f"{options.name}.json"
    page = options.markdown or (PAGE if is_kept else None)
    if page:
        sys.path.append(str(ROOT / "benchmarks"))
        from common import write_between

        write_between(page, options.name, text)
    print(text)
