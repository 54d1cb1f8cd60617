"""NumPy oracles: the grouped GEMM in as few lines as a reader needs to believe it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.problem import Inputs
from gemm_lessons.quantize import BLOCK, Quantized, QuantizedInputs, dequantize

Array = np.ndarray[Any, Any]


def grouped_gemm(x: Array, w: Array, offsets: Array) -> Array:
    """Every expert's rows times its own weights, in float64.

    Args:
        x: tokens [total_tokens, K], sorted by expert.
        w: weights [num_groups, N, K].
        offsets: [num_groups + 1], where each expert's rows begin.

    Returns:
        y [total_tokens, N] in float64.
    """
    y = np.empty((x.shape[0], w.shape[1]))
    for g in range(len(w)):
        rows = slice(offsets[g], offsets[g + 1])
        y[rows] = x[rows].astype(np.float64) @ w[g].astype(np.float64).T
    return y


def grouped_gemm_rows(inputs: Inputs, offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Some rows of the grouped GEMM, and how large the terms are that they add up.

    Args:
        inputs: x [total_tokens, K] and w [num_groups, N, K].
        offsets: [num_groups + 1].
        rows: the rows of y that are wanted, ascending.

    Returns:
        y [len(rows), N], and [len(rows), N] with the root of the sum over k of (x * w) ** 2; float64.
    """
    num_features = inputs.w.shape[1]
    y, spread = np.empty((len(rows), num_features)), np.empty((len(rows), num_features))
    group_of_row = np.searchsorted(offsets, rows, side="right") - 1
    for g in np.unique(group_of_row):
        here = group_of_row == g
        x, w = inputs.x[rows[here]].astype(np.float64), inputs.w[g].astype(np.float64)
        y[here] = x @ w.T
        spread[here] = np.sqrt(np.square(x) @ np.square(w).T)
    return y, spread


def scaled_grouped_gemm(inputs: QuantizedInputs, offsets: Array) -> Array:
    """The grouped GEMM of FP8 inputs with scales: multiply what they stand for, float64 [total_tokens, N]."""
    return grouped_gemm(dequantize(inputs.x), dequantize(inputs.w), offsets)


def scaled_grouped_gemm_rows(inputs: QuantizedInputs, offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Some rows of the grouped GEMM of FP8 inputs, by DeepSeek-V3's recipe: 128 terms of K at a time.

    The products of 128 values are summed, the sum is multiplied by both scales and added to the output.
    In float64 the order changes nothing; it is the sizes of the partial sums that the tolerance needs.

    Args:
        inputs: x [total_tokens, K] and w [num_groups, N, K] with scales, in blocks of any size.
        offsets: [num_groups + 1].
        rows: the rows of y that are wanted, ascending.

    Returns:
        y [len(rows), N], and [len(rows), N] with the root of the sum, over the partial sums of y, of
        their squares and of the squares of their terms; float64.
    """
    values, scales, (block_rows, block_columns), _ = inputs.x
    x = dequantize(Quantized(values[rows], scales[rows // block_rows], (1, block_columns)))
    num_features = inputs.w.values.shape[1]
    y, squares = np.zeros((len(rows), num_features)), np.zeros((len(rows), num_features))
    group_of_row = np.searchsorted(offsets, rows, side="right") - 1
    for g in np.unique(group_of_row):
        here = np.flatnonzero(group_of_row == g)
        w = dequantize(inputs.w._replace(values=inputs.w.values[g], scales=inputs.w.scales[g]))
        for k in range(0, x.shape[1], BLOCK):
            x_part, w_part = x[here, k : k + BLOCK], w[:, k : k + BLOCK]
            partial = x_part @ w_part.T
            y[here] += partial
            squares[here] += np.square(partial) + np.square(x_part) @ np.square(w_part).T
    return y, np.sqrt(squares)
