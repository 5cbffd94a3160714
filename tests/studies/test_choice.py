"""Which backbone and layer: chosen without the test images, every cost beside it, the frontier and the next cheaper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_sweep import DeepEncoder, split_photos, swap_labels
from typer.testing import CliRunner

from conftest import MakePhotos, picture
from made_results import a_result
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.graph import CutPoint
from tlfeat.backbones.network import BackboneSpec
from tlfeat.cache.passes import Cost, cost_text
from tlfeat.cli.app import app
from tlfeat.cli.choice import encoder_options
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.intervals import difference_interval, holm, mcnemar
from tlfeat.evaluate.together import open_together
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.plan import ExtractionJob
from tlfeat.images.load import load_images
from tlfeat.models.fit_sklearn import fit_sklearn
from tlfeat.report.choice import choice_finding, sentences
from tlfeat.report.finding import document, write_finding
from tlfeat.studies.choice import Choice, choose, compare_backbones
from tlfeat.studies.choice import _cheaper_ones as cheaper_ones
from tlfeat.studies.contenders import Contender, rows_of
from tlfeat.studies.sweep import MAX_FLAT
from tlfeat.studies.sweep import _pooled as pooled
from tlfeat.types import Pixels, Rows


class Noise(PixelEncoder):
    """A second network, which tells nothing apart: one layer of noise, with two poolings."""

    name = "noise_net"
    layers = ("map", "map:max")  # type: ignore[assignment]

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint, "backbone": self.name, "dtype": "float16"}

    def encode(self, pixels: Pixels) -> dict[str, Rows]:
        seeds = pixels.reshape(len(pixels), -1).astype(np.int64).sum(axis=1)
        noise = np.stack([np.random.default_rng(seed).normal(size=4) for seed in seeds]).astype(np.float32)
        return {"map": noise, "map:max": noise[:, :3]}


def two_caches(photos: Path) -> list[Path]:
    images, folder = load_images(photos), photos.parent
    return [
        extract_rows(images, DeepEncoder(), folder / f"{photos.name}-deep.h5").cache,
        extract_rows(images, Noise(), folder / f"{photos.name}-noise.h5").cache,
    ]


def compared(caches: list[Path], **options: Any) -> Choice:
    wanted: dict[str, Any] = {"layers": (), "pools": (), "heads": ("ridge", "logreg"), "has_pixels": False, **options}
    with open_together(caches, seed=0) as together:
        rows = rows_of(together, wanted.pop("layers"), wanted.pop("pools"))
        return compare_backbones(together, rows, **wanted)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Choice]:
    """The comparison of both caches of 24 pictures a class: what most tests here look at."""
    root = tmp_path_factory.mktemp("choice")
    with working_in(root):
        for c, label in enumerate(("cat", "dog")):
            (root / "photos" / label).mkdir(parents=True)
            for i in range(24):
                image = picture(1000 * c + i)
                tint = Image.new("RGB", image.size, (255, 0, 0) if c else (0, 0, 255))
                Image.blend(image, tint, 0.3).save(root / "photos" / label / f"{i}.png")
        yield compared(two_caches(root / "photos"))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


# --- what is compared -----------------------------------------------------------------------------------------


def test_every_head_on_every_layer_of_every_cache_is_there(found: Choice) -> None:
    singles = {(one.backbone, one.layer, one.head) for one in found.contenders if len(one.layers) == 1}
    assert singles == {
        *(("pixels", layer, head) for layer in DeepEncoder.layers for head in ("ridge", "logreg")),
        *(("noise_net", layer, head) for layer in ("map", "map:max") for head in ("ridge", "logreg")),
    }
    assert found.n_common == 48
    assert len({tuple(one.result.test_keys) for one in found.contenders}) == 1


def test_a_head_of_all_layers_is_listed_by_the_layers_that_it_took_and_never_twice(found: Choice) -> None:
    taken = [(one.cache, tuple(one.layers), one.head) for one in found.contenders]
    assert len(set(taken)) == len(taken)
    several = [one for one in found.contenders if len(one.layers) > 1]
    assert {len(one.layers) for one in several} <= {2, 3}
    assert all(one.width == 3 * len(one.layers) for one in several if one.backbone == "pixels")
    assert all(one.layer in ("both layers", "all 3 layers") for one in several)


def test_a_row_costs_what_the_cache_stores_of_it(found: Choice) -> None:
    sizes = {(one.layer, one.row_bytes) for one in found.contenders if one.head == "ridge" and len(one.layers) == 1}
    assert sizes == {("noise", 12), ("colour", 12), ("faint", 12), ("map", 8), ("map:max", 6)}


def test_results_are_those_of_each_cache_alone_and_reused_by_both(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caches = two_caches(make_photos(n=12))
    with open_data(caches[1], seed=0) as data:
        alone = fit_sklearn(data, "ridge", layer="map")
    first = compared(caches, layers=["map", "colour"], heads=("ridge",))
    assert {(one.layer, one.is_reused) for one in first.contenders if len(one.layers) == 1} == {
        ("map", True),
        ("map:max", False),
        ("colour", False),
    }
    (of_map,) = [one.result for one in first.contenders if one.layer == "map"]
    assert (of_map.model, of_map.predicted) == (alone.result.model, alone.result.predicted)
    again = compared(caches, layers=["map", "colour"], heads=("ridge",))
    assert all(one.is_reused for one in again.contenders)
    assert [one.result.model for one in again.contenders] == [one.result.model for one in first.contenders]
    with open_data(caches[0], seed=0) as data:
        assert fit_sklearn(data, "ridge", layer="colour").is_reused


def test_all_layers_are_fitted_once_in_whatever_order_they_are_listed(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.studies import choice, contenders

    monkeypatch.chdir(tmp_path)
    caches = two_caches(make_photos(n=6))[:1]
    asked = []

    def watched(data: Any, head: str, *, layer: list[str], **options: Any) -> Any:
        outcome = fit_sklearn(data, head, layer=layer, **options)
        asked.append((tuple(layer), outcome.is_reused))
        return outcome

    monkeypatch.setattr(choice, "fit_sklearn", watched)
    compared(caches, heads=("ridge",))
    monkeypatch.setattr(contenders, "shares_of", lambda cache: {"noise": 0.1, "colour": 0.7})  # a sweep found them
    compared(caches, heads=("ridge",))
    assert asked[4:] == [((name,), True) for name in ("noise", "colour", "faint")] + [
        (("colour", "faint", "noise"), True)
    ]


def test_layers_and_poolings_are_taken_as_asked(make_photos: MakePhotos) -> None:
    with open_together(two_caches(make_photos(n=4)), seed=0) as together:

        def layers(**asked: Any) -> list[list[str]]:
            return [rows.layers for rows in rows_of(together, **asked)]

        assert layers() == [["colour", "faint", "noise"], ["map", "map:max"]]
        assert layers(layers=["map"]) == [["map", "map:max"]]
        assert layers(layers=["map:max", "faint"]) == [["faint"], ["map:max"]]
        assert layers(pools=["max"]) == [["map:max"]]
        assert layers(layers=["map", "noise"], pools=["avg"]) == [["noise"], ["map"]]
        with pytest.raises(UsageError, match="No layer 'color' in this cache"):
            layers(layers=["map", "color"])
        with pytest.raises(UsageError, match=r"No layer with --pool gem in .*tlfeat extract DATA --layer LAYER:gem"):
            layers(pools=["gem"])
        with pytest.raises(UsageError, match="No pooling 'maxx'"):
            layers(pools=["maxx"])


def test_caches_of_one_network_are_told_apart_by_what_differs(make_photos: MakePhotos) -> None:
    images = load_images(make_photos(n=4))
    folder = images.root.parent
    caches = [extract_rows(images, PixelEncoder((px, 5)), folder / f"{px}.h5").cache for px in (4, 6)]
    with open_together(caches, seed=0) as together:
        assert [rows.name for rows in rows_of(together)] == ["pixels (input size 4x5)", "pixels (input size 6x5)"]


# --- the choice -----------------------------------------------------------------------------------------------


def test_the_most_held_out_images_right_are_chosen_and_of_equal_ones_the_cheapest() -> None:
    assert choose([0.8, 0.9, 0.7], [1.0, 9.0, 2.0]) == 1
    assert choose([0.8, 0.9, 0.9, 0.9], [1.0, 9.0, 2.0, 2.0]) == 2
    assert choose([0.9, 0.9], [None, 5.0]) == 1
    assert choose([0.9, 0.9, 0.9], [2.0, 2.0, 2.0], [4096, 256, 512]) == 1
    assert choose([None, 0.1], [1.0, None]) == 1
    assert choose([None, None], [1.0, 2.0]) is None


def a_contender(held_out: float, cpu_ms: float | None, *, is_ahead: bool = True, **changes: Any) -> Contender:
    result = replace(a_result("ridge", accuracy=changes.pop("accuracy", 0.5)), held_out_accuracy=held_out)
    cost = None if cpu_ms is None else Cost(cpu_ms, changes.pop("known", "measured"), 300, "Zen")
    values = {"backbone": f"net{cpu_ms:g}" if cpu_ms else "old", "layers": ["avg_pool"], **changes}
    return Contender(
        cache=Path("c.h5"), of_all=1, result=result, is_reused=False, width=4, row_bytes=16, network_bytes=2_000_000,
        cost=cost, is_ahead=is_ahead, **values,
    )  # fmt: skip


def test_the_next_cheaper_is_the_dearest_below_and_the_economical_one_the_cheapest_within_an_error() -> None:
    # one standard error of 90 % of 100 images is 3 points
    found = [a_contender(held, ms) for held, ms in [(0.5, 1), (0.88, 4), (0.89, 8), (0.9, 20)]]
    assert cheaper_ones(found, 3, 100) == (2, 1)
    assert cheaper_ones(found, 3, 100_000) == (2, None)
    assert cheaper_ones(found, 0, 100) == (None, None)
    almost_as_dear = [*found[:3], a_contender(0.9, 8.2)]
    assert cheaper_ones(almost_as_dear, 3, 100) == (1, 1)  # clocks differ by as much
    beaten = [found[0], replace(found[1], is_ahead=False), found[3]]
    assert cheaper_ones(beaten, 2, 100) == (0, None)
    assert cheaper_ones([found[0], a_contender(0.9, None)], 1, 100) == (None, None)


def test_the_frontier_is_that_of_held_out_accuracy_and_cost(found: Choice) -> None:
    for one in found.contenders:
        assert one.cost is not None
        beaten = [
            other
            for other in found.contenders
            if other.cost is not None
            and (other.cost.cpu_ms, -(other.held_out or 0)) <= (one.cost.cpu_ms, 0)
            and (other.held_out or 0) >= (one.held_out or 0)
            and (other.cost.cpu_ms, other.held_out) != (one.cost.cpu_ms, one.held_out)
        ]
        assert one.is_ahead is not bool(beaten), one.name


def test_poisoned_test_labels_change_the_accuracy_and_not_the_choice(make_photos: MakePhotos) -> None:
    honest, poisoned = split_photos(make_photos, "honest"), split_photos(make_photos, "poisoned")
    swap_labels(poisoned / "test")
    one, other = (
        compared(two_caches(photos), heads=("ridge",), layers=["colour", "map"]) for photos in (honest, poisoned)
    )
    held_out = [{of.name: of.held_out for of in choice.contenders} for choice in (one, other)]
    assert held_out[0] == held_out[1]
    assert one.chosen is not None
    assert one.contenders[one.chosen].name == other.contenders[other.chosen or 0].name == "pixels at colour with ridge"
    assert one.contenders[one.chosen].result.score.accuracy == 1
    assert other.contenders[other.chosen or 0].result.score.accuracy == 0


def test_every_other_one_is_tested_against_the_chosen_one(found: Choice) -> None:
    assert found.chosen is not None
    best = found.contenders[found.chosen]
    assert best.against is None
    others = [one for one in found.contenders if one is not best]
    true, chosen = np.array(best.result.true), np.array(best.result.predicted)
    p_values = holm([mcnemar(true, np.array(one.result.predicted), chosen, None) for one in others])
    for one, p in zip(others, p_values, strict=True):
        assert one.against is not None
        assert one.against.p_value == pytest.approx(p)
        assert one.against.difference == one.result.score.accuracy - best.result.score.accuracy
        assert one.against.ci95 == difference_interval(true, np.array(one.result.predicted), chosen, None)
    assert {one.against.difference < 0 for one in others if one.against} == {True, False}


def test_a_layer_that_cannot_carry_the_head_is_listed_and_the_others_are_not_lost(
    make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.studies import choice

    def fails_on_maps(data: Any, head: str, *, layer: list[str], **options: Any) -> Any:
        if "map" in layer:
            raise DataError("too many columns")
        return fit_sklearn(data, head, layer=layer, **options)

    monkeypatch.setattr(choice, "fit_sklearn", fails_on_maps)
    found = compared(two_caches(make_photos(n=6)), heads=("ridge",), layers=["colour", "map"])
    assert found.skipped == [
        ("noise_net at map with ridge", "too many columns"),
        ("noise_net at both layers with ridge", "too many columns"),
    ]
    assert [one.layer for one in found.contenders if one.backbone == "noise_net"] == ["map:max"]


# --- what is said ---------------------------------------------------------------------------------------------


def a_choice(*contenders: Contender, chosen: int | None, cheaper: int | None, economical: int | None = None) -> Choice:
    split = contenders[0].result.split
    return Choice("photos", [Path("c.h5")], split, 20, list(contenders), chosen, cheaper, economical, [], [])


def test_one_sentence_says_which_to_take_and_what_the_next_cheaper_gives_up() -> None:
    from tlfeat.studies.contenders import Against

    few = a_contender(0.9, 4.26, accuracy=0.875, against=Against(0.3, -0.0421, (-0.09, 0.012)))
    best = a_contender(0.95, 12.0, accuracy=0.917)
    (first, second, *rest) = sentences(a_choice(few, best, chosen=1, cheaper=0))
    assert first == (
        "Take net12 at avg_pool with ridge: 91.7 % of the test images are right (95 % interval 11.0 to 91.0), 12.0 ms "
        "of processor an image; the next cheaper one, net4.26 at avg_pool with ridge (4.3 ms), "
        "gives up 4.2 points of them (95 % interval −1.2 to 9.0, within noise)."
    ).replace("12.0 ms", cost_text(best.cost)).replace("4.3 ms", cost_text(few.cost))
    assert second.startswith(
        "It was chosen by the training images: 95.0 % of 15 are right when held out, the most of 2"
    )
    assert rest == []
    better = replace(few, against=Against(0.01, 0.031, (0.01, 0.05)))
    assert (
        "gives up nothing: −3.1 points (95 % interval −5.0 to −1.0)"
        in sentences(a_choice(better, best, chosen=1, cheaper=0))[0]
    )


def test_a_cost_that_is_not_recorded_is_said() -> None:
    found = a_choice(a_contender(0.95, None), chosen=0, cheaper=None)
    assert "what an image costs is not recorded; extract again into a new cache to measure that" in sentences(found)[0]
    assert choice_finding(found).rows[0][3] == "–"
    assert choice_finding(found).records[0]["extract_cpu_known"] == "unknown"


def test_without_held_out_images_nothing_is_recommended(make_photos: MakePhotos) -> None:
    found = compared(
        two_caches(split_photos(make_photos, "few", n_train=1)), heads=("ridge",), layers=["colour", "map"]
    )
    assert (found.chosen, found.cheaper, found.economical) == (None, None, None)
    assert "Label one more image" in sentences(found)[0]
    assert not any(one.is_ahead or one.against for one in found.contenders)
    assert choice_finding(found).chosen_row is None


def test_the_terminal_shows_the_best_head_of_each_layer_and_the_files_show_all(found: Choice, tmp_path: Path) -> None:
    whole, short = choice_finding(found), choice_finding(found, is_short=True)
    assert len(whole.rows) == len(whole.records) == len(found.contenders)
    assert len(short.rows) == len({(one.cache, *one.layers) for one in found.contenders})
    assert short.chosen_row is not None
    assert short.rows[short.chosen_row][0].endswith(" *")
    assert f"{len(whole.rows) - len(short.rows)} more lines with other heads" in short.legend[0]
    paths = write_finding(whole, tmp_path)
    written = json.loads(paths["json"].read_text())
    assert written["lines"] == json.loads(json.dumps(document(whole)["lines"]))
    assert [line["name"] for line in written["lines"] if line["is_chosen"]] == [written["chosen"]]
    assert {line["extract_cpu_known"] for line in written["lines"]} == {"measured", "at most"}
    page = paths["html"].read_text()
    assert all(f">{one.layer}</td>" in page for one in found.contenders)


def test_estimates_and_bounds_carry_a_sign() -> None:
    def text(known: Any) -> str:
        return cost_text(Cost(8.1, known, 10, "Zen"))

    assert text("estimated") == f"~{text('measured')}"
    assert text("at most") == f"≤ {text('measured')}"
    assert cost_text(None) == "–"


# --- several backbones and poolings ---------------------------------------------------------------------------


def test_each_pooling_of_a_map_is_a_layer_a_vector_comes_once_and_what_is_too_wide_is_left_out() -> None:
    early = CutPoint("early", (112, 112, 16), False, 1, 9, 0.1)
    late = CutPoint("late", (7, 7, 8), True, 8, 9, 0.9)
    top = CutPoint("top", (5,), False, 9, 9, 1.0)
    spec = BackboneSpec("mobilenet_v2", "random")
    cuts, notes = pooled([early, late, top], ["avg", "max", "flatten"], spec)
    assert list(cuts) == ["early", "early:max", "avg_pool", "late:max", "late:flatten", "top"]
    assert cuts["late:max"] is late
    assert notes == [f"flatten leaves out what has more than {MAX_FLAT:,} columns then: early"]
    assert pooled([late], ["max"], spec) == ({"late:max": late}, [])


def test_each_backbone_gets_the_options_that_are_for_it() -> None:
    given = {"weights": "v2.h5", "preprocess": "tf", "dtype": "float16"}
    assert encoder_options(["mobilenet_v2", "own.keras"], given) == [
        {"weights": "v2.h5", "dtype": "float16", "backbone": "mobilenet_v2"},
        {"preprocess": "tf", "dtype": "float16", "backbone": "own.keras"},
    ]
    assert encoder_options([], {"pool": "x"}) == [{"pool": "x"}]
    assert [one["weights"] for one in encoder_options(["vgg16", "vgg19"], {"weights": "random"})] == ["random"] * 2
    with pytest.raises(UsageError, match=r"--weights v2.h5 is for one backbone, and there are 2"):
        encoder_options(["vgg16", "vgg19"], given)


# --- the commands ---------------------------------------------------------------------------------------------


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_command_compares_caches_and_prints_the_whole_table_as_json(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = map(str, two_caches(make_photos(n=8)))
    asked = ["compare", "--cache", one, "--cache", other, "--heads", "ridge", "--html", "my.html", "--no-pixels"]
    found = run(*asked, "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["n_common"] == 16
    assert len(document["lines"]) >= 5
    assert {line["encoder"] for line in document["lines"]} == {"pixels", "noise_net"}
    assert "16 pictures in 2 caches, 5 layers" in found.stderr
    assert Path("my.html").read_text() == (tmp_path / "reports" / Path(one).stem / "choice.html").read_text()
    again = run(*asked)
    assert f"{len(document['lines'])} of {len(document['lines'])} results reused" in again.stderr
    assert again.stdout.startswith("Take ")
    assert f"Next: tlfeat predict {tmp_path}/models/" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", "a", "--layer", "b", "--keras", "frozen"], "compared by heads. For networks of Keras"),
        (["--pool", "max", "--epochs", "3"], "name one --cache and one --layer"),
        (["--cache", "a.h5", "--cache", "b.h5", "--plots", "charts"], "the chart is choice.svg, beside the page"),
    ],
)
def test_options_for_one_cache_are_refused_for_several(words: list[str], said: str, tmp_path: Path) -> None:
    found = run("compare", "--cache", str(tmp_path / "c.h5"), *words)
    assert found.exit_code == 2
    assert said in found.stderr.replace("\n", " ")


def test_a_cache_for_several_backbones_is_refused() -> None:
    found = run("sweep", "--backbone", "vgg16", "--backbone", "vgg19", "--cache", "c.h5")
    assert found.exit_code == 2
    assert "each backbone has its own" in found.stderr


def test_sweep_embeds_with_every_backbone_and_compares_their_layers(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlfeat.studies import sweep

    monkeypatch.chdir(tmp_path)
    photos = make_photos(n=8)
    encoders = {"vgg16": DeepEncoder, "vgg19": Noise}
    planned = []

    def plan_sweep(data: Path, *, backbone: str, pools: list[str], **options: Any) -> sweep.SweepJob:
        planned.append((backbone, list(pools), options))
        encoder = encoders[backbone]()
        job = ExtractionJob(load_images(data), encoder, {}, tmp_path / f"{backbone}.h5")
        return sweep.SweepJob(job, dict.fromkeys(encoder.layers[:2]), [f"a note of {backbone}"])  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "plan_sweep", plan_sweep)
    words = ["--backbone", "vgg16", "--backbone", "vgg19", "--pool", "avg", "--model", "ridge", "--seed", "3"]
    found = run("sweep", *words, str(photos), "--json")
    assert found.exit_code == 0, found.output
    assert [(backbone, pools, options["seed"]) for backbone, pools, options in planned] == [
        ("vgg16", ["avg"], 3),
        ("vgg19", ["avg"], 3),
    ]
    lines = json.loads(found.stdout)["lines"]
    assert {tuple(line["layers"]) for line in lines if len(line["layers"]) == 1} == {
        ("noise",), ("colour",), ("map",), ("map:max",)
    }  # fmt: skip
    assert {line["seed"] for line in lines} == {3}
    assert {line["model"] for line in lines} == {"ridge"}
    assert "warning: a note of vgg16" in found.stderr
    assert "warning: a note of vgg19" in found.stderr
