"""Pictures of tiles and of memory for lesson 04, each drawn from the code's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED, colour_of
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import ceil_div, list_tiles

SECTOR_BYTES = 32
BANKS = 32


def tiles(problem: GroupedProblem, BM: int, BN: int) -> Figure:
    """The output of all experts, cut into tiles: numbered as the kernels number them."""
    starts = problem.offsets
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(10, 6.5))
        axes = figure.subplots()
        for number, (group, tile_m, tile_n) in enumerate(list_tiles(problem, BM, BN).tolist()):
            top, left = int(starts[group]) + tile_m * BM, tile_n * BN
            rows = min(BM, int(starts[group + 1]) - top)
            columns = min(BN, problem.N - left)
            axes.add_patch(
                Rectangle((left, top), columns, rows, facecolor=colour_of(group), edgecolor="white", lw=2)
            )
            axes.text(
                left + columns / 2, top + rows / 2, f"{number}: {rows} x {columns}", ha="center", va="center",
                color="white", fontsize=PAGE.size * 0.75,
            )  # fmt: skip
        axes.set_xlim(0, problem.N)
        axes.set_ylim(problem.total_tokens, 0)
        axes.set_xticks(range(0, problem.N + 1, BN))
        axes.set_yticks(starts)
        axes.set_ylabel("row of y, at the borders of experts")
        axes.set_xlabel(f"column of y; tile number: rows x columns that exist, of {BM} x {BN}")
        num_tiles = len(list_tiles(problem, BM, BN))
        useful = problem.total_tokens * problem.N / max(num_tiles * BM * BN, 1)
        axes.set_title(f"{num_tiles} tiles of {BM} x {BN}: {useful:.1%} of their outputs exist")
        used = [group for group, tokens in enumerate(problem.counts) if tokens]
        handles = [Patch(color=colour_of(g), label=f"expert {g}: {problem.counts[g]} tokens") for g in used]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def sectors(patterns: Mapping[str, Sequence[int]], bytes_each: int = 4) -> Figure:
    """For each pattern of byte addresses of a warp's lanes: the sectors touched, and how full each is."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 1.4 + 1.0 * len(patterns)))
        axes = figure.subplots()
        for place, addresses in enumerate(patterns.values()):
            wanted = sorted({address + byte for address in addresses for byte in range(bytes_each)})
            touched, used = np.unique(np.array(wanted) // SECTOR_BYTES, return_counts=True)
            for position, share in enumerate(used / SECTOR_BYTES):
                axes.add_patch(Rectangle((position, place), 0.9, 0.6, fill=False, ec=WASTED, hatch="////"))
                axes.add_patch(Rectangle((position, place), 0.9 * share, 0.6, color=USEFUL))
            verdict = f"{len(touched)} sectors, {used.sum() / (len(touched) * SECTOR_BYTES):.0%} used"
            axes.text(32.4, place + 0.3, verdict, va="center", fontweight="bold")
        axes.set_xlim(0, 43)
        axes.set_ylim(len(patterns), -0.2)
        axes.set_yticks([place + 0.3 for place in range(len(patterns))], list(patterns))
        axes.set_xticks([])
        axes.set_xlabel("sectors of 32 bytes that one request of a warp touches")
        axes.set_title("Blue: bytes that a lane asked for. Hatched: bytes that come along")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure


def banks(patterns: Mapping[str, Sequence[int]]) -> Figure:
    """For each pattern of word numbers of a warp's lanes: how many different words each bank must serve."""
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 1.2 + 1.9 * len(patterns)))
        panels = figure.subplots(len(patterns), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, words) in zip(panels, patterns.items(), strict=True):
            load = np.bincount(np.array(sorted(set(words))) % BANKS, minlength=BANKS)
            colours = [WASTED if words_here > 1 else USEFUL for words_here in load]
            axes.bar(np.arange(BANKS), load, width=0.85, color=colours)
            passes = "1 pass" if load.max() == 1 else f"{load.max()} passes"
            axes.set_title(f"{name}: {passes}", fontsize=PAGE.size)
            axes.set_ylim(0, max(load.max(), 1) * 1.1)
            axes.set_yticks([0, int(load.max())])
            axes.set_xlim(-0.7, BANKS - 0.3)
        panels[-1].set_xticks(range(0, BANKS, 4))
        panels[-1].set_xlabel("bank; the height is the number of different words that the warp wants from it")
    return figure


def useful_share(heights: Sequence[int], most_tokens: int) -> Figure:
    """Share of a tile's rows that exist, over an expert's tokens, for several tile heights BM."""
    tokens = np.arange(1, most_tokens + 1)
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(11, 4.8))
        axes = figure.subplots()
        for height, colour, line in zip(heights, PALETTE, ("-", "--", ":", "-."), strict=False):
            share: Any = [n / (ceil_div(n, height) * height) for n in tokens.tolist()]
            axes.plot(tokens, share, line, color=colour, linewidth=2.2, label=f"BM = {height}")
        axes.set_ylim(0, 1.05)
        axes.set_xlim(0, most_tokens)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("tokens of an expert")
        axes.set_ylabel("rows that exist")
        axes.set_title("What the ragged last tile costs an expert")
        figure.legend(loc="outside right upper")
    return figure


def layout_bytes(layouts: Mapping[str, int], useful: int, title: str) -> Figure:
    """Bytes that each layout of the same tokens takes, and what part of them holds tokens.

    Args:
        layouts: name -> bytes.
        useful: bytes of the tokens.
        title: of the picture.
    """
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(11, 1.6 + 0.7 * len(layouts)))
        axes = figure.subplots()
        for place, (name, taken) in enumerate(layouts.items()):
            axes.barh(place, useful / 1e6, color=USEFUL)
            axes.barh(
                place, (taken - useful) / 1e6, left=useful / 1e6, color="none", edgecolor=WASTED, hatch="///"
            )
            digits = 0 if taken > 1e7 else 2
            axes.text(taken / 1e6, place, f" {taken / 1e6:,.{digits}f} MB: {name}", va="center")
        axes.set_yticks([])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.6 * max(layouts.values()) / 1e6)
        axes.set_xlabel("MB of x and y; blue: rows that hold tokens")
        axes.set_title(title)
    return figure
