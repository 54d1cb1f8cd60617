"""Stubs from solutions: one source for both, so that they cannot drift apart.

`python -m gemm_lessons.authoring.stubs [--check]` writes `exercises/exNN_topic.py` from
`solutions/exNN_topic.py`, or fails if one of them is stale.  `grading.stub` has the marks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemm_lessons.grading.stub import stub_of

ROOT = Path(__file__).resolve().parent.parent.parent


def solutions(root: Path = ROOT) -> list[Path]:
    """Every solution, in order."""
    return sorted((root / "solutions").glob("ex[0-9][0-9]_*.py"))


def write_stubs(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write the stub of every solution into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for solution in solutions(root):
        target = folder / solution.name
        target.write_text(stub_of(solution.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(target)
    return written


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


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.authoring.stubs")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a stub is stale")
    if not parser.parse_args().check:
        write_stubs(ROOT / "exercises")
        return 0
    for path in (found := stale()):
        print(f"{path} is not what its solution makes: run `python -m gemm_lessons.authoring.stubs`")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
