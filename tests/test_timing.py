"""The timing protocol, on a device whose clock the test owns."""

import pytest

from gemm_lessons.measure import timing
from gemm_lessons.measure.cpu import numpy_times
from gemm_lessons.measure.timing import CudaGpu, Rules, TimingError, host_time, time_calls, time_on_cpu
from gemm_lessons.problem import GroupedProblem


class FakeGpu:
    """Work takes as long as it says; what happened is written down."""

    stream = "the stream"

    def __init__(self):
        self.now, self.log = 0.0, []

    def flush(self):
        self.now += 1000
        self.log.append("flush")

    def record(self):
        self.log.append("event")
        return self.now

    def elapsed_us(self, start, stop):
        return stop - start

    def wait(self):
        self.log.append("wait")

    def work(self, name, *durations):
        remaining = list(durations)

        def call(stream):
            assert stream == self.stream
            self.log.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return call


def test_l2_is_flushed_before_every_sample_and_outside_it():
    gpu = FakeGpu()
    measured = time_calls([gpu.work("a", 7)], gpu, Rules(samples=3, warmups=0))
    assert measured.median_us == 7  # the 1000 us of the flush are not in it
    assert gpu.log == ["a", "wait", *["flush", "event", "a", "event", "wait"] * 3]


def test_warm_up_is_not_in_the_samples():
    gpu = FakeGpu()
    measured = time_calls([gpu.work("a", 900, 900, 5)], gpu, Rules(samples=4, warmups=2))
    assert (measured.median_us, measured.iqr_us) == (5, 0)


def test_input_sets_take_turns():
    gpu = FakeGpu()
    time_calls([gpu.work("a", 1), gpu.work("b", 1)], gpu, Rules(samples=4, warmups=0))
    assert [entry for entry in gpu.log if entry in "ab"] == ["a", "b", *"abab"]


def test_median_and_spread_survive_an_outlier():
    gpu = FakeGpu()
    measured = time_calls([gpu.work("a", 1, 10, 11, 12, 13, 9000)], gpu, Rules(samples=5, warmups=1))
    assert (measured.median_us, measured.iqr_us, measured.samples) == (12, 2, 5)


def test_slow_work_stops_early_but_not_before_the_least():
    gpu = FakeGpu()
    rules = Rules(samples=30, least_samples=4, seconds=0.5)
    assert time_calls([gpu.work("a", 4e5)], gpu, rules).samples == 4


def test_nothing_to_time_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        time_calls([], FakeGpu(), Rules())


def test_host_time_waits_for_the_device_outside_the_clock(monkeypatch):
    gpu = FakeGpu()
    clock = iter([0.0, 2e-5, 1.0, 1.0 + 4e-5, 2.0, 2.0 + 2e-5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    measured = host_time([gpu.work("a", 1)], gpu, Rules(least_samples=3, host_calls=10))
    assert measured == pytest.approx(2.0)
    assert gpu.log.count("a") == 30


def test_the_simulator_is_never_timed(monkeypatch):
    simulator = timing.device.Device("sim", "simulator", "no driver", (9, 0), 8, 0)
    monkeypatch.setattr(timing.device, "choose", lambda: simulator)
    with pytest.raises(TimingError, match="nothing can be timed on the simulator"):
        CudaGpu()


def test_work_on_the_cpu_takes_turns(monkeypatch):
    log, clock = [], [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work(name, seconds):
        def run():
            log.append(name)
            clock[0] += seconds

        return run

    slow, fast = time_on_cpu([work("slow", 3e-6), work("fast", 1e-6)], rounds=3)
    assert (slow.median_us, fast.median_us) == (pytest.approx(3), pytest.approx(1))
    assert log == ["slow", "fast"] * 4  # the first round warms up


def test_numpy_agrees_with_itself_padded_and_not():
    times = numpy_times(GroupedProblem((3, 0, 9), 16, 8))
    assert times.padded.samples == times.per_expert.samples
    assert times.speedup == times.padded.median_us / times.per_expert.median_us


def test_a_driver_that_refuses_is_heard():
    class Refused(int):
        name = "CUDA_ERROR_INVALID_VALUE"

    def memset(*arguments):
        return (Refused(1),)

    with pytest.raises(TimingError, match="refused memset: CUDA_ERROR_INVALID_VALUE"):
        CudaGpu.ask(memset, 1, 2)
    assert CudaGpu.ask(lambda: (0, "answer")) == ["answer"]


@pytest.mark.gpu
def test_a_flush_writes_more_than_the_l2_cache_holds():
    gpu = CudaGpu()
    attribute = gpu._driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
    (l2_bytes,) = gpu.ask(gpu._driver.cuDeviceGetAttribute, attribute, 0)
    assert gpu.flush_bytes >= 2 * l2_bytes
    gpu.flush()
    start = gpu.record()
    gpu.flush()
    stop = gpu.record()
    gpu.wait()
    bytes_per_s = 2 * gpu.flush_bytes / (gpu.elapsed_us(start, stop) * 1e-6)
    assert bytes_per_s < 2e13, "faster than any memory: the flush did not happen"
