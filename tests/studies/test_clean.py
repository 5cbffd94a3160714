"""What ``audit --write`` writes has no leak left, keeps all else, and is what ``extract`` takes."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from made_data import as_json, photo, tlfeat, write_leaky
from tlfeat.cli.app import app
from tlfeat.studies.clean import _group_names


def read_lines(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return {line["path"]: line for line in csv.DictReader(opened)}


def audited_again(table: str, folder: Path, *words: str) -> Any:
    tlfeat("extract", table, "--backbone", "pixels", "-q", "--cache", "again.h5", cwd=folder)
    return as_json("audit", "--cache", "again.h5", *words, cwd=folder)


def across_sides(document: Any) -> list[Any]:
    return [group for group in document["groups"] if len({split == "test" for split in group["splits"]}) > 1]


def test_with_a_given_test_set_leaks_and_conflicts_are_left_out(tmp_path: Path) -> None:
    leaky = write_leaky(tmp_path / "leaky")
    for i in range(3):  # more copies of leaked images in the test set, and copies on one side
        shutil.copy(leaky / "test" / "a" / f"copy{i}.jpg", leaky / "test" / "a" / f"again{i}.jpg")
        Image.open(leaky / "test" / "b" / f"50{i}.png").save(leaky / "test" / "b" / f"other{i}.bmp")
        photo(20 + i).save(leaky / "train" / "a" / f"other{i}.jpg", quality=80)
    shutil.copy(leaky / "train" / "a" / "15.png", leaky / "train" / "b" / "conflict.png")
    photo(16).save(leaky / "test" / "b" / "conflict.jpg", quality=80)  # a leak and a conflict
    tlfeat("extract", "leaky", "--backbone", "pixels", "-q", cwd=tmp_path)
    run = tlfeat("audit", "--write", "lists/clean.csv", cwd=tmp_path)
    assert (
        "Table: lists/clean.csv (72 images; left out: 23 test images seen in training and 4 images of pictures under "
        "two labels; 6 groups of copies stay together)"
    ) in run.stderr
    assert "Next: tlfeat extract lists/clean.csv, with the same options" in run.stderr
    lines = read_lines(tmp_path / "lists" / "clean.csv")
    root = (tmp_path / "leaky").resolve()
    assert len(lines) == 72
    assert not {f"{root}/{path}" for path in ("train/a/16.png", "test/a/copy3.jpg", "test/a/again1.jpg")} & set(lines)
    groups = {Path(path).name: line["group"] for path, line in lines.items() if line["group"]}
    assert groups["501.png"] == groups["other1.bmp"] != groups["502.png"]
    assert len(groups) == 12
    document = audited_again("lists/clean.csv", tmp_path)
    assert document["n_images"] == 72
    assert (document["n_by_kind"]["leak"], document["n_by_kind"]["conflict"]) == (0, 0)
    assert len(document["groups"]) == 6
    assert across_sides(document) == []


def test_without_a_given_test_set_nothing_is_left_out_and_copies_stay_together(tmp_path: Path) -> None:
    for c, name in enumerate("ab"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            photo(1000 * c + i).save(tmp_path / "photos" / name / f"{i}.png")
            if i % 2:
                photo(1000 * c + i).save(tmp_path / "photos" / name / f"copy, {i}.jpg", quality=70)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", "--cache", "c.h5", cwd=tmp_path)
    before = as_json("audit", "--cache", "c.h5", "--seed", "4", "--write", "clean.csv", cwd=tmp_path)
    assert before["n_by_kind"]["leak"] > 0
    lines = read_lines(tmp_path / "clean.csv")
    assert len(lines) == 48
    assert {line["split"] for line in lines.values()} == {""}
    assert lines["photos/a/copy, 3.jpg"]["group"] == lines["photos/a/3.png"]["group"] != ""
    for seed in ("4", "5"):
        document = audited_again("clean.csv", tmp_path, "--seed", seed)
        assert (document["n_by_kind"]["leak"], len(document["groups"])) == (0, 16)
        assert across_sides(document) == []


def test_groups_of_the_user_and_of_copies_are_joined() -> None:
    numbers = [0, 1, 1, 2, 2, 0, 3, 4, 4, 5]
    given = ["x", "x", "", "y", "", "", "", "y", "z", ""]
    assert _group_names(numbers, given) == ["x", "x", "x", "y", "y", "", "", "y", "y", ""]
    assert _group_names([7, 7, 0, 9], ["", "", "copies-7", ""]) == ["_copies-7", "_copies-7", "copies-7", ""]


def test_without_pictures_there_is_no_table(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    lines = [f"{'xy'[i % 2]},text{i}" for i in range(24)]
    (tmp_path / "table.csv").write_text("\n".join(["label,path", *lines]) + "\n")
    tlfeat("cache", "import", "rows.npy", "table.csv", cwd=tmp_path)
    run = tlfeat("audit", "--write", "clean.csv", cwd=tmp_path, expect=3)
    assert "has no pictures, or they are gone" in run.stderr
    assert not (tmp_path / "clean.csv").exists()


@pytest.mark.parametrize("name", ["clean.xlsx", "clean"])
def test_a_table_is_a_csv_file(tmp_path: Path, name: str) -> None:
    run = tlfeat("audit", "--write", name, cwd=tmp_path, expect=2)
    assert f"a file that ends in .csv, received {name}" in run.stderr


def test_domains_stay_in_the_table_where_there_are_some(tmp_path: Path) -> None:
    for d, domain in enumerate(("north", "Süd")):
        for c, name in enumerate("ab"):
            (tmp_path / "photos" / domain / name).mkdir(parents=True)
            for i in range(4):
                photo(1000 * d + 100 * c + i).save(tmp_path / "photos" / domain / name / f"{i}.png")
    tlfeat("extract", "photos", "--domains", "--backbone", "pixels", "-q", "--cache", "c.h5", cwd=tmp_path)
    tlfeat("audit", "--cache", "c.h5", "--write", "clean.csv", cwd=tmp_path)
    lines = read_lines(tmp_path / "clean.csv")
    assert {line["domain"] for path, line in lines.items() if "/north/" in f"/{path}"} == {"north"}
    about = tlfeat("extract", "clean.csv", "--backbone", "pixels", "--cache", "again.h5", cwd=tmp_path).stderr
    assert "16 images, 2 classes, 2 domains (Süd, north) from" in about


@pytest.mark.parametrize("where", ["archive", "bucket"])
def test_the_table_of_images_that_are_no_files_is_extracted_again(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [(f"{name}/{i}.png", photo(100 * c + i)) for c, name in enumerate("ab") for i in range(6)]
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    with zipfile.ZipFile("p.zip", "w") as archive:
        for path, made in photos:
            made.save("one.png")
            archive.write("one.png", f"p/{path}")
            files.pipe(f"/p/{path}", Path("one.png").read_bytes())
    run("extract", "p.zip" if where == "archive" else "memory://p", "--backbone", "pixels", "--cache", "c.h5")
    run("audit", "--cache", "c.h5", "--write", "lists/clean.csv")
    start = f"{tmp_path}/p.zip/p/" if where == "archive" else "memory://p/"
    assert [path.removeprefix(start) for path in read_lines(Path("lists/clean.csv"))] == [path for path, _ in photos]
    said = run("extract", "lists/clean.csv", "--backbone", "pixels", "--cache", "c.h5")
    assert "12 images, 2 classes from" in said
    assert "0 embedded, 12 known already, 0 skipped" in said
    files.rm("/p", recursive=True)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output
