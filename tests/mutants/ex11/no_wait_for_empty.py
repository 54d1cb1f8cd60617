"""The producer fills a stage without waiting."""

from numba import cuda

MISCONCEPTION = "no-wait-for-empty"
CAUGHT_BY = "test_clean"


@cuda.jit(device=True)
def produce(x, ends, ring, full, empty):
    stage, phase = 0, 0
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        for row in range(first_of(ends, expert), ends[expert], BM):
            num_bytes = min(BM, ends[expert] - row) * x.shape[1] * 4
            mbarrier_arrive_expect_tx(full + 8 * stage, num_bytes)
            target = ring + stage * STAGE_BYTES
            cp_async_bulk(target, address_of(x, (row, 0)), num_bytes, full + 8 * stage)
            stage, phase = next_place(stage, phase)
