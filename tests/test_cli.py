"""The command line: what it prints, what it refuses, and its exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gemm_lessons import cli, device
from gemm_lessons.measure import checks, cpu, demo, doctor
from gemm_lessons.measure.timing import Timing
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import SCHEDULES
from gemm_lessons.steps import STEPS
from gemm_lessons.workloads import find_workload

without_gpu = pytest.mark.skipif(device.choose().is_gpu, reason="this is what runs without a GPU")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command as a user would; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "_width", 200)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gemm-lessons", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return command


@pytest.fixture
def quick(monkeypatch):
    """Two steps instead of all, and no seconds spent in NumPy."""
    few = {name: STEPS[name] for name in ("padded", "naive")}
    monkeypatch.setattr(demo, "STEPS", {**few, demo.BEST: STEPS[demo.BEST]})
    monkeypatch.setattr(demo, "CHECKED", tuple(few))
    times = cpu.CpuTimes(Timing(2e5, 0, 1), Timing(1e5, 0, 1))
    monkeypatch.setattr(demo, "numpy_times", lambda problem: times)
    monkeypatch.setattr(cpu, "numpy_times", lambda problem: times)


@without_gpu
def test_demo_prints_what_the_first_lesson_prints(run, quick):
    code, out, _ = run("demo")
    assert code == 0
    assert "=== Grouped GEMM Demo ===" in out
    assert "Token counts per expert: [156, 89, 201, 52, 134, 98, 187, 143]" in out
    assert "Hidden dimension: 2048" in out
    assert "=== Variable-Size Grouped GEMM ===" in out
    for i in range(1, 5):
        assert f"Strategy {i} (" in out
    assert "Speedup from not padding: 2.00x" in out
    assert "naive          right: " in out
    assert "of them useful, 34.1% wasted" in out


@without_gpu
def test_demo_shows_no_time_that_was_not_measured(run, quick, monkeypatch):
    monkeypatch.setattr(demo, "recorded", lambda dtype: None)
    _, out, _ = run("demo")
    assert "Recorded on a GPU: nothing yet" in out
    timed = [line for line in out.splitlines() if " ms" in line or "µs" in line or "TFLOP" in line]
    assert timed == ["  One product per expert: 100.0 ms", "  The padded batch:       200.0 ms"]


def test_schedules_differ_as_the_lesson_says():
    problem = find_workload("S").problem
    from gemm_lessons.measure.timeline import predicted

    spans = {name: predicted(problem, name, 132).makespan for name in SCHEDULES}
    assert spans["sequential"] > 2 * spans["work-stealing"]
    assert spans["longest-first"] <= spans["tile-level"]


def test_check_says_right_and_refused(run, monkeypatch):
    monkeypatch.setattr(
        checks,
        "ragged_problems",
        lambda **_: [
            GroupedProblem((2, 0, 3), 4, 4, name="ok"),
            GroupedProblem((1,), 4, 4, "bfloat16", name="16"),
        ],
    )
    code, out, _ = run("check", "naive")
    assert code == 0
    assert "naive on 16: this step computes in float32" in out


def test_check_fails_for_a_wrong_step(run, monkeypatch):
    monkeypatch.setattr(checks, "ragged_problems", lambda **_: [GroupedProblem((2, 3), 4, 4, name="case")])
    right = STEPS["naive"].prepare

    def half(problem, config=None, inputs=None):
        return right(problem, config, inputs._replace(w=inputs.w * np.float32(0.5)))

    monkeypatch.setattr(STEPS["naive"], "prepare", half)
    code, out, _ = run("check", "naive")
    assert code == 1
    assert "naive on case: wrong: expert 0, tile (0, 0)" in out
    assert "0.5 times what it should be" in out


def test_ragged_problems_hold_the_cases_that_matter():
    for on_gpu in (False, True):
        problems = checks.ragged_problems(on_gpu=on_gpu)
        counts = [problem.counts for problem in problems]
        tile = 128 if on_gpu else 16
        assert any({tile - 1, tile, tile + 1} <= set(one) for one in counts)
        assert any(not sum(one) for one in counts)
        assert any(one[0] == 0 and sum(one) for one in counts)
        assert any(one[-1] == 0 and sum(one) for one in counts)
        assert any(problem.N % 8 and problem.K % 4 for problem in problems)
        assert len(checks.ragged_problems(on_gpu=on_gpu, small=True)) < len(problems)


@without_gpu
def test_bench_counts_where_it_cannot_time(run, quick, monkeypatch):
    problem = GroupedProblem((5, 0, 9), 16, 16, name="S")
    monkeypatch.setattr(cli, "_workload", lambda name, dtype: type("W", (), {"problem": problem}))
    monkeypatch.setattr(checks, "STEPS", {"naive": STEPS["naive"], "padded": STEPS["padded"]})
    code, out, _ = run("bench", "--workload", "S")
    assert code == 0
    assert "Counted work on S" in out
    assert "200.0 ms padded, 100.0 ms per expert, 2.00x faster" in out
    assert "µs" not in out.split("Recorded on")[0]


@without_gpu
def test_timeline_writes_a_picture_and_traces(run, tmp_path):
    code, out, _ = run("timeline", "--workload", "S", "--schedule", "tile-level")
    assert code == 0
    assert "tile-level" in out
    assert (tmp_path / "out" / "timeline-S.png").stat().st_size > 10_000
    trace = json.loads((tmp_path / "out" / "timeline-S-tile-level.json").read_text())
    assert trace["otherData"]["unit"] == "multiply-adds"


def test_plot_draws_the_waste(run, tmp_path):
    assert run("plot", "waste", "--workload", "overview")[0] == 0
    assert (tmp_path / "out" / "waste-overview.png").stat().st_size > 10_000


def test_plot_draws_the_error_of_fp8(run, tmp_path):
    assert run("plot", "fp8-error")[0] == 0
    assert (tmp_path / "out" / "fp8-error.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check", "nope"], "no step is called 'nope': use one of padded"),
        (["bench", "-w", "nope"], "no workload is called 'nope'"),
        (["bench", "--dtype", "float99"], "dtype 'float99' is not known"),
        (["timeline", "-s", "nope"], "no schedule is called 'nope'"),
        (["plot", "nope"], "cannot plot 'nope'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(run, arguments, sentence):
    code, _, err = run(*arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_doctor_says_what_was_chosen_and_why(run):
    code, out, _ = run("doctor")
    chosen = device.choose()
    assert code == 0
    assert chosen.name in out
    assert chosen.reason in out
    assert "numba-cuda" in out


def test_doctor_names_what_is_broken(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "2.5.1" if name == "numpy" else real(name))
    broken = [finding for finding in doctor.examine() if finding.broken]
    assert [finding.advice for finding in broken] == [
        "pip install 'numpy<2.5': numba-cuda 0.30 cannot import newer ones"
    ]


def test_doctor_survives_a_demand_that_cannot_be_met():
    command = [sys.executable, "-m", "gemm_lessons", "doctor"]
    environment = {"GEMM_LESSONS_DEVICE": "nonsense", "PYTHONPATH": ":".join(sys.path), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "GEMM_LESSONS_DEVICE='nonsense' is not known" in done.stdout
    assert "Traceback" not in done.stderr


def test_other_libraries_are_timed_right_after_the_steps_of_a_workload():
    order = []

    class Noted:
        def ladder(self, problem, steps):
            order.append((problem.name, "steps"))

        def peers(self, problem):
            order.append((problem.name, "peers"))

    problems = [GroupedProblem((3,), 8, 8, name=name) for name in ("one", "two")]
    cli._run_bench(Noted(), problems, {}, peers=True)
    assert order == [(name, what) for name in ("one", "two") for what in ("steps", "peers")]
