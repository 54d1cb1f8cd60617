"""Right or wrong, elementwise, and the pattern that the wrong outputs make.

Used by the grader only, never in the process that runs a submission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.compare import NUM_GUARD_ROWS, is_poison, poisoned, tolerance
from gemm_lessons.grading.cases import Case

Array = np.ndarray[Any, Any]

MATCH = 0.9  # of the wrong outputs must equal a wrong formula's result for it to be named


@dataclass(frozen=True)
class Wanted:
    """The oracle's answer.

    Attributes:
        y: exact outputs in float64, [rows, columns].
        allowed: how far an output may be from it, same shape.
    """

    y: Array
    allowed: Array


def wanted(y: Array, spread: Array, num_terms: int) -> Wanted:
    """An oracle's answer with the tolerance of a float32 sum.

    Args:
        y: exact sums, float64.
        spread: root of the sum of squared terms.
        num_terms: of each sum.
    """
    return Wanted(y, tolerance(y, spread, num_terms, "float32"))


def guarded_output(num_rows: int, num_columns: int, dtype: Any = np.float32) -> Array:
    """Poison, with guard rows before and after, for the submission to write into."""
    return poisoned(num_rows + 2 * NUM_GUARD_ROWS, num_columns, np.dtype(dtype))


@dataclass(frozen=True)
class Judgement:
    """One output next to what it should be.

    Attributes:
        case: what was computed.
        whole: the output with its guard rows.
        want: the oracle's answer.
        tile: rows and columns of the blocks, to name where something is wrong.
        alternatives: what a submission would have computed with a known mistake, by the mistake's name; NaN
            for what it would have left out.
        name: of the output, in messages.
    """

    case: Case
    whole: Array
    want: Wanted
    tile: tuple[int, int]
    alternatives: Mapping[str, Array]
    name: str = "y"

    @cached_property
    def got(self) -> Array:
        """The output without guard rows."""
        rows: Array = self.whole[NUM_GUARD_ROWS : self.whole.shape[0] - NUM_GUARD_ROWS]
        return rows

    @property
    def slack(self) -> float:
        """How far, relatively, an output may be from a wrong formula's result that it equals."""
        return max(1e-5, float(ml_dtypes.finfo(self.whole.dtype).eps))

    @cached_property
    def wrong(self) -> Array:
        """Where the output is wrong; NaN is."""
        with np.errstate(invalid="ignore", over="ignore"):
            right = np.abs(self.got.astype(np.float64) - self.want.y) <= self.want.allowed
        wrong: Array = ~right
        return wrong

    @cached_property
    def unwritten(self) -> Array:
        """Where the output was never written."""
        return is_poison(self.got)

    @cached_property
    def guards_broken(self) -> int:
        """Elements written outside the output."""
        guards = (self.whole[:NUM_GUARD_ROWS], self.whole[self.whole.shape[0] - NUM_GUARD_ROWS :])
        return sum(int((~is_poison(guard)).sum()) for guard in guards)

    @property
    def ok(self) -> bool:
        """Every output is right and nothing outside was written."""
        return not self.guards_broken and not bool(self.wrong.any())

    @cached_property
    def equals(self) -> list[str]:
        """Names of the alternatives that the wrong outputs equal, or that leave out the same ones."""
        here = self.wrong & ~self.unwritten
        found = []
        for name, other in self.alternatives.items():
            left_out = np.isnan(other)
            if left_out.any() and not here.any() and np.array_equal(left_out, self.unwritten):
                found.append(name)
            if left_out.any() or not here.any():
                continue
            differs = here & (np.abs(other - self.want.y) > self.want.allowed)
            with np.errstate(invalid="ignore"):
                # why relative, too: a wrong formula's result may be far larger than the right one
                close = np.abs(self.got - other) <= 4 * self.want.allowed + self.slack * (1 + np.abs(other))
            if differs.any() and close[here].mean() >= MATCH and differs[here].mean() >= MATCH / 2:
                found.append(name)
        return found

    @cached_property
    def row_in_group(self) -> Array:
        """Number of each row within its expert."""
        starts = self.case.problem.offsets[self.case.groups]
        return np.arange(self.case.total) - starts

    @cached_property
    def signs(self) -> list[str]:
        """Short names of every pattern that fits, the most telling first."""
        if self.ok:
            return []
        signs = ["guards"] if self.guards_broken else []
        if not self.wrong.any():
            return signs
        bad: Any = self.wrong.any(axis=1)
        columns: Any = self.wrong.any(axis=0)
        unwritten = self.unwritten[self.wrong]
        signs.append("unwritten" if unwritten.all() else "some unwritten" if unwritten.any() else "values")
        if (self.want.y[self.wrong] == 0).all() and not (self.want.y == 0).all():
            signs.append("zeros unwritten" if unwritten.all() else "zeros")
        if np.isnan(self.got[self.wrong & ~self.unwritten]).any():
            signs.append("nan")
        if self.wrong.all():
            return [*signs, "all"]
        counts = np.asarray(self.case.counts)[self.case.groups]
        row, N = self.row_in_group, self.case.N
        number, column = np.arange(self.case.total), np.arange(N)
        tile_m, tile_n = self.tile
        rows_where = {
            "rows of the first expert": self.case.groups == self.case.groups[0],
            "rows of the last expert": self.case.groups == self.case.groups[-1],
            "first rows": row == 0,
            "last rows": row == counts - 1,
            "odd rows": number % 2 == 1,
            "even rows": number % 2 == 0,
            "last row of all": number == self.case.total - 1,
            "row tail": row >= counts // tile_m * tile_m,
        }
        columns_where = {
            "last column": column == N - 1,
            "first column": column == 0,
            "column tail": column >= N // tile_n * tile_n,
        }
        signs += [name for name, where in rows_where.items() if _only(bad, where)]
        signs += [name for name, where in columns_where.items() if _only(columns, where)]
        if bad.all():
            signs.append("every row")
        groups_bad = len(np.unique(self.case.groups[bad]))
        if groups_bad == 1 and len(np.unique(self.case.groups)) > 1:
            signs.append("one expert")
        return signs

    def describe(self) -> str:
        """Where the first wrong output is, and how many there are."""
        parts = []
        if self.guards_broken:
            parts.append(f"{self.guards_broken} elements outside of {self.name} were overwritten.")
        if self.wrong.any():
            row, column = (int(index) for index in np.argwhere(self.wrong)[0])
            group = int(self.case.groups[row])
            inside = int(self.row_in_group[row])
            tile = (inside // self.tile[0], column // self.tile[1])
            state = "was never written"
            if not self.unwritten[row, column]:
                state = f"is {float(self.got[row, column]):.6g}"
            parts.append(
                f"Expert {group}, tile {tile}, row {inside} of the expert (row {row} of {self.name}),"
                f" column {column}: {self.name} {state}, wanted {self.want.y[row, column]:.6g}."
            )
            num, never = int(self.wrong.sum()), int((self.wrong & self.unwritten).sum())
            of_them = f", {never} of them never written" if never else ""
            parts.append(f"{num} of {self.wrong.size} outputs are wrong{of_them}.")
        return " ".join(parts)

    def pattern(self) -> str:
        """The most telling pattern, as half a sentence; empty if there is none."""
        return next((PATTERNS[sign] for sign in self.signs if sign in PATTERNS), "")


PATTERNS = {
    "guards": "it writes outside of the output: a store has no bounds test",
    "all": "every output is wrong",
    "zeros unwritten": "only outputs that should be 0 are missing",
    "zeros": "only outputs that should be 0 are wrong",
    "one expert": "only one expert is wrong",
    "first rows": "only the first row of an expert is wrong: look at the borders between experts",
    "last rows": "only the last row of an expert is wrong: look at the borders between experts",
    "last row of all": "only the very last row is wrong",
    "row tail": "only rows beyond an expert's last full block are wrong: the row tail",
    "column tail": "only columns beyond the last full block are wrong: the column tail",
    "last column": "only the last column is wrong",
    "first column": "only the first column is wrong",
    "odd rows": "only odd rows are wrong: the second row of each pair",
    "even rows": "only even rows are wrong: the first row of each pair",
    "rows of the first expert": "only the first expert that has tokens is wrong",
    "rows of the last expert": "only the last expert that has tokens is wrong",
    "every row": "every row has wrong outputs, but not every column",
}


def _only(bad: Array, where: Array) -> bool:
    """Whether everything bad lies where this says, and that is not everywhere."""
    return bool(not where.all() and not (bad & ~where).any())
