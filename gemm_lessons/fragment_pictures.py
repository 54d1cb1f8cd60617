"""Pictures of fragments, swizzled slabs and a pipeline for lesson 10, each drawn from the code's own data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED
from gemm_lessons.ptx.matrix import COLUMNS, LANES, ROWS

Array = np.ndarray[Any, Any]
TILE = 8  # rows of a tile, and its columns
REGISTERS = (PALETTE[4], PALETTE[1], PALETTE[2], PALETTE[3])
PALE = 0.45  # what is not of the lane that is looked at
LINE_BYTES, PIECE_BYTES = 128, 16


@dataclass(frozen=True)
class Fragment:
    """Who holds a matrix: for each of its elements, the lane, and which of the lane's registers.

    Attributes:
        lane: [rows, columns].
        register: [rows, columns].
    """

    lane: Array
    register: Array


def _of_tiles(places: list[list[int]]) -> Fragment:
    """A matrix of 8 x 8 tiles of 16-bit values, register by register where it says."""
    lane, number = np.empty((TILE, TILE), int), np.empty((TILE, TILE), int)
    lane[ROWS, COLUMNS] = lane[ROWS, COLUMNS + 1] = LANES
    number[:] = 0
    lanes = np.block([[lane for _ in row] for row in places])
    return Fragment(lanes, np.block([[number + place for place in row] for row in places]))


def fragment_of(operand: str) -> Fragment:
    """Who holds which element of an operand of `mma_m16n8k16`.

    Args:
        operand: "A" [16, 16], "B" [16 of k, 8], or "C" [16, 8], whose registers hold one element each.
    """
    if operand == "A":
        return _of_tiles([[0, 2], [1, 3]])
    if operand == "B":
        stored = _of_tiles([[0, 1]])  # [8, 16], as weights are stored
        return Fragment(stored.lane.T, stored.register.T)
    found = Fragment(np.empty((16, TILE), int), np.empty((16, TILE), int))
    for register in range(4):
        at = ROWS + register // 2 * TILE, COLUMNS + register % 2
        found.lane[at], found.register[at] = LANES, register
    return found


def _draw_fragment(axes: Any, operand: str, lane: int, names: tuple[str, str]) -> None:
    found = fragment_of(operand)
    rows, columns = found.lane.shape
    across, down = {"A": (2, 1), "B": (1, 2), "C": (1, 1)}[operand]  # elements of a register
    for row in range(0, rows, down):
        for column in range(0, columns, across):
            mine = found.lane[row, column] == lane
            colour = REGISTERS[found.register[row, column]]
            axes.add_patch(
                Rectangle(
                    (column, row), across, down, facecolor=colour, edgecolor="white", lw=1.2,
                    alpha=1.0 if mine else PALE,
                )
            )  # fmt: skip
            axes.text(
                column + across / 2, row + down / 2 + 0.04, str(found.lane[row, column]), ha="center",
                va="center", fontsize=PAGE.size * (0.95 if mine else 0.72), color="#111111",
                fontweight="bold" if mine else "normal",
            )  # fmt: skip
            if mine:
                axes.add_patch(
                    Rectangle((column, row), across, down, fill=False, edgecolor="#111111", lw=2.6, zorder=3)
                )
    axes.set_xlim(-0.05, columns + 0.05)
    axes.set_ylim(rows + 0.05, -0.05)
    axes.set_xticks(np.arange(columns) + 0.5, range(columns))
    axes.set_yticks(np.arange(rows) + 0.5, range(rows))
    axes.tick_params(length=0, labelsize=PAGE.size * 0.7, pad=2)
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def fragments(lane: int = 6) -> Figure:
    """A, B and C of one `mma_m16n8k16`, the number in each box the lane that holds it; one lane stands out.

    Args:
        lane: whose elements are outlined.
    """
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 9.6))
        (text, b), (a, c) = figure.subplots(2, 2, width_ratios=(16, 9), height_ratios=(16, 16))
        _draw_fragment(a, "A", lane, ("row: a token", "k"))
        _draw_fragment(b, "B", lane, ("k", "column: a feature"))
        _draw_fragment(c, "C", lane, ("row: a token", "column: a feature"))
        a.set_title("A: a0 to a3, two values in a word")
        b.set_title("B: b0 and b1, two values")
        c.set_title("C: c0 to c3, one float32 each")
        text.axis("off")
        text.set_title("Who holds which element")
        names = ("a0, b0, c0", "a1, b1, c1", "a2, c2", "a3, c3")
        handles = [Patch(color=colour, label=name) for colour, name in zip(REGISTERS, names, strict=True)]
        text.legend(
            handles=handles, loc="upper left", ncols=2, title="register of the lane", alignment="left"
        )
        row, column = int(ROWS[lane]), int(COLUMNS[lane])
        lines = (
            f"Lane {lane} holds",
            f"  of A: rows {row} and {row + 8}, k {column}, {column + 1}, {column + 8}, {column + 9}",
            f"  of B: column {row}, k {column}, {column + 1}, {column + 8}, {column + 9}",
            f"  of C: rows {row} and {row + 8}, columns {column} and {column + 1}",
            "",
            "A box is one register of one lane, and the",
            "number in it is the lane.",
        )
        text.text(0.03, 0.66, "\n".join(lines), va="top", linespacing=1.6, transform=text.transAxes)
    return figure


def piece_at(row: int, piece: int, BK: int, *, swizzled: bool) -> int:
    """Where a piece of 16 bytes lies in a slab of 16-bit values, counted in pieces; as in `tensor_core`."""
    pieces = BK * 2 // PIECE_BYTES
    rows_in_line = LINE_BYTES // (BK * 2)
    return row * pieces + (piece ^ (row // rows_in_line & pieces - 1) if swizzled else piece)


def slab_in_banks(BK: int = 32, piece: int = 0) -> Figure:
    """Eight rows of a slab in shared memory, plain and swizzled, and the tile that one ldmatrix reads.

    Args:
        BK: values of K in a row, 32 or 64.
        piece: which eight of them the tile has.
    """
    pieces = BK * 2 // PIECE_BYTES
    in_line = LINE_BYTES // PIECE_BYTES
    with mpl.rc_context(PAGE.settings):
        lines = TILE * pieces // in_line
        figure = Figure(figsize=PAGE.extent(12, 2.2 + 0.8 * lines))
        panels = figure.subplots(2, 1, sharex=True)
        for axes, swizzled in zip(panels, (False, True), strict=True):
            load = np.zeros(in_line, int)
            for row in range(TILE):
                for p in range(pieces):
                    at = piece_at(row, p, BK, swizzled=swizzled)
                    line, place = divmod(at, in_line)
                    wanted = p == piece
                    load[place] += wanted
                    axes.add_patch(
                        Rectangle(
                            (place * 4, line), 4, 1, edgecolor="white", lw=2,
                            facecolor=USEFUL if wanted else "#DDDDDD",
                        )
                    )  # fmt: skip
                    axes.text(
                        place * 4 + 2, line + 0.52, f"row {row}, piece {p}", ha="center", va="center",
                        fontsize=PAGE.size * 0.72, color="white" if wanted else "#444444",
                        fontweight="bold" if wanted else "normal",
                    )  # fmt: skip
            passes = int(load.max())
            name = "swizzled" if swizzled else "plain"
            axes.set_title(f"{name}: the tile takes {passes} pass{'es' if passes > 1 else ''}")
            axes.set_xlim(0, 32)
            axes.set_ylim(lines, 0)
            axes.set_yticks([])
            axes.set_xticks(range(0, 33, 4))
            axes.set_ylabel("128 bytes a line", fontsize=PAGE.size * 0.8)
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)
        panels[-1].set_xlabel("bank")
    return figure


@dataclass(frozen=True)
class Slab:
    """When a slab's copy is asked for, when it is there, and when it is multiplied."""

    asked: float
    there: float
    begins: float
    ends: float


def pipeline_of(num_stages: int, copy: float, num_slabs: int) -> list[Slab]:
    """The loop of `tensor_core`, in units of the time that multiplying a slab takes.

    Args:
        num_stages: slabs in shared memory.
        copy: from asking for a slab until it is there.
        num_slabs: along K.
    """
    asked = [0.0] * min(num_stages - 1, num_slabs)
    slabs: list[Slab] = []
    free = 0.0
    for number in range(num_slabs):
        there = asked[number] + copy
        begins = max(free, there)
        if len(asked) < num_slabs:
            asked.append(begins)  # the stage that the slab before has left
        free = begins + 1.0
        slabs.append(Slab(asked[number], there, begins, free))
    return slabs


def pipeline(num_stages: int, copy: float, num_slabs: int = 10) -> Figure:
    """A model of the pipeline: in each stage, which slab is on its way, waits or is multiplied, and when."""
    slabs = pipeline_of(num_stages, copy, num_slabs)
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 2.2 + 0.62 * num_stages))
        axes = figure.subplots()
        for number, slab in enumerate(slabs):
            y = number % num_stages
            axes.barh(
                y, slab.there - slab.asked, left=slab.asked, height=0.72, color="none", edgecolor=WASTED,
                hatch="///",
            )  # fmt: skip
            axes.barh(y, slab.begins - slab.there, left=slab.there, height=0.72, color="#DDDDDD")
            axes.barh(y, 1.0, left=slab.begins, height=0.72, color=USEFUL)
            axes.text(
                slab.begins + 0.5, y, str(number), ha="center", va="center", color="white", fontweight="bold"
            )
        axes.set_yticks(range(num_stages), [f"stage {stage}" for stage in range(num_stages)])
        axes.set_ylim(num_stages - 0.5, -0.5)
        axes.set_xlim(0, pipeline_of(2, copy, num_slabs)[-1].ends)
        axes.set_xlabel("time, in slabs multiplied")
        total = slabs[-1].ends
        busy = f"{num_slabs / total:.0%} of it multiplying"
        axes.set_title(f"{num_stages} stages: {num_slabs} slabs take {total:g} units, {busy}")
        handles = [
            Patch(facecolor="none", edgecolor=WASTED, hatch="///", label="on its way"),
            Patch(color="#DDDDDD", label="there, waits"),
            Patch(color=USEFUL, label="multiplied (number of the slab)"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
