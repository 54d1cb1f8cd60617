"""A grouped GEMM as numbers: token counts, N, K and dtype, and what follows from them.

    x        [total_tokens, K]   tokens, sorted by expert
    w        [num_groups, N, K]  one weight matrix per expert, as nn.Linear stores it
    offsets  [num_groups + 1]    expert g owns the rows offsets[g] to offsets[g + 1]
    y        [total_tokens, N]   y[o[g]:o[g+1]] = x[o[g]:o[g+1]] @ w[g].T

This module needs NumPy and ml_dtypes only: it runs everywhere and chooses no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

# Indices inside a matrix are 32-bit in the kernels, so that is as large as a tensor may get.
LARGEST_EXTENT = 2**31 - 1

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
}


class ProblemError(ValueError):
    """A grouped GEMM that makes no sense; the message holds the value and what to do."""


class Inputs(NamedTuple):
    """Host inputs of one problem: x [total_tokens, K] and w [num_groups, N, K]."""

    x: np.ndarray[Any, Any]
    w: np.ndarray[Any, Any]


def counts_to_offsets(counts: Sequence[int]) -> np.ndarray[Any, Any]:
    """Exclusive prefix sum of token counts: int32 [len(counts) + 1], starting at 0.

    Raises:
        ProblemError: a count is negative or the total does not fit into 32 bits.
    """
    for group, count in enumerate(counts):
        if count < 0:
            raise ProblemError(f"expert {group} has {count} tokens: a count cannot be negative")
    total = sum(counts)
    if total > LARGEST_EXTENT:
        raise ProblemError(f"{total} tokens do not fit into 32-bit offsets: use {LARGEST_EXTENT} at most")
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int32)


def check_offsets(offsets: np.ndarray[Any, Any], total_tokens: int) -> None:
    """Check that offsets start at 0, never fall and end at total_tokens.

    Raises:
        ProblemError: naming the first offset that is wrong.
    """
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or offsets.size < 2 or not np.issubdtype(offsets.dtype, np.integer):
        raise ProblemError(
            f"offsets must be integers of shape [num_groups + 1], got {offsets.dtype} {offsets.shape}"
        )
    if offsets[0] != 0:
        raise ProblemError(f"offsets must start at 0, but offsets[0] is {offsets[0]}")
    falls = np.flatnonzero(np.diff(offsets.astype(np.int64)) < 0)
    if falls.size:
        g = int(falls[0])
        raise ProblemError(
            f"offsets must not fall, but offsets[{g}] is {offsets[g]}"
            f" and offsets[{g + 1}] is {offsets[g + 1]}"
        )
    if offsets[-1] != total_tokens:
        raise ProblemError(
            f"offsets must end at the number of tokens, {total_tokens}, but the last is {offsets[-1]}"
        )


@dataclass(frozen=True)
class GroupedProblem:
    """Token counts per expert, the shared N and K, and a dtype.

    Attributes:
        counts: tokens of each expert; zeros are welcome.
        N: output features.
        K: input features.
        dtype: of x and w, one of `DTYPES`.
        name: a label for tables.

    Raises:
        ProblemError: on construction, for no experts, a negative count, N or K below 1, an unknown
            dtype, or a size beyond 32 bits.
    """

    counts: tuple[int, ...]
    N: int
    K: int
    dtype: str = "float32"
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(int(count) for count in self.counts))
        if not self.counts:
            raise ProblemError("a grouped GEMM needs at least one expert, but counts is empty")
        for label, value in (("N", self.N), ("K", self.K)):
            if not 1 <= value <= LARGEST_EXTENT:
                raise ProblemError(f"{label} is {value}: use 1 to {LARGEST_EXTENT}")
        if self.dtype not in DTYPES:
            raise ProblemError(f"dtype {self.dtype!r} is not known: use one of {', '.join(DTYPES)}")
        counts_to_offsets(self.counts)

    @property
    def num_groups(self) -> int:
        """Number of experts, empty ones included."""
        return len(self.counts)

    @property
    def total_tokens(self) -> int:
        """Rows of x and y."""
        return sum(self.counts)

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest expert: what padding rounds every expert up to."""
        return max(self.counts)

    @cached_property
    def offsets(self) -> np.ndarray[Any, Any]:
        """int32 [num_groups + 1]: where each expert's rows begin."""
        return counts_to_offsets(self.counts)

    @property
    def useful_flops(self) -> int:
        """2 * tokens * N * K: one multiply and one add for each term of each output."""
        return 2 * self.total_tokens * self.N * self.K

    @property
    def padded_flops(self) -> int:
        """FLOPs when every expert is padded to the longest one."""
        return 2 * self.num_groups * self.max_tokens * self.N * self.K

    @property
    def efficiency(self) -> float:
        """Useful over padded FLOPs, 0 to 1; 1.0 when there are no tokens and so nothing to waste."""
        return self.useful_flops / self.padded_flops if self.padded_flops else 1.0

    @property
    def least_bytes(self) -> int:
        """The fewest bytes that any kernel can move: each input read once, each output written once.

        Weights of empty experts need not be read.  Output is as wide as the input, except for FP8,
        which writes 16-bit results.
        """
        item = DTYPES[self.dtype].itemsize
        active = sum(count > 0 for count in self.counts)
        inputs = (self.total_tokens * self.K + active * self.N * self.K) * item
        return inputs + self.total_tokens * self.N * max(item, 2)

    def as_padded(self) -> GroupedProblem:
        """The same experts, each with as many tokens as the longest one."""
        return replace(self, counts=(self.max_tokens,) * self.num_groups, name=f"{self.name} padded".strip())

    def inputs(self, seed: int = 0) -> Inputs:
        """Random normal inputs, the same for the same seed on every machine.

        Returns:
            x [total_tokens, K] and w [num_groups, N, K], in this problem's dtype.
        """
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((self.total_tokens, self.K), dtype=np.float32)
        w = rng.standard_normal((self.num_groups, self.N, self.K), dtype=np.float32)
        return Inputs(x.astype(DTYPES[self.dtype], copy=False), w.astype(DTYPES[self.dtype], copy=False))

    def check_inputs(self, inputs: Inputs) -> None:
        """Check shapes and dtypes of x and w against this problem.

        Raises:
            ProblemError: naming the array, what it is and what it should be.
        """
        wanted = {
            "x": (inputs.x, (self.total_tokens, self.K)),
            "w": (inputs.w, (self.num_groups, self.N, self.K)),
        }
        for label, (array, shape) in wanted.items():
            if tuple(array.shape) != shape:
                raise ProblemError(f"{label} has shape {tuple(array.shape)}, this problem needs {shape}")
            if array.dtype != DTYPES[self.dtype]:
                raise ProblemError(f"{label} is {array.dtype}, this problem needs {self.dtype}")


def pad(x: np.ndarray[Any, Any], problem: GroupedProblem) -> np.ndarray[Any, Any]:
    """Spread x [total_tokens, any] over [num_groups * max_tokens, any]; the rows between hold zeros."""
    padded = np.zeros((problem.num_groups * problem.max_tokens, x.shape[1]), x.dtype)
    for group, count in enumerate(problem.counts):
        start = int(problem.offsets[group])
        first = group * problem.max_tokens
        padded[first : first + count] = x[start : start + count]
    return padded
