"""Exercise 01: from token counts to padded and aligned layouts.  Host code, NumPy only, no kernel.

The lesson padded every expert to the longest one.  Here are two other ways to lay out tokens:

    aligned     every expert starts on a multiple of `tile` rows, so that no tile holds two experts
                counts = [3, 0, 5], tile = 4  ->  offsets = [0, 4, 4, 12]
                rows   = t t t . | t t t t  t . . .        t: a token, '.': a row of zeros
    capacity    every expert takes at most `capacity` tokens, and the rest are dropped

Counts of one batch are int32 [num_experts]; counts of several batches are [num_batches, num_experts].
Budget: about 25 lines, and no loop over tokens.
"""

import math

import numpy as np


def aligned_offsets(counts, tile):
    """Where each expert's rows begin when every expert is rounded up to whole tiles.

    Args:
        counts: tokens of each expert, [num_experts].
        tile: rows of a tile.

    Returns:
        int32 [num_experts + 1]; the last entry is the number of rows of the aligned layout.
    """
    # >>> fill (about 3 lines)
    raise NotImplementedError
    # <<< fill


def useful_flops(counts, N, K):
    """Multiplies and adds on real tokens, of all batches together.

    Args:
        counts: [num_batches, num_experts].
        N: output features.
        K: input features.

    Returns:
        A Python int: one multiply and one add for each term of each output.
    """
    # >>> fill (about 1 line)
    raise NotImplementedError
    # <<< fill


def padded_flops(counts, N, K):
    """The same when, within each batch, every expert is padded to the longest expert of that batch.

    Arguments and result are those of `useful_flops`.
    """
    # >>> fill (about 3 lines)
    raise NotImplementedError
    # <<< fill


def pack(x, counts, tile):
    """Copy tokens into the aligned layout.

    Args:
        x: tokens sorted by expert, [total_tokens, K].
        counts: tokens of each expert, [num_experts].
        tile: rows of a tile.

    Returns:
        [aligned rows, K], dtype of x; rows that hold no token are zero.
    """
    # >>> fill (about 7 lines)
    raise NotImplementedError
    # <<< fill


def unpack(packed, counts, tile):
    """The way back: only the tokens, in their order, [total_tokens, K]."""
    # >>> fill (about 4 lines)
    raise NotImplementedError
    # <<< fill


def capacity(counts, factor):
    """Tokens that each expert may take in each batch: an even share, times factor, rounded up.

    Args:
        counts: [num_batches, num_experts].
        factor: 1.0 is an even share; 1.25 leaves a quarter of room.

    Returns:
        int32 [num_batches].
    """
    # >>> fill (about 3 lines)
    raise NotImplementedError
    # <<< fill


def dropped(counts, limits):
    """Tokens beyond their expert's capacity, per batch.

    Args:
        counts: [num_batches, num_experts].
        limits: capacity of each batch, int32 [num_batches].

    Returns:
        int32 [num_batches].
    """
    # >>> fill (about 2 lines)
    raise NotImplementedError
    # <<< fill
