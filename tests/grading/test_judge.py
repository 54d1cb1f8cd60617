"""Patterns in wrong outputs, the smallest failing case, and the picture."""

import numpy as np
import pytest

from gemm_lessons.compare import NUM_GUARD_ROWS
from gemm_lessons.grading import heatmap
from gemm_lessons.grading.cases import Case, ragged
from gemm_lessons.grading.judge import Judgement, guarded_output, wanted
from gemm_lessons.grading.shrink import shrink

CASE = Case((5, 0, 9, 1), 19, 7)


def judged(change=None, case=CASE, alternatives=None):
    """A right output, changed."""
    rng = np.random.default_rng(0)
    want = wanted(rng.standard_normal((case.total, case.N)), np.ones((case.total, case.N)), case.K)
    whole = guarded_output(case.total, case.N)
    y = whole[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
    poison = y.copy()
    y[:] = want.y
    if change:
        change(y, poison, whole)
    return Judgement(case, whole, want, (4, 16), alternatives(want.y) if alternatives else {})


def test_right_is_right():
    assert judged().ok
    assert judged().signs == []


def row_tail(y, poison, whole):
    y[[4, 13, 14]] += 1  # row 4 of expert 0, row 8 of expert 2, row 0 of expert 3


def some_outputs(y, poison, whole):
    y[3, 2] = np.nan


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda y, p, w: y.__setitem__(slice(None), p), "unwritten"),
        (lambda y, p, w: y.__setitem__((slice(None), slice(16, None)), 7.0), "column tail"),
        (lambda y, p, w: y.__setitem__([0, 5, 14], 7.0), "first rows"),
        (lambda y, p, w: y.__setitem__([4, 13, 14], 7.0), "last rows"),
        (row_tail, "row tail"),
        (lambda y, p, w: y.__setitem__(slice(5, 14), 7.0), "one expert"),
        (lambda y, p, w: y.__setitem__(slice(1, None, 2), 7.0), "odd rows"),
        (lambda y, p, w: y.__setitem__(14, 7.0), "last row of all"),
        (lambda y, p, w: y.__iadd__(1), "all"),
        (lambda y, p, w: w.__setitem__(0, 7.0), "guards"),
        (some_outputs, "nan"),
    ],
)
def test_pattern_is_seen(change, sign):
    judgement = judged(change)
    assert not judgement.ok
    assert sign in judgement.signs
    assert judgement.describe()


def test_a_wrong_formula_is_recognised():
    def twice(y, poison, whole):
        y *= 2

    judgement = judged(twice, alternatives=lambda y: {"twice": 2 * y, "half": y / 2})
    assert judgement.equals == ["twice"]


def test_what_a_mistake_leaves_out_is_recognised():
    def leave_out(y, poison, whole):
        y[5:14] = poison[5:14]

    def without(rows):
        return lambda y: np.where(np.isin(np.arange(len(y)), rows)[:, None], np.nan, y)

    alternatives = {"third expert": without(range(5, 14)), "last row": without([14])}
    judgement = judged(leave_out, alternatives=lambda y: {k: f(y) for k, f in alternatives.items()})
    assert judgement.equals == ["third expert"]


def test_first_wrong_output_is_named():
    def wrong(y, poison, whole):
        y[7, 17] = 3

    text = judged(wrong).describe()
    assert "Expert 2, tile (0, 1), row 2 of the expert (row 7 of y), column 17: y is 3" in text
    assert "1 of 285 outputs" in text


def test_the_smallest_case_is_small():
    case = shrink(
        Case((7, 0, 12, 3), 33, 9), lambda case: max(case.counts) > 4 and case.N > 2 and len(case.counts) > 1
    )
    assert (sum(case.counts), len(case.counts), case.N, case.K) == (5, 2, 3, 1)


def test_ragged_cases_are_the_subject():
    for seed in range(5):
        counts = [case.counts for case in ragged(seed, 4, 16)]
        assert any(c[0] == 0 for c in counts)
        assert any(c[-1] == 0 for c in counts)
        assert any(0 in c[1:-1] for c in counts)
        assert any({3, 4, 5} <= set(c) for c in counts)
        assert all(case.N % 16 and case.K % 2 for case in ragged(seed, 4, 16))
    assert ragged(1, 4, 16) != ragged(2, 4, 16)


def test_picture_tells_unwritten_from_wrong(tmp_path):
    def both(y, poison, whole):
        y[:4, :16] = poison[:4, :16]
        y[5:9, 16:] = 9

    judgement = judged(both)
    wrong, unwritten, names = heatmap.tile_shares(judgement)
    assert unwritten[0, 0] == 1
    assert wrong[2, 1] == 1
    assert np.isnan(wrong[1]).all()
    assert names.tolist()[:2] == [[0, 0], [0, 1]]
    assert heatmap.save(judgement, tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
