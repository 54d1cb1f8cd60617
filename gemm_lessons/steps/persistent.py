"""A persistent kernel: resident blocks that take tiles from an atomic counter until none is left.

Picture:
    order   [ 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | ... ]      tiles of all experts, in the order that suits L2
              ^   ^   ^
    block 0 --+   |   |       each block: take a ticket, compute order[ticket], come back
    block 1 ------+   |       the counter hands every ticket out once
    block 2 ----------+

What changed: the grid is no longer one block per tile but as many blocks as the GPU holds at once. Each
runs a loop around the same tile function: one thread takes a ticket from the counter and broadcasts it
through shared memory. Which tile a ticket stands for is a list, so that four schedules share one kernel.

Why it should help: a block that is done takes the next tile at once, wherever it lies, so uneven tiles
even out; blocks start once, not once per tile; and the host chooses the order in which tiles run.

When it will not: equal tiles, and many of them. The hardware's own scheduler also hands the next block to
the SM that is free, so `tiled` does nearly as well; a ticket costs an atomic and two barriers per tile.

What to measure: the idle tail in the timeline of each schedule, on `zipf` and on `uniform`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, int32

from gemm_lessons import device
from gemm_lessons.launch import (
    Launch,
    Prepared,
    Work,
    guarded_output,
    launch_parts,
    num_resident_blocks,
)
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.ptx.special_registers import globaltimer, smid
from gemm_lessons.schedule import count_tiles, find_tile, list_tiles, plan
from gemm_lessons.steps import tiled
from gemm_lessons.steps._host import begin
from gemm_lessons.trace import Slice, Timeline

launch = launch_parts

SIGNATURE = (
    "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1],"
    " int32[::1], int32[::1], int32[::1], int32[::1], float32[:, ::1], int64[:, ::1])"
)


@dataclass(frozen=True)
class Config(tiled.Config):
    """The tile of `tiled`, and whether every tile's time and place is recorded."""

    trace: bool = False


CONFIG = Config()
SIM_CONFIG = Config(BM=16, BN=16, BK=8, TM=4, TN=4, band=2, blocks_per_sm=1)


@cuda.jit(device=True)
def leave(tickets, num_finished):
    """Count a block as finished; the last one sets all counters back, for the next launch or graph replay.

    Returns:
        True in the last block.
    """
    cuda.threadfence()  # why: the block's last ticket must be taken before it counts as finished
    is_last = cuda.atomic.add(num_finished, 0, 1) == cuda.gridDim.x - 1
    if is_last:
        cuda.threadfence()  # why: pairs with the fences of the blocks that finished before
        for queue in range(tickets.shape[0]):
            cuda.atomic.exch(tickets, queue, 0)
        cuda.atomic.exch(num_finished, 0, 0)
    return is_last


@cache
def make_kernel(config: Config) -> Any:
    """The work loop: x [total_tokens, K], w [num_groups, N, K], y [total_tokens, N].

    order and queue_offsets are a `schedule.Plan`; tickets [num_queues] and num_finished [1] start at zero
    and are zero again when the kernel ends; trace is [num_tiles, 4], or [0, 4] when nothing is recorded.
    """
    BM, BN, band, trace_tiles = config.BM, config.BN, config.band, config.trace
    multiply_tile = tiled.make_tile_function(config)

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def persistent_kernel(x, w, offsets, tile_offsets, order, queue_offsets, tickets, num_finished, y, trace):
        s_position = cuda.shared.array(1, int32)
        leader = cuda.threadIdx.x == 0
        tiles_n = (w.shape[1] + BN - 1) // BN
        queue = cuda.blockIdx.x % (queue_offsets.shape[0] - 1)  # 0 if all blocks share one

        while True:
            if leader:
                s_position[0] = queue_offsets[queue] + cuda.atomic.add(tickets, queue, 1)
            cuda.syncthreads()  # why: nobody may read the position before the leader has written it
            position = s_position[0]
            cuda.syncthreads()  # why: the leader may not overwrite it before everybody has read it
            if position >= queue_offsets[queue + 1]:
                break
            tile = order[position]
            group, tile_m, tile_n = find_tile(tile_offsets, tile, tiles_n, band)
            if trace_tiles and leader:
                trace[tile, 0], trace[tile, 1] = cuda.blockIdx.x, smid()
                trace[tile, 2] = globaltimer()
            multiply_tile(x, w[group], y, offsets[group] + tile_m * BM, offsets[group + 1], tile_n * BN)
            if trace_tiles and leader:
                trace[tile, 3] = globaltimer()

        if leader:
            leave(tickets, num_finished)

    return persistent_kernel


@dataclass
class PreparedPersistent(Prepared):
    """A prepared launch whose timeline can be read after a run, if it was prepared with trace."""

    timeline: Callable[[], Timeline] | None = None


def prepare(
    problem: GroupedProblem,
    config: Config | None = None,
    inputs: Inputs | None = None,
    *,
    schedule: str = "work-stealing",
    num_blocks: int | None = None,
) -> PreparedPersistent:
    """Plan the schedule and prepare one launch of as many blocks as are resident at once.

    Args:
        problem: what is computed.
        config: compile-time constants, None for the device's own.
        inputs: host or device arrays, None for random ones.
        schedule: one of `schedule.SCHEDULES`.
        num_blocks: fewer blocks than are resident, to leave SMs to others; None for all.

    Raises:
        ProblemError: wrong dtype or inputs.
        ConfigError: extents that do not fit together.
        ValueError: an unknown schedule.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    config = tiled.fit_loads(config, problem, x, w)
    output, y = guarded_output(problem)
    tile_offsets = count_tiles(problem, config.BM, config.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return PreparedPersistent(problem, config, {}, output, Work(0, 0, 0, 0))

    kernel = make_kernel(config)
    trace = cuda.to_device(np.zeros((num_tiles if config.trace else 0, 4), np.int64))
    zero = np.zeros(1, np.int32)

    def arguments(order: Any, queue_offsets: Any, tickets: Any) -> tuple[Any, ...]:
        queues = (order, queue_offsets, tickets, zero)
        constants = (problem.offsets, tile_offsets)
        return (x, w, *map(cuda.to_device, (*constants, *queues)), y, trace)

    resident = num_resident_blocks(kernel, config.num_threads, arguments(zero, zero, zero))
    num_blocks = min(resident if num_blocks is None else num_blocks, resident, num_tiles)
    the_plan = plan(schedule, problem, config.BM, config.BN, num_blocks, band=config.band)
    tickets = np.zeros(the_plan.num_queues, np.int32)
    gemm = Launch(
        kernel, num_blocks, config.num_threads, arguments(the_plan.order, the_plan.queue_offsets, tickets)
    )
    work = Work(1, num_blocks, num_tiles, num_tiles * tiled.tile_flops(config, problem))

    def timeline() -> Timeline:
        return read_trace(trace.copy_to_host(), problem, config, schedule)

    return PreparedPersistent(
        problem,
        config,
        {"gemm": gemm},
        output,
        work,
        tile=(config.BM, config.BN),
        timeline=timeline if config.trace else None,
    )


def read_trace(trace: Any, problem: GroupedProblem, config: Config, schedule: str) -> Timeline:
    """Turn what the kernel recorded, [num_tiles, 4] of block, SM, start and stop, into a timeline.

    Times count from the first start; nanoseconds on a GPU, virtual ticks in the simulator.
    """
    chosen = device.choose()
    start = trace[:, 2].min()
    slices = tuple(
        Slice(int(block), int(sm), int(group), int(tile_m), int(tile_n), float(begun), float(done))
        for (block, sm, begun, done), (group, tile_m, tile_n) in zip(
            trace - (0, 0, start, start),
            list_tiles(problem, config.BM, config.BN, config.band),
            strict=True,
        )
    )
    return Timeline(slices, chosen.num_sms, "ns" if chosen.is_gpu else "virtual ticks", schedule)
