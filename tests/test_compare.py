"""The comparison finds every planted mistake, names it, and passes everything that is right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemm_lessons import compare
from gemm_lessons.compare import (
    NUM_GUARD_ROWS,
    check_output,
    is_poison,
    output_dtype,
    poisoned,
    rows_to_check,
)
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.reference import grouped_gemm

PROBLEM = GroupedProblem((20, 0, 7, 33), N=24, K=40)
INPUTS = PROBLEM.inputs(5)
TILE = (16, 16)


def right_output(problem=PROBLEM, inputs=INPUTS):
    guarded = poisoned(problem.total_tokens + 2 * NUM_GUARD_ROWS, problem.N, output_dtype(problem.dtype))
    y = grouped_gemm(inputs.x, inputs.w, problem.offsets)
    guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS] = y.astype(guarded.dtype)
    return guarded


def verdict(change):
    guarded = right_output()
    change(guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS])
    return check_output(guarded, PROBLEM, INPUTS, tile=TILE)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_a_right_output_passes_in_every_dtype(dtype):
    problem = GroupedProblem(PROBLEM.counts, PROBLEM.N, PROBLEM.K, dtype)
    inputs = problem.inputs(1)
    assert check_output(right_output(problem, inputs), problem, inputs).ok


def test_float32_sums_in_any_order_pass():
    x, w = INPUTS
    guarded = right_output()
    y = guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
    for order in (np.arange(40), np.arange(39, -1, -1), np.random.default_rng(0).permutation(40)):
        for g, (start, stop) in enumerate(zip(PROBLEM.offsets[:-1], PROBLEM.offsets[1:], strict=True)):
            total = np.zeros((stop - start, PROBLEM.N), np.float32)
            for k in order:
                total += np.outer(x[start:stop, k], w[g, :, k])
            y[start:stop] = total
        comparison = check_output(guarded, PROBLEM, INPUTS)
        assert comparison.ok
        assert comparison.worst < 0.6


def test_tf32_inputs_do_not_pass_as_float32():
    problem = GroupedProblem((64,), N=64, K=2048)
    inputs = problem.inputs(2)
    rounded = [(array.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for array in inputs]
    guarded = right_output(problem, type(inputs)(*rounded))
    assert not check_output(guarded, problem, inputs).ok


@pytest.mark.parametrize("row", [0, NUM_GUARD_ROWS - 1, -NUM_GUARD_ROWS, -1])
def test_a_write_outside_the_output_is_caught(row):
    guarded = right_output()
    guarded[row, 3] = 0.0
    comparison = check_output(guarded, PROBLEM, INPUTS)
    assert not comparison.ok
    assert comparison.guards_broken == 1
    assert "outside the output" in str(comparison)


def set_nan(y):
    y[25, 3] = np.nan


def set_infinite(y):
    y[25, 3] = np.inf


def drop_one_term(y):
    y[25, 3] -= INPUTS.x[25, 7] * INPUTS.w[2, 3, 7]


@pytest.mark.parametrize("change", [set_nan, set_infinite, drop_one_term])
def test_one_wrong_element_is_caught_and_located(change):
    comparison = verdict(change)
    assert not comparison.ok
    found = comparison.mismatch
    assert (found.expert, found.row, found.column, found.num_wrong) == (2, 5, 3, 1)
    with pytest.raises(AssertionError, match=r"expert 2, tile \(0, 0\), row 5 of the expert, column 3"):
        comparison.raise_if_wrong("planted")


def unwritten(rows, columns=slice(None)):
    def change(y):
        y[rows, columns] = poisoned(1, 1, y.dtype)[0, 0]

    return change


def swap_experts(y):
    y[20:27] = INPUTS.x[20:27] @ INPUTS.w[0].T


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (unwritten([16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 59]), "row tail"),
        (unwritten(slice(None), slice(16, None)), "column tail"),
        (unwritten(slice(None)), "every output is unwritten"),
        (swap_experts, "only expert 2 is wrong, every row"),
        (unwritten(slice(40, 45)), "only expert 3 is unwritten, some rows"),
        (unwritten([0, 20, 27]), "first row of an expert"),
        (unwritten([19, 26, 59]), "last row of an expert"),
        (unwritten(slice(None), 5), "one column"),
        (lambda y: np.multiply(y, 2, out=y), "every output is 2 times"),
    ],
)
def test_the_pattern_is_named(change, pattern):
    assert pattern in str(verdict(change))


def test_whole_tiles_are_named():
    def change(y):
        y[0:16, 0:16] = 0
        y[27:43, 0:16] = 0

    assert "2 whole tiles are wrong" in str(verdict(change))


def test_unwritten_and_wrong_are_told_apart():
    comparison = verdict(unwritten([3]))
    assert comparison.mismatch.num_unwritten == PROBLEM.N
    assert "was never written" in str(comparison)
    assert verdict(set_nan).mismatch.num_unwritten == 0


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any), st.integers(1, 50))
def test_sampled_rows_meet_every_stretch_of_sixteen_rows(counts, most):
    problem = GroupedProblem(tuple(counts), N=1, K=1)
    rows = rows_to_check(problem, most)
    assert len(np.unique(rows)) == len(rows)
    for start, stop in zip(problem.offsets[:-1], problem.offsets[1:], strict=True):
        for first in range(start, stop, 16):
            assert ((rows >= first) & (rows < min(first + 16, stop))).any()


def test_an_unwritten_row_between_the_samples_is_caught():
    problem = GroupedProblem((400,), N=4, K=4)
    inputs = problem.inputs(3)
    guarded = right_output(problem, inputs)
    skipped = sorted(set(range(400)) - set(rows_to_check(problem, 10)))[0]
    guarded[NUM_GUARD_ROWS + skipped] = poisoned(1, 4, guarded.dtype)
    assert not check_output(guarded, problem, inputs, most_rows=10).ok


def test_no_tokens_is_right_if_nothing_is_touched():
    problem = GroupedProblem((0, 0), N=4, K=4)
    assert check_output(poisoned(2 * NUM_GUARD_ROWS, 4, np.dtype(np.float32)), problem, problem.inputs()).ok


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_poison_is_nan(dtype):
    array = poisoned(2, 3, output_dtype(dtype))
    assert np.isnan(array.astype(np.float64)).all()
    assert is_poison(array).all()


def test_an_oracle_remembers_inputs_and_still_finds_what_is_wrong(monkeypatch):
    asked = []
    compute = compare._compute_rows
    monkeypatch.setattr(compare, "_compute_rows", lambda *args: asked.append(1) or compute(*args))
    problem = GroupedProblem((3, 0, 5), 16, 8)
    first, second = problem.inputs(1), problem.inputs(2)
    oracle = compare.Oracle()
    with oracle.using():
        for inputs in (first, second, first, second):
            guarded = right_output(problem, inputs)
            assert check_output(guarded, problem, inputs).ok
        assert len(asked) == 2
        assert not check_output(right_output(problem, second), problem, first).ok
        oracle.forget()
        assert check_output(right_output(problem, first), problem, first).ok
        assert len(asked) == 3
    assert check_output(right_output(problem, first), problem, first).ok
    assert len(asked) == 4, "outside of it, everything is computed anew"
