"""Dealt like cards, as in the lesson."""

import numpy as np

MISCONCEPTION = "dealt-in-turn"
CAUGHT_BY = "test_deal"


def deal_balanced(costs, num_blocks):
    block_of = np.zeros(len(costs), np.int32)
    loads = np.zeros(num_blocks, np.int64)
    block_of[:] = np.arange(len(costs)) % num_blocks
    return block_of
