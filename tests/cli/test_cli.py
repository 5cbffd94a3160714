"""The commands: the three bare forms, --json everywhere, what is said where, exit codes of usage errors."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos
from made_data import as_json, tlfeat, tlfeat_process


@pytest.fixture
def work(make_photos: MakePhotos, tmp_path: Path) -> Path:
    """A working folder with photos of two classes, embedded as pixels."""
    make_photos(n=12)
    tlfeat("extract", "photos", "--backbone", "pixels", "-q", cwd=tmp_path)
    return tmp_path


#: Run by every Python that finds it: whoever asks for another host is written down, and turned away.
ALONE = """
import os, socket, traceback

def refused(*args, **kwargs):
    with open(os.environ["ASKED"], "a") as file:
        traceback.print_stack(file=file)
    raise OSError("no other host in this test")

socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refused
connect = socket.socket.connect
socket.socket.connect = lambda self, to: connect(self, to) if self.family == socket.AF_UNIX else refused()
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where processes of this test write down whom they would have asked; with a home folder of their own."""
    for folder in ("alone", "home"):
        (tmp_path / folder).mkdir()
    (tmp_path / "alone" / "sitecustomize.py").write_text(ALONE)
    paths = [str(tmp_path / "alone"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # there OpenVINO posts nothing anyway
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "asked"


def test_the_guard_of_the_network_notices_who_asks(asked: Path) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1
    assert "urlopen" in asked.read_text()


@pytest.mark.keras
def test_the_three_bare_commands_work_in_order_on_the_built_in_example_and_ask_no_other_host(
    tmp_path: Path, asked: Path
) -> None:
    first = tlfeat_process("extract", "--layer", "avg_pool", cwd=tmp_path)
    assert "digits_cnn at avg_pool into cache/" in first.stderr
    assert "Next: tlfeat fit-sklearn --model svm" in first.stderr
    second = tlfeat_process("fit-sklearn", "--model", "svm", cwd=tmp_path)
    assert "accuracy" in second.stdout and "Next: tlfeat compare" in second.stderr
    third = tlfeat_process("compare", "--epochs", "1", cwd=tmp_path)
    assert not asked.exists(), asked.read_text()
    assert not (tmp_path / "home" / "intel").exists(), "an identity for its maker"
    for name in ("logreg", "svm", "knn", "pixels+logreg", "keras-frozen", "keras-finetuned", "keras-scratch"):
        assert name in third.stdout
    assert "Reused from earlier commands: svm" in third.stderr
    again = tlfeat("extract", "--layer", "avg_pool", cwd=tmp_path)
    assert "0 embedded, " in again.stdout


def test_json_of_fit_sklearn_has_what_scripts_want(work: Path) -> None:
    result = as_json("fit-sklearn", "--model", "ridge", cwd=work)
    wanted = {"model", "layer", "accuracy", "balanced_accuracy", "macro_f1", "ci95"}
    assert wanted | {"n_train", "n_test", "fit_s", "predict_s_per_image"} <= set(result)
    assert (result["model"], result["layer"]) == ("ridge", "pixels")
    assert 0 <= result["ci95"][0] <= result["accuracy"] <= result["ci95"][1] <= 1
    assert result["n_train"] + result["n_val"] + result["n_test"] == 24


def test_json_of_every_command_is_one_document(work: Path) -> None:
    assert as_json("extract", "photos", "--backbone", "pixels", cwd=work)["n_known"] == 24
    records = as_json("compare", "--keras", "none", "--heads", "lda,knn", cwd=work)
    assert {"model", "accuracy", "p_value_vs_best", "is_within_noise_of_best"} <= set(records[0])
    assert [r["accuracy"] for r in records] == sorted((r["accuracy"] for r in records), reverse=True)
    assert as_json("cache", "info", cwd=work)["images"]["status"] == {"ok": 24}
    assert as_json("cache", "verify", cwd=work)["problems"] == []
    assert as_json("cache", "export", "out.npz", cwd=work)["n_rows"] == 24
    model = records[0]["path"]
    predictions = as_json("predict", model, "photos/cat/0.png", "photos/dog/0.png", "--top", "2", cwd=work)
    assert [[label for label, _ in p["top"]] for p in predictions] == [["cat", "dog"], ["dog", "cat"]]
    assert [p["label"] for p in predictions] == ["cat", "dog"]
    assert all(p["probability"] == p["top"][0][1] > p["top"][1][1] for p in predictions)
    assert len(as_json("backbones", cwd=work)) > 50


def test_compare_reuses_equal_results_and_fits_others_again(work: Path) -> None:
    words = ("compare", "--keras", "none", "--heads", "knn")
    assert [r["is_reused"] for r in as_json(*words, cwd=work)] == [False] * 2
    assert [r["is_reused"] for r in as_json(*words, cwd=work)] == [True] * 2
    assert [r["is_reused"] for r in as_json(*words, "--seed", "1", cwd=work)] == [False] * 2
    assert [r["is_reused"] for r in as_json(*words, "--fresh", cwd=work)] == [False] * 2
    for i in range(6):  # other images: another split
        (work / "photos" / "cat" / f"{i}.png").unlink()
    tlfeat("extract", "photos", "--backbone", "pixels", cwd=work)
    assert [r["is_reused"] for r in as_json(*words, cwd=work)] == [False] * 2


def test_reports_are_written_in_four_forms(work: Path) -> None:
    tlfeat("compare", "--keras", "none", "--heads", "logreg", "--output", "rep", cwd=work)
    page = (work / "rep" / "comparison.html").read_text()
    assert (
        "<svg" in page
        and "https://" not in page
        and set(re.findall(r"http://[^\"']+", page)) == {"http://www.w3.org/2000/svg"}
    )
    assert "| pixels+logreg |" in (work / "rep" / "comparison.md").read_text()
    lines = list(csv.DictReader(io.StringIO((work / "rep" / "comparison.csv").read_text())))
    assert {line["model"] for line in lines} == {"logreg", "pixels+logreg"}
    assert len(json.loads((work / "rep" / "comparison.json").read_text())) == 2


def test_the_page_is_made_again_from_what_was_fitted(work: Path) -> None:
    run = tlfeat("report", cwd=work, expect=3)
    assert "tlfeat compare" in run.stderr and run.stderr.count("\n") == 1
    compared = as_json(
        "compare", "--keras", "none", "--heads", "logreg", "--map", "none", "--html", "a/b.html", cwd=work
    )
    assert "Map of the embeddings" not in (work / "a" / "b.html").read_text()
    assert not list(work.glob("cache/reports/*/comparison.html"))
    tlfeat("fit-sklearn", "--model", "knn", cwd=work)
    reported = as_json("report", "--map", "pca", "--plots", "plots", cwd=work)
    assert [r["is_reused"] for r in reported] == [True] * 3
    assert {r["path"] for r in reported} > {r["path"] for r in compared}
    (page,) = work.glob("cache/reports/*/comparison.html")
    assert "Map of the embeddings" in page.read_text()
    names = {path.name for path in (work / "plots").iterdir()}
    assert {"accuracy-seconds.svg", "map-pca.png", "confusion-pixels+logreg.svg"} <= names
    assert "--seed" in tlfeat("report", "--seed", "1", cwd=work, expect=3).stderr


def test_results_go_to_stdout_and_remarks_to_stderr_and_quiet_is_quiet(work: Path) -> None:
    run = tlfeat("fit-sklearn", "--model", "knn", cwd=work)
    assert "accuracy" in run.stdout and "Next:" not in run.stdout and "Next:" in run.stderr
    assert tlfeat("fit-sklearn", "--model", "knn", "-q", cwd=work).stderr == ""


def test_the_newest_cache_is_the_one_that_extract_ended_with_last(work: Path, make_photos: MakePhotos) -> None:
    make_photos(n=3, folder="other")
    tlfeat("extract", "other", "--backbone", "pixels", cwd=work)
    assert as_json("cache", "info", cwd=work)["images"]["status"] == {"ok": 6}
    tlfeat("extract", "photos", "--backbone", "pixels", cwd=work)  # nothing to do, but the latest wish
    assert as_json("cache", "info", cwd=work)["images"]["status"] == {"ok": 24}


def test_cache_option_names_the_file_on_every_command(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=8)
    cache = ("--cache", "elsewhere/my.h5")
    tlfeat("extract", str(photos), "--backbone", "pixels", *cache, cwd=tmp_path)
    assert not list((tmp_path / "cache").glob("*.h5"))
    assert as_json("fit-sklearn", *cache, cwd=tmp_path)["n_test"] > 0
    assert as_json("compare", "--keras", "none", "--heads", "knn", *cache, cwd=tmp_path)
    assert as_json("cache", "info", *cache, cwd=tmp_path)["bytes"] > 0
    again = tlfeat("extract", *cache, "--backbone", "pixels", cwd=tmp_path)  # the data are known from the cache
    assert "0 embedded, 16 known" in again.stdout.replace(" already", "")


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_exported_rows_are_those_of_the_cache_and_come_back_by_import(work: Path, ending: str) -> None:
    tlfeat("cache", "export", f"out.{ending}", cwd=work)
    if ending == "npz":
        with np.load(work / "out.npz") as arrays:
            rows, labels = arrays["X"], arrays["label"].tolist()
    elif ending == "csv":
        lines = list(csv.reader(io.StringIO((work / "out.csv").read_text(), newline="")))
        rows, labels = np.array([line[5:] for line in lines[1:]], np.float32), [line[1] for line in lines[1:]]
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        table = parquet.read_table(work / "out.parquet")
        rows = np.stack([table[f"e{j}"].to_numpy() for j in range(768)], axis=1)
        labels = table["label"].to_pylist()
    assert rows.shape == (24, 768)
    np.save(work / "rows.npy", rows)
    (work / "table.csv").write_text("label\n" + "\n".join(labels) + "\n")
    tlfeat("cache", "import", "rows.npy", "table.csv", "--name", "mine", "--cache", "mine.h5", cwd=work)
    tlfeat("cache", "verify", "--cache", "mine.h5", cwd=work)
    with_cache = as_json("fit-sklearn", "--model", "lda", "--cache", "mine.h5", cwd=work)
    assert with_cache["n_test"] == 4 and with_cache["backbone"] == "mine"
    refused = tlfeat("predict", with_cache["path"], "photos/cat/0.png", cwd=work, expect=3)
    assert "imported rows" in refused.stderr


def test_predict_answers_in_csv_and_lists_what_cannot_be_read(work: Path) -> None:
    model = as_json("fit-sklearn", cwd=work)["path"]
    (work / "bad.jpg").write_text("no picture")
    run = tlfeat("predict", model, "photos/dog/1.png", "bad.jpg", "--csv", cwd=work)
    lines = list(csv.DictReader(io.StringIO(run.stdout)))
    assert [line["path"] for line in lines] == ["photos/dog/1.png", "bad.jpg"]
    assert lines[0]["label"] in ("cat", "dog") and lines[1]["error"] == "not an image in a known format"
    assert "could be read" in tlfeat("predict", model, "bad.jpg", cwd=work, expect=3).stderr


def test_ctrl_c_ends_with_130_keeps_rows_and_says_how_to_go_on(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=250)
    script = (
        "import os, signal, sys, threading\n"
        "import tlfeat.backbones.encoder as e\n"
        "original = e.PixelEncoder.encode\n"
        "calls = []\n"
        "def encode(self, pixels):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 8: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return original(self, pixels)\n"
        "e.PixelEncoder.encode = encode\n"
        "sys.argv = ['tlfeat', 'extract', sys.argv[1], '--backbone', 'pixels']\n"
        "from tlfeat.cli.app import main\nmain()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(photos)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 130, run.stderr
    assert "done and kept" in run.stderr and "Traceback" not in run.stderr
    after = tlfeat("extract", str(photos), "--backbone", "pixels", cwd=tmp_path)
    n_embedded, n_known = (int(after.stdout.split(word)[0].split()[-1]) for word in (" embedded", " known"))
    assert n_embedded + n_known == 500
    assert 0 < n_known <= 8 * 32, "at most the batches that were encoded when it was stopped, and at least one"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("extract", "photos", "--backbone", "mobilenet_v9"), "mobilenet_v2"),
        (("extract", "photos", "--backbone", "mobilenet_v2", "--pool", "median"), "--pool|pooling 'median'"),
        (("extract", "photos", "--backbone", "pixels", "--class-map", "cat"), "OLD=NEW"),
        (("extract", "photos", "--backbone", "mobilenet_v2", "--input-size", "big"), "HEIGHTxWIDTH"),
        (("fit-sklearn", "--model", "svn"), "Did you mean 'svm'"),
        (("fit-sklearn", "--layer", "pixls"), "Did you mean 'pixels'"),
        (("fit-keras", "--from-scratch", "--unfreeze-last", "3"), "contradict"),
        (("compare", "--keras", "thawed"), "thawed"),
        (("fit-sklearn", "--format", "zip"), "skops"),
        (("nonsense",), "nonsense"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_request_that_cannot_be_understood_is_exit_code_2(work: Path, words: tuple[str, ...], message: str) -> None:
    run = tlfeat(*words, cwd=work, expect=2)
    assert any(part in run.stderr for part in message.split("|"))
    assert run.stdout == ""


def test_a_bug_keeps_its_traceback_and_is_exit_code_1(work: Path) -> None:
    code = (
        "import sys, tlfeat.cli.app, tlfeat.workspace\n"
        "tlfeat.workspace.newest_cache = lambda: 1 / 0\n"
        "sys.argv = ['tlfeat', 'fit-sklearn']\ntlfeat.cli.app.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=work, check=False)
    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stderr


def test_output_into_a_closed_pipe_ends_quietly(work: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "tlfeat", "backbones"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (0, "")


def test_shell_completion_can_be_shown(tmp_path: Path) -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "tlfeat", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "COMPLETE=complete_bash" in run.stdout
    assert re.search(r"^complete -o default -F \w*tlfeat_completion .*tlfeat$", run.stdout, re.MULTILINE)
