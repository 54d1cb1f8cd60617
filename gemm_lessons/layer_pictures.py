"""Pictures of the whole layer: the share of every stage, measured on a GPU or counted without one."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gemm_lessons.measure.results import MOVING, Record, StageWork, moving_share, stages_of
from gemm_lessons.plots import PAGE, PALETTE, Style

COLOURS = {
    "router": PALETTE[1],
    "permute": PALETTE[6],
    "quantize": "#BBBBBB",
    "gather": PALETTE[3],
    "counts": PALETTE[7],
    "gate_up": PALETTE[0],
    "swiglu": PALETTE[2],
    "down": PALETTE[4],
    "scatter": PALETTE[5],
}


def timeline(record: Record, workload: str, *, style: Style = PAGE) -> Figure:
    """The stages of every variant of a layer, end to end on one axis of microseconds."""
    names = [one.name for one in record.measurements if one.workload == workload and one.kind == "layer"]
    bars = {name: stages_of(record, workload, name) for name in names}
    bars = {name: stages for name, stages in bars.items() if stages}
    title = f"Where the layer's time goes: {record.dtype}\n{record.label}"
    return _stacked(bars, title, "µs between events on the device", style, "routing, gather, scatter")


def counted(works: Mapping[str, StageWork], title: str, *, style: Style = PAGE) -> Figure:
    """The share of every stage in the layer's multiply-adds and in its bytes: counted, no time."""
    flops = sum(work.flops for work in works.values()) or 1
    num_bytes = sum(work.num_bytes for work in works.values()) or 1
    bars = {
        "multiply-adds": {name: 100 * work.flops / flops for name, work in works.items()},
        "bytes": {name: 100 * work.num_bytes / num_bytes for name, work in works.items()},
    }
    return _stacked(bars, title, "% of the layer, counted", style, "routing, gather, scatter")


def _stacked(
    bars: Mapping[str, Mapping[str, float]], title: str, axis: str, style: Style, moving: str
) -> Figure:
    with mpl.rc_context(style.settings):
        figure = Figure(figsize=style.extent(12, 2.6 + 0.9 * len(bars)))
        axes = figure.subplots()
        longest = max((sum(stages.values()) for stages in bars.values()), default=1.0)
        for place, stages in enumerate(bars.values()):
            total, left = sum(stages.values()), 0.0
            for name, length in stages.items():
                hatch = "///" if name in MOVING else None
                axes.barh(place, length, left=left, color=COLOURS[name], hatch=hatch, edgecolor=style.paper)
                if length > 0.04 * longest:
                    axes.text(
                        left + length / 2, place, f"{length / total:.0%}", ha="center", va="center",
                        color="#FFFFFF" if name in ("gate_up", "swiglu", "scatter") else "#111111",
                    )  # fmt: skip
                left += length
            axes.text(left, place, f"  {moving}: {moving_share(stages):.1%}", va="center")
        axes.set_yticks(range(len(bars)), [name.replace(", ", ",\n") for name in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.5 * longest)
        axes.set_xlabel(axis)
        axes.set_title(title)
        shown = [name for name in COLOURS if any(stages.get(name) for stages in bars.values())]
        handles = [
            Patch(facecolor=COLOURS[name], hatch="///" if name in MOVING else None, label=name)
            for name in shown
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(shown))
    return figure
