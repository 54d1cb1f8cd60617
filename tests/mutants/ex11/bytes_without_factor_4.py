"""Numbers are announced in place of bytes."""

from numba import cuda

MISCONCEPTION = "values-for-bytes"
CAUGHT_BY = "test_one"


@cuda.jit(device=True)
def produce(x, ends, ring, full, empty):
    stage, phase = 0, 0
    for expert in range(cuda.blockIdx.x, ends.shape[0], cuda.gridDim.x):
        for row in range(first_of(ends, expert), ends[expert], BM):
            num_bytes = min(BM, ends[expert] - row) * x.shape[1] * 4
            wait(empty + 8 * stage, phase ^ 1)
            mbarrier_arrive_expect_tx(full + 8 * stage, num_bytes // 4)
            target = ring + stage * STAGE_BYTES
            cp_async_bulk(target, address_of(x, (row, 0)), num_bytes, full + 8 * stage)
            stage, phase = next_place(stage, phase)
