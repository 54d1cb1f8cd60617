"""The result is in the order of dealing, not by tile."""

import numpy as np

MISCONCEPTION = "ranks-for-order"
CAUGHT_BY = "test_deal"


def deal_balanced(costs, num_blocks):
    block_of = np.zeros(len(costs), np.int32)
    loads = np.zeros(num_blocks, np.int64)
    for place, tile in enumerate(np.argsort(-costs, kind="stable")):
        block = np.argmin(loads)
        block_of[place] = block
        loads[block] += costs[tile]
    return block_of
