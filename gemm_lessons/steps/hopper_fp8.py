"""Eight bits in: twice the tensor cores' speed, if sums stay exact and scales cost next to nothing.

Picture:
  one tile; now the tokens are the left operand, for then a scale is one number to a row of sums
                          128 features, which share one scale of w      block of 384 threads
                        +-----------------------+   producer   asks TMA for stage after stage,
    tokens   0 to  63   | consumer 0, part 0    |              x_scales among it, and adds w's scale
            64 to 127   | consumer 1, part 0    |   scheduler  takes tickets, hands tiles out
           128 to 191   | consumer 0, part 1    |   consumers  2 x 128 threads: wgmma into part, then
           192 to 255   | consumer 1, part 1    |              acc += scale * part, and the epilogue
                        +-----------------------+

    consumer 0   | wgmma part 0 | acc += | wgmma part 1 | acc += | wgmma part 0 of the next stage
    consumer 1           | wgmma part 0 | acc += | wgmma part 1 | acc += | ...

What changed: wgmma takes e4m3, and a stage of 128 bytes a row is 128 of K: one block of scales.  Its sums
keep some 14 bits only, so each stage starts new ones, and moves them to float32 registers with their
scales.  That takes a second set of accumulators, so a consumer multiplies 64 tokens at a time, reusing it.
A warp writes its own 16 tokens of output, and waits for no other.  Scales of x are wanted a block of K at a
time, for neighbouring tokens, so they lie turned, K slowest (`quantize.turn_scales`), and TMA brings them.
Up to 32 tokens an expert, other consumers multiply, with the weights on wgmma's rows: see `_few_tokens`.

Why it should help: half the bytes, and twice the products a cycle.  While one consumer moves its sums, the
other one's products keep the tensor cores busy.  `hopper` has tokens on wgmma's n, where every sum's scale
is another one: each thread would read 64 scales a stage from shared memory, whose ports wgmma needs.

When it will not: where memory is the roof, half the bytes is all there is.  At small K the epilogue, as
wide as before, weighs twice as much.  And a tail costs 64 tokens where `hopper` counts in steps of 16.

What to measure: time over torch._scaled_grouped_mm, with and without fast accumulation, in the same run; over
`hopper` on the same problem; and `whole_rows`, which shows what scales by block cost.

Role card
    barrier         a phase ends after                                        and then
    full[stage]     2 arrivals (producer) + 128 bytes a row + scales          consumers may read the stage
    empty[stage]    4 arrivals a consumer warpgroup (its warps)               it may be overwritten
    tile_ready      1 arrival (scheduler)                                     s_tile names the next tile
    tile_wanted     1 (producer) + 4 a consumer warpgroup                     s_tile may be overwritten
    Scales: 4 bytes for each of BM tokens, present or not, and 16 a part, for TMA starts at multiples of 16.
    With whole rows, a tile's first stage brings 4 for each of 128 features, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numba import cuda, float32, int32, uint8, uint32, uint64

from gemm_lessons import device, tensor_map
from gemm_lessons.compare import WGMMA_E4M3_BITS
from gemm_lessons.launch import Launch, Prepared, guarded_output, launch_parts, to_device
from gemm_lessons.problem import GroupedProblem, ProblemError
from gemm_lessons.ptx.compiling import inlined, one_of, whole_kernel
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.integer import late
from gemm_lessons.ptx.matrix import pack_bf16, stmatrix_x4
from gemm_lessons.ptx.mbarrier import mbarrier_arrive, mbarrier_arrive_expect_tx
from gemm_lessons.ptx.shared import (
    ld_shared_f32,
    ld_shared_v4,
    shared_address,
    st_global_v4,
    st_shared_f32,
)
from gemm_lessons.ptx.special_registers import tid_x
from gemm_lessons.ptx.sync import fence_proxy_async, setmaxnreg_dec, setmaxnreg_inc
from gemm_lessons.ptx.tma import (
    prefetch_tensormap,
    tma_load_2d,
    tma_store_2d,
    tma_store_commit,
    tma_store_wait,
    tma_store_wait_read,
)
from gemm_lessons.ptx.wgmma import (
    STEP_K,
    matrix_descriptor,
    wgmma_commit,
    wgmma_e4m3,
    wgmma_e4m3_begin,
    wgmma_fence,
    wgmma_wait,
)
from gemm_lessons.quantize import BLOCK, WEIGHT_BLOCK, Quantized, QuantizedInputs, turned_shape
from gemm_lessons.quantize_kernels import prepare_turn
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps import _few_tokens, hopper
from gemm_lessons.steps._few_tokens import SKEWS, WEIGHT_BYTES
from gemm_lessons.steps._host import ConfigError, begin_quantized
from gemm_lessons.steps.hopper import (
    ALL_LANES,
    CONSUMER_REGISTERS,
    LOOKAHEAD,
    PRODUCER_REGISTERS,
    ROW_BYTES,
    SWIZZLE_BYTES,
    WARPS,
    Y_BOX,
    Roles,
    count_work,
    make_roles,
)
from gemm_lessons.tensor_map import Box
from gemm_lessons.tile_queue import most_tickets

launch = launch_parts

SIGNATURE = "void(uint8[:,::1], int32[::1], int32, int32, int32, float32[:,:,::1], uint16[:,::1], int32[::1])"

BK = BLOCK  # one block of scales, and one swizzled row, in a stage
BK_SHIFT = BK.bit_length() - 1
WARPGROUP_TOKENS, WARP_TOKENS = 64, 16  # rows of a wgmma: all, and those whose sums one warp holds
BOX_FEATURES = ROW_BYTES // 2  # of output, in a swizzled row
BOX_SUMS = BOX_FEATURES // 2  # that a thread holds of them: 64 x 64 over 128 threads
MOST_FEW_TOKENS = 128  # then two sets of 64 sums a thread
X_SCALES, W_SCALES = 4, 5  # rows of the tensor maps, after those of `hopper`


@dataclass(frozen=True)
class Config(hopper.Config):
    """Compile-time constants, those of `hopper` and one more.

    Attributes:
        BM: tokens of a full tile, 64 or 128 for each consumer warpgroup.
        BN: features of a tile, which share one scale of the weights.
        num_buffers: boxes of output, 16 tokens by 64 features, that each warp may have on their way.
        whole_rows: one scale for each row of x and of w, instead of one for each block.
        few_tokens: the consumers of `_few_tokens` multiply: BM, BN, box and num_buffers mean what they do in
            `hopper`.
    """

    BK: ClassVar[int] = BK

    num_stages: int = 3
    num_buffers: int = 4
    whole_rows: bool = False
    few_tokens: bool = False

    @property
    def num_consumers(self) -> int:
        """Consumer warpgroups: two, where there are tokens, or features, for two."""
        return super().num_consumers if self.few_tokens else min(self.BM // WARPGROUP_TOKENS, 2)

    @property
    def num_parts(self) -> int:
        """Parts of a tile: 64 tokens for each consumer, or all of the few."""
        return 1 if self.few_tokens else self.BM // (self.num_consumers * WARPGROUP_TOKENS)

    @property
    def arrivals(self) -> dict[str, int]:
        """How many arrivals end a phase of each barrier: the producer also brings a scale itself."""
        return super().arrivals | {"full": 2}

    @property
    def least_piece(self) -> int:
        """Tiles are cut into pieces of a multiple of so many tokens: those of a wgmma."""
        return super().least_piece if self.few_tokens else WARPGROUP_TOKENS

    @property
    def y_box(self) -> int:
        """Tokens of a box of output: those of a warp's sums, or of a warpgroup's store."""
        return self.box if self.few_tokens else WARP_TOKENS

    @property
    def buffer_bytes(self) -> int:
        """One box of output."""
        return self.y_box * ROW_BYTES

    @property
    def part_scales(self) -> int:
        """Scales that TMA fetches for a part: one for each token, and those that it cannot begin behind."""
        return self.BM // self.num_parts + SKEWS

    @property
    def scale_bytes(self) -> int:
        """Shared memory for them."""
        return ceil_div(self.part_scales * 4, ROW_BYTES) * ROW_BYTES

    @property
    def stage_scales(self) -> int:
        """Shared memory for a stage's scales of x."""
        return self.num_parts * self.scale_bytes

    @property
    def feature_bytes(self) -> int:
        """A tile's scales of whole rows of w, one float32 for each feature."""
        return self.BN * 4 if self.whole_rows else 0

    @property
    def places(self) -> tuple[int, int, int, int, int]:
        """Where output buffers, scales of x, of features, and of blocks of w begin in the ring; its end."""
        writers = self.num_consumers * (1 if self.few_tokens else WARPS)
        buffers = self.num_stages * self.stage_bytes
        scales = buffers + writers * self.num_buffers * self.buffer_bytes
        features = scales + self.num_stages * self.stage_scales
        weights = features + 2 * self.feature_bytes
        return buffers, scales, features, weights, weights + self.num_stages * WEIGHT_BYTES

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: the ring, the output buffers, the scales, and slack to align them."""
        return self.places[-1] + SWIZZLE_BYTES

    def check_problem(self, problem: GroupedProblem) -> None:
        """Check dtype, N and K.

        Raises:
            ConfigError: BM or box do not suit wgmma's rows.
            ProblemError: the step does not take them.
        """
        if not self.few_tokens and min(self.BM, self.box) < WARPGROUP_TOKENS:
            raise ConfigError(f"BM is {self.BM} and box is {self.box}: a wgmma multiplies 64 tokens")
        if self.few_tokens and self.BM > MOST_FEW_TOKENS:
            raise ConfigError(f"BM is {self.BM}: few tokens are {MOST_FEW_TOKENS} at most")
        if problem.dtype != "float8_e4m3fn":
            raise ProblemError(f"this step computes in float8_e4m3fn, and the problem is {problem.dtype}")
        tensor_map.check_alignment("K", problem.K, 1)
        tensor_map.check_alignment("N", problem.N, 2)
        tensor_map.check_rows(problem.num_groups * problem.N)


CONFIG = Config()
SIM_CONFIG = Config(BM=64, BN=64, num_stages=2, num_buffers=1, band=2)


def choose_config(problem: GroupedProblem) -> Config:
    """The tile for a problem, by the rule of `hopper.choose_config`: by the average number of tokens."""
    wanted = 2 * ceil_div(problem.total_tokens, problem.num_groups)
    if wanted <= 64:
        return Config(BM=64, box=16, num_stages=8, num_buffers=2, few_tokens=True)
    if wanted <= 128:
        return Config(BM=128, num_stages=5, num_buffers=2)
    return CONFIG


def make_produce(config: Config, roles: Roles) -> Any:
    """Make the producer: a device function for one thread."""
    STAGES, STAGE_BYTES, WHOLE_ROWS = config.num_stages, config.stage_bytes, config.whole_rows
    SCALE_BYTES, STAGE_SCALES, FEATURE_BYTES = config.scale_bytes, config.stage_scales, config.feature_bytes
    MOST_PARTS, PART_SCALES = config.num_parts, config.part_scales
    PART_TOKENS = config.BM // MOST_PARTS
    _, SCALES_AT, FEATURES_AT, WEIGHTS_AT, _ = config.places
    FULL, EMPTY, TILE_READY, TILE_WANTED = config.barriers
    wait, bytes_of, load = roles.wait, roles.bytes_of, roles.load

    @inlined
    def produce(s_tile, barriers, ring, maps, w_scales, N, num_k):
        """Keep the ring of stages full, scales among them; one thread."""
        for i in range(6 if WHOLE_ROWS else 5):
            prefetch_tensormap(address_of(maps, (i, 0)))
        stage, phase, tile_phase = int32(0), int32(0), int32(0)
        while True:
            wait(barriers + TILE_READY, tile_phase)
            group, row, rows, feature = s_tile[0], s_tile[1], s_tile[2], s_tile[3]
            if rows == 0:
                break
            weight = float32(1)
            if not WHOLE_ROWS:
                weight = w_scales[group, feature >> BK_SHIFT, 0]
            for k_tile in range(num_k):
                if k_tile == max(num_k - LOOKAHEAD, 0):
                    mbarrier_arrive(barriers + TILE_WANTED)
                num_bytes = int32(bytes_of(rows) + MOST_PARTS * PART_SCALES * 4)
                if WHOLE_ROWS and k_tile == 0:
                    num_bytes = int32(num_bytes + FEATURE_BYTES)
                wait(barriers + EMPTY + 8 * stage, phase ^ 1)
                full = uint32(barriers + FULL + 8 * stage)
                mbarrier_arrive_expect_tx(full, num_bytes)
                here, w_row = uint32(ring + stage * STAGE_BYTES), int32(group * N + feature)
                load(maps, here, full, k_tile * BK, row, rows, w_row)
                for i in range(MOST_PARTS):
                    scales = uint32(ring + SCALES_AT + stage * STAGE_SCALES + i * SCALE_BYTES)
                    first, block = (row & -SKEWS) + i * PART_TOKENS, 0 if WHOLE_ROWS else k_tile
                    tma_load_2d(scales, address_of(maps, (X_SCALES, 0)), first, block, full)
                if WHOLE_ROWS and k_tile == 0:
                    # why two sets, in turn: the consumers may still be storing the tile before.
                    features = uint32(ring + FEATURES_AT + tile_phase * FEATURE_BYTES)
                    tma_load_2d(features, address_of(maps, (W_SCALES, 0)), feature, group, full)
                # why last, and the next one a stage ahead: no copy should wait for a number from memory
                st_shared_f32(uint32(ring + WEIGHTS_AT + stage * WEIGHT_BYTES), weight)
                mbarrier_arrive(full)
                if not WHOLE_ROWS:
                    weight = w_scales[group, feature >> BK_SHIFT, min(k_tile + 1, num_k - 1)]
                stage = int32(stage + 1)
                if stage == STAGES:
                    stage, phase = int32(0), int32(phase ^ 1)
            tile_phase = int32(tile_phase ^ 1)

    return produce


def make_consume(config: Config, roles: Roles) -> Any:
    """Make the consumers: a device function for a warpgroup."""
    BM, BN, STAGES, BUFFERS = config.BM, config.BN, config.num_stages, config.num_buffers
    STAGE_BYTES, BUFFER_BYTES, SCALE_BYTES = config.stage_bytes, config.buffer_bytes, config.scale_bytes
    STAGE_SCALES, FEATURE_BYTES, WHOLE_ROWS = config.stage_scales, config.feature_bytes, config.whole_rows
    CONSUMERS, MOST_PARTS = config.num_consumers, config.num_parts
    BUFFERS_AT, SCALES_AT, FEATURES_AT, WEIGHTS_AT, _ = config.places
    X_BYTES = BM * ROW_BYTES
    PART = BN // 2  # partial sums: 64 x BN float32 over 128 threads
    NEXT_PART = CONSUMERS * WARPGROUP_TOKENS  # tokens from one part of a warpgroup to its next
    ACCUMULATORS = MOST_PARTS * PART
    BOXES = BN // BOX_FEATURES
    FULL, EMPTY, _, _ = config.barriers
    wait, take = roles.wait, roles.take
    wait_for_products, wait_for_stores = wgmma_wait[0], tma_store_wait[0]
    wait_for_buffer, wait_for_buffers = tma_store_wait_read[BUFFERS - 1], tma_store_wait_read[0]
    begin, add = wgmma_e4m3_begin[BN], wgmma_e4m3[BN]

    @inlined
    def start(part, x, w, again):
        """Start part = 64 tokens times the tile's features, over a stage."""
        wgmma_fence()
        if again:  # why not begin again: ptxas would take other registers for it, and spill
            add(part, x, w, 0)
        else:
            begin(part, x, w)
        add(part, x + uint64(STEP_K), w + uint64(STEP_K), 1)
        add(part, x + uint64(2 * STEP_K), w + uint64(2 * STEP_K), 1)
        add(part, x + uint64(3 * STEP_K), w + uint64(3 * STEP_K), 1)
        wgmma_commit()

    @inlined
    def promote(acc, part, at, upper, lower):
        """Move partial sums to float32, each row with its scale."""
        for i in range(0, PART, 4):
            acc[at + i] += upper * part[i]
            acc[at + i + 1] += upper * part[i + 1]
            acc[at + i + 2] += lower * part[i + 2]
            acc[at + i + 3] += lower * part[i + 3]

    def make_multiply(num_parts):
        @inlined
        def multiply(acc, part, barriers, ring, num_k, row, stage, phase):
            """Set acc to this warpgroup's parts of the tile, 64 tokens each, over all of K."""
            thread = int32(tid_x())  # why again: what is computed from it must not live longer than this loop
            first = int32((thread >> 7) * WARPGROUP_TOKENS)
            token = int32(first + ((thread >> 5) & 3) * WARP_TOKENS + ((thread & 31) >> 2))
            scales = uint32(ring + SCALES_AT + (token + (row & (SKEWS - 1))) * 4)
            for i in range(ACCUMULATORS):
                acc[i] = float32(0)
            left = num_k
            while left > 0:
                left = int32(left - 1)
                wait(barriers + FULL + 8 * stage, phase)
                tile, here = uint32(ring + stage * STAGE_BYTES), uint32(scales + stage * STAGE_SCALES)
                weight = float32(0)
                if num_parts > 0 and thread & 31 == 0:  # why one lane: who says that it has read it
                    weight = ld_shared_f32(uint32(ring + WEIGHTS_AT + stage * WEIGHT_BYTES))
                w = matrix_descriptor(tile + X_BYTES)
                for i in range(num_parts):
                    # why before the products: their issue should not wait for these numbers
                    upper = ld_shared_f32(here + i * SCALE_BYTES)
                    lower = ld_shared_f32(here + i * SCALE_BYTES + 32)  # eight tokens on
                    start(part, matrix_descriptor(tile + (first + i * NEXT_PART) * ROW_BYTES), w, i > 0)
                    if i == 0:  # why here: it takes its time while the tensor cores are busy
                        weight = cuda.shfl_sync(ALL_LANES, weight, 0)
                    upper, lower = weight * upper, weight * lower
                    wait_for_products()
                    if i == num_parts - 1:
                        cuda.syncwarp()  # why: the whole warp must have read its scales
                        if thread & 31 == 0:
                            mbarrier_arrive(barriers + EMPTY + 8 * stage)
                    promote(acc, part, i * PART, upper, lower)
                if num_parts == 0:
                    cuda.syncwarp()  # why: no lane may still wait for this phase when the next one ends
                    if thread & 31 == 0:
                        mbarrier_arrive(barriers + EMPTY + 8 * stage)
                stage = int32(stage + 1)
                if stage == STAGES:
                    stage, phase = int32(0), int32(phase ^ 1)
            return stage, phase

        return multiply

    multiply = one_of({parts: make_multiply(parts) for parts in range(MOST_PARTS, -1, -1)})

    @inlined
    def store(acc, at, features, buffers, y_map, y, row, rows, feature, N):
        """Write a warp's 16 tokens of one part to y, box by box, through shared memory; one warp."""
        lane = int32(tid_x() & 31)
        # Tiles 0 and 1 of a stmatrix are tokens 0 to 7 and 8 to 15, tiles 2 and 3 the next 8 features.
        token, piece = lane & 15, lane >> 4
        for box in range(BOXES):
            number = at // BOX_SUMS + box
            if number >= BUFFERS:
                if lane == 0:
                    wait_for_buffer()
                cuda.syncwarp()  # why: the copy engine has read what lay there before
            buffer = uint32(buffers + (number % BUFFERS) * BUFFER_BYTES)
            for pair in range(BOX_FEATURES // 16):
                first = at + box * BOX_SUMS + pair * 8
                a, b, c, d = float32(1), float32(1), float32(1), float32(1)
                if WHOLE_ROWS:
                    here = uint32(features + (box * BOX_FEATURES + pair * 16 + 2 * (lane & 3)) * 4)
                    a, b = ld_shared_f32(here), ld_shared_f32(here + 4)
                    c, d = ld_shared_f32(here + 32), ld_shared_f32(here + 36)
                stmatrix_x4(
                    uint32(buffer + token * ROW_BYTES + (((2 * pair + piece) ^ (token & 7)) * 16)),
                    pack_bf16(a * acc[first], b * acc[first + 1]),
                    pack_bf16(a * acc[first + 2], b * acc[first + 3]),
                    pack_bf16(c * acc[first + 4], d * acc[first + 5]),
                    pack_bf16(c * acc[first + 6], d * acc[first + 7]),
                )
            fence_proxy_async()
            cuda.syncwarp()
            column = int32(feature + box * BOX_FEATURES)
            if rows >= WARP_TOKENS:
                if lane == 0:
                    tma_store_2d(y_map, column, row, buffer)
            elif column + (lane & 7) * 8 < N:
                # why not TMA: it would write the whole box, over the next expert's rows.
                for one in range(lane >> 3, rows, 4):
                    e, f, g, h = ld_shared_v4(buffer + one * ROW_BYTES + ((lane ^ one) & 7) * 16)
                    st_global_v4(address_of(y, (row + one, column + (lane & 7) * 8)), e, f, g, h)
            if lane == 0:
                tma_store_commit()  # why also when TMA stores nothing: the wait counts empty groups, too

    @inlined
    def consume(s_tile, s_kept, barriers, ring, maps, y, N, K):
        """Multiply tiles and store them; one warpgroup."""
        acc = cuda.local.array(ACCUMULATORS, float32)
        part = cuda.local.array(PART, float32)
        stage, phase, tile_phase = int32(0), int32(0), int32(0)
        while True:
            row, rows, feature = take(s_tile, barriers, tile_phase)
            if rows == 0:
                break
            if tid_x() & 31 == 0:  # why into shared memory: the multiplication needs the registers
                s_kept[tid_x() >> 5, 0], s_kept[tid_x() >> 5, 1], s_kept[tid_x() >> 5, 2] = row, rows, feature
            # Of the tile's parts of 64 tokens, two warpgroups take turns.
            num_parts = int32(0)
            for i in range(MOST_PARTS):
                if rows > (tid_x() >> 7) * WARPGROUP_TOKENS + i * NEXT_PART:
                    num_parts = int32(i + 1)
            num_k = int32((late(K) + BK - 1) >> BK_SHIFT)
            stage, phase = multiply(num_parts, acc, part, barriers, ring, num_k, row, stage, phase)

            warp = int32(tid_x() >> 5)
            row, rows, feature = int32(0), int32(0), int32(0)
            if tid_x() & 31 == 0:
                row, rows, feature = s_kept[warp, 0], s_kept[warp, 1], s_kept[warp, 2]
                wait_for_buffers()
            first = int32((warp >> 2) * WARPGROUP_TOKENS + (warp & 3) * WARP_TOKENS)
            row = int32(cuda.shfl_sync(ALL_LANES, row, 0) + first)
            rows = int32(cuda.shfl_sync(ALL_LANES, rows, 0) - first)
            feature = cuda.shfl_sync(ALL_LANES, feature, 0)
            buffers = uint32(ring + BUFFERS_AT + warp * (BUFFERS * BUFFER_BYTES))
            features = uint32(ring + FEATURES_AT + tile_phase * FEATURE_BYTES)
            tile_phase = int32(tile_phase ^ 1)
            y_map = address_of(maps, (Y_BOX, 0))
            for i in range(MOST_PARTS):
                left = int32(rows - i * NEXT_PART)
                if left > 0:
                    store(acc, i * PART, features, buffers, y_map, y, row + i * NEXT_PART, left, feature, N)
        if tid_x() & 31 == 0:
            wait_for_stores()  # why: the block's shared memory is gone when it ends

    return consume


@cache
def make_kernel(config: Config) -> Any:
    """The kernel.

    Its arguments: tensor maps [5, 128], or six for whole rows, offsets [num_groups + 1], total_tokens, N, K,
    w_scales, y [total_tokens, N] as 16-bit words, and two counters that start at zero and are zero again when
    it ends.
    """
    CONSUMER_WARPS = config.num_consumers * WARPS
    PRODUCER_WARP, SCHEDULER_WARP = CONSUMER_WARPS, CONSUMER_WARPS + 1
    NUM_BARRIERS = 2 * config.num_stages + 2
    roles = make_roles(config)
    open_block, schedule, produce = roles.open_block, roles.schedule, make_produce(config, roles)
    consume = (_few_tokens.make_consume if config.few_tokens else make_consume)(config, roles)
    give_registers, take_registers = setmaxnreg_dec[PRODUCER_REGISTERS], setmaxnreg_inc[CONSUMER_REGISTERS]

    @whole_kernel(config.num_threads)
    def hopper_fp8_kernel(maps, offsets, total_tokens, N, K, w_scales, y, counters):
        s_tile = cuda.shared.array(4, int32)
        s_kept = cuda.shared.array((CONSUMER_WARPS, 3), int32)
        s_barriers = cuda.shared.array(NUM_BARRIERS, uint64)
        s_dynamic = cuda.shared.array(0, uint8)
        barriers = shared_address(s_barriers)
        ring = uint32((shared_address(s_dynamic) + SWIZZLE_BYTES - 1) & -SWIZZLE_BYTES)
        warp = int32(cuda.threadIdx.x >> 5)
        num_k = int32((K + BK - 1) >> BK_SHIFT)

        if cuda.threadIdx.x == 0:
            open_block(barriers, maps)
        cuda.syncthreads()

        if warp >= CONSUMER_WARPS:
            give_registers()
            if warp == SCHEDULER_WARP:
                schedule(s_tile, barriers, offsets, total_tokens, N, counters)
            elif warp == PRODUCER_WARP and cuda.threadIdx.x & 31 == 0:
                produce(s_tile, barriers, ring, maps, w_scales, N, num_k)
        else:
            take_registers()
            consume(s_tile, s_kept, barriers, ring, maps, y, N, K)

    return hopper_fp8_kernel


def bind(
    problem: GroupedProblem, config: Config, x: Quantized, w: Quantized, offsets: Any, y: Any
) -> dict[str, Launch]:
    """Prepare the launches for arrays that exist, by name: "turn", where it is needed, and "gemm".

    Args:
        problem: its N, K, num_groups and total_tokens; how tokens are routed is read from offsets, by
            every launch anew.
        config: compile-time constants that fit the problem; its `whole_rows` is set to what w is.
        x: e4m3 bits [total_tokens, K] on the device, and their scales; the caller keeps them alive, and w, y.
            Where they are not there turned, each call turns them.
        w: e4m3 bits [num_groups, N, K], and their scales.
        offsets: int32 device array [num_groups + 1].
        y: bfloat16 device array [total_tokens, N].
    """
    config = replace(config, whole_rows=w.block != WEIGHT_BLOCK)
    tickets = most_tickets(problem, config.BM, config.BN)
    if not tickets:
        return {}
    launches: dict[str, Launch] = {}
    turned = x.turned
    if turned is None:
        turned = cuda.device_array(turned_shape(x.scales.shape), np.float32)
        turn = prepare_turn(x.scales, turned)
        launches |= {"turn": turn} if turn else {}
    x_bits, w_bits = x.values.view(np.uint8), w.values.view(np.uint8)
    stacked = w_bits.reshape(problem.num_groups * problem.N, problem.K)
    boxes = [
        (x_bits, Box(config.BM)),
        (x_bits, Box(config.box)),
        (stacked, Box(config.BN)),
        (y, Box(config.y_box)),
        (turned, Box(1, config.part_scales)),
    ]
    if config.whole_rows:
        boxes.append((w.scales.reshape(problem.num_groups, problem.N), Box(1, config.BN)))
    sizes = (np.int32(problem.total_tokens), np.int32(problem.N), np.int32(problem.K))
    counters = to_device(np.zeros(2, np.int32))
    launches["gemm"] = Launch(
        make_kernel(config),
        min(device.choose().num_sms, tickets),
        config.num_threads,
        (tensor_map.encode(boxes), offsets, *sizes, w.scales, y.view(np.uint16), counters),
        shared_bytes=config.shared_bytes,
        keep_alive=(turned,),
    )
    return launches


def prepare(
    problem: GroupedProblem, config: Config | None = None, inputs: QuantizedInputs | None = None
) -> Prepared:
    """Encode the tensor maps and prepare the launch, with one before it if scales must be turned.

    Args:
        problem: what is computed; float8_e4m3fn, K a multiple of 16 and N of 8.
        config: compile-time constants; None takes what `choose_config` says, or `SIM_CONFIG`.
        inputs: values and scales, on the host or on the device, by blocks or by whole rows; None
            quantises random ones by blocks.

    Raises:
        ConfigError: the constants do not fit together.
        ProblemError: the step does not take this dtype, N or K, or inputs that do not match.
        LaunchError: the GPU has less shared memory than the configuration wants.
    """
    config, x, w = begin_quantized(problem, inputs, config, choose_config(problem), SIM_CONFIG)
    output, y = guarded_output(problem)
    parts = bind(problem, config, x, w, to_device(problem.offsets), y)
    work = count_work(problem, config, parts.get("gemm"), config.least_piece, BK)
    return Prepared(
        problem, config, parts, output, work, (config.BM, config.BN), (x, w), accumulator_bits=WGMMA_E4M3_BITS
    )
