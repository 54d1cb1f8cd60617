"""The largest number of tiles, not their cost."""

import numpy as np

MISCONCEPTION = "depth-ignored"
CAUGHT_BY = "test_makespan_of_deal"


def makespan_of_deal(costs, block_of, num_blocks):
    loads = np.zeros(num_blocks, np.int64)
    np.add.at(loads, block_of, 1)
    return int(loads.max())
