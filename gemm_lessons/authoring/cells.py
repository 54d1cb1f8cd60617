"""Notebook cells that equal a source in the package, and notebooks without outputs.

A cell whose first line is

    # as in gemm_lessons/steps/persistent.py: leave, make_kernel

holds these definitions of that file, or all of it if none is named, below that line. The cell is real code:
a student edits and runs it. What is committed is kept equal, so that prose, notebook and package agree.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

MARK = "# as in "
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class CellError(ValueError):
    """A cell names a source that is not there; the message says which."""


def notebooks(root: Path) -> list[Path]:
    """The notebooks of a checkout, in reading order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def source_text(root: Path, where: str) -> str:
    """What a cell that names this source must hold below its first line.

    Args:
        root: the checkout.
        where: "FILE" or "FILE: NAME, NAME", as it stands after the mark.

    Raises:
        CellError: the file is not there, or does not define a name at its top level.
    """
    file, _, listed = where.partition(":")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    path = root / file
    if not path.is_file():
        raise CellError(f"a cell names {file}, and there is no such file")
    text = path.read_text(encoding="utf-8")
    if not names:
        return text.strip()
    lines = text.splitlines()
    found = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    pieces = []
    for name in names:
        if name not in found:
            raise CellError(f"a cell names {name} of {file}, which defines {', '.join(found)}")
        node = found[name]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        pieces.append("\n".join(lines[first - 1 : node.end_lineno]))
    return "\n\n\n".join(pieces)


def is_generated(cell: dict[str, Any]) -> bool:
    """Whether a cell names its source."""
    return cell["cell_type"] == "code" and "".join(cell["source"]).startswith(MARK)


def canonical(text: str, root: Path) -> str:
    """A notebook as it is committed: cells equal to their sources, no outputs, one way to write it.

    Args:
        text: the notebook as JSON.
        root: the checkout that sources are read from.

    Raises:
        CellError: a cell names a source that is not there.
    """
    notebook = json.loads(text)
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"]).rstrip()
        if is_generated(cell):
            mark = source.splitlines()[0]
            source = f"{mark}\n{source_text(root, mark.removeprefix(MARK))}"
        clean = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{number:02}",
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        if cell["cell_type"] == "code":
            clean |= {"execution_count": None, "outputs": []}
        cells.append(clean)
    whole = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def stale(root: Path) -> list[str]:
    """Notebooks that are not as they should be committed, as relative paths."""
    return [
        path.relative_to(root).as_posix()
        for path in notebooks(root)
        if canonical(path.read_text(encoding="utf-8"), root) != path.read_text(encoding="utf-8")
    ]


def renew(root: Path, names: list[str]) -> None:
    """Renew some notebooks, which `stale` has named."""
    for path in (root / name for name in names):
        path.write_text(canonical(path.read_text(encoding="utf-8"), root), encoding="utf-8")
