"""Exercise 06: two schedules for the backward pass, and what they cost.

What differs from the lesson: tiles are not equal. The gradient of expert g's weights is dy.T @ x over the
rows of g, so all experts have the same tiles, and a tile of expert g takes as long as g has tokens:

    counts [30, 0, 50], 2 tiles each      tile   0  1 | 2  3 | 4  5
                                          cost  30 30 | 0  0 | 50 50

An expert without tokens has tiles of cost 0. They still must be done: its gradient has to be set to zero.

    costs     [num_tiles] int64
    order     [num_tiles] int32: tile numbers, in the order in which a shared queue hands them out
    block_of  [num_tiles] int32: the block to which each tile is dealt

NumPy only, no kernel. Budget: about 22 lines.
"""

import numpy as np


def tile_costs(counts, tiles_per_expert):
    """The cost of every tile, expert after expert.

    Args:
        counts: int32 [num_experts].
        tiles_per_expert: the same for all.

    Returns:
        int64 [num_experts * tiles_per_expert].
    """
    # >>> fill (about 1 line)
    return None
    # <<< fill


def longest_first(costs):
    """The order of a queue: costliest tiles first; tiles that cost the same, by their number.

    Returns:
        int32 [num_tiles].
    """
    # >>> fill (about 1 line)
    return None
    # <<< fill


def deal_balanced(costs, num_blocks):
    """Deal tiles before the launch: the costliest first, each to the block with the least work so far.

    Tiles that cost the same come by their number; among blocks with equally little work, the lowest number.

    Returns:
        block_of: int32 [num_tiles].
    """
    # >>> fill (about 8 lines)
    return None
    # <<< fill


def makespan_of_deal(costs, block_of, num_blocks):
    """When the last block is done, as an int; 0 without tiles."""
    # >>> fill (about 3 lines)
    return None
    # <<< fill


def makespan_of_queue(costs, order, num_blocks):
    """The same where each block takes the next tile of the order as soon as it is free."""
    # >>> fill (about 5 lines)
    return None
    # <<< fill


def lower_bound(costs, num_blocks):
    """The time that no schedule of whole tiles beats: an int, the larger of two bounds; 0 without tiles.

    The first bound is the average work of a block, rounded up, since costs are whole numbers.
    """
    # >>> fill (about 4 lines)
    return None
    # <<< fill
