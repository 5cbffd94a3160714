"""What does training the last two blocks of a vision transformer cost, from the cut and from pixels?

Weights are random, so accuracy means nothing here; time and agreement do. Whole commands, `tlfeat fit-keras`, in turn.

    python benchmarks/encoder_finetune.py PHOTOGRAPHS   # a folder of class folders, such as cats_dogs
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_A_CLASS, SIDE, EPOCHS, ROUNDS = 60, 112, 5, 2

NETWORKS = ("deit_tiny", "dinov2_small")


def run(folder: Path, *words: str) -> tuple[float, float, str]:
    """Run a command in a folder; return its wall time and processor time in seconds, and what it printed."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tlfeat", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu, done.stdout


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    given = parser.parse_args()
    print("| network | trained | wall, 5 epochs | processor | test images right |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for label in sorted(path for path in given.photographs.iterdir() if path.is_dir()):
            (folder / "photos" / label.name).mkdir(parents=True)
            for file in sorted(label.rglob("*.jpg"))[:N_A_CLASS]:
                shutil.copy(file, folder / "photos" / label.name)
        for network in NETWORKS:
            size = f"{SIDE}x{SIDE}"
            run(folder, "extract", "photos", "--backbone", network, "--weights", "random", "--input-size", size)
            spent: dict[str, list[tuple[float, float, float]]] = {"float32": [], "off": []}
            for seed in range(ROUNDS):
                for cut, found in spent.items():
                    words = ["--unfreeze-last", "2", "--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--cut", cut]
                    wall, cpu, out = run(folder, "fit-keras", *words, "--seed", str(seed), "--fresh", "--json")
                    found.append((wall, cpu, json.loads(out)["accuracy"]))
                    shutil.rmtree(folder / "cache" / "cuts", ignore_errors=True)
            for cut, found in spent.items():
                walls, cpus, right = zip(*found, strict=True)
                how = "every epoch from pixels" if cut == "off" else "from the cut, computed once (included)"
                told = ", ".join(f"{100 * each:.1f} %" for each in right)
                print(f"| {network} | {how} | {_middle(walls)} | {_middle(cpus)} | {told} |", flush=True)


def _middle(values: tuple[float, ...]) -> str:
    found = sorted(values)
    return f"{found[len(found) // 2]:.0f} s ({found[0]:.0f} to {found[-1]:.0f})"


if __name__ == "__main__":
    main()
