"""`--precision`: what is tried, refused, chosen, kept and found again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tlfeat import workspace
from tlfeat.backbones import int8
from tlfeat.backbones.keras_encoder import KerasEncoder
from tlfeat.backbones.network import DIGITS
from tlfeat.cache.shard_join import join_shards
from tlfeat.cache.store import open_cache
from tlfeat.cli.app import app
from tlfeat.errors import DataError, FingerprintError, ModelError, TlfeatError, UsageError, WeightsError
from tlfeat.evaluate.data import open_data
from tlfeat.extract import precision
from tlfeat.extract.job import ExtractionJob
from tlfeat.extract.plan import plan_extraction
from tlfeat.extract.precision import Tried
from tlfeat.extract.sample import Sample, draw_sample, named_sample
from tlfeat.images import example
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model
from tlfeat.workspace import read_json, write_json

pytestmark = pytest.mark.keras

NETWORKS = Path("cache/networks")

needs_nncf = pytest.mark.skipif(not int8.is_installed(), reason="NNCF is not installed (tlfeat[int8])")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, light_nncf: None) -> Path:
    """A folder with the built-in example, and with its network at float32 and int8."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(workspace, "NETWORKS_DIR", NETWORKS)
        example.write_digits(Path("digits"))
        planned("float32").run()
        if int8.is_installed():
            planned("int8").run()
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr(workspace, "NETWORKS_DIR", NETWORKS)
    return tmp_path / "home"


def planned(wanted: str | None = None, **options: Any) -> ExtractionJob:
    options = {"cache": cache_of(wanted), **options} if wanted in ("float32", "int8") else options
    return plan_extraction("digits", backbone=DIGITS, precision=wanted, **options)


def rows_of(cache: Path) -> np.ndarray[Any, Any]:
    with open_cache(cache) as opened:
        return opened.read("avg_pool", opened.table.keys)


def cache_of(kind: str) -> Path:
    """Not the one by default: its name would tell the folder of this test from that in which it was made."""
    return Path(f"cache/{kind}.h5")


@needs_nncf
def test_int8_has_a_cache_of_its_own_which_says_what_its_network_was_calibrated_on(home: Path) -> None:
    float32, ours = cache_of("float32"), cache_of("int8")
    assert planned("int8", cache=None).cache_path.name.startswith("digits-digits_cnn-int8-")
    assert planned("int8", cache=None).cache_path != planned("bfloat16").cache_path
    with open_cache(float32) as opened:
        assert "precision" not in opened.fingerprint and "precision" not in opened.source
    with open_cache(ours) as opened:
        kind, _, digest = opened.fingerprint["precision"].partition(":")
        record, images = opened.source["precision"], opened.table.images
    splits = dict(zip(images.paths, images.splits, strict=True))
    assert (kind, record["asked"]) == ("int8", "int8")
    assert 0.97 < record["cosine"] < 1 and 0 <= record["p_value"] <= 1
    calibration = record["calibration"]
    assert len(set(calibration)) == len(calibration) == 38  # of the fifty training images; the others are the probe
    assert {splits[path] for path in calibration} == {"train"}
    sample = named_sample(load_images("digits"), planned().encoder, calibration)
    assert digest == int8.calibration_digest(sample.keys)
    assert not np.array_equal(rows_of(float32), rows_of(ours))


@needs_nncf
def test_a_second_run_embeds_nothing_and_a_new_picture_goes_through_the_same_network(home: Path) -> None:
    ours, before = cache_of("int8"), rows_of(cache_of("int8"))
    assert planned("int8").run().n_embedded == 0
    new = home / "digits" / "train" / "5" / "new.png"
    shutil.copy(sorted((home / "digits" / "test" / "6").iterdir())[0], new)
    with new.open("ab") as file:
        file.write(b" ")  # another picture to its key
    report = planned("int8").run()
    assert (report.cache, report.n_embedded) == (ours, 1)
    with open_cache(ours) as opened:
        table = opened.table
        keys = [key for path, key in zip(table.images.paths, table.keys, strict=True) if not path.endswith("new.png")]
        assert np.array_equal(opened.read("avg_pool", keys), before)


@needs_nncf
def test_a_network_that_was_deleted_is_made_again_from_the_pictures_that_the_cache_names(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in NETWORKS.glob("*int8*.bin")}
    shutil.rmtree(NETWORKS)
    for path in sorted((home / "digits" / "train").glob("*/*"))[:1]:
        shutil.copy(path, path.with_name("0000.png"))  # would be drawn otherwise
    assert planned("int8").run().n_embedded == 0
    assert {path.name: path.read_bytes() for path in NETWORKS.glob("*int8*.bin")} == before


@needs_nncf
def test_rows_of_two_networks_are_never_mixed(home: Path) -> None:
    with open_cache(cache_of("int8")) as opened:
        gone = opened.source["precision"]["calibration"][3]
    (home / "digits" / gone).unlink()
    assert planned("int8").run().n_embedded == 0  # the network is there
    shutil.rmtree(NETWORKS)
    with pytest.raises(FingerprintError, match="cannot be made again: pictures that it was calibrated on have changed"):
        planned("int8").run()
    float32 = cache_of("float32")
    with pytest.raises(FingerprintError, match=r"float32\.h5 holds rows in float32, not int8"):
        planned("int8", cache=float32).run()
    with pytest.raises(FingerprintError, match=r"holds rows of another encoder.*precision: the cache has 'int8:"):
        planned("float32", cache=cache_of("int8")).run()


@needs_nncf
def test_a_head_takes_its_network_along_and_is_given_no_other_rows(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_data(cache_of("int8"), seed=0) as data:
        folder = Path(fit_sklearn(data, "lda").result.model).resolve()
    files = sorted((home / "digits" / "test").glob("*/*"))[::40]
    expected = [(p.label, p.probability) for p in Model(folder).predict(files)]
    away = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    shutil.rmtree(NETWORKS)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [(p.label, p.probability) for p in Model(away).predict(files)] == expected
    about = read_json(away / "model.json")
    for changed, error in (("int8:0123456789abcdef", WeightsError), ("int4", ModelError), (None, None)):
        fingerprint = {**about["fingerprint"], "precision": changed}
        if changed is None:
            del fingerprint["precision"]
        if changed != "int8:0123456789abcdef":
            write_json(away / "model.json", {**about, "fingerprint": fingerprint})
        else:
            for ending in (".xml", ".bin"):
                (away / "network").with_suffix(ending).rename((away / "gone").with_suffix(ending))
        if error is not None:
            with pytest.raises(error):
                list(Model(away).predict(files))


@needs_nncf
def test_every_shard_gets_the_same_network(home: Path) -> None:
    for k in (1, 2):
        shutil.rmtree(NETWORKS, ignore_errors=True)  # another machine
        planned("int8", shard=f"{k}/2", cache="both").run()
    join_shards("both")
    with open_cache("both") as both, open_cache(cache_of("int8")) as one:
        keys = one.table.keys
        assert both.fingerprint == one.fingerprint
        assert np.array_equal(both.read("avg_pool", keys), one.read("avg_pool", keys))


@needs_nncf
@pytest.mark.parametrize(("changed", "said"), [("LEAST_COSINE", "median cosine 0.9"), ("_SIGNIFICANCE", "heads ")])
def test_what_is_worse_is_refused_with_its_figures(
    home: Path, monkeypatch: pytest.MonkeyPatch, changed: str, said: str
) -> None:
    monkeypatch.setattr(precision, changed, 1.01)
    cache_of("int8").unlink()
    with pytest.raises(DataError, match=rf"int8 is refused for digits_cnn on .*{said}") as refused:
        planned("int8").run()
    assert "Leave --precision out" in str(refused.value)
    assert not cache_of("int8").exists()


def test_a_head_that_loses_more_than_the_noise_is_noticed() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 60
    reference = rng.normal(size=(120, 8)).astype(np.float32)
    reference[::2] += 2
    blurred = reference + rng.normal(size=(120, 8)).astype(np.float32) * 6
    (ours, theirs), p_value = precision._heads(blurred, reference, labels)
    assert ours < 0.9 < theirs and p_value < 0.001
    (ours, theirs), p_value = precision._heads(reference, blurred, labels)
    assert p_value > 0.9
    assert precision._heads(reference, reference, labels) == ((theirs, theirs), 1.0) or theirs != ours
    assert precision._heads(reference, blurred, ["a"] * 116 + ["b"] * 4) == (None, 1.0)  # too few of one class
    assert precision._heads(reference, blurred, [""] * 120) == (None, 1.0)


# --- auto -----------------------------------------------------------------------------------------------------


def tried_at(ms: float, float32_ms: float = 10.0, cosine: float = 0.99, p_value: float = 0.5) -> Tried:
    return Tried("", cosine, ms, float32_ms, (0.9, 0.9), p_value)


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        ({"bfloat16": tried_at(6), "int8": tried_at(4)}, "int8"),
        ({"bfloat16": tried_at(6), "int8": tried_at(7)}, "bfloat16"),
        ({"bfloat16": tried_at(6), "int8": tried_at(4, cosine=0.96)}, "bfloat16"),
        ({"bfloat16": tried_at(6, p_value=0.01), "int8": tried_at(4, cosine=float("nan"))}, "float32"),
        ({"bfloat16": tried_at(9.2), "int8": tried_at(9.1)}, "float32"),
        ({"bfloat16": UsageError("not here"), "int8": tried_at(4)}, "int8"),
        ({"int8": tried_at(4)}, "int8"),
    ],
)
def test_auto_takes_the_fastest_that_passes(
    made: Path, monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Any], chosen: str
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(precision, "LEAST_IMAGES", 400)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: "bfloat16" in outcomes)
    monkeypatch.setattr(precision, "is_installed", lambda: True)

    def tried(encoder: KerasEncoder, kind: str, *_: Any) -> tuple[Tried, KerasEncoder, Sample]:
        found = outcomes[kind]
        if isinstance(found, TlfeatError):
            raise found
        precise = {"bfloat16": "bfloat16", "int8": "int8:ab"}[kind]
        return replace(found, precision=precise), encoder.at_precision(precise), Sample([], [], ["p"], [])

    monkeypatch.setattr(precision, "_try", tried)
    said: list[str] = []
    job = planned("auto", cache=made / "new.h5").settled(say=said.append)
    assert isinstance(job.encoder, KerasEncoder)
    assert job.encoder.precision == {"int8": "int8:ab"}.get(chosen, chosen)
    record = job.origin["precision"]
    assert record["asked"] == "auto" and record["processor"]
    assert len(record["tried"]) == sum(isinstance(outcome, Tried) for outcome in outcomes.values())
    assert record.get("calibration") == (["p"] if chosen == "int8" else None)
    assert f"precision: {chosen}, the fastest that passes" in said[-1]
    assert any("not bfloat16: not here" in line for line in said) == isinstance(outcomes.get("bfloat16"), TlfeatError)


def test_auto_takes_float32_of_few_pictures_unasked(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(precision, "_try", None)
    said: list[str] = []
    job = planned("auto", cache=made / "new.h5").settled(say=said.append)
    assert isinstance(job.encoder, KerasEncoder) and job.encoder.precision == "float32"
    assert said == ["precision: float32; below 5,000 pictures another does not pay for being tried"]


@needs_nncf
def test_auto_goes_on_with_the_cache_that_is_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "LEAST_IMAGES", 1)
    paths = planned("auto").paths
    for kind in ("float32", "int8"):
        shutil.copy(cache_of(kind), paths[kind])
    report = planned("auto").run()
    assert (report.cache, report.n_embedded) == (paths["int8"], 0)
    paths["int8"].unlink()
    report = planned("auto").run()
    assert (report.cache, report.n_embedded) == (paths["float32"], 0)
    for kind in ("float32", "int8"):
        report = planned("auto", cache=cache_of(kind)).run()
        assert (report.cache, report.n_embedded) == (cache_of(kind), 0)


# --- the sample -----------------------------------------------------------------------------------------------


def test_a_sample_has_different_training_pictures_in_another_order_for_another_seed(made: Path) -> None:
    images, encoder = load_images(made / "digits"), planned_at(made)
    one, same, other = (draw_sample(images, encoder, 20, seed) for seed in (0, 0, 1))
    assert one.paths == same.paths != other.paths
    assert len(set(one.keys)) == 20 and all(path.startswith("train/") for path in one.paths + other.paths)
    assert one.part(3, 7).labels == [Path(path).parent.name for path in one.paths[3:7]]
    assert len(draw_sample(images, encoder, 1000)) == 50


def test_a_sample_passes_over_what_cannot_be_read_and_copies(made: Path, tmp_path: Path) -> None:
    files = sorted((made / "digits" / "train" / "5").iterdir())[:3]
    for folder in ("a", "b"):
        (tmp_path / "few" / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / "few" / folder)
        (tmp_path / "few" / folder / "bad.png").write_bytes(b"no picture")
    assert len(draw_sample(load_images(tmp_path / "few"), planned_at(made), 8)) == 3


def planned_at(made: Path) -> Any:
    return plan_extraction(made / "digits", backbone=DIGITS).encoder


# --- the commands ---------------------------------------------------------------------------------------------


@needs_nncf
def test_compare_fits_heads_on_the_rows_of_each_precision_and_says_what_is_not_to_be_had(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    words = ["compare", "--precision", "all", "--cache", str(cache_of("float32")), "--heads", "lda", "--no-pixels"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert "bfloat16 is left out: --precision bfloat16 needs a processor that computes in it" in ran.stderr
    assert "0 embedded, 497 known already" in ran.stderr
    assert "digits_cnn (precision int8)" in ran.stdout and "against *" in ran.stdout


@needs_nncf
def test_compare_has_nothing_to_compare_where_all_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "LEAST_COSINE", 1.01)
    cache_of("int8").unlink()
    ran = CliRunner().invoke(app, ["compare", "--precision", "int8", "--cache", str(cache_of("float32"))])
    assert ran.exit_code == 2
    assert "int8 is left out: int8 is refused for digits_cnn" in ran.stderr
    ran = CliRunner().invoke(app, ["compare", "--precision", "auto", "--cache", str(cache_of("float32"))])
    assert ran.exit_code == 2 and "--precision auto is for tlfeat extract" in ran.stderr


@needs_nncf
def test_info_says_the_precision(home: Path) -> None:
    for kind, said in (("int8", "            precision int8:"), ("float32", "")):
        ran = CliRunner().invoke(app, ["cache", "info", "--cache", str(cache_of(kind))])
        assert ran.exit_code == 0
        assert (said in ran.stdout) if said else ("precision" not in ran.stdout)
