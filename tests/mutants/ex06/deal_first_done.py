"""When the first block is done, not the last."""

import numpy as np

MISCONCEPTION = "first-done"
CAUGHT_BY = "test_makespan_of_deal"


def makespan_of_deal(costs, block_of, num_blocks):
    loads = np.zeros(num_blocks, np.int64)
    np.add.at(loads, block_of, costs)
    return int(loads.min())
