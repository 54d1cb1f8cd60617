"""w as [K, N], as in exercise 02."""

from numba import cuda, float32

MISCONCEPTION = "weights-transposed"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, k, col]
            y[row, col] = acc
