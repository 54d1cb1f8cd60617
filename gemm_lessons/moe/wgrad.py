"""The gradient of the weights: dw[g] = dy_g.T @ x_g, a grouped GEMM whose groups lie along the sum.

Picture:
               tokens of expert g                        K
              +------------------+                 +----------+
    dy_g.T  N |                  |  @  tokens x_g  |          |  =  dw[g]  [N, K]
              +------------------+                 |          |
                                                   +----------+
    forward, dgrad   an expert's tokens are ROWS of the result: counts decide how many tiles it has
    wgrad            they are the TERMS of the sum: every expert has equally many tiles, of unequal length

What changed since `dgrad`: the sum runs from offsets[g] to offsets[g + 1], a length that only the routing
knows. Both slabs are copied as they lie. An expert without tokens has tiles, too: its gradient is zero, and
somebody has to write that. And tiles of one expert cost the same, those of two experts do not.

Why it should help: the sums of a tile stay in registers from its first token to its last. No atomics, no
second pass, and the same bits in every run: a single thread adds up an element's terms, in token order.

When it will not: few experts with small matrices and very many tokens. Then there are few tiles with long
sums, and most SMs have none; splitting the sum (lesson 13) is the cure. With a handful of tokens for each
expert, writing dw takes longer than computing it.

What to measure: wgrad next to the forward pass; and experts in the order of their numbers against the one
with the most tokens first.
"""

from __future__ import annotations

import heapq
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, Comparison, check_output, poisoned
from gemm_lessons.launch import Launch, Work, launch_parts, to_device
from gemm_lessons.moe.gradient import (
    CONFIG,
    SIM_CONFIG,
    Array,
    Config,
    PreparedGradient,
    check_dy,
    fit_loads,
    gradient_of_output,
    make_straight_copies,
    make_tile_function,
)
from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs
from gemm_lessons.schedule import ceil_div, find_tile
from gemm_lessons.steps._host import begin
from gemm_lessons.trace import Slice, Timeline

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

launch = launch_parts

SIGNATURE = "void(float32[:, ::1], float32[:, ::1], int32[::1], int32[::1], int32[::1], float32[:, :, ::1])"


@cache
def make_kernel(config: Config) -> Any:
    """One block per tile: dy [total_tokens, N], x [total_tokens, K], dw [num_groups, N, K].

    order [num_groups] says whose tiles come first; tile_offsets is that of equal groups.
    """
    BM, BN, band = config.BM, config.BN, config.band
    multiply_tile = make_tile_function(
        config, make_straight_copies(config, BM), make_straight_copies(config, BN)
    )

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def wgrad_kernel(dy, x, offsets, order, tile_offsets, dw):
        tiles_n = (dw.shape[2] + BN - 1) // BN
        place, tile_m, tile_n = find_tile(tile_offsets, cuda.blockIdx.x, tiles_n, band)
        group = order[place]
        start, stop = offsets[group], offsets[group + 1]
        multiply_tile(dy, stop, x, stop, dw[group], tile_m * BM, dw.shape[1], tile_n * BN, start, stop)

    return wgrad_kernel


def expert_order(problem: GroupedProblem, *, longest_first: bool = True) -> Array:
    """int32 [num_groups]: experts in the order in which their tiles are handed out.

    A tile costs what its expert has tokens, so the longest first leaves the short ones for the end.
    """
    numbers = np.arange(problem.num_groups, dtype=np.int32)
    if not longest_first:
        return numbers
    order: Array = numbers[np.argsort(-np.array(problem.counts), kind="stable")]
    return order


def predict(
    problem: GroupedProblem, config: Config, num_blocks: int, *, longest_first: bool = True
) -> Timeline:
    """Play the launch: whichever of num_blocks is free takes the next tile, which costs its expert's slabs.

    Returns:
        The predicted timeline, in multiply-adds.
    """
    tiles_m, tiles_n = ceil_div(problem.N, config.BM), ceil_div(problem.K, config.BN)
    free = [(0, block) for block in range(num_blocks)]  # (time at which the block is free, block)
    slices = []
    for group in expert_order(problem, longest_first=longest_first).tolist():
        duration = ceil_div(problem.counts[group], config.BK) * config.BK * config.BM * config.BN
        for tile in range(tiles_m * tiles_n):
            start, block = heapq.heappop(free)
            tile_m, tile_n = divmod(tile, tiles_n)
            slices.append(Slice(block, block, group, tile_m, tile_n, start, start + duration))
            heapq.heappush(free, (start + duration, block))
    label = "longest expert first" if longest_first else "experts by number"
    return Timeline(tuple(slices), num_sms=num_blocks, unit="multiply-adds", label=label)


def make_launch(
    problem: GroupedProblem, config: Config, dy: Any, x: Any, dw: Any, *, longest_first: bool = True
) -> Launch:
    """The one launch, on device arrays; also without tokens, since somebody has to write the zeros."""
    config = fit_loads(config, problem, dy, x)
    tiles = ceil_div(problem.N, config.BM) * ceil_div(problem.K, config.BN)
    tile_offsets = np.arange(problem.num_groups + 1, dtype=np.int32) * tiles
    order = expert_order(problem, longest_first=longest_first)
    arguments = (dy, x, *map(cuda.to_device, (problem.offsets, order, tile_offsets)), dw)
    return Launch(make_kernel(config), problem.num_groups * tiles, config.num_threads, arguments)


def prepare(
    problem: GroupedProblem,
    config: Config | None = None,
    inputs: Inputs | None = None,
    *,
    dy: Array | None = None,
    longest_first: bool = True,
) -> PreparedGradient:
    """Prepare wgrad of a forward problem: one launch with a block for each tile of each dw[g].

    Args:
        problem: the forward problem.
        config: compile-time constants, None for the device's own.
        inputs: of the forward pass; only x is read. None draws random ones.
        dy: the gradient of the output, float32 [total_tokens, N]; None draws a random one.
        longest_first: experts with the most tokens first; else in the order of their numbers.

    Returns:
        The prepared launch; its output is dw as [num_groups * N, K] between guard rows.

    Raises:
        ProblemError: wrong dtype, inputs or dy.
        ConfigError: extents that do not fit together.
    """
    config, x, _ = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    dy = gradient_of_output(problem) if dy is None else dy
    check_dy(problem, dy)
    rows = problem.num_groups * problem.N
    output = to_device(poisoned(rows + 2 * NUM_GUARD_ROWS, problem.K, DTYPES["float32"]))
    dw = output[NUM_GUARD_ROWS : NUM_GUARD_ROWS + rows].reshape(problem.num_groups, problem.N, problem.K)
    gemm = make_launch(problem, config, to_device(dy), x, dw, longest_first=longest_first)

    def compare(guarded: Array, inputs: Inputs) -> Comparison:
        return check_wgrad(guarded, problem, inputs.x, dy, (config.BM, config.BN))

    slabs = sum(ceil_div(count, config.BK) for count in problem.counts)
    tiles_each = gemm.num_blocks // problem.num_groups
    work = Work(
        1, gemm.num_blocks, gemm.num_blocks, 2 * tiles_each * slabs * config.BM * config.BN * config.BK
    )
    return PreparedGradient(
        problem, config, {"wgrad": gemm}, output, work, tile=(config.BM, config.BN), compare=compare
    )


def check_wgrad(
    guarded: Array, problem: GroupedProblem, x: Array, dy: Array, tile: tuple[int, int]
) -> Comparison:
    """Judge dw by the oracle of the forward pass.

    wgrad is a grouped GEMM with N rows for each expert, once every expert's tokens are padded with zeros to
    the longest: zeros add nothing to a sum.

    Args:
        guarded: [NUM_GUARD_ROWS + num_groups * N + NUM_GUARD_ROWS, K].
        problem: the forward problem.
        x: tokens [total_tokens, K].
        dy: gradient of the output [total_tokens, N].
        tile: rows and columns of the kernel's tile.
    """
    longest = max(problem.max_tokens, 1)
    as_forward = GroupedProblem((problem.N,) * problem.num_groups, N=problem.K, K=longest)
    left = np.zeros((problem.num_groups, problem.N, longest), np.float32)
    right = np.zeros((problem.num_groups, problem.K, longest), np.float32)
    for group, count in enumerate(problem.counts):
        rows = slice(problem.offsets[group], problem.offsets[group + 1])
        left[group, :, :count], right[group, :, :count] = dy[rows].T, x[rows].T
    terms = np.repeat(problem.counts, problem.N)
    inputs = Inputs(left.reshape(-1, longest), right)
    return check_output(guarded, as_forward, inputs, tile=tile, num_terms=terms)
