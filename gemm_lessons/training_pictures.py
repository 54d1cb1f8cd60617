"""Pictures of the backward pass and of training for lesson 15, each drawn from the code's own data."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from gemm_lessons.moe.backward import Weights
from gemm_lessons.moe.training import CENTRES, NUM_EXPERTS, History, draw_task, owners, tokens_at
from gemm_lessons.plots import PAGE, PALETTE, WASTED, colour_of
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import ceil_div


def slabs(problem: GroupedProblem, BK: int) -> Figure:
    """Which tokens each expert's sum in wgrad is made of, slab by slab; hatched is what must count as zero.

    The number in a cell is the expert whose token lies there in memory; a dot, that there is none.
    """
    owner = np.repeat(np.arange(problem.num_groups), problem.counts)
    most = max(ceil_div(count, BK) for count in problem.counts) * BK
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 1.8 + 0.6 * problem.num_groups))
        axes = figure.subplots()
        for group, count in enumerate(problem.counts):
            for place in range(ceil_div(count, BK) * BK):
                there = int(problem.offsets[group]) + place
                mine = place < count
                label = str(owner[there]) if there < len(owner) else "·"
                axes.add_patch(
                    Rectangle(
                        (place, group), 1, 0.8, facecolor=colour_of(group) if mine else "none",
                        edgecolor="white" if mine else WASTED, hatch="" if mine else "///",
                    )
                )  # fmt: skip
                axes.text(
                    place + 0.5, group + 0.41, label, ha="center", va="center", fontsize=PAGE.size * 0.8,
                    color="white" if mine else PAGE.ink, fontweight="normal" if mine else "bold",
                    bbox=None if mine else {"facecolor": PAGE.paper, "edgecolor": "none", "pad": 1.5},
                )  # fmt: skip
            if not count:
                axes.text(0.1, group + 0.41, "no slab at all: the sum is zero", va="center")
        for border in range(0, most + 1, BK):
            axes.axvline(border, color=PAGE.ink, linewidth=1.2, linestyle=":")
        axes.set_xlim(-0.1, most + 0.1)
        axes.set_ylim(problem.num_groups - 0.1, -0.1)
        experts = range(problem.num_groups)
        axes.set_yticks([group + 0.4 for group in experts], [str(group) for group in experts])
        axes.set_xticks(range(0, most + 1, BK))
        axes.set_xlabel(f"term of the sum; a slab has {BK}")
        axes.set_ylabel("expert")
        axes.set_title("The sum of every tile of dw, expert by expert")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure


def loads(runs: Mapping[str, History]) -> Figure:
    """Each expert's share of the tokens over the steps, and the loss below, for one training run or more."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(max(6.2 * len(runs), 8.0), 6.4))
        panels = figure.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
        for (above, below), (name, history) in zip(panels.T, runs.items(), strict=True):
            steps = np.arange(1, len(history.loads) + 1)
            counts = np.array(history.loads).T
            colours = [colour_of(expert) for expert in range(len(counts))]
            above.stackplot(steps, counts / counts.sum(axis=0), colors=colours, linewidth=0)
            above.set_xlim(1, len(steps))
            above.set_ylim(0, 1)
            above.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            above.set_title(name)
            below.semilogy(steps, history.losses, color=PAGE.ink, linewidth=1)
            below.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            below.set_xlabel("step")
            below.grid(alpha=0.25)
        panels[0, 0].set_ylabel("share of the tokens")
        panels[1, 0].set_ylabel("loss")
        figure.legend(handles=_experts(), loc="outside lower center", ncols=NUM_EXPERTS)
    return figure


def territories(weights: Mapping[str, Weights], extent: float = 1.3) -> Figure:
    """Which expert owns which region of the plane: where the router sends a point, with tokens on top.

    Args:
        weights: title of a panel -> the weights that it shows.
        extent: the panels show -extent to extent in both directions.
    """
    axis = np.linspace(-extent, extent, 160)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    x, _, _ = draw_task(np.random.default_rng(0), 300)
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(4.1 * len(weights), 5))
        panels = figure.subplots(1, len(weights), sharex=True, sharey=True, squeeze=False)[0]
        colours = ListedColormap([PALETTE[expert] for expert in range(NUM_EXPERTS)])
        for axes, (title, one) in zip(panels, weights.items(), strict=True):
            owner = owners(one, tokens_at(grid)).reshape(len(axis), len(axis))
            axes.imshow(
                owner, origin="lower", extent=(-extent, extent, -extent, extent), cmap=colours, vmin=-0.5,
                vmax=NUM_EXPERTS - 0.5, alpha=0.55, interpolation="nearest",
            )  # fmt: skip
            axes.plot(x[:, 0], x[:, 1], ".", color=PAGE.ink, markersize=3)
            for number, (left, bottom) in enumerate(CENTRES):
                axes.text(
                    left, bottom, "ABCD"[number], ha="center", va="center", fontweight="bold",
                    fontsize=PAGE.size * 1.3, bbox={"facecolor": PAGE.paper, "edgecolor": PAGE.ink, "pad": 3},
                )  # fmt: skip
            axes.set_title(title)
            axes.set_xlim(-extent, extent)
            axes.set_ylim(-extent, extent)
            axes.set_xticks((-1, 0, 1))
            axes.set_yticks((-1, 0, 1))
        figure.legend(handles=_experts(), loc="outside lower center", ncols=NUM_EXPERTS)
    return figure


def _experts() -> list[Patch]:
    return [Patch(color=colour_of(expert), label=f"expert {expert}") for expert in range(NUM_EXPERTS)]
