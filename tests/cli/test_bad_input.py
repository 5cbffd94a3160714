"""Bad input from one end to the other: what the commands say and which exit code they end with.

Everything runs with ``--backbone pixels``, so that no test starts TensorFlow.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from conftest import without_rights
from tlfeat.cli.app import app

DONE, USAGE, KNOWN = 0, 2, 3


class Ran:
    """What one command did. Whatever it was, it was no bug: no traceback, no exception but an exit code."""

    def __init__(self, *arguments: object) -> None:
        ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise AssertionError(f"{arguments} let {ran.exception!r} out") from ran.exception
        self.code, self.out, self.err = ran.exit_code, ran.stdout, ran.stderr
        assert "Traceback" not in self.err

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.endswith(lines[0] + "\n"), f"it goes on after the line: {self.err}"
        return lines[0]


def paint(path: Path, seed: int, *, brightness: int = 0) -> Path:
    """Write a small noisy picture; its folder is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 100, (12, 12, 3), dtype=np.uint8)
    with path.open("wb") as file:
        Image.fromarray(noise + np.uint8(brightness)).save(file, "PNG")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `data`, `cache` and `model` begin with, made once at the path of every test, which a cache records."""
    base = tmp_path_factory.mktemp("made")
    work = base / "work"
    work.mkdir()
    with contextlib.chdir(work):
        for i in range(10):
            paint(Path("data/cat") / f"{i}.png", i)
            paint(Path("data/dog") / f"{i}.png", 100 + i, brightness=150)
        shutil.copytree(work, base / "data")
        assert Ran("extract", "data", "--backbone", "pixels", "--cache", "c.h5").code == DONE
        shutil.copytree(work, base / "cache")
        fit(Path("c.h5"))
        shutil.copytree(work, base / "model")
    return base


@pytest.fixture(autouse=True)
def workplace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder, of one name; what the test before left is put away."""
    work = made / "work"
    work.rename(made / f"before-{tmp_path.name}")
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def data(made: Path, workplace: Path) -> Path:
    """Ten dark cats and ten bright dogs."""
    shutil.copytree(made / "data", workplace, dirs_exist_ok=True)
    return Path("data")


@pytest.fixture
def cache(made: Path, data: Path, workplace: Path) -> Path:
    shutil.copytree(made / "cache", workplace, dirs_exist_ok=True)
    return Path("c.h5")


def fit(cache: Path, *options: str) -> Path:
    """Fit a head without a search and return the folder of the model."""
    ran = Ran("fit-sklearn", "--cache", cache, "--no-search", "--json", *options)
    assert ran.code == DONE, ran.err
    return Path(json.loads(ran.out)["path"])


@pytest.fixture
def model(made: Path, cache: Path, workplace: Path) -> Path:
    shutil.copytree(made / "model", workplace, dirs_exist_ok=True)
    (folder,) = Path("models/c").iterdir()
    return folder


# --- no data, or not enough -----------------------------------------------------------------------------------


def test_a_folder_without_images_says_what_was_expected(workplace: Path) -> None:
    (workplace / "data" / "cat").mkdir(parents=True)
    (workplace / "data" / "cat" / "notes.txt").write_text("x")
    ran = Ran("extract", "data", "--backbone", "pixels")
    assert ran.code == KNOWN
    assert "No images in data (left out: 1 .txt). Expected .avif, .bmp" in ran.error
    assert ran.out == ""


def test_a_path_that_does_not_exist_is_named() -> None:
    ran = Ran("extract", "dta", "--backbone", "pixels")
    assert ran.code == KNOWN
    assert "dta does not exist (looked in " in ran.error
    assert not Path("cache").exists()


def test_one_class_only_is_embedded_but_cannot_be_fitted() -> None:
    for i in range(5):
        paint(Path("data/cat") / f"{i}.png", i)
    assert Ran("extract", "data", "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("fit-sklearn", "--cache", "c.h5")
    assert ran.code == KNOWN
    assert "At least two classes with two different images each" in ran.error
    assert "found: cat (5)" in ran.error


def test_a_class_with_one_image_is_left_out_with_a_warning(data: Path) -> None:
    paint(data / "yeti" / "only.png", 999)
    assert Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("fit-sklearn", "--cache", "c.h5", "--no-search", "--json")
    assert ran.code == DONE
    assert "warning: class 'yeti' is left out: 1 image and none of them for test" in ran.err
    assert json.loads(ran.out)["classes"] == ["cat", "dog"]


def test_a_folder_of_loose_images_can_be_embedded_but_not_fitted() -> None:
    for i in range(4):
        paint(Path("data") / f"{i}.png", i)
    assert Ran("extract", "data", "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("fit-sklearn", "--cache", "c.h5")
    assert (ran.code, "found: none" in ran.error) == (KNOWN, True)


def test_a_table_without_a_column_is_named_with_what_it_has(workplace: Path) -> None:
    (workplace / "t.csv").write_text("id,label\na.png,cat\n")
    ran = Ran("extract", "t.csv", "--backbone", "pixels")
    assert ran.code == KNOWN
    assert "lacks the column path" in ran.error
    assert "received: id, label. Say which one it is: --path-column NAME." in ran.error


def test_duplicates_under_two_labels_give_a_warning(data: Path) -> None:
    (data / "dog" / "copy.png").write_bytes((data / "cat" / "0.png").read_bytes())
    assert Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("fit-sklearn", "--cache", "c.h5", "--no-search")
    assert ran.code == DONE
    assert "warning: 1 picture under two labels" in ran.err


# --- bad images among good ones -------------------------------------------------------------------------------

BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "text": (lambda path: path.write_text("404 not found"), "not an image in a known format"),
    "cut-off": (lambda path: path.write_bytes(Path("data/cat/0.png").read_bytes()[:200]), "truncated"),
    "dangling-link": (lambda path: path.symlink_to("nowhere.png"), "cannot be read: No such file or directory"),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_a_listed_skip_and_the_rest_is_embedded_and_fitted(
    data: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(data / "cat" / "bad.png")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5")
    assert ran.code == DONE
    assert ran.out.startswith("20 embedded")
    assert "1 skipped (see tlfeat cache info --cache c.h5)" in ran.out
    (line,) = [line for line in ran.err.splitlines() if "bad.png" in line]
    assert line.startswith("warning: skipped cat/bad.png: ")
    assert reason in line
    (listed,) = json.loads(Ran("cache", "info", "--cache", "c.h5", "--json").out)["failures"]
    assert listed["path"] == "cat/bad.png"
    assert reason in listed["reason"]
    assert json.loads((fit(Path("c.h5")) / "result.json").read_text())["split"]["n_test"] == 4


def test_an_image_that_may_not_be_read_is_a_listed_skip(data: Path) -> None:
    path = paint(data / "cat" / "secret.png", 50)
    path.chmod(0)

    def extract() -> None:
        ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5")
        assert ran.code == DONE
        assert "skipped cat/secret.png: cannot be read: Permission denied" in ran.err
        assert "20 embedded" in ran.out

    without_rights(extract)


def test_an_image_of_one_pixel_is_embedded(data: Path) -> None:
    Image.new("RGB", (1, 1)).save(data / "cat" / "dot.png")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5")
    assert (ran.code, ran.out.partition(" ")[0]) == (DONE, "21")


def test_strict_makes_a_bad_image_an_error_but_keeps_the_rows(data: Path) -> None:
    (data / "cat" / "bad.png").write_text("x")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5", "--strict")
    assert ran.code == KNOWN
    assert "1 of 21 images failed and --strict was given; the first: cat/bad.png: not an image" in ran.error
    assert "20 known already" in Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5").out


def test_more_than_five_bad_images_are_counted_and_listed_on_request(data: Path) -> None:
    for i in range(8):
        (data / "cat" / f"bad{i}.png").write_text("x")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5")
    assert ran.err.count("warning: skipped") == 5
    assert "8 skipped" in ran.out
    assert Ran("cache", "info", "--cache", "c.h5").out.count("skipped ") == 8


def test_json_is_one_document_even_with_bad_images(data: Path) -> None:
    (data / "cat" / "bad.png").write_text("x")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5", "--json")
    assert json.loads(ran.out)["failures"] == [{"path": "cat/bad.png", "reason": "not an image in a known format"}]


def test_quiet_says_nothing_but_the_result(data: Path) -> None:
    (data / "cat" / "bad.png").write_text("x")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5", "--quiet")
    assert (ran.err, len(ran.out.splitlines())) == ("", 1)


# --- odd names ------------------------------------------------------------------------------------------------

ODD_NAMES = {
    "newline": "a\nb.png",
    "quotes": "it's \"odd\", isn't it.png",
    "non-ascii": "Kätzchen 猫 🐈.png",
    "invalid-utf8": os.fsdecode(b"\xff\xfe.png"),
    "escape-sequence": "\x1b[31mred.png",
}


@pytest.mark.sample("newline", "invalid-utf8", "escape-sequence")
@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_odd_names_survive_in_every_output(data: Path, name: str) -> None:
    paint(data / "cat" / name, 500)
    (data / "dog" / name).write_text("not a picture")
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5", "--json")
    assert json.loads(ran.out)["failures"][0]["path"] == f"dog/{name}"
    assert "\x1b" not in ran.err
    assert ran.err.count("\nwarning: skipped dog/") == 1

    info = Ran("cache", "info", "--cache", "c.h5")
    assert sum("not an image" in line for line in info.out.splitlines()) == 1
    assert "\x1b" not in info.out
    listed = json.loads(Ran("cache", "info", "--cache", "c.h5", "--json").out)["failures"]
    assert [failure["path"] for failure in listed] == [f"dog/{name}"]

    assert Ran("cache", "export", "rows.csv", "--cache", "c.h5").code == DONE
    with Path("rows.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 21
    assert f"cat/{name}" in {line["path"] for line in lines}

    model = fit(Path("c.h5"))
    answer = json.loads(Ran("predict", model, data / "cat" / name, "--json").out)
    assert [(entry["path"], entry["label"]) for entry in answer] == [(str(data / "cat" / name), "cat")]
    (_, line) = list(csv.reader(Ran("predict", model, data / "cat" / "0.png", "--csv").out.splitlines()))
    assert line[:2] == ["data/cat/0.png", "cat"]


def test_the_exported_rows_are_the_cached_rows_to_the_last_bit(cache: Path) -> None:
    assert Ran("cache", "export", "rows.csv", "--cache", cache).code == DONE
    assert Ran("cache", "export", "rows.npz", "--cache", cache).code == DONE
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    with np.load("rows.npz") as stored:
        rows, paths = stored["X"], stored["path"].tolist()
    assert [line["path"] for line in lines] == paths
    from_csv = np.array([[line[f"e{j}"] for j in range(768)] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(from_csv, rows)


def test_a_name_that_is_not_utf8_cannot_go_to_parquet_and_it_says_so(data: Path) -> None:
    pytest.importorskip("pyarrow")
    paint(data / "cat" / os.fsdecode(b"\xff.png"), 500)
    assert Ran("extract", data, "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("cache", "export", "rows.parquet", "--cache", "c.h5")
    assert ran.code == KNOWN
    assert "UTF-8" in ran.error
    assert ".csv" in ran.error


def test_odd_class_names_stay_on_one_line_of_the_tables(workplace: Path) -> None:
    for k, name in enumerate(["a\nb", "Käse 猫"]):
        for i in range(6):
            paint(workplace / "data" / name / f"{i}.png", 10 * k + i, brightness=100 * k)
    assert Ran("extract", "data", "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("fit-sklearn", "--cache", "c.h5", "--no-search")
    assert ran.code == DONE
    assert any(line.startswith("a\\nb ") for line in ran.out.splitlines())


def test_markup_in_class_and_file_names_is_escaped_in_the_report(workplace: Path) -> None:
    label, name = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"
    with (workplace / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for i in range(60):  # labels that nothing in the pictures tells: there will be mistakes to show
            paint(workplace / f"{name}{i}.png", i)
            writer.writerow([f"{name}{i}.png", label if i % 2 else "plain & simple"])
    assert Ran("extract", "t.csv", "--backbone", "pixels", "--cache", "c.h5").code == DONE
    ran = Ran("compare", "--cache", "c.h5", "--heads", "lda", "--keras", "none", "--no-pixels", "--output", "out")
    assert ran.code == DONE
    page = Path("out/comparison.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
    assert "plain &amp; simple" in page


@pytest.mark.parametrize("command", ["compare", "report"])
def test_places_that_a_report_cannot_be_written_to_are_named(data: Path, cache: Path, command: str) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    heads = ("--heads", "lda", "--keras", "none", "--no-pixels") if command == "compare" else ()
    for words, code, told in (
        (("--html", "folder"), USAGE, "folder/comparison.html"),
        (("--plots", "file"), USAGE, "--plots wants a folder"),
        (("--map", "tsen"), USAGE, "Did you mean 'tsne'"),
    ):
        ran = Ran(command, "--cache", cache, *heads, *words)
        assert ran.code == code and told in ran.error, ran.error
    assert Ran("compare", "--cache", cache, "--heads", "lda", "--keras", "none", "--no-pixels").code == DONE
    ran = Ran(command, "--cache", cache, *heads, "--html", "file/page.html")
    assert ran.code == KNOWN and "Cannot write file" in ran.error


# --- caches ---------------------------------------------------------------------------------------------------


def rewrite_fingerprint(path: Path, **changes: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = json.dumps({**json.loads(file.attrs["fingerprint"]), **changes})


def test_a_cache_of_another_encoder_is_refused_and_both_are_named(data: Path, cache: Path) -> None:
    rewrite_fingerprint(cache, backbone="resnet50", weights="abc123")
    before = cache.read_bytes()
    ran = Ran("extract", data, "--backbone", "pixels", "--cache", cache)
    assert ran.code == KNOWN
    assert "c.h5 holds rows of another encoder (resnet50, not pixels)" in ran.error
    assert "weights: the cache has 'abc123', asked was 'none'" in ran.error
    assert "Name another --cache" in ran.error
    assert cache.read_bytes() == before


COMMANDS_ON_A_CACHE = {
    "extract": ("extract", "data", "--backbone", "pixels"),
    "fit-sklearn": ("fit-sklearn", "--no-search"),
    "compare": ("compare", "--heads", "lda", "--keras", "none", "--no-pixels"),
    "info": ("cache", "info"),
    "verify": ("cache", "verify"),
    "export": ("cache", "export", "rows.csv"),
}

NO_CACHES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not HDF5"), "is not an HDF5 file"),
    "empty": (lambda path: path.write_bytes(b""), "is not an HDF5 file"),
    "folder": (lambda path: path.mkdir(), "is a folder without shards, not a cache"),
    "other-hdf5": (lambda path: h5py.File(path, "w").close(), "is an HDF5 file but not a tlfeat cache"),
}


@pytest.mark.parametrize("command", COMMANDS_ON_A_CACHE.values(), ids=COMMANDS_ON_A_CACHE)
@pytest.mark.parametrize(("make", "message"), NO_CACHES.values(), ids=NO_CACHES)
def test_a_file_that_is_no_cache_is_refused_by_name(
    data: Path, make: Callable[[Path], object], message: str, command: tuple[str, ...]
) -> None:
    make(Path("other.h5"))
    ran = Ran(*command, "--cache", "other.h5")
    assert ran.code == KNOWN
    assert f"other.h5 {message}" in ran.error
    assert ran.out == ""


def test_a_cache_of_a_newer_format_says_update(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file.attrs["format_version"] = 99
    ran = Ran("fit-sklearn", "--cache", cache)
    assert (ran.code, "has cache format 99; this tlfeat reads 1, 2 and 3. Update tlfeat." in ran.error) == (KNOWN, True)


@pytest.mark.sample("fit-sklearn", "extract")
@pytest.mark.whole
@pytest.mark.parametrize("command", COMMANDS_ON_A_CACHE.values(), ids=COMMANDS_ON_A_CACHE)
def test_a_cut_off_cache_is_an_error_and_never_a_crash(cache: Path, command: tuple[str, ...]) -> None:
    whole = cache.read_bytes()
    for kept in (1, 8, 9, 96, 511, 2048, 10_000, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        cache.write_bytes(whole[:kept])
        ran = Ran(*command, "--cache", cache)
        assert ran.code == KNOWN, kept
        assert "c.h5 is damaged or cut off" in ran.error or "c.h5 is not an HDF5 file" in ran.error, kept
        assert cache.read_bytes() == whole[:kept], kept


@pytest.mark.sample("OHDR-extract", "TREE-verify")
@pytest.mark.whole
@pytest.mark.parametrize("name", ["extract", "info", "verify", "export"])
@pytest.mark.parametrize("block", [b"OHDR", b"TREE"], ids=lambda block: block.decode())
def test_a_damaged_block_of_hdf5_is_an_error_and_never_a_traceback(cache: Path, block: bytes, name: str) -> None:
    whole = cache.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(block, at)]
    assert places
    codes = set()
    for at in places:
        cache.write_bytes(whole[:at] + b"XXXX" + whole[at + 4 :])
        codes.add(Ran(*COMMANDS_ON_A_CACHE[name], "--cache", cache).code)
    assert codes <= {DONE, KNOWN}  # not every command reads every block
    assert KNOWN in codes


def test_a_changed_value_is_found_by_verify(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file["layers/pixels/rows"][3, 5] += 0.25
    ran = Ran("cache", "verify", "--cache", cache)
    assert ran.code == KNOWN
    assert "layer 'pixels', row 3: the checksum does not fit" in ran.out
    assert "1 problem in c.h5" in ran.error


@pytest.mark.parametrize("command", ["fit-sklearn", "compare", "info", "verify", "export"])
def test_without_a_cache_the_message_says_how_to_make_one(command: str) -> None:
    ran = Ran(*COMMANDS_ON_A_CACHE[command])
    assert ran.code == KNOWN
    assert "No cache under cache/ of" in ran.error
    assert "Make one with: tlfeat extract DATA" in ran.error


def test_a_named_cache_that_is_not_there_says_how_to_make_it() -> None:
    ran = Ran("fit-sklearn", "--cache", "gone.h5")
    assert ran.code == KNOWN
    assert "No cache at gone.h5. Make one with: tlfeat extract DATA --cache gone.h5" in ran.error


HOLD = """
    import sys
    from pathlib import Path
    from tlfeat.cache.store import open_cache
    with open_cache(Path("c.h5"), writable=True):
        print("open", flush=True)
        sys.stdin.read()
"""


def test_a_second_writer_is_told_to_wait_and_readers_are_not(data: Path, cache: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            ran = Ran(*COMMANDS_ON_A_CACHE["extract"], "--cache", cache)
            assert ran.code == KNOWN
            assert "c.h5 is in use by another process (one that writes" in ran.error
            assert "Wait until that has ended" in ran.error
            for command in sorted(COMMANDS_ON_A_CACHE.keys() - {"extract"}):
                ran = Ran(*COMMANDS_ON_A_CACHE[command], "--cache", cache)
                assert ran.code == DONE, ran.err
                assert ran.err.count("extract is still writing this cache: 20 images are read\n") == 1, command
        finally:
            holder.communicate("")
    assert holder.returncode == 0
    assert Ran("extract", data, "--backbone", "pixels", "--cache", cache).code == DONE


def test_exporting_below_a_file_is_an_error_and_no_crash(cache: Path) -> None:
    ran = Ran("cache", "export", "c.h5/rows.csv", "--cache", cache)
    assert ran.code == KNOWN
    assert "Cannot write c.h5/rows.csv" in ran.error


# --- misspelt names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit-sklearn", "--layer", "pixls"), "No layer 'pixls' in this cache. Did you mean 'pixels'?"),
        (("cache", "export", "rows.csv", "--layer", "pixls"), "Did you mean 'pixels'?"),
        (("fit-sklearn", "--model", "svmm"), "No head 'svmm'. Did you mean 'svm'?"),
        (("fit-sklearn", "--model", "forest"), "linear-svm"),
        (("compare", "--heads", "logregg", "--keras", "none"), "No head 'logregg'. Did you mean 'logreg'?"),
        (("compare", "--heads", "none", "--keras", "frozn"), "No Keras candidate 'frozn'. Known: frozen"),
        (("fit-sklearn", "--format", "pickle"), "No format 'pickle'. Known formats: skops, joblib."),
        (("cache", "export", "rows.xlsx"), "Export to .xlsx is not known. Use .npz, .csv or .parquet."),
        (("cache", "export", "rows"), "Export to a file without ending is not known."),
    ],
    ids=[
        "layer",
        "layer-of-export",
        "head",
        "head-far-off",
        "head-of-compare",
        "keras-candidate",
        "format",
        "export-ending",
        "export-without-ending",
    ],
)
def test_a_misspelt_name_is_a_usage_error_with_a_suggestion(
    cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = Ran(*arguments, "--cache", cache)
    assert ran.code == USAGE
    assert message in ran.error
    assert ran.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "mobilnet_v2"), "No backbone 'mobilnet_v2'. Did you mean 'mobilenet_v2'?"),
        (("--backbone", "pixels", "--class-map", "cats"), "--class-map wants OLD=NEW, received 'cats'"),
        (("--backbone", "pixels", "--input-size", "big"), "--input-size wants HEIGHTxWIDTH"),
        (("--backbone", "pixels", "--input-size", "0x5"), "--input-size wants HEIGHTxWIDTH"),
        (("--backbone", "pixels", "--layer", "block_1", "--pool", "mx"), "No pooling 'mx'."),
    ],
    ids=["backbone", "class-map", "size-of-letters", "size-zero", "pooling"],
)
def test_options_of_extract_that_cannot_be_understood_are_usage_errors(
    data: Path, options: tuple[str, ...], message: str
) -> None:
    ran = Ran("extract", data, *options)
    assert ran.code == USAGE
    assert message in ran.error


def test_a_misspelt_option_is_a_usage_error() -> None:
    ran = Ran("extract", "--bakbone", "pixels")
    assert ran.code == USAGE
    assert "--backbone" in ran.err


# --- models ---------------------------------------------------------------------------------------------------


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(model: Path, *options: str) -> str:
    """Return why a model is not used for predictions."""
    ran = Ran("predict", model, "data/cat/0.png", *options)
    assert ran.code == KNOWN
    assert ran.out == ""
    return ran.error


def test_predict_answers_where_nothing_is_wrong(model: Path) -> None:
    ran = Ran("predict", model, "data/cat/0.png", "data/dog", "--json")
    assert ran.code == DONE
    assert [entry["label"] for entry in json.loads(ran.out)] == ["cat", *["dog"] * 10]


@pytest.mark.parametrize("file", ["model.json", "head.skops"])
def test_a_model_may_be_named_by_a_file_in_its_folder(model: Path, file: str) -> None:
    assert Ran("predict", model / file, "data/cat/0.png").code == DONE


def test_predict_with_a_folder_that_is_no_model_says_what_to_name(model: Path) -> None:
    message = Ran("predict", "--model", "data", "data/cat/0.png").error
    assert "There is no model in data: model.json is missing. Name a folder that fit-sklearn" in message


def test_predict_of_an_image_that_is_not_there_names_it(model: Path) -> None:
    ran = Ran("predict", model, "gone.png")
    assert (ran.code, "gone.png does not exist" in ran.error) == (KNOWN, True)


def test_predict_lists_a_bad_image_among_good_ones(model: Path) -> None:
    Path("bad.png").write_text("x")
    ran = Ran("predict", model, "bad.png", "data/cat/0.png")
    assert ran.code == DONE
    assert "error: not an image in a known format" in ran.out
    assert " cat " in ran.out


def test_predict_of_bad_images_only_is_an_error(model: Path) -> None:
    Path("bad.png").write_text("x")
    ran = Ran("predict", model, "bad.png")
    assert (ran.code, "No image of 1 could be read" in ran.error) == (KNOWN, True)


def test_other_classes_in_model_json_than_in_the_head_are_refused(model: Path) -> None:
    edit_json(model / "model.json", classes=["cat", "dog", "yeti"])
    assert "the model was fitted on 2 classes, but model.json names 3" in refused(model)


def test_another_fingerprint_in_model_json_is_refused(model: Path) -> None:
    about = json.loads((model / "model.json").read_text())
    edit_json(model / "model.json", fingerprint={**about["fingerprint"], "preprocess": "caffe"})
    assert "preprocess: fitted with 'caffe', here '0-1'" in refused(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not the description of a tlfeat model"),
        ({"format_version": 99}, "has format 99; this tlfeat reads 1. Update tlfeat"),
        ({"classes": "cat"}, "is not the description of a tlfeat model"),
        ({"encoder": None}, "is not the description of a tlfeat model"),
        ({"encoder": {"backbone": "imported"}}, "was fitted on imported rows"),
    ],
    ids=["format", "version", "classes", "encoder", "imported"],
)
def test_a_model_json_that_does_not_fit_is_refused(model: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(model / "model.json", **changes)
    assert message in refused(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0"], ids=["empty", "cut-off", "list", "null", "zero-byte"])
def test_a_model_json_that_is_no_document_is_refused(model: Path, text: str) -> None:
    (model / "model.json").write_text(text)
    assert "model.json is not" in refused(model)


def test_a_head_of_another_width_is_refused_with_both_widths(model: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from tlfeat.heads.saved import save_head

    rows = np.random.default_rng(0).random((10, 5))
    save_head(LogisticRegression().fit(rows, [0, 1] * 5), model)
    assert "The head was fitted on 5 columns, received 768: another layer or backbone." in refused(model)


def test_a_missing_head_is_named(model: Path) -> None:
    (model / "head.skops").unlink()
    assert f"There is no head in {model}" in refused(model)


@pytest.mark.parametrize("kept", [0, 10, 1000, 4_000])
def test_a_cut_off_head_is_refused(model: Path, kept: int) -> None:
    head = model / "head.skops"
    assert head.stat().st_size > 4_000
    head.write_bytes(head.read_bytes()[:kept])
    assert "head.skops is damaged" in refused(model)


def holders(document: Any, name: str) -> list[dict[str, Any]]:
    """All objects within a document that have the name."""
    within = document.values() if isinstance(document, dict) else document if isinstance(document, list) else []
    found = [holder for part in within for holder in holders(part, name)]
    return [document, *found] if isinstance(document, dict) and name in document else found


def tamper(head: Path, node: dict[str, Any]) -> None:
    """Put a stranger's node in the place of an array of a head."""
    with zipfile.ZipFile(head) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    assert [parts.update(intercept_={**parts["intercept_"], **node}) for parts in holders(schema, "intercept_")]
    with zipfile.ZipFile(head, "w") as archive:
        for name, content in {**files, "schema.json": json.dumps(schema).encode()}.items():
            archive.writestr(name, content)


STRANGERS: dict[str, dict[str, Any]] = {
    "object": {"__class__": "Evil", "__module__": "evil"},
    "type": {"__class__": "Evil", "__module__": "evil", "__loader__": "TypeNode"},
    "function": {"__class__": "run", "__module__": "evil", "__loader__": "FunctionNode"},
    "os-system": {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"},
    "reduce": {"__class__": "Evil", "__module__": "evil", "__loader__": "ReduceNode"},
    "unknown-loader": {"__class__": "Evil", "__module__": "evil", "__loader__": "EvilNode"},
}


@pytest.mark.parametrize("node", STRANGERS.values(), ids=STRANGERS)
def test_a_tampered_head_is_refused_and_none_of_its_code_runs(
    model: Path, node: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = workplace / "ran"
    (workplace / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\ndef run(): pass\n"
    )
    monkeypatch.syspath_prepend(str(workplace))
    tamper(model / "head.skops", node)
    message = refused(model)
    assert "head.skops" in message
    assert not marker.exists()
    assert "evil" not in sys.modules
    if node.get("__loader__") in (None, "TypeNode", "FunctionNode"):
        assert f"types that no head of tlfeat has: {node['__module__']}.{node['__class__']}" in message


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("coef_", None),
        ("coef_", np.zeros((7, 768), np.float32)),
        ("coef_", np.zeros(767, np.float32)),
        ("intercept_", np.full(1, np.nan)),
        ("intercept_", np.zeros(3)),
        ("intercept_", "1"),
        ("classes_", np.arange(3)),
        ("n_features_in_", 767),
    ],
)
def test_a_head_whose_parts_do_not_fit_together_is_refused(model: Path, attribute: str, value: object) -> None:
    from tlfeat.heads.saved import load_head, save_head

    head = load_head(model)
    setattr(head.named_steps["logreg"], attribute, value)
    save_head(head, model)
    assert "head.skops is damaged" in refused(model)


def test_the_stranger_would_leave_a_mark_if_it_were_loaded(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "evil2.py").write_text(f"from pathlib import Path\nPath({str(workplace / 'ran')!r}).touch()\n")
    monkeypatch.syspath_prepend(str(workplace))
    __import__("evil2")
    assert (workplace / "ran").exists()


def test_a_joblib_head_is_refused_without_trust_and_used_with_it(cache: Path) -> None:
    model = fit(cache, "--format", "joblib")
    message = refused(model)
    assert "head.joblib is a pickle and can run code when loaded. If you made it yourself, add --trust." in message
    assert Ran("predict", model, "data/cat/0.png", "--trust").code == DONE


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def test_a_joblib_head_of_a_stranger_runs_nothing_without_trust(cache: Path, workplace: Path) -> None:
    model = fit(cache, "--format", "joblib")
    bomb = pickle.dumps(Bomb(workplace / "ran"))
    (model / "head.joblib").write_bytes(bomb)
    assert "add --trust" in refused(model)
    assert not (workplace / "ran").exists()
    pickle.loads(bomb)
    assert (workplace / "ran").exists()  # it would have


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x05."], ids=["empty", "junk", "cut-off"])
def test_a_damaged_joblib_head_is_refused_even_with_trust(cache: Path, content: bytes) -> None:
    model = fit(cache, "--format", "joblib")
    (model / "head.joblib").write_bytes(content)
    assert "head.joblib is damaged" in refused(model, "--trust")


def test_a_damaged_result_is_fitted_again(cache: Path, model: Path) -> None:
    (model / "result.json").write_text("{")
    assert fit(cache) == model
    assert json.loads((model / "result.json").read_text())["candidate"] == "logreg"
