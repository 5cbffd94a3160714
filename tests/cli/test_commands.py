"""What holds for every command alike: --json, -q and -v, closed pipes, where results and errors go."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tlfeat.cli.app import app
from tlfeat.cli.console import Console, command, errors_as_exit_codes
from tlfeat.cli.options import EmbeddingOptions
from tlfeat.cli.training_options import TrainingOptions
from tlfeat.extract.plan import EncoderOptions, plan_extraction
from tlfeat.finetune.augment import Augmentation
from tlfeat.finetune.settings import TrainSettings

#: How each command is run here.
WORDS = {
    "extract": "photos --backbone pixels",
    "label": "photos --backbone pixels --no-browser",
    "next": "-n 3",
    "fit-sklearn": "--model knn",
    "fit-keras": "",
    "recipes": "",
    "summary": "",
    "compare": "--heads knn --keras none --no-pixels --map none",
    "report": "--map none",
    "sweep": "photos",
    "curve": "--heads knn --no-pixels --counts 2 --draws 1",
    "adapt": "--cache sites.h5 --target right --model ridge --methods standardise --labels none",
    "audit": "",
    "similar": "cat/0.png",
    "map": "--kind pca",
    "models": "",
    "predict": "MODEL photos/cat/0.png",
    "export": "MODEL --to onnx",
    "backbones": "",
    "layers": "",
    "cache info": "",
    "cache join": "shards",
    "cache verify": "",
    "cache export": "out.csv",
    "cache import": "rows.npy table.csv --cache mine.h5",
    "cache clean": "",
}

PROGRAM = typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command of the program by its words."""
    found = {}
    for name, entry in PROGRAM.commands.items():  # type: ignore[attr-defined]
        for inner, of_group in getattr(entry, "commands", {"": entry}).items():
            found[f"{name} {inner}".strip()] = of_group
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of two classes, embedded as pixels, some of two sites, a head, and rows to import."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(5)
    names = [f"photos/{('cat', 'dog')[i % 2]}/{i // 2}.png" for i in range(16)]
    names += [f"sites/{('left', 'right')[i // 20]}/{('cat', 'dog')[i % 2]}/{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (12, 10, 3), dtype=np.uint8) + np.uint8(i % 2 * 50)).save(path)
    np.save(folder / "rows.npy", rng.standard_normal((8, 3), dtype=np.float32))
    (folder / "table.csv").write_text("label\n" + "a\nb\n" * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (
            ["extract", "sites", "--domains", "--backbone", "pixels", "--cache", "sites.h5"],
            ["extract", "photos", "--backbone", "pixels", "--shard", "1/1", "--cache", "shards"],
            ["extract", "photos", "--backbone", "pixels"],
            ["fit-sklearn", "--model", "knn"],
        ):
            run = CliRunner().invoke(app, [*words, "--json"])
            assert run.exit_code == 0, run.output
    (folder / "model.txt").write_text(json.loads(run.stdout)["path"])
    return folder


@pytest.fixture
def without_networks(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of photos; what would start TensorFlow gives something of the same kind at once."""
    from tlfeat.backbones.graph import LayerInfo
    from tlfeat.finetune.saved import Summary
    from tlfeat.models.fit_sklearn import fit_sklearn
    from tlfeat.studies.sweep import SweepJob

    def sweep_of_pixels(data: Path, **_: object) -> SweepJob:
        return SweepJob(plan_extraction(data, backbone="pixels"), {"pixels": None})  # type: ignore[dict-item]

    monkeypatch.chdir(workplace)
    stand_ins = {
        "tlfeat.models.fit_keras.fit_keras": lambda data, settings, **_: fit_sklearn(data, "lda"),
        "tlfeat.finetune.saved.summarise": lambda settings, **_: Summary("text", 3, 4, ["a"], ["b"]),
        "tlfeat.backbones.graph.list_layers": lambda spec: [LayerInfo(1, "conv", "Conv2D", (None, 8), True, 8)],
        "tlfeat.studies.sweep.plan_sweep": sweep_of_pixels,
        "tlfeat.labelling.server.Server.serve_until_closed": lambda server: None,
        "tlfeat.models.export.export_model": lambda model, to, **_: model,
        "tlfeat.models.export.to_text": str,
        "tlfeat.models.export.to_document": str,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(name, stand_in)


def words_of(name: str, workplace: Path) -> list[str]:
    model = (workplace / "model.txt").read_text()
    (workplace / "mine.h5").unlink(missing_ok=True)
    return [*name.split(), *(model if word == "MODEL" else word for word in WORDS[name].split())]


@pytest.fixture
def closed_pipe() -> Iterator[TextIO]:
    """A pipe that nobody reads; closing it, as Python does with stdout at its end, must not fail."""
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    yield stream
    stream.close()


def run_into(stdout: TextIO, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command whose stdout is that stream; return its exit code."""
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as end:
        app(words, prog_name="tlfeat")
    monkeypatch.undo()
    return int(end.value.code or 0)


def test_every_command_is_run_here() -> None:
    assert list(commands()) == list(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_every_command_has_json_quiet_and_verbose_last(name: str) -> None:
    flags = [option.opts for option in commands()[name].params if option.param_type_name == "option"]
    assert flags[-3:] == [["--json"], ["--quiet", "-q"], ["--verbose", "-v"]]


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.usefixtures("without_networks")
def test_a_result_into_a_closed_pipe_ends_in_silence_and_code_0(
    name: str,
    workplace: Path,
    closed_pipe: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_into(closed_pipe, [*words_of(name, workplace), "-v"], monkeypatch) == 0
    told = capsys.readouterr().err
    assert "Traceback" not in told and "rror" not in told
    assert "Time:" not in told and "Next:" not in told, "after the result nothing more is said"


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.usefixtures("without_networks")
def test_every_command_gives_one_json_document_and_is_quiet_when_asked(name: str, workplace: Path) -> None:
    run = CliRunner().invoke(app, [*words_of(name, workplace), "--json", "-q"])
    assert run.exit_code == 0, run.output
    json.loads(run.stdout)
    assert run.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit-keras", "--help"], ["cache", "-h"]])
def test_help_into_a_closed_pipe_ends_in_silence_and_code_0(
    words: list[str], closed_pipe: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_into(closed_pipe, words, monkeypatch) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_networks")
def test_a_problem_keeps_its_exit_code_though_nobody_reads_the_result(
    workplace: Path, closed_pipe: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "bad.jpg").write_text("no picture")
    model = (workplace / "model.txt").read_text()
    assert run_into(closed_pipe, ["predict", model, "bad.jpg"], monkeypatch) == 3
    assert capsys.readouterr().err.endswith("error: No image of 1 could be read.\n")


@pytest.mark.sample("1")
@pytest.mark.parametrize("n_lines", [0, 1])
def test_a_reader_that_leaves_early_sees_no_traceback_at_the_end_of_the_program(n_lines: int) -> None:
    code = (
        "import sys, tlfeat.backbones.figures as figures\n"
        "few = figures.list_backbones()\n"
        "figures.list_backbones = lambda: few * 300\n"  # 2 MB: more than a pipe and every buffer hold
        "sys.argv = ['tlfeat', 'backbones', '--json']\n"
        "from tlfeat.cli.app import main\nmain()\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stderr is not None
    for _ in range(n_lines):
        assert run.stdout.readline() == "[\n"
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait() == 0


def test_work_goes_on_and_the_result_is_given_when_nobody_reads_the_remarks(
    closed_pipe: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", closed_pipe)
    with errors_as_exit_codes(), Console(is_verbose=True) as console:
        console.say("a remark")
        console.detail("another")
        console.progress("fitting", 0, 0)
        console.result("the result", {})
    assert capsys.readouterr().out == "the result\n"


def test_a_broken_pipe_within_the_work_is_a_bug_and_no_reader_that_left() -> None:
    with pytest.raises(BrokenPipeError), errors_as_exit_codes():
        raise BrokenPipeError("of a child process")


def test_an_error_while_a_result_is_shown_is_one_line_and_an_exit_code(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        from tlfeat.errors import DataError

        raise DataError("Nothing to show.")

    monkeypatch.chdir(workplace)
    monkeypatch.setattr("tlfeat.report.comparison.result_text", refuse)
    run = CliRunner().invoke(app, ["fit-sklearn", "--model", "knn"])
    assert (run.exit_code, run.stderr.splitlines()[-1]) == (3, "error: Nothing to show.")


def test_verbose_says_how_long_it_took(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    assert "Time: " in CliRunner().invoke(app, ["cache", "verify", "-v"]).stderr
    assert CliRunner().invoke(app, ["cache", "verify"]).stderr == ""


def test_progress_off_a_terminal_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr("tlfeat.cli.console.time.monotonic", lambda: now_s)
    console = Console()
    console.progress("building", 0, 0)
    for i in range(5):
        console.progress("embedding", 10 + 30 * i, 1000)
        now_s += 6.0
    console.result("done", {})
    told = capsys.readouterr()
    assert told.out == "done\n"
    assert told.err.splitlines() == [
        "building",
        "embedding: 70 of 1,000, 5.0/s, 186 s left",
        "embedding: 130 of 1,000, 5.0/s, 174 s left",
    ]


# --- groups of options ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colour:
    red: int = 3
    name: str | None = None


def test_a_group_of_options_becomes_an_option_a_field_in_its_place() -> None:
    called: list[tuple[object, ...]] = []

    def paint(console: Console, size: int, colour: Colour, is_wet: bool = False) -> None:
        """Paint."""
        called.append((console.is_json, size, colour, is_wet))

    run: Callable[..., None] = command(paint)
    names = ["size", "red", "name", "is_wet", "as_json", "quiet", "verbose"]
    assert list(inspect.signature(run).parameters) == names
    assert run.__doc__ == "Paint."
    run(size=4, red=7, name="rust", is_wet=True, as_json=True, quiet=False, verbose=False)
    assert called == [(True, 4, Colour(red=7, name="rust"), True)]


def test_the_training_options_are_those_of_the_settings() -> None:
    own = {field.name for field in dataclasses.fields(TrainingOptions)}
    settings = {field.name for field in dataclasses.fields(TrainSettings)}
    assert own - settings == {"is_as_written", "is_from_scratch"}
    assert settings - own == {"mode", "preprocess", "is_flattened", "seed"}, "mode and preprocess have other options"


def test_the_options_of_an_embedding_are_those_of_an_extraction() -> None:
    given = EmbeddingOptions(
        **{field.name: "7x9" for field in dataclasses.fields(EmbeddingOptions)}  # type: ignore[arg-type]
    ).given()
    assert given["input_size"] == (7, 9)
    own = set(inspect.signature(plan_extraction).parameters)
    assert given.keys() <= own | EncoderOptions.__annotations__.keys()


@pytest.mark.usefixtures("without_networks")
def test_every_training_option_reaches_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainSettings] = []

    def note(data: object, settings: TrainSettings, **_: object) -> None:
        from tlfeat.errors import DataError

        seen.append(settings)
        raise DataError("enough")

    monkeypatch.setattr("tlfeat.models.fit_keras.fit_keras", note)
    words = (
        "--unfreeze-last 7 --dense 9,8 --dropout 0.3 --loss categorical_crossentropy --train-batchnorm "
        "--augment flip=horizontal --views 4 --optimizer sgd --learning-rate 0.02 --head-epochs 5 "
        "--head-learning-rate 0.03 --reduce-on-plateau 6 --epochs 11 --patience 12 --keep last --batch-size 13 "
        "--cut float16 --seed 14"
    )
    assert CliRunner().invoke(app, ["fit-keras", *words.split()]).exit_code == 3
    assert seen == [
        TrainSettings(
            mode="finetuned",
            unfreeze_last=7,
            dense=(9, 8),
            dropout=0.3,
            loss="categorical_crossentropy",
            trains_batchnorm=True,
            augment=Augmentation(flip="horizontal"),
            views=4,
            optimizer="sgd",
            learning_rate=0.02,
            head_epochs=5,
            head_learning_rate=0.03,
            plateau=6,
            epochs=11,
            patience=12,
            keep="last",
            batch_size=13,
            cut="float16",
            seed=14,
        )
    ]


@pytest.mark.parametrize("option", ["--backbone=vgg16", "--weights=random", "--input-size=9x9", "--class-map=a=b"])
@pytest.mark.usefixtures("without_networks")
def test_an_option_of_images_without_images_is_refused(option: str) -> None:
    run = CliRunner().invoke(app, ["fit-keras", option])
    assert run.exit_code == 2
    assert "are for images: name DATA" in run.stderr
