"""The queue is sorted once more."""

import numpy as np

MISCONCEPTION = "order-ignored"
CAUGHT_BY = "test_makespan_of_queue"


def makespan_of_queue(costs, order, num_blocks):
    free = np.zeros(num_blocks, np.int64)
    for tile in np.argsort(-costs):
        free[np.argmin(free)] += costs[tile]
    return int(free.max())
