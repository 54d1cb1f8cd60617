"""Tensor cores by the warp: mma.sync from shared memory, slabs that arrive while others are multiplied.

Picture:
    global  x, w  --- cp.async, 16 bytes a thread --->  shared  ring of slabs     s_x [BM, BK], s_w [BN, BK]
    shared  slab  --- ldmatrix, four 8 x 8 tiles ---->  registers of a warp       r_x, r_w
    registers     --- mma.sync 16 x 8 x 16 ---------->  registers of a warp       r_acc [WM, WN]

    pieces of 16 bytes, swizzled: of four in a row r, piece p lies at p ^ (r / 2 % 4), so that the eight rows
    of an 8 x 8 tile lie in different banks       row 0 | 0 1 2 3 |  row 2 | 1 0 3 2 |  row 4 | 2 3 0 1 | ...

What changed: inputs are float16 or bfloat16, and one instruction of a whole warp does 16 x 8 x 16
multiply-adds, its operands spread over the lanes as `ptx.matrix` draws them. Slabs keep K running fastest,
for that is what ldmatrix wants. Copies are asynchronous and go past the registers (compute capability 8.0
on), so several slabs are on their way at once; before, the next slab waits in registers, as in `tiled`.
From shared memory to registers it is the same once more: two sets of operands take turns, and while one step
of 16 of K is multiplied, the next one's are fetched, past the end of a slab, too.

Why it should help: tensor cores multiply 16 times as fast as float32 units, and half the bytes are moved.

When it will not: a GPU from Hopper on. mma.sync reaches about two thirds of its tensor cores, since every
operand passes through registers; and a tile of 128 tokens is mostly empty for a handful of them.

What to measure: TFLOP/s over those of a loop of mma.sync on registers alone; num_stages of 2, 3 and 4; and
one set of operands instead of two (S x64 on an H200: 1492 us instead of 1306).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, int32, int64, uint8, uint32

from gemm_lessons import device
from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.cp_async import cp_async_16, cp_async_commit, cp_async_wait
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.matrix import ldmatrix_x4, mma_m16n8k8, mma_m16n8k16, pack
from gemm_lessons.ptx.shared import ld_global_v4, shared_address, st_global_u32, st_shared_v4
from gemm_lessons.schedule import ceil_div, count_tiles, find_tile
from gemm_lessons.steps._host import (
    ConfigError,
    begin,
    require_aligned,
    require_block_size,
    require_power_of_two,
)

launch = launch_parts

SIGNATURE = "void(uint16[:, ::1], uint16[:, :, ::1], int32[::1], int32[::1], uint16[:, ::1])"

PIECE = 8  # 16-bit values in 16 bytes
PIECE_BYTES = 16
MMA_M, MMA_N, MMA_K = 16, 8, 16
WARP = 32


@dataclass(frozen=True)
class Config:
    """Compile-time constants.

    Attributes:
        BM, BN: block tile, tokens and features.
        BK: K of a slab, 32 or 64.
        WM, WN: warp tile.
        num_stages: slabs in shared memory.
        band: token tiles that run side by side, for the L2 cache; see `schedule.find_tile`.
        dtype: of x, w and y: float16 or bfloat16.
        async_copies: cp.async, or through registers.
        turing: two m16n8k8 instead of one m16n8k16.
        blocks_per_sm: how many blocks registers are rationed for.
    """

    BM: int = 128
    BN: int = 128
    BK: int = 32
    WM: int = 64
    WN: int = 64
    num_stages: int = 4
    band: int = 8
    dtype: str = "bfloat16"
    async_copies: bool = True
    turing: bool = False
    blocks_per_sm: int = 2

    @property
    def num_threads(self) -> int:
        """Threads of a block: a warp for each warp tile."""
        return (self.BM // self.WM) * (self.BN // self.WN) * WARP

    @property
    def pieces(self) -> int:
        """Pieces of 16 bytes in a row of a slab."""
        return self.BK // PIECE

    @property
    def stage_bytes(self) -> int:
        """One slab of x and one of w."""
        return (self.BM + self.BN) * self.pieces * PIECE_BYTES

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory."""
        return self.num_stages * self.stage_bytes

    def validate(self, problem: GroupedProblem) -> None:
        """Check the constants against each other and the problem.

        Raises:
            ConfigError: the constants do not fit together.
            ProblemError: the step does not take this dtype, N or K.
        """
        require_power_of_two(BM=self.BM, BN=self.BN, WM=self.WM, WN=self.WN, band=self.band)
        if not (MMA_M <= self.WM <= self.BM and 2 * MMA_N <= self.WN <= self.BN):
            raise ConfigError(f"a warp tile of {self.WM} x {self.WN} does not fit: use 16 x 16 to BM x BN")
        if self.BK not in (32, 64):
            raise ConfigError(f"BK is {self.BK}: use 32 or 64")
        require_block_size(self.num_threads)
        for name, rows in (("BM", self.BM), ("BN", self.BN)):
            if rows * self.pieces % self.num_threads:
                raise ConfigError(
                    f"{name} is {rows}: {self.num_threads} threads cannot share its pieces evenly"
                )
        if self.num_threads // self.pieces % 8:
            raise ConfigError(
                f"{self.num_threads} threads copy {self.pieces} pieces a row: use a multiple of"
                f" {8 * self.pieces}, so that all pieces of a thread are swizzled alike"
            )
        if self.num_stages != 2 and not (self.async_copies and self.num_stages in (3, 4)):
            raise ConfigError("use 2 to 4 stages with asynchronous copies, and 2 without")
        if problem.dtype not in ("float16", "bfloat16"):
            raise ProblemError(
                f"this step computes in float16 and bfloat16, and the problem is {problem.dtype}"
            )
        if device.choose().compute_capability < (8, 0) and not (self.turing and not self.async_copies):
            raise ConfigError("asynchronous copies and m16n8k16 need compute capability 8.0: use TURING")
        if self.turing and problem.dtype != "float16":
            raise ProblemError("tensor cores know bfloat16 from compute capability 8.0 on: use float16")
        if problem.K % PIECE:
            raise ProblemError(
                f"K is {problem.K}: rows are copied in pieces of 16 bytes, so K must be a multiple of"
                f" {PIECE}; pad it to {ceil_div(problem.K, PIECE) * PIECE}"
            )
        if problem.N % 2:
            raise ProblemError(f"N is {problem.N}: outputs are written in pairs, so N must be even")


CONFIG = Config()
TURING = Config(WN=32, dtype="float16", async_copies=False, turing=True, num_stages=2, blocks_per_sm=1)
SIM_CONFIG = Config(BM=32, BN=32, WM=16, WN=16, num_stages=3, band=2, blocks_per_sm=1)


@cache
def make_kernel(config: Config) -> Any:
    """The kernel: x [total_tokens, K], w [num_groups, N, K] and y [total_tokens, N] as 16-bit words.

    offsets and tile_offsets are exclusive prefix sums of each expert's tokens and tiles.
    """
    BM, BN, BK, WM, WN, band = config.BM, config.BN, config.BK, config.WM, config.WN, config.band
    STAGES, THREADS, ASYNC, TURING = config.num_stages, config.num_threads, config.async_copies, config.turing
    PIECES, ROW_BYTES = config.pieces, config.pieces * PIECE_BYTES
    ROWS_IN_128_BYTES = 8 // PIECES  # they share a swizzle: together they fill all banks
    STAGE_BYTES, X_BYTES = config.stage_bytes, BM * ROW_BYTES
    X_PIECES, W_PIECES = BM * PIECES // THREADS, BN * PIECES // THREADS  # a thread's, of a slab
    ROWS_APART = THREADS // PIECES  # from one piece of a thread to its next, in the same column
    SLAB_BYTES = BK * 2  # of a row
    K_STEPS = BK // MMA_K  # an even number, so that two sets of registers take turns beyond a slab
    TILES_M, TILES_N = WM // MMA_M, WN // MMA_N  # of a warp
    NUM_ACC = TILES_M * TILES_N * 4
    WARPS_N = BN // WN
    mma_16 = mma_m16n8k16[config.dtype]
    mma_8 = mma_m16n8k8["float16"]
    pack_pair = pack[config.dtype]
    wait_for_slab = cp_async_wait[STAGES - 2]

    @inlined
    def piece_at(row, piece):
        """Where a piece of a row of a slab lies, in bytes."""
        return row * ROW_BYTES + (piece ^ (row // ROWS_IN_128_BYTES & PIECES - 1)) * PIECE_BYTES

    @inlined
    def aim(matrix, first_row, last_row):
        """Address of this thread's first piece, and how many rows there are from its row on."""
        row, piece = cuda.threadIdx.x // PIECES, cuda.threadIdx.x % PIECES
        source = address_of(matrix, (first_row + row, piece * PIECE))
        return int64(source), int32(last_row - first_row - row)

    def make_copies(num_pieces):
        @inlined
        def start_copy(source, rows, step, inside, target):
            """Start copying a slab, or zeros beyond the rows and K."""
            for i in range(num_pieces):
                size = PIECE_BYTES if inside and i * ROWS_APART < rows else 0
                cp_async_16(uint32(target + i * (ROWS_APART * ROW_BYTES)), int64(source + i * step), size)

        @inlined
        def fetch(source, rows, step, inside, r_next):
            """Bring a slab's pieces into registers."""
            for i in range(num_pieces):
                there = inside and i * ROWS_APART < rows
                r_next[i, 0], r_next[i, 1], r_next[i, 2], r_next[i, 3] = ld_global_v4(
                    int64(source + i * step), there
                )

        @inlined
        def keep(r_next, target):
            """Write the fetched pieces to shared memory."""
            for i in range(num_pieces):
                at = uint32(target + i * (ROWS_APART * ROW_BYTES))
                st_shared_v4(at, r_next[i, 0], r_next[i, 1], r_next[i, 2], r_next[i, 3])

        return start_copy, fetch, keep

    start_x, fetch_x, keep_x = make_copies(X_PIECES)
    start_w, fetch_w, keep_w = make_copies(W_PIECES)

    @inlined
    def load(slab, k_step, warp_m, warp_n, r_x, r_w):
        """Bring the warp's operands of one step of 16 of K into the registers whose turn it is."""
        lane, turn = cuda.threadIdx.x & 31, k_step % 2
        for i in range(TILES_M):  # lanes 0 to 15 name the rows of k 0 to 7, the others of k 8 to 15
            row = warp_m + i * MMA_M + (lane & 15)
            at = slab + piece_at(row, k_step * 2 + (lane >> 4))
            r_x[turn, i, 0], r_x[turn, i, 1], r_x[turn, i, 2], r_x[turn, i, 3] = ldmatrix_x4(at)
        for j in range(0, TILES_N, 2):  # two tiles of 8 features, each of k 0 to 7 and 8 to 15
            row = warp_n + j * MMA_N + (lane & 7) + (lane >> 4) * 8
            at = slab + X_BYTES + piece_at(row, k_step * 2 + (lane >> 3 & 1))
            r_w[turn, j, 0], r_w[turn, j, 1], r_w[turn, j + 1, 0], r_w[turn, j + 1, 1] = ldmatrix_x4(at)

    @inlined
    def multiply(k_step, r_x, r_w, r_acc):
        """Add the products of one step to the warp's tile."""
        turn = k_step % 2
        for i in range(TILES_M):
            a0, a1, a2, a3 = r_x[turn, i, 0], r_x[turn, i, 1], r_x[turn, i, 2], r_x[turn, i, 3]
            for j in range(TILES_N):
                b0, b1 = r_w[turn, j, 0], r_w[turn, j, 1]
                c = (i * TILES_N + j) * 4
                d0, d1, d2, d3 = r_acc[c], r_acc[c + 1], r_acc[c + 2], r_acc[c + 3]
                if TURING:
                    d0, d1, d2, d3 = mma_8(a0, a1, b0, d0, d1, d2, d3)
                    d0, d1, d2, d3 = mma_8(a2, a3, b1, d0, d1, d2, d3)
                else:
                    d0, d1, d2, d3 = mma_16(a0, a1, a2, a3, b0, b1, d0, d1, d2, d3)
                r_acc[c], r_acc[c + 1], r_acc[c + 2], r_acc[c + 3] = d0, d1, d2, d3

    @inlined
    def store(y, first_row, last_row, first_col, r_acc):
        """Write the warp's tile, in pairs of neighbouring features, where it lies inside y."""
        lane = cuda.threadIdx.x & 31
        for i in range(TILES_M):
            for j in range(TILES_N):
                for half in range(2):
                    row = first_row + i * MMA_M + half * 8 + (lane >> 2)
                    col = first_col + j * MMA_N + (lane & 3) * 2
                    if row < last_row and col < y.shape[1]:
                        c = (i * TILES_N + j) * 4 + half * 2
                        st_global_u32(address_of(y, (row, col)), pack_pair(r_acc[c], r_acc[c + 1]))

    @cuda.jit(launch_bounds=(THREADS, config.blocks_per_sm))
    def tensor_core_kernel(x, w, offsets, tile_offsets, y):
        s_slabs = cuda.shared.array(0, uint8)
        r_x = cuda.local.array((2, TILES_M, 4), uint32)
        r_w = cuda.local.array((2, TILES_N, 2), uint32)
        r_acc = cuda.local.array(NUM_ACC, float32)
        slabs = shared_address(s_slabs)
        warp = cuda.threadIdx.x >> 5
        warp_m, warp_n = warp // WARPS_N * WM, warp % WARPS_N * WN
        tiles_n = (w.shape[1] + BN - 1) // BN
        group, tile_m, tile_n = find_tile(tile_offsets, cuda.blockIdx.x, tiles_n, band)
        first_row, last_row = offsets[group] + tile_m * BM, offsets[group + 1]
        first_col, num_features = tile_n * BN, w.shape[1]
        num_slabs = int32((x.shape[1] + BK - 1) // BK)
        for c in range(NUM_ACC):
            r_acc[c] = float32(0.0)
        # What a thread copies of each slab: pieces of one column, from x_at and w_at on, `step` bytes apart.
        x_at, x_rows = aim(x, first_row, last_row)
        w_at, w_rows = aim(w[group], first_col, num_features)
        step = int64(ROWS_APART * 2) * x.shape[1]
        k_left = int32(x.shape[1] - cuda.threadIdx.x % PIECES * PIECE)
        mine = uint32(slabs + piece_at(cuda.threadIdx.x // PIECES, cuda.threadIdx.x % PIECES))

        if ASYNC:
            for i in range(STAGES - 1):
                target = uint32(mine + i * STAGE_BYTES)
                start_x(x_at, x_rows, step, k_left > 0, target)
                start_w(w_at, w_rows, step, k_left > 0, target + X_BYTES)
                cp_async_commit()
                x_at, w_at, k_left = int64(x_at + SLAB_BYTES), int64(w_at + SLAB_BYTES), int32(k_left - BK)
            stage, free = int32(0), int32(STAGES - 1)
            wait_for_slab()
            cuda.syncthreads()
            load(uint32(slabs), 0, warp_m, warp_n, r_x, r_w)
            for _ in range(num_slabs):
                slab, target = uint32(slabs + stage * STAGE_BYTES), uint32(mine + free * STAGE_BYTES)
                free = stage
                stage = stage + 1 if stage < STAGES - 1 else 0
                for k_step in range(K_STEPS):  # why one ahead: ldmatrix and mma.sync overlap
                    if k_step < K_STEPS - 1:
                        load(slab, k_step + 1, warp_m, warp_n, r_x, r_w)
                    else:
                        wait_for_slab()
                        cuda.syncthreads()  # why: others' copies have landed, and all have left this slab
                        load(uint32(slabs + stage * STAGE_BYTES), 0, warp_m, warp_n, r_x, r_w)
                    if k_step == 0:
                        start_x(x_at, x_rows, step, k_left > 0, target)
                        start_w(w_at, w_rows, step, k_left > 0, target + X_BYTES)
                        cp_async_commit()  # why also past the end of K: the wait counts empty groups, too
                        x_at, w_at = int64(x_at + SLAB_BYTES), int64(w_at + SLAB_BYTES)
                        k_left = int32(k_left - BK)
                    multiply(k_step, r_x, r_w, r_acc)
        else:
            r_next_x = cuda.local.array((X_PIECES, 4), uint32)
            r_next_w = cuda.local.array((W_PIECES, 4), uint32)
            fetch_x(x_at, x_rows, step, k_left > 0, r_next_x)
            fetch_w(w_at, w_rows, step, k_left > 0, r_next_w)
            for k_tile in range(num_slabs):
                target = uint32(mine + (k_tile & 1) * STAGE_BYTES)
                keep_x(r_next_x, target)
                keep_w(r_next_w, target + X_BYTES)
                # One barrier a slab is enough: whoever writes a slab next has passed the barrier after it.
                cuda.syncthreads()
                x_at, w_at, k_left = int64(x_at + SLAB_BYTES), int64(w_at + SLAB_BYTES), int32(k_left - BK)
                fetch_x(x_at, x_rows, step, k_left > 0, r_next_x)
                fetch_w(w_at, w_rows, step, k_left > 0, r_next_w)
                for k_step in range(K_STEPS):
                    load(uint32(slabs + (k_tile & 1) * STAGE_BYTES), k_step, warp_m, warp_n, r_x, r_w)
                    multiply(k_step, r_x, r_w, r_acc)

        store(y, first_row + warp_m, last_row, first_col + warp_n, r_acc)

    return tensor_core_kernel


def choose_config(problem: GroupedProblem, compute_capability: tuple[int, int]) -> Config:
    """The configuration for a GPU: what Turing lacks is done in other ways."""
    if compute_capability < (8, 0):
        return TURING
    return replace(CONFIG, dtype=problem.dtype)


def bind(problem: GroupedProblem, config: Config, x: Any, w: Any, offsets: Any, y: Any) -> Launch | None:
    """Prepare the launch for arrays that exist; None if there is nothing to do.

    Args:
        problem: what is computed; its counts fix the tiles.
        config: compile-time constants that fit the problem, its dtype among them.
        x: device array [total_tokens, K].
        w: device array [num_groups, N, K].
        offsets: int32 device array [num_groups + 1], the problem's.
        y: device array [total_tokens, N].
    """
    tile_offsets = count_tiles(problem, config.BM, config.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return None
    require_aligned(PIECE_BYTES, x=x, w=w)
    require_aligned(4, y=y)
    x_words, w_words, y_words = (array.view(np.uint16) for array in (x, w, y))
    arguments = (x_words, w_words, offsets, to_device(tile_offsets), y_words)
    return Launch(
        make_kernel(config), num_tiles, config.num_threads, arguments, shared_bytes=config.shared_bytes
    )


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Prepare one launch with a block for each tile of each expert.

    Args:
        problem: what is computed; float16 or bfloat16, K a multiple of 8, N even.
        config: compile-time constants; None takes what `choose_config` says, or `SIM_CONFIG`.
        inputs: host or device arrays; None draws random ones.

    Raises:
        ConfigError: the constants do not fit together.
        ProblemError: the step does not take this dtype, N or K.
        LaunchError: the GPU has less shared memory than the configuration wants.
    """
    on_gpu = choose_config(problem, device.choose().compute_capability)
    config, x, w = begin(problem, inputs, config, on_gpu, SIM_CONFIG)
    config = replace(config, dtype=problem.dtype)
    output, y = guarded_output(problem)
    gemm = bind(problem, config, x, w, to_device(problem.offsets), y)
    num_tiles = gemm.num_blocks if gemm else 0
    flops = 2 * num_tiles * config.BM * config.BN * ceil_div(problem.K, config.BK) * config.BK
    work = Work(launches=1 if gemm else 0, blocks=num_tiles, tiles=num_tiles, flops=flops)
    parts = {"gemm": gemm} if gemm else {}
    return Prepared(problem, config, parts, output, work, (config.BM, config.BN), (x, w))
