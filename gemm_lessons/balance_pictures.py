"""Pictures of load balance for lesson 06, each drawn from the code's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import ceil_div, list_tiles


def waves(num_sms: int, most_tiles: int, marks: Mapping[str, int]) -> Figure:
    """Share of SM time that works, over the number of equal tiles: the saw of wave quantisation.

    Args:
        num_sms: SMs that work.
        most_tiles: where the axis ends.
        marks: name -> number of tiles to point out.
    """
    tiles = np.arange(1, most_tiles + 1)
    busy = [count / (num_sms * ceil_div(count, num_sms)) for count in tiles.tolist()]
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(11, 4.6))
        axes = figure.subplots()
        axes.plot(tiles, busy, color=USEFUL, linewidth=2)
        for name, count in marks.items():
            here = busy[count - 1]
            axes.plot([count], [here], "o", color=WASTED, markersize=9)
            axes.annotate(
                f"{name}: {count} tiles, {here:.0%}", (count, here), (0, -90), textcoords="offset points",
                ha="center", arrowprops={"arrowstyle": "-", "color": WASTED},
            )  # fmt: skip
        axes.set_ylim(0, 1.05)
        axes.set_xlim(0, most_tiles)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("equal tiles")
        axes.set_ylabel("SM time that works")
        axes.set_title(f"Waves on {num_sms} SMs")
    return figure


def experts_against_tiles(problem: GroupedProblem, BM: int, BN: int, most_sms: int, claim: float) -> Figure:
    """How many times longer whole experts take than dealt tiles, over the number of SMs.

    Args:
        problem: what is computed.
        BM: rows of a tile.
        BN: columns of a tile.
        most_sms: where the axis ends.
        claim: a ratio to draw beside it.
    """
    groups = list_tiles(problem, BM, BN)[:, 0]
    tiles_of = np.bincount(groups, minlength=problem.num_groups)
    sms = np.arange(1, most_sms + 1)
    ratios = []
    for count in sms.tolist():
        longest = np.bincount(np.arange(problem.num_groups) % count, tiles_of).max()
        ratios.append(float(longest) / ceil_div(len(groups), count))
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(11, 4.6))
        axes = figure.subplots()
        axes.plot(sms, ratios, color=USEFUL, linewidth=2.5)
        axes.axhline(claim, color=WASTED, linestyle="--", linewidth=2)
        axes.text(most_sms, claim, f"claimed: {claim:.2f}", color=WASTED, ha="right", va="bottom")
        axes.text(most_sms, ratios[-1], f"{ratios[-1]:.1f}", ha="right", va="bottom", fontweight="bold")
        axes.set_ylim(0, None)
        axes.set_xlim(1, most_sms)
        axes.set_xlabel("SMs")
        axes.set_ylabel("experts / tiles, time")
        axes.set_title(f"Whole experts against tiles: {problem.name}, counted")
    return figure


def bars(predicted: Mapping[str, float], seen: Mapping[str, float], title: str, label: str) -> Figure:
    """A predicted and a seen share side by side, for each name."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(10, 1.6 + 0.8 * len(predicted)))
        axes = figure.subplots()
        places = np.arange(len(predicted))
        rows: Sequence[tuple[str, Mapping[str, float], float, str]] = (
            ("predicted", predicted, -0.2, PALETTE[4]),
            (label, seen, 0.2, USEFUL),
        )
        for name, shares, shift, colour in rows:
            values = [shares[key] for key in predicted]
            axes.barh(places + shift, values, height=0.38, color=colour, label=name)
            for place, value in zip(places + shift, values, strict=True):
                axes.text(value, place, f" {value:.1%}", va="center")
        axes.set_yticks(places, list(predicted))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max([*predicted.values(), *seen.values(), 0.01]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("idle tail: share of SM time")
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=2)
    return figure
