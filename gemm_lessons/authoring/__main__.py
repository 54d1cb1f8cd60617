"""`python -m gemm_lessons.authoring [--check]`: write generated texts, or fail if they are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemm_lessons.authoring import readme

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gemm_lessons.authoring")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    options = parser.parse_args()
    record = readme.newest()
    stale = readme.stale(ROOT, record)
    if options.check:
        for path in stale:
            print(f"{path} does not match the recorded results: run `make tables`", file=sys.stderr)
        return bool(stale)
    readme.write(ROOT, record)
    print(f"written: {', '.join(stale) or 'nothing, all is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
