"""FP8 on Hopper: right on every ragged case and scale, in the checked simulator and on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
from ragged import ragged_cases, telling_first

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, WGMMA_E4M3_BITS, check_output
from gemm_lessons.launch import Graph, LaunchError
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import dequantize, quantize_inputs
from gemm_lessons.steps import hopper_fp8
from gemm_lessons.steps._host import ConfigError

if device.choose().is_gpu and device.choose().compute_capability[0] != 9:
    pytest.skip("NOT RUN: wgmma exists on compute capability 9.0 only", allow_module_level=True)

ON_GPU = device.choose().is_gpu
pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
CONFIG = hopper_fp8.CONFIG if ON_GPU else hopper_fp8.SIM_CONFIG
BM = CONFIG.BM
FEW = replace(hopper_fp8.SIM_CONFIG, BM=32, box=16, few_tokens=True)
if ON_GPU:
    FEW = hopper_fp8.choose_config(GroupedProblem((1,), 128, 128, "float8_e4m3fn"))
in_both_layouts = pytest.mark.parametrize("config", [CONFIG, FEW], ids=["many", "few"])
SIZE = {"N": 392, "K": 464} if ON_GPU else {"N": 40, "K": 144}


def problem_of(counts, N=SIZE["N"], K=SIZE["K"]):
    return GroupedProblem(tuple(counts), N, K, "float8_e4m3fn")


def numbers(problem, seed):
    """Inputs whose blocks of K differ by twelve binades, and one in ten of which are zeros."""
    rng = np.random.default_rng(seed)
    x, w = replace(problem, dtype="float32").inputs(seed)
    num_blocks = -(-problem.K // 128)

    def stretch(array, exponents):
        factors = np.exp2(exponents) * (rng.random(exponents.shape) < 0.9)
        return (array * factors.repeat(128, axis=-1)[..., : problem.K]).astype(np.float32)

    per_expert = rng.integers(-6, 7, (problem.num_groups, 1, num_blocks))
    return Inputs(
        stretch(x, rng.integers(-6, 7, (problem.total_tokens, num_blocks))),
        stretch(w, np.broadcast_to(per_expert, (*w.shape[:2], num_blocks))),
    )


def scaled(problem, seed, *, whole_rows=False):
    return quantize_inputs(numbers(problem, seed), whole_rows=whole_rows)


def assert_right(problem, config, inputs, subject, launches=1):
    prepared = hopper_fp8.prepare(problem, config, inputs)
    for _ in range(launches):
        prepared.check(inputs).raise_if_wrong(subject)


CASES = [name for name in ragged_cases(BM) if "K" not in name]


@in_both_layouts
@pytest.mark.parametrize("name", telling_first(CASES))
def test_right_on_ragged_case(name, config):
    problem = problem_of(ragged_cases(config.BM)[name].counts)
    inputs = scaled(problem, 7, whole_rows=len(name) % 2 == 0)
    assert_right(problem, config, inputs, name, launches=2)


@in_both_layouts
@pytest.mark.parametrize(
    ("N", "K", "whole_rows"),
    [
        (8, 16, False),
        (8, 16, True),
        *(pytest.param(136, 272, rows, marks=pytest.mark.slow) for rows in (False, True)),
    ],
)
def test_tails_of_n_and_k(N, K, whole_rows, config):
    problem = problem_of((3, config.BM + 1), N, K)
    assert_right(problem, config, scaled(problem, 1, whole_rows=whole_rows), f"{N=} {K=}")


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        pytest.param({"BM": 128}, (70, 0, 5, 129), marks=pytest.mark.slow),
        ({"BM": 256, "num_buffers": 2}, (1, 193)),
        pytest.param({"BM": 128, "BN": 128, "num_buffers": 1}, (129, 65), marks=pytest.mark.slow),
        pytest.param({"BM": 256, "BN": 128, "num_buffers": 4}, (193,), marks=pytest.mark.slow),
        pytest.param({"BM": 256, "BN": 128, "num_buffers": 2}, (193,), marks=pytest.mark.slow),
        pytest.param({"stealing": False, "band": 1}, (BM + 5, 0, 3 * BM - 2), marks=pytest.mark.slow),
        ({"BM": 64, "BN": 128, "box": 32, "few_tokens": True}, (17, 0, 49)),
        pytest.param({"BM": 16, "box": 16, "few_tokens": True}, (17, 3), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_right_with_other_constants(options, counts):
    problem = problem_of(counts)
    assert_right(problem, replace(CONFIG, **options), scaled(problem, 2), str(options))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"BM": 128}, {"BM": 32, "box": 16, "few_tokens": True}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_right_in_any_order_of_events(seed, options):
    if ON_GPU:
        pytest.skip("NOT RUN: a GPU orders events as it likes")
    from gemm_lessons import sim

    problem = problem_of((70, 9), 64, 272)
    with sim.configured(seed=seed):
        assert_right(problem, replace(CONFIG, **options), scaled(problem, seed), str(seed))


def drift(K, config, *, whole_rows):
    """How far outputs are off on average, relative to themselves, where every value is positive."""
    problem = problem_of((300,), 128, K)
    x, w = (np.abs(one) + np.float32(0.5) for one in replace(problem, dtype="float32").inputs(K))
    inputs = quantize_inputs(Inputs(x, w), whole_rows=whole_rows)
    prepared = hopper_fp8.prepare(problem, config, inputs)
    hopper_fp8.launch(prepared)
    got = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float64)
    x, w = (dequantize(one) for one in inputs)
    return float((got / (x @ w[0].T) - 1).mean())


@pytest.mark.skipif(not ON_GPU, reason="NOT RUN: in the simulator wgmma adds in float32, and loses nothing")
@in_both_layouts
@pytest.mark.parametrize("whole_rows", [False, True])
def test_sums_leave_the_tensor_core_before_they_lose_more(whole_rows, config):
    # why positive values: dropped bits all go one way, and random signs hide that from a tolerance
    one_block, many = (drift(K, config, whole_rows=whole_rows) for K in (128, 8192))
    assert abs(many) < 2 * abs(one_block) + 2.0**-9, (one_block, many)


@in_both_layouts
def test_many_empty_experts(config):
    counts = tuple(5 if g in (3, 40) else 0 for g in range(64))
    problem = problem_of(counts, 16, 32)
    assert_right(problem, config, scaled(problem, 3), "62 of 64 experts are empty")


def test_nothing_but_zeros_is_zero():
    problem = problem_of((5, 2))
    x, w = numbers(problem, 4)
    prepared = hopper_fp8.prepare(problem, CONFIG, quantize_inputs(Inputs(x * 0, w)))
    prepared.poison()
    hopper_fp8.launch(prepared)
    assert not prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].any()


@in_both_layouts
def test_what_is_not_a_number_stays_with_its_row_and_its_expert(config):
    problem = problem_of((9, 5, 0, 7))
    x, w = (array.copy() for array in numbers(problem, 4))
    x[2, 17], w[1], w[2], w[3, 4, -1] = np.nan, np.nan, np.nan, np.inf
    prepared = hopper_fp8.prepare(problem, config, quantize_inputs(Inputs(x, w)))
    prepared.poison()
    hopper_fp8.launch(prepared)
    y = prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float32)
    sick = np.zeros(y.shape, bool)
    sick[2], sick[9:14], sick[14:, 4] = True, True, True
    np.testing.assert_array_equal(np.isnan(y), sick)


@in_both_layouts
def test_a_replayed_graph_takes_new_counts(config):
    counts = (9, 0, 5, 20)
    problem = problem_of(counts)
    inputs = scaled(problem, 5)
    prepared = hopper_fp8.prepare(problem, config, inputs)
    replay = Graph(prepared)
    offsets = prepared.parts["gemm"].arguments[1]
    total = problem.total_tokens
    for new in (counts, (0, 0, 0, total), (1, 2, total - 3, 0)):
        routed = problem_of(new)
        offsets.copy_to_device(routed.offsets)
        prepared.poison()
        replay()
        verdict = check_output(prepared.result(), routed, inputs, accumulator_bits=WGMMA_E4M3_BITS)
        verdict.raise_if_wrong(str(new))


@in_both_layouts
def test_wild_counts_on_the_device_stay_inside_the_output(config):
    problem = problem_of((9, 4))
    inputs = scaled(problem, 6)
    prepared = hopper_fp8.prepare(problem, config, inputs)
    prepared.parts["gemm"].arguments[1].copy_to_device(np.array([-5, 1_000_000, 7], np.int32))
    prepared.poison()
    hopper_fp8.launch(prepared)
    verdict = check_output(prepared.result(), problem_of((13, 0)), inputs, accumulator_bits=WGMMA_E4M3_BITS)
    assert not verdict.guards_broken, verdict


@pytest.mark.skipif(ON_GPU, reason="NOT RUN: on a GPU this hangs; the simulator says why")
@pytest.mark.parametrize("few", [{}, {"BM": 16, "box": 16, "few_tokens": True}], ids=["many", "few"])
@pytest.mark.parametrize("barrier", ["full", "empty", "tile_ready", "tile_wanted"])
def test_a_wrong_arrival_count_is_a_sentence(barrier, few):
    from gemm_lessons import sim

    class OneMore(hopper_fp8.Config):
        @property
        def arrivals(self):
            counts = super().arrivals
            return counts | {barrier: counts[barrier] + 1}

    problem = problem_of((5, 3), 8, 400)
    config = OneMore(**{"BM": 64, "BN": 64, "num_stages": 2, "num_buffers": 1, **few})
    prepared = hopper_fp8.prepare(problem, config, scaled(problem, 6))
    with pytest.raises(sim.SimulatorError, match=r"\(1 arrivals and \d+ bytes are missing\)"):
        hopper_fp8.launch(prepared)


def test_nothing_is_launched_without_tokens():
    prepared = hopper_fp8.prepare(problem_of((0, 0)), CONFIG)
    assert not prepared.parts
    assert prepared.work.launches == 0


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (GroupedProblem((3,), 12, 64, "float8_e4m3fn"), "N must be a multiple of 8; pad it to 16"),
        (GroupedProblem((3,), 64, 24, "float8_e4m3fn"), "K must be a multiple of 16; pad it to 32"),
        (GroupedProblem((3,), 64, 64, "bfloat16"), "computes in float8_e4m3fn, and the problem is bfloat16"),
    ],
    ids=["N", "K", "dtype"],
)
def test_refuses_with_one_sentence(problem, message):
    with pytest.raises(ProblemError, match=message):
        hopper_fp8.prepare(problem, CONFIG)


def test_refuses_inputs_without_scales():
    problem = problem_of((3,))
    with pytest.raises(ProblemError, match="FP8 inputs need scales"):
        hopper_fp8.prepare(problem, CONFIG, problem.inputs())


@pytest.mark.parametrize(
    "wrong",
    [{"BM": 96}, {"BM": 32}, {"BM": 512}, {"box": 32}, {"BN": 96}, {"num_stages": 1}]
    + [{"few_tokens": True, **few} for few in ({"BM": 8}, {"BM": 32}, {"BM": 256}, {"box": 8}, {"BN": 256})],
    ids=str,
)
def test_refuses_constants_that_do_not_fit(wrong):
    with pytest.raises(ConfigError):
        hopper_fp8.prepare(problem_of((3,)), replace(CONFIG, **wrong))


def test_refuses_more_shared_memory_than_there_is():
    with pytest.raises(LaunchError, match="use smaller tiles or fewer stages"):
        hopper_fp8.prepare(problem_of((3,)), replace(hopper_fp8.CONFIG, num_stages=6))


@pytest.mark.parametrize(
    ("counts", "BM"),
    [((4, 2, 7, 1), 64), ((130,) * 8, 256), ((64,) * 256, 128), ((0, 0, 0, 8192), 256), ((0, 0), 64)],
)
def test_the_tile_follows_the_average_number_of_tokens(counts, BM):
    config = hopper_fp8.choose_config(problem_of(counts))
    assert config.BM == BM
    static = 1024  # barriers and tiles
    assert replace(config, whole_rows=True).shared_bytes + static <= 232448, "a block of an H100 has no more"


def test_exports_what_every_step_exports():
    exported = ("Config", "CONFIG", "SIM_CONFIG", "SIGNATURE", "make_kernel", "prepare", "launch")
    assert [export for export in exported if not hasattr(hopper_fp8, export)] == []
    parts = ("Picture:", "What changed:", "Why it should help:", "When it will not:", "What to measure:")
    assert [part for part in parts if part not in hopper_fp8.__doc__] == []
