"""An MoE layer forward and back in NumPy: what every gradient is, in as few lines as can be believed.

    forward                                     backward, in the opposite order
    ------------------------------------------  -------------------------------------------------------
    p       = softmax(x @ router.T)             dx        = sum of its rows + d_logits @ router
    experts, weights = top-k of p               d_router  = d_logits.T @ x
    rows    = x[token_of], sorted by expert     d_logits  = back through top-k and softmax
    gate_up = rows @ gate_up[g].T               d_rows    = d_gate_up @ gate_up[g]              dgrad
    hidden  = silu(gate) * up                   d_w       = d_gate_up_g.T @ rows_g              wgrad
    out     = hidden @ down[g].T                d_hidden  = d_out @ down[g]                     dgrad
    y[t]    = sum of weight * out               d_down    = d_out_g.T @ hidden_g                wgrad
                                                d_out     = weight * dy[token_of]
                                                d_weight  = dy[token_of] . out

Three grouped GEMMs for each one of the forward pass: itself, dgrad and wgrad. What does the arithmetic is an
argument: `ORACLE` is NumPy in the dtype of its inputs, float64 for gradient checks; `KERNELS` of
`backward_kernels` computes in float32. Nothing here is written for speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gemm_lessons.problem import ProblemError, counts_to_offsets

Array = np.ndarray[Any, Any]


class Weights(NamedTuple):
    """The layer's parameters, or their gradients.

    router [E, D]; gate_up [E, 2 F, D], an expert's gate in the first F rows and its up in the others;
    down [E, D, F]. E experts, width D, hidden width F.
    """

    router: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True)
class Saved:
    """What the forward pass keeps for the way back; R rows, one for each slot of a token that has an expert.

    Attributes:
        x: [T, D].
        probabilities: [T, E], all experts'.
        experts: int [T, k], the choice.
        weights: [T, k], what the chosen count for.
        renormalised: whether these were divided by their sum.
        row_of: int [T, k], each slot's row among those sorted by expert; -1 if it was dropped.
        token_of: int [R], each row's token.
        offsets: int32 [E + 1], where each expert's rows begin.
        rows: [R, D], tokens sorted by expert.
        gate_up: [R, 2 F].
        hidden: [R, F].
        out: [R, D], not yet weighted.
    """

    x: Array
    probabilities: Array
    experts: Array
    weights: Array
    renormalised: bool
    row_of: Array
    token_of: Array
    offsets: Array
    rows: Array
    gate_up: Array
    hidden: Array
    out: Array


class Operations(NamedTuple):
    """What does the arithmetic; host arrays in, host arrays out. `ORACLE` says what each one computes."""

    gemm: Callable[[Array, Array, Array], Array]
    dgrad: Callable[[Array, Array, Array], Array]
    wgrad: Callable[[Array, Array, Array], Array]
    combine_backward: Callable[[Array, Array, Array, Array], tuple[Array, Array]]
    swiglu_backward: Callable[[Array, Array], Array]
    sum_rows: Callable[[Array, Array], Array]
    router_backward: Callable[[Array, Array, Array, Array, bool], Array]


# --- what each operation is, in the dtype of its inputs -----------------------------------------------


def gemm(x: Array, w: Array, offsets: Array) -> Array:
    """y[rows of g] = x[rows of g] @ w[g].T: x [R, K], w [E, N, K]; returns [R, N]."""
    y = np.empty((len(x), w.shape[1]), x.dtype)
    for g in range(len(w)):
        rows = slice(offsets[g], offsets[g + 1])
        y[rows] = x[rows] @ w[g].T
    return y


def dgrad(dy: Array, w: Array, offsets: Array) -> Array:
    """dx[rows of g] = dy[rows of g] @ w[g]: dy [R, N], w [E, N, K]; returns [R, K]."""
    dx = np.empty((len(dy), w.shape[2]), dy.dtype)
    for g in range(len(w)):
        rows = slice(offsets[g], offsets[g + 1])
        dx[rows] = dy[rows] @ w[g]
    return dx


def wgrad(dy: Array, x: Array, offsets: Array) -> Array:
    """dw[g] = dy[rows of g].T @ x[rows of g]: dy [R, N], x [R, K]; returns [E, N, K], zero without rows."""
    dw = np.empty((len(offsets) - 1, dy.shape[1], x.shape[1]), dy.dtype)
    for g in range(len(dw)):
        rows = slice(offsets[g], offsets[g + 1])
        dw[g] = dy[rows].T @ x[rows]
    return dw


def swiglu(gate_up: Array) -> Array:
    """silu(gate) * up with silu(v) = v / (1 + exp(-v)): gate_up [R, 2 F]; returns [R, F]."""
    gate, up = np.split(gate_up, 2, axis=1)
    return gate * sigmoid(gate) * up


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-values))."""
    with np.errstate(over="ignore"):  # exp overflows to infinity where the result is 0
        result: Array = 1 / (1 + np.exp(-values))
    return result


def swiglu_backward(gate_up: Array, d_hidden: Array) -> Array:
    """The gradient of gate and up, [R, 2 F], from that of silu(gate) * up.

    With s = 1 / (1 + exp(-gate)), silu is gate * s and its derivative s * (1 + gate * (1 - s)).
    """
    gate, up = np.split(gate_up, 2, axis=1)
    s = sigmoid(gate)
    return np.concatenate([d_hidden * up * s * (1 + gate * (1 - s)), d_hidden * gate * s], axis=1)


def combine_backward(dy: Array, out: Array, weights: Array, token_of: Array) -> tuple[Array, Array]:
    """Back through y[t] = sum of weight * out: dy [T, D], out [R, D], weights [R], token_of [R].

    Returns:
        d_out [R, D] and d_weights [R].
    """
    of_row = dy[token_of]
    return weights[:, np.newaxis] * of_row, np.sum(of_row * out, axis=1)


def sum_rows(rows: Array, row_of: Array) -> Array:
    """Each token's sum over its slots' rows, back through the gather: rows [R, D], row_of [T, k] or -1."""
    total = np.zeros((len(row_of), rows.shape[1]), rows.dtype)
    for slot in row_of.T:
        total[slot >= 0] += rows[slot[slot >= 0]]
    return total


def router_backward(
    probabilities: Array, experts: Array, weights: Array, d_weights: Array, renormalised: bool
) -> Array:
    """The gradient of the logits, [T, E], from that of the chosen experts' weights, [T, k].

    Renormalised: weight = p / s with s the sum of the chosen p, and so
    dp = (d_weight - sum(d_weight * weight)) / s.
    An expert that was not chosen has dp = 0.
    The choice itself has no gradient: a small change of the logits does not change it.
    """
    chosen = np.take_along_axis(probabilities, experts, axis=1)
    if renormalised:
        mean = np.sum(d_weights * weights, axis=1, keepdims=True)
        d_weights = (d_weights - mean) / np.sum(chosen, axis=1, keepdims=True)
    dp = np.zeros_like(probabilities)
    np.put_along_axis(dp, experts, d_weights, axis=1)
    return softmax_backward(probabilities, dp)


def softmax_backward(probabilities: Array, dp: Array) -> Array:
    """The gradient of the logits from that of their softmax, both [T, E]."""
    d_logits: Array = probabilities * (dp - np.sum(probabilities * dp, axis=1, keepdims=True))
    return d_logits


ORACLE = Operations(
    gemm, dgrad, wgrad, combine_backward, swiglu_backward, sum_rows, router_backward
)  # fmt: skip


# --- the layer ----------------------------------------------------------------------------------------


def forward(
    weights: Weights,
    x: Array,
    top_k: int,
    operations: Operations = ORACLE,
    *,
    renormalise: bool = True,
) -> tuple[Array, Saved]:
    """The layer on tokens x [T, D]: y [T, D], and what the way back needs.

    Every token goes to the top_k experts with the largest probabilities, among equals those with the
    smaller number. No token is dropped.

    Raises:
        ProblemError: top_k is not between 1 and the number of experts, or x is not as wide as the router.
    """
    num_experts = len(weights.router)
    if not 1 <= top_k <= num_experts:
        raise ProblemError(f"top_k is {top_k}: use 1 to {num_experts}, the number of experts")
    if x.ndim != 2 or x.shape[1] != weights.router.shape[1]:
        raise ProblemError(f"x has shape {x.shape}, the router needs [T, {weights.router.shape[1]}]")
    logits = x @ weights.router.T
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    experts = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(probabilities, experts, axis=1)
    if renormalise:
        chosen = chosen / chosen.sum(axis=1, keepdims=True)

    slots = np.argsort(experts.reshape(-1), kind="stable")  # slots in the order of their experts
    row_of = np.empty(experts.shape, np.int32)
    row_of.flat[slots] = np.arange(slots.size)
    token_of = (slots // top_k).astype(np.int32)
    offsets = counts_to_offsets(np.bincount(experts.reshape(-1), minlength=num_experts).tolist())

    rows = x[token_of]
    gate_up = operations.gemm(rows, weights.gate_up, offsets)
    hidden = swiglu(gate_up)
    out = operations.gemm(hidden, weights.down, offsets)
    y = np.einsum("tk,tkd->td", chosen, out[row_of])
    saved = Saved(
        x, probabilities, experts, chosen, renormalise, row_of, token_of, offsets, rows, gate_up, hidden, out
    )
    return y, saved


def backward(
    weights: Weights,
    saved: Saved,
    dy: Array,
    operations: Operations = ORACLE,
    *,
    d_probabilities: Array | None = None,
) -> tuple[Array, Weights]:
    """The gradients of a scalar, given dy [T, D], its gradient with respect to the layer's output.

    Args:
        weights: of the forward pass.
        saved: what it kept.
        dy: [T, D].
        operations: what does the arithmetic.
        d_probabilities: [T, E], what reaches the probabilities by another way, such as a balance loss.

    Returns:
        dx [T, D], and the gradient of every weight in the weights' shapes.

    Raises:
        ProblemError: dy does not have the shape of x.
    """
    if dy.shape != saved.x.shape:
        raise ProblemError(f"dy has shape {dy.shape}, the layer's output has {saved.x.shape}")
    kept = saved.row_of >= 0
    weight_of_row = np.empty(len(saved.rows), saved.weights.dtype)
    weight_of_row[saved.row_of[kept]] = saved.weights[kept]
    d_out, d_weight_of_row = operations.combine_backward(dy, saved.out, weight_of_row, saved.token_of)

    d_hidden = operations.dgrad(d_out, weights.down, saved.offsets)
    d_down = operations.wgrad(d_out, saved.hidden, saved.offsets)
    d_gate_up = operations.swiglu_backward(saved.gate_up, d_hidden)
    d_rows = operations.dgrad(d_gate_up, weights.gate_up, saved.offsets)
    d_weights_gate_up = operations.wgrad(d_gate_up, saved.rows, saved.offsets)

    d_weights = np.zeros_like(saved.weights)
    d_weights[kept] = d_weight_of_row[saved.row_of[kept]]
    d_logits = operations.router_backward(
        saved.probabilities, saved.experts, saved.weights, d_weights, saved.renormalised
    )
    if d_probabilities is not None:
        d_logits = d_logits + softmax_backward(saved.probabilities, d_probabilities)
    everybody = np.array([0, len(saved.x)], np.int32)  # the router is a group of its own, with all tokens
    d_router = operations.wgrad(d_logits, saved.x, everybody)[0]
    dx = operations.sum_rows(d_rows, saved.row_of)
    dx = dx + operations.dgrad(d_logits, weights.router[np.newaxis], everybody)
    return dx, Weights(d_router, d_weights_gate_up, d_down)
