"""Few blocks, and a loop over the pairs."""

from numba import cuda, float32

EXERCISE = "ex03_concatenated"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    for col in range(cuda.threadIdx.x, y.shape[1], cuda.blockDim.x):
        for pair in range(cuda.blockIdx.x, (y.shape[0] + 1) // 2, cuda.gridDim.x):
            for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
                group = find_group(ends, row)
                acc = float32(0.0)
                for k in range(x.shape[1]):
                    acc += x[row, k] * w[group, col, k]
                y[row, col] = acc


def launch_shape(total_tokens, N):
    return 3, 16
