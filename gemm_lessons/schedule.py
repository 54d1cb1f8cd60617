"""Which tile belongs to which expert, and who computes which tile when.

Only this module knows how groups become tiles; a kernel sees (group, tile_m, tile_n).

    expert 0: 150 rows, BM = 64 -> 3 row tiles     tile_offsets = [0, 3 * tiles_n, 5 * tiles_n, ...]
    expert 1:  80 rows          -> 2 row tiles     tile         -> group by binary search,
    ...                                               then (tile_m, tile_n) inside the group

The first half runs on the device, with a host twin for tests and pictures.  The second half plans the
four load-balancing strategies on the host; one kernel body runs them all.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.problem import GroupedProblem, counts_to_offsets
from gemm_lessons.trace import Slice, Timeline

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

Array = np.ndarray[Any, Any]


@cuda.jit(device=True)
def find_group_linear(offsets, index):
    """The group that owns an index, walking the offsets: at most num_groups steps.

    Args:
        offsets: int32 [num_groups + 1], never falling.
        index: 0 <= index < offsets[num_groups].

    Returns:
        The only g with offsets[g] <= index < offsets[g + 1]; empty groups own nothing.
    """
    group = 0
    while offsets[group + 1] <= index:
        group += 1
    return group


@cuda.jit(device=True)
def find_group(offsets, index):
    """The group that owns an index, by binary search: about log2(num_groups) steps.

    Arguments and result are those of `find_group_linear`.
    """
    low, high = 0, offsets.shape[0] - 2
    while low < high:
        middle = (low + high + 1) >> 1
        if offsets[middle] <= index:
            low = middle  # why not stop at equality: an empty group has the same offset as the next one
        else:
            high = middle - 1
    return low


@cuda.jit(device=True)
def find_tile(tile_offsets, tile, tiles_n, band):
    """Where a tile lies: its group and its tile coordinates inside the group.

    Tiles of a group are numbered band by band, down the rows of a band first.  Blocks that run at the
    same time then share `band` row tiles of x and a few column tiles of w, so that L2 holds both.

    Args:
        tile_offsets: int32 [num_groups + 1], exclusive prefix sum of each group's number of tiles.
        tile: 0 <= tile < tile_offsets[num_groups].
        tiles_n: column tiles, the same for every group.
        band: row tiles in a band.

    Returns:
        (group, tile_m, tile_n).
    """
    group = find_group(tile_offsets, tile)
    within = tile - tile_offsets[group]
    tiles_m = (tile_offsets[group + 1] - tile_offsets[group]) // tiles_n
    first_m = within // (band * tiles_n) * band
    band_rows = min(tiles_m - first_m, band)
    within -= first_m * tiles_n
    return group, first_m + within % band_rows, within // band_rows


def ceil_div(value: int, divisor: int) -> int:
    """How many pieces of size divisor cover value."""
    return -(-value // divisor)


def count_tiles(problem: GroupedProblem, BM: int, BN: int) -> Array:
    """int32 [num_groups + 1]: exclusive prefix sum of each expert's tiles. No tile straddles two experts."""
    tiles_n = ceil_div(problem.N, BN)
    return counts_to_offsets([ceil_div(count, BM) * tiles_n for count in problem.counts])


def list_tiles(problem: GroupedProblem, BM: int, BN: int, band: int = 8) -> Array:
    """Every tile of a problem in the order in which `find_tile` numbers them: the device map's host twin.

    Returns:
        int32 [num_tiles, 3] with (group, tile_m, tile_n).
    """
    tiles_n = ceil_div(problem.N, BN)
    tiles = [
        (group, tile_m, tile_n)
        for group, count in enumerate(problem.counts)
        for first_m in range(0, ceil_div(count, BM), band)
        for tile_n in range(tiles_n)
        for tile_m in range(first_m, min(first_m + band, ceil_div(count, BM)))
    ]
    return np.array(tiles, np.int32).reshape(-1, 3)


def tile_costs(problem: GroupedProblem, tiles: Array, BM: int, BN: int) -> Array:
    """Useful multiply-adds of each tile: rows * columns * K, less at the ragged edges."""
    counts = np.asarray(problem.counts)
    rows = np.minimum(counts[tiles[:, 0]] - tiles[:, 1] * BM, BM)
    columns = np.minimum(problem.N - tiles[:, 2] * BN, BN)
    costs: Array = rows.astype(np.int64) * columns * problem.K
    return costs


SCHEDULES = {
    "sequential": "whole experts to blocks, in turn: expert g to block g mod num_blocks",
    "tile-level": "single tiles to blocks, in turn: fixed before the launch",
    "work-stealing": "each block takes the next tile from a shared counter when it is free",
    "longest-first": "work stealing, with the costliest tiles first",
}


@dataclass(frozen=True)
class Plan:
    """Who may take which tile.

    Attributes:
        schedule: one of `SCHEDULES`.
        order: int32 [num_tiles], tile numbers as `find_tile` counts them, queue after queue.
        queue_offsets: int32 [num_queues + 1]; queue q owns order[queue_offsets[q]:queue_offsets[q + 1]].
            One queue for each block, or a single one that all blocks share.
    """

    schedule: str
    order: Array
    queue_offsets: Array

    @property
    def num_queues(self) -> int:
        """1 if the blocks share a queue, else the number of blocks."""
        return len(self.queue_offsets) - 1


def plan(schedule: str, problem: GroupedProblem, BM: int, BN: int, num_blocks: int, *, band: int = 8) -> Plan:
    """Plan one of the load-balancing strategies.

    Args:
        schedule: one of `SCHEDULES`.
        problem: what is computed.
        BM: rows of a tile.
        BN: columns of a tile.
        num_blocks: how many blocks work at the same time.
        band: row tiles in a band, as in `find_tile`.

    Raises:
        ValueError: an unknown schedule, or no block.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"no schedule is called {schedule!r}: use one of {', '.join(SCHEDULES)}")
    if num_blocks < 1:
        raise ValueError(f"{num_blocks} blocks cannot work: use at least 1")
    tiles = list_tiles(problem, BM, BN, band)
    numbers = np.arange(len(tiles), dtype=np.int32)
    if schedule == "sequential":
        queues = [numbers[tiles[:, 0] % num_blocks == block] for block in range(num_blocks)]
    elif schedule == "tile-level":
        queues = [numbers[block::num_blocks] for block in range(num_blocks)]
    elif schedule == "work-stealing":
        queues = [numbers]
    else:
        # why stable: tiles of equal cost keep the order that suits the L2 cache.
        queues = [np.argsort(-tile_costs(problem, tiles, BM, BN), kind="stable").astype(np.int32)]
    return Plan(schedule, np.concatenate(queues), counts_to_offsets([len(queue) for queue in queues]))


def predict(
    the_plan: Plan, problem: GroupedProblem, BM: int, BN: int, num_blocks: int, *, band: int = 8
) -> Timeline:
    """Play a plan with the model "a tile takes as long as a full one, whatever its edge holds".

    A tile at an expert's edge runs the same loop over K as a full one, so every tile costs BM * BN * K
    multiply-adds of time.

    Returns:
        The predicted timeline, in multiply-adds.
    """
    tiles = list_tiles(problem, BM, BN, band)
    duration = BM * BN * problem.K
    slices = []

    def run(block: int, number: int, start: int) -> int:
        group, tile_m, tile_n = (int(value) for value in tiles[number])
        slices.append(Slice(block, block, group, tile_m, tile_n, start, start + duration))
        return start + duration

    if the_plan.num_queues == 1:
        free = [(0, block) for block in range(num_blocks)]  # (time at which the block is free, block)
        for number in the_plan.order:
            start, block = heapq.heappop(free)
            heapq.heappush(free, (run(block, int(number), start), block))
    else:
        for block in range(the_plan.num_queues):
            first, last = the_plan.queue_offsets[block : block + 2]
            time = 0
            for number in the_plan.order[first:last]:
                time = run(block, int(number), time)
    return Timeline(tuple(slices), num_sms=num_blocks, unit="multiply-adds", label=the_plan.schedule)
