"""Loops over experts in plain Python, no NumPy tricks."""

import numpy as np

EXERCISE = "ex01_padding"


def aligned_offsets(counts, tile):
    offsets = [0]
    for count in counts:
        rows = int(count)
        while rows % tile:
            rows += 1
        offsets.append(offsets[-1] + rows)
    return np.array(offsets, dtype="int32")


def useful_flops(counts, N, K):
    return sum(2 * int(count) * N * K for batch in counts for count in batch)


def padded_flops(counts, N, K):
    return sum(2 * len(batch) * int(max(batch)) * N * K for batch in counts)


def dropped(counts, limits):
    lost = [sum(max(int(c) - int(m), 0) for c in batch) for batch, m in zip(counts, limits)]
    return np.int32(lost)
