"""Pictures for lesson 12: what sums of few bits lose, who needs which scale, who works while sums move."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from gemm_lessons.compare import WGMMA_E4M3_BITS
from gemm_lessons.measure.fp8_error import STEP, relative_error, running_sums
from gemm_lessons.plots import PAGE, PALETTE, USEFUL, WASTED
from gemm_lessons.ptx.wgmma import M
from gemm_lessons.quantize import BLOCK, E4M3

SHOWN_N = 64  # of wgmma's n, in the picture of sums
PRODUCT = 4  # units of time that the tensor core takes for a part of a stage
MOVING, WAITING, EMPTY = PALETTE[2], "#DDDDDD", "#F2F2F2"

Array = np.ndarray[Any, Any]


def draw(K: int) -> tuple[Array, Array]:
    """Values that e4m3 has, float32 [32, K] each: x and w."""
    rng = np.random.default_rng(K)
    x, w = (rng.standard_normal((32, K)).astype(E4M3).astype(np.float32) for _ in range(2))
    return x, w


def sums(x: Array, w: Array, interval: int) -> Iterator[Array]:
    """Sums of 14 bits, promoted every so many terms, after each step: `fp8_error.running_sums`."""
    return running_sums(x, w, WGMMA_E4M3_BITS, interval)


def running_errors(K: int, interval: int) -> Array:
    """Relative error of such sums after each step of 32 of K: float64 [K / 32]."""
    x, w = draw(K)
    exact, errors = np.zeros((len(x), len(w))), []
    for k, kept in zip(range(0, K, STEP), sums(x, w, interval), strict=True):
        exact += x[:, k : k + STEP].astype(np.float64) @ w[:, k : k + STEP].T.astype(np.float64)
        errors.append(relative_error(kept.astype(np.float64), exact))
    return np.array(errors)


@cache
def error_of(K: int, interval: int) -> float:
    """Relative error of a sum of K terms that is promoted every so many of them."""
    return float(running_errors(K, interval)[-1])


def along(interval: int = BLOCK) -> Figure:
    """The error of a sum while it grows: never promoted, and promoted every so many terms.

    Args:
        interval: terms of a partial sum, a multiple of 32.
    """
    K = 4096
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(12, 5.0))
        axes = figure.subplots()
        k = np.arange(STEP, K + 1, STEP)
        for every, colour, line, name in (
            (K, WASTED, "--", "never promoted"),
            (interval, USEFUL, "-", f"promoted every {interval}"),
        ):
            errors = running_errors(K, every)
            axes.plot(k, errors, line, color=colour, lw=2.4, label=name)
            axes.annotate(f"{errors[-1]:.1e}", (K * 1.01, errors[-1]), color=colour, va="center")
        axes.set_yscale("log")
        axes.set_xlim(0, K * 1.12)
        axes.set_xticks(range(0, K + 1, 512))
        axes.set_xlabel("k, terms so far")
        axes.set_ylabel("relative error")
        axes.set_title(f"Sums of products of e4m3, kept in {WGMMA_E4M3_BITS} bits")
        axes.legend(loc="center right")
    return figure


def sums_in(thread: int) -> list[tuple[int, int]]:
    """Row and column of each sum that a thread of a warpgroup holds, for n of `SHOWN_N`."""
    lane, row = thread % 32, 16 * (thread // 32) + thread % 32 // 4
    return [
        (row + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (lane % 4) + i % 2) for i in range(M * SHOWN_N // 128)
    ]


def sums_of(thread: int = 5) -> Figure:
    """The sums of one thread, with tokens on n and with tokens on the rows; a colour for each scale of x.

    Args:
        thread: of the warpgroup, 0 to 127.
    """
    held = sums_in(thread)
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 6.6))
        panels = figure.subplots(1, 2)
        for axes, name, axis in (
            (panels[0], "tokens on n, as in `hopper`", 1),
            (panels[1], "tokens on the rows, as in `hopper_fp8` for many", 0),
        ):
            tokens = sorted({place[axis] for place in held})
            axes.add_patch(Rectangle((0, 0), SHOWN_N, M, facecolor=EMPTY, lw=0))
            for row, column in held:
                colour = PALETTE[tokens.index((row, column)[axis]) % len(PALETTE)]
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, lw=0))
            axes.set_xlim(0, SHOWN_N)
            axes.set_ylim(M, 0)
            axes.set_aspect("equal")
            axes.set_xticks(range(0, SHOWN_N + 1, 8))
            axes.set_yticks(range(0, M + 1, 8))
            across, down = ("token", "feature") if axis else ("feature", "token")
            axes.set_xlabel(f"n: {across}")
            axes.set_ylabel(f"row: {down}")
            axes.set_title(f"{name}:\n{len(held)} sums meet {len(tokens)} scales of x", fontsize=PAGE.size)
        figure.suptitle(f"Sums of thread {thread} of 128, for n = {SHOWN_N}", fontsize=PAGE.size * 1.1)
    return figure


class Span(NamedTuple):
    """What a consumer does from one time to another: "waits", "multiplies" or "moves"."""

    consumer: int
    what: str
    begins: float
    ends: float


def turns_of(num_consumers: int, move: float, num_parts: int = 6) -> list[Span]:
    """Consumers that share a tensor core: each waits for it, multiplies a part, and moves its sums.

    Args:
        num_consumers: warpgroups.
        move: units of time for moving a part's sums to float32.
        num_parts: that each consumer multiplies.
    """
    spans: list[Span] = []
    ready, done, free = [0.0] * num_consumers, [0] * num_consumers, 0.0
    while min(done) < num_parts:
        mine = min((i for i in range(num_consumers) if done[i] < num_parts), key=lambda i: (ready[i], i))
        begins = max(ready[mine], free)
        if begins > ready[mine]:
            spans.append(Span(mine, "waits", ready[mine], begins))
        free = begins + PRODUCT
        ready[mine] = free + move
        done[mine] += 1
        spans += [Span(mine, "multiplies", begins, free), Span(mine, "moves", free, ready[mine])]
    return spans


def busy_of(spans: list[Span]) -> float:
    """Share of the time that the tensor core multiplies, up to its last product."""
    products = [span for span in spans if span.what == "multiplies"]
    return len(products) * PRODUCT / max(span.ends for span in products)


def turns(num_consumers: int = 2, move: int = 3) -> Figure:
    """Who works when: consumers that multiply and move sums, and the tensor core that they share.

    Args:
        num_consumers: warpgroups.
        move: units of time for moving a part's sums; multiplying them takes `PRODUCT`.
    """
    spans = turns_of(num_consumers, move)
    colours = {"waits": WAITING, "multiplies": USEFUL, "moves": MOVING}
    with mpl.rc_context(PAGE.settings):
        figure = Figure(figsize=PAGE.extent(13, 2.6 + 0.8 * num_consumers))
        axes = figure.subplots()
        for span in spans:
            rows = [span.consumer, num_consumers] if span.what == "multiplies" else [span.consumer]
            for row in rows:
                axes.barh(
                    row, span.ends - span.begins, left=span.begins, height=0.7,
                    color=colours[span.what], edgecolor="white", lw=1.5,
                )  # fmt: skip
                if span.what == "multiplies" and row == num_consumers:
                    axes.text(
                        (span.begins + span.ends) / 2, row, str(span.consumer), ha="center", va="center",
                        color="white", fontweight="bold",
                    )  # fmt: skip
        names = [f"consumer {i}" for i in range(num_consumers)]
        axes.set_yticks(range(num_consumers + 1), [*names, "tensor core"])
        axes.set_ylim(num_consumers + 0.6, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(span.ends for span in spans))
        axes.set_xlabel("time")
        axes.set_title(
            f"A product takes {PRODUCT}, moving its sums {move}: the tensor core is busy"
            f" {busy_of(spans):.0%} of the time"
        )
        handles = [Patch(color=colour, label=what) for what, colour in colours.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
