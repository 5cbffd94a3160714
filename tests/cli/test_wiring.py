"""Every option of every command: the value that is given, and not the default, reaches the function that does the work.

The functions are watched, and nothing is done. A new option has no place here until a line says where it goes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import ANY, MagicMock

import pytest
import typer.main

from tlfeat import workspace
from tlfeat.backbones import figures, graph
from tlfeat.cache import clean as cache_clean
from tlfeat.cache import contents, joined, repair, shard_join, store
from tlfeat.cli import app as cli
from tlfeat.cli import fit as cli_fit
from tlfeat.cli import label as cli_label
from tlfeat.errors import DataError
from tlfeat.evaluate import data, domain_split, together
from tlfeat.extract import cluster, plan, transfer
from tlfeat.finetune import recipes, saved
from tlfeat.finetune.settings import TrainSettings
from tlfeat.heads.reject import COVERAGE
from tlfeat.labelling import next as labelling_next
from tlfeat.labelling import next_forms, start, start_walking
from tlfeat.models import export, fit_keras, fit_sklearn, listing, predict
from tlfeat.report import adaptation, cluster_map, finding, page, plots
from tlfeat.report import audit as audit_report
from tlfeat.report import choice as choice_report
from tlfeat.report import curve as curve_report
from tlfeat.report import leave_one_out as leave_one_out_report
from tlfeat.report import similar as similar_report
from tlfeat.report import sweep as sweep_report
from tlfeat.studies import (
    adapt,
    audit,
    choice,
    clean,
    compare,
    contenders,
    curve,
    leave_one_out,
    precisions,
    similar,
    sweep,
)
from tlfeat.studies.compare import compare_candidates

WATCHED: dict[ModuleType, tuple[str, ...]] = {
    plan: ("plan_extraction",),
    cluster: ("extract_on_cluster",),
    data: ("open_data",),
    together: ("open_together",),
    fit_sklearn: ("fit_sklearn",),
    fit_keras: ("fit_keras",),
    plots: ("learning_curves",),
    recipes: ("describe",),
    saved: ("summarise",),
    compare: ("compare_candidates", "known_comparison"),
    page: ("write_reports",),
    contenders: ("rows_of",),
    precisions: ("plan_precisions",),
    choice: ("compare_backbones",),
    choice_report: ("choice_finding",),
    sweep: ("plan_sweep", "sweep_layers"),
    sweep_report: ("sweep_finding",),
    finding: ("write_finding",),
    curve: ("learning_curve",),
    curve_report: ("keras_hint", "curve_finding"),
    domain_split: ("choose_domains", "make_domain_split"),
    adapt: ("adapt", "save_chosen"),
    adaptation: ("adaptation_finding",),
    leave_one_out: ("leave_one_out",),
    leave_one_out_report: ("leave_one_out_finding",),
    audit: ("audit",),
    clean: ("write_clean_table",),
    audit_report: ("write_reports",),
    labelling_next: ("next_pictures", "names_in"),
    workspace: ("write_text",),
    next_forms: ("to_text", "to_format", "interface_lines", "to_document"),
    similar: ("find_similar",),
    similar_report: ("write_reports", "to_text", "to_document"),
    cluster_map: ("map_cache", "check_color", "write_reports", "to_text", "to_document"),
    listing: ("saved_models", "find_model"),
    predict: ("find_files", "Model", "to_csv"),
    export: ("export_model",),
    graph: ("list_layers",),
    figures: ("alike", "ordered"),
    store: ("open_cache",),
    joined: ("join_caches",),
    repair: ("repair_cache",),
    cache_clean: ("find_leftovers", "remove"),
    cli_label: ("_serve",),
    shard_join: ("join_shards",),
    start: ("open_labelling",),
    start_walking: ("open_fixing", "open_reviewing"),
    transfer: ("export_rows", "import_rows"),
}

#: What every command has for what it says.
SPOKEN = {"as_json", "quiet", "verbose", "help"}

#: Options that reach no other function: they choose what is printed, and the tests named here read that.
PRINTED = {("extract", "profile"): "extract/test_profile.py"}


class Anything(MagicMock):
    """A value that every command can go on with."""

    def __format__(self, how: str) -> str:
        return "1"


class Watch:
    """The arguments that the watched functions were called with, by name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.returned: dict[str, Any] = {}
        for module, names in WATCHED.items():
            for name in names:
                self._watch(patch, module, name)
        self.returned["domain_split.choose_domains"] = (["left"], "right")
        patch.setattr(workspace, "newest_cache", lambda: Path("newest.h5"))
        patch.setattr(
            contents, "choose_layers", lambda _, asked: [asked or "x"] if isinstance(asked, str | None) else asked
        )
        patch.setattr(fit_keras, "other_backbone", lambda *_: "")
        patch.setattr(cli_fit, "_show", lambda *_: None)

    def _watch(self, patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        place = f"{module.__name__.rpartition('.')[2]}.{name}"
        signature = inspect.signature(getattr(module, name))
        rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
        self.renew(place)

        def watched(*arguments: Any, **named: Any) -> Any:
            bound = dict(signature.bind(*arguments, **named).arguments)
            self.calls[place] = {**bound, **bound.pop(rest, {})}
            return self.returned[place]

        patch.setattr(module, name, watched)

    def renew(self, place: str) -> None:
        """Make another value for a function to return: what was done with the one before is forgotten."""
        self.returned[place] = Anything(name=place)

    def argument(self, where: str) -> Any:
        """Return an argument: ``module.function argument``, ``module.function().method argument``, or a part of it."""
        place, _, name = where.partition(" ")
        name, *parts = name.split(".")
        function, *methods = place.split("().")
        called = self.calls[function]
        if methods:
            on = self.returned[function]
            for method in methods[:-1]:
                on = getattr(on, method).return_value
            called = getattr(on, methods[-1]).call_args.kwargs
        value = called[name]
        for part in parts:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with pytest.MonkeyPatch.context() as patch:
        yield Watch(patch)


COMMANDS: Any = typer.main.get_command(cli.app)  # once: it takes longer than a command


@dataclass(frozen=True)
class Case:
    """What is typed after a command for one of its parameters, and what is to arrive where."""

    command: str
    parameter: str
    words: str
    where: str
    expected: Any

    def __str__(self) -> str:
        return f"{self.command} {self.parameter}".replace(" ", "-")


def cases_of(command: str, *lines: tuple[str, str, str, Any]) -> list[Case]:
    return [Case(command, *line) for line in lines]


def encoder_lines(to: str) -> list[tuple[str, str, str, Any]]:
    return [
        ("backbone", "--backbone resnet50", f"{to} backbone", "resnet50"),
        ("weights", "--weights random", f"{to} weights", "random"),
        ("preprocess", "--preprocess caffe", f"{to} preprocess", "caffe"),
        ("input_size", "--input-size 64x48", f"{to} input_size", (64, 48)),
        ("class_map", "--class-map a=b --class-map c=d", f"{to} class_map", ["a=b", "c=d"]),
        ("classes", "--classes a,b", f"{to} classes", ["a", "b"]),
        ("label_from", "--label-from parent", f"{to} label_from", "parent"),
        ("path_column", "--path-column id", f"{to} path_column", "id"),
        ("label_column", "--label-column breed", f"{to} label_column", "breed"),
        ("domain_column", "--domain-column camera", f"{to} domain_column", "camera"),
        ("domains", "--domains", f"{to} domains", True),
        ("cache", "--cache my.h5", f"{to} cache", Path("my.h5")),
        ("data", "my-photos", f"{to} data", "my-photos"),
    ]


def row_lines(to: str) -> list[tuple[str, str, str, Any]]:
    return [
        ("pool", "--pool gem", f"{to} pool", "gem"),
        ("runtime", "--runtime tensorflow", f"{to} runtime", "tensorflow"),
        ("resize", "--resize dataset", f"{to} resize", "dataset"),
        ("dtype", "--dtype float16", f"{to} dtype", "float16"),
        ("precision", "--precision bfloat16", f"{to} precision", "bfloat16"),
        ("text_column", "--text-column body", f"{to} text_column", "body"),
    ]


SPLIT = [
    ("seed", "--seed 7", "data.open_data seed", 7),
    ("test_fraction", "--test-fraction 0.35", "data.open_data test_fraction", 0.35),
    ("test_split", "--test-split val", "data.open_data test_split", "val"),
]
CACHE = [("cache", "--cache my.h5", "data.open_data cache_path", Path("my.h5"))]
PAGE = [
    ("html", "--html my.html", "page.write_reports html", Path("my.html")),
    ("plots", "--plots charts", "page.write_reports plots", Path("charts")),
    ("maps", "--map pca", "page.write_reports maps", ("pca",)),
    ("output", "--output reports", "page.write_reports folder", Path("reports")),
]
FINDING = ("output", "--output reports", "finding.write_finding folder", Path("reports"))

RECIPE = "mobilenetv2-binary"


def network_lines(to: str) -> list[tuple[str, str, str, Any]]:
    return [
        ("unfreeze_last", "--unfreeze-last 9", f"{to} settings.unfreeze_last", 9),
        ("unfreeze_last", "--unfreeze-last 9", f"{to} settings.mode", "finetuned"),
        ("is_from_scratch", "--from-scratch", f"{to} settings.mode", "scratch"),
        ("dense", "--dense 64,32", f"{to} settings.dense", (64, 32)),
        ("dropout", "--dropout 0.35", f"{to} settings.dropout", 0.35),
        ("loss", "--loss categorical_crossentropy", f"{to} settings.loss", "categorical_crossentropy"),
        ("trains_batchnorm", "--unfreeze-last 9 --train-batchnorm", f"{to} settings.trains_batchnorm", True),
    ]


CASES = [
    *cases_of(
        "extract",
        *encoder_lines("plan.plan_extraction"),
        *row_lines("plan.plan_extraction"),
        ("layer", "--layer one --layer two", "plan.plan_extraction layers", ["one", "two"]),
        ("batch_size", "--batch-size 5", "plan.plan_extraction batch_size", 5),
        ("threads", "--threads 3", "plan.plan_extraction n_threads", 3),
        ("threads", "--threads 3", "plan.plan_extraction().settled().run n_threads", 3),
        ("seed", "--seed 7", "plan.plan_extraction seed", 7),
        ("compress", "--compress", "plan.plan_extraction().settled().run is_compressed", True),
        ("strict", "--strict", "plan.plan_extraction().settled().run is_strict", True),
        ("shard", "--shard 3/7", "plan.plan_extraction shard", "3/7"),
        ("ray", "--ray head:6379", "cluster.extract_on_cluster address", "head:6379"),
        ("ray", "--ray", "cluster.extract_on_cluster address", "auto"),
        ("ray", "--ray --seed 7", "plan.plan_extraction is_dealt", True),
        ("workers", "--ray --workers 3", "cluster.extract_on_cluster n_workers", 3),
        ("shards", "--ray --shards 9", "cluster.extract_on_cluster n_shards", 9),
        ("threads", "--ray --threads 2", "cluster.extract_on_cluster n_threads", 2),
        ("compress", "--ray --compress", "cluster.extract_on_cluster is_compressed", True),
        ("strict", "--ray --strict", "cluster.extract_on_cluster is_strict", True),
    ),
    *cases_of(
        "fit-sklearn",
        *SPLIT,
        *CACHE,
        ("model", "--model ridge", "fit_sklearn.fit_sklearn head", "ridge"),
        ("unlabelled", "--model spread --unlabelled more.h5", "store.open_cache path", Path("more.h5")),
        ("param", "--model sklearn.svm:SVC --param C=3", "fit_sklearn.fit_sklearn parameters", {"C": 3}),
        ("grid", "--model sklearn.svm:SVC --grid C=3,0.5", "fit_sklearn.fit_sklearn grid", {"C": [3, 0.5]}),
        ("layer", "--layer one --layer two", "fit_sklearn.fit_sklearn layer", ["one", "two"]),
        ("search", "--search thorough", "fit_sklearn.fit_sklearn effort", "thorough"),
        ("no_search", "--no-search", "fit_sklearn.fit_sklearn is_searched", False),
        ("file_format", "--format joblib", "fit_sklearn.fit_sklearn file_format", "joblib"),
        ("fresh", "--fresh", "fit_sklearn.fit_sklearn is_fresh", True),
    ),
    *cases_of(
        "fit-keras",
        *SPLIT,
        *CACHE,
        *(
            (name, words if name == "data" else f"my-photos {words}", where, expected)
            for name, words, where, expected in encoder_lines("plan.plan_extraction")
        ),
        ("seed", "my-photos --seed 7", "plan.plan_extraction seed", 7),
        ("seed", "--seed 7", "fit_keras.fit_keras settings.seed", 7),
        ("recipe", "--recipe RECIPE", "fit_keras.fit_keras settings.recipe", RECIPE),
        (
            "is_as_written",
            "--recipe RECIPE --as-written",
            "fit_keras.fit_keras settings.recipe",
            f"{RECIPE}-as-written",
        ),
        *network_lines("fit_keras.fit_keras"),
        ("augment", "--augment flip=vertical", "fit_keras.fit_keras settings.augment.flip", "vertical"),
        ("views", "--augment flip --views 3", "fit_keras.fit_keras settings.views", 3),
        ("optimizer", "--optimizer sgd", "fit_keras.fit_keras settings.optimizer", "sgd"),
        ("learning_rate", "--learning-rate 0.003", "fit_keras.fit_keras settings.learning_rate", 0.003),
        ("head_epochs", "--unfreeze-last 9 --head-epochs 4", "fit_keras.fit_keras settings.head_epochs", 4),
        (
            "head_learning_rate",
            "--unfreeze-last 9 --head-epochs 4 --head-learning-rate 0.02",
            "fit_keras.fit_keras settings.head_learning_rate",
            0.02,
        ),
        ("plateau", "--reduce-on-plateau 2", "fit_keras.fit_keras settings.plateau", 2),
        ("epochs", "--epochs 6", "fit_keras.fit_keras settings.epochs", 6),
        ("patience", "--patience 5", "fit_keras.fit_keras settings.patience", 5),
        ("keep", "--keep last", "fit_keras.fit_keras settings.keep", "last"),
        ("batch_size", "--batch-size 5", "fit_keras.fit_keras settings.batch_size", 5),
        ("cut", "--cut float16", "fit_keras.fit_keras settings.cut", "float16"),
        ("cut_gb", "--cut-gb 0.5", "fit_keras.fit_keras max_cut_bytes", 0.5e9),
        ("fresh", "--fresh", "fit_keras.fit_keras is_fresh", True),
        ("plots", "--plots charts", "plots.learning_curves folder", Path("charts")),
    ),
    *cases_of("recipes", ("name", "RECIPE", "recipes.describe recipe.name", RECIPE)),
    *cases_of(
        "summary",
        *network_lines("saved.summarise"),
        ("recipe", "--recipe RECIPE", "saved.summarise settings.recipe", RECIPE),
        ("is_as_written", "--recipe RECIPE --as-written", "saved.summarise settings.recipe", f"{RECIPE}-as-written"),
        ("model", "my-model", "saved.summarise model", Path("my-model")),
        ("backbone", "--backbone resnet50", "saved.summarise backbone", "resnet50"),
        ("preprocess", "--preprocess caffe", "saved.summarise preprocess", "caffe"),
        ("input_size", "--input-size 64x48", "saved.summarise input_size", (64, 48)),
        ("classes", "--classes 9", "saved.summarise n_classes", 9),
    ),
    *cases_of(
        "compare",
        *SPLIT,
        *CACHE,
        *PAGE,
        ("layer", "--layer one", "compare.compare_candidates layer", "one"),
        ("layer", "--layer one", "page.write_reports layer", "one"),
        ("heads", "--heads ridge,knn", "compare.compare_candidates heads", ("ridge", "knn")),
        ("keras", "--keras scratch", "compare.compare_candidates keras_modes", ("scratch",)),
        ("pixels", "--no-pixels", "compare.compare_candidates has_pixels", False),
        ("epochs", "--epochs 6", "compare.compare_candidates keras_options.epochs", 6),
        ("unfreeze_last", "--unfreeze-last 9", "compare.compare_candidates keras_options.unfreeze_last", 9),
        ("recipe", "--recipe one --recipe two", "compare.compare_candidates recipes", ["one", "two"]),
        ("fresh", "--fresh", "compare.compare_candidates is_fresh", True),
        ("precision", "--precision int8", "precisions.plan_precisions kinds", ("int8",)),
        ("precision", "--cache my.h5 --precision all", "precisions.plan_precisions cache", Path("my.h5")),
        ("cache", "--cache a.h5 --cache b.h5", "together.open_together paths", [Path("a.h5"), Path("b.h5")]),
        ("layer", "--layer one --layer two", "contenders.rows_of layers", ["one", "two"]),
        ("pool", "--pool gem --pool max", "contenders.rows_of pools", ["gem", "max"]),
        ("heads", "--pool gem --heads ridge,knn", "choice.compare_backbones heads", ("ridge", "knn")),
        ("pixels", "--pool gem --no-pixels", "choice.compare_backbones has_pixels", False),
        ("fresh", "--pool gem --fresh", "choice.compare_backbones is_fresh", True),
        ("seed", "--pool gem --seed 7", "together.open_together seed", 7),
        ("test_fraction", "--pool gem --test-fraction 0.35", "together.open_together test_fraction", 0.35),
        ("test_split", "--pool gem --test-split val", "together.open_together test_split", "val"),
        ("output", "--pool gem --output reports", "finding.write_finding folder", Path("reports")),
    ),
    *cases_of(
        "report",
        *SPLIT,
        *CACHE,
        *PAGE,
        ("layer", "--layer one", "page.write_reports layer", "one"),
    ),
    *cases_of(
        "sweep",
        *encoder_lines("sweep.plan_sweep"),
        *row_lines("sweep.plan_sweep"),
        *SPLIT,
        FINDING,
        ("seed", "--seed 7", "sweep.plan_sweep seed", 7),
        ("model", "--model ridge", "sweep.sweep_layers head", "ridge"),
        ("fresh", "--fresh", "sweep.sweep_layers is_fresh", True),
        ("backbone", "--backbone resnet50 --backbone vgg16", "sweep.plan_sweep backbone", "vgg16"),
        ("weights", "--backbone resnet50 --backbone vgg16 --weights random", "sweep.plan_sweep weights", "random"),
        ("pool", "--pool gem --pool max", "sweep.plan_sweep pools", ["gem", "max"]),
        ("model", "--pool gem --pool max --model ridge", "choice.compare_backbones heads", ["ridge"]),
        ("fresh", "--pool gem --pool max --fresh", "choice.compare_backbones is_fresh", True),
        ("seed", "--pool gem --pool max --seed 7", "sweep.plan_sweep seed", 7),
        ("test_split", "--pool gem --pool max --test-split val", "together.open_together test_split", "val"),
        ("output", "--pool gem --pool max --output reports", "finding.write_finding folder", Path("reports")),
    ),
    *cases_of(
        "curve",
        *SPLIT,
        *CACHE,
        FINDING,
        ("layer", "--layer one", "curve.learning_curve layer", "one"),
        ("heads", "--heads ridge,lda", "curve.learning_curve heads", ("ridge", "lda")),
        ("keras", "--keras scratch", "curve.learning_curve keras_modes", ("scratch",)),
        ("pixels", "--no-pixels", "curve.learning_curve has_pixels", False),
        ("counts", "--counts 3,7", "curve.learning_curve counts", [3, 7]),
        ("counts", "--counts 3,7", "curve.learning_curve keras_counts", [3, 7]),
        ("keras_counts", "--keras-counts 4", "curve.learning_curve keras_counts", [4]),
        ("keras_counts", "--keras-counts 4", "curve.keras_hint counts", [4]),
        ("draws", "--draws 9", "curve.learning_curve n_draws", 9),
        ("keras_draws", "--keras-draws 8", "curve.learning_curve n_keras_draws", 8),
        ("keras_draws", "--keras-draws 8", "curve.keras_hint n_draws", 8),
        ("epochs", "--epochs 6", "curve.learning_curve keras_options.epochs", 6),
        ("fresh", "--fresh", "curve.learning_curve is_fresh", True),
    ),
    *cases_of(
        "adapt",
        FINDING,
        ("source", "--source photo,art", "domain_split.choose_domains sources", ["photo", "art"]),
        ("target", "--target sketch", "domain_split.choose_domains target", "sketch"),
        ("model", "--model ridge", "adapt.adapt head", "ridge"),
        ("methods", "--methods self,prior", "adapt.adapt methods", "self,prior"),
        ("labels", "--labels 9,3", "adapt.adapt labels", [3, 9]),
        ("draws", "--draws 9", "adapt.adapt n_draws", 9),
        ("layer", "--layer one", "adapt.adapt layer", "one"),
        ("source", "--source photo", "domain_split.make_domain_split sources", ["left"]),
        ("target", "--target sketch", "domain_split.make_domain_split target", "right"),
        ("seed", "--seed 7", "domain_split.make_domain_split seed", 7),
        ("cache", "--cache my.h5", "store.open_cache path", Path("my.h5")),
        ("leave_one_out", "--leave-one-out", "leave_one_out.leave_one_out head", "logreg"),
        ("model", "--leave-one-out --model ridge", "leave_one_out.leave_one_out head", "ridge"),
        ("methods", "--leave-one-out --methods self,prior", "leave_one_out.leave_one_out methods", "self,prior"),
        ("seeds", "--leave-one-out --seeds 9", "leave_one_out.leave_one_out n_seeds", 9),
        ("seed", "--leave-one-out --seed 7", "leave_one_out.leave_one_out seed", 7),
        ("fresh", "--leave-one-out --fresh", "leave_one_out.leave_one_out is_fresh", True),
        ("layer", "--leave-one-out --layer one", "leave_one_out.leave_one_out layer", "one"),
        ("cache", "--leave-one-out --cache my.h5", "store.open_cache path", Path("my.h5")),
        ("output", "--leave-one-out --output reports", "finding.write_finding folder", Path("reports")),
        ("keras", "--keras adabn", "adapt.adapt networks.modes", ("adabn",)),
        ("epochs", "--keras all --epochs 6", "adapt.adapt networks.epochs", 6),
        ("head_epochs", "--keras all --head-epochs 4", "adapt.adapt networks.head_epochs", 4),
        ("unfreeze_last", "--keras all --unfreeze-last 9", "adapt.adapt networks.unfreeze_last", 9),
    ),
    *cases_of(
        "audit",
        ("layer", "--layer one", "audit.audit layer", "one"),
        ("seed", "--seed 7", "audit.audit seed", 7),
        ("test_fraction", "--test-fraction 0.35", "audit.audit test_fraction", 0.35),
        ("test_split", "--test-split val", "audit.audit test_split", "val"),
        ("cache", "--cache my.h5", "store.open_cache path", Path("my.h5")),
        ("output", "--output reports", "audit.write_reports folder", Path("reports")),
        ("write", "--write lists/my.csv", "clean.write_clean_table file", Path("lists/my.csv")),
    ),
    *cases_of(
        "adapt",
        ("cache", "--target b --cache a.h5 --cache b.h5", "joined.join_caches paths", [Path("a.h5"), Path("b.h5")]),
    ),
    *cases_of(
        "label",
        ("data", "my-photos", "start.open_labelling wanted.data", "my-photos"),
        ("classes", "p --classes a,b", "start.open_labelling wanted.classes", ["a", "b"]),
        ("labels", "p --labels my.csv", "start.open_labelling wanted.csv", Path("my.csv")),
        ("until", "p --until 90", "start.open_labelling wanted.until", 0.9),
        ("port", "p --port 4711", "start.open_labelling wanted.port", 4711),
        ("seed", "p --seed 7", "start.open_labelling wanted.seed", 7),
        ("backbone", "p --backbone resnet50", "start.open_labelling wanted.options.backbone", "resnet50"),
        ("weights", "p --weights random", "start.open_labelling wanted.options.weights", "random"),
        ("preprocess", "p --preprocess caffe", "start.open_labelling wanted.options.preprocess", "caffe"),
        ("input_size", "p --input-size 64x48", "start.open_labelling wanted.options.input_size", (64, 48)),
        ("fix", "my-photos --fix", "start_walking.open_fixing wanted.data", "my-photos"),
        ("predict", "p --predict my/model", "start_walking.open_reviewing model_folder", Path("my/model")),
        ("predict", "p --predict mine", "listing.find_model name", "mine"),
        ("trust", "p --predict my/model --trust", "start_walking.open_reviewing is_trusted", True),
        ("no_browser", "p --no-browser", "label._serve has_browser", False),
    ),
    *cases_of(
        "next",
        ("cache", "my.h5", "store.open_cache path", Path("my.h5")),
        ("labels", "--labels my.csv", "next.next_pictures labels", Path("my.csv")),
        ("labels", "--labels lists/my.csv", "next.names_in folder", Path("lists")),
        ("n", "-n 7", "next.next_pictures n", 7),
        ("layer", "--layer one", "next.next_pictures layer", "one"),
        ("seed", "--seed 7", "next.next_pictures seed", 7),
        ("file_format", "--format label-studio", "next_forms.to_format name", "label-studio"),
        ("output", "--output my.csv", "next_forms.to_format name", "csv"),
        ("output", "--output lists/my.csv", "next.names_in folder", Path("lists")),
        ("output", "--output my.csv", "workspace.write_text path", Path("my.csv")),
    ),
    *cases_of(
        "similar",
        ("images", "a.png b.png", "similar.find_similar images", ["a.png", "b.png"]),
        ("k", "a.png -k 4", "similar.find_similar k", 4),
        ("layer", "a.png --layer one", "similar.find_similar layer", "one"),
        ("cache", "a.png --cache my.h5", "store.open_cache path", Path("my.h5")),
        ("output", "a.png --output reports", "similar.write_reports folder", Path("reports")),
    ),
    *cases_of(
        "map",
        ("layer", "--layer one", "cluster_map.map_cache layer", "one"),
        ("kind", "--kind pca", "cluster_map.map_cache kind", "pca"),
        ("clusters", "--clusters 7", "cluster_map.map_cache n_clusters", 7),
        ("images", "--images 300", "cluster_map.map_cache max_images", 300),
        ("color", "--color class", "cluster_map.write_reports color", "class"),
        ("seed", "--seed 7", "cluster_map.map_cache seed", 7),
        ("cache", "--cache my.h5", "store.open_cache path", Path("my.h5")),
        ("output", "--output reports", "cluster_map.write_reports folder", Path("reports")),
    ),
    *cases_of(
        "models",
        ("cache", "--cache my.h5", "listing.saved_models cache", Path("my.h5")),
    ),
    *cases_of(
        "predict",
        ("model", "--model my/model a.png", "predict.Model folder", Path("my/model")),
        ("model", "--model mine a.png", "listing.find_model name", "mine"),
        ("cache", "a.png --cache my.h5", "listing.find_model cache", Path("my.h5")),
        ("images", "my/model a.png", "predict.Model folder", Path("my/model")),
        ("images", "mine a.png", "listing.find_model name", "mine"),
        ("images", "m a.png b.png", "predict.find_files paths", ["a.png", "b.png"]),
        ("top", "m a.png --top 3", "predict.Model().predict n_top", 3),
        ("reject", "m a.png --reject", "predict.Model coverage", COVERAGE),
        ("coverage", "m a.png --reject --coverage 0.6", "predict.Model coverage", 0.6),
        ("trust", "m a.png --trust", "predict.Model is_trusted", True),
        ("as_csv", "m a.png --csv", "predict.to_csv predictions", []),
    ),
    *cases_of(
        "export",
        ("model", "my/model --to onnx", "export.export_model folder", Path("my/model")),
        ("model", "mine --to onnx", "listing.find_model name", "mine"),
        ("cache", "--to onnx --cache my.h5", "listing.find_model cache", Path("my.h5")),
        ("to", "m --to tflite", "export.export_model to", "tflite"),
        ("output", "m --to onnx --output my.onnx", "export.export_model output", Path("my.onnx")),
        ("trust", "m --to onnx --trust", "export.export_model is_trusted", True),
    ),
    *cases_of(
        "layers",
        ("name", "resnet50", "graph.list_layers spec.backbone", "resnet50"),
        ("input_size", "--input-size 64x48", "graph.list_layers spec.input_size", (64, 48)),
    ),
    *cases_of(
        "backbones",
        ("like", "--like vgg16", "figures.alike name", "vgg16"),
        ("sort", "--sort top-1", "figures.ordered column", "top-1"),
    ),
    *cases_of("cache info", ("cache", "--cache my.h5", "store.open_cache path", Path("my.h5"))),
    *cases_of(
        "cache join",
        ("folder", "mine", "shard_join.join_shards folder", Path("mine")),
        ("partial", "mine --partial", "shard_join.join_shards is_partial", True),
    ),
    *cases_of(
        "cache verify",
        ("cache", "--cache my.h5", "store.open_cache path", Path("my.h5")),
        ("repair", "--repair --cache my.h5", "repair.repair_cache path", Path("my.h5")),
    ),
    *cases_of(
        "cache export",
        ("to", "my.npz", "transfer.export_rows to", Path("my.npz")),
        ("layer", "a.npz --layer one", "transfer.export_rows layer", "one"),
        ("cache", "a.npz --cache my.h5", "transfer.export_rows cache_path", Path("my.h5")),
    ),
    *cases_of(
        "cache import",
        ("rows", "my.npy t.csv", "transfer.import_rows rows_file", Path("my.npy")),
        ("table", "a.npy my.csv", "transfer.import_rows table_file", Path("my.csv")),
        ("name", "a.npy t.csv --name mine", "transfer.import_rows name", "mine"),
        ("cache", "a.npy t.csv --cache my.h5", "transfer.import_rows cache_path", Path("my.h5")),
    ),
    *cases_of("cache clean", ("yes", "--yes", "clean.remove leftovers", ANY)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_value_given_reaches_the_function_that_does_the_work(case: Case, watch: Watch) -> None:
    place, _, method = case.where.partition(" ")[0].partition("().")
    watch.calls.clear()
    if method:
        watch.renew(place)
    ended: BaseException | None = None
    try:
        COMMANDS.main([*case.command.split(), *case.words.replace("RECIPE", RECIPE).split()], standalone_mode=False)
    except (Exception, SystemExit) as error:  # with nothing done, a command may not come to its end
        ended = error
    assert place in watch.calls, f"it ended before with {ended!r}"
    assert watch.argument(case.where) == case.expected


def parameters() -> dict[tuple[str, str], Any]:
    """Return the default of every parameter, by command and name."""
    found = {}
    for name, command in COMMANDS.commands.items():
        inside = getattr(command, "commands", {})
        for path, one in [(name, command)] if not inside else [(f"{name} {n}", c) for n, c in inside.items()]:
            found.update({(path, p.name): p.default for p in one.params if p.name not in SPOKEN})
    return found


def test_every_option_of_every_command_has_its_line() -> None:
    covered = {(case.command, case.parameter) for case in CASES}
    assert set(parameters()) == covered | set(PRINTED)
    for file in PRINTED.values():
        assert (Path(__file__).parents[1] / file).exists()


def test_no_value_under_test_is_the_default() -> None:
    defaults = parameters()
    for case in CASES:
        given = case.words.split()[-1]
        assert given.startswith("--") or given != str(defaults[case.command, case.parameter]), case
        if " settings." in case.where and case.parameter not in ("recipe", "is_as_written", "augment"):
            assert getattr(TrainSettings(), case.where.rpartition(".")[2]) != case.expected, case


def test_the_keras_candidates_of_a_comparison_have_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainSettings] = []

    def stopped(data: Any, settings: TrainSettings, **_: Any) -> Any:
        seen.append(settings)
        raise DataError("not here")

    monkeypatch.setattr(compare, "fit_keras", stopped)
    with pytest.raises(DataError, match="No candidate could run"):
        compare_candidates(
            Anything(seed=7),
            heads=(),
            has_pixels=False,
            keras_options={"epochs": 6, "unfreeze_last": 9},
            recipes=[RECIPE],
        )
    assert [s.name for s in seen[:3]] == ["keras-frozen", "keras-finetuned", "keras-scratch"]
    assert [(s.seed, s.epochs) for s in seen[:3]] == [(7, 6)] * 3
    assert seen[1].unfreeze_last == 9
    assert [(s.seed, s.name) for s in seen[3:]] == [(7, RECIPE), (7, f"{RECIPE}-as-written")]


@pytest.mark.parametrize("option", ["--epochs", "--head-epochs", "--unfreeze-last"])
def test_how_networks_train_is_refused_where_adapt_trains_none(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        COMMANDS.main(["adapt", "--keras", "adabn", option, "6"], standalone_mode=False)
    assert "add --keras finetuned" in capsys.readouterr().err
