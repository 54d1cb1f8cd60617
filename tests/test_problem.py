import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemm_lessons.problem import (
    GroupedProblem,
    Inputs,
    ProblemError,
    check_offsets,
    counts_to_offsets,
    pad,
)
from gemm_lessons.reference import grouped_gemm
from gemm_lessons.workloads import DEMO, OVERVIEW, WORKLOADS, find_workload, zipf_counts

counts_lists = st.lists(st.integers(0, 200), min_size=1, max_size=40)


@given(counts_lists)
def test_offsets_are_the_exclusive_prefix_sum(counts):
    offsets = counts_to_offsets(counts)
    assert offsets.dtype == np.int32
    assert [int(offset) for offset in offsets] == [sum(counts[:g]) for g in range(len(counts) + 1)]
    check_offsets(offsets, sum(counts))


@given(counts_lists)
def test_flops_and_efficiency(counts):
    problem = GroupedProblem(counts, N=3, K=5)
    assert problem.useful_flops == 2 * sum(counts) * 15
    assert problem.padded_flops == 2 * len(counts) * max(counts) * 15
    assert 0 < problem.efficiency <= 1
    assert problem.as_padded().useful_flops == problem.padded_flops
    assert problem.as_padded().efficiency == 1


def test_the_seeds_overview_wastes_three_eighths():
    problem = GroupedProblem(OVERVIEW, 2048, 2048)
    assert (problem.total_tokens, problem.num_groups * problem.max_tokens) == (1000, 1600)
    assert problem.efficiency == 0.625


@pytest.mark.parametrize(
    ("dtype", "megabytes"), [("float32", 151.6), ("bfloat16", 75.8), ("float8_e4m3fn", 40.1)]
)
def test_least_bytes_of_the_demo(dtype, megabytes):
    assert GroupedProblem(DEMO, 2048, 2048, dtype).least_bytes / 1e6 == pytest.approx(megabytes, abs=0.05)


def test_least_bytes_leave_out_the_weights_of_empty_experts():
    assert GroupedProblem((4, 0), 8, 8).least_bytes == 4 * (4 * 8 + 8 * 8 + 4 * 8)


def test_inputs_are_reproducible_and_differ_by_seed():
    problem = GroupedProblem((3, 2), 4, 6, "bfloat16")
    first, again, other = problem.inputs(1), problem.inputs(1), problem.inputs(2)
    assert first.x.dtype == ml_dtypes.bfloat16
    assert (first.x.shape, first.w.shape) == ((5, 6), (2, 4, 6))
    assert np.array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": ()}, "at least one expert"),
        ({"counts": (3, -1)}, "expert 1 has -1 tokens"),
        ({"counts": (2**31 - 1, 1)}, "32-bit"),
        ({"N": 0}, "N is 0"),
        ({"K": 2**31}, "K is 2147483648"),
        ({"dtype": "int8"}, "dtype 'int8' is not known"),
    ],
)
def test_nonsense_is_refused_with_its_value(arguments, message):
    with pytest.raises(ProblemError, match=message):
        GroupedProblem(**{"counts": (3,), "N": 4, "K": 4} | arguments)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([1, 5], "offsets must start at 0, but offsets.0. is 1"),
        ([0, 4, 3, 5], "offsets.1. is 4 and offsets.2. is 3"),
        ([0, 4], "end at the number of tokens, 5, but the last is 4"),
        ([0], "num_groups"),
        ([0.0, 5.0], "integers"),
    ],
)
def test_bad_offsets_are_refused_with_their_value(offsets, message):
    with pytest.raises(ProblemError, match=message):
        check_offsets(np.array(offsets), 5)


def test_inputs_of_another_dtype_are_refused():
    problem = GroupedProblem((3,), 4, 4)
    x, w = problem.inputs()
    with pytest.raises(ProblemError, match="w is float64, this problem needs float32"):
        problem.check_inputs(Inputs(x, w.astype(np.float64)))


@given(counts_lists)
def test_padding_keeps_every_row_in_its_expert(counts):
    problem = GroupedProblem(counts, N=1, K=1)
    x = np.arange(1, problem.total_tokens + 1, dtype=np.float32)[:, None]
    slabs = pad(x, problem).reshape(problem.num_groups, problem.max_tokens)
    kept = np.concatenate([slab[:count] for slab, count in zip(slabs, counts, strict=True)])
    assert np.array_equal(kept, x[:, 0])
    assert slabs.sum() == x.sum(), "padding holds something other than zeros"


def test_the_oracle_agrees_with_a_loop_over_scalars():
    problem = GroupedProblem((2, 0, 1), N=2, K=3)
    x, w = problem.inputs(4)
    y = grouped_gemm(x, w, problem.offsets)
    for row, group in ((0, 0), (1, 0), (2, 2)):
        for n in range(2):
            assert y[row, n] == pytest.approx(sum(float(x[row, k]) * float(w[group, n, k]) for k in range(3)))


@given(st.integers(1, 64), st.integers(0, 5000))
def test_zipf_counts_add_up(num_groups, total):
    counts = zipf_counts(num_groups, total)
    assert (len(counts), sum(counts)) == (num_groups, total)


def test_every_workload_has_a_twin_for_the_simulator():
    for workload in WORKLOADS.values():
        assert workload.twin.total_tokens <= 200, workload.name
        assert max(workload.twin.N, workload.twin.K) <= 32, workload.name
        assert workload.story


def test_an_unknown_workload_is_refused_with_the_names_that_exist():
    with pytest.raises(KeyError, match=r"S-x16.*decode"):
        find_workload("huge")


def test_a_workload_comes_in_any_dtype():
    assert find_workload("S", "bfloat16").problem.dtype == "bfloat16"
