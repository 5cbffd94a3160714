"""Run docs/notebook.ipynb and keep its outputs, without Jupyter: ``python tools/notebook.py`` writes it anew.

Cells run one after another in one process, in an empty folder. The value of a last line shows itself as in Jupyter: as
HTML where it can, else as text, and not at all where the line ends in a semicolon. Figures become PNG files.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"

_PIXELS_AN_INCH = 80


def run_cells(sources: list[str]) -> list[list[dict[str, Any]]]:
    """Run code cells in the current folder and return the outputs of each, as they stand in a notebook."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run(source, names, number) for number, source in enumerate(sources, start=1)]


def _run(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    tree = ast.parse(source, f"cell {number}")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": _lines(value._repr_html_()), **data}
        outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return outputs + [_as_output(png) for png in _figures()]


def _figures() -> list[bytes]:
    """Return the open figures as PNG files, and close them."""
    from matplotlib import pyplot

    found = []
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=_PIXELS_AN_INCH, metadata={"Software": None})
        found.append(out.getvalue())
    pyplot.close("all")
    return found


def _as_output(png: bytes) -> dict[str, Any]:
    data = {"image/png": base64.b64encode(png).decode() + "\n"}
    return {"data": data, "metadata": {}, "output_type": "display_data"}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of a notebook that are code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def main() -> None:
    """Run the notebook in an empty folder and write it with its outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = code_cells(notebook)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        found = run_cells(["".join(cell["source"]) for cell in cells])
    for number, (cell, outputs) in enumerate(zip(cells, found, strict=True), start=1):
        cell["execution_count"], cell["outputs"] = number, outputs
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{NOTEBOOK}: {len(cells)} cells, {NOTEBOOK.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
