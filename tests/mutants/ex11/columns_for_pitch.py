"""Rows of a stage are taken to be K apart."""

from numba import cuda, float32

MISCONCEPTION = "pitch-forgotten"
CAUGHT_BY = "test_columns"


@cuda.jit(device=True)
def consume(pitch, ends, s_ring, full, empty, y):
    column = cuda.threadIdx.x
    stage, phase = 0, 0
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        total = float32(0.0)
        for row in range(first_of(ends, expert), ends[expert], BM):
            wait(full + 8 * stage, phase)
            if column < y.shape[1]:
                for r in range(min(BM, ends[expert] - row)):
                    total += s_ring[stage, r * y.shape[1] + column]
            mbarrier_arrive(empty + 8 * stage)
            stage, phase = next_place(stage, phase)
        if column < y.shape[1]:
            y[expert, column] = total
