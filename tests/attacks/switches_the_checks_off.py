"""Switches the simulator to its unchecked mode, with a kernel that writes out of bounds."""

from numba import cuda, float32

from gemm_lessons import sim

EXERCISE = "ex03_concatenated"
AIM = "test_clean"


sim.configure(mode="plain")


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    for row in range(2 * pair, 2 * pair + 2):
        y[row, col] = float32(0.0)
