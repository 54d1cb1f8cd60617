"""The tensor-core step: float16 and bfloat16, asynchronous copies and staged ones, on every ragged case."""

from dataclasses import replace

import numpy as np
import pytest
from ragged import ragged_cases, telling_first

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, check_output
from gemm_lessons.launch import Graph
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.steps import tensor_core
from gemm_lessons.steps._host import ConfigError

DEVICE = device.choose()
pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
CONFIG = tensor_core.CONFIG if DEVICE.is_gpu else tensor_core.SIM_CONFIG
BM = CONFIG.BM
SIZE = {"N": 390, "K": 456} if DEVICE.is_gpu else {"N": 38, "K": 40}
COUNTS = {name: case.counts for name, case in ragged_cases(BM).items() if "K" not in name}

if DEVICE.compute_capability < (8, 0):
    pytest.skip("NOT RUN: cp.async needs compute capability 8.0", allow_module_level=True)


def problem_of(counts, N=SIZE["N"], K=SIZE["K"], dtype="bfloat16"):
    return GroupedProblem(tuple(counts), N, K, dtype)


@pytest.mark.parametrize("name", telling_first(COUNTS))
def test_right_on_ragged_case(name):
    problem = problem_of(COUNTS[name], dtype="float16" if len(name) % 2 else "bfloat16")
    inputs = problem.inputs(7)
    prepared = tensor_core.prepare(problem, CONFIG, inputs)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name}, {attempt}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("num_stages", [2, 3, 4])
def test_any_number_of_stages(dtype, num_stages):
    problem = problem_of((BM + 1, 3), 34, 168, dtype)
    inputs = problem.inputs(1)
    prepared = tensor_core.prepare(problem, replace(CONFIG, num_stages=num_stages), inputs)
    prepared.check(inputs).raise_if_wrong(f"{dtype}, {num_stages} stages")


@pytest.mark.parametrize("BK", [32, 64])
def test_either_depth_of_a_slab(BK):
    problem = problem_of((BM + 1, 3), 34, 104)
    inputs = problem.inputs(4)
    prepared = tensor_core.prepare(problem, replace(CONFIG, BK=BK, num_stages=2), inputs)
    prepared.check(inputs).raise_if_wrong(f"BK = {BK}")


@pytest.mark.parametrize("turing", [False, True])
def test_staged_through_registers(turing):
    problem = problem_of((BM + 1, 3), 34, 104, "float16")
    inputs = problem.inputs(2)
    config = replace(CONFIG, num_stages=2, async_copies=False, turing=turing, dtype="float16")
    tensor_core.prepare(problem, config, inputs).check(inputs).raise_if_wrong(str(config))


@pytest.mark.parametrize(("N", "K"), [(2, 8), (32, 32), pytest.param(66, 72, marks=pytest.mark.slow)])
def test_other_sizes(N, K):
    problem = problem_of((3, BM + 1), N, K)
    inputs = problem.inputs(3)
    tensor_core.prepare(problem, CONFIG, inputs).check(inputs).raise_if_wrong(f"N={N} K={K}")


def test_what_is_not_a_number_stays_with_its_expert():
    problem = problem_of((BM + 3, 5, 0, 7))
    inputs = problem.inputs(4)
    x, w = inputs.x.copy(), inputs.w.copy()
    sick = slice(BM + 3, BM + 8)
    x[sick], w[1], w[2] = np.nan, np.nan, np.nan
    results = []
    for given in (inputs, Inputs(x, w)):
        prepared = tensor_core.prepare(problem, CONFIG, given)
        prepared.poison()
        tensor_core.launch(prepared)
        results.append(prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float32))
    others = np.ones(problem.total_tokens, bool)
    others[sick] = False
    np.testing.assert_array_equal(results[1][others], results[0][others])
    assert np.isnan(results[1][sick]).all()


def test_replays_as_a_graph():
    problem = problem_of((4, 0, BM + 1))
    inputs = problem.inputs(5)
    prepared = tensor_core.prepare(problem, CONFIG, inputs)
    replay = Graph(prepared)
    for _ in range(2):
        prepared.poison()
        replay()
        check_output(prepared.result(), problem, inputs).raise_if_wrong("replay")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (GroupedProblem((3,), 8, 12, "bfloat16"), "K must be a multiple of 8; pad it to 16"),
        (GroupedProblem((3,), 7, 8, "bfloat16"), "N must be even"),
        (GroupedProblem((3,), 8, 8, "float32"), "the problem is float32"),
    ],
    ids=["K", "N", "dtype"],
)
def test_refuses_with_one_sentence(problem, message):
    with pytest.raises(ProblemError, match=message):
        tensor_core.prepare(problem, CONFIG)


@pytest.mark.parametrize(
    "wrong", [{"BM": 48}, {"WM": 8}, {"num_stages": 5}, {"async_copies": False}], ids=lambda wrong: str(wrong)
)
def test_refuses_constants_that_do_not_fit(wrong):
    with pytest.raises(ConfigError):
        tensor_core.prepare(problem_of((3,)), replace(CONFIG, **wrong))


def test_turing_has_no_bfloat16_and_no_asynchronous_copies():
    config = tensor_core.choose_config(problem_of((3,), dtype="float16"), (7, 5))
    assert (config.turing, config.async_copies, config.num_stages) == (True, False, 2)
    assert config.shared_bytes <= 64 * 1024, "a block of a Turing GPU has no more"
    with pytest.raises(ProblemError, match="use float16"):
        config.validate(problem_of((3,), dtype="bfloat16"))


def test_each_dtype_has_its_steps():
    from gemm_lessons.steps import STEPS, steps_for

    assert steps_for("float32") is STEPS
    assert list(steps_for("float16")) == ["tensor_core", "decode"]
    assert list(steps_for("bfloat16")) == ["tensor_core", "hopper", "decode"]
    assert list(steps_for("float8_e4m3fn")) == ["tiled_fp8", "hopper_fp8", "decode"]
