"""Run numba-cuda's own test-suite through this engine, and list where it differs from stock.

    python tests/sim/run_peers.py [--modes stock plain checked] [--jobs 2] [--only test_atomics ...]

One process per test module, as ``python -m numba.runtests`` wants it. A module differs when its
outcome is not the one it has under Numba's own simulator; each known difference stands with its
reason in ``peers.toml`` beside this file, and any other makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = ("cudapy", "cudasim", "doc_examples")
SECONDS = 600

# Numba's test runner imports the simulator itself; the engine has to be there first.
RUNNER = """
import sys
from gemm_lessons import sim
sim.install()
from numba.testing import _runtests
sys.exit(0 if _runtests._main(["numba.runtests", *sys.argv[1:]]) else 1)
"""


@dataclass(frozen=True)
class Outcome:
    """What one module did in one mode."""

    module: str
    mode: str
    tests: int
    failed: tuple[str, ...]
    seconds: float
    output: str


def modules() -> list[str]:
    """Names of all test modules, e.g. ``cudapy.test_atomics``."""
    spec = find_spec("numba_cuda")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("numba-cuda is not installed, and plain numba ships other tests")
    if find_spec("filecheck") is None:
        raise SystemExit("numba-cuda's tests need filecheck: pip install filecheck")
    tests = Path(next(iter(spec.submodule_search_locations))) / "numba" / "cuda" / "tests"
    return [
        f"{folder}.{file.stem}" for folder in FOLDERS for file in sorted((tests / folder).glob("test_*.py"))
    ]


def run(module: str, mode: str) -> Outcome:
    """Run one module in one mode."""
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "GEMM_LESSONS_SIM": mode,
        "GEMM_LESSONS_SIM_SLICE_SECONDS": "60",
        "GEMM_LESSONS_SIM_SECONDS": "300",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    started = time.monotonic()
    command = [sys.executable, "-c", RUNNER, "-v", f"numba.cuda.tests.{module}"]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = str(error.stdout or ""), 124
    failed = {name for _, name in re.findall(r"^(ERROR|FAIL): (\S+)", output, re.MULTILINE)}
    if code and not failed:
        failed = {"(the module)"}
    ran = re.search(r"^Ran (\d+) tests?", output, re.MULTILINE)
    return Outcome(
        module,
        mode,
        int(ran.group(1)) if ran else 0,
        tuple(sorted(failed)),
        time.monotonic() - started,
        output,
    )


def main() -> int:
    """Run, compare, print; 1 if something differs that is not known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", default=["stock", "plain", "checked"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", default=[], help="parts of module names")
    parser.add_argument("--output", type=Path, help="a folder for the output of what differs")
    options = parser.parse_args()
    known = tomllib.loads((HERE / "peers.toml").read_text())
    chosen = [m for m in modules() if not options.only or any(o in m for o in options.only)]
    jobs = [(module, mode) for module in chosen for mode in options.modes]
    outcomes: dict[tuple[str, str], Outcome] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(lambda job: run(*job), jobs):
            outcomes[outcome.module, outcome.mode] = outcome
    unknown = 0
    for mode in options.modes:
        ours = [outcomes[module, mode] for module in chosen]
        print(
            f"{mode}: {sum(not o.failed for o in ours)} of {len(ours)} modules pass, "
            f"{sum(o.tests for o in ours)} tests, {sum(o.seconds for o in ours):.0f} s"
        )
    for module in chosen:
        for mode in options.modes:
            outcome = outcomes[module, mode]
            stock = outcomes.get((module, "stock"))
            extra = set(outcome.failed) - set(stock.failed if stock else ())
            for test in sorted(extra if mode != "stock" else ()):
                reason = known.get(module, {}).get(test, "")
                print(f"{'known ' if reason else 'DIFFERS'} {mode} {module} {test} {reason}")
                unknown += not reason
            if extra and options.output and mode != "stock":
                options.output.mkdir(parents=True, exist_ok=True)
                (options.output / f"{module}.{mode}.txt").write_text(outcome.output)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
