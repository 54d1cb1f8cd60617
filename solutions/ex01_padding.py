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
    rows = -(-np.asarray(counts, np.int64) // tile) * tile
    return np.concatenate(([0], np.cumsum(rows))).astype(np.int32)
    # --- stub
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
    return 2 * int(np.sum(counts)) * N * K
    # --- stub
    raise NotImplementedError
    # <<< fill


def padded_flops(counts, N, K):
    """The same when, within each batch, every expert is padded to the longest expert of that batch.

    Arguments and result are those of `useful_flops`.
    """
    # >>> fill (about 3 lines)
    longest = np.max(counts, axis=1)
    return 2 * int(np.sum(longest)) * np.shape(counts)[1] * N * K
    # --- stub
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
    offsets = aligned_offsets(counts, tile)
    packed = np.zeros((offsets[-1], x.shape[1]), x.dtype)
    start = 0
    for group, count in enumerate(counts):
        packed[offsets[group] : offsets[group] + count] = x[start : start + count]
        start += count
    return packed
    # --- stub
    raise NotImplementedError
    # <<< fill


def unpack(packed, counts, tile):
    """The way back: only the tokens, in their order, [total_tokens, K]."""
    # >>> fill (about 4 lines)
    offsets = aligned_offsets(counts, tile)
    pieces = [packed[offsets[g] : offsets[g] + count] for g, count in enumerate(counts)]
    return np.concatenate(pieces)
    # --- stub
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
    num_experts = np.shape(counts)[1]
    shares = np.sum(counts, axis=1)
    return np.array([math.ceil(factor * int(tokens) / num_experts) for tokens in shares], np.int32)
    # --- stub
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
    beyond = np.maximum(np.asarray(counts) - np.asarray(limits)[:, None], 0)
    return beyond.sum(axis=1).astype(np.int32)
    # --- stub
    raise NotImplementedError
    # <<< fill
