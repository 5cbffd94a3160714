"""Imports run one way, heavy ones come late, and only where they belong."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, MakePhotos

SOURCE = ROOT / "src" / "tlfeat"

#: The wings, from the bottom up. A file imports the ground (the files beside the wings), its own wing, or a wing
#: before it, late imports included; two in one line share no import.
WINGS = [
    ("images",),
    ("texts",),
    ("backbones",),
    ("cache",),
    ("extract", "evaluate"),
    ("heads", "finetune"),
    ("adapt",),
    ("models",),
    ("studies",),
    ("report",),
    ("labelling",),
    ("cli",),
]

LEVEL = {wing: level for level, wings in enumerate(WINGS, start=1) for wing in wings}

GROUND = [
    "errors",
    "types",
    "text",
    "blocks",
    "columns",
    "front_coding",
    "records",
    "workspace",
    "memory",
    "system",
    "files",
    "documents",
    "notebook",
]

#: Files at the root that lead to a class of a wing, for what was saved before 0.2; and the start of the program.
LEAD_IN = {
    "__main__": "cli.app",
    "linear_heads": "heads.linear",
    "neighbour_heads": "heads.neighbours",
    "kernel_heads": "heads.kernel",
    "transformer": "extract.transformer",
}

#: What a wing may see of the wings before it, where that is less than all of them.
SEES = {"heads": {"evaluate"}, "adapt": {"evaluate", "heads"}}

#: The commands and their options.
CLI = ("adapt", "app", "options", "extract", "fit", "studies", "predict", "cache", "lists", "look", "label")

_COMMANDS = (
    "adapt",
    "app",
    "cache",
    "extract",
    "fit",
    "label",
    "lists",
    "look",
    "options",
    "predict",
    "studies",
    "training_options",
)

#: Who may import a heavy package, anywhere in the file.
HEAVY = {
    "keras": {"backbones.frameworks", "backbones.network", "models.formats"},
    "tensorflow": {"backbones.keras_encoder", "backbones.runtime", "backbones.text_encoder", "models.formats"},
    "openvino": {"backbones.runtime"},
    "nncf": {"backbones.int8"},
    "onnx": {"models.formats"},
    "onnxruntime": {"models.formats"},
    "tf2onnx": {"models.formats"},
    "ai_edge_litert": {"models.formats"},
    "sklearnex": {"heads.kernel"},
    "sklearn": {
        "adapt.domain_maps",
        "adapt.methods",
        "heads.kernel",
        "heads.family",
        "heads.fit",
        "heads.pipelines",
        "heads.words",
        "models.head_layers",
        "evaluate.split",
        "evaluate.scores",
        "heads.shift",
        "extract.precision",
        "extract.transformer",
        "report.embedding_map",
        "report.cluster_map",
    },
    "h5py": {
        "backbones.stored_weights",
        "backbones.weights_files",
        "cache.cache_file",
        "cache.checks",
        "cache.chunks",
        "cache.hdf5_file",
        "cache.path_table",
        "cache.repair",
        "cache.row_table",
        "cache.verify",
    },
    "umap": {"report.embedding_map"},
    "resvg_py": {"report.plots"},
    "PIL": {
        "images.decode",
        "images.resizing",
        "images.thumbnails",
        "images.example",
        "images.reference",
        "images.pictures",
        "report.plots",
    },
    "pillow_heif": {"images.decode"},
    "typer": {f"cli.{name}" for name in _COMMANDS},
    "jinja2": {"text"},
    "cleanlab": {"studies.doubted_labels"},
    "pyarrow": {"extract.transfer", "images.byte_store", "texts.text_set"},
    "skops": {"heads.saved"},
    "ray": {"extract.ray_cluster"},
    "pandas": {"notebook"},
    "matplotlib": {"notebook"},
}

#: Who may import a package at the top of the file, where it costs time as soon as the module is named.
AT_THE_TOP = {
    "h5py": HEAVY["h5py"] - {"backbones.stored_weights", "backbones.weights_files"},
    "PIL": {"images.decode", "images.resizing"},
    "typer": {f"cli.{name}" for name in _COMMANDS},
    "sklearn": {"adapt.domain_maps", "extract.transformer"},
}


@functools.cache
def imported(tree: ast.AST, *, is_top: bool = False) -> set[str]:
    nodes = tree.body if is_top and isinstance(tree, ast.Module) else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module but the empty ``__init__.py`` of the wings, by its name below ``tlfeat``."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in SOURCE.rglob("*.py")
        if path.stem != "__init__"
    }


MODULES = modules()


def wing_of(module: str) -> str:
    return module.partition(".")[0] if "." in module else ""


def arrows(module: str) -> set[str]:
    """The modules of tlfeat that a module imports, late imports included."""
    found = set()
    for name in imported(MODULES[module]):
        if name.startswith("tlfeat."):
            inner = name.removeprefix("tlfeat.")
            found |= {known for known in (inner, inner.rpartition(".")[0]) if known in MODULES}
    return found


def breaks_the_order(module: str, other: str) -> bool:
    """Whether `module` may not import `other`."""
    above, below = wing_of(module), wing_of(other)
    if not below or above == below:
        return False
    if not above:
        return LEAD_IN.get(module) != other
    return LEVEL[below] >= LEVEL[above] or (above in SEES and below not in SEES[above])


def test_every_module_lies_on_the_ground_or_in_a_wing() -> None:
    assert {module for module in MODULES if not wing_of(module)} == {*GROUND, *LEAD_IN}
    assert {wing_of(module) for module in MODULES} - {""} == set(LEVEL)


@pytest.mark.parametrize("wing", ["", *LEVEL])
def test_a_wing_imports_only_what_stands_before_it(wing: str) -> None:
    own = [module for module in MODULES if wing_of(module) == wing]
    assert own
    assert [(module, other) for module in own for other in arrows(module) if breaks_the_order(module, other)] == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("heads.fit", "cache.store"),
        ("adapt.moments", "cache.store"),
        ("heads.fit", "adapt.moments"),
        ("images.decode", "cli.app"),
        ("extract.plan", "evaluate.split"),
        ("text", "cli.app"),
    ],
)
def test_the_order_is_seen_to_be_broken(module: str, other: str) -> None:
    assert breaks_the_order(module, other)


def test_no_imports_go_in_a_circle() -> None:
    ends: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in ends:
            for other in arrows(module) - {module}:
                walk(other, (*path, module))
            ends.add(module)

    for module in MODULES:
        walk(module, ())


def test_the_wings_have_no_code_of_their_own() -> None:
    assert [path.parent.name for path in SOURCE.glob("*/__init__.py") if path.stat().st_size] == []


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_package_is_reached_only_where_it_belongs(package: str) -> None:
    users, top_users = set(), set()
    for name, tree in MODULES.items():
        users |= {name for n in imported(tree) if n.split(".")[0] == package}
        top_users |= {name for n in imported(tree, is_top=True) if n.split(".")[0] == package}
    assert users == HEAVY[package]
    assert top_users == AT_THE_TOP.get(package, set())


def loaded_after(code: str, *, cwd: Path | None = None) -> set[str]:
    """Return the top-level packages in a fresh interpreter after `code`."""
    script = f"import sys\n{code}\nprint('LOADED', *sorted({{n.split('.')[0] for n in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert "LOADED" in run.stdout, run.stderr
    return set(run.stdout.rpartition("LOADED")[2].split())


def command(*words: str) -> str:
    argv = ["tlfeat", *words]
    run = "from tlfeat.cli.app import main\ntry: main()\nexcept SystemExit as end: assert not end.code, end.code"
    return f"sys.argv = {argv!r}\n{run}"


def test_the_probe_sees_a_heavy_import() -> None:
    assert "sklearn" in loaded_after("import tlfeat.extract.transformer")


def test_help_loads_neither_keras_nor_scikit_learn_nor_h5py_and_answers_in_a_second() -> None:
    started_s = time.process_time()
    loaded = loaded_after(command("--help"))
    assert loaded.isdisjoint({"keras", "tensorflow", "sklearn", "h5py", "numpy", "PIL", "scipy"})
    assert time.process_time() - started_s < 1


def test_import_tlfeat_loads_nothing_heavy() -> None:
    assert loaded_after("import tlfeat").isdisjoint({"keras", "tensorflow", "sklearn", "h5py", "numpy"})


def test_no_tensorflow_from_extract_on_known_images_to_the_head(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos(n=8)
    work = tmp_path / "work"
    work.mkdir()
    lines = [
        command("extract", str(photos), "--backbone", "pixels"),
        command("fit-sklearn", "--model", "svm"),
        command("compare", "--keras", "none", "--heads", "svm", "--map", "pca"),
        command("cache", "verify"),
    ]
    (work / "torch").mkdir()  # its import would take seconds where it is installed
    (work / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    loaded = loaded_after("sys.path.insert(0, '')\n" + "\n".join(lines), cwd=work)
    assert "sklearn" in loaded and "skops" in loaded
    assert loaded.isdisjoint({"keras", "tensorflow", "torch"})


def test_every_public_name_is_there() -> None:
    import tlfeat

    for name, home in tlfeat._HOME.items():
        assert getattr(tlfeat, name).__module__ == f"tlfeat.{home}"
    assert set(tlfeat._HOME) <= set(dir(tlfeat))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tlfeat.nothing


def test_type_checkers_see_the_public_names() -> None:
    import tlfeat

    block = next(node for node in ast.parse((SOURCE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    assert imported(block) == {f"tlfeat.{home}.{name}" for name, home in tlfeat._HOME.items()}
