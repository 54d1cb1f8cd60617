"""A picture of what is wrong: experts x tiles, outputs that were never written apart from wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemm_lessons.grading.judge import Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

# Colour-blind safe (Okabe and Ito), and told apart by hatching as well.
RIGHT, WRONG, UNWRITTEN, NOTHING = "#009E73", "#D55E00", "#56B4E9", "#FFFFFF"


def tile_shares(judgement: Judgement) -> tuple[Array, Array, Array]:
    """Per expert and tile, the share of its outputs that is wrong, and that was never written.

    Returns:
        Two arrays [num_experts, most tiles of an expert], NaN where an expert has no such tile, and
        [most tiles of an expert, 2] with (tile_m, tile_n) of each.
    """
    tile_m, tile_n = judgement.tile
    tiles_n = -(-judgement.case.N // tile_n)
    tiles_m = -(-max(judgement.case.counts) // tile_m)
    shape = (len(judgement.case.counts), tiles_m * tiles_n)
    wrong, unwritten = np.full(shape, np.nan), np.full(shape, np.nan)
    names = np.array([(m, n) for m in range(tiles_m) for n in range(tiles_n)])
    for group, first in enumerate(judgement.case.problem.offsets[:-1]):
        last = first + judgement.case.counts[group]
        for number, (m, n) in enumerate(names):
            rows = slice(first + m * tile_m, min(first + (m + 1) * tile_m, last))
            columns = slice(n * tile_n, (n + 1) * tile_n)
            if rows.start < last:
                never = judgement.unwritten[rows, columns]
                unwritten[group, number] = never.mean()
                wrong[group, number] = (judgement.wrong[rows, columns] & ~never).mean()
    return wrong, unwritten, names


def figure(judgement: Judgement) -> Figure:
    """Draw the tiles of every expert: right, wrong, never written, or not there."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    wrong, unwritten, names = tile_shares(judgement)
    num_groups, num_tiles = wrong.shape
    width, height = 2.5 + 0.55 * num_tiles, 1.6 + 0.4 * num_groups
    drawing = Figure(figsize=(min(max(width, 5.0), 14.0), min(max(height, 2.4), 12.0)), layout="constrained")
    axes = drawing.subplots()
    for group in range(num_groups):
        for tile in range(num_tiles):
            if np.isnan(wrong[group, tile]):
                continue
            corner, bad = (tile - 0.46, group - 0.44), wrong[group, tile]
            never = unwritten[group, tile]
            axes.add_patch(Rectangle(corner, 0.92, 0.88, facecolor=RIGHT, alpha=0.85))
            axes.add_patch(
                Rectangle(corner, 0.92 * bad, 0.88, facecolor=WRONG, hatch="///", edgecolor="white")
            )
            left = (corner[0] + 0.92 * (1 - never), corner[1])
            axes.add_patch(
                Rectangle(left, 0.92 * never, 0.88, facecolor=UNWRITTEN, hatch="...", edgecolor="white")
            )
    axes.set_xlim(-0.6, num_tiles - 0.4)
    axes.set_ylim(num_groups - 0.4, -0.6)
    axes.set_xticks(range(num_tiles), [f"({m}, {n})" for m, n in names], rotation=90 if num_tiles > 8 else 0)
    axes.set_yticks(
        range(num_groups), [f"{g}: {count} rows" for g, count in enumerate(judgement.case.counts)]
    )
    axes.set_xlabel("tile (tile_m, tile_n)")
    axes.set_ylabel("expert")
    axes.set_title(f"share of each {judgement.tile[0]} x {judgement.tile[1]} tile that is wrong", fontsize=10)
    legend = [
        Patch(facecolor=RIGHT, alpha=0.85, label="right"),
        Patch(facecolor=WRONG, hatch="///", edgecolor="white", label="wrong value"),
        Patch(facecolor=UNWRITTEN, hatch="...", edgecolor="white", label="never written"),
    ]
    drawing.legend(handles=legend, loc="outside lower center", ncols=3, frameon=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawing


def save(judgement: Judgement, path: Path) -> Path:
    """Write the picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(judgement).savefig(path, dpi=130)
    return path
