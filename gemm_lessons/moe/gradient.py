"""What dgrad and wgrad share: a tile whose operands may lie either way in memory.

    y  = x  @ w[g].T    sums over K:        both operands have the sum along their rows
    dx = dy @ w[g]      sums over N:        dy has it along its rows, w[g] down its columns
    dw = dy.T @ x       sums over tokens:   both have it down their columns

A slab in shared memory is [BK, extent] in all three: one 128-bit read brings four rows, or columns, of one
term of the sum. `tiled.make_copies` turns an operand round on its way there; an operand that has the sum
down its columns lies right already, and is copied as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import Comparison
from gemm_lessons.launch import Prepared
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.ptx.global_memory import address_of, ld_global_f32, ld_global_v4_f32
from gemm_lessons.ptx.special_registers import tid_x
from gemm_lessons.quantize import QuantizedInputs
from gemm_lessons.steps import tiled
from gemm_lessons.steps._host import ConfigError
from gemm_lessons.steps.tiled import FLOAT_BYTES, VECTOR, make_read

device.choose()

from numba import cuda, float32, uint32  # noqa: E402  why late: the device is chosen before Numba is imported

Array = np.ndarray[Any, Any]

DY_SEED = 1_000  # of the gradient that is drawn where none is given; apart from the seeds of inputs


@dataclass(frozen=True)
class Config(tiled.Config):
    """The tile of `tiled`; a slab may also be copied row by row, so a row must not need too many threads."""

    def validate(self, problem: GroupedProblem) -> None:
        """Raise what makes this kernel impossible: wrong dtype, or extents that do not fit together."""
        super().validate(problem)
        for name, extent in (("BM", self.BM), ("BN", self.BN)):
            if extent > VECTOR * self.num_threads:
                raise ConfigError(
                    f"{name} is {extent}, too wide for {self.num_threads} threads to load {VECTOR} each:"
                    " use a smaller tile or smaller patches"
                )


CONFIG = Config()
SIM_CONFIG = Config(BM=16, BN=16, BK=8, TM=4, TN=4, band=2, blocks_per_sm=1)


def chosen_config() -> Config:
    """The configuration for the device that kernels run on."""
    return CONFIG if device.choose().is_gpu else SIM_CONFIG


def make_straight_copies(config: Config, num_cols: int) -> tuple[Any, Any]:
    """Two device functions that copy a slab [BK, num_cols] as it lies: global to registers to shared.

    Called like those of `tiled.make_copies`, which turn the slab round.
    """
    chunks = num_cols // VECTOR  # 128-bit pieces of a slab's row
    rows_at_once = config.num_threads // chunks
    num_loads = config.BK // rows_at_once
    vector_loads = config.vector_loads

    @cuda.jit(device=True)
    def fetch(matrix, first_col, last_row, first_row, r_next):
        thread = tid_x()
        col = first_col + thread % chunks * VECTOR
        width = matrix.shape[1]
        start = address_of(matrix, (0, 0))
        for i in range(num_loads):
            row = first_row + thread // chunks + i * rows_at_once
            address = start + (row * width + col) * FLOAT_BYTES
            # why zeros: these rows are terms of a sum, and beyond last_row lies the next expert's token
            if vector_loads:
                values = ld_global_v4_f32(address, row < last_row and col < width)
                r_next[i, 0], r_next[i, 1], r_next[i, 2], r_next[i, 3] = values
            else:
                for e in range(VECTOR):
                    inside = row < last_row and col + e < width
                    r_next[i, e] = ld_global_f32(address + e * FLOAT_BYTES, inside)

    @cuda.jit(device=True)
    def keep(r_next, s_slab):
        thread = tid_x()
        column = thread % chunks * VECTOR
        for i in range(num_loads):
            for e in range(VECTOR):
                s_slab[thread // chunks + i * rows_at_once, column + e] = r_next[i, e]

    return fetch, keep


def make_tile_function(config: Config, a_copies: tuple[Any, Any], b_copies: tuple[Any, Any]) -> Any:
    """The device function that computes one tile: the loop of `tiled` with copies to choose.

    Args:
        config: tile extents.
        a_copies: fetch and keep for the operand with the tile's rows.
        b_copies: fetch and keep for the operand with the tile's columns.
    """
    BM, BN, BK, TM, TN = config.BM, config.BN, config.BK, config.TM, config.TN
    threads_m, threads_n = BM // TM, BN // TN
    a_loads, b_loads = (extent * BK // VECTOR // config.num_threads for extent in (BM, BN))
    A_STRIDE, B_STRIDE = BM + VECTOR, BN + VECTOR  # why + VECTOR: see tiled
    fetch_a, keep_a = a_copies
    fetch_b, keep_b = b_copies
    read_a, read_b = make_read(threads_m, TM), make_read(threads_n, TN)

    @cuda.jit(device=True)
    def multiply(r_a, r_b, r_acc):
        for i in range(TM):
            for j in range(TN):
                r_acc[i, j] += r_a[i] * r_b[j]

    @cuda.jit(device=True)
    def multiply_tile(a, last_a, b, last_b, c, first_row, last_row, first_col, start, stop):
        """Set the tile of c at (first_row, first_col), clipped to last_row and c's width.

        The sum has the terms start to stop; of a and b, no row from last_a and last_b on is read.
        """
        s_a = cuda.shared.array((BK, A_STRIDE), float32, alignment=16)
        s_b = cuda.shared.array((BK, B_STRIDE), float32, alignment=16)
        r_next_a = cuda.local.array((a_loads, VECTOR), float32)
        r_next_b = cuda.local.array((b_loads, VECTOR), float32)
        r_a_even, r_a_odd = cuda.local.array(TM, float32), cuda.local.array(TM, float32)
        r_b_even, r_b_odd = cuda.local.array(TN, float32), cuda.local.array(TN, float32)
        r_acc = cuda.local.array((TM, TN), float32)
        thread = tid_x()
        thread_row, thread_col = thread // threads_n * VECTOR, thread % threads_n * VECTOR
        width = c.shape[1]

        for i in range(TM):
            for j in range(TN):
                r_acc[i, j] = float32(0.0)
        fetch_a(a, first_row, last_a, start, r_next_a)
        fetch_b(b, first_col, last_b, start, r_next_b)

        for slab in range(start, stop, BK):
            cuda.syncthreads()  # why: a fast warp would overwrite a slab that a slow one still reads
            keep_a(r_next_a, s_a)
            keep_b(r_next_b, s_b)
            cuda.syncthreads()  # why: the slab is complete only when every thread has stored its part
            fetch_a(a, first_row, last_a, slab + BK, r_next_a)
            fetch_b(b, first_col, last_b, slab + BK, r_next_b)

            read_a(s_a, 0, thread_row, r_a_even)
            read_b(s_b, 0, thread_col, r_b_even)
            for pair in range(BK // 2 - 1):
                k = uint32(pair * 2)
                read_a(s_a, k + 1, thread_row, r_a_odd)
                read_b(s_b, k + 1, thread_col, r_b_odd)
                multiply(r_a_even, r_b_even, r_acc)
                read_a(s_a, k + 2, thread_row, r_a_even)
                read_b(s_b, k + 2, thread_col, r_b_even)
                multiply(r_a_odd, r_b_odd, r_acc)
            read_a(s_a, BK - 1, thread_row, r_a_odd)
            read_b(s_b, BK - 1, thread_col, r_b_odd)
            multiply(r_a_even, r_b_even, r_acc)
            multiply(r_a_odd, r_b_odd, r_acc)

        for i in range(TM):
            row = first_row + thread_row + i // VECTOR * (threads_m * VECTOR) + i % VECTOR
            for j in range(TN):
                col = first_col + thread_col + j // VECTOR * (threads_n * VECTOR) + j % VECTOR
                if row < last_row and col < width:
                    c[row, col] = r_acc[i, j]

    return multiply_tile


def fit_loads(config: Config, problem: GroupedProblem, *arrays: Any) -> Config:
    """Give up 128-bit loads where a row of dy, x or w, or an array, is not on a 16-byte boundary."""
    fitted = tiled.fit_loads(config, problem, *arrays)
    return replace(fitted, vector_loads=fitted.vector_loads and problem.N % VECTOR == 0)


@lru_cache(maxsize=2)
def gradient_of_output(problem: GroupedProblem, seed: int = DY_SEED) -> Array:
    """A random dy [total_tokens, N] in float32, read-only, the same for the same seed on every machine."""
    rng = np.random.default_rng(seed)
    dy = rng.standard_normal((problem.total_tokens, problem.N), dtype=np.float32)
    dy.flags.writeable = False  # why: the next caller gets the same array
    return dy


def check_dy(problem: GroupedProblem, dy: Any) -> None:
    """Refuse a dy that is not the gradient of this problem's output.

    Raises:
        ProblemError: with its shape or dtype, and what it should be.
    """
    shape = (problem.total_tokens, problem.N)
    if tuple(dy.shape) != shape:
        raise ProblemError(f"dy has shape {tuple(dy.shape)}, this problem needs {shape}")
    if dy.dtype != np.float32:
        raise ProblemError(f"dy is {dy.dtype}, this problem needs float32")


@dataclass
class PreparedGradient(Prepared):
    """A prepared gradient, which is judged by an oracle of its own.

    Attributes:
        compare: takes the output with its guard rows, and the inputs of the forward pass.
    """

    compare: Callable[[Array, Any], Comparison] | None = None

    def judge(self, inputs: Inputs | QuantizedInputs) -> Comparison:
        """Compare what stands in the output now with NumPy."""
        assert self.compare is not None
        return self.compare(self.result(), inputs)
