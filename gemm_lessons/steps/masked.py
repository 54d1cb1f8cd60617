"""Fixed-capacity slabs with counts that live on the device: no host synchronisation, ready for CUDA graphs.

Picture:
    x_slabs [num_groups, capacity, K]        counts [num_groups], on the device
      ####....   expert 0                      4        tickets 0 .. tiles of expert 0 - 1
      ##......   expert 1                      2        then expert 1 ...
      ........   expert 2                      0        no tile at all
            ^ never read into a result, never written

What changed: rows no longer lie end to end. Each expert has a slab of fixed capacity, and only the device
knows how many of its rows are real. The work loop is that of `persistent`; the map from ticket to tile
walks the counts, because the host could not make a list of tiles without asking for them.

Why it should help: the router runs on the GPU. Asking it for the counts stops the pipeline for tens of
microseconds, and a CUDA graph cannot ask at all. This kernel is captured once and replayed with whatever
counts the router has left. It skips rows that padding would compute.

When it will not: memory. Slabs are as large as the worst case, and packing into them moves every token.
With counts that the host knows anyway, `persistent` does the same work without the slabs.

What to measure: graph replay with changing counts; the bytes of the slabs beside the bytes of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, int32

from gemm_lessons.launch import (
    Launch,
    Prepared,
    Work,
    guarded_output,
    launch_parts,
    num_resident_blocks,
)
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.schedule import ceil_div, count_tiles
from gemm_lessons.steps import padded, tiled
from gemm_lessons.steps._host import begin
from gemm_lessons.steps.persistent import leave

launch = launch_parts

PLACE_SIGNATURE = "void(float32[:, ::1], int32[::1], float32[:, :, ::1])"
SIGNATURE = (
    "void(float32[:, :, ::1], float32[:, :, ::1], int32[::1], int32[::1], int32[::1], int32[::1],"
    " float32[:, :, ::1])"
)


@dataclass(frozen=True)
class Config(tiled.Config):
    """The tile of `tiled`, and whether the kernel reports counts that are out of range."""

    verify: bool = True


CONFIG = Config()
SIM_CONFIG = Config(BM=16, BN=16, BK=8, TM=4, TN=4, band=2, blocks_per_sm=1)


@cuda.jit(device=True)
def clamp_count(count, capacity):
    """A count from the device is never trusted with memory: 0 to capacity, whatever it says."""
    return min(max(count, 0), capacity)


@cache
def make_kernel(config: Config) -> Any:
    """The work loop over slabs: x_slabs [E, capacity, K], w [E, N, K], counts [E], y_slabs [E, capacity, N].

    tickets [1] and num_finished [1] are zero between launches; num_bad [1] counts counts out of range.
    """
    BM, BN, verify = config.BM, config.BN, config.verify
    multiply_tile = tiled.make_tile_function(config)

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def masked_kernel(x_slabs, w, counts, tickets, num_finished, num_bad, y_slabs):
        s_tile = cuda.shared.array(2, int32)
        leader = cuda.threadIdx.x == 0
        num_groups, capacity = x_slabs.shape[0], x_slabs.shape[1]
        tiles_n = (w.shape[1] + BN - 1) // BN

        while True:
            if leader:
                tile = cuda.atomic.add(tickets, 0, 1)
                group = 0
                while group < num_groups:
                    num_tiles = (clamp_count(counts[group], capacity) + BM - 1) // BM * tiles_n
                    if tile < num_tiles:
                        break
                    tile -= num_tiles
                    group += 1
                s_tile[0], s_tile[1] = group, tile
            cuda.syncthreads()  # why: nobody may read the tile before the leader has written it
            group, tile = s_tile[0], s_tile[1]
            cuda.syncthreads()  # why: the leader may not overwrite it before everybody has read it
            if group == num_groups:
                break
            last_row = clamp_count(counts[group], capacity)
            first_row, first_col = tile // tiles_n * BM, tile % tiles_n * BN
            multiply_tile(x_slabs[group], w[group], y_slabs[group], first_row, last_row, first_col)

        if leader and leave(tickets, num_finished) and verify:
            for group in range(num_groups):
                if counts[group] != clamp_count(counts[group], capacity):
                    cuda.atomic.add(num_bad, 0, 1)

    return masked_kernel


@cuda.jit
def place_rows(x, offsets, x_slabs):
    """Copy each expert's rows into its slab; the slab's other rows keep whatever they hold."""
    group = cuda.blockIdx.z
    row = cuda.blockIdx.y
    first_row = offsets[group]
    if row < offsets[group + 1] - first_row:
        for k in range(cuda.grid(1), x.shape[1], cuda.gridsize(1)):
            x_slabs[group, row, k] = x[first_row + row, k]


@dataclass
class PreparedMasked(Prepared):
    """A prepared launch over slabs.

    Attributes:
        counts: int32 [num_groups] on the device; overwrite it, and the next launch or replay obeys.
        x_slabs: [num_groups, capacity, K] on the device.
        y_slabs: [num_groups, capacity, N] on the device.
        num_bad: int32 [1] on the device, counts that were out of range so far, if the kernel verifies.
    """

    counts: Any = None
    x_slabs: Any = None
    y_slabs: Any = None
    num_bad: Any = None

    def verify_counts(self) -> None:
        """Wait for the device and raise if a launch has met a count out of range.

        Raises:
            ProblemError: with how many there were; the kernel clamped them.
        """
        num_bad = int(self.num_bad.copy_to_host()[0]) if self.num_bad is not None else 0
        if num_bad:
            raise ProblemError(
                f"{num_bad} counts on the device were negative or above the capacity of"
                f" {self.x_slabs.shape[1]} rows and were clamped: look at what writes them"
            )


def prepare(
    problem: GroupedProblem,
    config: Config | None = None,
    inputs: Inputs | None = None,
    *,
    capacity: int | None = None,
) -> PreparedMasked:
    """Allocate the slabs, put the counts on the device, and prepare place, gemm and unpack.

    Args:
        problem: what is computed.
        config: compile-time constants, None for the device's own.
        inputs: host or device arrays, None for random ones.
        capacity: rows of a slab; None for the longest expert.

    Raises:
        ProblemError: wrong dtype or inputs, or an expert with more tokens than the capacity.
        ConfigError: extents that do not fit together.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    config = tiled.fit_loads(config, problem, x, w)
    capacity = problem.max_tokens if capacity is None else capacity
    if problem.max_tokens > capacity:
        raise ProblemError(
            f"expert {int(np.argmax(problem.counts))} has {problem.max_tokens} tokens and a slab holds"
            f" {capacity}: raise the capacity, or drop tokens before"
        )
    output, y = guarded_output(problem)
    if not capacity:
        return PreparedMasked(problem, config, {}, output, Work(0, 0, 0, 0))

    groups = problem.num_groups
    # why NaN: what lies below an expert's rows must reach no result.
    x_slabs = cuda.to_device(np.full((groups, capacity, problem.K), np.nan, x.dtype))
    y_slabs = cuda.device_array((groups, capacity, problem.N), x.dtype)
    offsets = cuda.to_device(problem.offsets)
    counts = cuda.to_device(np.array(problem.counts, np.int32))
    tickets, num_finished, num_bad = (cuda.to_device(np.zeros(1, np.int32)) for _ in range(3))

    kernel = make_kernel(config)
    arguments = (x_slabs, w, counts, tickets, num_finished, num_bad, y_slabs)
    most_tiles = groups * ceil_div(capacity, config.BM) * ceil_div(problem.N, config.BN)
    resident = num_resident_blocks(kernel, config.num_threads, arguments)
    gemm = Launch(kernel, min(resident, most_tiles), config.num_threads, arguments)
    parts: dict[str, Launch] = {"gemm": gemm}
    if problem.total_tokens:
        copies = padded.Config(BM=1, BN=config.num_threads)
        parts = {
            "place": padded.copy_launch(place_rows, copies, problem.K, x_slabs, (x, offsets, x_slabs)),
            "gemm": gemm,
            "unpack": padded.copy_launch(
                padded.unpack_rows, copies, problem.N, y_slabs, (y_slabs, offsets, y)
            ),
        }
    num_tiles = int(count_tiles(problem, config.BM, config.BN)[-1])
    work = Work(
        launches=len(parts),
        blocks=sum(part.num_blocks for part in parts.values()),
        tiles=num_tiles,
        flops=num_tiles * tiled.tile_flops(config, problem),
        packed_bytes=2 * x.dtype.itemsize * problem.total_tokens * (problem.K + problem.N),
    )
    tile = (config.BM, config.BN)
    return PreparedMasked(
        problem, config, parts, output, work, tile,
        counts=counts, x_slabs=x_slabs, y_slabs=y_slabs, num_bad=num_bad,
    )  # fmt: skip
