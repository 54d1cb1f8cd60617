"""A search without a range: steps of 2 ** k, from large to small."""

from numba import cuda

EXERCISE = "ex03_concatenated"


@cuda.jit(device=True)
def find_group(ends, row):
    step = 1
    while step * 2 <= ends.shape[0]:
        step *= 2
    group = 0
    while step > 0:
        if group + step <= ends.shape[0] and ends[group + step - 1] <= row:
            group += step
        step //= 2
    return group
