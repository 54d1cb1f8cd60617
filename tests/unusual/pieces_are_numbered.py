"""Stage and phase come from a piece's number, and every row is announced and copied by itself."""

from numba import cuda, float32

EXERCISE = "ex11_ring"


@cuda.jit(device=True)
def next_place(stage, phase):
    wraps = (stage + 1) // STAGES
    return (stage + 1) % STAGES, (phase + wraps) % 2


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(STAGES):
        mbarrier_init(full + 8 * stage, BM)
        mbarrier_init(empty + 8 * stage, CONSUMERS)
    fence_mbarrier_init()


@cuda.jit(device=True)
def produce(x, ends, ring, full, empty):
    piece = 0
    row_bytes = 4 * x.shape[1]
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        for row in range(first_of(ends, expert), ends[expert], BM):
            stage = piece % STAGES
            if piece >= STAGES:
                wait(empty + 8 * stage, piece // STAGES % 2 ^ 1)
            for r in range(BM):
                if row + r < ends[expert]:
                    mbarrier_arrive_expect_tx(full + 8 * stage, row_bytes)
                    target = ring + stage * STAGE_BYTES + r * row_bytes
                    cp_async_bulk(target, address_of(x, (row + r, 0)), row_bytes, full + 8 * stage)
                else:
                    mbarrier_arrive(full + 8 * stage)
            piece += 1


@cuda.jit(device=True)
def consume(pitch, ends, s_ring, full, empty, y):
    piece = 0
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        total = float32(0.0)
        left = ends[expert] - first_of(ends, expert)
        while left > 0:
            stage = piece % STAGES
            wait(full + 8 * stage, piece // STAGES % 2)
            for r in range(min(BM, left)):
                if cuda.threadIdx.x < y.shape[1]:
                    total += s_ring[stage, r * pitch + cuda.threadIdx.x]
            mbarrier_arrive(empty + 8 * stage)
            left -= BM
            piece += 1
        if cuda.threadIdx.x < y.shape[1]:
            y[expert, cuda.threadIdx.x] = total
