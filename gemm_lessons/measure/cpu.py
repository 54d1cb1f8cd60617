"""A real time where there is no GPU: padding costs a CPU, too.

NumPy multiplies the padded batch and every expert by itself, at full size, with the same BLAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemm_lessons.measure.timing import Timing, time_on_cpu
from gemm_lessons.problem import GroupedProblem, pad


@dataclass(frozen=True)
class CpuTimes:
    """NumPy on this CPU: the padded batch, and one product per expert."""

    padded: Timing
    per_expert: Timing

    @property
    def speedup(self) -> float:
        """How many times faster it is not to pad."""
        return self.padded.median_us / self.per_expert.median_us


def numpy_times(problem: GroupedProblem) -> CpuTimes:
    """Time NumPy with and without padding; packing is not timed, which favours padding.

    Raises:
        AssertionError: the two disagree.
    """
    x, w = problem.inputs()
    slabs = pad(x, problem).reshape(problem.num_groups, problem.max_tokens, problem.K)
    y_padded = np.empty((problem.num_groups, problem.max_tokens, problem.N), x.dtype)
    y = np.empty((problem.total_tokens, problem.N), x.dtype)
    experts = list(zip(problem.offsets[:-1], problem.offsets[1:], w, strict=True))

    def padded() -> None:
        np.matmul(slabs, w.transpose(0, 2, 1), out=y_padded)

    def per_expert() -> None:
        for start, stop, weights in experts:
            np.matmul(x[start:stop], weights.T, out=y[start:stop])

    times = CpuTimes(*time_on_cpu([padded, per_expert]))
    for group, (start, stop, _) in enumerate(experts):
        if not np.allclose(y_padded[group, : stop - start], y[start:stop], rtol=1e-3, atol=1e-2):
            raise AssertionError(f"NumPy with and without padding disagree on expert {group}")
    return times
