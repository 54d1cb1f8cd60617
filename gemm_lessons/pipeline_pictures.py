"""Pictures for lesson 11: who waits when at a ring of stages, and what a descriptor names of a box."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED
from gemm_lessons.ptx.swizzle import PIECE_BYTES, swizzled
from gemm_lessons.ptx.wgmma import LAYOUT, ROW_BYTES, STEP_BYTES, STEP_K

ROWS, PIECES = 8, ROW_BYTES // PIECE_BYTES  # the swizzle repeats after eight rows of eight pieces
STORING, WAITING = PALETTE[2], "#DDDDDD"
PHASES = ("#FFFFFF", PALETTE[1])  # even, odd
SLABS_PER_TILE = 4


@dataclass(frozen=True)
class Turn:
    """One use of a stage, in units of the time that multiplying a slab takes.

    Attributes:
        stage: of the ring.
        parity: of the phase of full[stage] that the consumer waits for.
        wanted: the producer begins to wait for empty[stage].
        asked: that wait is over, and the copy is asked for.
        landed: the last byte has come, so the phase of full[stage] ends.
        begins: the consumer begins to multiply.
        released: it has finished, so the phase of empty[stage] ends.
    """

    stage: int
    parity: int
    wanted: float
    asked: float
    landed: float
    begins: float
    released: float


def turns_of(num_stages: int, load: float, multiply: float, store: float, num_tiles: int = 3) -> list[Turn]:
    """Producer and consumer of a persistent kernel over a few tiles.

    A copy takes the same time however many others are under way: `load` is latency, not bandwidth.

    Args:
        num_stages: of the ring.
        load: from asking for a slab until it is there.
        multiply: a slab.
        store: a tile; the consumer does it behind the tile's last slab.
        num_tiles: of `SLABS_PER_TILE` slabs each.
    """
    turns: list[Turn] = []
    producer = consumer = 0.0
    for number in range(num_tiles * SLABS_PER_TILE):
        empty = turns[number - num_stages].released if number >= num_stages else 0.0
        asked = max(producer, empty)
        landed = asked + load
        begins = max(consumer, landed)
        turns.append(
            Turn(
                number % num_stages, number // num_stages % 2, producer, asked, landed, begins,
                begins + multiply,
            )
        )  # fmt: skip
        producer, consumer = asked, begins + multiply
        if number % SLABS_PER_TILE == SLABS_PER_TILE - 1:
            consumer += store
    return turns


def ring(num_stages: int = 3, load: int = 3, multiply: int = 1, store: int = 3) -> Figure:
    """Who waits when: producer, consumer and every stage of the ring, with the phases of both barriers.

    Args:
        num_stages: of the ring.
        load: time from asking for a slab until it is there.
        multiply: time for a slab.
        store: time for a finished tile.
    """
    turns = turns_of(num_stages, load, multiply, store)
    end = turns[-1].released + store
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 3.3 + 0.85 * num_stages))
        axes = figure.subplots()

        def bar(
            y: float, start: float, stop: float, colour: str, text: str = "", height: float = 0.62
        ) -> None:
            if stop > start:
                ink = WASTED if colour == "none" else "white"
                axes.barh(
                    y, stop - start, left=start, height=height, color=colour, edgecolor=ink,
                    hatch="///" if colour == "none" else None, lw=1.0,
                )  # fmt: skip
            if text:
                axes.text(
                    (start + stop) / 2, y, text, ha="center", va="center", color="white",
                    fontsize=PAGE.size * 0.85, fontweight="bold",
                )  # fmt: skip

        consumer_end = 0.0
        for number, turn in enumerate(turns):
            text, y = str(number), 2.15 + turn.stage
            bar(0, turn.wanted, turn.asked, WAITING)
            axes.plot([turn.asked] * 2, [-0.31, 0.31], color="#111111", lw=2.5)
            bar(1, consumer_end, turn.begins, WAITING)
            bar(1, turn.begins, turn.released, USEFUL, text)
            bar(y, turn.asked, turn.landed, "none")
            bar(y, turn.landed, turn.begins, WAITING)
            bar(y, turn.begins, turn.released, USEFUL, text)
            consumer_end = turn.released
            if number % SLABS_PER_TILE == SLABS_PER_TILE - 1:
                bar(1, consumer_end, consumer_end + store, STORING)
                consumer_end += store
        for stage in range(num_stages):
            mine = [turn for turn in turns if turn.stage == stage]
            for strip, name, ends in (
                (0.40, "full", [turn.landed for turn in mine]),
                (0.54, "empty", [turn.released for turn in mine]),
            ):
                edges = [0.0, *ends, end]
                for phase, (start, stop) in enumerate(itertools.pairwise(edges)):
                    axes.add_patch(
                        Rectangle(
                            (start, 2.15 + stage + strip - 0.06), stop - start, 0.12,
                            facecolor=PHASES[phase % 2], edgecolor="#555555", lw=0.8,
                        )
                    )  # fmt: skip
                axes.text(end * 1.006, 2.15 + stage + strip, name, va="center", fontsize=PAGE.size * 0.62)
        names = ["producer", "consumer", *(f"stage {stage}" for stage in range(num_stages))]
        axes.set_yticks([0, 1, *(2.15 + stage for stage in range(num_stages))], names)
        axes.set_ylim(1.9 + num_stages, -0.5)
        axes.set_xlim(0, end * 1.05)
        axes.set_xlabel("time")
        busy = len(turns) * multiply / end
        axes.set_title(
            f"{num_stages} stages: {len(turns)} slabs of three tiles take {end:g},"
            f" {busy:.0%} of it multiplying"
        )
        handles = [
            Line2D([], [], color="#111111", lw=2.5, label="a slab is asked for"),
            Patch(facecolor="none", edgecolor=WASTED, hatch="///", label="on its way"),
            Patch(color=WAITING, label="waits"),
            Patch(color=USEFUL, label="multiplied (its number)"),
            Patch(color=STORING, label="tile stored"),
            Patch(facecolor=PHASES[0], edgecolor="#555555", label="phase of parity 0"),
            Patch(facecolor=PHASES[1], edgecolor="#555555", label="phase of parity 1"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def piece_of(place: int, row: int) -> int:
    """Which piece of a row of a box lies at a place of this row, counted in 16 bytes."""
    at = row * ROW_BYTES + place * PIECE_BYTES
    return int(swizzled(0, ROWS * ROW_BYTES)[at]) % ROW_BYTES // PIECE_BYTES


def box(step: int = 0) -> Figure:
    """Eight rows of a box as they lie in shared memory, and what one wgmma takes of them.

    Args:
        step: of K, 0 to 3: how many times `STEP_K` was added to the descriptor.
    """
    taken = {(step * STEP_BYTES // PIECE_BYTES) + i for i in range(STEP_BYTES // PIECE_BYTES)}
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 6.4))
        axes, text = figure.subplots(1, 2, width_ratios=(8, 5))
        for row in range(ROWS):
            for place in range(PIECES):
                piece = piece_of(place, row)
                wanted = piece in taken
                axes.add_patch(
                    Rectangle(
                        (place * 4, row), 4, 1, edgecolor="white", lw=2,
                        facecolor=USEFUL if wanted else WAITING,
                    )
                )  # fmt: skip
                first = piece * PIECE_BYTES // 2
                axes.text(
                    place * 4 + 2, row + 0.52, f"k {first}-{first + 7}", ha="center", va="center",
                    fontsize=PAGE.size * 0.72, color="white" if wanted else "#444444",
                    fontweight="bold" if wanted else "normal",
                )  # fmt: skip
        axes.set_xlim(0, 4 * PIECES)
        axes.set_ylim(ROWS, 0)
        axes.set_xticks(range(0, 4 * PIECES + 1, 4))
        axes.set_yticks(np.arange(ROWS) + 0.5, [f"row {row}" for row in range(ROWS)])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("bank")
        axes.set_title("A box in shared memory, its first 1024 bytes")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        text.axis("off")
        text.set_title("What names the blue part")
        address = step * STEP_K
        lines = (
            f"bits  0-13   address / 16        base + {address}",
            "bits 16-29   leading / 16        1 (not used)",
            f"bits 32-45   stride / 16         {LAYOUT >> 32 & 0x3FFF}",
            f"bits 62-63   swizzle             {LAYOUT >> 62} (128 bytes)",
            "",
            "base: the box's address / 16, of a box",
            "that starts at a multiple of 1024.",
            "stride: from one group of eight rows",
            "to the next, 1024 bytes.",
            f"Step {step} of K: {address} was added.",
        )
        text.text(
            0, 0.93, "\n".join(lines), va="top", linespacing=1.6, family="monospace",
            fontsize=PAGE.size * 0.85, transform=text.transAxes,
        )  # fmt: skip
    return figure
