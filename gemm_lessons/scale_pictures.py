"""Pictures of FP8 and its scales for lesson 09, each drawn from the code's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gemm_lessons.measure.fp8_error import Rounding, Summation
from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED, Style
from gemm_lessons.quantize import quantize
from gemm_lessons.small_floats import DECODED

Array = np.ndarray[Any, Any]
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKS = ("o", "s", "^", "D", "v")


def number_line() -> Figure:
    """Every positive e4m3 number on a logarithmic line, and the step to the next one."""
    numbers = np.unique(DECODED[DECODED > 0])
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 5.2))
        line, steps = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
        line.vlines(numbers, 0, 1, color=USEFUL, linewidth=1.4)
        line.set_ylim(0, 1.6)
        line.set_yticks([])
        line.spines["left"].set_visible(False)
        line.annotate("7 numbers below 2⁻⁶,\nevenly spaced", (2.0**-8.8, 1.05), fontsize=PAGE.size * 0.85)
        line.annotate("8 numbers in every octave", (1.0, 1.1), fontsize=PAGE.size * 0.85)
        line.set_title(f"All {len(numbers)} positive numbers of e4m3, from 2⁻⁹ to 448")
        error = np.diff(numbers) / (numbers[1:] + numbers[:-1])  # half a step, in the middle of it
        steps.step(numbers[1:], error, where="pre", color=USEFUL, linewidth=2.2)
        steps.axhline(1 / 16, color=WASTED, linestyle="--", linewidth=1.8)
        steps.annotate("1 / 16", (300, 0.072), color=WASTED, fontweight="bold")
        steps.set_xscale("log", base=2)
        steps.set_ylim(0, 0.4)
        steps.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        steps.set_ylabel("largest relative error")
        steps.set_xlabel("number")
    return figure


def blocks_of_row(row: Array, blocks: Mapping[str, int]) -> Figure:
    """One row of tokens, quantised in blocks of several sizes: its values, and which of them are lost.

    Args:
        row: float32 [K].
        blocks: name -> values that share a scale.
    """
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 1.6 + 2.1 * len(blocks)))
        panels = figure.subplots(len(blocks), 1, sharex=True, squeeze=False)[:, 0]
        size = np.abs(row)
        for axes, (name, extent) in zip(panels, blocks.items(), strict=True):
            found = quantize(row[None], (1, extent))
            lost = (found.values[0].astype(np.float32) == 0) & (size > 0)
            axes.plot(np.flatnonzero(~lost), size[~lost], ".", color=USEFUL, markersize=4)
            axes.plot(np.flatnonzero(lost), size[lost], "x", color=WASTED, markersize=5)
            for block, scale in enumerate(found.scales[0].tolist()):
                left, right = block * extent, min((block + 1) * extent, row.size)
                lowest = 2.0**-10 * scale  # what is smaller becomes zero
                axes.add_patch(
                    Rectangle(
                        (left, lowest), right - left, 448 * scale - lowest, color=PALETTE[4], alpha=0.25
                    )
                )
            axes.set_yscale("log")
            axes.set_title(f"{name}: {lost.mean():.1%} of the values become zero", fontsize=PAGE.size)
        panels[-1].set_xlim(0, row.size)
        panels[-1].set_xlabel("position in the row; shaded: what the scale of the block can hold")
    return figure


def promotion(K: int, BK: int = 32, block: int = 128) -> Figure:
    """How a sum over K is made: steps of BK into a partial sum, which is scaled and added every block."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 3.6))
        axes = figure.subplots()
        for number, first in enumerate(range(0, K, block)):
            last = min(first + block, K)
            colour = PALETTE[number % len(PALETTE)]
            for k in range(first, last, BK):
                width = min(BK, last - k)
                axes.add_patch(Rectangle((k, 2), width, 0.8, facecolor=colour, edgecolor="white", lw=2))
            axes.annotate(
                "", ((first + last) / 2, 1.02), ((first + last) / 2, 1.95),
                arrowprops={"arrowstyle": "->", "color": colour, "lw": 2.5},
            )  # fmt: skip
            axes.text(
                (first + last) / 2 + K / 150, 1.48, rf"$\times\, s_x[{number}]\, s_w[{number}]$", va="center"
            )
            axes.add_patch(Rectangle((first, 0.2), last - first, 0.8, facecolor=colour, alpha=0.45, lw=0))
        axes.text(K / 2, 0.6, "r_acc: float32, stays to the end", ha="center", va="center", fontweight="bold")
        axes.set_xlim(0, K)
        axes.set_ylim(0, 3)
        axes.set_yticks([2.4], ["r_part"])
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([*range(0, K, block), K])
        axes.set_xlabel("k")
        axes.set_title("A partial sum for each block of K, scaled once, then added")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure


def _series(axes: Any, place: int, label: str, points: Sequence[tuple[float, float]]) -> None:
    across, up = zip(*sorted(points), strict=True)
    axes.plot(
        across,
        up,
        linestyle=LINES[place],
        marker=MARKS[place],
        color=PALETTE[place],
        linewidth=2.2,
        label=label,
    )


def rounding_error(points: Sequence[Rounding], K: int = 2048, *, style: Style = PAGE) -> Figure:
    """Error of the ordinary part of the output, over the size of outliers, for each size of block."""
    with mpl.rc_context(style.settings):
        figure = Figure(figsize=style.extent(12, 5.6))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name in zip(panels, ("int8", "e4m3"), strict=True):
            here = [point for point in points if point.number == name and K == point.K]
            for place, block in enumerate(dict.fromkeys(point.block for point in here)):
                _series(axes, place, block, [(p.outlier, p.error) for p in here if p.block == block])
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("outliers: how many times as large")
            axes.set_title(f"{name}, K = {K}")
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        panels[0].set_ylabel("relative error, ordinary part")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, title="values that share a scale")
    return figure


def error_by_length(roundings: Sequence[Rounding], sums: Sequence[Summation]) -> Figure:
    """Errors over K: of rounding to e4m3 without outliers, and of summation in few bits."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 5.6))
        axes = figure.subplots()
        plain = [p for p in roundings if (p.number, p.block, p.outlier) == ("e4m3", "1 x 128", 1.0)]
        _series(axes, 0, "rounding to e4m3, 1 x 128", [(p.K, p.error) for p in plain])
        for place, kept in enumerate(dict.fromkeys(point.kept for point in sums), start=1):
            points = [(p.K, p.error) for p in sums if p.kept == kept and p.error]
            _series(axes, place, f"summation: {kept}", points)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("K, terms of a sum")
        axes.set_ylabel("relative error")
        axes.set_title("What grows with K is the sum, not the rounding")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
