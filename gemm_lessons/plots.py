"""Pictures in one style: padding waste, the ladder, timelines.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; type is large enough for the back
of a classroom; the projector style is larger still, on black.  Nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gemm_lessons.measure.results import Record
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.trace import Slice, Timeline, lanes

# Okabe and Ito, "Color Universal Design", 2008, without black and white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
USEFUL, WASTED, PEER, ROOF = PALETTE[0], PALETTE[5], PALETTE[7], PALETTE[5]


@dataclass(frozen=True)
class Style:
    """Type size in points, and the two colours that everything else stands on."""

    size: float
    ink: str
    paper: str

    def extent(self, width: float, height: float) -> tuple[float, float]:
        """A figure's extent in inches: larger type needs more room, though less than in proportion."""
        room = (self.size / PAGE.size) ** 0.6
        return width * room, height * room

    @property
    def settings(self) -> Any:
        """Matplotlib settings for this style."""
        return {
            "font.size": self.size,
            "axes.titlesize": self.size * 1.15,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": self.size,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": self.ink,
            "axes.labelcolor": self.ink,
            "axes.facecolor": self.paper,
            "figure.facecolor": self.paper,
            "figure.constrained_layout.use": True,
            "text.color": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "legend.frameon": False,
            "hatch.color": self.ink,
            "hatch.linewidth": 0.8,
        }


PAGE = Style(13, "#222222", "#FFFFFF")
PROJECTOR = Style(18, "#F2F2F2", "#111111")


def style(*, projector: bool = False) -> Style:
    """The page style, or the projector's."""
    return PROJECTOR if projector else PAGE


def save(figure: Figure, path: Path, *, source: str = "") -> None:
    """Write a figure; the file's ending chooses the format.

    Args:
        figure: what to write.
        path: where; folders are made.
        source: what the picture was made from, kept inside an SVG file. No date of its own goes in, so
            that the same picture is the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None, "Source": source} if path.suffix == ".svg" else {}
    with mpl.rc_context({"svg.hashsalt": "gemm_lessons"}):
        figure.savefig(path, dpi=150, metadata=metadata)


def colour_of(group: int) -> str:
    """An expert's colour; experts that share one are told apart by their labels."""
    return PALETTE[group % len(PALETTE)]


def padding_waste(problem: GroupedProblem, *, style: Style = PAGE) -> Figure:
    """One bar per expert: its tokens, and the zeros that padding adds up to the longest expert."""
    with mpl.rc_context(style.settings):
        figure = Figure(figsize=style.extent(10, 5))
        axes = figure.subplots()
        experts, counts = np.arange(problem.num_groups), np.asarray(problem.counts)
        waste = problem.max_tokens - counts
        axes.bar(experts, counts, color=USEFUL, label="tokens: useful work")
        axes.bar(
            experts[waste > 0], waste[waste > 0], bottom=counts[waste > 0],
            color="none", edgecolor=WASTED, hatch="///", label="padding: work on zeros",
        )  # fmt: skip
        if problem.num_groups <= 16:
            axes.set_xticks(experts)
            size = style.size * (1.0 if problem.num_groups <= 10 else 0.85)
            for expert, count in zip(experts, counts, strict=True):
                top = 1.02 * problem.max_tokens
                axes.text(float(expert), top, f"{count}", ha="center", fontsize=size, fontweight="bold")
        padded_rows = problem.num_groups * problem.max_tokens
        axes.set_xlabel(f"expert ({problem.total_tokens:,} tokens, {padded_rows:,} rows when padded)")
        axes.set_ylabel("rows")
        axes.set_title(f"{problem.name}: {1 - problem.efficiency:.1%} of the padded batch is wasted")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _rate(tflops: float) -> str:
    """Three significant digits; four, rather than a power of ten."""
    return f"{tflops:,.0f}" if tflops >= 100 else f"{tflops:.3g}"


def ladder(record: Record, workload: str, *, style: Style = PAGE) -> Figure:
    """Useful TFLOP/s of every step, beside the same kernel on the padded batch, peers and the roofline."""
    lines = [
        one
        for one in record.measurements
        if one.workload == workload and one.kind in ("step", "peer") and one.status == "ok"
    ]
    with mpl.rc_context(style.settings):
        figure = Figure(figsize=style.extent(10, 1.8 + 0.6 * max(len(lines), 3)))
        axes = figure.subplots()
        rates = [one.useful_tflops or 0.0 for one in lines]
        places = [float(place) for place in range(len(lines))]
        colours = [USEFUL if one.kind == "step" else PEER for one in lines]
        axes.barh(places, rates, height=0.7, color=colours)
        for place, one in zip(places, lines, strict=True):
            twin = record.find(workload, one.name, "padded twin") if one.kind == "step" else None
            rate = one.useful_tflops or 0.0
            end = rate
            if twin and twin.status == "ok" and twin.useful_tflops:
                axes.plot(
                    [twin.useful_tflops] * 2, [place - 0.35, place + 0.35], color=PALETTE[1], linewidth=4
                )
                end = max(end, twin.useful_tflops)
            axes.text(end, place, f"  {_rate(rate)}", va="center", fontweight="bold")
        roof = _roof(record, workload)
        if roof:
            axes.axvline(roof, color=ROOF, linestyle="--", linewidth=2)
            axes.text(roof, len(lines) - 0.4, f"roofline {_rate(roof)} ", color=ROOF, ha="right", va="bottom",
                      fontweight="bold")  # fmt: skip
        axes.set_xlim(0, 1.12 * max([*rates, roof or 0.0, 1e-9]))
        axes.set_ylim(len(lines) - 0.1, -0.6)
        axes.set_yticks(places, [one.name for one in lines])
        axes.set_xlabel(f"useful TFLOP/s, {record.dtype}")
        axes.set_title(f"The ladder on {workload}\n{record.label}")
        figure.legend(
            handles=[
                Patch(color=USEFUL, label="a step of the ladder"),
                Patch(color=PALETTE[1], label="same kernel, padded"),
                Patch(color=PEER, label="another library"),
            ],
            loc="outside lower center",
            ncols=3,
        )
    return figure


def _roof(record: Record, workload: str) -> float | None:
    """Useful TFLOP/s at the roofline, from any line that knows its share of it."""
    for one in record.measurements:
        if one.workload == workload and one.percent_of_roofline and one.useful_tflops:
            return 100 * one.useful_tflops / one.percent_of_roofline
    return None


def timelines(found: Sequence[Timeline], title: str, *, style: Style = PAGE) -> Figure:
    """Timelines under each other on one axis, so that the shortest can be seen to be the shortest.

    If one is more than three times as long as the shortest, the axis is cut, and its title says so.
    """
    with mpl.rc_context(style.settings):
        figure = Figure(figsize=style.extent(12, 1.8 + 2.3 * len(found)))
        panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        scale, unit = _unit(found)
        longest, shortest = (pick(one.makespan for one in found) * scale for pick in (max, min))
        shown = (longest if longest <= 3 * shortest else 1.5 * shortest) or 1.0
        for axes, one in zip(panels, found, strict=True):
            _draw_timeline(axes, one, scale, shown)
            axes.set_xlim(0, shown)
            cut = " (cut off)" if one.makespan * scale > shown else ""
            axes.set_title(f"{one.label}: {one.makespan * scale:,.0f}{cut}, idle tail {one.idle_tail:.1%}")
        panels[-1].set_xlabel(unit)
        figure.legend(handles=_legend(found, style), loc="outside lower center", ncols=5)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=style.size * 1.3)
    return figure


def _legend(found: Sequence[Timeline], style: Style) -> list[Patch]:
    groups = sorted({piece.group for one in found for piece in one.slices})
    handles = []
    for colour in PALETTE:
        same = [str(group) for group in groups if colour_of(group) == colour]
        if same:
            label = ", ".join(same[:3]) + (", ..." if len(same) > 3 else "")
            handles.append(Patch(color=colour, label=f"expert {label}"))
    return [*handles, Patch(facecolor="none", edgecolor=style.ink, hatch="///", label="idle tail")]


def _draw_timeline(axes: Any, timeline: Timeline, scale: float, shown: float) -> None:
    placed = lanes(timeline.slices)
    slots = 1 + max((slot for _, slot in placed.values()), default=0)
    gap = 0.002 * shown  # between tiles, so that each can be counted
    of_block: dict[int, list[Slice]] = {block: [] for block in placed}
    for piece in timeline.slices:
        of_block[piece.block].append(piece)
    for block, pieces in of_block.items():
        sm, slot = placed[block]
        starts = [(piece.start - timeline.start) * scale for piece in pieces]
        durations = [max((piece.stop - piece.start) * scale - gap, gap / 2) for piece in pieces]
        axes.broken_barh(
            list(zip(starts, durations, strict=True)),
            (sm + slot / slots, (0.94 if timeline.num_sms <= 32 else 1.0) / slots),
            facecolors=[colour_of(piece.group) for piece in pieces],
            linewidth=0,
        )
    for sm, finished in enumerate(timeline.finished):
        if finished < timeline.stop:
            axes.broken_barh(
                [((finished - timeline.start) * scale, (timeline.stop - finished) * scale)],
                (sm, 1), facecolors="none", hatch="///", linewidth=0,
            )  # fmt: skip
    axes.set_ylim(timeline.num_sms, 0)
    labelled = range(0, timeline.num_sms, max(1, timeline.num_sms // 8))
    axes.set_yticks([sm + 0.5 for sm in labelled], [str(sm) for sm in labelled])
    axes.set_ylabel("SM")


def _unit(found: Sequence[Timeline]) -> tuple[float, str]:
    """A factor and a label under which the time axis has readable numbers."""
    if found[0].unit == "ns":
        return 1e-3, "µs"
    if found[0].unit == "multiply-adds":
        return 1e-6, "million multiply-adds, predicted"
    return 1.0, found[0].unit
