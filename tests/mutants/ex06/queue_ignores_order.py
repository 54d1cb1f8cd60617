"""Tiles are taken by number, not in the order given."""

import numpy as np

MISCONCEPTION = "order-ignored"
CAUGHT_BY = "test_makespan_of_queue"


def makespan_of_queue(costs, order, num_blocks):
    free = np.zeros(num_blocks, np.int64)
    for cost in costs:
        free[np.argmin(free)] += cost
    return int(free.max())
