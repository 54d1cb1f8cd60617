"""Nothing goes through the ring: threads read x themselves."""

from numba import cuda, float32

MISCONCEPTION = "ring-not-used"
CAUGHT_BY = "test_reads"


@cuda.jit
def ring_kernel(x, ends, y):
    column = cuda.threadIdx.x
    if column < y.shape[1]:
        for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
            total = float32(0.0)
            for row in range(first_of(ends, expert), ends[expert]):
                total += x[row, column]
            y[expert, column] = total
