"""Shared-memory tiles, a register patch per thread; work is the list of tiles over all experts.

Picture:
              K                           BN                one block computes one BM x BN tile of y
         +---------+                 +----------+
     BM  |  s_x    |  <- BK wide     |  r_acc   |           each thread owns TM x TN outputs, in
         +---------+                 |          |           pieces of 4 x 4: 128 bits of a slab feed
                        +---------+  +----------+           4 rows or 4 columns
                    BN  |  s_w    |  <- BK wide
    expert 0: 150 rows -> 3 row tiles of 64, the last one ragged; no tile straddles two experts

What changed: a block computes a tile instead of single outputs. It walks along K in slabs of BK: copy the
slabs of x and w to shared memory, 128 bits at a time, and multiply from there. While one slab is
multiplied, the next one is on its way into registers. Slabs lie transposed, so that one 128-bit read
brings four rows of one k, and the reads for k + 1 run while k is multiplied. The search is by tile.

Why it should help: an element of x is read from global memory once for BN outputs, and from shared memory
once for TN outputs. Arithmetic per byte grows by a factor of about BM / 2.

When it will not: experts with few tokens. A tile costs the same whether 1 or BM of its rows exist, so one
token per expert wastes all but one row; and a handful of tiles cannot fill the GPU.

What to measure: TFLOP/s against the fp32 peak on `S-x16`, and on `single-tokens`, where it must lose.

Tried (NVIDIA H200, 2026-11-23; time of the same tile in `persistent`, us on `S-x16` and on `S`):
    this tile                                  3321   322
    BM = 128, two blocks per SM                3259   394   larger tiles leave SMs without one on `S`
    BM = 128, BN = 256, one block per SM       3402   384
    BM = 64, BK = 8                            3579   355
    BM = 128, slabs not transposed             4073   490   reads wait for each other
    BM = 128, a branch around each load        3696   412   see `ptx.global_memory.ld_global_v4_f32`
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from numba import cuda, float32, uint32

from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, start_of
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.ptx.global_memory import address_of, ld_global_f32, ld_global_v4_f32
from gemm_lessons.ptx.special_registers import tid_x
from gemm_lessons.schedule import ceil_div, count_tiles, find_tile
from gemm_lessons.steps._host import (
    ConfigError,
    begin,
    require_block_size,
    require_float32,
    require_power_of_two,
)

launch = launch_parts

SIGNATURE = "void(float32[:, ::1], float32[:, :, ::1], int32[::1], int32[::1], float32[:, ::1])"

VECTOR = 4  # float32 in 128 bits
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Config:
    """Tile extents, all powers of two, and how blocks share an SM.

    Attributes:
        BM, BN, BK: block tile.
        TM, TN: outputs per thread.
        band: row tiles that run side by side, for the L2 cache; see `schedule.find_tile`.
        vector_loads: 128-bit loads from global memory; needs rows of x and w on 16-byte boundaries.
        blocks_per_sm: how many blocks registers are rationed for.
    """

    BM: int = 64
    BN: int = 128
    BK: int = 16
    TM: int = 8
    TN: int = 8
    band: int = 8
    vector_loads: bool = True
    blocks_per_sm: int = 4

    @property
    def num_threads(self) -> int:
        """Threads of a block: one for each TM x TN patch."""
        return (self.BM // self.TM) * (self.BN // self.TN)

    def validate(self, problem: GroupedProblem) -> None:
        """Raise what makes this step impossible: wrong dtype, or extents that do not fit together."""
        require_float32(problem)
        self.validate_extents()

    def validate_extents(self) -> None:
        """Raise ConfigError for extents that do not fit together."""
        require_power_of_two(BM=self.BM, BN=self.BN, BK=self.BK, TM=self.TM, TN=self.TN, band=self.band)
        for name, patch, tile in (("TM", self.TM, self.BM), ("TN", self.TN, self.BN)):
            if not VECTOR <= patch <= tile:
                raise ConfigError(f"{name} is {patch}: use {VECTOR} to {tile}, the tile's extent")
        require_block_size(self.num_threads)
        for name, rows in (("BM", self.BM), ("BN", self.BN)):
            if rows * self.BK < VECTOR * self.num_threads:
                raise ConfigError(
                    f"{name} * BK is {rows * self.BK}, too few for {self.num_threads} threads to load"
                    f" {VECTOR} each: use larger tiles or larger patches"
                )


AnyConfig = TypeVar("AnyConfig", bound=Config)

CONFIG = Config()
SIM_CONFIG = Config(BM=16, BN=16, BK=8, TM=4, TN=4, band=2, blocks_per_sm=1)


def make_copies(config: Config, num_rows: int) -> tuple[Any, Any]:
    """Two device functions that copy a slab [num_rows, BK]: global to registers, registers to shared.

    In between, the thread multiplies: the latency of global memory hides behind arithmetic.
    """
    chunks = config.BK // VECTOR  # 128-bit pieces of a slab's row
    rows_at_once = config.num_threads // chunks
    num_loads = num_rows // rows_at_once
    vector_loads = config.vector_loads

    @cuda.jit(device=True)
    def fetch(matrix, first_row, last_row, first_k, r_next):
        thread = tid_x()
        k = first_k + thread % chunks * VECTOR
        num_k = matrix.shape[1]
        start = address_of(matrix, (0, 0))
        for i in range(num_loads):
            row = first_row + thread // chunks + i * rows_at_once
            address = start + (row * num_k + k) * FLOAT_BYTES
            # Zeros beyond the edge add nothing, so the tails of rows and of K need no other code.
            if vector_loads:
                values = ld_global_v4_f32(address, row < last_row and k < num_k)
                r_next[i, 0], r_next[i, 1], r_next[i, 2], r_next[i, 3] = values
            else:
                for e in range(VECTOR):
                    inside = row < last_row and k + e < num_k
                    r_next[i, e] = ld_global_f32(address + e * FLOAT_BYTES, inside)

    @cuda.jit(device=True)
    def keep(r_next, s_slab):
        thread = tid_x()
        column = thread % chunks * VECTOR
        for i in range(num_loads):
            for e in range(VECTOR):
                s_slab[column + e, thread // chunks + i * rows_at_once] = r_next[i, e]

    return fetch, keep


def make_read(num_threads: int, num_values: int) -> Any:
    """A device function that reads a thread's values from row k of a slab, 128 bits at a time."""

    @cuda.jit(device=True)
    def read(s_slab, k, first, r_values):
        for i in range(num_values):
            r_values[i] = s_slab[k, first + i // VECTOR * (num_threads * VECTOR) + i % VECTOR]

    return read


def make_tile_function(config: Config, copies_of_x: Any = make_copies) -> Any:
    """The device function that computes one tile; `persistent` and `masked` call the same one.

    copies_of_x makes what fetches and keeps a slab of x, for tokens that do not lie in rows of their own.
    """
    BM, BN, BK, TM, TN = config.BM, config.BN, config.BK, config.TM, config.TN
    threads_m, threads_n = BM // TM, BN // TN
    x_loads, w_loads = (rows * BK // VECTOR // config.num_threads for rows in (BM, BN))
    # why + VECTOR: a warp stores to rows 0, 4, 8, 12 of a slab at once; unpadded, all start in one bank.
    X_STRIDE, W_STRIDE = BM + VECTOR, BN + VECTOR
    fetch_x, keep_x = copies_of_x(config, BM)
    fetch_w, keep_w = make_copies(config, BN)
    read_x, read_w = make_read(threads_m, TM), make_read(threads_n, TN)

    @cuda.jit(device=True)
    def multiply(r_x, r_w, r_acc):
        for i in range(TM):
            for j in range(TN):
                r_acc[i, j] += r_x[i] * r_w[j]

    @cuda.jit(device=True)
    def multiply_tile(x, w, y, first_row, last_row, first_col):
        """Set the tile of y at (first_row, first_col), clipped to last_row and N, to x @ w.T."""
        s_x = cuda.shared.array((BK, X_STRIDE), float32, alignment=16)
        s_w = cuda.shared.array((BK, W_STRIDE), float32, alignment=16)
        r_next_x = cuda.local.array((x_loads, VECTOR), float32)
        r_next_w = cuda.local.array((w_loads, VECTOR), float32)
        r_x_even, r_x_odd = cuda.local.array(TM, float32), cuda.local.array(TM, float32)
        r_w_even, r_w_odd = cuda.local.array(TN, float32), cuda.local.array(TN, float32)
        r_acc = cuda.local.array((TM, TN), float32)
        thread = tid_x()
        thread_row, thread_col = thread // threads_n * VECTOR, thread % threads_n * VECTOR
        num_n, num_k = w.shape[0], w.shape[1]

        for i in range(TM):
            for j in range(TN):
                r_acc[i, j] = float32(0.0)
        fetch_x(x, first_row, last_row, 0, r_next_x)
        fetch_w(w, first_col, num_n, 0, r_next_w)

        for k_tile in range(0, num_k, BK):
            cuda.syncthreads()  # why: a fast warp would overwrite a slab that a slow one still reads
            keep_x(r_next_x, s_x)
            keep_w(r_next_w, s_w)
            cuda.syncthreads()  # why: the slab is complete only when every thread has stored its part
            fetch_x(x, first_row, last_row, k_tile + BK, r_next_x)
            fetch_w(w, first_col, num_n, k_tile + BK, r_next_w)

            read_x(s_x, 0, thread_row, r_x_even)
            read_w(s_w, 0, thread_col, r_w_even)
            for pair in range(BK // 2 - 1):
                k = uint32(pair * 2)  # why uint32: an index that cannot be negative needs no wrap-around
                read_x(s_x, k + 1, thread_row, r_x_odd)
                read_w(s_w, k + 1, thread_col, r_w_odd)
                multiply(r_x_even, r_w_even, r_acc)
                read_x(s_x, k + 2, thread_row, r_x_even)
                read_w(s_w, k + 2, thread_col, r_w_even)
                multiply(r_x_odd, r_w_odd, r_acc)
            read_x(s_x, BK - 1, thread_row, r_x_odd)
            read_w(s_w, BK - 1, thread_col, r_w_odd)
            multiply(r_x_even, r_w_even, r_acc)
            multiply(r_x_odd, r_w_odd, r_acc)

        for i in range(TM):
            row = first_row + thread_row + i // VECTOR * (threads_m * VECTOR) + i % VECTOR
            for j in range(TN):
                col = first_col + thread_col + j // VECTOR * (threads_n * VECTOR) + j % VECTOR
                if row < last_row and col < num_n:
                    y[row, col] = r_acc[i, j]

    return multiply_tile


@cache
def make_kernel(config: Config) -> Any:
    """One block per tile: x [total_tokens, K], w [num_groups, N, K], y [total_tokens, N]."""
    BM, BN, band = config.BM, config.BN, config.band
    multiply_tile = make_tile_function(config)

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def tiled_kernel(x, w, offsets, tile_offsets, y):
        tiles_n = (w.shape[1] + BN - 1) // BN
        group, tile_m, tile_n = find_tile(tile_offsets, cuda.blockIdx.x, tiles_n, band)
        multiply_tile(x, w[group], y, offsets[group] + tile_m * BM, offsets[group + 1], tile_n * BN)

    return tiled_kernel


def fit_loads(config: AnyConfig, problem: GroupedProblem, *arrays: Any) -> AnyConfig:
    """Give up 128-bit loads where a row, or a whole array, does not start on a 16-byte boundary."""
    aligned = problem.K % VECTOR == 0 and all(start_of(a) % (VECTOR * FLOAT_BYTES) == 0 for a in arrays)
    return replace(config, vector_loads=config.vector_loads and aligned)


def prepare(problem: GroupedProblem, config: Config | None = None, inputs: Inputs | None = None) -> Prepared:
    """Count the tiles of every expert and prepare one launch with a block for each.

    Raises:
        ProblemError: wrong dtype or inputs.
        ConfigError: extents that do not fit together.
    """
    config, x, w = begin(problem, inputs, config, CONFIG, SIM_CONFIG)
    config = fit_loads(config, problem, x, w)
    output, y = guarded_output(problem)
    tile_offsets = count_tiles(problem, config.BM, config.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return Prepared(problem, config, {}, output, Work(0, 0, 0, 0))
    arguments = (x, w, cuda.to_device(problem.offsets), cuda.to_device(tile_offsets), y)
    gemm = Launch(make_kernel(config), num_tiles, config.num_threads, arguments)
    work = Work(1, num_tiles, num_tiles, num_tiles * tile_flops(config, problem))
    return Prepared(problem, config, {"gemm": gemm}, output, work, tile=(config.BM, config.BN))


def tile_flops(config: Config, problem: GroupedProblem) -> int:
    """Multiplies and adds of one tile, those beyond its ragged edge included."""
    return 2 * config.BM * config.BN * ceil_div(problem.K, config.BK) * config.BK
