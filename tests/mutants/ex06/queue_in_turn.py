"""The queue is dealt in turn, whoever is free."""

import numpy as np

MISCONCEPTION = "queue-dealt"
CAUGHT_BY = "test_makespan_of_queue"


def makespan_of_queue(costs, order, num_blocks):
    free = np.zeros(num_blocks, np.int64)
    for place, tile in enumerate(order):
        free[place % num_blocks] += costs[tile]
    return int(free.max())
