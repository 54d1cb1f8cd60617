"""`python -m gemm_lessons.authoring`: write generated texts, or say which are out of date.

--check      write nothing; fail if something is out of date
--readme     README's tables and picture only
--overwrite  also notebooks and exercises that hold work that is in no commit
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gemm_lessons.authoring import cells, readme, stubs

ROOT = Path(__file__).resolve().parent.parent.parent


def not_committed(root: Path, names: Sequence[str]) -> list[str]:
    """Those of some files whose content is in no commit: to overwrite them would lose it.

    Without git, or outside a repository, that is any file that exists.
    """
    found = []
    for name in names:
        if not (root / name).exists():
            continue
        command = ["git", "-C", str(root), "status", "--porcelain", "--ignored", "--", name]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            found.append(name)
            continue
        if answer.returncode or answer.stdout.strip():
            found.append(name)
    return found


def check(root: Path) -> int:
    """Say what is out of date; returns the exit code."""
    found = [f"{path} does not match the recorded results" for path in readme.stale(root, readme.newest())]
    found += [f"{path} has outputs, or a cell that differs from its source" for path in cells.stale(root)]
    found += [f"{path} is not what its solution makes" for path in stubs.stale(root)]
    for line in found:
        print(f"{line}: run `make tables`", file=sys.stderr)
    return bool(found)


def write(root: Path, *, overwrite: bool) -> int:
    """Write what is out of date, but nothing over somebody's work; returns the exit code."""
    records = readme.newest()
    tables, notebooks, exercises = readme.stale(root, records), cells.stale(root), stubs.stale(root)
    kept = [] if overwrite else not_committed(root, notebooks + exercises)
    readme.write(root, records)
    cells.renew(root, [name for name in notebooks if name not in kept])
    stubs.renew(root, [name for name in exercises if name not in kept])
    for name in kept:
        print(f"{name} holds work that is in no commit, and stays as it is: commit it, or overwrite it with"
              " `make tables OVERWRITE=1`", file=sys.stderr)  # fmt: skip
    written = [name for name in tables + notebooks + exercises if name not in kept]
    print(f"written: {', '.join(written) or 'nothing'}")
    return bool(kept)


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.authoring")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if something is out of date"
    )
    parser.add_argument("--readme", action="store_true", help="README's tables and picture only")
    parser.add_argument("--overwrite", action="store_true", help="also work that is in no commit")
    options = parser.parse_args()
    if options.check:
        return check(ROOT)
    if options.readme:
        readme.write(ROOT, readme.newest())
        return 0
    return write(ROOT, overwrite=options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
