"""Pictures for lesson 13: who reads which weights, in tiles and in equal shares, and how fast that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gemm_lessons.measure.decoding import Line
from gemm_lessons.plots import PAGE, PALETTE, PEER, USEFUL, WASTED

TILE_COLOURS = PALETTE[:6]
LOOKS = {"decode": (USEFUL, "o"), "hopper": (PALETTE[2], "s"), "torch": (PEER, "^")}


@dataclass(frozen=True)
class Piece:
    """Slabs of one tile that one SM reads, one after the other.

    Attributes:
        sm: that reads them.
        tile: to which they belong.
        start: slabs that this SM has read before.
        stop: slabs that it has read afterwards.
        part: whether the tile has slabs that another SM reads.
    """

    sm: int
    tile: int
    start: int
    stop: int
    part: bool


def whole_tiles(num_tiles: int, num_sms: int, slabs: int) -> list[Piece]:
    """Tiles dealt to SMs in turn, each of them whole."""
    return [
        Piece(tile % num_sms, tile, tile // num_sms * slabs, (tile // num_sms + 1) * slabs, False)
        for tile in range(num_tiles)
    ]


def equal_shares(num_tiles: int, num_sms: int, slabs: int) -> list[Piece]:
    """All slabs in one line, cut as the step `decode` cuts it: shares differ by one slab at most."""
    share, rest = divmod(num_tiles * slabs, num_sms)
    pieces, at = [], 0
    for sm in range(num_sms):
        first, end = at, at + share + (sm < rest)
        while at < end:
            stop = min(end, (at // slabs + 1) * slabs)
            whole = stop - at == slabs
            pieces.append(Piece(sm, at // slabs, at - first, stop - first, not whole))
            at = stop
    return pieces


def shares(tiles: int = 10, sms: int = 8, slabs: int = 6) -> Figure:
    """Who reads which tile's slabs: whole tiles dealt to SMs, and equal shares of all slabs.

    Args:
        tiles: of all experts that have tokens.
        sms: that read, all at the same speed.
        slabs: of each tile, along K.
    """
    halves = {
        "whole tiles": whole_tiles(tiles, sms, slabs),
        "equal shares": equal_shares(tiles, sms, slabs),
    }
    end = max(piece.stop for pieces in halves.values() for piece in pieces)
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 1.7 + 0.34 * sms), layout="constrained")
        for axes, (name, pieces) in zip(figure.subplots(1, 2, sharey=True), halves.items(), strict=True):
            _draw(axes, pieces, sms)
            last = max(piece.stop for piece in pieces)
            used = tiles * slabs / (last * sms)
            axes.set_title(f"{name}: length {last}, {used:.0%} used", fontsize=PAGE.size)
            axes.set_xlim(0, end)
            axes.set_xlabel("slabs read")
        figure.axes[0].set_ylabel("SM")
        figure.axes[0].set_ylim(sms - 0.5, -0.5)
        figure.legend(
            handles=[
                Patch(facecolor="white", edgecolor="#222222", label="number: the tile"),
                Patch(facecolor="#BBBBBB", edgecolor="#222222", hatch="..", label="part of a shared tile"),
                Patch(facecolor="none", edgecolor=WASTED, hatch="///", label="nothing to read"),
            ],
            loc="outside lower center", ncols=3, fontsize=PAGE.size * 0.8,
        )  # fmt: skip
    return figure


def _draw(axes: Axes, pieces: Sequence[Piece], num_sms: int) -> None:
    end = max(piece.stop for piece in pieces)
    for piece in pieces:
        length = piece.stop - piece.start
        axes.barh(
            piece.sm, length, left=piece.start, height=0.8, edgecolor="white", linewidth=1.5,
            color=TILE_COLOURS[piece.tile % len(TILE_COLOURS)], hatch=".." if piece.part else None,
        )  # fmt: skip
        axes.text(
            piece.start + length / 2, piece.sm, str(piece.tile), ha="center", va="center",
            fontsize=PAGE.size * 0.75, fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )  # fmt: skip
    for sm in range(num_sms):
        read = max((piece.stop for piece in pieces if piece.sm == sm), default=0)
        if read < end:
            axes.barh(
                sm, end - read, left=read, height=0.8, color="none", edgecolor=WASTED, hatch="///", lw=0.8
            )


def speeds(title: str, lines: Mapping[str, Sequence[Line]]) -> Figure:
    """How close each program came to the speed of reading, over the tokens of each expert.

    Args:
        title: where and when.
        lines: by the name of a panel: routings in which all experts have as many tokens.
    """
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 4.6), layout="constrained")
        row = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (name, of_panel) in zip(row, lines.items(), strict=True):
            for program in dict.fromkeys(line.name for line in of_panel):
                points = sorted(
                    (line.counts[0], line.percent_of_read) for line in of_panel if line.name == program
                )
                colour, marker = next(look for key, look in LOOKS.items() if program.startswith(key))
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, lw=2, label=program)
            counts = sorted({line.counts[0] for line in of_panel})
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.set_title(name)
            axes.set_xlabel("tokens of each expert")
            axes.grid(alpha=0.25)
            axes.legend(loc="lower left", fontsize=PAGE.size * 0.75)
        row[0].set_ylim(0, 105)
        row[0].set_ylabel("% of the speed of reading")
        figure.suptitle(title, fontsize=PAGE.size)
    return figure
