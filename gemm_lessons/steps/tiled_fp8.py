"""Tiles of FP8 with a scale per block, in plain arithmetic: DeepSeek-V3's recipe on any GPU and on none.

Picture:
    x  values [total_tokens, K]  1 byte each     x_scales [total_tokens, ceil(K / 128)]
    w  values [num_groups, N, K] 1 byte each     w_scales [num_groups, ceil(N / 128), ceil(K / 128)]

             K ->   |<-- 128 -->|<-- 128 -->|<- tail ->|
    x tile   BM     |  block 0  |  block 1  | block 2  |    one scale for each row and block of K
    w tile   BN     |  block 0  |  block 1  | block 2  |    one scale for each block of K
                         |            |          |
    r_part             sum          sum        sum          products of values only, BK at a time
                        * s_x * s_w  * s_x * s_w
    r_acc         0  --- + --------- + -------- + -->  y    float32, written as bfloat16

What changed: inputs are bytes, four to a word. On the way into the slab each byte becomes the float32 that
it stands for, by a table of 256, or by an instruction where there is one. The sum of 128 products is kept
apart, and only then multiplied by the two scales of its block and added to the output: promoted.

Why it should help: a byte where there were four. Weights of a few tokens are read four times as fast, and
a layer's weights take a quarter of the memory. A plain kernel gains no arithmetic by it.

When it will not: here, wherever arithmetic counts. Values are multiplied as float32, after decoding; only
tensor cores multiply bytes as such (`hopper_fp8`), at twice the speed of 16 bits.

What to measure: time beside `tiled` on `decode`, where weights are streamed, and on `S-x16`, where not; the
error beside float32 (`python -m gemm_lessons.measure.fp8_error`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, uint32

from gemm_lessons import device
from gemm_lessons.launch import Launch, Prepared, Work, guarded_output, launch_parts, start_of, to_device
from gemm_lessons.problem import GroupedProblem, ProblemError
from gemm_lessons.ptx.convert import unpack_e4m3
from gemm_lessons.ptx.global_memory import address_of, ld_global_f32, ld_global_u8, ld_global_u32
from gemm_lessons.ptx.special_registers import tid_x
from gemm_lessons.quantize import BLOCK, WEIGHT_BLOCK, Quantized, QuantizedInputs
from gemm_lessons.schedule import count_tiles, find_tile
from gemm_lessons.small_floats import DECODED, encode_bfloat16
from gemm_lessons.steps import tiled
from gemm_lessons.steps._host import ConfigError, begin_quantized
from gemm_lessons.steps.tiled import VECTOR, make_read, tile_flops

launch = launch_parts

SIGNATURE = (
    "void(uint8[:, ::1], uint8[:, :, ::1], float32[:, ::1], float32[:, :, ::1], float32[::1], int32[::1],"
    " int32[::1], uint16[:, ::1])"
)


@dataclass(frozen=True)
class Config(tiled.Config):
    """The tile of `tiled`, and what is special about bytes.

    Attributes:
        vector_loads: four bytes at a time; needs rows of x and w on 4-byte boundaries.
        instruction: decode with the GPU's instruction (compute capability 8.9 on), not with a table.
        whole_rows: one scale for each row of x and of w, not for each block of 128.
    """

    BN: int = 64
    TN: int = 4
    blocks_per_sm: int = 3
    instruction: bool = False
    whole_rows: bool = False

    def validate(self, problem: GroupedProblem) -> None:
        """Raise what makes this step impossible: wrong dtype, or extents that do not fit together."""
        if problem.dtype != "float8_e4m3fn":
            raise ProblemError(f"this step computes in float8_e4m3fn, and the problem is {problem.dtype}")
        self.validate_extents()
        if BLOCK % self.BK:
            raise ConfigError(f"BK is {self.BK}: a block of {BLOCK} must be a whole number of slabs")
        if self.instruction and device.choose().compute_capability < (8, 9):
            raise ConfigError("decoding by instruction needs compute capability 8.9: use the table")


CONFIG = Config()
SIM_CONFIG = Config(BM=16, BN=16, BK=8, TM=4, TN=4, band=2, blocks_per_sm=1)


def make_copies(config: Config, num_rows: int) -> tuple[Any, Any]:
    """Two device functions that copy a slab [num_rows, BK]: global to words, words to shared floats."""
    chunks = config.BK // VECTOR  # words of a slab's row
    rows_at_once = config.num_threads // chunks
    num_loads = num_rows // rows_at_once
    vector_loads, instruction = config.vector_loads, config.instruction

    @cuda.jit(device=True)
    def fetch(matrix, first_row, last_row, first_k, r_next):
        thread = tid_x()
        k = first_k + thread % chunks * VECTOR
        num_k = matrix.shape[1]
        start = address_of(matrix, (0, 0))
        for i in range(num_loads):
            row = first_row + thread // chunks + i * rows_at_once
            address = start + row * num_k + k
            # Beyond the edge the code is 0, which means zero: tails of rows and of K need no other code.
            if vector_loads:
                r_next[i] = ld_global_u32(address, row < last_row and k < num_k)
            else:
                word = uint32(0)
                for e in range(VECTOR):
                    inside = row < last_row and k + e < num_k
                    word |= ld_global_u8(address + e, inside) << (8 * e)
                r_next[i] = word

    @cuda.jit(device=True)
    def keep(r_next, table, s_slab):
        thread = tid_x()
        column = thread % chunks * VECTOR
        for i in range(num_loads):
            row = thread // chunks + i * rows_at_once
            word = r_next[i]
            if instruction:
                s_slab[column, row], s_slab[column + 1, row] = unpack_e4m3(word)
                s_slab[column + 2, row], s_slab[column + 3, row] = unpack_e4m3(word >> 16)
            else:
                for e in range(VECTOR):
                    s_slab[column + e, row] = table[(word >> (8 * e)) & 0xFF]

    return fetch, keep


def make_tile_function(config: Config) -> Any:
    """The device function that computes one tile from bytes and scales."""
    BM, BN, BK, TM, TN = config.BM, config.BN, config.BK, config.TM, config.TN
    threads_m, threads_n = BM // TM, BN // TN
    x_loads, w_loads = (rows * BK // VECTOR // config.num_threads for rows in (BM, BN))
    X_STRIDE, W_STRIDE = BM + VECTOR, BN + VECTOR
    SCALE_ROWS = 1 if config.whole_rows else BLOCK  # rows of w that share a scale
    WHOLE_ROWS = config.whole_rows
    fetch_x, keep_x = make_copies(config, BM)
    fetch_w, keep_w = make_copies(config, BN)
    read_x, read_w = make_read(threads_m, TM), make_read(threads_n, TN)

    @cuda.jit(device=True)
    def clear(r_sums):
        for i in range(TM):
            for j in range(TN):
                r_sums[i, j] = float32(0.0)

    @cuda.jit(device=True)
    def promote(r_part, x_scales, w_scales, first_row, last_row, first_col, num_n, k_block, r_acc):
        """Add the sum of one block of K to the output: only here do scales come in."""
        scale_k = 0 if WHOLE_ROWS else k_block
        for i in range(TM):
            row = first_row + i // VECTOR * (threads_m * VECTOR) + i % VECTOR
            x_scale = ld_global_f32(address_of(x_scales, (row, scale_k)), row < last_row)
            for j in range(TN):
                col = first_col + j // VECTOR * (threads_n * VECTOR) + j % VECTOR
                w_scale = ld_global_f32(address_of(w_scales, (col // SCALE_ROWS, scale_k)), col < num_n)
                r_acc[i, j] += r_part[i, j] * x_scale * w_scale

    @cuda.jit(device=True)
    def multiply_tile(x, w, x_scales, w_scales, table, y, first_row, last_row, first_col):
        """Set the tile of y at (first_row, first_col), clipped to last_row and N, to x @ w.T."""
        s_x = cuda.shared.array((BK, X_STRIDE), float32, alignment=16)
        s_w = cuda.shared.array((BK, W_STRIDE), float32, alignment=16)
        r_next_x = cuda.local.array(x_loads, uint32)
        r_next_w = cuda.local.array(w_loads, uint32)
        r_x, r_w = cuda.local.array(TM, float32), cuda.local.array(TN, float32)
        r_part, r_acc = cuda.local.array((TM, TN), float32), cuda.local.array((TM, TN), float32)
        thread = tid_x()
        thread_row, thread_col = thread // threads_n * VECTOR, thread % threads_n * VECTOR
        num_n, num_k = w.shape[0], w.shape[1]

        clear(r_acc)
        fetch_x(x, first_row, last_row, 0, r_next_x)
        fetch_w(w, first_col, num_n, 0, r_next_w)

        for first_k in range(0, num_k, BLOCK):
            clear(r_part)
            for k_tile in range(first_k, min(first_k + BLOCK, num_k), BK):
                cuda.syncthreads()  # why: a fast warp would overwrite a slab that a slow one still reads
                keep_x(r_next_x, table, s_x)
                keep_w(r_next_w, table, s_w)
                cuda.syncthreads()  # why: the slab is complete only when every thread has stored its part
                fetch_x(x, first_row, last_row, k_tile + BK, r_next_x)
                fetch_w(w, first_col, num_n, k_tile + BK, r_next_w)
                for k in range(BK):
                    read_x(s_x, k, thread_row, r_x)
                    read_w(s_w, k, thread_col, r_w)
                    for i in range(TM):
                        for j in range(TN):
                            r_part[i, j] += r_x[i] * r_w[j]
            row, col = first_row + thread_row, first_col + thread_col
            promote(r_part, x_scales, w_scales, row, last_row, col, num_n, first_k // BLOCK, r_acc)

        for i in range(TM):
            row = first_row + thread_row + i // VECTOR * (threads_m * VECTOR) + i % VECTOR
            for j in range(TN):
                col = first_col + thread_col + j // VECTOR * (threads_n * VECTOR) + j % VECTOR
                if row < last_row and col < num_n:
                    y[row, col] = encode_bfloat16(r_acc[i, j])

    return multiply_tile


@cache
def make_kernel(config: Config) -> Any:
    """One block per tile: values as bytes, their scales, the decoding table, and y as 16-bit words."""
    BM, BN, band = config.BM, config.BN, config.band
    multiply_tile = make_tile_function(config)

    @cuda.jit(launch_bounds=(config.num_threads, config.blocks_per_sm))
    def tiled_fp8_kernel(x, w, x_scales, w_scales, table, offsets, tile_offsets, y):
        tiles_n = (w.shape[1] + BN - 1) // BN
        group, tile_m, tile_n = find_tile(tile_offsets, cuda.blockIdx.x, tiles_n, band)
        first_row, last_row = offsets[group] + tile_m * BM, offsets[group + 1]
        multiply_tile(x, w[group], x_scales, w_scales[group], table, y, first_row, last_row, tile_n * BN)

    return tiled_fp8_kernel


def prepare(
    problem: GroupedProblem, config: Config | None = None, inputs: QuantizedInputs | None = None
) -> Prepared:
    """Count the tiles of every expert and prepare one launch with a block for each.

    Args:
        problem: what is computed; its dtype is float8_e4m3fn.
        config: compile-time constants; None for the device's own.
        inputs: values and scales, host or device arrays; None quantises random ones.

    Raises:
        ProblemError: wrong dtype or inputs, or blocks of scales that are neither of the two recipes.
        ConfigError: extents that do not fit together.
    """
    config, x, w = begin_quantized(problem, inputs, config, choose_config(), SIM_CONFIG)
    output, y = guarded_output(problem)
    gemm = bind(problem, config, x, w, to_device(problem.offsets), y)
    if gemm is None:
        return Prepared(problem, config, {}, output, Work(0, 0, 0, 0))
    num_tiles = gemm.num_blocks
    work = Work(1, num_tiles, num_tiles, num_tiles * tile_flops(config, problem))
    return Prepared(problem, config, {"gemm": gemm}, output, work, tile=(config.BM, config.BN))


def choose_config() -> Config:
    """The configuration for this GPU: it decodes by instruction where it has one."""
    return replace(CONFIG, instruction=device.choose().compute_capability >= (8, 9))


def bind(
    problem: GroupedProblem, config: Config, x: Quantized, w: Quantized, offsets: Any, y: Any
) -> Launch | None:
    """Count the tiles of every expert and prepare the launch for arrays that exist; None if there are none.

    Args:
        problem: its counts say how many tiles there are.
        config: compile-time constants; whether four bytes are loaded at a time, and what a scale belongs
            to, follows from x and w.
        x: e4m3 bits [total_tokens, K] on the device, and their scales.
        w: e4m3 bits [num_groups, N, K], and their scales.
        offsets: int32 device array [num_groups + 1].
        y: bfloat16 device array [total_tokens, N].
    """
    bits = tuple(quantized.values.view(np.uint8) for quantized in (x, w))
    aligned = problem.K % VECTOR == 0 and not any(start_of(array) % VECTOR for array in bits)
    config = replace(config, vector_loads=config.vector_loads and aligned, whole_rows=w.block != WEIGHT_BLOCK)
    tile_offsets = count_tiles(problem, config.BM, config.BN)
    num_tiles = int(tile_offsets[-1])
    if not num_tiles:
        return None
    arguments = (
        *bits, x.scales, w.scales, to_device(DECODED), offsets, to_device(tile_offsets), y.view(np.uint16)
    )  # fmt: skip
    return Launch(make_kernel(config), num_tiles, config.num_threads, arguments)
