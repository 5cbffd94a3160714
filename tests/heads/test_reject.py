"""The answer "unknown": who gets it, how often known pictures get it, and what its file is."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from typer.testing import CliRunner

from conftest import SHARED, MakePhotos, needs_shared
from tlfeat.cli.app import app
from tlfeat.errors import ModelError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads import reject
from tlfeat.heads.known_rows import fit_known_rows
from tlfeat.heads.reject import (
    UNCERTAIN,
    UNLIKE,
    Rejector,
    coverage_table,
    fit_rejector,
    load_rejector,
    reference_text,
    reference_warning,
    refused_share,
    save_rejector,
)
from tlfeat.images.decode import decode_bytes
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.models.predict import Model
from tlfeat.models.saved import read_result
from tlfeat.records import record
from tlfeat.report.comparison import result_text
from tlfeat.types import Labels, Rows
from tlfeat.workspace import write_json

WIDTH = 96


def images(n: int, *, world: int, seed: int) -> tuple[Rows, Labels]:
    """Return rows of two classes near ten directions of a world of their own, and the labels."""
    directions = np.random.default_rng(world).normal(size=(10, WIDTH))
    rng = np.random.default_rng([world, seed])
    labels = rng.integers(0, 2, n)
    weights = rng.normal(size=(n, 10)) + 2 * labels[:, None] * (np.arange(10) < 2)
    return np.abs(weights @ directions + 0.5 * rng.normal(size=(n, WIDTH))).astype(np.float32), labels


def certainties(n: int, seed: int) -> npt.NDArray[np.float64]:
    p = np.random.default_rng(seed).uniform(0.5, 1, n)
    return np.stack([p, 1 - p], axis=1)


def folds_of(labels: Labels) -> list[tuple[Labels, Labels]]:
    return list(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels))


@pytest.fixture(scope="module")
def rejector() -> Rejector:
    rows, labels = images(400, world=0, seed=0)
    found = fit_rejector(rows, folds_of(labels), certainties(400, 1))
    assert found is not None
    return found


def answered(rejector: Rejector, rows: Rows, *, coverage: float = 0.95, seed: int = 2) -> float:
    return np.mean([not why for why in rejector.reasons(rows, certainties(len(rows), seed), coverage=coverage)])


@pytest.mark.parametrize("coverage", [0.99, 0.95, 0.9, 0.8])
def test_of_new_known_pictures_about_the_share_asked_for_is_answered(rejector: Rejector, coverage: float) -> None:
    rows, _ = images(2000, world=0, seed=9)
    assert coverage - 0.04 <= answered(rejector, rows, coverage=coverage) <= coverage + 0.05


def test_pictures_of_another_world_are_refused_however_probable(rejector: Rejector) -> None:
    rows, _ = images(500, world=1, seed=0)
    certain = np.tile([1.0, 0.0], (500, 1))
    assert np.mean([why == UNLIKE for why in rejector.reasons(rows, certain)]) > 0.95


def test_an_uncertain_picture_is_refused_and_it_is_said_why(rejector: Rejector) -> None:
    rows, _ = images(200, world=0, seed=3)
    reasons = rejector.reasons(rows, np.tile([0.5, 0.5], (200, 1)))
    assert set(reasons) <= {UNCERTAIN, UNLIKE} and reasons.count(UNCERTAIN) > 180


def test_few_images_do_not_make_the_threshold_too_strict() -> None:
    """Among neighbours that hold an image itself its distance is too small: a quarter would be refused, not a tenth."""
    answers, flattered = [], []
    for seed in range(5):
        rows, labels = images(40, world=0, seed=seed)
        new, _ = images(1000, world=0, seed=100 + seed)
        found = fit_rejector(rows, folds_of(labels), None)
        assert found is not None
        answers.append(np.mean([not why for why in found.reasons(new, np.ones((1000, 1)), coverage=0.9)]))
        own = found.known_rows.distances(rows)
        flattered.append(np.mean(found.known_rows.distances(new) <= np.quantile(own, 0.9)))
    assert np.mean(answers) > 0.87
    assert np.mean(flattered) < 0.8


@pytest.mark.parametrize("n", [40, 100, 200])
def test_however_few_images_there_are_the_share_asked_for_is_answered(n: int) -> None:
    """Held-out images are not measured among fewer and simpler rows than new ones: too many would be answered."""
    answers = []
    for seed in range(12):
        rows, labels = images(n, world=0, seed=seed)
        found = fit_rejector(rows, folds_of(labels), None)
        assert found is not None
        new, _ = images(1000, world=0, seed=100 + seed)
        answers.append(np.mean([not why for why in found.reasons(new, np.ones((1000, 1)), coverage=0.9)]))
    assert 0.88 <= np.mean(answers) <= 0.93


def test_the_threshold_is_the_rank_among_one_more_image_than_there_are() -> None:
    """Of twenty images 95 % are nineteen, but of the next one that is too little: the largest is the limit."""
    (limits,) = reject._limits([np.random.default_rng(0).permutation(20).astype(float)], [1])
    at = dict(zip(reject._KEPT, limits, strict=True))
    assert [at[coverage] for coverage in (0.95, 0.9, 0.8)] == [19, 18, 16]


def drawings(n: int, seed: int) -> Rows:
    """Rows in the middle of the known ones, all alike: near to everything, though no known image."""
    rng = np.random.default_rng([9, seed])
    middle = np.maximum(images(3000, world=0, seed=0)[0].mean(axis=0) + np.linspace(-1, 1, WIDTH), 0)
    return (middle + 0.1 * rng.normal(size=(n, WIDTH))).astype(np.float32)


def test_what_is_near_to_everything_is_refused_once_drawings_tell_of_it() -> None:
    rows, labels = images(120, world=0, seed=0)
    new, others = images(1500, world=0, seed=9)[0], drawings(300, 2)
    shares = []
    for known in (None, drawings(15, 1)):
        found = fit_rejector(rows, folds_of(labels), certainties(120, 1), known)
        assert found is not None
        assert 0.84 <= answered(found, new, coverage=0.9) <= 0.94
        certain = np.tile([1.0, 0.0], (300, 1))
        shares.append(np.mean([why == UNLIKE for why in found.reasons(others, certain, coverage=0.9)]))
    assert shares[0] < 0.2 and shares[1] > 0.95


def test_without_held_out_probabilities_only_the_distance_counts() -> None:
    rows, labels = images(200, world=0, seed=0)
    found = fit_rejector(rows, folds_of(labels), None)
    assert found is not None
    assert UNCERTAIN not in found.reasons(rows, np.tile([0.5, 0.5], (200, 1)))


def test_without_folds_there_is_no_rejector() -> None:
    assert fit_rejector(images(5, world=0, seed=0)[0], [], None) is None


def test_the_higher_the_coverage_the_fewer_are_refused_and_at_1_none(rejector: Rejector) -> None:
    rows = np.concatenate([images(300, world=0, seed=8)[0], images(50, world=1, seed=8)[0]])
    shares = [answered(rejector, rows, coverage=c) for c in (0.5, 0.7, 0.9, 0.95, 0.99, 1.0)]
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize("coverage", [0.0, 0.4, 0.9999, 95.0])
def test_a_coverage_that_no_threshold_was_kept_for_is_refused(rejector: Rejector, coverage: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0\.5 to 0\.999"):
        rejector.reasons(images(3, world=0, seed=0)[0], certainties(3, 0), coverage=coverage)


def test_the_distance_is_that_of_the_tenth_nearest_neighbour() -> None:
    """Against all columns: known rows hardly leave the components; the length of a row does not count."""
    rows, _ = images(300, world=0, seed=0)
    new = np.concatenate([images(50, world=0, seed=1)[0], images(50, world=1, seed=1)[0]])
    known = fit_known_rows(rows)
    k = len(known.components)
    directions, others = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (new, rows))
    inside = (others - others.mean(axis=0)) @ known.components.T
    apart = (directions - others.mean(axis=0))[:, None, :] - inside @ known.components
    assert known.distances(new) == pytest.approx(np.sort(np.sum(apart**2, axis=2), axis=1)[:, 9], abs=1e-5)
    everything = np.sort(np.sum((directions[:, None] - others) ** 2, axis=2), axis=1)[:, 9]
    assert k == 24 and np.corrcoef(known.distances(new), everything)[0, 1] > 0.98
    assert known.distances(7 * new) == pytest.approx(known.distances(new), abs=1e-5)


def test_of_many_rows_2000_are_kept_and_long_lists_are_taken_in_pieces() -> None:
    rows, _ = images(4500, world=0, seed=0)
    known = fit_known_rows(rows)
    assert known.inside.shape == (2000, 24)
    assert known.distances(rows)[4400:] == pytest.approx(known.distances(rows[4400:]), abs=1e-6)


def test_the_same_rows_give_the_same_bits_and_are_not_changed() -> None:
    rows, labels = images(120, world=0, seed=0)
    before = rows.copy()
    one, other = (fit_rejector(rows, folds_of(labels), certainties(120, 1)) for _ in range(2))
    assert one is not None and other is not None
    assert one.known_rows.components.tobytes() == other.known_rows.components.tobytes()
    assert one.max_distances.tobytes() == other.max_distances.tobytes()
    assert rows.tobytes() == before.tobytes()


@pytest.mark.parametrize("rows", [np.zeros((40, 6)), np.ones((40, 1)), np.eye(40, 6)], ids=["zero", "one", "sparse"])
def test_rows_without_spread_do_no_harm(rows: npt.NDArray[np.float64]) -> None:
    labels = np.arange(40) % 2
    found = fit_rejector(rows.astype(np.float32), folds_of(labels), certainties(40, 0))
    assert found is not None
    assert np.isfinite(found.max_distances).all()


def test_the_coverage_table_counts_answers_and_how_many_are_right(rejector: Rejector) -> None:
    rows, _ = images(300, world=0, seed=4)
    probabilities = certainties(300, 4)
    true = (np.random.default_rng(0).random(300) > probabilities[:, 0]).astype(np.int64)
    table = coverage_table(rejector, rows, probabilities, true)
    assert [line["asked"] for line in table] == [1.0, 0.99, 0.95, 0.9, 0.8]
    assert table[0] == {"asked": 1.0, "answered": 1.0, "accuracy": np.mean(true == 0)}
    assert table[-1]["answered"] < table[1]["answered"]
    assert table[-1]["accuracy"] > table[0]["accuracy"]
    counts = np.arange(300) % 3 == 0  # the others are leaks
    of_some = coverage_table(rejector, rows, probabilities, true, counts)
    assert of_some[0] == {"asked": 1.0, "answered": 1.0, "accuracy": np.mean(true[counts] == 0)}
    assert of_some == coverage_table(rejector, rows[counts], probabilities[counts], true[counts])


def test_what_is_refused_of_reference_images_is_counted_at_95_percent(rejector: Rejector) -> None:
    rows = np.concatenate([images(300, world=0, seed=8)[0], images(50, world=1, seed=8)[0]])
    reasons = rejector.reasons(rows, certainties(350, 3))
    assert refused_share(rejector, rows, certainties(350, 3)) == {
        "n": 350,
        "refused": sum(map(bool, reasons)) / 350,
    }
    assert 0.14 < sum(map(bool, reasons)) / 350 < 0.3


def test_a_model_that_refuses_little_of_some_kind_says_so() -> None:
    found = {"drawings": {"n": 36, "refused": 0.9167}, "photographs": {"n": 37, "refused": 0.7838}}
    assert reference_text(found) == "refuses 92 % of 36 drawings and 78 % of 37 photographs of other things"
    assert "refuses 78 % of 37 photographs of other things: a picture of something else" in reference_warning(found)
    assert reference_warning({"drawings": {"n": 36, "refused": 0.8}}) == ""
    assert reference_text({}) == reference_warning({}) == ""


# --- the file -------------------------------------------------------------------------------------------------


def test_a_saved_rejector_gives_the_same_answers(rejector: Rejector, tmp_path: Path) -> None:
    path = save_rejector(rejector, tmp_path)
    loaded = load_rejector(tmp_path)
    rows, probabilities = images(100, world=1, seed=0)[0], certainties(100, 0)
    assert loaded.reasons(rows, probabilities) == rejector.reasons(rows, probabilities)
    assert path.stat().st_size < 100_000


def test_a_saved_rejector_knows_its_drawings(tmp_path: Path) -> None:
    rows, labels = images(120, world=0, seed=0)
    found = fit_rejector(rows, folds_of(labels), certainties(120, 1), drawings(7, 1))
    assert found is not None
    save_rejector(found, tmp_path)
    loaded = load_rejector(tmp_path)
    assert loaded.drawings is not None and loaded.drawings.directions.shape == (7, WIDTH)
    others, probabilities = drawings(40, 2), np.tile([1.0, 0.0], (40, 1))
    assert loaded.reasons(others, probabilities, coverage=0.9) == found.reasons(others, probabilities, coverage=0.9)
    for name, harm in (("drawings", None), ("drawings", lambda a: a[:, 1:]), ("max_nearness", lambda a: a[1:])):
        save_rejector(found, tmp_path)
        changed(**{name: harm})(tmp_path / "reject.npz")
        with pytest.raises(ModelError, match="is damaged"):
            load_rejector(tmp_path)


def changed(**arrays: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with np.load(path) as archive:
            kept = dict(archive)
        for name, array in arrays.items():
            if array is None:
                del kept[name]
            else:
                kept[name] = array(kept[name]) if callable(array) else array
        np.savez(path, **kept)

    return change


def make_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", bytes(65_000_000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


class Touch:
    """Unpickling it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (Path("code-ran"),)


def put_code(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch()], dtype=object), allow_pickle=True)
    with np.load(path) as archive:
        kept = dict(archive)
    del kept["mean"]
    np.savez(path, **kept)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mean.npy", buffer.getvalue())


@pytest.mark.parametrize(
    "tamper",
    [
        cut,
        flip,
        put_code,
        make_bomb,
        lambda path: path.write_bytes(b"no archive"),
        changed(inside=None),
        changed(inside=lambda a: a[:, 1:]),
        changed(inside=lambda a: a[:0]),
        changed(mean=lambda a: a[:-1]),
        changed(mean=lambda a: a.astype(np.float64)),
        changed(components=lambda a: np.full_like(a, np.nan)),
        changed(components=lambda a: a.ravel()),
        changed(max_distances=lambda a: a[:3]),
        changed(coverages=lambda a: a[::-1]),
        changed(coverages=lambda a: a[:0], max_distances=lambda a: a[:0], min_probabilities=lambda a: a[:0]),
    ],
    ids=[
        *("cut", "flip", "code", "bomb", "text", "missing", "narrow", "none"),
        *("short", "double", "nan", "flat", "few", "falling", "empty"),
    ],
)
def test_a_tampered_file_is_refused_and_no_code_of_it_runs(
    rejector: Rejector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    tamper(save_rejector(rejector, tmp_path))
    with pytest.raises(ModelError, match="it would take" if tamper is make_bomb else "is damaged"):
        load_rejector(tmp_path)
    assert not Path("code-ran").exists()


def test_a_model_without_the_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"reject.npz is missing.*--fresh"):
        load_rejector(tmp_path)


# --- with heads and pictures ------------------------------------------------------------------------------------


@pytest.fixture
def model(make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    report = plan_extraction(make_photos(n=40), backbone="pixels").run()
    with open_data(report.cache, seed=0) as data:
        result = fit_sklearn(data, "logreg").result
    assert result.timing.reject_s is not None
    assert [line["asked"] for line in result.coverage] == [1.0, 0.99, 0.95, 0.9, 0.8]
    return Path(result.model)


def test_a_head_of_other_rows_and_a_rejector_do_not_belong_together(model: Path) -> None:
    found = load_rejector(model)
    known = found.known_rows
    narrow = replace(known, mean=known.mean[1:], components=known.components[:, 1:])
    save_rejector(replace(found, known_rows=narrow), model)
    with pytest.raises(ModelError, match="do not belong together"):
        Model(model, coverage=0.9)
    assert Model(model).rejector is None  # without --reject the file is not even read


def ask(*arguments: object, code: int = 0) -> str:
    """Return what a command says: its result, or the error it ends with."""
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert ran.exit_code == code, ran.stderr
    return ran.stderr if code else ran.stdout


def test_predict_with_reject_answers_unknown_and_says_why(model: Path) -> None:
    strange = np.random.default_rng(0).integers(0, 2, (6, 10, 12, 1), dtype=np.uint8).repeat(3, axis=3) * 255
    names = [f"strange{i}.png" for i in range(6)]
    for name, pixels in zip(names, strange, strict=True):
        Image.fromarray(pixels).save(name)

    plain = json.loads(ask("predict", model, *names, "--json"))
    assert {p["label"] for p in plain} <= {"cat", "dog"} and not any(p["refused"] for p in plain)
    found = json.loads(ask("predict", model, *names, "photos/cat", "--reject", "--json"))
    assert [p["label"] for p in found[:6]] == ["unknown"] * 6
    assert all(p["refused"] and p["probability"] >= 0.5 and p["top"][0][0] in ("cat", "dog") for p in found[:6])
    assert sum(p["label"] == "cat" for p in found[6:]) >= 34

    lines = list(csv.DictReader(io.StringIO(ask("predict", model, *names, "--reject", "--csv"))))
    assert [line["label"] for line in lines] == ["unknown"] * 6 and lines[0]["refused"] == UNLIKE
    text = ask("predict", model, names[0], "--reject", "--coverage", 0.99)
    assert "unknown: unlike the training images (else " in text


def test_a_model_says_what_it_refuses_of_reference_images(model: Path) -> None:
    """As fit-sklearn found it, to people and to scripts; a warning where that is little."""
    result = read_result(model)
    assert {kind: found["n"] for kind, found in result.reference.items()} == {"drawings": 36, "photographs": 36}
    assert record(result)["reference"] == result.reference
    assert f"  {reference_text(result.reference)}" in result_text(result)
    said = CliRunner().invoke(app, ["predict", str(model), "photos/cat/0.png", "--reject"]).stderr
    assert f"This model {reference_text(result.reference)}, and few pictures of a new class" in said

    little = replace(result, reference={"photographs": {"n": 36, "refused": 0.25}})
    write_json(model / "result.json", little.to_dict())
    said = CliRunner().invoke(app, ["predict", str(model), "photos/cat/0.png", "--reject"]).stderr
    assert "warning: with --reject this model refuses 25 % of 36 photographs" in said
    said = CliRunner().invoke(app, ["predict", str(model), "photos/cat/0.png"]).stderr
    assert "refuses" not in said
    said = CliRunner().invoke(app, ["fit-sklearn"]).stderr
    assert "warning: with --reject this model refuses 25 % of 36 photographs" in said
    (model / "result.json").unlink()
    assert "cat" in ask("predict", model, "photos/cat/0.png", "--reject")


def test_a_cache_without_reference_images_gives_a_model_that_says_nothing_of_them(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    report = plan_extraction(make_photos(n=40), backbone="pixels").run()
    shutil.rmtree(tmp_path / "cache" / "reference")
    with open_data(report.cache, seed=0) as data:
        result = fit_sklearn(data, "logreg").result
    assert result.reference == {} and result.coverage
    assert load_rejector(Path(result.model)).drawings is None
    assert "other things" not in result_text(result)


def test_predict_with_reject_refuses_what_it_cannot_do(model: Path) -> None:
    assert "add --reject" in ask("predict", model, "photos/cat", "--coverage", 0.9, code=2)
    assert "expected 0.5 to 0.999" in ask("predict", model, "photos/cat", "--reject", "--coverage", 95, code=2)
    (model / "reject.npz").unlink()  # as an older version left it
    assert "--fresh" in ask("predict", model, "photos/cat", "--reject", code=3)
    assert "cat" in ask("predict", model, "photos/cat")


@pytest.mark.soak
@needs_shared
@pytest.mark.keras
def test_real_photographs_of_another_set_are_refused_and_known_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Potato leaves known, cats and dogs strangers; 120 leaves to learn from, so that it takes seconds."""
    import tarfile

    monkeypatch.chdir(tmp_path)
    for name in ("potato", "cats_dogs"):
        with tarfile.open(SHARED / "data" / f"{name}.tar") as archive:
            members = [m for m in archive if m.isfile() and "healthy" not in m.name]
            archive.extractall(tmp_path, members[:: len(members) // 150], filter="data")
    weights = SHARED / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    report = plan_extraction(tmp_path / "potato", backbone="mobilenet_v2_0.35", weights=str(weights)).run()
    with open_data(report.cache, seed=0) as data:
        result = fit_sklearn(data, "logreg", is_searched=False).result
        known = [data.cache.table.images.root / path for path in result.test_paths]
    loaded = Model(Path(result.model), coverage=0.95)
    strangers = sorted((tmp_path / "cats_dogs").rglob("*.jpg"))
    refused = [p.label == "unknown" for p in loaded.predict(strangers)]
    assert np.mean(refused) > 0.9
    assert np.mean([p.label == "unknown" for p in loaded.predict(known)]) < 0.25


def test_predict_refuses_as_much_as_the_coverage_asks_for(model: Path) -> None:
    """Not the default: at 0.5 about half of the known pictures are refused, and exactly those that the file says."""
    files = sorted(Path("photos").rglob("*.png"))
    plain = Model(model)
    pixels = [decode_bytes(file.read_bytes(), plain.encoder.input_size) for file in files]
    rows = plain.encoder.encode(np.stack(pixels))["pixels"]
    for coverage, low, high in ((0.5, 25, 55), (0.8, 5, 24), (0.99, 0, 4)):
        expected = load_rejector(model).reasons(rows, plain.classify(rows), coverage=coverage)
        found = list(Model(model, coverage=coverage).predict(files))
        assert [p.refused for p in found] == expected
        n_refused = sum(p.label == "unknown" for p in found)
        said = json.loads(ask("predict", model, "photos", "--reject", "--coverage", coverage, "--json"))
        assert sum(p["label"] == "unknown" for p in said) == n_refused
        assert low <= n_refused <= high
