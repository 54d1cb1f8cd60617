"""SwiGLU between the two matrix products of an expert: hidden = silu(gate) * up, silu(v) = v / (1 + exp(-v)).

The grouped GEMM before it computes gate and up at once, with weights whose rows alternate in pieces:

    columns of gate_up   | gate 0..7 | up 0..7 | gate 8..15 | up 8..15 | ...      `PIECE` = 8
    columns of hidden    | 0..7                | 8..15                 | ...

so that a thread finds a gate and its up next to each other, in memory as in the registers of a tensor-core
GEMM, whose epilogue can then do all this before anything is written (see `swiglu_epilogue`).

How many rows there are lives on the device: rows from offsets[num_experts] on are neither read nor written.
Shazeer, "GLU Variants Improve Transformer", 2020.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch
from gemm_lessons.problem import ProblemError
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.convert import max_magnitude
from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.matrix import pack_bf16, unpack_bf16
from gemm_lessons.ptx.shared import ld_global_v4, st_global_v4
from gemm_lessons.ptx.special_functions import ex2_approx, rcp_approx
from gemm_lessons.quantize import BLOCK, ROW_BLOCK, Quantized
from gemm_lessons.quantize_kernels import ALL_LANES, make_piece_functions, scale_of
from gemm_lessons.schedule import ceil_div

device.choose()

from numba import cuda, float32  # noqa: E402  why late: the device is chosen before Numba is imported

SIGNATURES = {
    "float32": "void(float32[:, ::1], int32[::1], int32[::1], float32[::1], float32[:, ::1])",
    "bfloat16": "void(uint16[:, ::1], int32[::1], int32[::1], float32[::1], uint16[:, ::1])",
}
QUANTIZING_SIGNATURE = "void(uint16[:, ::1], int32[::1], uint8[:, ::1], float32[:, ::1])"

PIECE = 8  # gate rows, then as many up rows: 16 bytes of bfloat16, and what a lane of wgmma has both of
THREADS = 256
_MINUS_LOG2_E = np.float32(-1.4426950408889634)


def piece_of(hidden: int) -> int:
    """How many gate rows lie together: `PIECE`, or less where that does not divide the hidden width."""
    return math.gcd(hidden, PIECE)


def interleave(gate: Any, up: Any) -> np.ndarray[Any, Any]:
    """Stack the weights of gate and up so that their rows alternate in pieces.

    Args:
        gate: [num_experts, hidden, width], on the host.
        up: the same.

    Returns:
        [num_experts, 2 * hidden, width], of their dtype.

    Raises:
        ProblemError: their shapes or dtypes differ.
    """
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ProblemError(
            f"gate is {gate.dtype} {gate.shape} and up is {up.dtype} {up.shape}: use equal ones"
        )
    num_experts, hidden, width = gate.shape
    pieces = (num_experts, hidden // piece_of(hidden), piece_of(hidden), width)
    stacked: np.ndarray[Any, Any] = np.stack([gate.reshape(pieces), up.reshape(pieces)], axis=2)
    return stacked.reshape(num_experts, 2 * hidden, width)


def separate(stacked: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Gate and up of what `interleave` has stacked, [num_experts, hidden, width] each."""
    num_experts, rows, width = stacked.shape
    piece = piece_of(rows // 2)
    pieces = stacked.reshape(num_experts, rows // (2 * piece), 2, piece, width)
    gate, up = (pieces[:, :, i].reshape(num_experts, rows // 2, width) for i in (0, 1))
    return gate, up


@inlined
def silu(value):
    """SiLU, value / (1 + exp(-value)), in float32, a few units in the last place short of exact."""
    return value * rcp_approx(float32(1.0) + ex2_approx(value * _MINUS_LOG2_E))


@inlined
def swiglu_pair(gates, ups, weight):
    """Two gates and two ups as words of bfloat16 pairs: the pair of their hidden values, times weight."""
    gate_low, gate_high = unpack_bf16(gates)
    up_low, up_high = unpack_bf16(ups)
    return pack_bf16(silu(gate_low) * up_low * weight, silu(gate_high) * up_high * weight)


@cache
def make_kernel(dtype: str, piece: int = PIECE, weighted: bool = False) -> Any:
    """A row of blocks for each row: gate_up [capacity, 2 * hidden] to out [capacity, hidden].

    Its arguments: gate_up, offsets [num_experts + 1], source [capacity], weights [num_tokens * k], out.
    With `weighted`, a row is multiplied by what the router weighs it with, weights[source[row]]: the
    product with the down weights is linear, so the sum over a token's experts needs no weights any more.
    """

    @inlined
    def weight_of(source, weights, row):
        if not weighted:
            return float32(1.0)
        slot = source[row]
        return weights[slot] if slot >= 0 else float32(0.0)  # -1: padding, a row of no token

    @cuda.jit
    def swiglu_float32(gate_up, offsets, source, weights, out):
        row, col = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        if row < offsets[offsets.shape[0] - 1] and col < out.shape[1]:
            gate = col // piece * (2 * piece) + col % piece
            hidden = silu(gate_up[row, gate]) * gate_up[row, gate + piece]
            out[row, col] = hidden * weight_of(source, weights, row)

    @cuda.jit
    def swiglu_bf16(gate_up, offsets, source, weights, out):
        row, col = cuda.blockIdx.x, (cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x) * PIECE
        if row < offsets[offsets.shape[0] - 1] and col < out.shape[1]:
            weight = weight_of(source, weights, row)
            address = address_of(gate_up, (row, 2 * col))
            gates, ups = ld_global_v4(address, 1), ld_global_v4(address + 2 * PIECE, 1)
            st_global_v4(
                address_of(out, (row, col)),
                swiglu_pair(gates[0], ups[0], weight),
                swiglu_pair(gates[1], ups[1], weight),
                swiglu_pair(gates[2], ups[2], weight),
                swiglu_pair(gates[3], ups[3], weight),
            )

    return {"float32": swiglu_float32, "bfloat16": swiglu_bf16}[dtype]


@cache
def make_quantizing_kernel(instruction: bool) -> Any:
    """SwiGLU and quantisation by 1 x 128 in one pass; the bits are those of two, `swiglu_bf16` first.

    Its arguments: gate_up [capacity, 2 * hidden] as words of 16 bits, offsets [num_experts + 1], values
    [capacity, hidden] as bytes, scales [capacity, ceil(hidden / 128)].  Sixteen lanes share a scale.
    """
    largest, without_infinity, store = make_piece_functions(2, instruction)
    one = np.float32(1.0)

    @inlined
    def largest_of_block(a, b, c, d):
        amax = largest(float32(0.0), a, b, c, d)
        for exchange in range(4):
            amax = max_magnitude(amax, cuda.shfl_xor_sync(ALL_LANES, amax, 1 << exchange))
        return amax

    @cuda.jit
    def swiglu_quantize(gate_up, offsets, values, scales):
        row, thread = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        if row >= offsets[offsets.shape[0] - 1]:
            return
        col, block = thread * PIECE, thread >> 4
        inside = col < values.shape[1]
        address = address_of(gate_up, (row, 2 * col))
        gates, ups = ld_global_v4(address, inside), ld_global_v4(address + 2 * PIECE, inside)
        a, b = swiglu_pair(gates[0], ups[0], one), swiglu_pair(gates[1], ups[1], one)
        c, d = swiglu_pair(gates[2], ups[2], one), swiglu_pair(gates[3], ups[3], one)
        amax = largest_of_block(a, b, c, d)
        if cuda.any_sync(ALL_LANES, amax == float32(np.inf)):  # rare; the whole warp, for the shuffles
            a, b, c, d = without_infinity(a, b, c, d)
            amax = largest_of_block(a, b, c, d)
        scale = scale_of(amax)
        if inside:
            store(address_of(values, (row, col)), a, b, c, d, float32(1.0) / scale)
            if thread & 15 == 0:
                scales[row, block] = scale

    return swiglu_quantize


def bind_quantizing(gate_up: Any, offsets: Any, out: Quantized) -> Launch | None:
    """Prepare SwiGLU that writes FP8 values and scales; None if there are no rows.

    Args:
        gate_up: bfloat16 device array [capacity, 2 * hidden], its columns in alternating pieces.
        offsets: int32 device array [num_experts + 1]; the last one is how many rows there are.
        out: values [capacity, hidden] and scales [capacity, ceil(hidden / 128)] on the device.

    Raises:
        ProblemError: shapes or dtypes that do not fit.
    """
    capacity, hidden = out.values.shape
    if tuple(gate_up.shape) != (capacity, 2 * hidden) or gate_up.dtype.name != "bfloat16" or hidden % PIECE:
        raise ProblemError(
            f"gate_up is {gate_up.dtype} {tuple(gate_up.shape)}: it must be bfloat16"
            f" {(capacity, 2 * hidden)}, with a hidden width that is a multiple of {PIECE}"
        )
    if out.block != ROW_BLOCK or tuple(out.scales.shape) != (capacity, ceil_div(hidden, BLOCK)):
        raise ProblemError(f"scales are {tuple(out.scales.shape)} for blocks of {out.block}: use 1 x {BLOCK}")
    if not capacity:
        return None
    columns = ceil_div(hidden, BLOCK) * (BLOCK // PIECE)  # why whole blocks: their lanes exchange maxima
    threads = min(THREADS, ceil_div(columns, 32) * 32)
    kernel = make_quantizing_kernel(device.choose().compute_capability >= (8, 9))
    arguments = (gate_up.view(np.uint16), offsets, out.values.view(np.uint8), out.scales)
    return Launch(kernel, (capacity, ceil_div(columns, threads)), threads, arguments)


def bind(gate_up: Any, offsets: Any, out: Any, source: Any = None, weights: Any = None) -> Launch | None:
    """Prepare the launch for arrays that exist; None if there are no rows.

    Args:
        gate_up: device array [capacity, 2 * hidden], its columns in alternating pieces.
        offsets: int32 device array [num_experts + 1]; the last one is how many rows there are.
        out: device array [capacity, hidden], of gate_up's dtype.
        source: int32 device array [capacity], the slot that each row came from; None for no weights.
        weights: float32 device array [num_tokens, k], of the router; None for no weights.

    Raises:
        ProblemError: shapes or dtypes that do not fit.
    """
    capacity, hidden = out.shape
    dtype = out.dtype.name
    if tuple(gate_up.shape) != (capacity, 2 * hidden) or gate_up.dtype != out.dtype:
        raise ProblemError(
            f"gate_up is {gate_up.dtype} {tuple(gate_up.shape)}, and out {dtype} {(capacity, hidden)}"
            f" needs {dtype} {(capacity, 2 * hidden)}"
        )
    if dtype not in SIGNATURES:
        raise ProblemError(f"the activation is {dtype}: use {' or '.join(SIGNATURES)}")
    if dtype == "bfloat16" and hidden % PIECE:
        raise ProblemError(
            f"the hidden width is {hidden}: in bfloat16 it must be a multiple of {PIECE};"
            f" pad it to {ceil_div(hidden, PIECE) * PIECE}"
        )
    if not capacity:
        return None
    weighted = source is not None and weights is not None
    if not weighted:
        source, weights = cuda.to_device(np.zeros(1, np.int32)), cuda.to_device(np.zeros(1, np.float32))
    else:
        weights = weights.reshape(weights.size)
    columns = hidden
    if dtype == "bfloat16":
        columns = hidden // PIECE
        gate_up, out = gate_up.view(np.uint16), out.view(np.uint16)
    threads = min(THREADS, ceil_div(columns, 32) * 32)
    kernel = make_kernel(dtype, piece_of(hidden), weighted)
    grid = (capacity, ceil_div(columns, threads))
    return Launch(kernel, grid, threads, (gate_up, offsets, source, weights, out))
