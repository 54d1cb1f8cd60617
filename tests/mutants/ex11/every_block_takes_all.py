"""Both blocks take every expert."""

from numba import cuda, float32

MISCONCEPTION = "every-block-takes-all"
CAUGHT_BY = "test_reads"


@cuda.jit(device=True)
def produce(x, ends, ring, full, empty):
    stage, phase = 0, 0
    for expert in range(ends.shape[0]):
        for row in range(first_of(ends, expert), ends[expert], BM):
            num_bytes = min(BM, ends[expert] - row) * x.shape[1] * 4
            wait(empty + 8 * stage, phase ^ 1)
            mbarrier_arrive_expect_tx(full + 8 * stage, num_bytes)
            target = ring + stage * STAGE_BYTES
            cp_async_bulk(target, address_of(x, (row, 0)), num_bytes, full + 8 * stage)
            stage, phase = next_place(stage, phase)


@cuda.jit(device=True)
def consume(pitch, ends, s_ring, full, empty, y):
    column = cuda.threadIdx.x
    stage, phase = 0, 0
    for expert in range(ends.shape[0]):
        total = float32(0.0)
        for row in range(first_of(ends, expert), ends[expert], BM):
            wait(full + 8 * stage, phase)
            if column < y.shape[1]:
                for r in range(min(BM, ends[expert] - row)):
                    total += s_ring[stage, r * pitch + column]
            mbarrier_arrive(empty + 8 * stage)
            stage, phase = next_place(stage, phase)
        if column < y.shape[1]:
            y[expert, column] = total
