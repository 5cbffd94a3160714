"""Networks stand beside the methods on cached rows: tested on the same images, with no label more than they say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import picture
from tlfeat.cache.store import Cache, open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.domain_split import DomainSplit, make_domain_split
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.extract import adapted as adapted_module
from tlfeat.extract.plan import plan_extraction
from tlfeat.models.listing import saved_models
from tlfeat.models.predict import Model
from tlfeat.report.adaptation import adaptation_finding
from tlfeat.studies import adapt as adapt_module
from tlfeat.studies import adapt_keras
from tlfeat.studies.adapt import Adaptation, adapt, save_chosen
from tlfeat.studies.adapt_keras import Networks, training_split

SOURCES = ["day", "dusk"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes in three domains: 10 each by day, 8 at dusk, 12 at night, who look alike."""
    root = tmp_path_factory.mktemp("domains") / "photos"
    for d, (domain, n) in enumerate((("day", 10), ("dusk", 8), ("night", 12))):
        for c, name in enumerate(("cat", "dog")):
            (root / domain / name).mkdir(parents=True)
            for i in range(n):
                image = picture(1000 * d + 100 * c + i)
                tint = Image.new("RGB", image.size, (255, 40 * d, 0) if c else (0, 40 * d, 255))
                Image.blend(image, tint, 0 if domain == "night" else 0.4).save(root / domain / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def cache(photos: Path) -> Iterator[Cache]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(photos.parent)
        path = plan_extraction(photos, backbone="pixels", domains=True).run().cache.resolve()
    with open_cache(path) as opened:
        yield opened


def to_night(cache: Cache, seed: int = 3) -> DomainSplit:
    return make_domain_split(cache.table, SOURCES, "night", seed=seed)


def fake_training(monkeypatch: pytest.MonkeyPatch, right: dict[int, int]) -> list[Any]:
    """Training gets so many test images right, by how many images train; return what it was called with."""
    calls: list[Any] = []

    def fit_keras(data: Any, settings: Any, **_: Any) -> Any:
        calls.append((data, settings))
        true = data.split.labels[data.split.where("test")]
        n_right = right[int(data.split.info.n_train)]
        predicted = np.where(np.arange(len(true)) < n_right, true, 1 - true)
        timing = SimpleNamespace(extract_s=2.0, fit_s=3.5)
        return SimpleNamespace(
            result=SimpleNamespace(true=true.tolist(), predicted=predicted.tolist(), timing=timing, model=Path("m"))
        )

    monkeypatch.setattr(adapt_keras, "fit_keras", fit_keras)
    return calls


def with_networks(cache: Cache, networks: Networks, methods: str = "none") -> Adaptation:
    return adapt(cache, to_night(cache), head="ridge", methods=methods, networks=networks)


def test_each_row_that_cannot_be_had_is_a_line_with_its_reason(cache: Cache) -> None:
    found = with_networks(cache, Networks(("adabn", "finetuned")))
    assert [line.method.name for line in found.lines] == ["none"]
    assert [name for name, _ in found.skipped] == ["adabn", "finetuned", "finetuned+5"]
    assert all("not made by a Keras backbone" in why for _, why in found.skipped)


def test_a_name_that_is_no_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"No network 'adabm'.*adabn"):
        Networks(("adabm",))


def test_some_images_of_the_sources_validate_and_the_target_tests(cache: Cache) -> None:
    found = to_night(cache)
    split = training_split(found, seed=3)
    role_of = dict(zip(split.paths, split.roles, strict=True))
    assert {split.domains[i] for i in split.where("train", "val")} == set(SOURCES)
    assert [split.paths[i] for i in split.where("test")] == [found.split.paths[i] for i in found.split.where("test")]
    assert sorted(split.labels[split.where("val")]) == [0] * 3 + [1] * 3  # 15 % of 18 in each class
    assert (split.info.n_train, split.info.n_val, split.info.n_test) == (30, 6, found.split.info.n_test)
    assert not set(role_of) & set(found.adapt.paths)
    assert training_split(found, seed=3).info.digest == split.info.digest
    assert training_split(found, seed=4).roles != split.roles


def test_labelled_images_of_the_target_train_and_are_none_that_test(cache: Cache) -> None:
    found = to_night(cache)
    split = training_split(found, 2, seed=3)
    new = [i for i in split.where("train") if split.domains[i] == "night"]
    assert {split.paths[i] for i in new} < set(found.adapt.paths)
    assert sorted(split.labels[new]) == [0, 0, 1, 1]
    assert [split.paths[i].split("/")[1] for i in new] == [split.classes[split.labels[i]] for i in new]
    assert split.info.n_train == 34


def test_every_training_has_a_folder_of_its_own(cache: Cache) -> None:
    found = to_night(cache)
    splits = [found.split, *(training_split(found, k, seed=3) for k in (0, 1, 2)), training_split(found, seed=4)]
    assert len({split.info.digest for split in splits}) == len(splits)


def test_a_target_without_labels_has_none_to_draw(cache: Cache) -> None:
    found = to_night(cache)
    found.adapt.hidden[:] = -1
    with pytest.raises(DataError, match=r"no image of night .* has a label"):
        training_split(found, 2)


def test_networks_that_train_are_shown_beside_the_others_and_never_chosen(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_test = to_night(cache).split.info.n_test
    calls = fake_training(monkeypatch, {30: n_test - 1, 40: n_test})
    found = with_networks(cache, Networks(("finetuned",), epochs=7, head_epochs=3, unfreeze_last=9))
    assert [line.method.name for line in found.lines] == ["none", "finetuned", "finetuned+5"]
    assert [line.accuracy for line in found.lines[1:]] == [(n_test - 1) / n_test, 1.0]
    assert [line.spent_s for line in found.lines[1:]] == [5.5, 5.5]
    assert (found.chosen, found.best) == (0, 1)  # what took labels of the target is not counted for the best
    for data, settings in calls:
        assert (settings.epochs, settings.head_epochs, settings.unfreeze_last) == (7, 3, 9)
        assert (settings.mode, settings.seed, data.seed) == ("finetuned", 3, 3)
    finding = adaptation_finding(found)
    assert [row[6] for row in finding.rows][1:] == ["–", "–"]
    records = json.loads(json.dumps(finding.records))
    assert [record["circular_accuracy"] for record in records][1:] == [None, None]
    told = " ".join(finding.legend)
    assert "finetuned and finetuned+5 cannot be taken there and back, and are never chosen" in told
    assert "finetuned+5 knows 5 labels a class of night" in told
    assert "finetuned+5" not in " ".join(finding.sentences)


def test_only_test_images_that_count_are_counted_for_networks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    found = to_night(cache)
    test = [found.split.paths[i] for i in found.split.where("test")]
    fake_training(monkeypatch, {30: 1, 40: 1})
    leaked = {"test": test[0], "learned": found.adapt.paths[0], "kind": "bytes", "similarity": 1.0}
    leaks = LeakedImages([leaked], [])
    lines = adapt(cache, found, head="ridge", methods="none", networks=Networks(("finetuned",)), leaks=leaks).lines
    assert [len(line.right) for line in lines] == [len(test) - 1] * 3
    assert lines[1].accuracy == 0


def test_rows_of_adabn_are_of_each_domains_network_and_no_test_image_is_measured(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[list[str], list[str]]] = {}
    found, paths = to_night(cache), cache.table.images.paths
    value = {"day": 1.0, "dusk": 2.0, "night": 4.0}

    @contextmanager
    def open_adapted(_: Cache, measured: Sequence[int], embedded: Sequence[int], **given: Any) -> Iterator[Any]:
        domain = given["domain"]
        seen[domain] = [paths[i] for i in measured], [paths[i] for i in embedded]
        yield SimpleNamespace(
            path=Path(domain),
            layers=cache.layers,
            read=lambda layer, keys: cache.read(layer, keys) * 0 + value[domain] + own(keys),
        )

    def own(keys: Sequence[str]) -> Any:
        return np.array([[int(key[:6], 16) / 2**24] for key in keys], np.float32)

    monkeypatch.setattr(adapt_keras, "open_adapted", open_adapted)
    layers = list(cache.layers)
    source, target, test, path = adapt_keras._adapted_rows(cache, found, layers, lambda *_: None)
    split, at, test_at = found.split, found.split.where("train"), found.split.where("test")
    of = np.array([value[split.domains[i]] for i in at])[:, None]
    np.testing.assert_allclose(source[:, :1], of + own([split.keys[i] for i in at]), rtol=1e-6)
    np.testing.assert_allclose(target[:, :1], 4 + own(found.adapt.keys), rtol=1e-6)
    np.testing.assert_allclose(test[:, :1], 4 + own([split.keys[i] for i in test_at]), rtol=1e-6)
    tested = {split.paths[i] for i in test_at}
    assert path == Path("night")
    assert seen["night"][0] == found.adapt.paths
    assert set(seen["night"][1]) == {*found.adapt.paths, *tested}
    for domain in SOURCES:
        assert {path.split("/")[0] for path in seen[domain][0]} == {domain}
        assert seen[domain][0] == seen[domain][1]


@pytest.mark.keras
def test_what_a_network_of_the_target_gives_can_be_chosen_saved_and_predicted_with(
    photos: Path, small_network: Path, monkeypatch: pytest.MonkeyPatch, eagerly: None
) -> None:
    monkeypatch.setattr(adapted_module, "MIN_IMAGES", 8)
    monkeypatch.setattr(adapt_keras, "open_adapted", partial(adapted_module.open_adapted, runtime="tensorflow"))
    monkeypatch.setattr(adapt_keras, "TRAINED", (adapt_keras.FINETUNED_FEW,))  # one training is enough
    monkeypatch.setattr(adapt_module, "_promise", lambda line: float(line.method.name == "adabn+self"))
    job = plan_extraction(photos, backbone=str(small_network), preprocess="tf", runtime="tensorflow", domains=True)
    with open_cache(job.run().cache) as opened:
        split = make_domain_split(opened.table, ["day"], "night", seed=3)  # two networks, not three
        networks = Networks(("adabn", "finetuned"), epochs=1, head_epochs=1, unfreeze_last=3)
        found = adapt(opened, split, head="ridge", methods="none", networks=networks)
        assert found.skipped == []
        assert [line.method.name for line in found.lines] == ["none", "adabn", "adabn+self", "finetuned+5"]
        assert [line.circular is None for line in found.lines] == [False, False, False, True]
        result = save_chosen(opened, split, found)
        models = saved_models(opened.path)
    assert result.score.accuracy == found.lines[2].accuracy
    assert result.backbone.startswith("small-night-")
    assert {model.result.candidate for model in models} == {"adapted-ridge", "keras-finetuned"}
    model = Model(result.model)
    answers = model.predict([photos / path for path in result.test_paths])
    assert [answer.label for answer in answers] == [result.classes[i] for i in result.predicted]
