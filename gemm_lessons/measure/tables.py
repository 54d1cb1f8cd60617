"""Tables as plain rows of text, made from records and problems; the command line and README draw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemm_lessons.measure.results import MOVING, Measurement, Record, StageWork, stages_of
from gemm_lessons.problem import GroupedProblem

NOT_MEASURED = "-"


@dataclass
class Table:
    """A title, headings, rows of cells, and notes below; the first column is text, the others numbers.

    Attributes:
        title: above the table.
        headings: of the columns.
        rows: as many cells in each as there are headings.
        notes: below the table.
        short: headings for a narrow terminal, if they differ.
        legend: what the short headings mean.
    """

    title: str
    headings: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    short: Sequence[str] = ()
    legend: str = ""

    def markdown(self) -> str:
        """The table in GitHub's Markdown, notes as a list."""
        lines = [f"**{self.title}**", ""]
        lines.append("| " + " | ".join(self.headings) + " |")
        lines.append("|---" + "|--:" * (len(self.headings) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


def number(value: float | None, suffix: str = "") -> str:
    """Three significant digits, or a dash for what was not measured."""
    if value is None:
        return NOT_MEASURED
    if abs(value) >= 100:
        return f"{value:,.0f}{suffix}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}{suffix}"


def _ratio(slow: Measurement | None, fast: Measurement | None) -> str:
    if not slow or not fast or not slow.median_us or not fast.median_us:
        return NOT_MEASURED
    return f"{slow.median_us / fast.median_us:.2f}x"


def _good(measurement: Measurement | None) -> Measurement | None:
    return measurement if measurement and measurement.status == "ok" else None


def ladder(record: Record, workload: str) -> Table:
    """Every step and peer on one workload, with the reason for each that did not run."""
    problem = record.problems[workload]
    table = Table(
        f"{workload}: {sum(problem['counts'])} tokens on {len(problem['counts'])} experts,"
        f" N = {problem['N']}, K = {problem['K']}, {record.dtype} ({record.label})",
        (
            "step",
            "µs",
            "± µs",
            "useful TFLOP/s",
            "% of roof",
            "same kernel, padded: µs",
            "gain from not padding",
            "gain over step `padded`",
            "launch: host µs",
            "launch: device µs",
        ),
        short=("step", "µs", "± µs", "TFLOP/s", "% roof", "padded", "gain", "total", "host", "device"),
        legend="TFLOP/s: useful ones; padded: µs of the same kernel on the padded batch; gain: over that;"
        " total: gain over step `padded`; host, device: µs that a launch without a graph costs more.",
    )
    baseline = _good(record.find(workload, "padded"))
    for one in record.measurements:
        if one.workload != workload or one.kind not in ("step", "peer"):
            continue
        if one.status != "ok":
            table.rows.append((one.name, one.status.upper(), *[""] * 8))
            table.notes.append(f"{one.name}: {one.status.upper()}, {one.reason}")
            continue
        twin = _good(record.find(workload, one.name, "padded twin"))
        table.rows.append(
            (
                one.name,
                number(one.median_us),
                number(one.iqr_us),
                number(one.useful_tflops),
                number(one.percent_of_roofline, "%"),
                number(twin.median_us if twin else None),
                _ratio(twin, one),
                _ratio(baseline, one),
                number(one.host_us),
                number(one.launch_us),
            )
        )
        if one.reason:
            table.notes.append(f"{one.name}: {one.reason}")
    clocks = [one.sm_mhz for one in record.measurements if one.workload == workload and one.sm_mhz]
    if clocks:
        table.notes.append(f"SM clock right after timing: {min(clocks)} to {max(clocks)} MHz")
    return table


def beside(record: Record, step: str, peer: str, other: str) -> Table:
    """A step on every workload that it was timed on, as a share of a peer's time, and against another.

    Args:
        record: of one run.
        step: whose table it is.
        peer: the library call that does the same work.
        other: a library call that does more, such as the padded batch, or less, such as sums of few bits.
    """
    table = Table(
        f"{step} beside {peer} in the same run, {record.dtype} ({record.label})",
        ("workload", "N, K", "µs", "± µs", "useful TFLOP/s", "% of roof", f"{peer}: µs", "ours / its",
         f"{other}: µs", "its / ours"),
    )  # fmt: skip
    for workload, problem in record.problems.items():
        own = record.find(workload, step)
        if own is None or not own.median_us:
            continue
        same, second = (record.find(workload, name, "peer") for name in (peer, other))
        over = f"{own.median_us / same.median_us:.2f}" if same and same.median_us else NOT_MEASURED
        table.rows.append(
            (
                workload, f"{problem['N']}, {problem['K']}", number(own.median_us), number(own.iqr_us),
                number(own.useful_tflops), number(own.percent_of_roofline, "%"),
                number(same.median_us if same else None), over,
                number(second.median_us if second else None), _ratio(second, own),
            )
        )  # fmt: skip
        for one in (same, second):
            if one and one.reason:
                table.notes.append(f"{one.name} on {workload}: {one.status.upper()}, {one.reason}")
    if any(NOT_MEASURED in row for row in table.rows):
        table.notes.append(f"{NOT_MEASURED} was not timed in this run")
    return table


def parts(record: Record, workload: str) -> Table:
    """The parts of steps that have several, such as packing, each timed by itself."""
    table = Table(f"{workload}: parts", ("part", "µs", "± µs"))
    for one in record.measurements:
        if (one.workload, one.kind) == (workload, "part"):
            table.rows.append((one.name, number(one.median_us), number(one.iqr_us)))
    return table


def schedules(record: Record, workload: str) -> Table:
    """The load-balancing strategies of the persistent step."""
    table = Table(f"{workload}: schedules", ("schedule", "µs", "± µs", "useful TFLOP/s", "idle tail"))
    for one in record.measurements:
        if (one.workload, one.kind) != (workload, "schedule"):
            continue
        if one.status != "ok":
            table.rows.append((one.name, one.status.upper(), "", "", ""))
            table.notes.append(f"{one.name}: {one.status.upper()}, {one.reason}")
            continue
        tail = NOT_MEASURED if one.idle_tail is None else f"{one.idle_tail:.1%}"
        times = (number(one.median_us), number(one.iqr_us), number(one.useful_tflops))
        table.rows.append((one.name, *times, tail))
    return table


def layer(record: Record, workload: str) -> Table:
    """Every variant of a whole layer, and what routing, gather and scatter take of it."""
    problem = record.problems[workload]
    table = Table(
        f"{workload}: {problem['num_tokens']} tokens, {problem['num_experts']} experts,"
        f" width {problem['width']}, FFN width {problem['hidden']}, {problem['router']},"
        f" {record.dtype} ({record.label})",
        ("variant", "µs", "± µs", "TFLOP/s", "routing, gather, scatter", "their share"),
    )
    for one in record.measurements:
        if one.workload != workload or one.kind not in ("layer", "peer"):
            continue
        if one.status != "ok":
            table.rows.append((one.name, one.status.upper(), "", "", "", ""))
            table.notes.append(f"{one.name}: {one.status.upper()}, {one.reason}")
            continue
        stages = stages_of(record, workload, one.name)
        moving = sum(time for name, time in stages.items() if name in MOVING)
        table.rows.append(
            (
                one.name,
                number(one.median_us),
                number(one.iqr_us),
                number(one.useful_tflops),
                number(moving if stages else None),
                f"{moving / sum(stages.values()):.1%}" if stages else NOT_MEASURED,
            )
        )
        if one.reason:
            table.notes.append(f"{one.name}: {one.reason}")
    return table


def counted_layer(name: str, works: Mapping[str, StageWork]) -> Table:
    """The work of every stage of a layer, counted: no device is needed for these numbers."""
    table = Table(f"{name}: counted work of its stages, all slots taken", ("stage", "GFLOP", "least MB"))
    table.rows = [
        (stage, number(work.flops / 1e9), number(work.num_bytes / 1e6)) for stage, work in works.items()
    ]
    return table


def stages(record: Record, workload: str, name: str) -> Table:
    """The stages of one variant of a layer, between events on the device."""
    found = stages_of(record, workload, name)
    table = Table(f"{workload}: stages of {name}", ("stage", "µs", "share"))
    table.rows = [(stage, number(time), f"{time / sum(found.values()):.1%}") for stage, time in found.items()]
    return table


def problems(chosen: Iterable[GroupedProblem]) -> Table:
    """What every kernel faces, counted: no device is needed for these numbers."""
    table = Table(
        "Counted work",
        ("workload", "tokens", "experts", "useful GFLOP", "padded GFLOP", "wasted by padding", "least MB"),
    )
    for problem in chosen:
        table.rows.append(
            (
                problem.name,
                f"{problem.total_tokens:,}",
                str(problem.num_groups),
                number(problem.useful_flops / 1e9),
                number(problem.padded_flops / 1e9),
                f"{1 - problem.efficiency:.1%}",
                number(problem.least_bytes / 1e6),
            )
        )
    return table


def counted(problem: GroupedProblem, works: Mapping[str, Any], num_sms: int) -> Table:
    """What every step does on one problem: `launch.Work` by step."""
    table = Table(
        f"Counted work on {problem.name}, full size, for a device of {num_sms} SMs",
        ("step", "launches", "blocks", "tiles", "GFLOP done", "of them useful", "MB packed"),
    )
    for name, work in works.items():
        useful = f"{problem.useful_flops / work.flops:.1%}" if work.flops else NOT_MEASURED
        table.rows.append(
            (
                name,
                f"{work.launches:,}",
                f"{work.blocks:,}",
                f"{work.tiles:,}",
                number(work.flops / 1e9),
                useful,
                number(work.packed_bytes / 1e6),
            )
        )
    return table
