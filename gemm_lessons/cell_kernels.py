"""Small kernels in notebook cells: count their memory traffic, change a line, profile them.

    count(...)     memory traffic of every expression, from the checked simulator, on any machine
    count_step(..) the same for a step of the ladder, with the tiles that it has on a GPU
    edited(...)    the same kernel with a line changed, and the change shown
    profile(...)   two of the same counts from Nsight Compute, where there is a GPU that allows it

A kernel may use only what `lesson.CELL_IMPORTS` brings in, since it may run in a process of its own.
"""

from __future__ import annotations

import csv
import difflib
import importlib.util
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons import device, lesson
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.sim.report import LineCount, Place, last_report

Array = np.ndarray[Any, Any]

# Nsight Compute's names, and what they are called here.
METRICS = {
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio": "sectors per global load",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio": "sectors per global store",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": "bank conflicts of shared loads",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": "bank conflicts of shared stores",
}
SECONDS = 180.0  # longest time that a child may take, compiling included


def count(kernel: Any, grid: Any, block: Any, *arrays: Array) -> dict[str, LineCount]:
    """Launch a kernel in the checked simulator, show what every expression moves, and return the counts.

    The arrays hold the results afterwards, also on a GPU, where a child process runs the simulator.

    Args:
        kernel: made by `@cuda.jit` in a cell, or by `edited`.
        grid: blocks.
        block: threads of a block.
        arrays: the kernel's arguments.

    Returns:
        The counts, by the text of the expression.

    Raises:
        LessonError: the simulator finds something wrong; the message says what.
    """
    if device.choose().is_gpu:
        with tempfile.TemporaryDirectory(prefix="gemm-lessons-") as folder:
            path = _write(kernel, grid, block, arrays, Path(folder))
            child = _run([sys.executable, str(path)], "sim")
            if child.returncode:
                raise lesson.LessonError(child.stderr.strip().splitlines()[-1])
            found = _parse(child.stdout)
            with np.load(path.with_suffix(".npz")) as stored:
                for array, name in zip(arrays, stored.files, strict=True):
                    array[...] = stored[name]
    else:
        kernel[grid, block](*arrays)
        found = last_report().lines
    return _show(_name(kernel), found)


def count_step(step: Any, problem: GroupedProblem) -> dict[str, LineCount]:
    """Run a step once in the checked simulator, with its tiles for a GPU; show and return the counts.

    Args:
        step: a module of `gemm_lessons.steps`.
        problem: a tile or two; the simulator needs a second for a million multiply-adds.

    Raises:
        LessonError: the step is wrong.
    """
    name = step.__name__.rsplit(".", 1)[-1]
    if device.choose().is_gpu:
        call = f"print_counts_of({name!r}, {problem.counts!r}, {problem.N}, {problem.K})"
        child = _run(
            [sys.executable, "-c", f"from gemm_lessons.cell_kernels import *; {call}"],
            "sim",
        )
        if child.returncode:
            raise lesson.LessonError(child.stderr.strip().splitlines()[-1])
        return _show(name, _parse(child.stdout))
    return _show(name, _counts_of(step, problem))


def print_counts_of(name: str, counts: tuple[int, ...], N: int, K: int) -> None:
    """What a child process does for `count_step`."""
    from gemm_lessons.steps import STEPS

    print(_as_json(_counts_of(STEPS[name], GroupedProblem(counts, N, K))))


def _counts_of(step: Any, problem: GroupedProblem) -> list[LineCount]:
    inputs = problem.inputs()
    prepared = step.prepare(problem, step.CONFIG, inputs)
    prepared.check(inputs).raise_if_wrong(step.__name__)
    return last_report().lines


def _as_json(lines: Sequence[LineCount]) -> str:
    return json.dumps([asdict(one) for one in lines], default=str)


def _parse(text: str) -> list[LineCount]:
    return [LineCount(**{**one, "place": Place(**one["place"])}) for one in json.loads(text)]


def _show(name: str, found: Sequence[LineCount]) -> dict[str, LineCount]:
    rows = [
        (
            f"`{one.place.text}`",
            f"{one.kind}, {one.space}",
            one.requests,
            f"{one.sectors_per_request:.1f}" if one.space == "global" else "",
            f"{one.wavefronts_per_request:.1f}" if one.space == "shared" else "",
        )
        for one in found
    ]
    headings = ("expression", "what", "requests of a warp", "sectors each", "passes each")
    lesson.table(f"Memory traffic of `{name}`", headings, rows)
    return {one.place.text: one for one in found}


def edited(kernel: Any, *changes: tuple[str, str]) -> Any:
    """The same kernel with some text replaced; the difference is shown.

    Args:
        kernel: made by `@cuda.jit` in a cell.
        changes: (old, new), each old text exactly once in the kernel.

    Raises:
        LessonError: an old text does not stand there exactly once.
    """
    from IPython.display import display

    before = after = _source(kernel)
    for old, new in changes:
        if after.count(old) != 1:
            raise lesson.LessonError(f"{_name(kernel)} must hold this exactly once:\n{old}")
        after = after.replace(old, new)
    hunks = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[2:]
    text = "\n".join(line for line in hunks if not line.startswith("@@"))
    display(lesson.verbatim(text))
    folder = tempfile.mkdtemp(prefix="gemm-lessons-")  # why it stays: messages quote the file's lines
    path = Path(folder) / "edited.py"
    path.write_text(lesson.CELL_IMPORTS + after, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, _name(kernel))


def profile(kernel: Any, grid: Any, block: Any, *arrays: Array) -> None:
    """Count with Nsight Compute where there is a GPU; else say how that is done.

    Args:
        kernel: made by `@cuda.jit` in a cell.
        grid: blocks.
        block: threads of a block.
        arrays: the kernel's arguments; they stay as they are.
    """
    from IPython.display import display

    program = shutil.which("ncu")
    if not device.choose().is_gpu or program is None:
        missing = "ncu is not installed" if device.choose().is_gpu else "there is no GPU"
        lesson.say(f"*Not run: {missing} here. On a GPU this runs `ncu python script.py` with `--metrics`*")
        display(lesson.verbatim(",\n".join(METRICS)))
        return
    with tempfile.TemporaryDirectory(prefix="gemm-lessons-") as folder:
        path = _write(kernel, grid, block, arrays, Path(folder))
        options = ["--csv", "--metrics", ",".join(METRICS), "--kernel-name", f"regex:{_name(kernel)}"]
        child = _run([program, *options, sys.executable, str(path)], "gpu")
    if "ERR_NVGPUCTRPERM" in child.stdout + child.stderr:
        lesson.say("*Not run: this machine lets only administrators read the GPU's counters.*")
        return
    start = child.stdout.find('"ID"')
    rows = [
        (METRICS[row["Metric Name"]], row["Metric Value"])
        for row in (csv.DictReader(io.StringIO(child.stdout[start:])) if start >= 0 else ())
        if row["Metric Name"] in METRICS
    ]
    if not rows:
        reason = ((child.stdout + child.stderr).strip().splitlines() or ["it said nothing"])[-1]
        lesson.say(f"*Nsight Compute could not profile this kernel: {reason}*")
        return
    lesson.table(f"`{_name(kernel)}`, counted by Nsight Compute", ("", "value"), rows)


def _name(kernel: Any) -> str:
    return str(kernel.py_func.__name__)


def _source(kernel: Any) -> str:
    return textwrap.dedent(inspect.getsource(kernel.py_func))


def _write(kernel: Any, grid: Any, block: Any, arrays: Sequence[Array], folder: Path) -> Path:
    """A script that launches a kernel once; in the simulator it stores the arrays and prints the counts."""
    path = folder / "cell.py"
    np.savez(path.with_suffix(".npz"), *arrays)
    launch = f"""
if __name__ == "__main__":
    from gemm_lessons.cell_kernels import launch

    launch({_name(kernel)}, {grid!r}, {block!r}, __file__)
"""
    chosen = (
        "from gemm_lessons import device\n\ndevice.choose()  # before the cell's imports bring Numba in\n\n"
    )
    path.write_text(chosen + lesson.CELL_IMPORTS + _source(kernel) + launch, encoding="utf-8")
    return path


def launch(kernel: Any, grid: Any, block: Any, file: str) -> None:
    """Launch a kernel on the arrays beside a script: what a child process does.

    Args:
        kernel: of the script.
        grid: blocks.
        block: threads of a block.
        file: the script.
    """
    beside = Path(file).with_suffix(".npz")
    with np.load(beside) as stored:
        arrays = [stored[name] for name in stored.files]
    kernel[grid, block](*arrays)
    if not device.choose().is_gpu:
        np.savez(beside, *arrays)
        print(_as_json(last_report().lines))


def _run(command: Sequence[str], where: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GEMM_LESSONS_DEVICE": where, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)  # why: this process has set it for itself
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
