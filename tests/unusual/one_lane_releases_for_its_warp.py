"""One lane of each consumer warp arrives at empty, after the others; a stage then expects two arrivals."""

from numba import cuda, float32

EXERCISE = "ex11_ring"
CONSUMER_WARPS = 2


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(STAGES):
        mbarrier_init(empty + 8 * stage, CONSUMER_WARPS)
        mbarrier_init(full + 8 * stage, 1)
    fence_mbarrier_init()


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
                    total += s_ring[stage, r * pitch + column]
            cuda.syncwarp()
            if column % 32 == 0:
                mbarrier_arrive(empty + 8 * stage)
            stage, phase = next_place(stage, phase)
        if column < y.shape[1]:
            y[expert, column] = total
