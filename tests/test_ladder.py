"""The bench: what is right is timed, what is wrong is named, and one failure loses one line."""

from types import SimpleNamespace

import numpy as np
import pytest

from gemm_lessons.launch import Prepared, Work, guarded_output
from gemm_lessons.measure import ladder
from gemm_lessons.measure.ladder import Bench
from gemm_lessons.measure.peers import PEERS, Peer
from gemm_lessons.measure.results import Record, load
from gemm_lessons.measure.roofline import Peaks
from gemm_lessons.measure.timing import Rules
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.reference import grouped_gemm
from gemm_lessons.steps import steps_for

PROBLEM = GroupedProblem((3, 0, 5), 4, 8, name="tiny")


class SteadyGpu:
    """Everything takes 100 us."""

    stream = 0

    def flush(self):
        pass

    def record(self):
        return 0.0

    def elapsed_us(self, start, stop):
        return 100.0

    def wait(self):
        pass


def step(error=None, spoil=None):
    """A step made of NumPy; spoil makes it wrong, error makes it fail."""

    def prepare(problem, config=None, inputs=None):
        if error:
            raise error
        output, y = guarded_output(problem)
        x, w = (np.asarray(array.copy_to_host()) for array in inputs)

        def compute(stream):
            right = grouped_gemm(x, w, problem.offsets).astype(np.float32)
            y.copy_to_device(spoil(right) if spoil else right)

        work = Work(1, 1, 1, problem.useful_flops)
        return Prepared(problem, config, {"pack": lambda stream: None, "gemm": compute}, output, work)

    return SimpleNamespace(prepare=prepare)


@pytest.fixture
def bench(tmp_path):
    peaks = Peaks(1e12, 1e12, {"float32": 1e12})
    record = Record({"device": "none"}, "2026-01-01", "float32")
    return Bench(SteadyGpu(), peaks, record, tmp_path / "none-float32.json", Rules.quick())


def test_a_right_step_is_timed_whole_in_parts_and_padded(bench):
    bench.ladder(PROBLEM, {"right": step()})
    whole = bench.record.find("tiny", "right")
    assert (whole.status, whole.median_us, whole.launch_us) == ("ok", 100, 0)
    assert whole.useful_tflops == pytest.approx(PROBLEM.useful_flops / 100e-6 / 1e12)
    assert whole.percent_of_roofline == pytest.approx(100 * PROBLEM.least_bytes / 1e12 / 100e-6)
    assert "right: 32 outputs" in whole.verdict
    twin = bench.record.find("tiny", "right", "padded twin")
    assert twin.useful_tflops == whole.useful_tflops  # padding does not count as useful
    assert "right: 60 outputs" in twin.verdict  # 3 experts of 5 tokens
    assert bench.record.find("tiny", "right/gemm", "part").status == "ok"


@pytest.mark.slow
def test_fp8_inputs_have_scales_also_where_they_are_padded(bench):
    bench.peaks.flops_per_s["float8_e4m3fn"] = 1e12
    problem = GroupedProblem((3, 0, 5), 4, 8, "float8_e4m3fn", "tiny")
    bench.ladder(problem, steps_for(problem.dtype))
    for kind, outputs in (("step", 32), ("padded twin", 60)):
        found = bench.record.find("tiny", "tiled_fp8", kind)
        assert found.status == "ok", found.reason
        assert f"right: {outputs} outputs" in found.verdict


def test_a_wrong_step_is_named(bench):
    bench.ladder(PROBLEM, {"wrong": step(spoil=lambda y: y * 2)})
    found = bench.record.find("tiny", "wrong")
    assert found.status == "wrong"
    assert "2 times what it should be" in found.reason


def test_a_step_that_works_only_once_is_wrong(bench):
    calls = []

    def only_once(y):
        calls.append(1)
        return y if len(calls) == 1 else np.full_like(y, np.nan)

    bench.ladder(PROBLEM, {"once": step(spoil=only_once)})
    assert bench.record.find("tiny", "once").status == "wrong"


def test_one_failure_loses_one_line_and_every_line_is_on_disk(bench):
    bench.ladder(PROBLEM, {"bad": step(error=RuntimeError("the GPU is on fire\nmore")), "right": step()})
    on_disk = load(bench.path)
    assert on_disk.find("tiny", "bad").reason == "RuntimeError: the GPU is on fire"
    assert on_disk.find("tiny", "bad").status == "failed"
    assert on_disk.find("tiny", "right").status == "ok"


def test_what_would_take_too_long_is_not_run(bench):
    bench.ladder(PROBLEM, {"right": step()})
    huge = GroupedProblem((10**6,), 4096, 4096, name="huge")
    assert bench._too_slow("right", PROBLEM.useful_flops) == ""
    assert "one call would take" in bench._too_slow("right", huge.useful_flops)


def test_a_peer_that_cannot_run_says_why(bench):
    bench.peers(PROBLEM, [Peer("other", ("float32",), lambda: "not installed", None)])
    bench.peers(PROBLEM, [Peer("other 16", ("bfloat16",), lambda: "", None)])
    reasons = [(one.status, one.reason) for one in bench.record.measurements]
    assert reasons == [("not run", "not installed"), ("not run", "takes bfloat16 only")]


def test_every_peer_gives_a_reason_where_it_cannot_run(bench):
    from gemm_lessons import device

    if device.choose().is_gpu:
        pytest.skip("peers may run here")
    bench.peers(PROBLEM, PEERS)
    assert len(bench.record.measurements) == len(PEERS)
    assert all(one.status == "not run" and one.reason for one in bench.record.measurements)


def test_the_padded_twin_is_the_same_work_with_zeros():
    inputs = PROBLEM.inputs()
    twin, padded = ladder.padded_twin(PROBLEM, inputs)
    assert twin.counts == (5, 5, 5)
    y = grouped_gemm(padded.x, padded.w, twin.offsets)
    np.testing.assert_allclose(y[10:15], grouped_gemm(inputs.x, inputs.w, PROBLEM.offsets)[3:], rtol=1e-12)
    assert not y[5:10].any()


@pytest.mark.gpu
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_peer_is_right_on_a_ragged_problem(peer, dtype):
    from gemm_lessons.measure.timing import CudaGpu

    problem = GroupedProblem((17, 0, 1, 130), 96, 64, dtype)
    if reason := peer.reason_not_to_run(problem):
        pytest.skip(f"NOT RUN: {reason}")
    inputs = problem.inputs()
    run = peer.prepare(problem, inputs)
    run.judge(CudaGpu(), inputs).raise_if_wrong(peer.name)


@pytest.fixture
def gpu_bench(tmp_path):
    from gemm_lessons.measure.timing import CudaGpu

    limits = Peaks(1e12, 1e12, {"float32": 1e13})
    return Bench(CudaGpu(), limits, ladder.new_record("float32", Rules.quick(), limits), rules=Rules.quick())


@pytest.mark.gpu
def test_every_step_is_right_after_it_was_timed(gpu_bench):
    from gemm_lessons.steps import STEPS

    problem = GroupedProblem((130, 0, 257, 1), 256, 128, name="ragged")
    gpu_bench.ladder(problem, STEPS)
    wrong = [(one.name, one.kind, one.reason) for one in gpu_bench.record.measurements if one.status != "ok"]
    assert not wrong
    assert gpu_bench.record.find("ragged", "persistent").host_us < 1000


@pytest.mark.gpu
def test_more_work_takes_more_time(gpu_bench):
    from gemm_lessons.steps import STEPS

    small = GroupedProblem((64,) * 4, 512, 512, name="small")
    large = GroupedProblem((64 * 64,) * 4, 512, 512, name="large")
    for problem in (small, large):
        gpu_bench.ladder(problem, {"tiled": STEPS["tiled"]})
    times = [gpu_bench.record.find(name, "tiled").median_us for name in ("small", "large")]
    assert 4 * times[0] < times[1]


@pytest.mark.gpu
def test_schedules_are_timed_and_traced(gpu_bench):
    from gemm_lessons.schedule import SCHEDULES
    from gemm_lessons.steps import STEPS

    problem = GroupedProblem((700, 0, 90, 33), 512, 256, name="uneven")
    gpu_bench.schedules(problem, STEPS["persistent"], SCHEDULES)
    found = [gpu_bench.record.find("uneven", name, "schedule") for name in SCHEDULES]
    assert [one.status for one in found] == ["ok"] * len(SCHEDULES), [one.reason for one in found]
    assert all(0 <= one.idle_tail < 1 for one in found)
