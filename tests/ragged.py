"""The ragged cases: the subject of this workbook, not its exception."""

import pytest

from gemm_lessons.problem import GroupedProblem

# The cases that find the most, for steps that take seconds each in the simulator.
TELLING = ("around-a-tile", "empty-middle", "one-token", "all-empty")


def ragged_cases(BM: int) -> dict[str, GroupedProblem]:
    """Problems that trouble a step with tiles of BM rows, by name; N and K that no tile divides."""
    counts = {
        "empty-first": (0, BM + 1, 3),
        "empty-middle": (2, 0, 0, BM - 1),
        "empty-last": (BM, 5, 0),
        "one-token": (0, 1, 0),
        "single-tokens": (1,) * 5,
        "around-a-tile": (BM - 1, BM, BM + 1),
        "one-hot": (0, 0, 2 * BM + 3, 0),
        "one-expert": (BM + 2,),
        "many-experts": tuple(g % 3 for g in range(24)),
        "all-empty": (0, 0, 0),
        "equal": (BM, BM),
    }
    problems = {name: GroupedProblem(value, N=19, K=13, name=name) for name, value in counts.items()}
    tiny = GroupedProblem((3, 0, 2), N=1, K=1, name="N-and-K-of-one")
    vector = GroupedProblem((3, BM + 1), N=33, K=20, name="K-in-vectors")
    full = GroupedProblem((BM, 2 * BM), N=32, K=32, name="full-tiles")
    return problems | {problem.name: problem for problem in (tiny, vector, full)}


def telling_first(names):
    """The names as pytest parameters; all but the telling ones are left to `make test-all`."""
    return [name if name in TELLING else pytest.param(name, marks=pytest.mark.slow) for name in names]
