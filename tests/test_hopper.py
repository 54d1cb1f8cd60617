"""The Hopper step: right on every ragged case, in the checked simulator and on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
from ragged import ragged_cases, telling_first

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, check_output
from gemm_lessons.launch import Graph, LaunchError
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.steps import hopper
from gemm_lessons.steps._host import ConfigError

if device.choose().is_gpu and device.choose().compute_capability[0] != 9:
    pytest.skip("NOT RUN: wgmma exists on compute capability 9.0 only", allow_module_level=True)

ON_GPU = device.choose().is_gpu
pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
CONFIG = hopper.CONFIG if ON_GPU else hopper.SIM_CONFIG
BM = CONFIG.BM
SIZE = {"N": 392, "K": 456} if ON_GPU else {"N": 40, "K": 72}


def problem_of(counts, N=SIZE["N"], K=SIZE["K"]):
    return GroupedProblem(tuple(counts), N, K, "bfloat16")


COUNTS = {name: case.counts for name, case in ragged_cases(BM).items() if "K" not in name}


@pytest.mark.parametrize("name", telling_first(COUNTS))
def test_right_on_ragged_case(name):
    problem = problem_of(COUNTS[name])
    inputs = problem.inputs(7)
    prepared = hopper.prepare(problem, CONFIG, inputs)
    for attempt in ("first launch", "second launch"):
        prepared.check(inputs).raise_if_wrong(f"{name}, {attempt}")


@pytest.mark.parametrize(
    ("N", "K"),
    [(8, 8), (64, 64), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((136, 72), (200, 136)))],
)
def test_any_size_that_tma_can_move(N, K):
    problem = problem_of((3, BM + 1), N, K)
    inputs = problem.inputs(1)
    hopper.prepare(problem, CONFIG, inputs).check(inputs).raise_if_wrong(f"N={N} K={K}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"stealing": False}, {"band": 1}, {"box": 32, "num_buffers": 2}, {"num_stages": 3}], ids=str
)
def test_right_with_other_constants(options):
    problem = problem_of((BM + 5, 0, 3 * BM - 2), 136, 72)
    inputs = problem.inputs(2)
    config = replace(CONFIG, **options)
    hopper.prepare(problem, config, inputs).check(inputs).raise_if_wrong(str(options))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_right_in_any_order_of_events(seed):
    if ON_GPU:
        pytest.skip("NOT RUN: a GPU orders events as it likes")
    from gemm_lessons import sim

    problem = problem_of((BM + 5, 9), 64, 136)
    inputs = problem.inputs(seed)
    with sim.configured(seed=seed):
        hopper.prepare(problem, replace(CONFIG, num_stages=2), inputs).check(inputs).raise_if_wrong(str(seed))


@pytest.mark.slow
def test_one_and_two_consumer_warpgroups():
    for BN in (64, 128):
        problem = problem_of((5, BM + 3), 136, 72)
        inputs = problem.inputs(3)
        hopper.prepare(problem, replace(CONFIG, BN=BN), inputs).check(inputs).raise_if_wrong(f"BN={BN}")


def test_what_is_not_a_number_stays_with_its_expert():
    problem = problem_of((BM + 3, 5, 0, BM - 1))
    inputs = problem.inputs(4)
    x, w = inputs.x.copy(), inputs.w.copy()
    sick = slice(BM + 3, BM + 8)
    x[sick], w[1], w[2] = np.nan, np.nan, np.nan
    clean, poisoned = (hopper.prepare(problem, CONFIG, given) for given in (inputs, Inputs(x, w)))
    results = []
    for prepared in (clean, poisoned):
        prepared.poison()
        hopper.launch(prepared)
        results.append(prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float32))
    others = np.ones(problem.total_tokens, bool)
    others[sick] = False
    np.testing.assert_array_equal(results[1][others], results[0][others])
    assert np.isnan(results[1][sick]).all()


def test_a_replayed_graph_takes_new_counts():
    counts = (BM + 7, 0, 5, 20)
    problem = problem_of(counts)
    inputs = problem.inputs(5)
    prepared = hopper.prepare(problem, CONFIG, inputs)
    replay = Graph(prepared)
    offsets = prepared.parts["gemm"].arguments[1]
    total = problem.total_tokens
    for new in (counts, (0, 0, 0, total), (1, 2, total - 3, 0), (total // 2, total - total // 2, 0, 0)):
        routed = problem_of(new)
        offsets.copy_to_device(routed.offsets)
        prepared.poison()
        replay()
        check_output(prepared.result(), routed, inputs).raise_if_wrong(str(new))


def test_wild_counts_on_the_device_stay_inside_the_output():
    problem = problem_of((9, 4))
    inputs = problem.inputs(6)
    prepared = hopper.prepare(problem, CONFIG, inputs)
    prepared.parts["gemm"].arguments[1].copy_to_device(np.array([-5, 1_000_000, 7], np.int32))
    prepared.poison()
    hopper.launch(prepared)
    verdict = check_output(prepared.result(), problem_of((13, 0)), inputs)
    assert not verdict.guards_broken, verdict


@pytest.mark.skipif(ON_GPU, reason="NOT RUN: on a GPU this hangs; the simulator says why")
@pytest.mark.parametrize("barrier", ["full", "empty", "tile_ready", "tile_wanted"])
def test_a_wrong_arrival_count_is_a_sentence(barrier):
    from gemm_lessons import sim

    class OneMore(hopper.Config):
        @property
        def arrivals(self):
            counts = super().arrivals
            return counts | {barrier: counts[barrier] + 1}

    problem = problem_of((5, 3), 8, 192)
    prepared = hopper.prepare(problem, OneMore(BM=32, BN=64, box=16, num_stages=2, num_buffers=1))
    with pytest.raises(sim.SimulatorError, match=r"\(1 arrivals and \d+ bytes are missing\)"):
        hopper.launch(prepared)


def test_a_lesson_may_put_its_own_epilogue_in_place(monkeypatch):
    made, own = [], hopper.make_store

    def make_store(config):
        made.append(config)
        return own(config)

    monkeypatch.setattr(hopper, "make_store", make_store)
    hopper.prepare(problem_of((3,)), CONFIG)
    assert made == [CONFIG]


def test_nothing_is_launched_without_tokens():
    prepared = hopper.prepare(problem_of((0, 0)), CONFIG)
    assert not prepared.parts
    assert prepared.work.launches == 0


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (GroupedProblem((3,), 12, 64, "bfloat16"), "N must be a multiple of 8; pad it to 16"),
        (GroupedProblem((3,), 64, 7, "bfloat16"), "K must be a multiple of 8; pad it to 8"),
        (GroupedProblem((3,), 64, 64, "float32"), "computes in bfloat16, and the problem is float32"),
        (GroupedProblem((9,) * 65536, 32776, 16, "bfloat16"), "2148007936 rows, N for each expert, and TMA"),
    ],
    ids=["N", "K", "dtype", "size"],
)
def test_refuses_with_one_sentence(problem, message):
    with pytest.raises(ProblemError, match=message):
        hopper.prepare(problem, CONFIG)


@pytest.mark.parametrize(
    "wrong",
    [{"BM": 48}, {"BM": 512}, {"box": 8}, {"BN": 96}, {"num_stages": 1}],
    ids=lambda wrong: str(wrong),
)
def test_refuses_constants_that_do_not_fit(wrong):
    with pytest.raises(ConfigError):
        hopper.prepare(problem_of((3,)), replace(CONFIG, **wrong))


def test_refuses_more_shared_memory_than_there_is():
    with pytest.raises(LaunchError, match="use smaller tiles or fewer stages"):
        hopper.prepare(problem_of((3,)), replace(hopper.CONFIG, num_stages=8))


@pytest.mark.parametrize(
    ("counts", "BM"),
    [((4, 2, 7, 1), 64), ((130,) * 8, 256), ((64,) * 256, 128), ((0, 0, 0, 8192), 256), ((0, 0), 64)],
)
def test_the_tile_follows_the_average_number_of_tokens(counts, BM):
    config = hopper.choose_config(problem_of(counts))
    assert config.BM == BM
    assert config.shared_bytes <= 232448, "a block of an H100 has no more"
