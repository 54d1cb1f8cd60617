"""A NumPy integer is returned."""

import numpy as np

MISCONCEPTION = "not-an-int"
CAUGHT_BY = "test_makespan_of_deal"


def makespan_of_deal(costs, block_of, num_blocks):
    loads = np.zeros(num_blocks, np.int64)
    np.add.at(loads, block_of, costs)
    return loads.max()
