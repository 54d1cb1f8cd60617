"""SwiGLU in the epilogue of the gate-and-up product: `steps.hopper` with another way to write its tiles.

Picture:
    accumulators of a warp: 16 rows of w, that is 8 features of gate and the same 8 of up, times BM tokens
        lane t holds    acc[4 j], acc[4 j + 1]        gate  feature t // 4, tokens 8 j + 2 (t % 4) and + 1
                        acc[4 j + 2], acc[4 j + 3]    up    the same feature, the same tokens
    -> hidden = silu(acc[4 j]) * acc[4 j + 2] without asking any other lane; 8 warps x 8 features = one box

What changed: the products never leave the registers as gate and up. A tile of 128 rows of w gives 64
features of hidden, which both consumer warpgroups put into one box of 128-byte rows.

Why it should help: gate and up of every row are 4 * hidden bytes to write and again to read, and hidden is
2 * hidden bytes to read: none of it happens, and a launch is saved.

When it will not: where the product is so small that the tail of exponentials after each tile shows.

What to measure: gate_up, swiglu and down of the layer, with `activation="kernel"` and `"epilogue"`.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from gemm_lessons.moe.activation import silu
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.matrix import pack_bf16, stmatrix_x2_trans
from gemm_lessons.ptx.shared import ld_shared_v4, st_global_v4
from gemm_lessons.ptx.sync import bar_sync, fence_proxy_async
from gemm_lessons.ptx.tma import tma_store_2d, tma_store_commit, tma_store_wait_read
from gemm_lessons.steps._host import ConfigError
from gemm_lessons.steps.hopper import ROW_BYTES, STEP, WARPGROUP, Config

CONSUMERS = 2  # their features fill the 128 bytes of a box's row
BARRIER = 1
MOST_BUFFERS = 4


def make_store(config: Config) -> Any:
    """The epilogue for `hopper.make_kernel`: y is hidden, [capacity, N / 2].

    Raises:
        ConfigError: the tile has one consumer warpgroup only, whose features fill half a box's row.
    """
    if config.num_consumers != CONSUMERS:
        raise ConfigError(f"BN is {config.BN}: SwiGLU in the epilogue needs 128, two consumer warpgroups")
    BM, BOX = config.BM, config.box
    BUFFERS, BUFFER_BYTES = min(CONSUMERS * config.num_buffers, MOST_BUFFERS), config.buffer_bytes
    THREADS = CONSUMERS * WARPGROUP
    wait_for_buffer, wait_for_buffers = tma_store_wait_read[BUFFERS - 1], tma_store_wait_read[0]

    @inlined
    def store(acc, buffers, y_map, y, row, rows, tile_feature, N):
        """Write silu(gate) * up of a tile, box by box; both warpgroups together."""
        thread = int32(cuda.threadIdx.x)  # 0..255: the consumers come first
        lane, warp = thread & 31, thread >> 5
        feature = int32(tile_feature >> 1)
        # Lanes 0 to 15 name the rows of 8 features, of tokens 0 to 15 of a step; the others are not asked.
        token = lane & 15
        cell = uint32(token * ROW_BYTES + (warp ^ (lane & 7)) * 16)  # 128-byte swizzle
        if thread == 0:
            wait_for_buffers()
        bar_sync(BARRIER, THREADS)
        for box in range(BM // BOX):
            left = int32(rows - box * BOX)
            if left > 0:
                if box >= BUFFERS:
                    if thread == 0:
                        wait_for_buffer()
                    bar_sync(BARRIER, THREADS)  # why: the copy engine has read what lay there before
                buffer = uint32(buffers + (box % BUFFERS) * BUFFER_BYTES)
                for part in range(BOX // STEP):
                    if part * STEP < left:
                        i = box * (BOX // 2) + part * (STEP // 2)
                        stmatrix_x2_trans(
                            buffer + cell + part * (STEP * ROW_BYTES),
                            pack_bf16(silu(acc[i]) * acc[i + 2], silu(acc[i + 1]) * acc[i + 3]),
                            pack_bf16(silu(acc[i + 4]) * acc[i + 6], silu(acc[i + 5]) * acc[i + 7]),
                        )
                fence_proxy_async()
                bar_sync(BARRIER, THREADS)
                if left >= BOX:
                    if thread == 0:
                        tma_store_2d(y_map, feature, row + box * BOX, buffer)
                        tma_store_commit()
                elif feature + (thread & 7) * 8 < y.shape[1]:
                    # why not TMA: it would write the whole box, over the next expert's rows.
                    for token in range(thread >> 3, left, THREADS // 8):
                        a, b, c, d = ld_shared_v4(buffer + token * ROW_BYTES + ((thread ^ token) & 7) * 16)
                        column = feature + (thread & 7) * 8
                        st_global_v4(address_of(y, (row + box * BOX + token, column)), a, b, c, d)

    return store
