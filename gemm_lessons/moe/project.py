"""The router's projection: logits [T, E] = x [T, D] @ w [E, D].T, in float32 whatever x is.

bfloat16 tokens, on tensor cores (`make_project_on_tensor_cores`):

    w = high + middle + low     three bfloat16 hold the 24 bits of a float32, exactly
    logits = x @ high.T + x @ middle.T + x @ low.T, every product exact, all sums in float32

    a block:  64 tokens x up to 64 experts, K dealt out to its warps     warp 0   1   2  ...  7   0   1  ...
              32 of K at a time; their sums are added in turn            K    0  32  64      224 256 288

Why it should help: x should be read once, at the speed of memory.  An H100 reads 1.5e12 bfloat16 a second,
each for 2 * E FLOP: float32 cores (60 TFLOP/s) keep up with that to 20 experts, tensor cores (600 TFLOP/s
of mma.sync, three products) to 66.  A warp of multiply-adds also reads x again for every 8 experts, and all
of w for every 4 tokens; a block here reads x once for 64 experts, and w for 64 tokens.

When it will not: a few tokens leave most SMs without a block, though experts are then dealt out, too.

Who needs which k: as in `steps.decode`, a lane takes 16 bytes of x where `mma.sync` wants pairs; a sum does
not care about the order of its terms, so long as w's come in the same order.

Everything else, with a warp for every four tokens and multiply-adds (`make_project`): float32 and float16
tokens, rows that do not begin at multiples of 16 bytes, GPUs before compute capability 8.0.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch, to_device
from gemm_lessons.moe.permute import ALL_LANES, as_units, make_sums, make_units, units_of
from gemm_lessons.problem import ProblemError
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.global_memory import address_of, ld_global_v4_f32
from gemm_lessons.ptx.matrix import mma_m16n8k16
from gemm_lessons.ptx.shared import ld_global_v4
from gemm_lessons.schedule import ceil_div

device.choose()

from numba import cuda, float32, uint32  # noqa: E402  why late: the device is chosen before

THREADS = 128  # of a block that multiplies and adds
TOKENS, EXPERTS = 4, 8  # of one of its warps: 32 sums, one for each lane to write

TENSOR_THREADS = 256  # of a block on tensor cores
MMA_TOKENS, MMA_EXPERTS, MMA_UNITS = 16, 8, 4  # of two mma.sync; a unit is 8 of K, 16 bytes of x
TILES_M, MOST_TILES_N = 4, 8  # of a block: 128 sums a thread, as many as fit
BLOCK_TOKENS = TILES_M * MMA_TOKENS
UPPER_HALF = 0xFFFF0000


@cache
def make_project_tokens(dtype: str, vector: bool) -> Any:
    """Make the device function with which a warp projects four tokens, eight experts at a time.

    x is in units (see `permute.make_units`), w float32 [E, D].  Each lane sums every 32nd unit, and the
    lanes add up in a fixed order.
    """
    load, _ = make_units(dtype, vector)
    width, add, _ = make_sums(dtype, vector)
    room = max(width, 2)
    width = width if vector else 1  # an element alone fills half a word
    step = 4 if vector else 1  # elements of w per load
    num_x, num_sums = TOKENS * width, TOKENS * EXPERTS

    @inlined
    def project_tokens(x, w, num_units, first, stop, logits):
        r_x = cuda.local.array(num_x, float32)
        r_values = cuda.local.array(room, float32)
        r_w = cuda.local.array(4, float32)
        r_sum = cuda.local.array(num_sums, float32)
        lane, E = cuda.threadIdx.x & 31, logits.shape[1]
        for first_expert in range(0, E, EXPERTS):
            for i in range(num_sums):
                r_sum[i] = float32(0)
            for unit in range(lane, num_units, 32):
                for t in range(TOKENS):
                    for v in range(room):
                        r_values[v] = float32(0)
                    add(r_values, load(x, min(first + t, stop - 1), unit, True), float32(1))
                    for v in range(width):
                        r_x[t * width + v] = r_values[v]
                for e in range(EXPERTS):
                    expert = min(first_expert + e, E - 1)
                    for v in range(0, width, step):
                        if vector:
                            four = ld_global_v4_f32(address_of(w, (expert, unit * width + v)), True)
                            r_w[0], r_w[1], r_w[2], r_w[3] = four
                        else:
                            r_w[0] = w[expert, unit]
                        for i in range(step):
                            for t in range(TOKENS):
                                r_sum[t * EXPERTS + e] += r_x[t * width + v + i] * r_w[i]
            # 32 sums of 32 lanes: lanes that differ in one bit swap halves, so that lane i ends with sum i.
            for half in (16, 8, 4, 2, 1):
                for i in range(half):
                    mine, other = r_sum[i], r_sum[i + half]
                    if lane & half:
                        mine, other = other, mine
                    r_sum[i] = mine + cuda.shfl_xor_sync(ALL_LANES, other, half)
            token, expert = first + lane // EXPERTS, first_expert + lane % EXPERTS
            if token < stop and expert < E:
                logits[token, expert] = r_sum[0]

    return project_tokens


@cache
def make_project(dtype: str, vector: bool) -> Any:
    """Logits [T, E] = x [T, D] @ w [E, D].T, a warp for every four tokens."""
    project_tokens = make_project_tokens(dtype, vector)

    @cuda.jit(launch_bounds=(THREADS, 3))  # why 3: with 4, its registers spill
    def project_kernel(x, w, num_units, logits):
        first = (cuda.blockIdx.x * (THREADS // 32) + (cuda.threadIdx.x >> 5)) * TOKENS
        if first < logits.shape[0]:
            project_tokens(x, w, num_units, first, logits.shape[0], logits)

    return project_kernel


@inlined
def split(low, high):
    """Two float32 as three words of bfloat16 pairs, whose sum they are.

    Exact: each takes the next 8 bits by cutting the rest off, which then needs 8 bits less.
    """
    first_low, first_high = as_word(low) & uint32(UPPER_HALF), as_word(high) & uint32(UPPER_HALF)
    low -= as_float32(first_low)
    high -= as_float32(first_high)
    second_low, second_high = as_word(low) & uint32(UPPER_HALF), as_word(high) & uint32(UPPER_HALF)
    low -= as_float32(second_low)
    high -= as_float32(second_high)
    return (
        uint32(first_low >> uint32(16) | first_high),
        uint32(second_low >> uint32(16) | second_high),
        uint32(as_word(low) >> uint32(16) | as_word(high) & uint32(UPPER_HALF)),
    )


@cache
def make_project_on_tensor_cores(tiles_n: int) -> Any:
    """Logits [T, E] of bfloat16 tokens, x in units; a block for 64 tokens and 8 * tiles_n experts."""
    mma = mma_m16n8k16["bfloat16"]
    num_warps, block_experts = TENSOR_THREADS // 32, MMA_EXPERTS * tiles_n
    num_sums = TILES_M * tiles_n * 4
    pitch = block_experts + 4  # why: rows that begin at the same bank would be written one after the other

    @inlined
    def multiply(x, w0, w1, w2, w3, d):
        """Add the product of a unit of 16 tokens and 8 experts."""
        d = mma(x[0], x[4], x[1], x[5], w0, w1, d[0], d[1], d[2], d[3])
        return mma(x[2], x[6], x[3], x[7], w2, w3, d[0], d[1], d[2], d[3])

    @cuda.jit(launch_bounds=(TENSOR_THREADS, 1))
    def project_kernel(x, w, num_units, logits):
        s_sum = cuda.shared.array((BLOCK_TOKENS, pitch), float32)
        r_sum = cuda.local.array(num_sums, float32)
        r_x = cuda.local.array((TILES_M, 8), uint32)
        T, E = logits.shape
        warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
        row, column = lane >> 2, lane & 3
        first_token, first_expert = cuda.blockIdx.x * BLOCK_TOKENS, cuda.blockIdx.y * block_experts
        for i in range(num_sums):
            r_sum[i] = float32(0)
        for i in range(cuda.threadIdx.x, BLOCK_TOKENS * pitch, TENSOR_THREADS):
            s_sum[i // pitch, i % pitch] = float32(0)

        for first_unit in range(warp * MMA_UNITS, num_units, num_warps * MMA_UNITS):
            unit = first_unit + column
            inside = unit < num_units
            for m in range(TILES_M):
                token = first_token + m * MMA_TOKENS + row
                upper = ld_global_v4(address_of(x, (min(token, T - 1), unit * 4)), inside)
                lower = ld_global_v4(address_of(x, (min(token + 8, T - 1), unit * 4)), inside)
                r_x[m, 0], r_x[m, 1], r_x[m, 2], r_x[m, 3] = upper
                r_x[m, 4], r_x[m, 5], r_x[m, 6], r_x[m, 7] = lower
            for n in range(tiles_n):
                expert = min(first_expert + n * MMA_EXPERTS + row, E - 1)
                left = ld_global_v4_f32(address_of(w, (expert, unit * 8)), inside)
                right = ld_global_v4_f32(address_of(w, (expert, unit * 8 + 4)), inside)
                w0, w1 = split(left[0], left[1]), split(left[2], left[3])
                w2, w3 = split(right[0], right[1]), split(right[2], right[3])
                for m in range(TILES_M):
                    s = (m * tiles_n + n) * 4
                    d = r_sum[s], r_sum[s + 1], r_sum[s + 2], r_sum[s + 3]
                    d = multiply(r_x[m], w0[0], w1[0], w2[0], w3[0], d)
                    d = multiply(r_x[m], w0[1], w1[1], w2[1], w3[1], d)
                    d = multiply(r_x[m], w0[2], w1[2], w2[2], w3[2], d)
                    r_sum[s], r_sum[s + 1], r_sum[s + 2], r_sum[s + 3] = d

        for turn in range(num_warps):  # why in turn: sums in a fixed order
            cuda.syncthreads()  # why: the warp before has added to these sums, or all have set them to zero
            if warp == turn:
                for m in range(TILES_M):
                    for n in range(tiles_n):
                        s = (m * tiles_n + n) * 4
                        token, expert = m * MMA_TOKENS + row, n * MMA_EXPERTS + column * 2
                        s_sum[token, expert] += r_sum[s]
                        s_sum[token, expert + 1] += r_sum[s + 1]
                        s_sum[token + 8, expert] += r_sum[s + 2]
                        s_sum[token + 8, expert + 1] += r_sum[s + 3]
        cuda.syncthreads()  # why: all threads write what the last warp has added to
        for i in range(cuda.threadIdx.x, BLOCK_TOKENS * block_experts, TENSOR_THREADS):
            token, expert = i // block_experts, i % block_experts
            if first_token + token < T and first_expert + expert < E:
                logits[first_token + token, first_expert + expert] = s_sum[token, expert]

    return project_kernel


def choose_tiles_n(num_tokens: int, num_experts: int, num_sms: int) -> int:
    """Tiles of 8 experts for a block on tensor cores: as many as there are, up to 8, so that x is read once.

    Where that leaves half of the SMs without a block, halving the tiles doubles the blocks.
    """
    tiles_n = MOST_TILES_N
    blocks = ceil_div(num_tokens, BLOCK_TOKENS)
    while tiles_n > 1 and (
        num_experts <= MMA_EXPERTS * tiles_n // 2
        or 2 * blocks * ceil_div(num_experts, MMA_EXPERTS * tiles_n) <= num_sms
    ):
        tiles_n //= 2
    return tiles_n


def allocate_logits(x: Any, w: Any, logits: Any = None) -> tuple[Any, Any, Any]:
    """x, w and logits of a projection on the device, checked; arguments are those of `prepare_project`."""
    x, w = to_device(x), to_device(w)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1] or not x.shape[1]:
        raise ProblemError(
            f"x must be [T, D] and w [E, D] with the same D, got {tuple(x.shape)} and {tuple(w.shape)}"
        )
    if w.dtype != np.float32:
        raise ProblemError(f"the router's weights are {w.dtype}: it computes in float32 whatever x is")
    if x.dtype.itemsize < 2:
        raise ProblemError(f"x is {x.dtype}: the router computes from 16 or 32 bits")
    if logits is None:
        logits = cuda.device_array((x.shape[0], w.shape[0]), np.float32)
    if tuple(logits.shape) != (x.shape[0], w.shape[0]) or logits.dtype != np.float32:
        raise ProblemError(f"logits must be float32 {(x.shape[0], w.shape[0])}")
    return x, w, logits


def prepare_project(x: Any, w: Any, logits: Any = None) -> tuple[Launch | None, Any]:
    """Prepare the router's projection, logits = x @ w.T with float32 weights and sums.

    Args:
        x: [T, D], host or device: float32, float16 or bfloat16.
        w: float32 [E, D], host or device.
        logits: float32 [T, E] on the device, None to allocate it.

    Returns:
        The launch (None without tokens), and logits.

    Raises:
        ProblemError: shapes or dtypes do not match.
    """
    x, w, logits = allocate_logits(x, w, logits)
    dtype, vector, num_units = units_of(x, x, w)
    if not x.shape[0]:
        return None, logits
    arguments = (as_units(x, vector), w, num_units, logits)
    chosen = device.choose()
    if dtype == "bfloat16" and vector and chosen.compute_capability >= (8, 0):
        tiles_n = choose_tiles_n(x.shape[0], w.shape[0], chosen.num_sms)
        grid = ceil_div(x.shape[0], BLOCK_TOKENS), ceil_div(w.shape[0], MMA_EXPERTS * tiles_n)
        return Launch(make_project_on_tensor_cores(tiles_n), grid, TENSOR_THREADS, arguments), logits
    num_blocks = ceil_div(x.shape[0], TOKENS * THREADS // 32)
    return Launch(make_project(dtype, vector), num_blocks, THREADS, arguments), logits
