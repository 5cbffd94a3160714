"""An adaptation as a model: from files to predictions, with its domain, its "unknown", its card and its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_data import tlfeat
from tlfeat.cache.store import open_cache
from tlfeat.evaluate.domain_split import make_domain_split
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.extract.plan import plan_extraction
from tlfeat.heads.domain_check import FILE_NAME
from tlfeat.models.model_card import Check, DataSet, Exported, model_card
from tlfeat.models.predict import Model
from tlfeat.records import Result
from tlfeat.studies.adapt import Adaptation, adapt, save_chosen


def domain_picture(rng: Any, domain: str, c: int) -> Image.Image:
    """Noise with the tint of a class; pictures of "night" are dark and red all over."""
    pixels = rng.integers(40, 150, (9, 8, 3)).astype(float)
    pixels[..., 2 if c else 1] += 50
    if domain == "night":
        pixels = 0.4 * pixels + [70, 0, 20]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adaptation, Result]:
    """The folder of the work, an adaptation from "day" to "night", and its saved model."""
    work, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(5)
    for domain in ("day", "night"):
        for c, label in enumerate(("cat", "dog")):
            (work / "set" / domain / label).mkdir(parents=True)
            for i in range(60 if domain == "night" else 30):
                domain_picture(rng, domain, c).save(work / "set" / domain / label / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        cache = plan_extraction(work / "set", backbone="pixels", domains=True).run().cache.resolve()
        with open_cache(cache) as opened:
            split = make_domain_split(opened.table, ["day"], "night", seed=3)
            found = adapt(opened, split, head="ridge", methods="standardise", leaks=LeakedImages([], []))
            result = save_chosen(opened, split, found)
        return work, found, result


def folder_of(made: tuple[Path, Adaptation, Result]) -> Path:
    return made[0] / made[2].model


def files_of(made: tuple[Path, Adaptation, Result], kind: str) -> list[Path]:
    return sorted((made[0] / "set").glob(kind))


def test_the_model_answers_files_as_the_adaptation_answered_their_rows(made: tuple[Path, Adaptation, Result]) -> None:
    work, found, result = made
    assert found.adapted is not None and found.prepared is not None
    assert found.adapted.method.name == "standardise"
    assert found.adapted.head.classes_.tolist() == found.classes
    test = found.prepared.test
    expected = found.adapted.head.predict_proba(test[slice(0, test.shape[0])])
    predictions = list(Model(folder_of(made)).predict([work / "set" / path for path in result.test_paths], n_top=2))
    answers = np.array([[dict(one.top)[name] for name in found.classes] for one in predictions])
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    assert result.score.accuracy == found.lines[found.chosen].accuracy > 0.8
    assert result.score.n_images == 60 and result.kind == "head" and result.candidate == "adapted-ridge"


def test_the_result_says_what_was_used_of_the_target(made: tuple[Path, Adaptation, Result]) -> None:
    _, found, result = made
    assert (
        "adapted to night: 60 of its images without their labels; its other 60 images tested once. Labels are of day"
        in result.notes
    )
    settings = {name: result.settings[name] for name in ("method", "source", "target", "n_adapt", "seed")}
    assert settings == {"method": "standardise", "source": ["day"], "target": "night", "n_adapt": 60, "seed": 3}
    assert result.chosen["circular_accuracy"] == found.lines[found.chosen].circular


def test_a_batch_of_another_domain_is_warned_of_and_one_of_the_same_is_not(
    made: tuple[Path, Adaptation, Result],
) -> None:
    model = Model(folder_of(made))

    def warning(files: list[Path]) -> str:
        assert len(list(model.predict(files))) == len(files)
        return model.domain_warning()

    assert warning(files_of(made, "day/*/*.png")).startswith("DOMAIN: these 60 images are told from those of night")
    tests = [made[0] / "set" / path for path in made[2].test_paths]
    assert warning(tests) == ""
    assert warning([path for path in tests if path.parent.name == "dog"]) == ""
    assert warning(files_of(made, "day/*/1*.png")[:19]) == ""  # too few to judge


def test_predict_prints_the_warning_on_stderr(made: tuple[Path, Adaptation, Result]) -> None:
    run = tlfeat("predict", str(folder_of(made)), "set/day", cwd=made[0])
    assert "warning: DOMAIN: these 60 images" in run.stderr and "DOMAIN" not in run.stdout


def test_a_foreign_domain_file_is_one_error_line(made: tuple[Path, Adaptation, Result], tmp_path: Path) -> None:
    file = folder_of(made) / FILE_NAME
    before = file.read_bytes()
    try:
        np.savez(file, name=np.array("x"), rows=np.zeros((3, 5), np.float32), named=np.zeros(3, np.int64))
        run = tlfeat("predict", str(folder_of(made)), "set/day/cat/1.png", cwd=made[0], expect=3)
        assert run.stderr.count("\n") == 1 and "domain.npz is damaged" in run.stderr
    finally:
        file.write_bytes(before)


def test_unknown_pictures_are_refused_by_images_of_the_target(made: tuple[Path, Adaptation, Result]) -> None:
    model = Model(folder_of(made), coverage=0.95)
    assert model.rejector is not None
    tests = list(model.predict([made[0] / "set" / path for path in made[2].test_paths]))
    others = list(model.predict(files_of(made, "day/*/*.png")))
    assert np.mean([one.label == "unknown" for one in tests]) < 0.3
    assert np.mean([one.label == "unknown" for one in others]) > 0.9
    assert made[2].coverage


def test_the_card_says_source_target_images_and_method(made: tuple[Path, Adaptation, Result]) -> None:
    check = Check("2", 2, 1e-6, 1e-4)
    exported = Exported(Path("m.onnx"), "onnx", [], "onnxruntime 1", 1000, ["cat", "dog"], (16, 16), "antialias", check)
    card = " ".join(model_card(made[2], DataSet("photos"), exported).split())
    assert (
        "**Adapted to night** from day: labels are of day alone. Of night, 60 images were used without their labels, "
        "by the method `standardise` (each domain by its own means and deviations), which was chosen without labels of "
        "night; the test images are others of night, and were seen once."
    ) in card


def test_a_head_that_was_not_adapted_has_no_such_words(made: tuple[Path, Adaptation, Result]) -> None:
    from dataclasses import replace

    check = Check("2", 2, 1e-6, 1e-4)
    exported = Exported(Path("m.onnx"), "onnx", [], "onnxruntime 1", 1000, ["cat", "dog"], (16, 16), "antialias", check)
    assert "Adapted to" not in model_card(replace(made[2], candidate="ridge"), DataSet("photos"), exported)


@pytest.mark.keras
def test_the_exported_network_answers_as_predict_does(made: tuple[Path, Adaptation, Result], tmp_path: Path) -> None:
    from tlfeat.images.decode import decode_batches
    from tlfeat.models.export import export_model
    from tlfeat.models.formats import find_format

    exported = export_model(folder_of(made), "keras", output=tmp_path / "m.keras")
    model, files = Model(folder_of(made)), files_of(made, "night/*/2*.png")
    expected = [[dict(one.top)[name] for name in model.classes] for one in model.predict(files, n_top=2)]
    run = find_format("keras").load(exported.file)
    (pixels,) = decode_batches(files, model.encoder.input_size, 32, model.encoder.resize)
    np.testing.assert_allclose(run(pixels)[1], expected, atol=1e-5)
    assert "**Adapted to night**" in next(path for path in exported.beside if path.suffix == ".md").read_text()
