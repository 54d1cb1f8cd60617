"""The decode step: right on every ragged case, the same bits every time, in the simulator and on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
from numba import cuda, int32
from ragged import ragged_cases, telling_first

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, check_output
from gemm_lessons.launch import Graph, to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import QuantizedInputs, draw_inputs, quantize_inputs
from gemm_lessons.steps import decode
from gemm_lessons.steps._host import ConfigError

DEVICE = device.choose()
ON_GPU = DEVICE.is_gpu
pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
if DEVICE.compute_capability < (8, 0):
    pytest.skip("NOT RUN: cp.async needs compute capability 8.0", allow_module_level=True)

FP8 = "float8_e4m3fn"
DTYPES = ("bfloat16", "float16", FP8) if DEVICE.compute_capability >= (8, 9) else ("bfloat16", "float16")
# float16 differs from bfloat16 in one instruction: where a test is slow, it is left to `make test-all`.
# Where it is slower still, so is bfloat16.
QUICK_DTYPES = [
    dtype if dtype != "float16" else pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES
]
FEW_DTYPES = [
    dtype if dtype == DTYPES[-1] else pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES
]
BM = decode.SIM_CONFIG.tokens
CASES = {name: case.counts for name, case in ragged_cases(BM).items() if "K" not in name}
H100, A100, RTX_4090 = 232448, 166912, 101376  # bytes of shared memory that a block may have


def problem_of(counts, N=38, K=80, dtype="bfloat16"):
    return GroupedProblem(tuple(counts), N, K, dtype)


def prepared_of(problem, inputs):
    """The step as it prepares itself; on a GPU with one of two tiles, as each takes seconds to compile."""
    config = None
    if ON_GPU:
        average = problem_of((64 if problem.max_tokens > 6 else 4,), dtype=problem.dtype)
        config = decode.choose_config(average, DEVICE.shared_bytes_per_block)
    return decode.prepare(problem, config, inputs)


def run(prepared):
    """y of one launch, as bits."""
    prepared.poison()
    decode.launch(prepared)
    return prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].view(np.uint16)


def counters_of(prepared):
    return prepared.parts["gemm"].arguments[-1].copy_to_host()


def stretched(problem, seed):
    """FP8 inputs whose blocks differ by twelve binades, and some of which are zero."""
    rng = np.random.default_rng(seed)

    def stretch(array):
        blocks = -(-problem.K // 128)
        factors = np.exp2(rng.integers(-6, 7, (len(array), *[1] * (array.ndim - 2), blocks)))
        factors *= rng.random(factors.shape) < 0.9
        return (array * factors.repeat(128, axis=-1)[..., : problem.K]).astype(np.float32)

    return quantize_inputs(Inputs(*(stretch(one) for one in replace(problem, dtype="float32").inputs(seed))))


@pytest.mark.parametrize("name", telling_first(CASES))
def test_right_on_ragged_case(name):
    problem = problem_of(CASES[name], dtype=DTYPES[len(name) % len(DTYPES)])
    inputs = draw_inputs(problem, 7)
    prepared = prepared_of(problem, inputs)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name} in {problem.dtype}, {attempt}")
    if prepared.parts:
        assert not counters_of(prepared).any(), "a counter was not reset"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "K"), [(2, 16), pytest.param(66, 400, marks=pytest.mark.slow)])
def test_any_size_that_16_bytes_and_pairs_divide(N, K, dtype):
    problem = problem_of((3, 9), N, K, dtype)
    inputs = draw_inputs(problem, 1)
    prepared_of(problem, inputs).check(inputs).raise_if_wrong(f"N={N} K={K} {dtype}")


@pytest.mark.parametrize("K", [144, pytest.param(528, marks=pytest.mark.slow)])
def test_scales_that_vary_over_twelve_binades(K):
    if FP8 not in DTYPES:
        pytest.skip("NOT RUN: e4m3 needs compute capability 8.9")
    problem = problem_of((3, 0, 10), 132, K, FP8)
    inputs = stretched(problem, K)
    assert inputs.w.scales.shape[1:] == (2, -(-K // 128))
    prepared_of(problem, inputs).check(inputs).raise_if_wrong(f"K={K}")


OTHER = [
    {"slab_bytes": 512}, {"slab_bytes": 128}, {"num_stages": 2}, {"num_stages": 6}, {"tokens": 8},
    {"tokens": 32}, {"least_slabs": 3},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", FP8] if FP8 in DTYPES else ["bfloat16"])
@pytest.mark.parametrize("options", [{"slab_bytes": 512}] if ON_GPU else OTHER, ids=str)
def test_right_with_other_constants(options, dtype):
    problem = problem_of((BM + 3, 0, 2), 34, 272, dtype)
    inputs = draw_inputs(problem, 2)
    config = replace(decode.SIM_CONFIG, **options)
    decode.prepare(problem, config, inputs).check(inputs).raise_if_wrong(str(options))


def random_problem(seed):
    """Up to 64 tokens per expert, many of them none, and any extents."""
    rng = np.random.default_rng(seed)
    most = int(rng.choice([1, 6, 64] if ON_GPU else [1, 4, 8, 20]))
    counts = rng.integers(1, most + 1, rng.integers(1, 17 if ON_GPU else 5))
    counts = np.where(rng.random(counts.size) < 0.4, 0, counts)
    dtype = str(rng.choice([name for name in DTYPES if name != "float16" or not ON_GPU]))
    pairs, pieces = (200, 80) if ON_GPU else (30, 9)
    K = int(rng.integers(1, pieces + 1)) * (16 if dtype == FP8 else 8)
    return problem_of(counts.tolist(), 2 * int(rng.integers(1, pairs + 1)), K, dtype)


QUICK_SEEDS, SLOW_SEEDS = range(4), range(4, 40)


def check_seed(seed):
    problem = random_problem(seed)
    inputs = stretched(problem, seed) if problem.dtype == FP8 else problem.inputs(seed)
    prepared_of(problem, inputs).check(inputs).raise_if_wrong(f"seed {seed}, {problem}")


@pytest.mark.parametrize(
    "seed", [*QUICK_SEEDS, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW_SEEDS)]
)
def test_right_on_random_problems(seed):
    check_seed(seed)


@pytest.mark.skipif(not ON_GPU, reason="NOT RUN: too many for the simulator, which runs the first of them")
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_right_on_a_thousand_random_problems(first):
    for seed in range(first, first + 100):
        check_seed(seed)


def test_many_empty_experts():
    problem = problem_of(tuple(3 if g in (3, 40, 69) else 0 for g in range(70)))
    inputs = draw_inputs(problem, 5)
    prepared_of(problem, inputs).check(inputs).raise_if_wrong("67 of 70 experts are empty")


@pytest.mark.parametrize("dtype", FEW_DTYPES)
def test_what_is_not_a_number_stays_with_its_expert(dtype):
    problem = problem_of((BM + 3, 5, 0, 4), 34, 48, dtype)
    inputs = replace(problem, dtype="float32").inputs(4)
    x, w = inputs.x.copy(), inputs.w.copy()
    sick = slice(BM + 3, BM + 8)
    x[sick, 7], w[1, :, 5], w[2] = np.nan, np.nan, np.nan
    results = []
    for given in (inputs, Inputs(x, w)):
        made = (
            quantize_inputs(given)
            if dtype == FP8
            else Inputs(*(a.astype(problem_dtype(dtype)) for a in given))
        )
        prepared = prepared_of(problem, made)
        results.append(run(prepared).view(prepared.output.dtype).astype(np.float32))
    others = np.ones(problem.total_tokens, bool)
    others[sick] = False
    np.testing.assert_array_equal(results[1][others], results[0][others])
    assert np.isnan(results[1][sick]).all()


def problem_dtype(dtype):
    return problem_of((1,), dtype=dtype).inputs().x.dtype


@pytest.mark.parametrize("dtype", QUICK_DTYPES)
def test_zeros_give_zeros(dtype):
    problem = problem_of((2, 0, 9), 34, 48, dtype)
    zeros = Inputs(*(np.zeros_like(a) for a in replace(problem, dtype="float32").inputs()))
    made = (
        quantize_inputs(zeros) if dtype == FP8 else Inputs(*(a.astype(problem_dtype(dtype)) for a in zeros))
    )
    assert not run(prepared_of(problem, made)).any()


def test_a_replayed_graph_takes_new_counts():
    counts = (7, 0, 5, BM + 2)
    problem = problem_of(counts)
    inputs = problem.inputs(5)
    prepared = prepared_of(problem, inputs)
    replay = Graph(prepared)
    offsets = prepared.parts["gemm"].arguments[4]
    total = problem.total_tokens
    for new in (counts, (0, 0, 0, total), (total // 2, total - total // 2, 0, 0)):
        routed = problem_of(new)
        offsets.copy_to_device(routed.offsets)
        prepared.poison()
        replay()
        check_output(prepared.result(), routed, inputs).raise_if_wrong(str(new))


def test_wild_counts_on_the_device_stay_inside_the_output():
    problem = problem_of((9, 4))
    inputs = problem.inputs(6)
    prepared = prepared_of(problem, inputs)
    prepared.parts["gemm"].arguments[4].copy_to_device(np.array([-5, 1_000_000, 7], np.int32))
    prepared.poison()
    decode.launch(prepared)
    verdict = check_output(prepared.result(), problem_of((13, 0)), inputs)
    assert not verdict.guards_broken, verdict


@pytest.mark.parametrize("dtype", FEW_DTYPES)
def test_the_same_bits_every_time(dtype):
    K = 4096 if ON_GPU else 320
    problem = problem_of((5, 0, 2), 130 if ON_GPU else 10, K, dtype)  # so few tiles that K is cut
    prepared = prepared_of(problem, draw_inputs(problem, 8))
    assert prepared.parts["gemm"].num_blocks > prepared.work.tiles
    first = run(prepared)
    if ON_GPU:
        for _ in range(100):
            np.testing.assert_array_equal(run(prepared), first)
        return
    from gemm_lessons import sim

    for seed in (1, 2):  # another order of blocks, and other moments for every copy to land
        with sim.configured(seed=seed):
            np.testing.assert_array_equal(run(prepared), first)


def make_list_slices(tokens):
    count_slices, find_slice = decode.make_slices(tokens)

    @cuda.jit
    def list_slices(offsets, total_tokens, found):
        count = count_slices(offsets, total_tokens)
        for number in range(count):
            group, row, rows = find_slice(offsets, total_tokens, int32(number))
            if cuda.threadIdx.x == 0:
                found[number, 0], found[number, 1], found[number, 2] = group, row, rows
        if cuda.threadIdx.x == 0:
            found[found.shape[0] - 1, 0] = count

    return list_slices


@pytest.mark.parametrize("seed", range(3))
def test_slices_cover_every_token_and_no_empty_expert(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, 70) * (rng.random(70) < 0.4)
    problem = problem_of(counts)
    wanted = [
        (group, int(problem.offsets[group]) + first, min(16, count - first))
        for group, count in enumerate(problem.counts)
        for first in range(0, count, 16)
    ]
    found = to_device(np.zeros((len(wanted) + 1, 3), np.int32))
    make_list_slices(16)[1, 32](to_device(problem.offsets), np.int32(problem.total_tokens), found)
    got = found.copy_to_host()
    assert got[-1, 0] == len(wanted)
    np.testing.assert_array_equal(got[:-1], wanted)


def test_nothing_is_launched_without_tokens():
    prepared = decode.prepare(problem_of((0, 0)))
    assert not prepared.parts
    assert prepared.work.launches == 0


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (problem_of((3,), 8, 12), "K must be a multiple of 8; pad it to 16"),
        (problem_of((3,), 8, 24, FP8), "K must be a multiple of 16; pad it to 32"),
        (problem_of((3,), 7, 16), "N must be even"),
        (problem_of((3,), 8, 16, "float32"), "and the problem is float32"),
        (GroupedProblem((64,) * 4096, 2**17, 2**16, "bfloat16"), "more than 2 \\*\\* 31 slabs"),
    ],
    ids=["K", "K of fp8", "N", "dtype", "size"],
)
def test_refuses_with_one_sentence(problem, message):
    with pytest.raises(ProblemError, match=message):
        decode.CONFIG.validate(problem)


def test_refuses_scales_for_whole_rows():
    problem = problem_of((3,), 8, 160, FP8)
    inputs = quantize_inputs(replace(problem, dtype="float32").inputs(), whole_rows=True)
    assert isinstance(inputs, QuantizedInputs)
    with pytest.raises(ProblemError, match="not for whole rows"):
        prepared_of(problem, inputs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"BN": 48}, {"BN": 16}, {"BN": 256}, {"tokens": 4}, {"tokens": 128}, {"slab_bytes": 64},
        {"slab_bytes": 1024}, {"num_stages": 1}, {"num_stages": 99}, {"least_slabs": 0},
    ],
    ids=str,
)  # fmt: skip
def test_refuses_constants_that_do_not_fit(wrong):
    with pytest.raises(ConfigError):
        replace(decode.CONFIG, **wrong).validate(problem_of((3,)))


@pytest.mark.parametrize("dtype", ["bfloat16", FP8])
@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        ((4, 2, 7, 1, 3, 5, 2, 6), 16),
        ((8,) * 8, 32),
        ((64,) * 8, 64),
        ((0, 0), 16),
        ((0, 0, 0, 60), 64),
        ((16,), 16),
    ],
)
def test_the_tile_follows_the_average_number_of_tokens_and_fits(counts, tokens, dtype):
    for room in (H100, A100, RTX_4090):
        config = decode.choose_config(problem_of(counts, dtype=dtype), room)
        config.validate(problem_of(counts, K=128))
        assert config.tokens == tokens
        assert config.num_stages >= 3
        assert config.shared_bytes + config.sum_bytes + 16 <= room
