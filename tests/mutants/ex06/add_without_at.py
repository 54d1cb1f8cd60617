"""loads[block_of] += costs: of several tiles of a block, one counts."""

import numpy as np

MISCONCEPTION = "buffered-add"
CAUGHT_BY = "test_makespan_of_deal"


def makespan_of_deal(costs, block_of, num_blocks):
    loads = np.zeros(num_blocks, np.int64)
    loads[block_of] += costs
    return int(loads.max())
