"""The smallest case that still fails: what a student can follow with a pencil."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from gemm_lessons.grading.cases import Case


def smaller(case: Case) -> Iterator[Case]:
    """Cases one step smaller, the boldest steps first."""
    counts = case.counts
    for index in range(len(counts)):
        if len(counts) > 1:
            yield Case((*counts[:index], *counts[index + 1 :]), case.N, case.K)
    for N in dict.fromkeys((1, case.N // 2, case.N - 1)):
        if 1 <= N < case.N:
            yield Case(counts, N, case.K)
    for K in dict.fromkeys((1, case.K // 2, case.K - 1)):
        if 1 <= K < case.K:
            yield Case(counts, case.N, K)
    for index, count in enumerate(counts):
        for fewer in dict.fromkeys((1, count // 2, count - 1)):
            if 0 <= fewer < count:
                yield Case((*counts[:index], fewer, *counts[index + 1 :]), case.N, case.K)


def shrink(case: Case, fails: Callable[[Case], bool], seconds: float = 1.5) -> Case:
    """Follow steps to smaller cases as long as they fail.

    Args:
        case: one that fails.
        fails: whether another case fails in the same way.
        seconds: how long to look.

    Returns:
        The smallest failing case that was found, maybe the given one.
    """
    deadline = time.monotonic() + seconds
    searching = True
    while searching:
        searching = False
        for candidate in smaller(case):
            if time.monotonic() > deadline:
                return case
            if sum(candidate.counts) and fails(candidate):
                case, searching = candidate, True
                break
    return case
