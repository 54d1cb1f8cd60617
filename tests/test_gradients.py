"""dgrad and wgrad, on every ragged case: right in the simulator, and on a GPU at full size."""

from dataclasses import replace

import numpy as np
import pytest
from ragged import ragged_cases, telling_first

from gemm_lessons.compare import NUM_GUARD_ROWS, is_poison, poisoned
from gemm_lessons.launch import Graph, launch_parts
from gemm_lessons.moe import dgrad, wgrad
from gemm_lessons.moe.gradient import CONFIG, SIM_CONFIG, gradient_of_output
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.steps._host import ConfigError
from gemm_lessons.workloads import WORKLOADS

CASES = ragged_cases(SIM_CONFIG.BM)
GPU_CASES = ragged_cases(CONFIG.BM)
MODULES = {"dgrad": dgrad, "wgrad": wgrad}
DOCSTRING_PARTS = (
    "Picture:",
    "What changed since",
    "Why it should help:",
    "When it will not:",
    "What to measure:",
)

both = pytest.mark.parametrize("name", MODULES)


def check(name, problem, seed, **options):
    inputs = problem.inputs(seed)
    prepared = MODULES[name].prepare(problem, None, inputs, **options)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name}, {problem}, seed {seed}, {attempt}")


def dw_of(prepared):
    """dw [num_groups, N, K] of a prepared wgrad, launched."""
    prepared.poison()
    launch_parts(prepared)
    rows = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
    return rows.reshape(prepared.problem.num_groups, prepared.problem.N, prepared.problem.K)


@both
@pytest.mark.parametrize("case", telling_first(CASES))
def test_right_on_ragged_case(name, case):
    check(name, CASES[case], seed=7)


@both
def test_right_where_rows_can_be_loaded_in_vectors(name):
    check(name, GroupedProblem((3, 0, 21), N=20, K=12), seed=8)


@both
def test_agrees_with_the_formula_written_out(name):
    problem = GroupedProblem((4, 0, 19), N=6, K=7)
    inputs, dy = problem.inputs(1), gradient_of_output(problem, 2)
    prepared = MODULES[name].prepare(problem, None, inputs, dy=dy)
    launch_parts(prepared)
    got = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
    pieces = [slice(problem.offsets[g], problem.offsets[g + 1]) for g in range(3)]
    if name == "dgrad":
        want = np.concatenate([dy[rows] @ inputs.w[g] for g, rows in enumerate(pieces)])
    else:
        want = np.concatenate([dy[rows].T @ inputs.x[rows] for rows in pieces])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("counts", [(0, 5, 0), (0, 0, 0)])
def test_an_expert_without_tokens_gets_zeros(counts):
    dw = dw_of(wgrad.prepare(GroupedProblem(counts, N=9, K=6)))
    for group, count in enumerate(counts):
        assert (dw[group] == 0).all() == (count == 0)


def test_an_expert_does_not_see_the_others_tokens():
    problem = GroupedProblem((5, 11, 3), N=9, K=6)
    inputs, dy = problem.inputs(), gradient_of_output(problem)
    x, dy = inputs.x.copy(), dy.copy()
    x[5:16], dy[5:16] = np.nan, np.inf
    dw = dw_of(wgrad.prepare(problem, None, Inputs(x, inputs.w), dy=dy))
    assert np.isfinite(dw[[0, 2]]).all()
    assert not np.isfinite(dw[1]).any()


def test_the_same_bits_in_every_run_and_in_either_order():
    problem = GroupedProblem((3, 40, 0, 17), N=20, K=12)
    inputs = problem.inputs(3)
    first = dw_of(wgrad.prepare(problem, None, inputs))
    for longest_first in (True, False):
        again = dw_of(wgrad.prepare(problem, None, inputs, longest_first=longest_first))
        assert np.array_equal(first, again)


def test_the_longest_comes_first_and_ties_keep_their_order():
    problem = GroupedProblem((3, 7, 0, 7, 9), N=1, K=1)
    assert wgrad.expert_order(problem).tolist() == [4, 1, 3, 0, 2]
    assert wgrad.expert_order(problem, longest_first=False).tolist() == [0, 1, 2, 3, 4]


def test_a_token_of_another_expert_is_noticed():
    problem = GroupedProblem((1, 300), N=4, K=5)
    x, dy = problem.inputs().x, gradient_of_output(problem)
    rows = np.full((2 * 4 + 2 * NUM_GUARD_ROWS, 5), np.nan, np.float32)
    rows[NUM_GUARD_ROWS:-NUM_GUARD_ROWS] = np.concatenate([dy[:1].T @ x[:1], dy[1:].T @ x[1:]])
    rows[:NUM_GUARD_ROWS] = rows[-NUM_GUARD_ROWS:] = poisoned(1, 5, np.dtype(np.float32))
    wgrad.check_wgrad(rows, problem, x, dy, (16, 16)).raise_if_wrong("NumPy itself")
    rows[NUM_GUARD_ROWS : NUM_GUARD_ROWS + 4] += 1e-5 * dy[1:2].T @ x[1:2]
    found = wgrad.check_wgrad(rows, problem, x, dy, (16, 16))
    assert not found.ok, "one token's tolerance is that of a single product, not of 300"
    assert found.mismatch.expert == 0


@both
def test_replays_as_a_graph(name):
    problem = GroupedProblem((4, 0, 17), N=9, K=8)
    inputs = problem.inputs(5)
    prepared = MODULES[name].prepare(problem, None, inputs)
    replay = Graph(prepared)
    for _ in range(2):
        prepared.poison()
        replay()
        prepared.judge(inputs).raise_if_wrong(name)


@both
def test_every_output_is_overwritten(name):
    prepared = MODULES[name].prepare(GroupedProblem((2, 0, 3), N=17, K=18))
    prepared.poison()
    launch_parts(prepared)
    guarded = prepared.result()
    assert not is_poison(guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]).any()
    assert is_poison(guarded[:NUM_GUARD_ROWS]).all()
    assert is_poison(guarded[-NUM_GUARD_ROWS:]).all()


@both
def test_refuses_what_it_cannot_compute(name):
    prepare = MODULES[name].prepare
    with pytest.raises(ProblemError, match="bfloat16"):
        prepare(GroupedProblem((3,), 8, 8, dtype="bfloat16"))
    problem = GroupedProblem((3, 2), 8, 6)
    with pytest.raises(ProblemError, match=r"dy has shape \(5, 6\), this problem needs \(5, 8\)"):
        prepare(problem, dy=np.zeros((5, 6), np.float32))
    with pytest.raises(ProblemError, match="dy is float64, this problem needs float32"):
        prepare(problem, dy=np.zeros((5, 8)))
    with pytest.raises(ProblemError, match=r"x has shape \(5, 6\), this problem needs \(4, 6\)"):
        prepare(GroupedProblem((3, 1), 8, 6), None, problem.inputs())
    with pytest.raises(ConfigError, match="BN is 128, too wide for 16 threads"):
        prepare(problem, replace(SIM_CONFIG, BM=8, BN=128, TM=4, TN=16, BK=16))


@both
def test_exports_what_every_step_exports(name):
    module = MODULES[name]
    exported = ("Config", "CONFIG", "SIM_CONFIG", "SIGNATURE", "make_kernel", "prepare", "launch")
    assert [export for export in exported if not hasattr(module, export)] == []
    assert [part for part in DOCSTRING_PARTS if part not in module.__doc__] == []


def test_every_expert_has_equally_many_tiles_and_its_own_number_of_slabs():
    problem = GroupedProblem((0, 9, 40), N=33, K=17)
    work = wgrad.prepare(problem).work
    tiles = 3 * 2  # of an expert: ceil(33 / 16) * ceil(17 / 16)
    assert work.tiles == 3 * tiles
    assert work.flops == 2 * tiles * (0 + 2 + 5) * 16 * 16 * 8


@pytest.mark.gpu
@both
@pytest.mark.parametrize("case", GPU_CASES)
def test_right_on_a_gpu(name, case):
    check(name, GPU_CASES[case], seed=11)


@pytest.mark.gpu
@both
@pytest.mark.parametrize("workload", ["S", "zipf", "empty-middle", "single-tokens"])
def test_right_at_full_size(name, workload):
    check(name, WORKLOADS[workload].problem, seed=12)
