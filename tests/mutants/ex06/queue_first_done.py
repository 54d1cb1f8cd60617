"""When the first block is done."""

import numpy as np

MISCONCEPTION = "first-done"
CAUGHT_BY = "test_makespan_of_queue"


def makespan_of_queue(costs, order, num_blocks):
    free = np.zeros(num_blocks, np.int64)
    for tile in order:
        free[np.argmin(free)] += costs[tile]
    return int(free.min())
