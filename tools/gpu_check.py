"""All that needs a GPU: the tests marked gpu, then compute-sanitizer over small runs of every step.

    make gpu-check                             in the project's own environment
    make gpu-check PYTHON=python3 VENV=        with any Python that has the dependencies

Writes out/gpu-check.json and prints a table. With --only, the results of other checks stay in the file, each
with the commit that it is of. Exit code 0: nothing of what ran is wrong (what was not run is named); 1:
something is; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gemm_lessons import device
from gemm_lessons.cuda_tools import find_tool
from gemm_lessons.measure import machine
from gemm_lessons.measure.results import now

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
WORKERS = str(max(4, min(10, (os.cpu_count() or 1) // 3)))  # most of the time is spent compiling
TESTS = {  # what pytest is told, by the name of its log; one process each: a GPU's error ends its process
    "instructions": ("tests/ptx",),
    "kernels": (
        "tests",
        *("--ignore=tests/ptx", "--ignore=tests/grading", "--ignore=tests/test_notebooks.py"),
        *("-n", WORKERS),
    ),
    "grader": ("tests/grading", "-n", "4"),
    "notebooks": ("tests/test_notebooks.py", "-n", WORKERS),
}
CORES_FOR_ALL = 12  # from so many on, all checks run at once
FOUND_SOMETHING = 86  # exit code that compute-sanitizer is told to use for findings


@dataclass(frozen=True)
class Result:
    """One check: "ok", "failed" or "not run", what it said, the seconds that it took, and of which commit."""

    name: str
    status: str
    detail: str
    seconds: float
    commit: str = ""


def find_sanitizer() -> str | None:
    """The compute-sanitizer of a CUDA toolkit or an NVIDIA wheel."""
    return find_tool("compute-sanitizer")


def run(name: str, command: list[str], limit: int, log: Path) -> tuple[int | None, str, float]:
    """Run a command, keep its output in a file, and return exit code (None: too long), output and seconds."""
    environment = {**os.environ, "GEMM_LESSONS_DEVICE": "gpu"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    start = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=limit
            )
            code: int | None = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        return code, output.read(), time.perf_counter() - start


def gpu_tests(name: str, places: tuple[str, ...], folder: Path, limit: int) -> Result:
    """The tests marked gpu in some places, in a process of their own: what crashes loses no others."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--no-header", "-p", "no:cacheprovider"]
    code, text, seconds = run(name, [*command, *places], limit, log)
    last = text.strip().splitlines()[-1] if text.strip() else "no output"
    if code is None:
        return Result(name, "failed", f"stopped after {limit} s; see {log}", seconds)
    if code == 5:  # pytest: no tests were collected
        return Result(name, "failed", "there are none", seconds)
    detail = last.strip("= ") + ("" if code == 0 else f"; see {log}")
    return Result(name, "ok" if code == 0 else "failed", detail, seconds)


def first_finding(text: str) -> str:
    """What compute-sanitizer reports first, and where: two lines of its output; empty if it found nothing."""
    said = [line.strip("= ") for line in text.splitlines() if line.startswith("=========")]
    found = [line for line in said if line and "COMPUTE-SANITIZER" not in line and "SUMMARY:" not in line]
    return ", ".join(found[:2])


def sanitize(tool: str, sanitizer: str, folder: Path, limit: int) -> Result:
    """Every step on small ragged problems under one tool of compute-sanitizer."""
    log = folder / f"{tool}.log"
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND_SOMETHING), "--print-limit", "20"]
    if tool == "memcheck":
        # why: CUDA's Python bindings ask the driver for functions newer than it, and take no for an answer.
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "gemm_lessons", "check", "--small"]
    code, text, seconds = run(tool, command, limit, log)
    summaries = re.findall(r"^=+ ((?:ERROR|RACECHECK) SUMMARY: .*)$", text, re.MULTILINE)
    if code is None:
        return Result(tool, "failed", f"stopped after {limit} s; see {log}", seconds)
    if not summaries:
        last = text.strip().splitlines()[-1] if text.strip() else "no output"
        return Result(tool, "not run", f"compute-sanitizer does not work here: {last}", seconds)
    if code == 0:
        return Result(tool, "ok", summaries[-1], seconds)
    why = f": {first_finding(text)}" if code == FOUND_SOMETHING else ", but a step did not run or was wrong"
    return Result(tool, "failed", f"{summaries[-1]}{why}; see {log}", seconds)


def check(folder: Path, limit: int, names: Sequence[str]) -> list[Result]:
    """Run the named checks, each within the limit of seconds; nothing here is timed, so they may overlap."""
    sanitizer = find_sanitizer()

    def one(name: str) -> Result:
        if name in TESTS:
            return gpu_tests(name, TESTS[name], folder, limit)
        if sanitizer is None:
            return Result(name, "not run", "compute-sanitizer was not found; the CUDA toolkit has it", 0.0)
        return sanitize(name, sanitizer, folder, limit)

    at_once = len(names) if (os.cpu_count() or 1) >= CORES_FOR_ALL else 1
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, names))


def kept(path: Path, names: Sequence[str], device_name: str) -> list[Result]:
    """The results that a file has of other checks than these on such a device; none if there is no file."""
    if not path.exists():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    of = report["machine"]
    results = [Result(**{"commit": of["commit"], **fields}) for fields in report["results"]]
    others = {*TESTS, *TOOLS} - set(names)
    return [result for result in results if result.name in others and of["device"] == device_name]


def main() -> int:
    """Check, write the results file, and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="All that needs a GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu-check.json")
    parser.add_argument("--limit", type=int, default=600, help="seconds for each check")
    parser.add_argument("--only", action="append", choices=(*TESTS, *TOOLS), help="only these checks")
    options = parser.parse_args()
    console = Console(highlight=False)
    gpu, reason = device.probe_gpu()
    reason = reason or (device.why_unusable(gpu) if gpu else "")
    if reason:
        console.print(f"NOT RUN: gpu-check needs a GPU, and {reason}", markup=False)
        return 2
    facts, names = machine.machine(), options.only or (*TESTS, *TOOLS)
    others = kept(options.out, names, facts["device"])
    with console.status("running the GPU's tests, the notebooks and compute-sanitizer (some minutes)"):
        results = check(options.out.parent, options.limit, names)
    table = Table("check", "result", "what it said", "s", title="gpu-check")
    for result in results:
        colour = {"ok": "green", "failed": "bold red"}.get(result.status, "yellow")
        status = f"[{colour}]{result.status.upper()}[/]"
        table.add_row(result.name, status, escape(result.detail), f"{result.seconds:.0f}")
    console.print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    of_this_commit = [replace(result, commit=facts["commit"]) for result in results]
    everything = sorted([*of_this_commit, *others], key=lambda one: (*TESTS, *TOOLS).index(one.name))
    report = {"machine": facts, "date": now(), "results": [asdict(one) for one in everything]}
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {options.out}", soft_wrap=True)
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
