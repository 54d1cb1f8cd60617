"""Consumers release the stage and then read it."""

from numba import cuda, float32

MISCONCEPTION = "released-too-early"
CAUGHT_BY = "test_clean"


@cuda.jit(device=True)
def consume(pitch, ends, s_ring, full, empty, y):
    column = cuda.threadIdx.x
    stage, phase = 0, 0
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        total = float32(0.0)
        for row in range(first_of(ends, expert), ends[expert], BM):
            wait(full + 8 * stage, phase)
            mbarrier_arrive(empty + 8 * stage)
            if column < y.shape[1]:
                for r in range(min(BM, ends[expert] - row)):
                    total += s_ring[stage, r * pitch + column]
            stage, phase = next_place(stage, phase)
        if column < y.shape[1]:
            y[expert, column] = total
