"""placeholder"""
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemm_lessons import device

device.choose()

from numba import cuda, float32, int32, uint8, uint32, uint64  # noqa: E402

from gemm_lessons import tensor_map  # noqa: E402
from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, to_device  # noqa: E402
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError  # noqa: E402
from gemm_lessons.tile_queue import MEMORY, make_tile_queue  # noqa: E402
from gemm_lessons.ptx.integer import div_u32  # noqa: E402
from gemm_lessons.ptx.compiling import inlined, whole_kernel  # noqa: E402
from gemm_lessons.ptx.matrix import pack_bf16, stmatrix_x4_trans  # noqa: E402
from gemm_lessons.ptx.mbarrier import (  # noqa: E402
    fence_mbarrier_init,
    mbarrier_arrive,
    mbarrier_arrive_expect_tx,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import global_address, ld_shared_v4, shared_address, st_global_v4, st_shared_v4  # noqa: E402
from gemm_lessons.ptx.sync import bar_sync, fence_proxy_async, setmaxnreg_dec, setmaxnreg_inc  # noqa: E402
from gemm_lessons.ptx.tma import (  # noqa: E402
    prefetch_tensormap,
    tma_load_2d,
    tma_prefetch_2d,
    tma_store_2d,
    tma_store_commit,
    tma_store_wait,
    tma_store_wait_read,
)
from gemm_lessons.ptx.wgmma import (  # noqa: E402
    DESCRIPTOR,
    DESCRIPTOR_STEP_K,
    wgmma_bf16,
    wgmma_commit,
    wgmma_fence,
    wgmma_wait,
)

WARPGROUP = 128
WARP = 32
ROW_BYTES = tensor_map.ROW_BYTES
SWIZZLE_BYTES = 1024
FEATURES_PER_WARPGROUP = 64  # rows of one wgmma


@dataclass(frozen=True)
class Config:
    BM: int = 256
    BN: int = 128
    BK: int = 64
    box: int = 64
    step: int = 64
    num_stages: int = 4
    out_boxes: int = 2
    band: int = 8
    stealing: bool = True
    rot: int = 0
    xbox: int = 0
    rotn: int = 0
    promo: int = 256
    lookahead: int = 8

    @property
    def num_consumers(self) -> int:
        return self.BN // FEATURES_PER_WARPGROUP

    @property
    def num_threads(self) -> int:
        return (self.num_consumers + 1) * WARPGROUP

    @property
    def shared_bytes(self) -> int:
        ring = self.num_stages * (self.BM + self.BN) * ROW_BYTES
        out = self.num_consumers * self.out_boxes * self.box * ROW_BYTES
        return ring + out + SWIZZLE_BYTES + 16

    def validate(self, problem: GroupedProblem) -> None:
        tensor_map.check_alignment("K", problem.K, 2)
        tensor_map.check_alignment("N", problem.N, 2)


CONFIG = Config()
SIM_CONFIG = Config(BM=64, BN=64, box=16, num_stages=2, out_boxes=2, band=2)
SIGNATURE = "void(uint8[:,::1], int32[::1], int32, int32, int32, uint16[:,::1], int32[::1])"


@functools.cache
def make_kernel(config: Config) -> Any:
    BM, BN, BK, BOX = config.BM, config.BN, config.BK, config.box
    STAGES, STEALING = config.num_stages, config.stealing
    BOXES, OUT_BOXES = BM // BOX, config.out_boxes
    CONSUMERS, THREADS = config.num_consumers, config.num_threads
    BOX_SHIFT = BOX.bit_length() - 1
    BOX_BYTES = BOX * ROW_BYTES
    X_BYTES, W_BYTES = BM * ROW_BYTES, BN * ROW_BYTES
    X_AT = 0
    W_AT = STAGES * X_BYTES
    OUT_AT = W_AT + STAGES * W_BYTES
    TILE_AT = OUT_AT + CONSUMERS * OUT_BOXES * BOX_BYTES
    LOOKAHEAD, STEP = config.lookahead, config.step
    ROT, ROTN, XBOX = config.rot, config.rotn, config.xbox
    STEP_SHIFT = STEP.bit_length() - 1
    NUM_BARRIERS = 2 * STAGES + 2
    ACCUMULATORS = BM // 2
    open_queue, find_tile = make_tile_queue(BM, BN, config.band)
    wait_all = wgmma_wait[0]
    store_wait_reads, store_wait_some = tma_store_wait_read[0], tma_store_wait_read[OUT_BOXES - 1]
    store_wait_all = tma_store_wait[0]
    give_registers, take_registers = setmaxnreg_dec[56], setmaxnreg_inc[224]

    @inlined
    def wait(barrier, parity):
        while mbarrier_try_wait(barrier, parity) == 0:
            pass

    @inlined
    def read_tile(tile_at):
        group, row, rows, feature = ld_shared_v4(tile_at)
        return int32(group), int32(row), int32(rows), int32(feature)

    def make_main_loop(num_steps):
        multiply = wgmma_bf16[num_steps * STEP]

        @inlined
        def main_loop(acc, x_tiles, w_tiles, full, empty, num_k, stage, phase):
            lane = cuda.threadIdx.x & 31
            for k_tile in range(num_k):
                wait(full + 8 * stage, phase)
                a = uint64(DESCRIPTOR | (w_tiles + stage * W_BYTES) >> 4)
                b = uint64(DESCRIPTOR | (x_tiles + stage * X_BYTES) >> 4)
                wgmma_fence()
                multiply(acc, a, b, k_tile)
                multiply(acc, a + uint64(DESCRIPTOR_STEP_K), b + uint64(DESCRIPTOR_STEP_K), 1)
                multiply(acc, a + uint64(2 * DESCRIPTOR_STEP_K), b + uint64(2 * DESCRIPTOR_STEP_K), 1)
                multiply(acc, a + uint64(3 * DESCRIPTOR_STEP_K), b + uint64(3 * DESCRIPTOR_STEP_K), 1)
                wgmma_commit()
                wait_all()
                if lane == 0:
                    mbarrier_arrive(empty + 8 * stage)
                stage += 1
                if stage == STAGES:
                    stage = 0
                    phase ^= 1
            return stage, phase

        return main_loop

    def make_dispatch(num_steps):
        this = make_main_loop(num_steps)
        if num_steps == 1:
            return this_only(this)
        smaller = make_dispatch(num_steps - 1)

        @inlined
        def dispatch(num, acc, x_tiles, w_tiles, full, empty, num_k, stage, phase):
            if num == num_steps:
                return this(acc, x_tiles, w_tiles, full, empty, num_k, stage, phase)
            return smaller(num, acc, x_tiles, w_tiles, full, empty, num_k, stage, phase)

        return dispatch

    def this_only(this):
        @inlined
        def dispatch(num, acc, x_tiles, w_tiles, full, empty, num_k, stage, phase):
            return this(acc, x_tiles, w_tiles, full, empty, num_k, stage, phase)

        return dispatch

    multiply_tile = make_dispatch(BM // STEP)

    @whole_kernel(THREADS)
    def kernel(maps, offsets, total_tokens, N, K, y, counters):
        s_barriers = cuda.shared.array(NUM_BARRIERS, uint64)
        dynamic = cuda.shared.array(0, uint8)
        base = uint32((shared_address(dynamic) + SWIZZLE_BYTES - 1) & ~(SWIZZLE_BYTES - 1))
        full = shared_address(s_barriers)
        empty = uint32(full + 8 * STAGES)
        tile_ready = uint32(empty + 8 * STAGES)
        tile_wanted = uint32(tile_ready + 8)
        tile_at = uint32(base + TILE_AT)
        x_tiles, w_tiles = uint32(base + X_AT), uint32(base + W_AT)
        x_map = global_address(maps)
        x_box_map = x_map + uint64(128)
        w_map = x_map + uint64(256)
        y_map = x_map + uint64(384)
        thread = int32(cuda.threadIdx.x)
        warp, lane = thread >> 5, thread & 31
        warpgroup = thread >> 7
        num_k = int32((K + BK - 1) >> 6)

        if thread == 0:
            for stage in range(STAGES):
                mbarrier_init(full + 8 * stage, 1)
                mbarrier_init(empty + 8 * stage, CONSUMERS * 4)
            mbarrier_init(tile_ready, 1)
            mbarrier_init(tile_wanted, (CONSUMERS * 4 + 1))
            fence_mbarrier_init()
        cuda.syncthreads()

        if warpgroup == CONSUMERS:
            give_registers()
            if warp == CONSUMERS * 4:
                if lane == 0:
                    prefetch_tensormap(x_map)
                    prefetch_tensormap(x_box_map)
                    prefetch_tensormap(w_map)
                    prefetch_tensormap(y_map)
                    stage, phase, tile_phase = 0, 0, 0
                    while True:
                        wait(tile_ready, tile_phase)
                        group, row, rows, feature = read_tile(tile_at)
                        tile_phase ^= 1
                        if rows == 0:
                            break
                        num_boxes = int32((rows + BOX - 1) >> BOX_SHIFT)
                        ask_at = int32(max(num_k - LOOKAHEAD, 0))
                        start = int32(group * ROT + div_u32(feature, BN) * ROTN)
                        start = int32(start - div_u32(start, num_k) * num_k)
                        for k in range(num_k):
                            k_tile = k + start
                            if k_tile >= num_k:
                                k_tile -= num_k
                            if k == ask_at:
                                mbarrier_arrive(tile_wanted)
                            wait(empty + 8 * stage, phase ^ 1)
                            barrier = uint32(full + 8 * stage)
                            mbarrier_arrive_expect_tx(barrier, W_BYTES + num_boxes * BOX_BYTES)
                            tma_load_2d(w_tiles + stage * W_BYTES, w_map, k_tile * BK, group * N + feature, barrier)
                            x_tile = uint32(x_tiles + stage * X_BYTES)
                            if num_boxes == BOXES and not XBOX:
                                tma_load_2d(x_tile, x_map, k_tile * BK, row, barrier)
                            else:
                                for i in range(num_boxes):
                                    tma_load_2d(x_tile + i * BOX_BYTES, x_box_map, k_tile * BK, row + i * BOX, barrier)
                            stage += 1
                            if stage == STAGES:
                                stage = 0
                                phase ^= 1
            elif warp == CONSUMERS * 4 + 1:
                memory = cuda.local.array(MEMORY, int32)
                tiles_n = int32(div_u32(N + BN - 1, BN))
                num_workers = int32(cuda.gridDim.x)
                open_queue(memory, offsets, total_tokens, tiles_n, num_workers)
                ticket = int32(cuda.blockIdx.x)
                tile_phase = 1
                while True:
                    group, row, rows, feature = find_tile(memory, offsets, total_tokens, tiles_n, ticket)
                    wait(tile_wanted, tile_phase)
                    tile_phase ^= 1
                    if lane == 0:
                        st_shared_v4(tile_at, group, row, rows, feature)
                        mbarrier_arrive(tile_ready)
                    if rows == 0:
                        break
                    if STEALING:
                        wait(tile_wanted, tile_phase)
                        taken = int32(0)
                        if lane == 0:
                            taken = cuda.atomic.add(counters, 0, 1)
                        ticket = int32(num_workers + cuda.shfl_sync(0xFFFFFFFF, taken, 0))
                    else:
                        ticket = int32(ticket + num_workers)
                if STEALING and lane == 0:
                    cuda.threadfence()
                    if cuda.atomic.add(counters, 1, 1) == num_workers - 1:
                        cuda.atomic.exch(counters, 0, 0)
                        cuda.atomic.exch(counters, 1, 0)
        else:
            take_registers()
            acc = cuda.local.array(ACCUMULATORS, float32)
            my_out = uint32(base + OUT_AT + warpgroup * (OUT_BOXES * BOX_BYTES))
            my_thread = thread & 127
            lane_row = (lane & 7) + (lane >> 4) * 8
            my_cell = uint32(lane_row * ROW_BYTES + (((my_thread >> 5) * 2 + ((lane >> 3) & 1)) ^ (lane & 7)) * 16)
            stage, phase, tile_phase = 0, 0, 0
            while True:
                wait(tile_ready, tile_phase)
                group, row, rows, feature = read_tile(tile_at)
                cuda.syncwarp()
                if lane == 0:
                    mbarrier_arrive(tile_wanted)
                tile_phase ^= 1
                if rows == 0:
                    break
                num_boxes = int32((rows + BOX - 1) >> BOX_SHIFT)
                num_steps = int32((rows + STEP - 1) >> STEP_SHIFT)
                stage, phase = multiply_tile(
                    num_steps, acc, x_tiles, w_tiles + warpgroup * (64 * ROW_BYTES), full, empty, num_k, stage, phase
                )
                feature += warpgroup * 64
                if my_thread == 0:
                    store_wait_reads()
                bar_sync(1 + warpgroup, 128)
                for box in range(BOXES):
                    if box < num_boxes:
                        if box >= OUT_BOXES:
                            if my_thread == 0:
                                store_wait_some()
                            bar_sync(1 + warpgroup, 128)
                        buffer = uint32(my_out + (box % OUT_BOXES) * BOX_BYTES)
                        for part in range(BOX // 16):
                            if box * BOX + part * 16 < rows:
                                first = box * (BOX // 2) + part * 8
                                stmatrix_x4_trans(
                                    buffer + my_cell + part * (16 * ROW_BYTES),
                                    pack_bf16(acc[first], acc[first + 1]),
                                    pack_bf16(acc[first + 2], acc[first + 3]),
                                    pack_bf16(acc[first + 4], acc[first + 5]),
                                    pack_bf16(acc[first + 6], acc[first + 7]),
                                )
                        fence_proxy_async()
                        bar_sync(1 + warpgroup, 128)
                        left = int32(rows - box * BOX)
                        if left >= BOX:
                            if my_thread == 0:
                                tma_store_2d(y_map, feature, row + box * BOX, buffer)
                                tma_store_commit()
                        else:
                            piece = my_thread & 7
                            column = int32(feature + piece * 8)
                            if column < N:
                                for r in range(my_thread >> 3, left, 16):
                                    a, b, c, d = ld_shared_v4(buffer + r * ROW_BYTES + (piece ^ (r & 7)) * 16)
                                    cell = (row + box * BOX + r) * N + column
                                    st_global_v4(global_address(y) + uint64(cell * 2), a, b, c, d)
            if my_thread == 0:
                store_wait_all()

    return kernel


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    config = config or (CONFIG if device.choose().is_gpu else SIM_CONFIG)
    config.validate(problem)
    inputs = inputs or problem.inputs()
    problem.check_inputs(inputs)
    x, w = to_device(inputs.x), to_device(inputs.w)
    offsets = to_device(problem.offsets)
    output, y = guarded_output(problem)
    stacked = w.reshape(problem.num_groups * problem.N, problem.K)
    maps = tensor_map.encode(promo=config.promo, matrices=[(x, config.BM), (x, config.box), (stacked, config.BN), (y, config.box)])
    counters = to_device(np.zeros(2, np.int32))
    tiles = sum(-(-c // config.BM) for c in problem.counts) * -(-problem.N // config.BN)
    blocks = device.choose().num_sms
    parts = {}
    if problem.total_tokens:
        parts["gemm"] = Launch(
            make_kernel(config),
            blocks,
            config.num_threads,
            (maps, offsets, np.int32(problem.total_tokens), np.int32(problem.N), np.int32(problem.K), y.view(np.uint16), counters),
            shared_bytes=config.shared_bytes,
        )
    work = Work(1, blocks, tiles, problem.useful_flops)
    return Prepared(problem, config, parts, output, work, (config.BM, config.BN), (x, w, maps))


launch = launch_parts
