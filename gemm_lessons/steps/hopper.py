"""Hopper's own way: a copy engine fills shared memory, tensor cores read it, and warps have roles.

Picture:
  one tile; the weights are the left operand, so a tile can be as narrow as its tokens
                      tokens, up to BM = 256                 block of 384 threads
                    +------------------------+     producer   one thread: asks TMA for stage after stage
          BN = 128  | acc of consumer 0   64 |     scheduler  one warp: takes tickets, hands tiles out
          features  | acc of consumer 1   64 |     consumers  2 x 128 threads: wgmma, then the epilogue
                    +------------------------+
    y[tokens, features] is the tile transposed; stmatrix.trans turns it on its way to shared memory.

What changed: wgmma reads both operands from shared memory, 64 x n x 16 at a time, so no thread spends
registers or instructions on loading. TMA brings a stage for two requests, one of w and one of x (a tail: one
for each box of tokens), and signals an mbarrier when its bytes have landed. After the start nobody calls
syncthreads: producer and consumers meet at barriers of their own, a ring of stages apart, and the next tile's
loads run while this tile is multiplied and stored. setmaxnreg moves registers from those who wait to those
who hold sums.

Why it should help: one instruction moves 32 KB, one multiplies 64 x 256 x 16; the rest is waiting, done by
threads that have nothing else to do. With the tokens on wgmma's n, an expert's last tile costs what its
tokens need, in steps of 16, where a tile with tokens on wgmma's 64 rows would compute up to 63 for nothing.
A tail needs all of an expert's weights, so it runs beside the tiles that read them anyway; those of
the last experts come last of all, for short tiles even out the finish (see `tile_queue`).

When it will not: few tokens. Then weights must be read for a handful of multiplications each, and the
only thing that counts is memory bandwidth; a narrow tile reads as fast as `decode` then, unless most SMs have
none.

What to measure: time over torch._grouped_mm in the same run; `num_stages` down to 2; `stealing` off; and
the same tokens spread evenly, to see what raggedness costs.

Role card
    barrier         a phase ends after                                 and then
    full[stage]     1 arrival (producer) + 128 bytes a row of x and w  consumers may read the stage
    empty[stage]    4 arrivals a consumer warpgroup (its warps)        the producer may overwrite it
    tile_ready      1 arrival (scheduler)                              s_tile names the next tile
    tile_wanted     1 (producer) + 4 a consumer warpgroup              the scheduler may overwrite s_tile

    scheduler    find 0 | wait          | find 1  | wait                    | find 2 ...
    producer     | load 0: stage 0 1 2 3 0 1 2 .. | load 1: stage 3 0 1 2 3 ...
    consumer 0        | multiply 0 .............. | store 0 | multiply 1 ..............
    consumer 1        | multiply 0 ................ | store 0 | multiply 1 ............
    The producer wants the next tile `LOOKAHEAD` stages before it needs it: late, so that a block which
    is behind takes no ticket too early, but early enough to hide the look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba import cuda, float32, int32, uint8, uint32, uint64

from gemm_lessons import device, tensor_map
from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.ptx.compiling import inlined, one_of, whole_kernel
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.matrix import pack_bf16, stmatrix_x4_trans
from gemm_lessons.ptx.mbarrier import (
    MOST_BYTES,
    fence_mbarrier_init,
    mbarrier_arrive,
    mbarrier_arrive_expect_tx,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import ld_shared_v4, shared_address, st_global_v4
from gemm_lessons.ptx.sync import bar_sync, fence_proxy_async, setmaxnreg_dec, setmaxnreg_inc
from gemm_lessons.ptx.tma import (
    fence_proxy_tensormap,
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
    wgmma_bf16,
    wgmma_commit,
    wgmma_fence,
    wgmma_wait,
)
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps._host import ConfigError, begin, require_power_of_two
from gemm_lessons.tensor_map import Box
from gemm_lessons.tile_queue import MEMORY, make_tile_queue, most_tickets

launch = launch_parts

SIGNATURE = "void(uint8[:,::1], int32[::1], int32, int32, int32, uint16[:,::1], int32[::1])"

ALL_LANES = 0xFFFFFFFF
WARPGROUP, WARPS = 128, 4  # threads and warps of a warpgroup
WARPGROUP_FEATURES = 64  # rows of one wgmma
ROW_BYTES = tensor_map.ROW_BYTES
BK = ROW_BYTES // 2  # bfloat16 in a swizzled row
STEP = 16  # wgmma's widths in use are multiples of this: stmatrix stores 16 tokens at a time
SWIZZLE_BYTES = 1024  # the swizzle repeats; tiles must start at a multiple of it
LOOKAHEAD = 8
# A block of 384 threads begins with 168 registers each; 128 sums do not fit beside the rest, so the
# producer's warpgroup gives up what consumers take: 128 * (56 + 2 * 224) = 64512 of 65536.
PRODUCER_REGISTERS, CONSUMER_REGISTERS = 56, 224
REGISTERS_PER_SM = 65536
X_TILE, X_BOX, W_TILE, Y_BOX = range(4)  # rows of the tensor maps


@dataclass(frozen=True)
class Config:
    """Compile-time constants.

    Attributes:
        BM: tokens of a full tile.
        BN: features of a tile, 64 for each consumer warpgroup.
        box: tokens that TMA moves at a time, where it does not move a full tile.
        num_stages: stages of the ring between producer and consumers.
        num_buffers: boxes of output that each consumer warpgroup may have on their way.
        band: token tiles in a band of the tile order.
        stealing: tickets come from a counter, not from the block's number.
    """

    BK: ClassVar[int] = BK  # values of x in a stage: a swizzled row of them

    BM: int = 256
    BN: int = 128
    box: int = 64
    num_stages: int = 4
    num_buffers: int = 2
    band: int = 8
    stealing: bool = True

    @property
    def num_consumers(self) -> int:
        """Consumer warpgroups."""
        return self.BN // WARPGROUP_FEATURES

    @property
    def num_threads(self) -> int:
        """Threads of a block: the consumers, and a warpgroup for producer and scheduler."""
        return (self.num_consumers + 1) * WARPGROUP

    @property
    def barriers(self) -> tuple[int, int, int, int]:
        """Where full[stage], empty[stage], tile_ready and tile_wanted lie, in bytes."""
        both = 16 * self.num_stages
        return 0, 8 * self.num_stages, both, both + 8

    @property
    def least_piece(self) -> int:
        """Tiles are cut into pieces of a multiple of so many tokens: what wgmma's width counts in."""
        return STEP

    @property
    def arrivals(self) -> dict[str, int]:
        """How many arrivals end a phase of each barrier: the role card's numbers."""
        consumer_warps = self.num_consumers * WARPS
        return {"full": 1, "empty": consumer_warps, "tile_ready": 1, "tile_wanted": 1 + consumer_warps}

    @property
    def stage_bytes(self) -> int:
        """One stage of the ring: BM rows of x, then BN rows of w."""
        return (self.BM + self.BN) * ROW_BYTES

    @property
    def buffer_bytes(self) -> int:
        """One box of output, as wide as a warpgroup's features."""
        return self.box * ROW_BYTES

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: the ring, the output buffers, and slack to align them."""
        buffers = self.num_consumers * self.num_buffers * self.buffer_bytes
        return self.num_stages * self.stage_bytes + buffers + SWIZZLE_BYTES

    def validate(self, problem: GroupedProblem) -> None:
        """Check the constants against each other, the problem and the device.

        Raises:
            ConfigError: the constants do not fit together.
            ProblemError: the step does not take this dtype, N or K.
        """
        require_power_of_two(BM=self.BM, box=self.box)
        if not STEP <= self.box <= self.BM <= tensor_map.MOST_BOX_ROWS:
            raise ConfigError(f"box is {self.box} and BM is {self.BM}: use {STEP} <= box <= BM <= 256")
        if self.BN not in (WARPGROUP_FEATURES, 2 * WARPGROUP_FEATURES):
            raise ConfigError(f"BN is {self.BN}: use 64 or 128")
        if self.num_stages < 2 or self.num_buffers < 1:
            raise ConfigError("a ring needs at least two stages, and the epilogue one buffer")
        if self.stage_bytes > MOST_BYTES:
            raise ConfigError(f"a stage of {self.stage_bytes} bytes is more than an mbarrier counts")
        registers = WARPGROUP * (PRODUCER_REGISTERS + self.num_consumers * CONSUMER_REGISTERS)
        if registers > REGISTERS_PER_SM:
            raise ConfigError(
                f"{registers} registers a block would be wanted, and an SM has {REGISTERS_PER_SM}"
            )
        major, minor = device.choose().compute_capability
        if major != 9:
            raise ProblemError(
                f"wgmma exists on compute capability 9.0 only, and this GPU has {major}.{minor}:"
                " use the step tensor_core"
            )
        self.check_problem(problem)

    def check_problem(self, problem: GroupedProblem) -> None:
        """Check dtype, N and K.

        Raises:
            ProblemError: the step does not take them.
        """
        if problem.dtype != "bfloat16":
            raise ProblemError(f"this step computes in bfloat16, and the problem is {problem.dtype}")
        tensor_map.check_alignment("K", problem.K, 2)
        tensor_map.check_alignment("N", problem.N, 2)
        tensor_map.check_rows(problem.num_groups * problem.N)


CONFIG = Config()
SIM_CONFIG = Config(BM=32, BN=64, box=16, num_stages=2, num_buffers=1, band=2)


def choose_config(problem: GroupedProblem) -> Config:
    """The tile for a problem: wide enough for an expert with twice the average number of tokens.

    An expert that fits into one tile has its weights read once.  A narrower tile leaves room for more
    stages, so for more bytes on their way, which is what a memory-bound problem needs; a small box moves few
    rows that the expert does not have.  The rule looks at the sum of the counts only, so that it holds for
    every routing that a replayed graph may bring.
    """
    wanted = 2 * ceil_div(problem.total_tokens, problem.num_groups)
    if wanted <= 64:
        return Config(BM=64, box=16, num_stages=8)
    if wanted <= 128:
        return Config(BM=128, num_stages=6)
    return CONFIG


def make_store(config: Config) -> Any:
    """The epilogue: a device function that a consumer warpgroup calls with its finished accumulators.

    Its arguments: accumulators, the block's output buffers, the tensor map of y, y as 16-bit words, the
    tile's first row, its rows, its first feature, and N.
    """
    BM, BOX, BUFFERS = config.BM, config.box, config.num_buffers
    BUFFER_BYTES = config.buffer_bytes
    wait_for_buffer, wait_for_buffers = tma_store_wait_read[BUFFERS - 1], tma_store_wait_read[0]

    @inlined
    def store(acc, block_buffers, y_map, y, row, rows, tile_feature, N):
        """Write a warpgroup's accumulators to y, box by box, through shared memory."""
        thread = int32(cuda.threadIdx.x & 127)
        lane, warp = thread & 31, thread >> 5
        warpgroup = int32(cuda.threadIdx.x >> 7)
        buffers = uint32(block_buffers + warpgroup * (BUFFERS * BUFFER_BYTES))
        feature = int32(tile_feature + warpgroup * WARPGROUP_FEATURES)
        barrier = 1 + warpgroup  # a named barrier for each consumer warpgroup
        # Where this lane's row of 8 features begins in the first 16 tokens of a box: tiles 0 and 1 of a
        # stmatrix are the warp's features 0 to 7 and 8 to 15, tiles 2 and 3 the same of 8 tokens later.
        token = (lane & 7) + (lane >> 4) * 8
        piece = warp * 2 + ((lane >> 3) & 1)
        cell = uint32(token * ROW_BYTES + (piece ^ (lane & 7)) * 16)  # 128-byte swizzle
        if thread == 0:
            wait_for_buffers()
        bar_sync(barrier, WARPGROUP)
        for box in range(BM // BOX):
            left = int32(rows - box * BOX)
            if left > 0:
                if box >= BUFFERS:
                    if thread == 0:
                        wait_for_buffer()
                    bar_sync(barrier, WARPGROUP)  # why: the copy engine has read what lay there before
                buffer = uint32(buffers + (box % BUFFERS) * BUFFER_BYTES)
                for part in range(BOX // STEP):
                    if part * STEP < left:
                        first = box * (BOX // 2) + part * (STEP // 2)  # a thread has half a sum a token
                        stmatrix_x4_trans(
                            buffer + cell + part * (STEP * ROW_BYTES),
                            pack_bf16(acc[first], acc[first + 1]),
                            pack_bf16(acc[first + 2], acc[first + 3]),
                            pack_bf16(acc[first + 4], acc[first + 5]),
                            pack_bf16(acc[first + 6], acc[first + 7]),
                        )
                fence_proxy_async()
                bar_sync(barrier, WARPGROUP)
                if left >= BOX:
                    if thread == 0:
                        tma_store_2d(y_map, feature, row + box * BOX, buffer)
                        tma_store_commit()
                elif feature + (thread & 7) * 8 < N:
                    # why not TMA: it would write the whole box, over the next expert's rows.
                    for token in range(thread >> 3, left, WARPGROUP // 8):
                        a, b, c, d = ld_shared_v4(buffer + token * ROW_BYTES + ((thread ^ token) & 7) * 16)
                        column = feature + (thread & 7) * 8
                        st_global_v4(address_of(y, (row + box * BOX + token, column)), a, b, c, d)

    return store


class Roles(NamedTuple):
    """Device functions of all roles but the consumers.

    Attributes:
        open_block: (barriers, maps), for one thread before a block barrier.
        wait: (barrier, parity).
        take: (s_tile, barriers, parity), a tile's first row, rows and first feature, for a whole warp.
        schedule: a role.
        bytes_of: (rows of a tile), what lands in each of its stages.
        load: asks for them; `produce` says with what.
        produce: a role.
    """

    open_block: Any
    wait: Any
    take: Any
    schedule: Any
    bytes_of: Any
    load: Any
    produce: Any


def make_roles(config: Config) -> Roles:
    """Make the device functions of all roles but the consumers."""
    BM, BN, BK, BOX, STAGES = config.BM, config.BN, config.BK, config.box, config.num_stages
    STEALING, STAGE_BYTES, BOX_BYTES = config.stealing, config.stage_bytes, BOX * ROW_BYTES
    X_BYTES, W_BYTES = BM * ROW_BYTES, BN * ROW_BYTES
    FULL, EMPTY, TILE_READY, TILE_WANTED = config.barriers
    full_arrivals, empty_arrivals = config.arrivals["full"], config.arrivals["empty"]
    ready_arrivals, wanted_arrivals = config.arrivals["tile_ready"], config.arrivals["tile_wanted"]
    open_queue, find_tile = make_tile_queue(BM, BN, config.band, config.least_piece)

    @inlined
    def open_block(barriers, maps):
        for i in range(maps.shape[0]):
            fence_proxy_tensormap(address_of(maps, (i, 0)))
        for stage in range(STAGES):
            mbarrier_init(barriers + FULL + 8 * stage, full_arrivals)
            mbarrier_init(barriers + EMPTY + 8 * stage, empty_arrivals)
        mbarrier_init(barriers + TILE_READY, ready_arrivals)
        mbarrier_init(barriers + TILE_WANTED, wanted_arrivals)
        fence_mbarrier_init()

    @inlined
    def wait(barrier, parity):
        while mbarrier_try_wait(barrier, parity) == 0:
            pass

    @inlined
    def take(s_tile, barriers, parity):
        wait(barriers + TILE_READY, parity)
        row, rows, feature = int32(0), int32(0), int32(0)
        if cuda.threadIdx.x & 31 == 0:  # why one lane: who reads s_tile says itself that it has
            row, rows, feature = s_tile[1], s_tile[2], s_tile[3]
            mbarrier_arrive(barriers + TILE_WANTED)
        row, rows = cuda.shfl_sync(ALL_LANES, row, 0), cuda.shfl_sync(ALL_LANES, rows, 0)
        return row, rows, cuda.shfl_sync(ALL_LANES, feature, 0)

    @inlined
    def schedule(s_tile, barriers, offsets, total_tokens, N, counters):
        """Take tickets and hand out their tiles, until there are none; one warp."""
        lane = int32(cuda.threadIdx.x & 31)
        memory = cuda.local.array(MEMORY, int32)
        num_blocks = int32(cuda.gridDim.x)
        tiles_n = int32((N + BN - 1) // BN)
        open_queue(memory, offsets, total_tokens, tiles_n, num_blocks)
        ticket = int32(cuda.blockIdx.x)
        parity = 1  # why 1: nobody reads s_tile yet, and a wait for parity 1 on a fresh barrier passes
        while True:
            group, row, rows, feature = find_tile(memory, offsets, total_tokens, tiles_n, ticket)
            wait(barriers + TILE_WANTED, parity)
            parity ^= 1
            if lane == 0:
                s_tile[0], s_tile[1], s_tile[2], s_tile[3] = group, row, rows, feature
                mbarrier_arrive(barriers + TILE_READY)
            if rows == 0:
                break
            if STEALING:
                # why wait before drawing: who draws early holds a tile that a faster block could have begun.
                wait(barriers + TILE_WANTED, parity)
                taken = int32(0)
                if lane == 0:
                    taken = cuda.atomic.add(counters, 0, 1)
                ticket = int32(num_blocks + cuda.shfl_sync(ALL_LANES, taken, 0))
            else:
                ticket = int32(ticket + num_blocks)
        if STEALING and lane == 0:
            cuda.threadfence()  # why: the last ticket must be taken before this block counts as finished
            if cuda.atomic.add(counters, 1, 1) == num_blocks - 1:
                cuda.atomic.exch(counters, 0, 0)
                cuda.atomic.exch(counters, 1, 0)

    @inlined
    def bytes_of(rows):
        """How many bytes land in a stage of a tile with so many tokens."""
        return W_BYTES + int32((rows + BOX - 1) // BOX) * BOX_BYTES

    @inlined
    def load(maps, stage, full, column, row, rows, w_row):
        """Ask for a stage of x and w, from a column on; one thread."""
        tma_load_2d(stage + X_BYTES, address_of(maps, (W_TILE, 0)), column, w_row, full)
        if rows == BM:
            tma_load_2d(stage, address_of(maps, (X_TILE, 0)), column, row, full)
        else:
            for first in range(0, rows, BOX):
                x_box = uint32(stage + first * ROW_BYTES)
                tma_load_2d(x_box, address_of(maps, (X_BOX, 0)), column, row + first, full)

    @inlined
    def produce(s_tile, barriers, ring, maps, N, num_k):
        """Keep the ring of stages full; one thread."""
        for i in range(4):
            prefetch_tensormap(address_of(maps, (i, 0)))
        stage, phase, tile_phase = 0, 0, 0
        while True:
            wait(barriers + TILE_READY, tile_phase)
            tile_phase ^= 1
            group, row, rows, feature = s_tile[0], s_tile[1], s_tile[2], s_tile[3]
            if rows == 0:
                break
            for k_tile in range(num_k):
                if k_tile == max(num_k - LOOKAHEAD, 0):
                    mbarrier_arrive(barriers + TILE_WANTED)
                wait(barriers + EMPTY + 8 * stage, phase ^ 1)
                full = uint32(barriers + FULL + 8 * stage)
                mbarrier_arrive_expect_tx(full, bytes_of(rows))
                here, w_row = uint32(ring + stage * STAGE_BYTES), int32(group * N + feature)
                load(maps, here, full, k_tile * BK, row, rows, w_row)
                stage += 1
                if stage == STAGES:
                    stage, phase = 0, phase ^ 1

    return Roles(open_block, wait, take, schedule, bytes_of, load, produce)


@cache
def make_kernel(config: Config, epilogue: Callable[[Config], Any] = make_store) -> Any:
    """The kernel, and its consumers.

    Its arguments: tensor maps [4, 128], offsets [num_groups + 1], total_tokens, N, K, y [total_tokens, N]
    as 16-bit words, and two counters that start at zero and are zero again when it ends.  epilogue makes
    the function that writes a finished tile; `make_store` says what it is called with.
    """
    BM, STAGES, STAGE_BYTES = config.BM, config.num_stages, config.stage_bytes
    X_BYTES, W_PART_BYTES = BM * ROW_BYTES, WARPGROUP_FEATURES * ROW_BYTES
    ACCUMULATORS = BM // 2  # 64 x BM float32 over 128 threads
    NUM_BARRIERS = 2 * STAGES + 2
    FULL, EMPTY, _, _ = config.barriers
    CONSUMER_WARPS = config.num_consumers * WARPS
    PRODUCER_WARP, SCHEDULER_WARP = CONSUMER_WARPS, CONSUMER_WARPS + 1
    open_block, wait, take, schedule, _, _, produce = make_roles(config)
    give_registers, take_registers = setmaxnreg_dec[PRODUCER_REGISTERS], setmaxnreg_inc[CONSUMER_REGISTERS]
    wait_for_products, wait_for_stores = wgmma_wait[0], tma_store_wait[0]
    store = epilogue(config)

    def make_multiply(num_tokens):
        wgmma = wgmma_bf16[num_tokens]

        @inlined
        def multiply(acc, barriers, ring, w_part, num_k, stage, phase):
            """Set acc to this warpgroup's 64 features times num_tokens tokens, over all of K."""
            for k_tile in range(num_k):
                wait(barriers + FULL + 8 * stage, phase)
                tile = ring + stage * STAGE_BYTES
                x, w = matrix_descriptor(tile), matrix_descriptor(tile + w_part)
                wgmma_fence()
                wgmma(acc, w, x, k_tile)  # why k_tile: 0 starts a new sum
                wgmma(acc, w + uint64(STEP_K), x + uint64(STEP_K), 1)  # 16 of K, in the descriptor's units
                wgmma(acc, w + uint64(2 * STEP_K), x + uint64(2 * STEP_K), 1)
                wgmma(acc, w + uint64(3 * STEP_K), x + uint64(3 * STEP_K), 1)
                wgmma_commit()
                wait_for_products()
                if cuda.threadIdx.x & 31 == 0:
                    mbarrier_arrive(barriers + EMPTY + 8 * stage)
                stage += 1
                if stage == STAGES:
                    stage, phase = 0, phase ^ 1
            return stage, phase

        return multiply

    # wgmma's n is part of its name, so there is one copy of the loop for each width.
    multiply = one_of({n // STEP: make_multiply(n) for n in range(BM, 0, -STEP)})

    @inlined
    def consume(s_tile, barriers, ring, maps, y, N, num_k):
        """Multiply tiles and store them; one warpgroup."""
        warpgroup = int32(cuda.threadIdx.x >> 7)
        acc = cuda.local.array(ACCUMULATORS, float32)
        buffers = uint32(ring + STAGES * STAGE_BYTES)
        w_part = X_BYTES + warpgroup * W_PART_BYTES
        y_map = address_of(maps, (Y_BOX, 0))
        stage, phase, tile_phase = 0, 0, 0
        while True:
            row, rows, feature = take(s_tile, barriers, tile_phase)
            tile_phase ^= 1
            if rows == 0:
                break
            num_steps = int32((rows + STEP - 1) // STEP)
            stage, phase = multiply(num_steps, acc, barriers, ring, w_part, num_k, stage, phase)
            store(acc, buffers, y_map, y, row, rows, feature, N)
        if cuda.threadIdx.x & 127 == 0:
            wait_for_stores()  # why: the block's shared memory is gone when it ends

    @whole_kernel(config.num_threads)
    def hopper_kernel(maps, offsets, total_tokens, N, K, y, counters):
        s_tile = cuda.shared.array(4, int32)
        s_barriers = cuda.shared.array(NUM_BARRIERS, uint64)
        s_dynamic = cuda.shared.array(0, uint8)
        barriers = shared_address(s_barriers)
        ring = uint32((shared_address(s_dynamic) + SWIZZLE_BYTES - 1) & -SWIZZLE_BYTES)
        warp = int32(cuda.threadIdx.x >> 5)
        num_k = int32((K + BK - 1) // BK)

        if cuda.threadIdx.x == 0:
            open_block(barriers, maps)
        cuda.syncthreads()

        if warp >= CONSUMER_WARPS:
            give_registers()
            if warp == SCHEDULER_WARP:
                schedule(s_tile, barriers, offsets, total_tokens, N, counters)
            elif warp == PRODUCER_WARP and cuda.threadIdx.x & 31 == 0:
                produce(s_tile, barriers, ring, maps, N, num_k)
        else:
            take_registers()
            consume(s_tile, barriers, ring, maps, y, N, num_k)

    return hopper_kernel


def bind(
    problem: GroupedProblem,
    config: Config,
    x: Any,
    w: Any,
    offsets: Any,
    y: Any,
    epilogue: Callable[[Config], Any] = make_store,
) -> Launch | None:
    """Prepare the launch for arrays that exist; None if there is nothing to do.

    Args:
        problem: its N, K, num_groups and total_tokens; how tokens are routed is read from offsets, by
            every launch anew.
        config: compile-time constants that fit the problem.
        x: device array [total_tokens, K]; the caller keeps it alive, and w and y.
        w: device array [num_groups, N, K].
        offsets: int32 device array [num_groups + 1].
        y: device array [total_tokens, N], or what the epilogue makes of it.
        epilogue: what makes the function that writes a finished tile.
    """
    tickets = most_tickets(problem, config.BM, config.BN)
    if not tickets:
        return None
    stacked = w.reshape(problem.num_groups * problem.N, problem.K)
    boxes = (x, config.BM), (x, config.box), (stacked, config.BN), (y, config.box)
    maps = tensor_map.encode([(matrix, Box(rows)) for matrix, rows in boxes])
    sizes = (np.int32(problem.total_tokens), np.int32(problem.N), np.int32(problem.K))
    counters = to_device(np.zeros(2, np.int32))
    return Launch(
        make_kernel(config, epilogue),
        min(device.choose().num_sms, tickets),
        config.num_threads,
        (maps, offsets, *sizes, y.view(np.uint16), counters),
        shared_bytes=config.shared_bytes,
    )


def count_work(problem: GroupedProblem, config: Config, gemm: Launch | None, step: int, BK: int) -> Work:
    """What a launch does: tokens count in multiples of step, features and K in whole tiles and slabs."""
    tiles_n = ceil_div(problem.N, config.BN)
    tokens = sum(ceil_div(count, step) * step for count in problem.counts)
    return Work(
        launches=1 if gemm else 0,
        blocks=gemm.num_blocks if gemm else 0,
        tiles=sum(ceil_div(count, config.BM) for count in problem.counts) * tiles_n,
        flops=2 * tokens * tiles_n * config.BN * ceil_div(problem.K, BK) * BK,
    )


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Encode the tensor maps and prepare the only launch.

    Args:
        problem: what is computed; bfloat16, N and K multiples of 8.
        config: compile-time constants; None takes what `choose_config` says, or `SIM_CONFIG`.
        inputs: host or device arrays; None draws random ones.

    Raises:
        ConfigError: the constants do not fit together.
        ProblemError: the step does not take this dtype, N or K.
        LaunchError: the GPU has less shared memory than the configuration wants.
    """
    config, x, w = begin(problem, inputs, config, choose_config(problem), SIM_CONFIG)
    output, y = guarded_output(problem)
    # why make_store by name: a notebook may have put its own in its place, which bind's default would not see
    gemm = bind(problem, config, x, w, to_device(problem.offsets), y, make_store)
    work = count_work(problem, config, gemm, STEP, BK)
    parts = {"gemm": gemm} if gemm else {}
    return Prepared(problem, config, parts, output, work, (config.BM, config.BN), (x, w))
