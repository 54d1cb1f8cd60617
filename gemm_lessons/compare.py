"""Compare a kernel's output with the oracle so that nothing wrong passes, and say what is wrong where.

    guard rows    poison, must stay as it was      -> a kernel that writes outside its output is caught
    y             poison, must all be overwritten  -> a kernel that forgets an element is caught
    guard rows    poison, must stay as it was

Poison is a NaN that no arithmetic produces.  NaN never passes, also not as a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs
from gemm_lessons.quantize import BLOCK, QuantizedInputs
from gemm_lessons.reference import grouped_gemm_rows, scaled_grouped_gemm_rows

Array = np.ndarray[Any, Any]
AnyInputs = Inputs | QuantizedInputs

NUM_GUARD_ROWS = 8

# Six standard deviations of the rounding-error model in `tolerance`: wrong once in a billion outputs
# even if the model had no slack, and it has: rounding is not always by half a unit.
SIGMAS = 6.0

# Significant bits of a sum of products: what float32 keeps, and what Hopper's tensor cores keep of a sum of
# e4m3 products (DeepSeek-V3, "Technical Report", 2024, section 3.3.2: "around 14 bits").
FLOAT32_BITS = 24
WGMMA_E4M3_BITS = 14

_POISON_BITS = {4: 0x7FC0DEAD, 2: 0x7FED}  # float32; float16 and bfloat16: quiet NaNs with a payload


def output_dtype(dtype: str) -> np.dtype[Any]:
    """What a kernel writes for inputs of this dtype: the same, or bfloat16 for FP8."""
    return DTYPES["bfloat16" if dtype == "float8_e4m3fn" else dtype]


def poisoned(num_rows: int, num_columns: int, dtype: np.dtype[Any]) -> Array:
    """A host array [num_rows, num_columns] that is poison in every element."""
    bits = np.dtype(f"u{dtype.itemsize}")
    return np.full((num_rows, num_columns), _POISON_BITS[dtype.itemsize], bits).view(dtype)


def is_poison(array: Array) -> Array:
    """Where an array still holds poison, bit for bit."""
    bits: Array = array.view(np.dtype(f"u{array.dtype.itemsize}")) == _POISON_BITS[array.dtype.itemsize]
    return bits


def tolerance(want: Array, spread: Array, K: int | Array, dtype: str) -> Array:
    """How far an output may be from the exact sum, elementwise.

    A dot product rounds K partial sums.  The error of each is at most half a unit in the last place, of
    either sign, so they add up like a random walk: sqrt(K) * u * (size of a partial sum).  That size
    is bounded by drift and spread together, sqrt(want ** 2 + sum((x * w) ** 2)), when the terms come in
    random order (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019).
    Tensor cores truncate where they align their addends, which costs two more bits.  Writing the
    result rounds once more, to the output's dtype.

    Args:
        want: exact outputs.
        spread: sqrt(sum over k of (x * w) ** 2), as `grouped_gemm_rows` returns it.
        K: terms per output, one number or an array like want.
        dtype: of the inputs.

    Returns:
        The largest |got - want| that a right kernel may have, same shape as want.
    """
    unit_accumulate = 2.0**-24 if dtype == "float32" else 2.0**-22
    unit_output = float(ml_dtypes.finfo(output_dtype(dtype)).eps) / 2
    smallest = float(ml_dtypes.finfo(output_dtype(dtype)).smallest_subnormal)
    walk = SIGMAS * unit_accumulate * np.sqrt(K * (np.square(want) + np.square(spread)))
    return walk + unit_output * np.abs(want) + smallest


def scaled_tolerance(want: Array, spread: Array, K: int, accumulator_bits: int = FLOAT32_BITS) -> Array:
    """How far an output of FP8 inputs with scales may be from the exact sum, elementwise.

    Two random walks as in `tolerance`, then the rounding to bfloat16.  The first is inside each partial
    sum of 128 products, with as many bits as the unit that adds them keeps.  The second goes over the
    partial sums: each is rounded by both scales and by the addition in float32.

    Args:
        want: exact outputs.
        spread: sizes of the partial sums, as `scaled_grouped_gemm_rows` returns them.
        K: terms per output.
        accumulator_bits: of the sums of 128 products: `FLOAT32_BITS`, or `WGMMA_E4M3_BITS`.

    Returns:
        The largest |got - want| that a right kernel may have, same shape as want.
    """
    inside = 2.0**-accumulator_bits * np.sqrt(min(K, BLOCK)) * spread
    across = 2.0**-FLOAT32_BITS * np.sqrt((K / BLOCK + 2) * (np.square(want) + np.square(spread)))
    bfloat16 = ml_dtypes.finfo(output_dtype("float8_e4m3fn"))
    rounding = float(bfloat16.eps) / 2 * np.abs(want) + float(bfloat16.smallest_subnormal)
    allowed: Array = SIGMAS * (inside + across) + rounding
    return allowed


@dataclass(frozen=True)
class Mismatch:
    """The first wrong output, and the pattern that all wrong outputs make."""

    expert: int
    tile: tuple[int, int]
    row: int  # within the expert
    column: int
    got: float
    want: float
    tolerance: float
    num_wrong: int
    num_unwritten: int
    num_checked: int
    pattern: str

    def __str__(self) -> str:
        state = "was never written" if self.num_unwritten and np.isnan(self.got) else f"is {self.got:.6g}"
        return (
            f"expert {self.expert}, tile {self.tile}, row {self.row} of the expert, column {self.column}"
            f" {state}; wanted {self.want:.6g} within {self.tolerance:.2g}."
            f" {self.num_wrong} of {self.num_checked} outputs are wrong"
            f" ({self.num_unwritten} of them unwritten): {self.pattern}."
        )


@dataclass(frozen=True)
class Comparison:
    """The verdict on one output.

    Attributes:
        ok: nothing is wrong.
        mismatch: the first wrong output, if there is one.
        guards_broken: how many elements of the guard rows were overwritten.
        num_checked: outputs whose value was compared; all outputs are checked for poison and NaN.
        worst: largest |got - want| / tolerance; below 1 is right.
    """

    ok: bool
    mismatch: Mismatch | None
    guards_broken: int
    num_checked: int
    worst: float

    def __str__(self) -> str:
        if self.ok:
            return f"right: {self.num_checked} outputs, worst at {self.worst:.0%} of the tolerance"
        parts = []
        if self.guards_broken:
            parts.append(
                f"{self.guards_broken} elements outside the output were overwritten:"
                " a store has no bounds test."
            )
        if self.mismatch:
            parts.append(str(self.mismatch))
        return "wrong: " + " ".join(parts)

    def raise_if_wrong(self, subject: str) -> None:
        """Raise AssertionError with the verdict if the output is wrong.

        Raises:
            AssertionError: naming the subject, the first wrong output and the pattern.
        """
        if not self.ok:
            raise AssertionError(f"{subject}: {self}")


def rows_to_check(problem: GroupedProblem, most: int, seed: int = 0) -> Array:
    """Rows of y to compare in full: all of them, or each expert's edges and a random row of every sixteen.

    No tile has fewer than 16 rows, so a wrong tile cannot hide between the samples.
    """
    if problem.total_tokens <= most:
        return np.arange(problem.total_tokens)
    rng = np.random.default_rng(seed)
    chosen = []
    for start, stop in zip(problem.offsets[:-1], problem.offsets[1:], strict=True):
        starts = np.arange(start, stop, 16)
        chosen += [np.minimum(starts + rng.integers(0, 16, starts.size), stop - 1)]
        chosen += [np.arange(start, min(start + 2, stop)), np.arange(max(stop - 2, start), stop)]
    return np.unique(np.concatenate(chosen))


class Oracle:
    """What was wanted of some inputs, kept for the next program that is judged by the same ones.

    For benchmarks, which judge many programs on a few inputs and never change these: outside of `using`,
    and by default, everything is computed anew.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes, bytes], tuple[AnyInputs, tuple[Array, Array]]] = {}

    def rows(self, inputs: AnyInputs, offsets: Array, rows: Array) -> tuple[Array, Array]:
        """Some rows of y, and their spread; from memory, if these very inputs were asked for before."""
        key = (id(inputs), offsets.tobytes(), rows.tobytes())
        if key not in self._known:
            # why the inputs as well: an id is free for others when its object is gone
            self._known[key] = inputs, _compute_rows(inputs, offsets, rows)
        return self._known[key][1]

    def forget(self) -> None:
        """Give back the memory."""
        self._known.clear()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Let `check_output` ask here."""
        token = _ORACLE.set(self)
        try:
            yield
        finally:
            _ORACLE.reset(token)


_ORACLE: ContextVar[Oracle | None] = ContextVar("oracle", default=None)


def _compute_rows(inputs: AnyInputs, offsets: Array, rows: Array) -> tuple[Array, Array]:
    if isinstance(inputs, QuantizedInputs):
        return scaled_grouped_gemm_rows(inputs, offsets, rows)
    return grouped_gemm_rows(inputs, offsets, rows)


def _wanted(inputs: AnyInputs, offsets: Array, rows: Array) -> tuple[Array, Array]:
    oracle = _ORACLE.get()
    return oracle.rows(inputs, offsets, rows) if oracle else _compute_rows(inputs, offsets, rows)


def check_output(
    guarded: Array,
    problem: GroupedProblem,
    inputs: Inputs | QuantizedInputs,
    *,
    tile: tuple[int, int] = (16, 16),
    most_rows: int = 4096,
    accumulator_bits: int = FLOAT32_BITS,
    num_terms: Array | None = None,
) -> Comparison:
    """Judge an output against the oracle.

    Args:
        guarded: [NUM_GUARD_ROWS + total_tokens + NUM_GUARD_ROWS, N]: guard rows, y, guard rows.
        problem: what was computed.
        inputs: what it was computed from; with scales, for FP8.
        tile: rows and columns of the kernel's tile, to name the tile that is wrong.
        most_rows: compare all rows up to this many, samples beyond.
        accumulator_bits: of sums of FP8 products, see `scaled_tolerance`; only for inputs with scales.
        num_terms: [total_tokens], terms of each row's sums where they are not K for all.

    Returns:
        The verdict; it is ok only if every output was written, no guard was touched, and every
        compared output is within `tolerance`.
    """
    y = guarded[NUM_GUARD_ROWS : NUM_GUARD_ROWS + problem.total_tokens]
    guards = (guarded[:NUM_GUARD_ROWS], guarded[NUM_GUARD_ROWS + problem.total_tokens :])
    guards_broken = sum(int((~is_poison(guard)).sum()) for guard in guards)

    unfinished = np.flatnonzero(np.isnan(y.astype(np.float32)).any(axis=1))[:most_rows]
    rows = np.union1d(rows_to_check(problem, most_rows), unfinished).astype(np.int64)
    want, spread = _wanted(inputs, problem.offsets, rows)
    if isinstance(inputs, QuantizedInputs):
        allowed = scaled_tolerance(want, spread, problem.K, accumulator_bits)
    else:
        terms = problem.K if num_terms is None else num_terms[rows, np.newaxis]
        allowed = tolerance(want, spread, terms, problem.dtype)
    got = y[rows].astype(np.float64)
    error = np.abs(got - want)
    wrong: Array = ~(error <= allowed)  # why not error > allowed: NaN compares false either way
    if not wrong.any():
        worst = float(np.max(error / allowed, initial=0.0))
        return Comparison(not guards_broken, None, guards_broken, wrong.size, worst)
    group = np.searchsorted(problem.offsets, rows, side="right") - 1
    errors = _Errors(
        problem, tile, group, rows - problem.offsets[group], got, want, allowed, wrong, is_poison(y[rows])
    )
    return Comparison(False, errors.first(), guards_broken, wrong.size, float("inf"))


@dataclass(frozen=True)
class _Errors:
    """Wrong outputs, and what shows the pattern in them; arrays are [num_rows, N] or [num_rows]."""

    problem: GroupedProblem
    tile: tuple[int, int]
    group: Array
    row: Array  # within the group
    got: Array
    want: Array
    allowed: Array
    wrong: Array
    unwritten: Array

    def first(self) -> Mismatch:
        """The first wrong output, and the pattern that all of them make."""
        i, column = (int(index) for index in np.argwhere(self.wrong)[0])
        row = int(self.row[i])
        return Mismatch(
            expert=int(self.group[i]),
            tile=(row // self.tile[0], column // self.tile[1]),
            row=row,
            column=column,
            got=float(self.got[i, column]),
            want=float(self.want[i, column]),
            tolerance=float(self.allowed[i, column]),
            num_wrong=int(self.wrong.sum()),
            num_unwritten=int((self.wrong & self.unwritten).sum()),
            num_checked=self.wrong.size,
            pattern=self.pattern(),
        )

    def pattern(self) -> str:
        """Name the pattern of wrong outputs, the most telling one first."""
        kind = "unwritten" if self.unwritten[self.wrong].all() else "wrong"
        if self.wrong.all():
            return f"every output is {self._factor() or kind}"
        bad_rows: Any = self.wrong.any(axis=1)
        bad_columns: Any = self.wrong.any(axis=0)
        groups, bad_groups = np.unique(self.group), np.unique(self.group[bad_rows])
        if len(bad_groups) == 1 and len(groups) > 1:
            some = "every row" if bad_rows[self.group == bad_groups[0]].all() else "some rows"
            return f"only expert {bad_groups[0]} is {kind}, {some} of it"
        counts: Array = np.asarray(self.problem.counts)[self.group]
        for edge, at_edge in (("first", self.row == 0), ("last", self.row == counts - 1)):
            if _only(bad_rows, at_edge):
                return f"only the {edge} row of an expert is {kind}: look at the group search"
        full_rows = counts // self.tile[0] * self.tile[0]
        if _only(bad_rows, self.row >= full_rows):
            return f"only rows past an expert's last full tile of {self.tile[0]} are {kind}: the row tail"
        full_columns = self.problem.N // self.tile[1] * self.tile[1]
        if _only(bad_columns, np.arange(self.problem.N) >= full_columns):
            return f"only columns past the last full tile of {self.tile[1]} are {kind}: the column tail"
        if bad_columns.sum() == 1:
            return f"one column is {kind}"
        num_tiles = self._num_tiles()
        if num_tiles * self.tile[0] * self.tile[1] <= 1.5 * self.wrong.sum():
            return f"{num_tiles} whole tiles are {kind}"
        return f"{kind} outputs in {len(bad_groups)} of {len(groups)} experts"

    def _factor(self) -> str:
        """The factor between got and wanted, if all outputs share one."""
        ratio = np.median(self.got / np.where(self.want == 0, np.nan, self.want))
        if np.isfinite(ratio) and np.allclose(self.got, ratio * self.want, rtol=1e-3, atol=1e-3):
            return f"{ratio:.3g} times what it should be"
        return ""

    def _num_tiles(self) -> int:
        i, columns = np.nonzero(self.wrong)
        tiles = np.stack([self.group[i], self.row[i] // self.tile[0], columns // self.tile[1]])
        return int(np.unique(tiles, axis=1).shape[1])


def _only(bad: Any, where: Any) -> bool:
    """Whether everything bad lies where this says, and that is not everywhere."""
    return bool(not where.all() and not (bad & ~where).any())
