"""The gradient of the tokens: dx = dy @ w[g], a grouped GEMM that reads the weights the other way round.

Picture:
    forward   y  [rows, N] = x  [rows, K] @ w[g].T      the sum runs along the rows of w[g]: over K
    dgrad     dx [rows, K] = dy [rows, N] @ w[g]        the sum runs down its columns: over N

What changed since `tiled`: the slab of w is copied as it lies, since what is wanted side by side in shared
memory, columns of dx, lies side by side in w[g] already. Tiles, offsets and the search are the same: rows
are tokens, and a tile at an expert's edge has rows that are not stored.

Why it should help: no transposed copy of the weights, which would cost as many bytes as the weights.

When it will not: where the forward pass does not do well either, with a handful of tokens for each expert.

What to measure: dgrad next to the forward pass on `S` and `S-x16`; the FLOPs are the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gemm_lessons import device
from gemm_lessons.compare import Comparison, check_output
from gemm_lessons.launch import Launch, Work, guarded_output, launch_parts, to_device
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
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.schedule import count_tiles, find_tile
from gemm_lessons.steps._host import begin
from gemm_lessons.steps.tiled import make_copies, tile_flops

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

launch = launch_parts

SIGNATURE = "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1], float32[:, ::1])"


@cache
def make_kernel(config: Config) -> Any:
    """One block per tile: dy [total_tokens, N], w [num_groups, N, K], dx [total_tokens, K]."""
    BM, BN, band = config.BM, config.BN, config.band
    multiply_tile = make_tile_function(config, make_copies(config, BM), make_straight_copies(config, BN))

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def dgrad_kernel(dy, w, offsets, tile_offsets, dx):
        num_n = dy.shape[1]
        tiles_n = (dx.shape[1] + BN - 1) // BN
        group, tile_m, tile_n = find_tile(tile_offsets, cuda.blockIdx.x, tiles_n, band)
        first_row, last_row = offsets[group] + tile_m * BM, offsets[group + 1]
        multiply_tile(dy, last_row, w[group], num_n, dx, first_row, last_row, tile_n * BN, 0, num_n)

    return dgrad_kernel


def turned(problem: GroupedProblem) -> GroupedProblem:
    """The forward problem that dgrad is, once the weights are turned round: N and K swap places."""
    return GroupedProblem(problem.counts, N=problem.K, K=problem.N, dtype=problem.dtype, name=problem.name)


def make_launch(problem: GroupedProblem, config: Config, dy: Any, w: Any, dx: Any) -> Launch | None:
    """The one launch, on device arrays; None if there are no tokens, and so nothing to compute."""
    tile_offsets = count_tiles(turned(problem), config.BM, config.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return None
    config = fit_loads(config, problem, dy, w)
    arguments = (dy, w, cuda.to_device(problem.offsets), cuda.to_device(tile_offsets), dx)
    return Launch(make_kernel(config), num_tiles, config.num_threads, arguments)


def prepare(
    problem: GroupedProblem,
    config: Config | None = None,
    inputs: Inputs | None = None,
    *,
    dy: Array | None = None,
) -> PreparedGradient:
    """Prepare dgrad of a forward problem: one launch with a block for each tile of dx.

    Args:
        problem: the forward problem.
        config: compile-time constants, None for the device's own.
        inputs: of the forward pass; only w is read. None draws random ones.
        dy: the gradient of the output, float32 [total_tokens, N]; None draws a random one.

    Raises:
        ProblemError: wrong dtype, inputs or dy.
        ConfigError: extents that do not fit together.
    """
    config, _, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    dy = gradient_of_output(problem) if dy is None else dy
    check_dy(problem, dy)
    output, dx = guarded_output(turned(problem))
    gemm = make_launch(problem, config, to_device(dy), w, dx)

    def compare(guarded: Array, inputs: Inputs) -> Comparison:
        as_forward = Inputs(dy, inputs.w.swapaxes(1, 2))
        return check_output(guarded, turned(problem), as_forward, tile=(config.BM, config.BN))

    num_tiles = gemm.num_blocks if gemm else 0
    work = Work(int(gemm is not None), num_tiles, num_tiles, num_tiles * tile_flops(config, turned(problem)))
    return PreparedGradient(
        problem,
        config,
        {"dgrad": gemm} if gemm else {},
        output,
        work,
        tile=(config.BM, config.BN),
        compare=compare,
    )
