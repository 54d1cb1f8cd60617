"""Among equally loaded blocks, the last one."""

import numpy as np

MISCONCEPTION = "unstable-ties"
CAUGHT_BY = "test_deal"


def deal_balanced(costs, num_blocks):
    block_of = np.zeros(len(costs), np.int32)
    loads = np.zeros(num_blocks, np.int64)
    for tile in np.argsort(-costs, kind="stable"):
        block = num_blocks - 1 - np.argmin(loads[::-1])
        block_of[tile] = block
        loads[block] += costs[tile]
    return block_of
