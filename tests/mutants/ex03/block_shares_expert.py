"""One search for the whole block."""

from numba import cuda, float32

MISCONCEPTION = "block-shares-expert"
CAUGHT_BY = "test_borders"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        group = find_group(ends, 2 * cuda.blockIdx.y * cuda.blockDim.y)
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
