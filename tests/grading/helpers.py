"""Submissions for the tests of the grader, and how they are graded."""

import ast
from pathlib import Path

from gemm_lessons.authoring import stubs
from gemm_lessons.authoring.mutants import whole
from gemm_lessons.grading import api
from gemm_lessons.grading.student import Student

ROOT = stubs.ROOT
SOLUTIONS = {path.stem: path for path in stubs.solutions()}
TESTS = ROOT / "tests"


def constants(path: Path) -> dict:
    """Names in capitals that a file sets to constants."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }


def on_stub(path: Path) -> str:
    """A submission made of a stub and of a file that comes after it."""
    stub = stubs.stub_of(SOLUTIONS[constants(path)["EXERCISE"]].read_text(encoding="utf-8"))
    return whole(stub, path.read_text(encoding="utf-8"))


def on_solution(path: Path) -> str:
    """The same on the solution."""
    solution = SOLUTIONS[constants(path)["EXERCISE"]].read_text(encoding="utf-8")
    return whole(solution, path.read_text(encoding="utf-8"))


def student_of(exercise, source, folder, runner, *, seed=7, compile_it=False, **options) -> tuple:
    """A submission, written to a folder, and its grader."""
    path = folder / f"{exercise}.py"
    path.write_text(source, encoding="utf-8")
    grader = api.load_grader(api.graders()[exercise])
    student = Student(
        grader.exercise, path, runner, seed, compile_it=compile_it, no_gpu="this is a test", **options
    )
    return student, grader


def grade(exercise, source, folder, runner, **options):
    """The grade of a submission."""
    return api.grade_student(*student_of(exercise, source, folder, runner, **options))


def result(graded, check):
    return next(each for each in graded.checks if each.name == check)
