"""NumPy's float32 in place of Numba's, an fma, and a loop from the end."""

import numpy as np
from numba import cuda

EXERCISE = "ex02_launches"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = np.float32(0.0)
        for k in range(x.shape[1] - 1, -1, -1):
            acc += x[row, k] * w[k, col]
        acc += bias[col]
        if acc < np.float32(0.0):
            acc = np.float32(0.0)
        y[row, col] = acc


def launch_experts(launch, counts, x, w, bias, y):
    first = 0
    for group, count in enumerate(counts):
        rows = slice(first, first + count)
        first += count
        if count:
            grid = (-(-y.shape[1] // 16), -(-count // 4))
            launch(expert_kernel, grid, (16, 4), x[rows], w[group], bias[group], y[rows])
