"""The roofline's arithmetic, counted by hand; its probes, where there is a GPU."""

import pytest

from gemm_lessons.measure import roofline
from gemm_lessons.measure.roofline import Peaks
from gemm_lessons.problem import GroupedProblem

PEAKS = Peaks(copy_bytes_per_s=3e12, read_bytes_per_s=2e12, flops_per_s={"float32": 50e12})


def test_many_tokens_are_bound_by_arithmetic():
    problem = GroupedProblem((4096, 4096), 1024, 1024)
    assert PEAKS.least_us(problem) == pytest.approx(2 * 8192 * 1024 * 1024 / 50e12 * 1e6)


def test_few_tokens_are_bound_by_the_better_bandwidth():
    problem = GroupedProblem((1, 0), 1000, 1000)
    least_bytes = 4 * (1000 + 1000 * 1000 + 1000)  # one token, one expert's weights, one output row
    assert PEAKS.least_us(problem) == pytest.approx(least_bytes / 3e12 * 1e6)


def test_percent_is_of_the_least_time():
    problem = GroupedProblem((4096, 4096), 1024, 1024)
    assert PEAKS.percent(problem, 4 * PEAKS.least_us(problem)) == pytest.approx(25)


def test_without_a_peak_there_is_no_percentage():
    problem = GroupedProblem((16,), 16, 16, dtype="bfloat16")
    assert PEAKS.least_us(problem) is None
    assert PEAKS.percent(problem, 1.0) is None


def test_cache_is_kept_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert roofline.cache_path().parent.parent == tmp_path


def test_a_broken_cache_is_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    roofline.cache_path().parent.mkdir()
    roofline.cache_path().write_text("[broken")
    assert roofline._read_cache() == {}


@pytest.mark.gpu
def test_measured_limits_are_plausible(monkeypatch, tmp_path):
    from gemm_lessons.measure.timing import CudaGpu

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = roofline.peaks(CudaGpu())
    assert 5e10 < measured.bytes_per_s < 2e13
    assert 5e11 < measured.flops_per_s["float32"] < 5e14
    assert roofline.cache_path().exists()
