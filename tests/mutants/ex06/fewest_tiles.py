"""To the block with the fewest tiles, whatever they cost."""

import numpy as np

MISCONCEPTION = "depth-ignored"
CAUGHT_BY = "test_deal"


def deal_balanced(costs, num_blocks):
    block_of = np.zeros(len(costs), np.int32)
    loads = np.zeros(num_blocks, np.int64)
    for tile in np.argsort(-costs, kind="stable"):
        block = np.argmin(loads)
        block_of[tile] = block
        loads[block] += 1
    return block_of
