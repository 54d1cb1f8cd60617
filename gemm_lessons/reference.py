"""NumPy oracles: the grouped GEMM in as few lines as a reader needs to believe it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.problem import Inputs

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
