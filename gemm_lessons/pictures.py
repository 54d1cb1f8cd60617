"""Pictures that only the lessons need, each drawn from the code's own data, in the style of `plots`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from gemm_lessons.plots import PAGE, PALETTE, ROOF, USEFUL, WASTED, colour_of
from gemm_lessons.problem import GroupedProblem


@dataclass(frozen=True)
class Limits:
    """What a device can do at most, and who says so.

    Attributes:
        name: device and source of the numbers, for the legend.
        bytes_per_s: memory bandwidth.
        flops_per_s: arithmetic peak, in the dtype that is drawn.
    """

    name: str
    bytes_per_s: float
    flops_per_s: float

    def attainable(self, flops_per_byte: Any) -> Any:
        """FLOP/s that no kernel with this many FLOPs per byte can exceed."""
        return np.minimum(self.flops_per_s, np.asarray(flops_per_byte) * self.bytes_per_s)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=PAGE.extent(width, height))
    return figure, figure.subplots()


def roofline(limits: Sequence[Limits], points: Mapping[str, tuple[float, float | None]]) -> Figure:
    """The roofline: what memory and arithmetic allow, over FLOPs per byte.

    Args:
        limits: one roof each.
        points: name -> (FLOPs per byte, FLOP/s); without FLOP/s the point lies on the first roof.
    """
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(11, 5.6)
        intensities = [intensity for intensity, _ in points.values()]
        span = np.geomspace(min([*intensities, 1.0]) / 2, max([*intensities, 1000.0]) * 3, 200)
        for limit, line in zip(limits, ("-", "--", ":"), strict=False):
            axes.loglog(
                span, limit.attainable(span) / 1e12, line, color=ROOF, linewidth=2.5, label=limit.name
            )
        for i, (name, (intensity, rate)) in enumerate(points.items()):
            claimed = rate if rate is not None else float(limits[0].attainable(intensity))
            axes.loglog(
                [intensity], [claimed / 1e12], "oDs^vP*X"[i % 8], color=PALETTE[(0, 2, 3, 4, 1, 7)[i % 6]],
                markersize=11, label=name,
            )  # fmt: skip
        axes.set_xlabel("useful FLOPs per byte that must be moved")
        axes.set_ylabel("TFLOP/s")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.grid(which="both", alpha=0.25)
        figure.legend(loc="outside right upper", fontsize=PAGE.size * 0.8)
    return figure


def thread_map(block_of: Any, thread_of: Any, inside: Any, title: str) -> Figure:
    """Which thread of which block has which element; hatched where there is no element.

    Args:
        block_of: [rows, columns] linear block number.
        thread_of: [rows, columns] label of the thread in its block.
        inside: [rows, columns] whether the element exists.
        title: of the picture.
    """
    rows, columns = np.shape(block_of)
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(min(14.0, 1.5 + 0.75 * columns), 1.4 + 0.55 * rows)
        for row in range(rows):
            for column in range(columns):
                there = bool(inside[row][column])
                axes.add_patch(
                    Rectangle(
                        (column, row), 1, 1, edgecolor="white" if there else WASTED,
                        facecolor=colour_of(int(block_of[row][column])) if there else "none",
                        hatch="" if there else "///", linewidth=1.5,
                    )
                )  # fmt: skip
                axes.text(
                    column + 0.5, row + 0.5, str(thread_of[row][column]), ha="center", va="center",
                    color="white" if there else PAGE.ink, fontsize=PAGE.size * 0.75,
                )  # fmt: skip
        axes.set_xlim(0, columns)
        axes.set_ylim(rows, 0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("column")
        axes.set_ylabel("row")
        axes.set_title(title)
        blocks = sorted({int(block) for block in np.ravel(block_of)})
        handles = [Patch(color=colour_of(block), label=f"block {block}") for block in blocks[:8]]
        if not np.all(inside):
            handles.append(Patch(facecolor="none", edgecolor=WASTED, hatch="///", label="no element"))
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def strips(rows: Mapping[str, Sequence[int]], title: str, marks: Iterable[int] = ()) -> Figure:
    """Tokens as strips of cells, each coloured by the expert that it belongs to.

    Args:
        rows: name of a strip -> expert of each cell, -1 for padding.
        title: of the picture.
        marks: positions in the last strip to mark, such as offsets or the borders of blocks.
    """
    longest = max(len(cells) for cells in rows.values())
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(13, 1.3 + 0.85 * len(rows))
        for place, cells in enumerate(rows.values()):
            for position, expert in enumerate(cells):
                padding = expert < 0
                axes.add_patch(
                    Rectangle(
                        (position, place), 1, 0.7, facecolor="none" if padding else colour_of(expert),
                        edgecolor=WASTED if padding else "white", hatch="///" if padding else "",
                    )
                )  # fmt: skip
                if not padding:
                    size = min(PAGE.size * 0.8, 420 / longest)
                    axes.text(
                        position + 0.5, place + 0.36, str(expert), ha="center", va="center", color="white",
                        fontsize=size,
                    )  # fmt: skip
        for mark in marks:
            axes.plot([mark, mark], [len(rows) - 1.12, len(rows) - 0.18], color=PAGE.ink, linewidth=2.5)
        axes.set_xlim(-0.2, longest + 0.2)
        axes.set_ylim(len(rows) - 0.1, -0.2)
        axes.set_yticks([place + 0.35 for place in range(len(rows))], list(rows))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("position; the number in a cell is its expert")
        axes.set_title(title)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure


def launches(problem: GroupedProblem, blocks: Sequence[int], slots: int) -> Figure:
    """One bar per launch: how many blocks it brings, next to how many the device could run at once."""
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(11, 4.8)
        experts = np.arange(len(blocks))
        axes.bar(experts, blocks, color=USEFUL)
        for expert, count in enumerate(blocks):
            waves = count / slots
            axes.text(expert, count, f"{waves:.2g}", ha="center", va="bottom", fontweight="bold")
        axes.axhline(
            slots, color=ROOF, linestyle="--", linewidth=2, label=f"{slots:,} blocks can run at the same time"
        )
        axes.set_xticks(experts, [f"{expert}\n{problem.counts[expert]} tokens" for expert in experts])
        axes.set_ylabel("blocks of the launch")
        axes.set_xlabel("expert; above each bar: how many times its launch fills the device")
        axes.set_title(f"One launch per expert: {problem.name}")
        figure.legend(loc="outside upper right")
    return figure


def capacity(problem: GroupedProblem, most: int) -> Figure:
    """What a fixed capacity does to each expert: tokens kept, padding added, tokens dropped."""
    counts = np.asarray(problem.counts)
    kept = np.minimum(counts, most)
    experts = np.arange(problem.num_groups)
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(10, 5)
        axes.bar(experts, kept, color=USEFUL, label="computed, useful")
        pieces = (
            (most - kept, WASTED, "///", "padding"),
            (counts - kept, PALETTE[3], "xxx", "dropped tokens"),
        )
        for extent, colour, hatch, label in pieces:
            axes.bar(experts, extent, bottom=kept, color="none", edgecolor=colour, hatch=hatch, label=label)
        axes.axhline(most, color=ROOF, linewidth=2)
        axes.set_xticks(experts)
        axes.set_xlabel("expert")
        axes.set_ylabel("rows")
        wasted = 1 - kept.sum() / (problem.num_groups * most)
        dropped = (counts - kept).sum() / max(problem.total_tokens, 1)
        axes.set_title(
            f"capacity {most}: {wasted:.1%} of the work wasted, {dropped:.1%} of the tokens dropped"
        )
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def bars(values: Mapping[str, float], title: str, unit: str) -> Figure:
    """A horizontal bar and its number for each value."""
    with mpl.rc_context(PAGE.settings):
        figure, axes = _figure(10, 1.6 + 0.6 * len(values))
        axes.barh(list(values), list(values.values()), color=[colour_of(i) for i in range(len(values))])
        for place, value in enumerate(values.values()):
            axes.text(value, place, f"  {value:.3g}", va="center", fontweight="bold")
        axes.set_xlim(0, 1.15 * max([*values.values(), 1.0]))
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.set_title(title)
    return figure
