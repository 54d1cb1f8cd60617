"""Consumers of `hopper_fp8` for few tokens: the weights are the left operand, as in `hopper`.

Picture:
              tokens, in steps of 16, up to 64
            +------------------+
    BN =    | consumer 0    64 |      thread: features f and f + 8, tokens t and t + 1 of each 8;
    128     | consumer 1    64 |      so two scales of x for each 8 tokens, and one of w
            +------------------+

With tokens on wgmma's 64 rows, a handful of them leaves the other rows idle, and one warpgroup has all sums
of 128 features to move.  On n they cost 16 columns, and 8 sums a thread and stage, so that both consumers are
through with a stage long before memory brings the next one.  A thread reads a scale for two sums, which is
what made this layout slow for many tokens; here it is 4 to 16 scales a stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import cuda, float32, int32, uint32, uint64

from gemm_lessons.ptx.compiling import inlined, one_of
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.mbarrier import mbarrier_arrive
from gemm_lessons.ptx.shared import ld_shared_f32
from gemm_lessons.ptx.tma import tma_store_wait
from gemm_lessons.ptx.wgmma import (
    STEP_K,
    matrix_descriptor,
    wgmma_commit,
    wgmma_e4m3,
    wgmma_e4m3_begin,
    wgmma_fence,
    wgmma_wait,
)
from gemm_lessons.steps.hopper import (
    ALL_LANES,
    ROW_BYTES,
    STEP,
    WARPGROUP_FEATURES,
    Y_BOX,
    Roles,
    make_store,
)

if TYPE_CHECKING:
    from gemm_lessons.steps.hopper_fp8 import Config

WEIGHT_BYTES = 4  # a stage's scale of w
SKEWS = 4  # TMA reads from a multiple of 16 bytes on: up to three scales of the tokens before


def make_consume(config: Config, roles: Roles) -> Any:
    """Make the consumers: a device function for a warpgroup."""
    BM, BK, STAGES, STAGE_BYTES = config.BM, config.BK, config.num_stages, config.stage_bytes
    X_BYTES, W_PART_BYTES = BM * ROW_BYTES, WARPGROUP_FEATURES * ROW_BYTES
    STAGE_SCALES, FEATURE_BYTES, WHOLE_ROWS = config.stage_scales, config.feature_bytes, config.whole_rows
    BUFFERS_AT, SCALES_AT, FEATURES_AT, WEIGHTS_AT, _ = config.places
    ACCUMULATORS = BM // 2  # 64 x BM float32 over 128 threads
    FULL, EMPTY, _, _ = config.barriers
    wait, take, store = roles.wait, roles.take, make_store(config)
    wait_for_products, wait_for_stores = wgmma_wait[0], tma_store_wait[0]

    def make_multiply(num_tokens):
        begin, add = wgmma_e4m3_begin[num_tokens], wgmma_e4m3[num_tokens]
        EIGHTS, NUM_SCALES, NUM_SUMS = num_tokens // 8, num_tokens // 4, num_tokens // 2

        @inlined
        def multiply(acc, barriers, ring, w_part, num_k, row, stage, phase):
            """Set acc to this warpgroup's 64 features times num_tokens tokens, over all of K."""
            part = cuda.local.array(NUM_SUMS, float32)
            x_scales = cuda.local.array(NUM_SCALES, float32)
            lane = int32(cuda.threadIdx.x & 31)
            scales = uint32(ring + SCALES_AT + ((row & (SKEWS - 1)) + 2 * (lane & 3)) * 4)
            for i in range(NUM_SUMS):
                acc[i] = float32(0)
            for _ in range(num_k):
                wait(barriers + FULL + 8 * stage, phase)
                tile, here = uint32(ring + stage * STAGE_BYTES), uint32(scales + stage * STAGE_SCALES)
                x, w = matrix_descriptor(tile), matrix_descriptor(tile + w_part)
                wgmma_fence()
                begin(part, w, x)
                add(part, w + uint64(STEP_K), x + uint64(STEP_K), 1)
                add(part, w + uint64(2 * STEP_K), x + uint64(2 * STEP_K), 1)
                add(part, w + uint64(3 * STEP_K), x + uint64(3 * STEP_K), 1)
                wgmma_commit()
                weight = float32(0)
                if lane == 0:  # why one lane: who says that it has read it
                    weight = ld_shared_f32(uint32(ring + WEIGHTS_AT + stage * WEIGHT_BYTES))
                weight = cuda.shfl_sync(ALL_LANES, weight, 0)
                for j in range(EIGHTS):
                    x_scales[2 * j] = ld_shared_f32(uint32(here + j * 32))
                    x_scales[2 * j + 1] = ld_shared_f32(uint32(here + j * 32 + 4))
                wait_for_products()
                cuda.syncwarp()  # why: the whole warp must have read its scales
                if lane == 0:
                    mbarrier_arrive(barriers + EMPTY + 8 * stage)
                for j in range(EIGHTS):
                    left, right = weight * x_scales[2 * j], weight * x_scales[2 * j + 1]
                    acc[4 * j] += left * part[4 * j]
                    acc[4 * j + 1] += right * part[4 * j + 1]
                    acc[4 * j + 2] += left * part[4 * j + 2]
                    acc[4 * j + 3] += right * part[4 * j + 3]
                stage = int32(stage + 1)
                if stage == STAGES:
                    stage, phase = int32(0), int32(phase ^ 1)
            return stage, phase

        return multiply

    multiply = one_of({n // STEP: make_multiply(n) for n in range(BM, 0, -STEP)})

    @inlined
    def scale_features(acc, features, num_steps):
        """Scale each sum by its feature's scale."""
        warp, lane = int32(cuda.threadIdx.x >> 5), int32(cuda.threadIdx.x & 31)
        here = uint32(features + (warp * 16 + (lane >> 2)) * 4)
        upper, lower = ld_shared_f32(here), ld_shared_f32(uint32(here + 32))  # eight features on
        for i in range(0, ACCUMULATORS, 4):
            if i < num_steps * (STEP // 2):
                acc[i], acc[i + 1] = acc[i] * upper, acc[i + 1] * upper
                acc[i + 2], acc[i + 3] = acc[i + 2] * lower, acc[i + 3] * lower

    @inlined
    def consume(s_tile, s_kept, barriers, ring, maps, y, N, K):
        """Multiply tiles and store them; one warpgroup, with registers enough to keep a tile's numbers."""
        acc = cuda.local.array(ACCUMULATORS, float32)
        w_part = X_BYTES + int32(cuda.threadIdx.x >> 7) * W_PART_BYTES
        num_k = int32((K + BK - 1) // BK)
        buffers, y_map = uint32(ring + BUFFERS_AT), address_of(maps, (Y_BOX, 0))
        stage, phase, tile_phase = int32(0), int32(0), int32(0)
        while True:
            row, rows, feature = take(s_tile, barriers, tile_phase)
            if rows == 0:
                break
            num_steps = int32((rows + STEP - 1) // STEP)
            stage, phase = multiply(num_steps, acc, barriers, ring, w_part, num_k, row, stage, phase)
            if WHOLE_ROWS:
                scale_features(acc, uint32(ring + FEATURES_AT + tile_phase * FEATURE_BYTES), num_steps)
            tile_phase = int32(tile_phase ^ 1)
            store(acc, buffers, y_map, y, row, rows, feature, N)
        if cuda.threadIdx.x & 127 == 0:
            wait_for_stores()  # why: the block's shared memory is gone when it ends

    return consume
