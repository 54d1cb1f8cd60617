"""x and y indexed with the row within the expert."""

from numba import cuda, float32

MISCONCEPTION = "row-of-expert-for-x"
CAUGHT_BY = "test_borders"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            inside = row - (ends[group - 1] if group > 0 else 0)
            for k in range(x.shape[1]):
                acc += x[inside, k] * w[group, col, k]
            y[row, col] = acc
