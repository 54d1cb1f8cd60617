"""The layer in NumPy, dense: what every kernel and every fusion of `moe.layer` is checked against.

    y[t] = sum over experts e of gate[t, e] * down[e] @ (silu(gate_w[e] @ x[t]) * (up_w[e] @ x[t]))

Nothing is sorted, gathered or dropped here: a token that an expert does not get has weight 0 there.  This
module needs NumPy only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gemm_lessons.compare import SIGMAS, WGMMA_E4M3_BITS, output_dtype, tolerance
from gemm_lessons.quantize import BLOCK

Array = np.ndarray[Any, Any]


class Weights(NamedTuple):
    """An expert layer's weights, as nn.Linear stores them.

    Attributes:
        gate: [num_experts, hidden, width].
        up: [num_experts, hidden, width].
        down: [num_experts, width, hidden].
    """

    gate: Array
    up: Array
    down: Array


def gates_of(experts: Array, weights: Array, num_experts: int) -> Array:
    """A routing as one matrix: float64 [num_tokens, num_experts], 0 where a token does not go."""
    gates = np.zeros((len(experts), num_experts))
    tokens, slots = np.nonzero(experts >= 0)
    np.add.at(gates, (tokens, experts[tokens, slots]), weights[tokens, slots])
    return gates


def silu(values: Array) -> Array:
    """SiLU: values / (1 + exp(-values))."""
    with np.errstate(over="ignore"):  # exp overflows to inf where the result is 0
        result: Array = values / (1 + np.exp(-values))
    return result


def layer(x: Array, weights: Weights, gates: Array) -> Array:
    """Every expert on every token, weighed: float64 [num_tokens, width].

    Args:
        x: tokens [num_tokens, width].
        weights: of the experts.
        gates: [num_tokens, num_experts], see `gates_of`.
    """
    y = np.zeros(x.shape)
    for e in range(len(weights.gate)):
        here = gates[:, e] != 0  # why not all tokens times 0: what is not a number would spread
        tokens = x[here].astype(np.float64)
        gate, up = (tokens @ w[e].astype(np.float64).T for w in (weights.gate, weights.up))
        y[here] += gates[here, e : e + 1] * (silu(gate) * up @ weights.down[e].astype(np.float64).T)
    return y


def layer_tolerance(x: Array, weights: Weights, gates: Array, dtype: str) -> Array:
    """How far the layer's output may be from `layer`, elementwise, if every product is within `tolerance`.

    An error of gate or up reaches hidden through the derivatives of silu(gate) * up, of which that of silu
    is at most 1.1; hidden is rounded when it is stored.  The errors of a row of hidden are independent
    and of either sign, so they add up in the down product like a random walk of steps that are at most so
    large: variance bound ** 2 / 3 (uniform).  A token's outputs are stored, rounded, weighed and added.

    Args:
        x: tokens [num_tokens, width].
        weights: of the experts.
        gates: [num_tokens, num_experts].
        dtype: of x and the weights.

    Returns:
        [num_tokens, width], the largest |got - want| that a right kernel may have.
    """
    unit = unit_of(dtype)
    allowed, total = np.zeros(x.shape), np.zeros(x.shape)
    for e in range(len(weights.gate)):
        here = gates[:, e] != 0
        tokens = x[here].astype(np.float32)
        gate, gate_error = _product(tokens, weights.gate[e], dtype)
        up, up_error = _product(tokens, weights.up[e], dtype)
        hidden = silu(gate) * up
        hidden_error = 1.1 * np.abs(up) * gate_error + np.abs(silu(gate)) * up_error + unit * np.abs(hidden)
        if dtype == "float8_e4m3fn":  # half a unit of e4m3, and of its smallest step, which the scale sets
            hidden_error += 2.0**-4 * np.abs(hidden) + 2.0**-18 * np.abs(hidden).max(axis=1, keepdims=True)
        out, out_error = _product(hidden, weights.down[e], dtype)
        down = weights.down[e].astype(np.float32)
        out_error += SIGMAS / np.sqrt(3) * np.sqrt(np.square(hidden_error) @ np.square(down).T)
        weight = np.abs(gates[here, e : e + 1])
        allowed[here] += weight * (out_error + unit * np.abs(out))
        total[here] += weight * np.abs(out)
    return allowed + unit * total


def unit_of(dtype: str) -> float:
    """Half a unit in the last place of a stored value; in float32 more, for what silu's shortcuts are off."""
    return 2.0**-8 if output_dtype(dtype).itemsize == 2 else 2.0**-20


def _product(x: Array, w: Array, dtype: str) -> tuple[Array, Array]:
    """The product x @ w.T, and how far a right kernel may be from it; float32 is enough for a bound."""
    w = w.astype(np.float32)
    want, spread = x @ w.T, np.sqrt(np.square(x) @ np.square(w).T)
    allowed = tolerance(want, spread, w.shape[1], dtype)
    if dtype == "float8_e4m3fn":  # tensor cores keep fewer bits in the sums of 128 products of e4m3
        allowed = allowed + SIGMAS * 2.0**-WGMMA_E4M3_BITS * np.sqrt(min(w.shape[1], BLOCK)) * spread
    return want, allowed
