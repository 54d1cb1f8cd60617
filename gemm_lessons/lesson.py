"""What the notebooks call: one line to check a kernel, to time it, to draw a run, and to break it.

    begin()          say what device this is and what that changes
    check(...)       a step, or the kernel in a cell, on the ragged cases, against NumPy
    measure(...)     next to padded: timed on a GPU; counted, with recorded times, without one
    schedules(...)   the same for the persistent step's four schedules
    timelines(...)   who computed which tile when, of a real run
    broken(...)      change a line of a step, and hear what the checkers say about it
    explore(...)     a picture with controls; without ipywidgets, the picture
    excerpt(...)     functions of a step, as they stand in its file
    show, table      a figure, and rows of text, as a cell's output

Nothing here teaches anything by itself: the kernels stand in the notebooks, this keeps the rest short.
"""

from __future__ import annotations

import ast
import base64
import difflib
import html
import importlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gemm_lessons import device, plots
from gemm_lessons.measure import tables
from gemm_lessons.measure.results import Record, recorded
from gemm_lessons.pictures import Limits
from gemm_lessons.problem import GroupedProblem, ProblemError
from gemm_lessons.quantize import draw_inputs
from gemm_lessons.sim.report import SimulatorError
from gemm_lessons.trace import Timeline

PACKAGE = Path(__file__).parent
WIDTH = 110  # of wrapped text
CHILD_SECONDS = 60.0  # longest time that a broken kernel may take, compiling included

NOT_RECORDED = (
    "No times are recorded for {what} yet: `{command}` on a GPU records them."
    " A time that was not measured is not shown."
)

# NVIDIA H100 Tensor Core GPU data sheet, SXM, without sparsity. No kernel is faster than that.
DATA_SHEET_BYTES_PER_S = 3.35e12
DATA_SHEET_FLOPS_PER_S = {"float32": 67e12, "bfloat16": 989e12, "float8_e4m3fn": 1979e12}

RIGHT, WRONG = 70, 71  # exit codes of a child that came to a verdict: no interpreter uses them

CELL_IMPORTS = """import numpy as np
from numba import cuda, float32, int32, uint8, uint32, uint64
from gemm_lessons.ptx.matrix import ldmatrix_x4, mma_m16n8k16
from gemm_lessons.ptx.mbarrier import fence_mbarrier_init, mbarrier_arrive, mbarrier_init, mbarrier_try_wait
from gemm_lessons.ptx.shared import shared_address

mma = mma_m16n8k16["bfloat16"]

"""

# Ragged in every way, and small: empty experts side by side, a single token, one longer than a tile.
SMALL = GroupedProblem((5, 0, 0, 18, 1), N=20, K=12, name="small")
LARGE = GroupedProblem((156, 0, 0, 201, 52, 1), N=520, K=512, name="large")


class LessonError(AssertionError):
    """Something in a notebook is wrong; Jupyter shows its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class _Text:
    """Markdown where it can be rendered, the same text where it cannot."""

    def __init__(self, markdown: str) -> None:
        self._markdown = markdown

    def _repr_markdown_(self) -> str:
        return self._markdown

    def __repr__(self) -> str:
        return self._markdown


class _Page:
    """HTML where it can be rendered, plain text where it cannot."""

    def __init__(self, markup: str, text: str) -> None:
        self._markup, self._text = markup, text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


def say(markdown: str) -> None:
    """Show text as a cell's output."""
    from IPython.display import display

    display(_Text(markdown))


def show(figure: Figure, alt: str) -> None:
    """Show a figure as a cell's output.

    Args:
        figure: what to show.
        alt: what it shows, for those who cannot see it.
    """
    from IPython.display import display

    display(_image(figure, alt))


def _image(figure: Figure, alt: str) -> _Page:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = int(figure.get_figwidth() * 75)
    style = "max-width: 100%; height: auto"
    markup = (
        f'<img alt="{html.escape(alt)}" width="{width}" style="{style}" src="data:image/png;base64,{data}">'
    )
    return _Page(markup, f"[picture: {alt}]")


def verbatim(text: str) -> _Page:
    """Text as it is; lines of a difference in colour, too."""
    colours = {"+": "#D8F0DF", "-": "#FBDDD5"}
    lines = []
    for line in text.splitlines():
        colour = colours.get(line[:1], "transparent")
        style = f"background: {colour}; color: {'#111' if line[:1] in colours else 'inherit'}"
        lines.append(f'<span style="{style}">{html.escape(line)}</span>')
    style = "font-family: monospace; font-size: 0.9em; line-height: 1.35; white-space: pre-wrap"
    return _Page(f'<pre style="{style}">' + "\n".join(lines) + "</pre>", text)


def excerpt(module: Any, *names: str) -> None:
    """Show functions of a module as they stand there, those too that stand inside of another function.

    Raises:
        LessonError: the module has no function of that name.
    """
    from IPython.display import display

    text = Path(module.__file__).read_text(encoding="utf-8")
    found = {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    pieces = []
    for name in names:
        if name not in found:
            raise LessonError(f"{module.__name__} has no function {name}")
        node = found[name]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        pieces.append(textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno])))
    display(verbatim("\n\n".join(pieces)))


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show rows as a cell's output: columns of numbers to the right, text to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = zip(*cells, strict=True) if cells else ([""] for _ in headings)
    text = [any(character.isalpha() for cell in column for character in cell) for column in columns]
    lines = [f"**{title}**", "", *("| " + " | ".join(row) + " |" for row in (headings, *cells))]
    lines.insert(3, "|" + "|".join(":--" if is_text else "--:" for is_text in text) + "|")
    say("\n".join(lines))


@contextmanager
def _waiting() -> Iterator[Callable[[str], None]]:
    """Say what is being done, in a line that is gone at the end; only in a notebook.

    Why no bar of Rich: in a notebook it wants ipywidgets, which Colab and an editor may lack.
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        yield lambda what: None
        return
    line = display(_Text(""), display_id=True)
    try:
        yield lambda what: line.update(_Text(f"*{what} ...*"))
    finally:
        line.update(_Text(""))


def begin() -> None:
    """Choose the device, and say what it is and what that changes in the lessons."""
    chosen = device.choose()
    major, minor = chosen.compute_capability
    if chosen.is_gpu:
        config = device.numba_cuda_config()
        # why: the lessons launch tiny grids on host arrays on purpose, and Numba would warn each time
        config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_WARN_ON_IMPLICIT_COPY = 0
        changes = (
            "Kernels are compiled and run on this GPU, and times are measured. Where a lesson breaks a"
            " kernel, the checked simulator judges it too, in a process of its own."
        )
    else:
        changes = (
            "Kernels run in the simulator: it finds races, missing barriers and wrong indices, and it"
            " counts work. It cannot tell how long a GPU would take, so every time shown was recorded on a"
            " GPU, and says so."
        )
    say(
        f"**Device: {chosen.name}** ({chosen.reason}), {chosen.num_sms} SMs,"
        f" compute capability {major}.{minor}. {changes}"
    )


# --- right or wrong -----------------------------------------------------------------------------------


@contextmanager
def _with_functions(step: Any, functions: Sequence[Any]) -> Iterator[None]:
    """Let a step use functions of the same names that a notebook defines."""
    names = [getattr(function, "py_func", function).__name__ for function in functions]
    own = {name: getattr(step, name) for name in names}
    try:
        for name, function in zip(names, functions, strict=True):
            setattr(step, name, function)
        yield
    finally:
        for name, function in own.items():
            setattr(step, name, function)


def check(step: Any, *functions: Any, problems: Sequence[GroupedProblem] | None = None) -> None:
    """Run a step on the ragged cases and compare every output with NumPy.

    Args:
        step: a module of `gemm_lessons.steps`.
        functions: the notebook's own make_kernel, and kernels, to be used instead of the step's.
        problems: instead of the ragged cases.

    Raises:
        LessonError: an output is wrong, or the simulator found something; the message says what.
    """
    from gemm_lessons.measure.checks import ragged_problems

    rows, complaints = [], []
    problems = problems or ragged_problems(on_gpu=device.choose().is_gpu, small=True)
    with _with_functions(step, functions), _waiting() as tell:
        for number, problem in enumerate(problems, 1):
            tell(f"Case {number} of {len(problems)}: {problem.name or problem.counts}")
            verdict = judge(step, problem)
            state = verdict.lines[-1] if verdict.right else "**WRONG**"
            counts = ", ".join(map(str, problem.counts[:8])) + (", ..." if problem.num_groups > 8 else "")
            rows.append((problem.name, counts, problem.N, problem.K, state))
            if not verdict.right:
                complaints.append(f"on {problem.name!r}: {verdict}")
    name = step.__name__.rsplit(".", 1)[-1]
    table(f"`{name}` against NumPy", ("case", "tokens of each expert", "N", "K", "verdict"), rows)
    if complaints:
        raise LessonError(complaints[0])


@dataclass(frozen=True)
class Verdict:
    """What the checkers say about a few launches: a line for each, up to the first wrong one."""

    right: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def judge(step: Any, problem: GroupedProblem, launches: int = 1) -> Verdict:
    """Launch a step a few times and compare each result with NumPy, until one is wrong."""
    from gemm_lessons.launch import LaunchError

    inputs = draw_inputs(problem)
    lines: list[str] = []
    try:
        prepared = step.prepare(problem, inputs=inputs)
        for number in range(launches):
            comparison = prepared.check(inputs)
            lines.append(f"launch {number + 1}: {comparison}" if launches > 1 else str(comparison))
            if not comparison.ok:
                return Verdict(False, tuple(lines))
    except (SimulatorError, LaunchError, ProblemError) as error:
        return Verdict(False, (*lines, _first_finding(error)))
    return Verdict(True, tuple(lines))


def _first_finding(error: Exception) -> str:
    """What an exception says, without the findings that follow from the first."""
    name = type(error).__name__
    if not isinstance(error, SimulatorError) or len(error.findings) < 2:
        return f"{name}: {error}"
    more = len(error.findings) - 1
    return f"{name}: {error.findings[0]}\n(and {more} more, most of them consequences of this one)"


# --- break it -----------------------------------------------------------------------------------------


def broken(
    name: str, *changes: tuple[str, str], launches: int = 1, problem: GroupedProblem | None = None
) -> Verdict:
    """Change a step's source, show the change, and let the checkers judge the result.

    The step's file stays as it is: a copy is changed. On a GPU, the copy runs in processes of its own, in
    the checked simulator and on the GPU, since a wrong kernel can take the whole process down.

    Args:
        name: of a step, or of a module of `moe` that is used as one.
        changes: (old, new), each old text exactly once in the step's file, or in `schedule.py`.
        launches: how often the kernel is launched; some mistakes show at the second launch only.
        problem: None for a small one that is ragged in every way.

    Returns:
        The simulator's verdict.

    Raises:
        LessonError: an old text does not stand there exactly once.
    """
    from IPython.display import display

    with tempfile.TemporaryDirectory(prefix="gemm-lessons-") as folder:
        path, difference = _edit(name, changes, Path(folder))
        display(verbatim(difference))
        if device.choose().is_gpu:
            extents = "None"
            if problem:
                extents = repr((problem.counts, problem.N, problem.K, problem.dtype))
            verdict = _child("sim", ["step", str(path), str(launches), extents])
            _say_verdict("This GPU", _child("gpu", ["step", str(path), str(launches), extents]))
        else:
            verdict = judge(_import(path), problem or SMALL, launches)
    _say_verdict("The checked simulator", verdict)
    return verdict


def try_kernel(kernel: Any, grid: Any, block: Any, *arrays: np.ndarray[Any, Any]) -> Verdict:
    """Launch a kernel from a cell in the checked simulator, and show what that finds.

    The arrays hold the results afterwards, as far as the kernel came. On a GPU, the simulator runs in a
    process of its own and the arrays stay as they are; the kernel may then use only what `CELL_IMPORTS`
    brings in.

    Args:
        kernel: made by `@cuda.jit` in a cell.
        grid: blocks.
        block: threads of a block.
        arrays: the kernel's arguments.

    Returns:
        The simulator's verdict.
    """
    if device.choose().is_gpu:
        with tempfile.TemporaryDirectory(prefix="gemm-lessons-") as folder:
            path = Path(folder) / "cell.py"
            path.write_text(
                CELL_IMPORTS + textwrap.dedent(inspect.getsource(kernel.py_func)), encoding="utf-8"
            )
            np.savez(path.with_suffix(".npz"), *arrays)
            launch = [kernel.py_func.__name__, repr(grid), repr(block)]
            verdict = _child("sim", ["kernel", str(path), *launch])
    else:
        verdict = _launch(kernel, grid, block, arrays)
    _say_verdict("The checked simulator", verdict)
    return verdict


def _launch(kernel: Any, grid: Any, block: Any, arrays: Sequence[Any]) -> Verdict:
    try:
        kernel[grid, block](*arrays)
    except SimulatorError as error:
        return Verdict(False, (_first_finding(error),))
    return Verdict(True, ("the launch ended, and no access was wrong",))


def _say_verdict(who: str, verdict: Verdict) -> None:
    from IPython.display import display

    lines = (
        textwrap.fill(line, WIDTH, subsequent_indent="    ", replace_whitespace=False)
        for text in verdict.lines
        for line in text.splitlines()
    )
    say(f"**{who}** {'finds nothing wrong' if verdict.right else 'says'}:")
    display(verbatim("\n".join(lines)))


def _edit(name: str, changes: Sequence[tuple[str, str]], folder: Path) -> tuple[Path, str]:
    """Write changed copies of a step and, if it is changed, of `schedule.py`.

    Returns:
        The copy of the step, and the difference as text.
    """
    file = next(file for file in (f"steps/{name}.py", f"moe/{name}.py") if (PACKAGE / file).exists())
    before = {
        file: (PACKAGE / file).read_text(encoding="utf-8"),
        "schedule.py": (PACKAGE / "schedule.py").read_text(encoding="utf-8"),
    }
    after = dict(before)
    for old, new in changes:
        places = [file for file, text in after.items() if text.count(old) == 1]
        if not places:
            raise LessonError(f"{file} or schedule.py must hold this exactly once:\n{old}")
        after[places[0]] = after[places[0]].replace(old, new)
    tag = f"{abs(hash((name, changes))):x}"
    step, schedule = folder / f"broken_{name}_{tag}.py", folder / f"broken_schedule_{tag}.py"
    text = after[file]
    if after["schedule.py"] != before["schedule.py"]:
        schedule.write_text(after["schedule.py"], encoding="utf-8")
        text = text.replace("from gemm_lessons.schedule import", f"from {schedule.stem} import")
    step.write_text(text, encoding="utf-8")
    lines: list[str] = []
    for changed, text in before.items():
        hunks = list(difflib.unified_diff(text.splitlines(), after[changed].splitlines(), n=2, lineterm=""))
        lines += [f"in {changed}:"] if hunks else []
        lines += [line for line in hunks[2:] if not line.startswith("@@")]
    return step, "\n".join(lines)


def _import(path: Path) -> Any:
    sys.path.insert(0, str(path.parent))
    try:
        importlib.invalidate_caches()
        return importlib.import_module(path.stem)
    finally:
        sys.path.remove(str(path.parent))


def _child(where: str, arguments: Sequence[str]) -> Verdict:
    """Judge something in a process of its own, on the given device; see `main`."""
    command = [sys.executable, "-m", "gemm_lessons.lesson", *arguments]
    environment = {**os.environ, "GEMM_LESSONS_DEVICE": where, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)  # why: this process has set it for itself
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, (f"no answer within {CHILD_SECONDS:.0f} seconds: the kernel does not end",))
    if child.returncode in (RIGHT, WRONG):
        return Verdict(child.returncode == RIGHT, tuple(child.stdout.strip().splitlines()))
    reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    return Verdict(False, (f"the process died: {reason}",))


def main(what: str, file: str, *arguments: str) -> None:
    """Judge what a file holds, print the verdict and exit; what `_child` runs.

    Args:
        what: "step", then FILE LAUNCHES PROBLEM; or "kernel", then FILE NAME GRID BLOCK, arrays beside it.
        file: Python source.
        arguments: the rest.
    """
    device.choose()  # before the file imports Numba
    module = _import(Path(file))
    if what == "step":
        extents = ast.literal_eval(arguments[1])
        problem = GroupedProblem(*extents) if extents else LARGE if device.choose().is_gpu else SMALL
        verdict = judge(module, problem, int(arguments[0]))
    else:
        name, grid, block = arguments[0], ast.literal_eval(arguments[1]), ast.literal_eval(arguments[2])
        with np.load(Path(file).with_suffix(".npz")) as stored:
            arrays = [stored[key] for key in stored.files]
        verdict = _launch(getattr(module, name), grid, block, arrays)
    print(verdict, flush=True)
    # why not a normal exit: a kernel that broke the device makes Numba's own clean-up fail, too
    os._exit(RIGHT if verdict.right else WRONG)


# --- how fast -----------------------------------------------------------------------------------------


def measure(
    workload: str,
    steps: Sequence[str],
    *,
    parts: bool = False,
    others: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    results: str | None = None,
) -> None:
    """Show steps next to padded: timed where there is a GPU, else counted, and as recorded.

    Args:
        workload: name of a problem.
        steps: names, in the order of the ladder.
        parts: show what the parts of a step take, too.
        others: modules that are used as steps but stand outside the ladder, by name.
        dtype: of the inputs.
        results: which recorded results, if not those of the dtype: DEVICE-RESULTS.json, made by the module
            of that name in `measure`.

    Raises:
        LessonError: a step was wrong or failed.
    """
    from gemm_lessons.steps import steps_for
    from gemm_lessons.workloads import find_workload

    problem = find_workload(workload, dtype).problem
    modules = {name: {**steps_for(dtype), **(others or {})}[name] for name in steps}
    if device.choose().is_gpu:
        bench = _bench(dtype)
        with _waiting() as tell:
            tell(f"Drawing inputs of {workload}, and timing {', '.join(modules)} next to padded")
            bench.announce = lambda one: tell(f"{one.name} ({one.kind}): {one.status}; timing goes on")
            bench.ladder(problem, modules)
        _show_ladder(_all_right(bench.record), workload, parts=parts)
        return
    _count(problem, modules)
    record = _only(recorded(results or dtype), workload, steps)
    if record is None:
        command = f"python -m gemm_lessons.measure.{results}" if results else "make bench"
        say(NOT_RECORDED.format(what=f"these steps on `{workload}`", command=command))
        return
    say("The times below were **recorded**, not measured now; the title names the device and the day.")
    _show_ladder(record, workload, parts=parts)


def _show_ladder(record: Record, workload: str, *, parts: bool) -> None:
    say(tables.ladder(record, workload).markdown())
    if parts:
        say(tables.parts(record, workload).markdown())
    show(plots.ladder(record, workload), f"useful TFLOP/s of steps on {workload}")


def schedules(workload: str) -> None:
    """Show the persistent step under each schedule: timed where there is a GPU, else as recorded.

    Raises:
        LessonError: a result was wrong or failed.
    """
    from gemm_lessons.schedule import SCHEDULES
    from gemm_lessons.steps import STEPS
    from gemm_lessons.workloads import find_workload

    if device.choose().is_gpu:
        bench = _bench()
        bench.schedules(find_workload(workload).problem, STEPS["persistent"], SCHEDULES)
        record: Record | None = _all_right(bench.record)
    else:
        record = recorded()
    lines = tables.schedules(record, workload) if record else None
    if record is None or lines is None or not lines.rows:
        say(NOT_RECORDED.format(what=f"the schedules on `{workload}`", command="make bench"))
        return
    lines.title = f"The persistent step on {workload}, float32 ({record.label})"
    say(lines.markdown())


def _bench(dtype: str = "float32") -> Any:
    """A bench for this GPU that keeps its results to itself."""
    from gemm_lessons.measure.ladder import Bench, new_record
    from gemm_lessons.measure.roofline import peaks
    from gemm_lessons.measure.timing import CudaGpu, Rules

    gpu = CudaGpu()
    limits = peaks(gpu)
    return Bench(gpu, limits, new_record(dtype, Rules.quick(), limits), None, Rules.quick())


def _all_right(record: Record) -> Record:
    for one in record.measurements:
        if one.status in ("wrong", "failed"):
            raise LessonError(f"{one.name} on {one.workload}: {one.reason}")
    return record


def _count(problem: GroupedProblem, modules: Mapping[str, Any]) -> None:
    from gemm_lessons.measure.checks import counted_works

    works = counted_works(problem, modules)
    say(tables.counted(problem, works, device.choose().num_sms).markdown())


def _only(record: Record | None, workload: str, steps: Sequence[str]) -> Record | None:
    """A record with these steps on one workload alone; None if nothing of that was recorded."""
    if record is None or workload not in record.problems:
        return None
    kept = [
        one
        for one in record.measurements
        if one.workload == workload
        and one.name.split("/")[0] in steps
        and one.kind in ("step", "padded twin", "part")
    ]
    return replace(record, measurements=kept) if kept else None


def limits(dtype: str) -> list[Limits]:
    """What a device allows at most: measured here, or recorded; and what a data sheet promises.

    Args:
        dtype: of the inputs, one that the data sheet has.
    """
    promised = Limits("H100 SXM, data sheet", DATA_SHEET_BYTES_PER_S, DATA_SHEET_FLOPS_PER_S[dtype])
    if device.choose().is_gpu:
        from gemm_lessons.measure.roofline import peaks
        from gemm_lessons.measure.timing import CudaGpu

        here = peaks(CudaGpu())
        found, name = here.flops_per_s.get(dtype), f"{device.choose().name}, measured"
        bandwidth = here.bytes_per_s
    else:
        record = recorded(dtype) or recorded()
        known = record.peaks if record else {}
        found, name = known.get("flops_per_s", {}).get(dtype), f"{record.label}, recorded" if record else ""
        bandwidth = max(known.get("copy_bytes_per_s", 0.0), known.get("read_bytes_per_s", 0.0))
    return [*([Limits(name, bandwidth, found)] if found else []), promised]


# --- who works when -----------------------------------------------------------------------------------


def timelines(problem: GroupedProblem, schedules: Sequence[str], *functions: Any) -> list[Timeline]:
    """Run the persistent step under each schedule with its trace on, and check every result.

    Args:
        problem: what is computed.
        schedules: of `gemm_lessons.schedule.SCHEDULES`.
        functions: the notebook's own make_kernel, to be used instead of the step's.

    Returns:
        Timelines in nanoseconds of a GPU, or in the simulator's virtual ticks.

    Raises:
        LessonError: a result was wrong, or the simulator found something.
    """
    from gemm_lessons.steps import persistent

    config = persistent.CONFIG if device.choose().is_gpu else persistent.SIM_CONFIG
    inputs = problem.inputs()
    found = []
    with _with_functions(persistent, functions), _waiting() as tell:
        for schedule in schedules:
            tell(f"Running {schedule}")
            prepared = persistent.prepare(problem, replace(config, trace=True), inputs, schedule=schedule)
            # why it comes first: the first launch on a GPU loads the module, which looks like an idle device
            try:
                prepared.check(inputs).raise_if_wrong(schedule)
            except (SimulatorError, AssertionError) as error:
                raise LessonError(_first_finding(error)) from None
            if device.choose().is_gpu:
                persistent.launch(prepared)
                prepared.result()  # waits
            assert prepared.timeline is not None
            found.append(prepared.timeline())
    return found


def predictions(
    problem: GroupedProblem, schedules: Sequence[str], num_sms: int, BM: int, BN: int
) -> list[Timeline]:
    """Predict each schedule by counting: every tile takes as long as a full one, one block on each SM."""
    from gemm_lessons.schedule import plan, predict

    return [
        predict(plan(schedule, problem, BM, BN, num_sms), problem, BM, BN, num_sms) for schedule in schedules
    ]


# --- interactive --------------------------------------------------------------------------------------

Control = str | tuple[int, int, int] | Sequence[str] | list[int]


def counts_of(text: str) -> tuple[int, ...]:
    """Token counts from text such as "150, 80, 200".

    Raises:
        ValueError: something in it is not a whole number.
    """
    words = text.replace(",", " ").split()
    for word in words:
        if not word.isdecimal():
            raise ValueError(f"{word!r} is no count: use whole numbers, such as 150, 80, 0")
    return tuple(int(word) for word in words)


def explore(draw: Callable[..., Figure], alt: str, **controls: Control) -> None:
    """Show a picture with controls that draw it again; without ipywidgets, the picture alone.

    Args:
        draw: makes the picture from the controls' values; a ValueError of its own is shown as a sentence.
        alt: what the picture shows.
        controls: by name: text; a tuple (value, least, most) for a whole number; or a list to choose from,
            of texts or whole numbers.
    """
    from IPython.display import display

    start = {name: control if isinstance(control, str) else control[0] for name, control in controls.items()}
    try:
        import ipywidgets
    except ImportError:
        display(_image(draw(**start), alt))
        say("*Install `ipywidgets` for controls here, or change the numbers in this cell and run it again.*")
        return
    widgets = {name: _widget(ipywidgets, name, control) for name, control in controls.items()}
    complaint = ipywidgets.HTML()
    display(ipywidgets.VBox([*widgets.values(), complaint]))
    picture = display(_image(draw(**start), alt), display_id=True)

    def redraw(_: Mapping[str, Any]) -> None:
        try:
            values = {name: widget.value for name, widget in widgets.items()}
            picture.update(_image(draw(**values), alt))
            complaint.value = ""
        except ValueError as error:
            complaint.value = f"<b>{error}</b>"

    for widget in widgets.values():
        widget.observe(redraw, "value")


def _widget(ipywidgets: Any, name: str, control: Control) -> Any:
    wide = {"layout": {"width": "90%"}, "style": {"description_width": "9em"}, "continuous_update": False}
    label = name.replace("_", " ")
    if isinstance(control, str):
        return ipywidgets.Text(control, description=label, **wide)
    if isinstance(control, tuple) and all(isinstance(item, int) for item in control):
        value, least, most = control
        return ipywidgets.IntSlider(value, least, most, description=label, **wide)
    del wide["continuous_update"]
    return ipywidgets.Dropdown(options=list(control), description=label, **wide)


if __name__ == "__main__":
    main(*sys.argv[1:])
