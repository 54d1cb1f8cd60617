"""Schedules with lists, sorted() and min()."""

import numpy as np

EXERCISE = "ex06_schedules"


def tile_costs(counts, tiles_per_expert):
    return np.array([int(count) for count in counts for _ in range(tiles_per_expert)], np.int64)


def longest_first(costs):
    return np.array(sorted(range(len(costs)), key=lambda tile: (-costs[tile], tile)), np.int32)


def deal_balanced(costs, num_blocks):
    work, block_of = [0] * num_blocks, [0] * len(costs)
    for tile in longest_first(costs):
        block_of[tile] = min(range(num_blocks), key=lambda block: work[block])
        work[block_of[tile]] += int(costs[tile])
    return np.array(block_of, np.int32)


def makespan_of_deal(costs, block_of, num_blocks):
    return max(int(costs[block_of == block].sum()) for block in range(num_blocks))


def makespan_of_queue(costs, order, num_blocks):
    free = [0] * num_blocks
    for tile in order:
        free.sort()
        free[0] += int(costs[tile])
    return max(free)
