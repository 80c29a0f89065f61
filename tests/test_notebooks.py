"""Notebooks are valid, small, and name what exists; `.ci/run` executes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

import metashot

PUBLIC = {name: getattr(metashot, name) for name in metashot.__all__}
NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def names_of_metashot(code: str) -> set[str]:
    """What a cell takes from metashot: `nets.conv4` of both `metashot.nets.conv4` and imports."""
    tree = ast.parse(re.sub(r"^(\s*)%.*", r"\1pass", code, flags=re.M))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = re.fullmatch(r"metashot\.([\w.]+)", ast.unparse(node))
            found |= {name[1]} if name else set()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metashot"):
            home = f"{node.module}.".removeprefix("metashot").lstrip(".")
            found |= {home + alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_without_outputs_and_names_public_functions(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "pip install" in cells[0].source
    names: set[str] = set()
    for cell in cells:
        assert not cell.outputs
        assert cell.execution_count is None
        names |= names_of_metashot(cell.source)
    assert names
    for name in names:
        first, *rest = name.split(".")
        found: Any = PUBLIC[first]
        for part in rest:
            assert not part.startswith("_"), name
            found = getattr(found, part)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_names_are_found_in_any_form():
    code = "if x:\n    %pip install y\nmetashot.nets.conv4(2)\nfrom metashot.data import glyphs\n"
    assert names_of_metashot(code) == {"nets", "nets.conv4", "data.glyphs"}
