"""`python -m gemm_lessons.authoring [--check]`: write generated texts, or fail if they are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemm_lessons.authoring import cells, readme, stubs

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.authoring")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    options = parser.parse_args()
    records = readme.newest()
    tables, notebooks, exercises = readme.stale(ROOT, records), cells.stale(ROOT), stubs.stale(ROOT)
    if options.check:
        for path in tables:
            print(f"{path} does not match the recorded results: run `make tables`", file=sys.stderr)
        for path in notebooks:
            print(f"{path} has outputs, or a cell that differs from its source: run `make tables`",
                  file=sys.stderr)  # fmt: skip
        for path in exercises:
            print(f"{path} is not what its solution makes: run `make tables`", file=sys.stderr)
        return bool(tables or notebooks or exercises)
    readme.write(ROOT, records)
    cells.write(ROOT)
    stubs.write_stubs(ROOT / "exercises", ROOT)
    print(f"written: {', '.join(tables + notebooks + exercises) or 'nothing, all is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
