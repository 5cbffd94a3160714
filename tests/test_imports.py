"""Imports run one way, heavy ones come late, and only where they belong."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import MakePhotos

SOURCE = Path(__file__).parents[1] / "src" / "tlfeat"

#: From the bottom of the pipeline to the top: a module imports only what stands before it, late imports included.
ORDER = [
    "errors",
    "progress",
    "console",
    "records",
    "catalog",
    "images",
    "decode",
    "thumbnails",
    "encoder",
    "embed",
    "journal",
    "cachefile",
    "cache",
    "extract",
    "example",
    "network",
    "workspace",
    "pixelstore",
    "augment",
    "runtime",
    "backbone",
    "plan",
    "memory",
    "intervals",
    "calibration",
    "evaluate",
    "duplicates",
    "leaks",
    "blocks",
    "linear",
    "search",
    "families",
    "linear_heads",
    "neighbour_heads",
    "kernel_heads",
    "heads",
    "recipes",
    "cut",
    "training",
    "finetune",
    "reject",
    "audit",
    "candidates",
    "compare",
    "tradeoff",
    "figures",
    "report",
    "charts",
    "embedding_map",
    "provenance",
    "plots",
    "report_page",
    "sweep",
    "curve",
    "audit_report",
    "predict",
    "head_layers",
    "formats",
    "model_card",
    "export",
    "transfer",
    "transformer",
    "cli",
    "__main__",
]

#: Who may import a heavy package, anywhere in the file.
HEAVY = {
    "keras": {"network", "formats"},
    "tensorflow": {"backbone", "runtime", "formats"},
    "openvino": {"runtime", "formats"},
    "onnx": {"formats"},
    "onnxruntime": {"formats"},
    "tf2onnx": {"formats"},
    "ai_edge_litert": {"formats"},
    "sklearnex": {"kernel_heads"},
    "sklearn": {"kernel_heads", "evaluate", "reject", "transformer", "example", "embedding_map"},
    "h5py": {"cache", "cachefile"},
    "umap": {"embedding_map"},
    "matplotlib": {"plots"},
    "PIL": {"decode", "thumbnails", "example"},
    "typer": {"cli"},
    "jinja2": {"figures"},
    "cleanlab": {"audit"},
    "pyarrow": {"transfer"},
    "skops": {"heads"},
}

#: Who may import a package at the top of the file, where it costs time as soon as the module is named.
AT_THE_TOP = {"h5py": {"cache", "cachefile"}, "PIL": {"decode"}, "typer": {"cli"}, "sklearn": {"transformer"}}


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
    return {path.stem: ast.parse(path.read_text()) for path in SOURCE.glob("*.py") if path.stem != "__init__"}


def test_every_module_has_its_place_in_the_pipeline() -> None:
    assert set(modules()) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_module_imports_only_what_stands_before_it(name: str) -> None:
    own = {n.split(".")[1] for n in imported(modules()[name]) if n.startswith("tlfeat.")} & set(ORDER)
    assert {other for other in own if ORDER.index(other) >= ORDER.index(name)} == set()


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_package_is_reached_only_where_it_belongs(package: str) -> None:
    users, top_users = set(), set()
    for name, tree in modules().items():
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
    run = "from tlfeat.cli import main\ntry: main()\nexcept SystemExit as end: assert not end.code, end.code"
    return f"sys.argv = {argv!r}\n{run}"


def test_the_probe_sees_a_heavy_import() -> None:
    assert "sklearn" in loaded_after("import tlfeat.transformer")


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
        command("compare", "--keras", "none", "--heads", "svm"),
        command("cache", "verify"),
    ]
    loaded = loaded_after("\n".join(lines), cwd=work)
    assert "sklearn" in loaded
    assert loaded.isdisjoint({"keras", "tensorflow"})


def test_every_public_name_is_there() -> None:
    import tlfeat

    assert sorted(tlfeat.__all__) == sorted(tlfeat._HOME)
    for name in tlfeat.__all__:
        assert getattr(tlfeat, name).__module__ == f"tlfeat.{tlfeat._HOME[name]}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tlfeat.nothing
