"""The demo's text, from measurements that the test made up: the seed's lines with honest numbers."""

import pytest

from gemm_lessons.measure import demo
from gemm_lessons.measure.results import Measurement, Record
from gemm_lessons.schedule import SCHEDULES
from gemm_lessons.workloads import find_workload


@pytest.fixture
def record():
    found = Record({"device": "NVIDIA Test", "num_sms": 100}, "2026-01-02T00:00:00", "float32")
    add = found.measurements.append
    add(
        Measurement(
            "S", "persistent", "step", "ok", median_us=250.0, useful_tflops=35.6, percent_of_roofline=70.4
        )
    )
    add(Measurement("S", "persistent", "padded twin", "ok", median_us=375.0, useful_tflops=23.7))
    add(Measurement("S", "padded", "step", "ok", median_us=2500.0, useful_tflops=3.56))
    for name, time in zip(SCHEDULES, (400.0, 260.0, 250.0, 251.0), strict=True):
        add(
            Measurement("S", name, "schedule", "ok", median_us=time, useful_tflops=8890 / time, idle_tail=0.1)
        )
    return found


def test_grouped_gemm(record):
    lines = list(demo._grouped_gemm(find_workload("S").problem, record))
    assert lines[:5] == [
        "=== Grouped GEMM Demo ===",
        "Configuration:",
        "  Number of experts: 8",
        "  Hidden dimension: 2048",
        "  Token counts per expert: [156, 89, 201, 52, 134, 98, 187, 143]",
    ]
    assert "  Time: 0.250 ms" in lines
    assert "  Throughput: 35.6 TFLOPS, useful ones only, 70% of this problem's roofline" in lines
    assert "  Time: 0.375 ms" in lines
    assert lines[-2:] == ["Speedup: 1.50x", "Speedup over the first step of the ladder, `padded`: 10.0x"]


def test_variable_sizes(record):
    lines = list(demo._variable_sizes(record))
    assert lines[0] == "=== Variable-Size Grouped GEMM ==="
    assert "Strategy 1 (Sequential): 0.400 ms (22.2 TFLOPS, idle tail 10%)" in lines
    assert "Strategy 3 (Work stealing): 0.250 ms (35.6 TFLOPS, idle tail 10%)" in lines
    assert lines[-1] == "Best strategy: Work stealing, Longest first (1.60x over sequential)"


def test_what_failed_has_no_number(record):
    record.measurements = [
        Measurement("S", "persistent", "step", "wrong", "every output is wrong", median_us=1.0),
        Measurement("S", "sequential", "schedule", "failed", "LaunchError: no", median_us=1.0),
    ]
    lines = [*demo._performance(record), *demo._variable_sizes(record)]
    assert "  WRONG: every output is wrong" in lines
    assert "Strategy 1 (Sequential): FAILED: LaunchError: no" in lines
    assert "Strategy 2 (Tile-level): NOT RUN: not measured" in lines
    assert not any("ms" in line.split() or "Speedup" in line for line in lines)


def test_recorded_numbers_carry_device_and_day(record, monkeypatch):
    monkeypatch.setattr(demo, "recorded", lambda dtype: record)
    monkeypatch.setattr(demo, "CHECKED", ())
    monkeypatch.setattr(demo, "_on_the_cpu", lambda problem: iter(()))
    lines = list(demo.without_gpu())
    labels = [
        line for line in lines if line.startswith("Recorded on NVIDIA Test, 2026-01-02, not measured now")
    ]
    assert len(labels) == 2
    first = next(i for i, line in enumerate(lines) if " ms" in line)
    assert any(line in labels for line in lines[:first])
