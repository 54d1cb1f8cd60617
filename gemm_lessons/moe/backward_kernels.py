"""The operations of `backward` as kernels in float32, on host arrays.

dgrad and wgrad are the grouped GEMMs of their own modules; what is left reads every element once and is
bound by memory. Each writes an element from one thread and adds up in a fixed order, so that a training
step has the same bits in every run: where a token's gradient is a sum over its experts, the token collects
it, instead of the experts adding to it with atomics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS
from gemm_lessons.launch import Launch, launch_parts, to_device
from gemm_lessons.moe import dgrad as dgrad_step
from gemm_lessons.moe import wgrad as wgrad_step
from gemm_lessons.moe.backward import Array, Operations
from gemm_lessons.moe.gradient import chosen_config
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.schedule import ceil_div
from gemm_lessons.steps import tiled

device.choose()

from numba import cuda, float32  # noqa: E402  why late: the device is chosen before Numba is imported

THREADS = 128
LANES = 32
ALL_LANES = 0xFFFFFFFF

COMBINE_SIGNATURE = (
    "void(float32[:, ::1], float32[:, ::1], float32[::1], int32[::1], float32[:, ::1], float32[::1])"
)
SWIGLU_SIGNATURE = "void(float32[:, ::1], float32[:, ::1], float32[:, ::1])"
SUM_SIGNATURE = "void(float32[:, ::1], int32[:, ::1], float32[:, ::1])"
ROUTER_SIGNATURE = "void(float32[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])"


@cuda.jit
def combine_backward_kernel(dy, out, weights, token_of, d_out, d_weights):
    """A warp for each row: d_out = weight * dy of its token, and d_weight = dy . out."""
    row, lane = cuda.blockIdx.x, cuda.threadIdx.x
    token, weight = token_of[row], weights[row]
    acc = float32(0.0)
    for col in range(lane, dy.shape[1], LANES):
        gradient = dy[token, col]
        d_out[row, col] = weight * gradient
        acc += gradient * out[row, col]
    # A tree over the lanes: always the same additions in the same order.
    for distance in (16, 8, 4, 2, 1):
        acc += cuda.shfl_down_sync(ALL_LANES, acc, distance)
    if lane == 0:
        d_weights[row] = acc


@cuda.jit
def swiglu_backward_kernel(gate_up, d_hidden, d_gate_up):
    """A thread for each element of hidden: the gradients of its gate and its up."""
    row, col = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    width = d_hidden.shape[1]
    if col < width:
        gate, up, gradient = gate_up[row, col], gate_up[row, width + col], d_hidden[row, col]
        s = float32(1.0) / (float32(1.0) + math.exp(-gate))
        d_gate_up[row, col] = gradient * up * s * (float32(1.0) + gate * (float32(1.0) - s))
        d_gate_up[row, width + col] = gradient * gate * s


@cuda.jit
def sum_rows_kernel(rows, row_of, total):
    """A thread for each element of a token: the sum of its rows, in the order of its slots."""
    token, col = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if col < total.shape[1]:
        acc = float32(0.0)
        for slot in range(row_of.shape[1]):
            row = row_of[token, slot]
            if row >= 0:
                acc += rows[row, col]
        total[token, col] = acc


@cache
def make_router_backward(renormalised: bool) -> Any:
    """A thread for each token: back through the top-k's weights and the softmax.

    Args:
        renormalised: whether the weights were divided by their sum.
    """

    @cuda.jit
    def router_backward_kernel(probabilities, experts, weights, d_weights, d_logits):
        token = cuda.grid(1)
        if token < d_logits.shape[0]:
            mean, total = float32(0.0), float32(1.0)
            if renormalised:
                total = float32(0.0)
                for slot in range(experts.shape[1]):
                    mean += d_weights[token, slot] * weights[token, slot]
                    total += probabilities[token, experts[token, slot]]
            inner = float32(0.0)
            for slot in range(experts.shape[1]):
                dp = (d_weights[token, slot] - mean) / total
                inner += probabilities[token, experts[token, slot]] * dp
            for expert in range(d_logits.shape[1]):
                d_logits[token, expert] = -probabilities[token, expert] * inner
            # No expert is chosen twice, so an element gets at most one of these.
            for slot in range(experts.shape[1]):
                expert = experts[token, slot]
                dp = (d_weights[token, slot] - mean) / total
                d_logits[token, expert] += probabilities[token, expert] * dp

    return router_backward_kernel


def gemm(x: Array, w: Array, offsets: Array) -> Array:
    """`backward.gemm` with the step `tiled`."""
    prepared = tiled.prepare(_problem(offsets, w.shape[1], w.shape[2]), inputs=Inputs(x, w))
    launch_parts(prepared)
    y: Array = prepared.result()[NUM_GUARD_ROWS : NUM_GUARD_ROWS + len(x)]
    return y


def dgrad(dy: Array, w: Array, offsets: Array) -> Array:
    """`backward.dgrad` with the kernel of `moe.dgrad`."""
    problem = _problem(offsets, w.shape[1], w.shape[2])
    dx = np.empty((len(dy), w.shape[2]), np.float32)
    if dx.size:
        _enqueue(partial(dgrad_step.make_launch, problem, chosen_config()), (dy, w), dx)
    return dx


def wgrad(dy: Array, x: Array, offsets: Array) -> Array:
    """`backward.wgrad` with the kernel of `moe.wgrad`."""
    problem = _problem(offsets, dy.shape[1], x.shape[1])
    dw = np.empty((problem.num_groups, problem.N, problem.K), np.float32)
    _enqueue(partial(wgrad_step.make_launch, problem, chosen_config()), (dy, x), dw)
    return dw


def combine_backward(dy: Array, out: Array, weights: Array, token_of: Array) -> tuple[Array, Array]:
    """`backward.combine_backward` with a warp for each row."""
    d_out, d_weights = np.empty_like(out), np.empty_like(weights)
    _run(combine_backward_kernel, len(out), LANES, (dy, out, weights, token_of), d_out, d_weights)
    return d_out, d_weights


def swiglu_backward(gate_up: Array, d_hidden: Array) -> Array:
    """`backward.swiglu_backward` with a thread for each element of hidden."""
    d_gate_up = np.empty_like(gate_up)
    grid, block = _grid(d_hidden.shape)
    _run(swiglu_backward_kernel, grid, block, (gate_up, d_hidden), d_gate_up)
    return d_gate_up


def sum_rows(rows: Array, row_of: Array) -> Array:
    """`backward.sum_rows` with a thread for each element of the result."""
    total = np.empty((len(row_of), rows.shape[1]), np.float32)
    grid, block = _grid(total.shape)
    _run(sum_rows_kernel, grid, block, (rows, row_of), total)
    return total


def router_backward(
    probabilities: Array, experts: Array, weights: Array, d_weights: Array, renormalised: bool
) -> Array:
    """`backward.router_backward` with a thread for each token."""
    d_logits = np.empty_like(probabilities)
    arrays = (probabilities, experts.astype(np.int32), weights, d_weights)
    _run(make_router_backward(renormalised), ceil_div(len(probabilities), THREADS), THREADS, arrays, d_logits)
    return d_logits


KERNELS = Operations(
    gemm, dgrad, wgrad, combine_backward, swiglu_backward, sum_rows, router_backward
)  # fmt: skip


def _grid(shape: tuple[int, ...]) -> tuple[tuple[int, int], int]:
    """Grid and block for a thread for each element: a row of blocks for each row, of whole warps."""
    block = min(THREADS, ceil_div(shape[1], LANES) * LANES)
    return (shape[0], ceil_div(shape[1], block)), block


def _problem(offsets: Array, N: int, K: int) -> GroupedProblem:
    return GroupedProblem(tuple(np.diff(offsets).tolist()), N=N, K=K)


def _run(kernel: Any, grid: Any, block: int, arguments: tuple[Any, ...], *outputs: Array) -> None:
    """Launch a kernel once and fill the outputs, which are its last arguments."""
    if outputs[0].size:
        _enqueue(lambda *on_device: Launch(kernel, grid, block, on_device), arguments, *outputs)


def _enqueue(make_launch: Callable[..., Any], arguments: tuple[Any, ...], *outputs: Array) -> None:
    """Copy host arrays to the device, launch once, and copy the outputs back.

    Raises:
        ProblemError: an array is float64, which these kernels do not compute in.
    """
    for argument in arguments:
        if argument.dtype == np.float64:
            raise ProblemError("these kernels compute in float32 and were given float64: convert it first")
    everything = (*arguments, *outputs)
    on_device = [to_device(each) for each in everything]
    make_launch(*on_device)(None)
    for output, filled in zip(outputs, on_device[len(arguments) :], strict=True):
        filled.copy_to_host(output)
