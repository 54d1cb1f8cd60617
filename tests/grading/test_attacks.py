"""Submissions that want points without an answer: stopped by the rules, and by what stands behind them."""

import pytest

from gemm_lessons.grading import api
from grading.helpers import TESTS, constants, grade, on_stub, result, student_of

ATTACKS = sorted((TESTS / "attacks").glob("*.py"))
SLOW = {
    "loops_on_import",
    "prints_for_ever",
    "sleeps",
    "swallows_the_time_limit",
}  # they wait for time limits


def params():
    for path in ATTACKS:
        yield pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in SLOW else ())


def test_there_are_enough_of_them():
    assert len(ATTACKS) >= 20


@pytest.mark.parametrize("path", list(params()))
def test_earns_nothing_for_what_it_aims_at(path, tmp_path, runner):
    told = constants(path)
    compiler = told["AIM"] == "test_compiles"
    graded = grade(told["EXERCISE"], on_stub(path), tmp_path, runner, compile_it=compiler)
    aimed = result(graded, told["AIM"])
    if compiler and aimed.status == "not run":
        pytest.skip("NOT RUN: the compiler's typing is missing here")
    assert aimed.status == "failed"
    assert aimed.text
    assert "Traceback" not in aimed.text
    assert graded.points()[0] < graded.points()[1]


@pytest.mark.parametrize("path", list(params()))
def test_earns_nothing_where_the_rules_are_off(path, tmp_path, runner):
    told = constants(path)
    if told.get("ONLY_THE_RULES_STOP_IT"):
        pytest.skip("docs/grading.md names it: Python is no sandbox")
    student, grader = student_of(told["EXERCISE"], on_stub(path), tmp_path, runner)
    student.__dict__["_breaches"] = []
    if told["AIM"] == "test_compiles":
        pytest.skip("the compiler is what stops it, with and without rules")
    aimed = api.grade_student(student, grader, told["AIM"]).checks[0]
    assert aimed.status == "failed"


def test_the_grader_survives_them_all(tmp_path, runner):
    path = TESTS / "attacks" / "answers_for_the_grader.py"
    student, grader = student_of("ex02_launches", on_stub(path), tmp_path, runner)
    student.__dict__["_breaches"] = []
    assert api.grade_student(student, grader, "test_one_expert").checks[0].status == "failed"
    from grading.helpers import SOLUTIONS

    graded = grade("ex02_launches", SOLUTIONS["ex02_launches"].read_text("utf-8"), tmp_path, runner)
    assert result(graded, "test_one_expert").status == "passed"


def test_no_attack_left_something_behind():
    from pathlib import Path

    assert not Path("/tmp/the-grader-was-fooled").exists()
