"""The average load, not the largest."""

import numpy as np

MISCONCEPTION = "average-for-makespan"
CAUGHT_BY = "test_makespan_of_deal"


def makespan_of_deal(costs, block_of, num_blocks):
    loads = np.zeros(num_blocks, np.int64)
    return -(-int(costs.sum()) // num_blocks)
