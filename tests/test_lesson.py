"""The notebooks' helpers: what they show, what they refuse, and that they tell wrong kernels from right."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda

from gemm_lessons import device, lesson
from gemm_lessons.launch import LaunchError
from gemm_lessons.measure.results import Measurement, Record
from gemm_lessons.moe import wgrad
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.steps import naive

if not device.choose().name.startswith("checked"):
    pytest.skip("needs the checked simulator", allow_module_level=True)

TINY = GroupedProblem((3, 0, 2), 9, 5, name="tiny")
BOUNDS = ("if row < x.shape[0] and col < w.shape[0]:", "if True:")


def test_check_uses_the_kernel_that_it_is_given(capsys):
    made = []
    own = naive.make_kernel

    def make_kernel(config):
        made.append(config)
        return own(config)

    lesson.check(naive, make_kernel, problems=[TINY])
    assert made
    assert naive.make_kernel is own
    assert "right: 45 outputs" in capsys.readouterr().out


def test_check_says_what_is_wrong_without_a_traceback(capsys):
    own = naive.make_kernel

    def make_kernel(config):
        kernel = own(config)

        class Half:
            def __getitem__(self, configuration):
                return lambda x, w, y: kernel[configuration](x, w, y[: y.shape[0] - 1])

        return Half()

    with pytest.raises(lesson.LessonError, match="on 'tiny'") as caught:
        lesson.check(naive, make_kernel, problems=[TINY])
    assert caught.value._render_traceback_() == [f"LessonError: {caught.value}"]
    assert "WRONG" in capsys.readouterr().out


def test_broken_shows_the_change_and_the_finding(capsys):
    verdict = lesson.broken("naive", BOUNDS)
    shown = capsys.readouterr().out
    assert not verdict.right
    assert "+        if True:" in shown
    assert "OutOfBoundsError" in shown


def test_broken_reaches_the_schedule_too(capsys):
    verdict = lesson.broken("concatenated", ("if offsets[middle] <= index:", "if offsets[middle] < index:"))
    assert not verdict.right
    assert "in schedule.py:" in capsys.readouterr().out


def test_broken_accepts_a_harmless_change():
    assert lesson.broken("naive", ("acc = float32(0.0)", "acc = float32(0)")).right


@pytest.mark.parametrize("old", ["no such text", "float32"])
def test_broken_wants_a_text_that_stands_there_once(old):
    with pytest.raises(lesson.LessonError, match="exactly once"):
        lesson.broken("naive", (old, "x"))


def test_a_launch_that_is_refused_is_a_verdict():
    class Step:
        @staticmethod
        def prepare(problem, inputs):
            raise LaunchError("the grid is empty")

    verdict = lesson.judge(Step, lesson.SMALL)
    assert not verdict.right
    assert str(verdict) == "LaunchError: the grid is empty"


KERNEL = """
@cuda.jit
def last(values):
    values[cuda.grid(1)] = 1
"""


def test_the_simulator_judges_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text(lesson.CELL_IMPORTS + KERNEL)
    np.savez(path.with_suffix(".npz"), np.zeros(7, np.int32))
    assert lesson._child("sim", ["kernel", str(path), "last", "1", "7"]).right
    verdict = lesson._child("sim", ["kernel", str(path), "last", "(2,)", "4"])
    assert not verdict.right
    assert "index 7 is outside axis 0 (size 7)" in str(verdict)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Let the helpers believe in a GPU: their children in the simulator are real, those on the GPU die."""
    pretended = replace(device.choose(), kind="gpu")
    monkeypatch.setattr(device, "choose", lambda: pretended)


def test_on_a_gpu_a_changed_step_is_judged_by_both(on_a_gpu, capsys):
    verdict = lesson.broken("naive", BOUNDS)
    shown = capsys.readouterr().out
    assert "OutOfBoundsError" in str(verdict)
    assert "**This GPU** says" in shown
    assert "GEMM_LESSONS_DEVICE=gpu, but" in shown
    assert "**The checked simulator** says" in shown


@cuda.jit
def unguarded(values, other):
    values[cuda.grid(1)] = other[0]


def test_on_a_gpu_a_cells_kernel_is_judged_in_the_simulator(on_a_gpu):
    values, other = np.zeros(7, np.float32), np.ones(1, np.float32)
    assert lesson.try_kernel(unguarded, 1, 7, values, other).right
    assert "index 7 is outside axis 0 (size 7)" in str(lesson.try_kernel(unguarded, 2, 4, values, other))
    assert not values.any(), "the arrays stay as they are"


def test_a_child_that_dies_is_no_verdict(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("raise SystemExit('no kernel here')")
    verdict = lesson._child("sim", ["step", str(path), "1", "None"])
    assert not verdict.right
    assert str(verdict) == "the process died: no kernel here"


def test_without_a_gpu_no_time_is_made_up(capsys, monkeypatch):
    monkeypatch.setattr(lesson, "recorded", lambda results: None)
    lesson.measure("S", ["padded", "naive"])
    shown = capsys.readouterr().out
    assert "| naive | 8 |" in shown
    assert "No times are recorded" in shown


def test_a_gradient_is_measured_and_broken_like_a_step(capsys):
    lesson.measure("S", ["wgrad"], others={"wgrad": wgrad}, results="nobody")
    shown = capsys.readouterr().out
    assert "| wgrad | 1 | 4,096 | 4,096 |" in shown
    assert "`python -m gemm_lessons.measure.nobody` on a GPU records them" in shown
    change = ("start, stop = offsets[group], offsets[group + 1]", "start, stop = 0, offsets[group + 1]")
    assert not lesson.broken("wgrad", change).right
    assert "in moe/wgrad.py:" in capsys.readouterr().out


class Bench:
    """Stands in for a GPU: everything that it times has the given status."""

    def __init__(self, status):
        self.record = Record({"device": "NVIDIA Test"}, "2026-01-02T03:04:05+00:00", "float32")
        self.status = status

    def write(self, problem, names, kind):
        self.record.problems[problem.name] = {"counts": list(problem.counts), "N": problem.N, "K": problem.K}
        for name in names:
            self.record.measurements.append(
                Measurement(problem.name, name, kind, self.status, "why", median_us=5.0, useful_tflops=2.0)
            )

    def ladder(self, problem, steps):
        self.write(problem, steps, "step")

    def schedules(self, problem, step, names):
        self.write(problem, names, "schedule")


def test_on_a_gpu_what_is_shown_was_measured_now(on_a_gpu, capsys, monkeypatch):
    monkeypatch.setattr(lesson, "_bench", lambda *dtype: Bench("ok"))
    lesson.measure("S", ["padded", "naive"])
    lesson.schedules("S")
    shown = capsys.readouterr().out
    assert "NVIDIA Test, 2026-01-02" in shown
    assert "| naive | 5.00 |" in shown
    assert "| work-stealing | 5.00 |" in shown
    assert "recorded" not in shown


def test_on_a_gpu_a_wrong_step_has_no_time(on_a_gpu, monkeypatch):
    monkeypatch.setattr(lesson, "_bench", lambda *dtype: Bench("wrong"))
    with pytest.raises(lesson.LessonError, match="padded on S: why"):
        lesson.measure("S", ["padded"])


def test_an_excerpt_is_a_function_as_it_stands_there_inside_of_another_too(capsys):
    lesson.excerpt(lesson, "_widget", "redraw")
    shown = capsys.readouterr().out
    assert shown.startswith("def _widget(ipywidgets: Any")
    assert "\n\ndef redraw(_: Mapping[str, Any]) -> None:\n    try:" in shown
    with pytest.raises(lesson.LessonError, match=r"lesson has no function nothing$"):
        lesson.excerpt(lesson, "nothing")


def test_limits_always_have_the_data_sheet():
    assert lesson.limits("bfloat16")[-1].name == "H100 SXM, data sheet"
    assert lesson.limits("bfloat16")[-1].attainable(1.0) == lesson.DATA_SHEET_BYTES_PER_S


def test_counts_of_text():
    assert lesson.counts_of("150, 80 200,0") == (150, 80, 200, 0)
    for wrong in ("3, many", "3, -1", "2.5"):
        with pytest.raises(ValueError, match="is no count"):
            lesson.counts_of(wrong)


@pytest.mark.parametrize(
    ("control", "kind", "first"),
    [
        ("150, 80", "Text", "150, 80"),
        ((8, 1, 32), "IntSlider", 8),
        (["a", "b"], "Dropdown", "a"),
        (("a", "b"), "Dropdown", "a"),
        ([128, 32, 64, 256], "Dropdown", 128),
        ([3, 1, 2], "Dropdown", 3),
    ],
    ids=str,
)
def test_every_kind_of_control_has_its_widget(control, kind, first):
    def widget(name):
        def make(value=None, *rest, options=None, **_):
            return name, value if options is None else options[0]

        return make

    package = SimpleNamespace(**{name: widget(name) for name in ("Text", "IntSlider", "Dropdown")})
    assert lesson._widget(package, "num_blocks", control) == (kind, first)
