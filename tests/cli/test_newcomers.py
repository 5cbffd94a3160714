"""Folders, tables and options as people bring them: they get through, or are told at once what to do.

Everything runs with ``--backbone pixels``; that nothing was embedded yet when a line was said is seen in the order of
the lines, or in that there is no cache.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from made_results import a_result
from tlfeat.cache.store import open_cache
from tlfeat.cli.app import app
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.commands import commands

PIXELS = ("--backbone", "pixels")


def run(*words: object) -> Result:
    """Run a command with `sys.argv` as a terminal has it."""
    texts = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tlfeat", *texts])
        return CliRunner().invoke(app, texts)


def paint(*names: str, folder: str = "data") -> Path:
    """Write small pictures; those whose name has a "dog" in it are bright."""
    for name in names:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(name.encode())).integers(0, 100, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(120 * ("dog" in name))).save(path)
    return Path(folder)


def flat(*, n: int = 8) -> Path:
    return paint(*(f"{name}.{i}.png" for name in ("cat", "dog") for i in range(n)))


def ready(text: str, before: str) -> list[str]:
    """Return the words of the command in the line that begins with `before`."""
    (line,) = [line for line in text.splitlines() if before in line]
    return shlex.split(line.partition(before)[2].partition(" (nothing")[0])


# --- without labels -------------------------------------------------------------------------------------------


def test_a_flat_folder_is_told_before_anything_is_embedded_how_it_gets_labels() -> None:
    ran = run("extract", flat(), *PIXELS, "--cache", "c.h5")
    assert ran.exit_code == 0
    lines = ran.stderr.splitlines()
    warning = next(i for i, line in enumerate(lines) if line.startswith("warning: no image has a label"))
    into = next(i for i, line in enumerate(lines) if line.endswith("into c.h5"))
    assert warning < into
    assert "File names begin with cat (8), dog (8): add --label-from name" in lines[warning]
    assert "Next: tlfeat fit-sklearn" not in ran.stderr
    assert "Without labels: tlfeat audit --cache c.h5" in lines[-1]


def test_the_command_that_is_offered_gives_labels_and_embeds_nothing_again() -> None:
    offered = ready(run("extract", flat(), *PIXELS, "--cache", "c.h5").stderr, "For labels: tlfeat ")
    again = run(*offered)
    assert (again.exit_code, again.stdout.split(",")[0]) == (0, "0 embedded")
    assert "Next: tlfeat fit-sklearn --model svm --cache c.h5" in again.stderr
    fitted = run("fit-sklearn", "--cache", "c.h5", "--model", "knn", "--no-search")
    assert fitted.exit_code == 0, fitted.stderr
    assert "accuracy" in fitted.stdout


def test_audit_and_export_do_work_without_labels() -> None:
    run("extract", flat(), *PIXELS, "--cache", "c.h5")
    assert run("audit", "--cache", "c.h5").exit_code == 0
    assert run("cache", "export", "rows.csv", "--cache", "c.h5").exit_code == 0


def test_a_single_folder_above_the_classes_is_seen_through() -> None:
    data = paint(*(f"all/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))
    ran = run("extract", data, *PIXELS)
    assert "warning: the only label is 'all': without two classes nothing can be fitted" in ran.stderr
    assert "add --label-from parent. Embeddings are computed all the same" in ran.stderr
    assert run(*ready(ran.stderr, "For labels: tlfeat ")).exit_code == 0


def test_a_layer_that_is_not_the_usual_one_is_in_the_command_that_is_offered() -> None:
    ran = run("extract", flat(), *PIXELS, "--layer", "pixels", "--cache", "c.h5")
    assert ready(ran.stderr, "For labels: tlfeat ")[-4:] == ["--layer", "pixels", "--label-from", "name"]


@pytest.mark.parametrize("command", ["fit-keras", "sweep"])
def test_a_command_that_needs_classes_ends_before_it_embeds(command: str) -> None:
    words = [command, str(flat()), "--backbone", "mobilenet_v2_0.35", "--weights", "random", "--seed", "4"]
    if command == "sweep":
        plan_sweep_without_a_network()
    ran = run(*words)
    assert ran.exit_code == 3
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert "without two classes nothing can be fitted" in line
    assert line.endswith(f"Ready to run: tlfeat {shlex.join([*words, '--label-from', 'name'])}")
    assert not list(Path("cache").glob("*.h5"))


def plan_sweep_without_a_network() -> None:
    """Leave the cut points of a sweep where an earlier one would have written them, so that none is built."""
    from tlfeat import workspace
    from tlfeat.workspace import write_json

    encoder = plan_extraction(Path("data"), backbone="mobilenet_v2_0.35", weights="random", seed=4).encoder
    identity = workspace.digest({**encoder.fingerprint, "cut_points": 1})
    write_json(workspace.NETWORKS_DIR / f"{encoder.name}-{identity}-cuts.json", [])


# --- what is recorded, and comes back -------------------------------------------------------------------------


def test_how_labels_were_read_is_recorded_and_taken_up_again() -> None:
    rows = [f"{name}_{i};{name}" for name in ("cat", "dog", "cow") for i in range(3)]
    paint(*(f"pics/{row.partition(';')[0]}.png" for row in rows))
    Path("data/t.csv").write_text("\n".join(["id;kind", *rows]))
    named = ("--path-column", "id", "--label-column", "kind", "--classes", "cat,bovine", "--class-map", "cow=bovine")
    ran = run("extract", "data/t.csv", *PIXELS, *named, "--cache", "c.h5")
    assert (ran.exit_code, ran.stdout.partition(" ")[0]) == (0, "6")
    assert "warning: 3 images of other classes left out (--classes)" in ran.stderr
    with open_cache(Path("c.h5")) as cache:
        assert {name: cache.source.get(name) for name in ("path_column", "label_column", "classes", "class_map")} == {
            "path_column": "id",
            "label_column": "kind",
            "classes": ["cat", "bovine"],
            "class_map": ["cow=bovine"],
        }
    again = plan_extraction(cache=Path("c.h5"))
    assert again.images.classes == ["bovine", "cat"]
    assert again.images.paths[0] == "pics/cat_0.png"
    assert run("extract", "--cache", "c.h5").stdout.startswith("0 embedded, 6 known")


def test_domains_are_recorded_taken_up_again_and_in_the_command_of_a_page() -> None:
    paint(*(f"{domain}/{name}/{i}.png" for domain in ("Haus Süd", "x") for name in ("cat", "dog") for i in "123"))
    ran = run("extract", "data", "--domains", *PIXELS, "--cache", "c.h5")
    assert "12 images, 2 classes, 2 domains (Haus Süd, x) from" in ran.stderr
    assert plan_extraction(cache=Path("c.h5")).images.domains == ["Haus Süd"] * 6 + ["x"] * 6
    with open_cache(Path("c.h5")) as cache:
        assert cache.source["domains"] is True
        assert "--domains" in shlex.split(commands(cache, [a_result("knn")])[0])
    again = run("extract", "data", *PIXELS, "--cache", "c.h5")  # another way of reading the same files
    assert again.stdout.startswith("0 embedded, 12 known")
    with open_cache(Path("c.h5")) as cache:
        assert cache.table.images.domains == [""] * 12
        assert "--domains" not in shlex.split(commands(cache, [a_result("knn")])[0])


def test_another_column_of_domains_is_recorded_too() -> None:
    paint(*(f"pics/{i}.png" for i in range(6)))
    Path("data/t.csv").write_text(
        "path,label,camera\n" + "".join(f"pics/{i}.png,{'ab'[i % 2]},{i // 3}\n" for i in range(6))
    )
    run("extract", "data/t.csv", "--domain-column", "camera", *PIXELS, "--cache", "c.h5")
    assert plan_extraction(cache=Path("c.h5")).images.domains == ["0"] * 3 + ["1"] * 3
    with open_cache(Path("c.h5")) as cache:
        assert "--domain-column camera" in commands(cache, [a_result("knn")])[0]


def test_the_commands_of_a_page_repeat_how_labels_were_read() -> None:
    data = flat()
    named = ["--classes", 'dog,"ca,t"', "--label-from", r"([a-z]+)\.\d"]
    ran = run("extract", data, *PIXELS, "--class-map", "cat=ca,t", *named, "--cache", "c.h5")
    assert ran.exit_code == 0, ran.stderr
    with open_cache(Path("c.h5")) as cache:
        words = shlex.split(commands(cache, [a_result("knn")])[0])
    assert words[: words.index("--cache")] == [
        *("tlfeat", "extract", str(data.resolve()), *PIXELS, "--class-map", "cat=ca,t", *named)
    ]


def test_a_cache_without_these_options_is_taken_up_as_before() -> None:
    paint("cat/1.png", "dog/1.png")
    run("extract", "data", *PIXELS, "--cache", "c.h5")
    with open_cache(Path("c.h5")) as cache:
        assert set(cache.source) == {"encoder", "class_map", "root", "source"}
    assert plan_extraction(cache=Path("c.h5")).images.classes == ["cat", "dog"]


# --- tables and files -----------------------------------------------------------------------------------------


def test_a_table_none_of_whose_files_is_there_ends_before_a_network_is_built() -> None:
    Path("t.csv").write_text("path,label\na/1.png,cat\na/2.png,dog\n")
    ran = run("extract", "t.csv", "--backbone", "mobilenet_v2_0.35", "--weights", "random")
    assert ran.exit_code == 3
    assert "t.csv: none of its 2 files is there; the first is 'a/1.png'" in ran.stderr
    assert "building" not in ran.stderr


def test_files_that_are_left_out_are_named_by_kind() -> None:
    data = paint("cat/1.png", "dog/1.png")
    for name in ("cat/a.txt", "cat/b.txt", "dog/c.pdf"):
        (data / name).touch()
    ran = run("extract", data, *PIXELS)
    assert f"2 images, 2 classes from {data.resolve()} (left out: 2 .txt, 1 .pdf)" in ran.stderr


def test_classes_that_differ_between_splits_end_in_a_command_to_paste() -> None:
    paint(*(f"train/{name}_left_T2/{i}.png" for name in ("cat", "dog") for i in range(3)))
    paint(*(f"test/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)))
    ran = run("extract", "data", *PIXELS, "--cache", "my file.h5")
    assert ran.exit_code == 3
    words = shlex.split(ran.stderr.partition("Ready to run: tlfeat ")[2])
    assert words == ["extract", "data", *PIXELS, "--cache", "my file.h5", "--class-map", r"(.*?)_.*=\1"]
    again = run(*words)
    assert again.exit_code == 0, again.stderr
    assert "12 images, 2 classes" in again.stderr


@pytest.mark.parametrize(
    "how", [("--recipe", "mobilenetv2-binary"), ("--loss", "binary_crossentropy")], ids=["recipe", "loss"]
)
def test_a_network_for_two_classes_is_refused_for_three_before_images_are_embedded(how: tuple[str, str]) -> None:
    data = paint(*(f"{name}/{i}.png" for name in ("cat", "dog", "cow") for i in range(3)))
    ran = run("fit-keras", data, *how, "--backbone", "mobilenet_v2_0.35", "--weights", "random")
    assert ran.exit_code == 3
    assert "binary_crossentropy tells two classes apart; here are 3. Take two of them with --classes A,B" in ran.stderr
    assert "building" not in ran.stderr
    assert not list(Path("cache").glob("*.h5"))
