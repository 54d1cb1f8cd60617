"""Both ends of every exercise: the stub fails with a message, the solution gets full marks."""

import ast
import re

import pytest

from gemm_lessons.device import Gpu
from gemm_lessons.grading import api, hints, misconceptions
from gemm_lessons.grading.exercise import HostExercise
from gemm_lessons.grading.stub import MarkerError, stub_of
from grading.helpers import ROOT, SOLUTIONS, grade, result, student_of

exercise = pytest.mark.parametrize("name", SOLUTIONS)
NO_POINTS_FOR_A_STUB = {"test_rules"}


def test_every_exercise_has_a_stub_a_solution_and_a_grader():
    assert (
        list(SOLUTIONS)
        == list(api.graders())
        == [path.stem for path in sorted((ROOT / "exercises").glob("ex*.py"))]
    )


@exercise
def test_solution_gets_full_marks(name, tmp_path, runner):
    graded = grade(name, SOLUTIONS[name].read_text("utf-8"), tmp_path, runner, compile_it=True)
    assert [(check.name, check.text) for check in graded.checks if check.status == "failed"] == []
    assert {check.name for check in graded.checks if check.status == "not run"} <= {
        "test_on_gpu",
        "test_compiles",
    }
    earned, possible = graded.points()
    assert earned == possible > 10


@exercise
def test_stub_fails_with_a_message_and_never_crashes(name, tmp_path, runner):
    graded = grade(name, stub_of(SOLUTIONS[name].read_text("utf-8")), tmp_path, runner, compile_it=True)
    for check in graded.checks:
        if check.name in NO_POINTS_FOR_A_STUB:
            assert check.status == "passed"
        else:
            assert check.status in ("failed", "not run"), f"a stub passes {check.name}"
            assert check.text
            assert "Traceback" not in check.text
            assert check.feedback.get("likely", "") == "", "nothing is known about a stub"


@exercise
def test_stub_states_a_budget_that_holds(name):
    text = SOLUTIONS[name].read_text("utf-8")
    assert "Budget:" in (ast.get_docstring(ast.parse(text)) or "")
    regions = re.findall(r"# >>> fill \(about (\d+) lines?\).*?\n(.*?)\n\s*# --- stub", text, flags=re.DOTALL)
    assert regions
    for budget, code in regions:
        assert abs(len(code.splitlines()) - int(budget)) <= 2, code


@exercise
def test_every_function_has_three_hints(name):
    text = SOLUTIONS[name].read_text("utf-8")
    functions = [
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and "# >>> fill" in ast.get_source_segment(text, node)
    ]
    known = hints.parts(ROOT / "exercises" / "hints.toml", name)
    assert list(known) == functions
    assert all(len(each) == 3 and all(each) for each in known.values())


@exercise
def test_only_the_regions_differ(name):
    solution = SOLUTIONS[name].read_text("utf-8")
    stub = stub_of(solution)
    assert len(stub) < len(solution)
    assert set(stub.splitlines()) <= set(solution.splitlines())


@pytest.mark.parametrize(
    "text",
    ["x = 1\n", "# >>> fill\nx = 1\n# <<< fill\n", "# >>> fill\nx\n# --- stub\n", "# --- stub\n# <<< fill\n"],
)
def test_marks_out_of_order_are_refused(text):
    with pytest.raises(MarkerError):
        stub_of(text)


@pytest.mark.parametrize("name", ["ex01_padding", "ex02_launches", "ex03_concatenated"])
def test_every_wrong_formula_names_a_misconception(name):
    graded = api.load_grader(api.graders()[name]).exercise
    case = graded.cases(1)[0]
    if isinstance(graded, HostExercise):
        keys = {key for question in graded.questions for key in (*question.mistakes, *question.tells)}
    else:
        keys = set(graded.alternatives(case, graded.inputs(case, case.rng(1))))
    assert {key.split(" (")[0] for key in keys} <= set(misconceptions.texts())


@exercise
def test_no_wrong_formula_is_right(name):
    graded = api.load_grader(api.graders()[name]).exercise
    if isinstance(graded, HostExercise):
        return
    seen = set()
    for case in graded.cases(1):
        inputs = graded.inputs(case, case.rng(1))
        want = graded.want(case, inputs)
        for key, values in graded.alternatives(case, inputs).items():
            if not (abs(values - want.y) <= want.allowed).all():  # NaN: left out
                seen.add(key)
    assert seen == set(graded.alternatives(case, inputs))


def test_an_older_gpu_is_not_asked(tmp_path, runner, monkeypatch):
    older = Gpu("an older GPU", (8, 0), 108, 166912, 1 << 30, (12, 8))
    monkeypatch.setattr("gemm_lessons.grading.student.probe_gpu", lambda: (older, ""))
    name = "ex11_ring"
    student, grader = student_of(name, SOLUTIONS[name].read_text("utf-8"), tmp_path, runner, gpu=runner)
    check = result(api.grade_student(student, grader, "test_on_gpu"), "test_on_gpu")
    assert check.text == "NOT RUN: it needs compute capability 9.0, and an older GPU has 8.0"
