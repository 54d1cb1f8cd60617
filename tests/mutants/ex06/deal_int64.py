"""block_of is int64."""

import numpy as np

MISCONCEPTION = "cost-type"
CAUGHT_BY = "test_deal"


def deal_balanced(costs, num_blocks):
    block_of = np.zeros(len(costs), np.int64)
    loads = np.zeros(num_blocks, np.int64)
    for tile in np.argsort(-costs, kind="stable"):
        block = np.argmin(loads)
        block_of[tile] = block
        loads[block] += costs[tile]
    return block_of
