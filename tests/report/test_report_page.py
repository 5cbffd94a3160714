"""The page of a comparison as a file: whole, escaped, small, from Results that exist."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import MakePhotos, write_photos
from made_results import a_result, as_network, keep_network
from tlfeat import workspace
from tlfeat.backbones import catalog
from tlfeat.cache.store import create_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.finetune.recipes import find_recipe
from tlfeat.report.charts import to_svg
from tlfeat.report.commands import _training, commands
from tlfeat.report.comparison import to_markdown
from tlfeat.report.drawings import accuracy_seconds, learning_curves
from tlfeat.report.embedding_map import make_map
from tlfeat.report.page import _in_script, choose_images, to_html, write_reports
from tlfeat.report.sections import has_upright_names
from tlfeat.studies.compare import Comparison, compare_candidates, known_comparison, names_of
from tlfeat.studies.tradeoff import COSTS
from tlfeat.workspace import read_json, write_json


@pytest.fixture
def cache(make_photos: MakePhotos) -> Path:
    return plan_extraction(make_photos(n=20, classes=("cat", "dog", "newt")), backbone="pixels").run().cache


def page_of(cache: Path, *, heads: tuple[str, ...] = ("logreg", "knn"), maps: bool = True) -> tuple[str, Comparison]:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=heads, keras_modes=(), has_pixels=False)
        keep_network(workspace.models_dir(data.cache.path), found.lines[0].result)
        found = known_comparison(data)
        layout = make_map(data.cache, data.split, "pixels") if maps else None
        return to_html(found, data, layout), found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Comparison]]:
    """The page of a comparison for the tests that only read it, and the comparison; in its folder."""
    folder = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        photos = write_photos(folder / "photos", 20, ("cat", "dog", "newt"))
        yield page_of(plan_extraction(photos, backbone="pixels").run().cache)


def document(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


class Reader(HTMLParser):
    """Collects what an HTML parser makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_elsewhere_and_only_its_own_script_may_run(usual: tuple[str, Comparison]) -> None:
    page, _ = usual
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1 and page.count("<script") == 2
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] or "" for tag, a in Reader(page).tags if a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy
    for tag, attributes in Reader(page).tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "form")
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#") and "src" not in attributes
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", scripts[0])


def test_every_part_is_there_without_scripts(usual: tuple[str, Comparison]) -> None:
    page, found = usual
    static = page.partition('<script type="application/json"')[0]
    for line in found.lines:
        assert static.count(line.name) > 4
    titles = [re.sub("<[^>]*>", "", title) for title in re.findall("<h2.*?</h2>", static)]
    assert titles[:-1] == [
        f"Take {found.lines[0].name}", "Comparison", "Accuracy against seconds", "Confusion matrix",
        f"Most certain mistakes of {found.lines[0].name}", "Reliability of the probabilities", "Map of the embeddings",
        "Learning curves", "How it was made",
    ]  # fmt: skip
    n_charts = 2 * len(COSTS) + 2 + len(found.lines)  # seconds for a screen and for a telephone
    assert static.count('<svg xmlns="http://www.w3.org/2000/svg" class="chart"') == n_charts
    assert "<noscript>" in static and "Epoch 2 (chosen): loss 0.5, validation loss 0.6" in static
    assert found.split.digest in static and "tlfeat fit-sklearn --model knn" in static


def test_without_a_map_there_is_no_part_for_it(cache: Path) -> None:
    assert "Map of the embeddings" not in page_of(cache, heads=("knn",), maps=False)[0]


def test_the_first_screen_shows_the_surest_mistakes_of_the_best(cache: Path) -> None:
    page, found = page_of(cache, heads=("knn",))
    best, known = found.lines[0].result, document(page)
    (strip,) = re.findall(r'id="first">(.*?)</ul>', page, flags=re.DOTALL)
    shown = [known["paths"][int(at)] for at in re.findall('data-image="(.*?)"', strip)]
    rows = zip(best.certainty, best.test_paths, best.true, best.predicted, strict=True)
    wrong = sorted((row for row in rows if row[2] != row[3]), key=lambda row: -row[0])[:8]
    assert wrong and shown == [path for _, path, *_ in wrong]
    for certainty, path, true, predicted in wrong:
        assert f'aria-label="{path}" style="width:' in strip
        assert f"<strong>{best.classes[true]}</strong></div><div>predicted: {best.classes[predicted]}</div>" in strip
        assert f"probability: {100 * certainty:.1f} %" in strip
    assert page.index('id="first"') < page.index('id="table"')


def test_layers_of_a_sweep_stand_folded_away_in_a_table_of_their_own(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("knn", "lda"), keras_modes=(), has_pixels=False)
        lda = next(line for line in found.lines if line.result.candidate == "lda")
        layers = [replace(lda, name=f"lda (layer {i})", result=replace(lda.result, layer=f"layer {i}")) for i in (5, 6)]
        page = to_html(replace(found, lines=[*found.lines, *layers]), data)
    (table,) = re.findall(r'<table class="best stack".*?</table>', page, flags=re.DOTALL)
    (more,) = re.findall(
        r"<details><summary>2 more layers, tried by tlfeat sweep</summary>.*?</table>", page, flags=re.DOTALL
    )
    assert "layer 5" not in table and "layer 6" not in table and lda.name in table
    assert re.findall('<th scope="row">lda</th><td>(.*?)</td>', more) == ["layer 5", "layer 6"]
    assert [candidate["name"] for candidate in document(page)["candidates"]] == [line.name for line in found.lines]


@pytest.mark.parametrize(
    ("n", "name", "is_upright"), [(12, "digit 7", False), (13, "7", True), (12, "Tomato__Leaf_Mold", True)]
)
def test_long_names_stand_upright_over_the_matrix_and_are_not_cut(n: int, name: str, is_upright: bool) -> None:
    assert has_upright_names([name] * n) is is_upright


def test_numbers_of_the_script_are_those_of_the_results(usual: tuple[str, Comparison]) -> None:
    page, found = usual
    known = document(page)
    assert known["classes"] == found.classes and known["nTests"] == found.split.n_test
    for candidate, line in zip(known["candidates"], found.lines, strict=True):
        counts = np.zeros_like(line.result.score.confusion)
        for image, predicted in zip(known["tests"], candidate["predicted"], strict=True):
            counts[known["labels"][image], predicted] += 1
        assert counts.tolist() == line.result.score.confusion == candidate["confusion"]
        assert candidate["certainty"] == pytest.approx([1e6 * p for p in line.result.certainty], abs=0.6)
    paths = [known["paths"][i] for i in known["tests"]]
    assert paths == found.lines[0].result.test_paths
    assert [m["kind"] for m in known["maps"]] == ["pca", "tsne"]
    for layout in known["maps"]:
        points = np.array(layout["points"]).reshape(-1, 2)
        assert len(points) == len(known["paths"]) and points.min() >= 0 and points.max() == 1000
    assert all(len(size) == 2 for size in known["pictures"])


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!-- <script>", "]]>", "\u2028\u2029", "&lt;"])
def test_nothing_ends_the_block_of_data(text: str) -> None:
    written = _in_script({text: [text]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {text: [text]}


def test_of_many_test_images_the_surest_mistakes_are_kept(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("logreg",), keras_modes=(), has_pixels=False)
        result = found.lines[0].result
        n = len(result.true)
        true = np.zeros(n, dtype=int).tolist()
        certainty = np.linspace(0.1, 0.9, n).tolist()
        wrong = {2: 1, 5: 1, 7: 2}
        result = replace(result, true=true, predicted=[wrong.get(i, 0) for i in range(n)], certainty=certainty)
        chosen = choose_images(data, [result], np.array([0, 1]), max_tests=2)
        other = replace(result, predicted=[int(i == 3) for i in range(n)])  # its one mistake is less sure
        of_both = choose_images(data, [result, other], np.array([0, 1]), max_tests=3)
    assert of_both.tests.tolist() == [3, 5, 7]
    assert chosen.tests.tolist() == [5, 7]
    assert chosen.at.tolist()[:2] == [0, 1] and len(set(chosen.at.tolist())) == len(chosen.at)


def test_pictures_that_are_gone_leave_a_reason_on_the_page(cache: Path) -> None:
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("logreg",), keras_modes=(), has_pixels=False)
        root = data.cache.table.images.root
        (root / data.split.paths[0]).unlink()
        Image.new("RGB", (9, 9)).save(root / data.split.paths[1])
        layout = make_map(data.cache, data.split, "pixels", ["pca"])
        pictures = document(to_html(found, data, layout))["pictures"]
        assert "cannot be read" in pictures[0] and pictures[1] == "changed since it was embedded"
        assert len(pictures[2]) == 2 and isinstance(pictures[2], list)
        for path in data.split.paths[1:]:
            (root / path).unlink()
        assert set(document(to_html(found, data, layout))["pictures"]) == {"no picture"}


def test_the_page_of_imported_rows_has_everything_but_pictures(tmp_path: Path) -> None:
    from tlfeat.extract.transfer import import_rows

    rng = np.random.default_rng(0)
    labels = [f"class {i % 2}" for i in range(60)]
    rows = rng.normal(size=(60, 3)) + 3 * np.array([[i % 2] for i in range(60)])
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    (tmp_path / "t.csv").write_text("label\n" + "\n".join(labels) + "\n")
    import_rows(tmp_path / "rows.npy", tmp_path / "t.csv", Path("c.h5"), name="speech")
    with open_data(Path("c.h5"), seed=0) as data:
        found = compare_candidates(data, heads=("lda",), keras_modes=())
        paths = write_reports(found, data, Path("out"))
        assert commands(data.cache, [line.result for line in found.lines])[0].startswith("tlfeat cache import ROWS.npy")
    page = paths["html"].read_text()
    assert set(document(page)["pictures"]) == {"no picture"} and "row 3" in page


@pytest.mark.soak
def test_two_thousand_pictures_stay_below_five_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for c in range(2):
        (tmp_path / "many" / f"class {c}").mkdir(parents=True)
        for i in range(1000):  # coarse noise: about what the detail of photographs takes
            small = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((128, 96), Image.Resampling.BICUBIC)
            image.save(tmp_path / "many" / f"class {c}" / f"{i}.jpg", quality=85)
    cache = plan_extraction(tmp_path / "many", backbone="pixels").run().cache
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("lda",), keras_modes=(), has_pixels=False)
        page = to_html(found, data, make_map(data.cache, data.split, "pixels", ["pca"]))
    known = document(page)
    assert len(known["pictures"]) == 2000 and all(isinstance(size, list) for size in known["pictures"])
    assert 2_000_000 < len(page.encode()) < 5_000_000
    assert known["sheets"]["side"] >= 64


def test_known_results_of_the_same_split_are_lined_up_and_nothing_is_fitted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_data(cache, seed=0) as data:
        with pytest.raises(DataError, match="tlfeat compare"):
            known_comparison(data)
        fitted = compare_candidates(data, heads=("logreg", "knn"), keras_modes=(), has_pixels=False)
    with open_data(cache, seed=1) as other:
        compare_candidates(other, heads=("lda",), keras_modes=(), has_pixels=False)
    monkeypatch.setattr("tlfeat.models.fit_sklearn.fit_head", lambda *a, **k: pytest.fail("fitted"))
    folder = workspace.models_dir(cache)
    write_json(folder / "broken" / "result.json", {"candidate": "x"})
    with open_data(cache, seed=0) as data:
        found = known_comparison(data)
        known, expected = (
            {line.result.model: json.dumps(line.result.to_dict()) for line in comparison.lines}
            for comparison in (found, fitted)
        )
        assert known == expected and len(known) == 2
        assert all(line.is_reused for line in found.lines)
        older = read_json(folder / Path(fitted.lines[0].result.model).name / "result.json")
        older["fingerprint"] = {"backbone": "another"}
        write_json(folder / "other" / "result.json", older)
        assert len(known_comparison(data).lines) == 2


def test_several_results_of_one_candidate_are_told_apart() -> None:
    settings = [{"layer": "a", "seed": 0, "grid": "x"}, {"layer": "b", "seed": 0, "grid": "y"}]
    results = [a_result("svm", settings=s) for s in settings] + [a_result("knn", settings={"k": 3})]
    assert names_of(results) == ["svm (layer a)", "svm (layer b)", "knn"]
    twins = [replace(a_result("svm"), model=f"models/svm-{name}") for name in ("12ab", "34cd")]
    assert names_of(twins) == ["svm [12ab]", "svm [34cd]"]


def test_commands_can_be_typed_again_whatever_the_names(tmp_path: Path, make_photos: MakePhotos) -> None:
    photos = make_photos(n=10).rename(tmp_path / "my photos; $(touch x)")
    cache = plan_extraction(photos, backbone="pixels", cache=Path("a b.h5")).run().cache
    with open_data(cache, seed=3, test_fraction=0.3) as data:
        found = compare_candidates(data, heads=("logreg",), keras_modes=())
        lines = commands(data.cache, [line.result for line in found.lines] + [as_network(found.lines[0].result)])
    words = [shlex.split(line) for line in lines]
    assert words[0] == ["tlfeat", "extract", str(photos), "--backbone", "pixels", "--cache", "a b.h5"]
    common = ["--cache", "a b.h5", "--seed", "3", "--test-fraction", "0.3"]
    assert ["tlfeat", "fit-sklearn", "--model", "logreg", "--layer", "pixels", *common] in words
    assert ["tlfeat", "fit-keras", "--epochs", "3", *common] in words
    assert ["tlfeat", "compare", "--heads", "none", "--keras", "none", *common] in words
    assert words[-1] == ["tlfeat", "report", *common]


def test_the_command_of_an_extraction_has_every_option_that_is_not_usual(
    tmp_path: Path, make_photos: MakePhotos
) -> None:
    photos = make_photos(n=3)
    job = plan_extraction(
        photos,
        backbone="mobilenet_v2_0.35",
        weights="random",
        preprocess="0-1",
        input_size=(32, 40),
        resize="load_img",
        dtype="float16",
        class_map=["dog=wolf"],
        seed=11,
    )
    source = {**job.origin, "root": str(photos), "source": str(photos)}
    with create_cache(tmp_path / "c.h5", {**job.encoder.fingerprint, "precision": "int8:ab12"}, source) as cache:
        cache.reserve({"avg_pool": 4, "block_3_add:max": 4}, 0)
        words = shlex.split(commands(cache, [a_result("knn")])[0])
    assert shlex.join(words) == (
        f"tlfeat extract {photos} --backbone mobilenet_v2_0.35 --weights random --preprocess 0-1 --input-size 32x40 "
        "--layer avg_pool --layer block_3_add:max --resize load_img --dtype float16 --precision int8 "
        "--class-map dog=wolf --seed 11 "
        f"--cache {tmp_path / 'c.h5'}"
    )


def test_the_commands_of_a_joined_cache_make_its_parts_and_join_them(tmp_path: Path) -> None:
    parts = []
    for name in ("a", "b"):
        part, source = tmp_path / f"{name}.h5", {"source": f"photos-{name}", "encoder": {"backbone": "pixels"}}
        create_cache(part, {"backbone": "pixels"}, source).close()
        parts.append(str(part))
    one, other = parts
    with create_cache(tmp_path / "c.h5", {}, {"parts": [*parts, "gone.h5"]}) as cache:
        lines = commands(cache, [a_result("knn")])
    assert lines[:3] == [
        f"tlfeat extract photos-a --backbone pixels --cache {one}",
        f"tlfeat extract photos-b --backbone pixels --cache {other}",
        f"tlfeat adapt --leave-one-out --methods none --cache {one} --cache {other} --cache gone.h5",
    ]


@pytest.mark.parametrize(("way", "is_said"), [("crop", False), ("antialias", True)])
def test_the_command_of_an_extraction_says_a_way_of_resizing_that_is_not_the_networks_own(
    way: str, is_said: bool, tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(catalog.find("mobilenet_v2_0.35"), resize="crop")
    monkeypatch.setitem(catalog._BY_NAME, own.name, own)
    job = plan_extraction(make_photos(n=3), backbone=own.name, weights="random", resize=way)
    source = {**job.origin, "root": str(job.images.root), "source": str(job.images.source)}
    with create_cache(tmp_path / "c.h5", job.encoder.fingerprint, source) as cache:
        assert (f"--resize {way}" in commands(cache, [a_result("knn")])[0]) is is_said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"mode": "scratch", "dense": [128], "learning_rate": 1e-3}, "--from-scratch", id="scratch"),
        pytest.param(
            {"mode": "finetuned", "unfreeze_last": 9, "learning_rate": 1e-4, "dense": [], "trains_batchnorm": True},
            "--unfreeze-last 9 --dense 0 --train-batchnorm",
            id="finetuned",
        ),
        pytest.param(
            {
                **find_recipe("inception-last15").make(is_as_written=True).to_dict(),
                "dense": [512, 256],
                "plateau": 2,
                "augment": "flip=horizontal",
            },
            "--recipe inception-last15 --as-written --dense 512,256 --augment flip=horizontal --reduce-on-plateau 2",
            id="recipe",
        ),
    ],
)
def test_options_of_training_are_those_that_are_not_usual(settings: dict[str, Any], words: str) -> None:
    assert shlex.join(_training(settings)) == words


def test_the_tables_say_the_frontier_and_the_break_even(usual: tuple[str, Comparison]) -> None:
    _, found = usual
    text = to_markdown(found)
    assert "- frontier: none is both faster to fit and more accurate than" in text
    assert not re.search("break-even", text)  # rows of pixels are no extraction
    lines = [replace(line, result=replace(line.result, layer=line.result.layer and "avg_pool")) for line in found.lines]
    assert re.search(
        r"- break-even: extraction .* keras-frozen after 1 training\.", to_markdown(replace(found, lines=lines))
    )


def test_names_in_the_chart_do_not_cover_each_other(usual: tuple[str, Comparison]) -> None:
    _, found = usual
    lines = [replace(found.lines[0], result=replace(r, score=found.lines[0].result.score)) for r in
             (a_result(f"candidate-{i}", fit_s=1 + 0.01 * i, accuracy=0.9) for i in range(6))]  # fmt: skip
    svg = to_svg(accuracy_seconds(lines, "the last fit alone"))
    boxes = []
    for x, y, anchor, name in re.findall(r'class="name" x="(.*?)" y="(.*?)" text-anchor="(.*?)".*?>(.*?)<', svg):
        left = float(x) - (6 * len(name) if anchor == "end" else 0)
        boxes.append((left, float(y) - 10, left + 6 * len(name), float(y)))
    assert len(boxes) >= 5
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


def test_learning_curves_skip_what_is_not_a_number() -> None:
    history = {"loss": [float("nan"), 0.5], "val_loss": [1.0, float("inf")]}
    (chart,) = learning_curves(replace(a_result("keras-frozen", kind="keras"), history=history))
    assert len(chart.marks) == 2 and len(chart.areas) == 2
    assert learning_curves(a_result("svm")) == []


def test_commands_name_the_split_that_was_tested_on(make_photos: MakePhotos) -> None:
    photos = make_photos(n=10)
    photos.rename("classes")
    for split, names in (("train", range(8)), ("val", range(8, 10))):
        for label in ("cat", "dog"):
            Path("photos", split, label).mkdir(parents=True)
            for i in names:
                file = sorted(Path("classes", label).iterdir())[0]
                file.rename(Path("photos", split, label, f"{i}{file.suffix}"))
    cache = plan_extraction(Path("photos"), backbone="pixels", cache=Path("a.h5")).run().cache
    with open_data(cache, seed=0, test_split="none") as data:
        found = compare_candidates(data, heads=("logreg",), keras_modes=(), has_pixels=False)
        lines = commands(data.cache, [line.result for line in found.lines])
    assert all("--test-split none" in line for line in lines[1:])
    with open_data(cache, seed=0) as data:
        assert {data.split.paths[i].split("/")[0] for i in data.split.where("test")} == {"val"}
        again = compare_candidates(data, heads=("logreg",), keras_modes=(), has_pixels=False)
        assert not again.lines[0].is_reused  # another split
        lines = commands(data.cache, [line.result for line in again.lines])
    assert not any("--test-split" in line for line in lines)
