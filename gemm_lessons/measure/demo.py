"""The two programs of the first lesson: a grouped GEMM beside a padded one, and four ways to share work.

With a GPU every number is measured now.  Without one, the kernels run on small twins in the simulator
and are judged, work at full size is counted, times are those that were recorded on a GPU, and NumPy
shows on the CPU what padding costs.  Nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gemm_lessons.measure.cpu import numpy_times
from gemm_lessons.measure.ladder import DEMO_WORKLOAD, Bench
from gemm_lessons.measure.results import Measurement, Record, recorded
from gemm_lessons.measure.tables import number
from gemm_lessons.measure.timeline import num_sms, predicted
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import SCHEDULES
from gemm_lessons.steps import STEPS
from gemm_lessons.workloads import Workload, find_workload

BEST = "persistent"
CHECKED = tuple(STEPS)

Report = Callable[[str], None]  # says how far the work is


def on_gpu(bench: Bench) -> Iterator[str]:
    """Both programs, measured now; yields line after line."""
    problem = find_workload(DEMO_WORKLOAD).problem
    bench.ladder(problem, {name: STEPS[name] for name in ("padded", BEST)})
    yield from _grouped_gemm(problem, bench.record)
    yield ""
    bench.schedules(problem, STEPS[BEST], SCHEDULES)
    yield from _variable_sizes(bench.record)


def without_gpu(report: Report = lambda what: None) -> Iterator[str]:
    """Both programs, checked in the simulator, counted, and with recorded times; yields line after line."""
    workload = find_workload(DEMO_WORKLOAD)
    record = recorded("float32")
    yield from _configuration(workload.problem)
    yield ""
    yield from _checked(workload, report)
    yield ""
    yield from _counted(workload.problem)
    yield ""
    report("timing NumPy on the CPU")
    yield from _on_the_cpu(workload.problem)
    yield ""
    if record and record.find(DEMO_WORKLOAD, BEST):
        yield f"Recorded on {record.label}, not measured now:"
        yield from (f"  {line}" for line in _performance(record))
    else:
        yield "Recorded on a GPU: nothing yet (`make bench` on a GPU records it)"
    yield ""
    yield "=== Variable-Size Grouped GEMM ==="
    yield from _predicted(workload.problem)
    if record and any(one.kind == "schedule" for one in record.measurements):
        yield ""
        yield f"Recorded on {record.label}, not measured now:"
        yield from (f"  {line}" for line in _strategies(record))


def _configuration(problem: GroupedProblem) -> Iterator[str]:
    yield "=== Grouped GEMM Demo ==="
    yield "Configuration:"
    yield f"  Number of experts: {problem.num_groups}"
    yield f"  Hidden dimension: {problem.K}"
    yield f"  Token counts per expert: {list(problem.counts)}"


def _grouped_gemm(problem: GroupedProblem, record: Record) -> Iterator[str]:
    yield from _configuration(problem)
    yield ""
    yield from _performance(record)


def _performance(record: Record) -> Iterator[str]:
    """The seed's two blocks: the best step, and the same kernel on the padded batch."""
    grouped = record.find(DEMO_WORKLOAD, BEST)
    padded = record.find(DEMO_WORKLOAD, BEST, "padded twin")
    yield f"Grouped GEMM Performance (step `{BEST}`, float32):"
    yield from _time_and_rate(grouped)
    yield ""
    yield "Padded Batched GEMM Performance (the same kernel on the padded batch):"
    yield from _time_and_rate(padded)
    first = record.find(DEMO_WORKLOAD, "padded")
    if _timed(grouped) and _timed(padded):
        yield ""
        yield f"Speedup: {padded.median_us / grouped.median_us:.2f}x"  # type: ignore[union-attr, operator]
    if _timed(grouped) and _timed(first):
        faster = first.median_us / grouped.median_us  # type: ignore[union-attr, operator]
        yield f"Speedup over the first step of the ladder, `padded`: {faster:.1f}x"


def _timed(measurement: Measurement | None) -> bool:
    return measurement is not None and measurement.status == "ok"


def _time_and_rate(measurement: Measurement | None) -> Iterator[str]:
    if measurement is None:
        yield "  NOT RUN"
    elif measurement.status != "ok":
        yield f"  {measurement.status.upper()}: {measurement.reason}"
    else:
        yield f"  Time: {measurement.median_us / 1e3:.3f} ms"  # type: ignore[operator]
        share = measurement.percent_of_roofline
        of_roofline = f", {share:.0f}% of this problem's roofline" if share is not None else ""
        yield f"  Throughput: {number(measurement.useful_tflops)} TFLOPS, useful ones only{of_roofline}"


def _variable_sizes(record: Record) -> Iterator[str]:
    yield "=== Variable-Size Grouped GEMM ==="
    yield "Testing load balancing strategies..."
    yield ""
    yield from _strategies(record)


def _strategies(record: Record) -> Iterator[str]:
    times: dict[str, float] = {}
    for i, name in enumerate(SCHEDULES, start=1):
        found = record.find(DEMO_WORKLOAD, name, "schedule")
        if found is None or found.status != "ok":
            reason = found.reason if found else "not measured"
            yield f"Strategy {i} ({_title(name)}): {found.status.upper() if found else 'NOT RUN'}: {reason}"
            continue
        times[name] = found.median_us or 0.0
        tail = "" if found.idle_tail is None else f", idle tail {found.idle_tail:.0%}"
        yield (
            f"Strategy {i} ({_title(name)}): {times[name] / 1e3:.3f} ms"
            f" ({number(found.useful_tflops)} TFLOPS{tail})"
        )
    yield from _best(times)


def _best(times: Mapping[str, float], how: str = "") -> Iterator[str]:
    """The best strategies, those within a percent of the best included, beside the first."""
    first = next(iter(SCHEDULES))
    if first in times and len(times) > 1:
        best = min(times.values())
        names = [_title(name) for name, time in times.items() if time <= 1.01 * best]
        yield ""
        yield f"Best strategy{how}: {', '.join(names)} ({times[first] / best:.2f}x over {first})"


def _title(name: str) -> str:
    return name.replace("work-", "work ").replace("-first", " first").capitalize()


def _checked(workload: Workload, report: Report) -> Iterator[str]:
    twin = workload.twin
    inputs = twin.inputs()
    yield f"Checked now in the simulator, {list(twin.counts)} tokens, N = {twin.N}, K = {twin.K}:"
    for name in CHECKED:
        report(f"simulating step `{name}`")
        verdict = STEPS[name].prepare(twin, inputs=inputs).check(inputs)
        verdict.raise_if_wrong(f"step `{name}`")
        yield f"  {name:<14} {verdict}"


def _counted(problem: GroupedProblem) -> Iterator[str]:
    yield "Counted work at full size:"
    yield f"  Grouped: {number(problem.useful_flops / 1e9)} GFLOP"
    yield (
        f"  Padded:  {number(problem.padded_flops / 1e9)} GFLOP, {problem.efficiency:.1%} of them useful,"
        f" {1 - problem.efficiency:.1%} wasted"
    )
    yield f"  At least {number(problem.least_bytes / 1e6)} MB must be moved"


def _on_the_cpu(problem: GroupedProblem) -> Iterator[str]:
    times = numpy_times(problem)
    yield "Measured now on this computer's CPU, NumPy at full size:"
    yield f"  One product per expert: {times.per_expert.median_us / 1e3:.1f} ms"
    yield f"  The padded batch:       {times.padded.median_us / 1e3:.1f} ms"
    yield f"  Speedup from not padding: {times.speedup:.2f}x"


def _predicted(problem: GroupedProblem) -> Iterator[str]:
    """What the schedules do to the tiles, counted: an idle tail needs no clock."""
    sms, config = num_sms(), STEPS[BEST].CONFIG
    yield f"Counted for {sms} SMs with one block each, every tile taking as long as a full one:"
    spans: dict[str, float] = {}
    for i, name in enumerate(SCHEDULES, start=1):
        timeline = predicted(problem, name, sms)
        spans[name] = timeline.makespan
        rounds = timeline.makespan / (config.BM * config.BN * problem.K)
        idle = f"idle tail {timeline.idle_tail:.0%}"
        yield f"  Strategy {i} ({_title(name)}): {rounds:.0f} tiles one after another, {idle}"
    yield from _best(spans, " by this count")
