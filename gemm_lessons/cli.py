"""The command line: demo, check, bench, layer, timeline, plot, doctor.

Exit codes: 0 all right, 1 something computed wrong or failed, 2 a request that makes no sense here.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table as RichTable

from gemm_lessons import device
from gemm_lessons.grading import commands

# Whatever imports Numba is imported by the command that needs it: `doctor` and `--help` must work
# where Numba does not.
if TYPE_CHECKING:
    from gemm_lessons.measure.ladder import Bench
    from gemm_lessons.measure.results import Measurement, Record
    from gemm_lessons.measure.tables import Table

app = typer.Typer(
    help="Grouped GEMM for Mixture-of-Experts in Numba CUDA, one idea per step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
WIDE = 120  # columns of a terminal that has room for full headings
console = Console(highlight=False)
complain = Console(stderr=True, highlight=False)
commands.register(app)

Quick = Annotated[bool, typer.Option("--quick", help="Fewer samples and workloads.")]
Names = list[str] | None
WorkloadNames = Annotated[Names, typer.Option("--workload", "-w", help="A named workload; repeat for more.")]
StepNames = Annotated[Names, typer.Option("--step", "-s", help="A step; repeat for more; all if none.")]
ResultsFile = Annotated[Path | None, typer.Option("--out", "-o", help="Results file, if not the package's.")]
WorkloadOption = Annotated[str, typer.Option("--workload", "-w", help="A named workload.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for what is written.")]
Projector = Annotated[bool, typer.Option("--projector", help="Larger type and a dark background.")]


class UsageError(ValueError):
    """A request that makes no sense here; the message says why in one sentence."""


def main() -> None:
    """Run a command; what it refuses is one sentence on stderr, not a traceback."""
    from gemm_lessons.measure.results import ResultsError
    from gemm_lessons.problem import ProblemError

    if sys.__stderr__:
        faulthandler.enable(sys.__stderr__)  # a crash inside a driver or a library shows where it happened
    try:
        app()
    except (device.DeviceError, ProblemError, ResultsError, UsageError) as error:
        _stop(error)
    except (RuntimeError, ValueError) as error:
        # why by name: these live in modules that import Numba, which may not be possible
        if type(error).__name__ not in ("ConfigError", "LaunchError", "TimingError"):
            raise
        _stop(error)
    except ModuleNotFoundError as error:
        _stop(f"the package {error.name!r} is missing: run `make demo` or `pip install gemm-lessons`")


def _stop(error: object) -> None:
    complain.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    sys.exit(2)


@app.command()
def demo(
    lesson: Annotated[str, typer.Option(help="For a class: the lesson whose exercise is broken.")] = "",
    broken: Annotated[
        str, typer.Option("--break", help="A wrong solution; they are listed if none is given.")
    ] = "",
    projector: Projector = False,
    out: Out = Path("out"),
) -> None:
    """Grouped against padded, and four load-balancing strategies; under a minute with or without a GPU.

    With --lesson and --break, a wrong solution meets the checker instead.
    """
    if lesson or broken:
        _demo_of_lesson(lesson, broken, out if projector else None)
        return
    from gemm_lessons.measure import demo as program

    bench = _bench("float32", quick=True, path=None) if device.choose().is_gpu else None
    _say_device()
    with _progress() as progress:
        task = progress.add_task("", total=None)
        if bench:
            bench.announce = lambda one: progress.update(task, description=f"measured {one.name}")
        lines = (
            program.on_gpu(bench)
            if bench
            else program.without_gpu(lambda what: progress.update(task, description=what))
        )
        for line in lines:
            progress.console.print(line, soft_wrap=True, markup=False)
    if bench and any(one.status != "ok" for one in bench.record.measurements):
        raise typer.Exit(1)


def _demo_of_lesson(lesson: str, broken: str, out: Path | None) -> None:
    from gemm_lessons.authoring import live

    if not lesson:
        raise UsageError("which lesson? Add --lesson 05, or leave --break out")
    try:
        if not broken:
            live.show_list(lesson, console)
            return
        mutant = live.find(lesson, broken)
    except live.UnknownBreakError as error:
        raise UsageError(str(error)) from error
    live.perform(mutant, console, out / f"demo-{mutant.exercise[:4]}-{mutant.name}.html" if out else None)


@app.command()
def check(
    steps: Annotated[Names, typer.Argument(help="Steps to check; all if none is named.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Small problems only, also on a GPU.")] = False,
) -> None:
    """Run steps on every ragged case and compare each output with NumPy."""
    from gemm_lessons.measure.checks import check_step, ragged_problems, suited
    from gemm_lessons.steps import FP8_STEPS, STEPS, TENSOR_STEPS

    # why not all without a GPU: the simulated tensor-core steps take minutes; name them to check them
    all_steps = STEPS | TENSOR_STEPS | FP8_STEPS
    chosen = _choose(steps, all_steps if steps or device.choose().is_gpu else STEPS)
    problems = ragged_problems(on_gpu=device.choose().is_gpu, small=small)
    _say_device()
    table = RichTable("step", "right", "refused", "wrong")
    complaints = []
    with _progress() as progress:
        task = progress.add_task("", total=len(chosen) * len(problems))
        for name, step in chosen.items():
            right = refused = 0
            wrong = []
            for problem in problems:
                progress.update(task, description=f"{name} on {problem.name}", advance=1)
                outcome = check_step(step, suited(name, problem))
                right, refused = right + outcome.right, refused + bool(outcome.refusal)
                if not outcome.right:
                    complaints.append(f"{name} on {problem.name}: {outcome.refusal or outcome.complaint}")
                if outcome.complaint:
                    wrong.append(problem.name)
            table.add_row(name, str(right), str(refused), escape(", ".join(wrong)) or "-")
            if wrong:
                table.rows[-1].style = "bold red"
    console.print(table)
    for complaint in complaints:
        console.print(f"  {complaint}", soft_wrap=True, markup=False)
    if any(row.style for row in table.rows):
        raise typer.Exit(1)


@app.command()
def bench(
    workload: WorkloadNames = None,
    step: StepNames = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16 or float8_e4m3fn.")] = "float32",
    quick: Quick = False,
    peers: Annotated[bool, typer.Option(help="Time other libraries, too.")] = True,
    out: ResultsFile = None,
) -> None:
    """Time every step beside the same kernel on the padded batch, and beside other libraries."""
    from gemm_lessons.measure.ladder import DEMO_WORKLOAD, workloads_for
    from gemm_lessons.measure.results import FOLDER, path_for

    names = workload or ([DEMO_WORKLOAD, "S-x16"] if quick else workloads_for(dtype))
    problems = [_workload(name, dtype).problem for name in names]
    _say_device()
    if not device.choose().is_gpu:
        _bench_without_gpu(problems)
        return
    from gemm_lessons.steps import steps_for

    # why: a part of the ladder must not replace the whole one that README shows
    whole = peers and not (workload or step or quick)
    path = out or path_for(device.choose().name, dtype, FOLDER if whole else Path("out"))
    the_bench = _bench(dtype, quick=quick, path=path)
    _run_bench(the_bench, problems, _choose(step, steps_for(dtype)), peers=peers)
    _show_record(the_bench)
    console.print(f"written: {path} ({the_bench.record.seconds:.0f} s)", soft_wrap=True)
    if any(one.status in ("wrong", "failed") for one in the_bench.record.measurements):
        raise typer.Exit(1)


@app.command()
def layer(
    dtype: Annotated[str, typer.Option(help="bfloat16, float8_e4m3fn or float32.")] = "bfloat16",
    tokens: Annotated[int, typer.Option(help="Tokens.")] = 8192,
    experts: Annotated[int, typer.Option(help="Experts.")] = 8,
    width: Annotated[int, typer.Option(help="Width of the model.")] = 2048,
    hidden: Annotated[int, typer.Option(help="Width of an expert's feed-forward network.")] = 2048,
    slots: Annotated[int, typer.Option("--top", help="Experts of a token.")] = 2,
    quick: Quick = False,
    out: ResultsFile = None,
    projector: Projector = False,
) -> None:
    """Time a whole Mixture-of-Experts layer, stage by stage and in every variant; count it without a GPU."""
    from gemm_lessons import layer_pictures, plots
    from gemm_lessons.measure import layer as program
    from gemm_lessons.measure import tables
    from gemm_lessons.measure.results import FOLDER, path_for, recorded

    if dtype not in program.VARIANTS:
        raise UsageError(f"no layer computes in {dtype}: use one of {', '.join(program.VARIANTS)}")
    problem = program.problem_of(tokens, width, hidden, experts, slots, dtype)
    style, picture = plots.style(projector=projector), Path("out") / f"layer-{dtype}.png"
    _say_device()
    if not device.choose().is_gpu:
        config = next(iter(program.VARIANTS[dtype].values()))
        works = program.counted(problem, config)
        _show(tables.counted_layer(problem.name, works))
        plots.save(layer_pictures.counted(works, f"The layer's work, {dtype}", style=style), picture)
        record = recorded(f"{dtype}-layer")
        if record is None:
            console.print("No times are recorded yet: `gemm-lessons layer` on a GPU records them.")
        else:
            console.print(f"Recorded on {record.label}; nothing below was measured now.", style="bold")
            _show_layer(record)
            picture = picture.with_stem(f"layer-{dtype}-recorded")
            plots.save(layer_pictures.timeline(record, program.NAME, style=style), picture)
        console.print(f"written: {picture.parent}/layer-{dtype}*.png", soft_wrap=True)
        return
    # why: another layer must not replace the one that the documentation shows
    whole = not quick and problem == program.problem_of(dtype=dtype)
    path = out or path_for(device.choose().name, f"{dtype}-layer", FOLDER if whole else Path("out"))
    with _progress() as progress:
        task = progress.add_task("", total=None)
        bench = program.new_bench(dtype, path, quick=quick)
        bench.announce = lambda one: progress.update(task, description=f"{one.name}: {one.status}")
        bench.run(problem, program.VARIANTS[dtype])
    _show_layer(bench.record)
    plots.save(layer_pictures.timeline(bench.record, problem.name, style=style), picture)
    console.print(f"written: {path}, {picture}", soft_wrap=True)
    if any(one.status in ("wrong", "failed") for one in bench.record.measurements):
        raise typer.Exit(1)


def _show_layer(record: Record) -> None:
    from gemm_lessons.measure import tables

    for workload in record.problems:
        _show(tables.layer(record, workload))
        for one in record.measurements:
            if one.workload == workload and one.kind == "layer" and one.status == "ok":
                _show(tables.stages(record, workload, one.name))


@app.command()
def timeline(
    workload: WorkloadOption = "S",
    schedule: Annotated[str, typer.Option("--schedule", "-s", help="A schedule, or all.")] = "all",
    out: Out = Path("out"),
    projector: Projector = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the traces of all schedules as the workbook's own data.")
    ] = False,
) -> None:
    """Draw which SM computed which tile when: traced on a GPU, predicted by counting without one."""
    from gemm_lessons import plots
    from gemm_lessons.measure.timeline import record_traces, timeline_of, write_chrome_trace
    from gemm_lessons.schedule import SCHEDULES

    problem = _workload(workload).problem
    if schedule != "all" and schedule not in SCHEDULES:
        raise UsageError(f"no schedule is called {schedule!r}: use all or one of {', '.join(SCHEDULES)}")
    if record and (schedule != "all" or not device.choose().is_gpu):
        raise UsageError("--record keeps a GPU's traces of all schedules: it needs a GPU, and no --schedule")
    _say_device()
    found = []
    with _progress() as progress:
        task = progress.add_task("", total=None)
        for name in SCHEDULES if schedule == "all" else [schedule]:
            progress.update(task, description=f"schedule {name}")
            one = timeline_of(problem, name)
            found.append(one)
            write_chrome_trace(one, out / f"timeline-{problem.name}-{name}.json")
    table = RichTable("schedule", "makespan", "idle tail", title=f"{problem.name}: {found[0].unit}")
    for one in found:
        table.add_row(one.label, f"{one.makespan:,.0f}", f"{one.idle_tail:.1%}")
    console.print(table)
    picture = out / f"timeline-{problem.name}.png"
    plots.save(plots.timelines(found, problem.name, style=plots.style(projector=projector)), picture)
    traces = f"{out}/timeline-{problem.name}-*.json"
    console.print(f"written: {picture}, and {traces} for ui.perfetto.dev", soft_wrap=True)
    if record:
        console.print(f"recorded: {record_traces(problem.name, found)}", soft_wrap=True)


@app.command()
def plot(
    what: Annotated[str, typer.Argument(help="waste, ladder or fp8-error")],
    workload: WorkloadOption = "S",
    out: Out = Path("out"),
    projector: Projector = False,
) -> None:
    """Draw the padding waste of a routing, the recorded ladder, or the recorded error of FP8."""
    from gemm_lessons import plots
    from gemm_lessons.measure.results import recorded

    style = plots.style(projector=projector)
    if what == "waste":
        figure = plots.padding_waste(_workload(workload).problem, style=style)
    elif what == "ladder":
        record = recorded("float32")
        if record is None or workload not in record.problems:
            raise UsageError(f"no times are recorded for {workload}: run `gemm-lessons bench` on a GPU")
        figure = plots.ladder(record, workload, style=style)
    elif what == "fp8-error":
        from gemm_lessons import scale_pictures
        from gemm_lessons.measure.fp8_error import load

        figure = scale_pictures.rounding_error(load()[0], style=style)
    else:
        known = "waste, ladder or fp8-error (and see `gemm-lessons timeline`)"
        raise UsageError(f"cannot plot {what!r}: use {known}")
    picture = out / (f"{what}.png" if what == "fp8-error" else f"{what}-{workload}.png")
    plots.save(figure, picture)
    console.print(f"written: {picture}", soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say what runs here and why, and what to install."""
    from gemm_lessons.measure.doctor import examine

    table = RichTable("", "found", "what to do", show_lines=False)
    findings = examine()
    for finding in findings:
        style = "bold red" if finding.broken else ""
        table.add_row(finding.subject, escape(finding.state), escape(finding.advice), style=style)
    console.print(table)
    if any(finding.broken for finding in findings):
        raise typer.Exit(1)


def _choose(names: list[str] | None, steps: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in names or () if name not in steps]
    if unknown:
        raise UsageError(f"no step is called {unknown[0]!r}: use one of {', '.join(steps)}")
    return {name: step for name, step in steps.items() if not names or name in names}


def _workload(name: str, dtype: str = "float32") -> Any:
    from gemm_lessons.workloads import find_workload

    try:
        return find_workload(name, dtype)
    except KeyError as error:
        raise UsageError(error.args[0]) from error


def _say_device() -> None:
    chosen = device.choose()
    console.print(f"device: {chosen.name} ({chosen.reason})\n", soft_wrap=True, markup=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


def _bench(dtype: str, *, quick: bool, path: Path | None) -> Bench:
    from gemm_lessons.measure.ladder import Bench, new_record
    from gemm_lessons.measure.roofline import peaks
    from gemm_lessons.measure.timing import CudaGpu, Rules

    gpu = CudaGpu()
    rules = Rules.quick() if quick else Rules()
    with console.status("measuring this GPU's bandwidth and arithmetic peaks (once)"):
        limits = peaks(gpu)
    return Bench(gpu, limits, new_record(dtype, rules, limits), path, rules)


def _run_bench(bench: Bench, problems: list[Any], steps: dict[str, Any], *, peers: bool) -> None:
    from gemm_lessons.measure.ladder import SCHEDULED
    from gemm_lessons.schedule import SCHEDULES

    with _progress() as progress:
        task = progress.add_task("", total=len(problems) * (2 if peers else 1))

        def announce(one: Measurement) -> None:
            progress.update(task, description=f"{one.workload}: {one.name} ({one.kind})")
            if one.status in ("wrong", "failed"):
                progress.console.print(
                    f"{one.workload}: {one.name}: {one.status.upper()}: {one.reason}", markup=False
                )

        bench.announce = announce
        for problem in problems:
            bench.ladder(problem, steps)
            if "persistent" in steps and problem.name in SCHEDULED:
                bench.schedules(problem, steps["persistent"], SCHEDULES)
            progress.advance(task)
            # why not all at the end: a ratio compares what was timed within a minute, on the same inputs
            if peers:
                bench.peers(problem)
                progress.advance(task)


def _show_record(bench: Bench) -> None:
    from gemm_lessons.measure import tables

    for workload in bench.record.problems:
        if not workload.endswith(" padded"):
            _show(tables.ladder(bench.record, workload))
            _show(tables.parts(bench.record, workload))
            _show(tables.schedules(bench.record, workload))


def _bench_without_gpu(problems: list[Any]) -> None:
    """The same table without made-up times: counted work, recorded times, and NumPy on the CPU."""
    from gemm_lessons.measure import tables
    from gemm_lessons.measure.checks import counted_works
    from gemm_lessons.measure.cpu import numpy_times
    from gemm_lessons.measure.results import recorded

    record = recorded(problems[0].dtype)
    _show(tables.problems(problems))
    with _progress() as progress:
        task = progress.add_task("counting", total=2)
        works = counted_works(problems[0])
        progress.update(task, description="timing NumPy on the CPU", advance=1)
        times = numpy_times(problems[0])
    _show(tables.counted(problems[0], works, device.choose().num_sms))
    console.print(
        f"Measured now on this CPU, NumPy on {problems[0].name}:"
        f" {times.padded.median_us / 1e3:.1f} ms padded,"
        f" {times.per_expert.median_us / 1e3:.1f} ms per expert,"
        f" {times.speedup:.2f}x faster.\n",
        soft_wrap=True,
    )
    if record is None:
        console.print("No times are recorded yet: `make bench` on a GPU records them.")
        return
    console.print(f"Recorded on {record.label}; nothing below was measured now.", style="bold")
    for problem in problems:
        if problem.name in record.problems:
            _show(tables.ladder(record, problem.name))


def _show(table: Table) -> None:
    if not table.rows:
        return
    short = table.short if console.width < WIDE else ()
    drawn = RichTable(
        title=table.title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    for i, heading in enumerate(short or table.headings):
        drawn.add_column(escape(heading), justify="right" if i else "left", no_wrap=not i)
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    console.print(drawn)
    for note in [*([table.legend] if short else []), *table.notes]:
        console.print(f"  {note}", soft_wrap=True, markup=False)
    console.print()
