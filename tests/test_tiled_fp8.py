"""The FP8 recipe in plain arithmetic: every ragged case, scales over twelve binades, both recipes."""

from dataclasses import replace

import numpy as np
import pytest
from ragged import ragged_cases, telling_first

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, check_output
from gemm_lessons.launch import Graph, launch_parts, to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import QuantizedInputs, quantize, quantize_inputs
from gemm_lessons.quantize_kernels import quantize_on_device
from gemm_lessons.steps import tiled_fp8
from gemm_lessons.steps._host import ConfigError

DEVICE = device.choose()
pytestmark = [pytest.mark.gpu] if DEVICE.is_gpu else []  # the same tests on both
CONFIG = tiled_fp8.CONFIG if DEVICE.is_gpu else tiled_fp8.SIM_CONFIG
HAS_INSTRUCTION = DEVICE.compute_capability >= (8, 9)
BM = CONFIG.BM
CASES = ragged_cases(BM)


def fp8(counts, N, K):
    return GroupedProblem(tuple(counts), N, K, "float8_e4m3fn")


def numbers(problem, seed):
    """Inputs whose blocks of K differ by twelve binades, and some of which are zero."""
    rng = np.random.default_rng(seed)
    x, w = replace(problem, dtype="float32").inputs(seed)
    blocks = -(-problem.K // 128)

    def stretch(array):
        exponents = rng.integers(-6, 7, (*array.shape[:-1], blocks))
        exponents[...] = exponents[..., :1, :] if array.ndim == 3 else exponents
        factors = np.exp2(exponents) * (rng.random(exponents.shape) < 0.9)
        return (array * factors.repeat(128, axis=-1)[..., : problem.K]).astype(np.float32)

    return Inputs(stretch(x), stretch(w))


def scaled(problem, seed, *, whole_rows=False):
    return quantize_inputs(numbers(problem, seed), whole_rows=whole_rows)


@pytest.mark.parametrize("name", telling_first(CASES))
def test_right_on_ragged_case(name):
    problem = fp8(CASES[name].counts, CASES[name].N, CASES[name].K)
    inputs = scaled(problem, 7, whole_rows=len(name) % 2 == 0)
    prepared = tiled_fp8.prepare(problem, CONFIG, inputs)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name}, {attempt}")


@pytest.mark.parametrize("whole_rows", [False, True])
@pytest.mark.parametrize("K", [128, 129, 260, pytest.param(384, marks=pytest.mark.slow)])
def test_blocks_of_k_and_their_tail(K, whole_rows):
    problem = fp8((BM + 1, 0, 3), 19, K)
    inputs = scaled(problem, K, whole_rows=whole_rows)
    tiled_fp8.prepare(problem, CONFIG, inputs).check(inputs).raise_if_wrong(f"K={K}")


@pytest.mark.slow
def test_blocks_of_n():
    problem = fp8((1, 1), 261, 132)
    inputs = scaled(problem, 1)
    assert inputs.w.scales.shape == (2, 3, 2)
    tiled_fp8.prepare(problem, CONFIG, inputs).check(inputs).raise_if_wrong("three blocks of N")


@pytest.mark.skipif(not HAS_INSTRUCTION, reason="NOT RUN: e4m3 instructions need compute capability 8.9")
def test_decoding_by_instruction_and_by_table_give_the_same_bits():
    problem = fp8((BM + 3, 5), 20, 136)
    inputs = scaled(problem, 2)
    results = []
    for instruction in (False, True):
        prepared = tiled_fp8.prepare(problem, replace(CONFIG, instruction=instruction), inputs)
        prepared.check(inputs).raise_if_wrong(f"{instruction=}")
        results.append(prepared.result().view(np.uint16))
    np.testing.assert_array_equal(*results)


def test_takes_what_the_device_has_quantised():
    problem = fp8((BM + 1, 4), 20, 140)
    x, w = numbers(problem, 3)
    on_device = QuantizedInputs(
        quantize_on_device(to_device(x)), quantize_on_device(to_device(w), (128, 128))
    )
    wanted = quantize_inputs(Inputs(x, w))
    tiled_fp8.prepare(problem, CONFIG, on_device).check(wanted).raise_if_wrong("quantised on the device")


def test_quantises_random_inputs_if_there_are_none():
    problem = fp8((5, 0, 2), 8, 12)
    prepared = tiled_fp8.prepare(problem)
    prepared.check(quantize_inputs(replace(problem, dtype="float32").inputs())).raise_if_wrong("random")


def test_nan_reaches_the_outputs_that_it_belongs_to_and_no_others():
    problem = fp8((5, 3), 9, 130)
    x, w = numbers(problem, 4)
    x[6, 17], w[0, 4, 129] = np.nan, np.inf
    inputs = quantize_inputs(Inputs(x, w))
    prepared = tiled_fp8.prepare(problem, CONFIG, inputs)
    launch_parts(prepared)
    y = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float32)
    expected = np.zeros((8, 9), bool)
    expected[6], expected[:5, 4] = True, True
    np.testing.assert_array_equal(np.isnan(y), expected)


def test_replays_as_a_graph():
    problem = fp8((4, 0, BM + 1), 9, 8)
    inputs = scaled(problem, 5)
    prepared = tiled_fp8.prepare(problem, None, inputs)
    replay = Graph(prepared)
    for _ in range(2):
        prepared.poison()
        replay()
        check_output(prepared.result(), problem, inputs).raise_if_wrong("replay")


def test_what_does_not_fit_is_refused_with_one_sentence():
    problem = fp8((3,), 8, 200)
    inputs = scaled(problem, 6)
    with pytest.raises(ProblemError, match="computes in float8_e4m3fn, and the problem is bfloat16"):
        tiled_fp8.prepare(GroupedProblem((3,), 8, 8, "bfloat16"))
    with pytest.raises(ProblemError, match="FP8 inputs need scales"):
        tiled_fp8.prepare(problem, None, problem.inputs())
    x, _ = numbers(problem, 6)
    odd = QuantizedInputs(quantize(x, (1, 64)), inputs.w)
    with pytest.raises(ProblemError, match=r"blocks of \(1, 64\) of x and \(128, 128\) of w"):
        tiled_fp8.prepare(problem, None, odd)
    with pytest.raises(ProblemError, match="scales of w have shape"):
        tiled_fp8.prepare(problem, None, inputs._replace(w=inputs.w._replace(scales=inputs.w.scales[:, :0])))
    with pytest.raises(ConfigError, match="BK is 256"):
        tiled_fp8.prepare(problem, replace(CONFIG, BK=256), inputs)


def test_exports_what_every_step_exports():
    exported = ("Config", "CONFIG", "SIM_CONFIG", "SIGNATURE", "make_kernel", "prepare", "launch")
    assert [export for export in exported if not hasattr(tiled_fp8, export)] == []
    parts = ("Picture:", "What changed:", "Why it should help:", "When it will not:", "What to measure:")
    assert [part for part in parts if part not in tiled_fp8.__doc__] == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
@pytest.mark.skipif(not DEVICE.is_gpu, reason="NOT RUN: needs a GPU")
def test_right_on_gpu_at_full_size(name):
    problem = fp8(CASES[name].counts, 390, 716 if len(name) % 2 else 77)
    inputs = scaled(problem, 11)
    tiled_fp8.prepare(problem, None, inputs).check(inputs).raise_if_wrong(name)
