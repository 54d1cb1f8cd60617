"""Every step, on every ragged case: right in the simulator, and on a GPU at full size."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ragged import ragged_cases

from gemm_lessons.compare import NUM_GUARD_ROWS, check_output
from gemm_lessons.launch import Graph, launch_parts
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError, pad
from gemm_lessons.schedule import SCHEDULES
from gemm_lessons.steps import STEPS, decode, masked, persistent, tensor_core, tiled
from gemm_lessons.steps._host import ConfigError
from gemm_lessons.workloads import WORKLOADS

CASES = ragged_cases(tiled.SIM_CONFIG.BM)
GPU_CASES = ragged_cases(tiled.CONFIG.BM)
DOCSTRING_PARTS = (
    "Picture:",
    "What changed:",
    "Why it should help:",
    "When it will not:",
    "What to measure:",
)

step = pytest.mark.parametrize("name", STEPS)


def check(name: str, problem: GroupedProblem, seed: int, **options) -> None:
    inputs = problem.inputs(seed)
    prepared = STEPS[name].prepare(problem, None, inputs, **options)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name}, {problem}, seed {seed}, {attempt}")


@step
@pytest.mark.parametrize("case", CASES)
def test_right_on_ragged_case(name, case):
    check(name, CASES[case], seed=7)


@step
def test_right_when_every_expert_is_padded(name):
    problem = GroupedProblem((5, 0, 9), N=8, K=12)
    inputs = problem.inputs(3)
    padded = Inputs(pad(inputs.x, problem), inputs.w)
    prepared = STEPS[name].prepare(problem.as_padded(), None, padded)
    prepared.check(padded).raise_if_wrong(name)


@step
def test_launches_again_on_new_inputs(name):
    problem = GroupedProblem((5, 0, 18), N=9, K=8)
    first, second = problem.inputs(1), problem.inputs(2)
    prepared = STEPS[name].prepare(problem, None, first)
    prepared.check(first).raise_if_wrong(name)
    assert not prepared.check(second).ok, "the comparison cannot tell two seeds apart"


@step
def test_replays_as_a_graph(name):
    problem = GroupedProblem((4, 0, 17), N=9, K=8)
    inputs = problem.inputs(5)
    prepared = STEPS[name].prepare(problem, None, inputs)
    replay = Graph(prepared)
    for _ in range(3):
        prepared.poison()
        replay()
        check_output(prepared.result(), problem, inputs).raise_if_wrong(name)


@step
def test_refuses_other_dtypes_with_one_sentence(name):
    with pytest.raises(ProblemError, match="bfloat16"):
        STEPS[name].prepare(GroupedProblem((3,), 8, 8, dtype="bfloat16"))


@step
def test_refuses_inputs_of_another_problem(name):
    inputs = GroupedProblem((3, 2), 8, 8).inputs()
    with pytest.raises(ProblemError, match=r"x has shape \(5, 8\), this problem needs \(6, 8\)"):
        STEPS[name].prepare(GroupedProblem((3, 3), 8, 8), None, inputs)


@step
def test_exports_what_every_step_exports(name):
    module = STEPS[name]
    exported = ("Config", "CONFIG", "SIM_CONFIG", "SIGNATURE", "make_kernel", "prepare", "launch")
    assert [export for export in exported if not hasattr(module, export)] == []
    assert [part for part in DOCSTRING_PARTS if part not in module.__doc__] == []


def test_number_of_launches():
    problem = GroupedProblem((4, 0, 7, 1), N=8, K=8)
    launches = {name: module.prepare(problem).work.launches for name, module in STEPS.items()}
    assert launches == {
        "padded": 3, "naive": 3, "concatenated": 1, "tiled": 1, "persistent": 1, "masked": 3,
    }  # fmt: skip


def test_concatenated_searches_either_way():
    config = STEPS["concatenated"].SIM_CONFIG
    problem = GroupedProblem((0, 3, 0, 0, 4, 1, 0), N=5, K=6)
    inputs = problem.inputs(2)
    for search in ("linear", "binary"):
        prepared = STEPS["concatenated"].prepare(problem, replace(config, search=search), inputs)
        prepared.check(inputs).raise_if_wrong(search)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_computes_the_same(schedule):
    check("persistent", GroupedProblem((3, 0, 40, 17), N=20, K=12), seed=4, schedule=schedule)


def test_schedule_of_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="longest-first"):
        persistent.prepare(GroupedProblem((3,), 8, 8), schedule="fastest")


@pytest.mark.parametrize("num_blocks", [0, -1])
def test_a_schedule_without_blocks_is_refused(num_blocks):
    with pytest.raises(ValueError, match=f"{num_blocks} blocks cannot work"):
        persistent.prepare(GroupedProblem((3,), 8, 8), num_blocks=num_blocks)


def test_trace_holds_every_tile_once():
    problem = GroupedProblem((20, 0, 33), N=20, K=8)
    config = replace(persistent.SIM_CONFIG, trace=True)
    prepared = persistent.prepare(problem, config)
    launch_parts(prepared)
    pieces = prepared.timeline().slices
    assert len(pieces) == prepared.work.tiles
    assert len({(piece.group, piece.tile_m, piece.tile_n) for piece in pieces}) == prepared.work.tiles


def test_masked_obeys_counts_that_change_between_replays():
    problem = GroupedProblem((5, 0, 20), N=9, K=8)
    inputs = problem.inputs(6)
    prepared = masked.prepare(problem, None, inputs, capacity=24)
    launch_parts(prepared)
    gemm_only = Graph(replace(prepared, parts={"gemm": prepared.parts["gemm"]}))
    x, w = prepared.x_slabs.copy_to_host(), inputs.w
    for counts in ((5, 0, 20), (2, 0, 7), (0, 0, 0), (5, 0, 20)):
        prepared.counts.copy_to_device(np.array(counts, np.int32))
        prepared.y_slabs.copy_to_device(np.full(prepared.y_slabs.shape, np.nan, np.float32))
        gemm_only()
        y = prepared.y_slabs.copy_to_host()
        for group, count in enumerate(counts):
            np.testing.assert_allclose(y[group, :count], x[group, :count] @ w[group].T, rtol=1e-4, atol=1e-5)
            assert np.isnan(y[group, count:]).all(), "rows beyond the count were written"
    prepared.verify_counts()


def test_masked_clamps_and_reports_counts_out_of_range():
    problem = GroupedProblem((5, 3), N=9, K=8)
    prepared = masked.prepare(problem, None, None, capacity=8)
    launch_parts(prepared)
    prepared.counts.copy_to_device(np.array([-4, 99], np.int32))
    prepared.parts["gemm"](None)
    with pytest.raises(ProblemError, match="2 counts on the device"):
        prepared.verify_counts()


def test_masked_refuses_a_capacity_that_is_too_small():
    with pytest.raises(ProblemError, match="expert 1 has 9 tokens and a slab holds 8"):
        masked.prepare(GroupedProblem((5, 9), 8, 8), capacity=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"BM": 24}, "BM is 24"),
        ({"TM": 32}, "TM is 32: use 4 to 16"),
        ({"BN": 64, "BM": 4, "BK": 4}, "BM [*] BK is 16"),
        ({"BM": 256, "BN": 128}, "2048 threads"),
    ],
)
def test_tile_extents_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiled.prepare(GroupedProblem((3,), 8, 8), replace(tiled.SIM_CONFIG, **changes))


def test_nan_of_one_expert_reaches_no_other():
    problem = GroupedProblem((17, 5), N=9, K=8)
    inputs = problem.inputs(8)
    inputs.x[17:] = np.nan
    for name, module in STEPS.items():
        prepared = module.prepare(problem, None, inputs)
        launch_parts(prepared)
        y = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]
        assert not np.isnan(y[:17]).any(), name
        assert np.isnan(y[17:]).all(), name


@pytest.mark.gpu
@step
@pytest.mark.parametrize("case", GPU_CASES)
def test_right_on_gpu_at_full_tiles(name, case):
    check(name, replace(GPU_CASES[case], N=200, K=140 if case == "K-in-vectors" else 77), seed=11)


@pytest.mark.gpu
@pytest.mark.parametrize("workload", ["S", "zipf", "empty-middle", "single-tokens"])
@pytest.mark.parametrize("name", ["tiled", "persistent", "masked"])
def test_right_on_gpu_on_named_workloads(name, workload):
    check(name, WORKLOADS[workload].problem, seed=12)


@pytest.mark.parametrize("module", [tensor_core, decode], ids=["tensor_core", "decode"])
@pytest.mark.parametrize(("name", "address"), [("x", 0x7008), ("w", 0x7002), ("y", 0x7002)])
def test_refuses_arrays_that_begin_where_no_access_may(module, name, address):
    problem = GroupedProblem((3,), 16, 16, "bfloat16")
    starts = {"x": 0x1000, "w": 0x2000, "y": 0x3004} | {name: address}
    arrays = [SimpleNamespace(__cuda_array_interface__={"data": (start, False)}) for start in starts.values()]
    x, w, y = arrays
    with pytest.raises(ProblemError, match=f"{name} begins at address {address:#x}"):
        module.bind(problem, replace(module.SIM_CONFIG, dtype="bfloat16"), x, w, None, y)
