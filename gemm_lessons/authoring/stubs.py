"""Stubs from solutions: one source for both, so that they cannot drift apart.

`exercises/exNN_topic.py` is made from `solutions/exNN_topic.py`; `grading.stub` has the marks.
"""

from __future__ import annotations

from pathlib import Path

from gemm_lessons.grading.stub import stub_of

ROOT = Path(__file__).resolve().parent.parent.parent


def solutions(root: Path = ROOT) -> list[Path]:
    """Every solution, in order."""
    return sorted((root / "solutions").glob("ex[0-9][0-9]_*.py"))


def write_stubs(folder: Path, root: Path = ROOT) -> None:
    """Write the stub of every solution into a folder."""
    for solution in solutions(root):
        _write(solution, folder / solution.name)


def renew(root: Path, names: list[str]) -> None:
    """Write the committed stubs that `stale` has named."""
    for solution in solutions(root):
        if f"exercises/{solution.name}" in names:
            _write(solution, root / "exercises" / solution.name)


def _write(solution: Path, target: Path) -> None:
    target.write_text(stub_of(solution.read_text(encoding="utf-8")), encoding="utf-8")


def stale(root: Path = ROOT) -> list[str]:
    """Committed stubs that differ from what their solution makes, or have none."""
    found = []
    for solution in solutions(root):
        target = root / "exercises" / solution.name
        text = target.read_text(encoding="utf-8") if target.exists() else ""
        if text != stub_of(solution.read_text(encoding="utf-8")):
            found.append(f"exercises/{solution.name}")
    names = {solution.name for solution in solutions(root)}
    strays = (path.name for path in (root / "exercises").glob("ex[0-9][0-9]_*.py"))
    return found + [f"exercises/{name}" for name in sorted(strays) if name not in names]
