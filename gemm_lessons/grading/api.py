"""Grading without pytest: the same checks, called one after the other, for notebooks, tests and tools."""

from __future__ import annotations

import importlib.util
import secrets
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from gemm_lessons.grading.checks import Check, declared
from gemm_lessons.grading.feedback import CheckFailedError, NotRunError
from gemm_lessons.grading.grade import CheckResult, Grade
from gemm_lessons.grading.runner import Runner
from gemm_lessons.grading.student import Student

ROOT = Path(__file__).resolve().parent.parent.parent
EXERCISES = ROOT / "exercises"


def graders(folder: Path = EXERCISES) -> dict[str, Path]:
    """Grader files by exercise, such as "ex02_launches", in order."""
    return {path.stem.removeprefix("test_"): path for path in sorted(folder.glob("test_ex[0-9][0-9]_*.py"))}


def find(name: str, folder: Path = EXERCISES) -> str:
    """The full name of an exercise from its beginning: "2", "02" and "ex02" are "ex02_launches".

    Raises:
        ValueError: no exercise, or several, begin so.
    """
    beginning = f"ex{int(name):02d}" if name.isdigit() else name
    found = [known for known in graders(folder) if known.startswith(beginning)]
    if len(found) != 1:
        raise ValueError(f"{name!r} is no exercise: use one of {', '.join(graders(folder))}")
    return found[0]


def load_grader(path: Path) -> types.ModuleType:
    """Import a grader file."""
    name = f"gemm_lessons_grader_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def checks(grader: types.ModuleType) -> Iterator[tuple[str, Check, Callable[..., None]]]:
    """(name, check, function) of each public check of a grader file, in order."""
    for name, function in vars(grader).items():
        check = declared(function)
        if check is not None and "hidden_case" not in function.__code__.co_varnames:
            yield name, check, function


def grade_student(student: Student, grader: types.ModuleType, only: str = "") -> Grade:
    """Make all checks, or one, on a submission."""
    grade = Grade(seed=student.seed)
    for name, check, function in checks(grader):
        if only and name != only:
            continue
        result = CheckResult(student.exercise.name, name, check.title, check.points)
        began = time.monotonic()
        try:
            function(student)
            result.status = "passed"
        except CheckFailedError as failure:
            result.status, result.text = "failed", str(failure)
            result.feedback = failure.feedback.as_dict()
        except NotRunError as reason:
            result.status, result.text = "not run", f"NOT RUN: {reason}"
        result.seconds = time.monotonic() - began
        grade.checks.append(result)
    return grade


def grade_file(
    exercise: str,
    path: Path | None = None,
    *,
    seed: int | None = None,
    runner: Runner | None = None,
    pictures: Path | None = None,
    compile_it: bool = True,
) -> tuple[Grade, Student]:
    """Grade one file in the simulator.

    Args:
        exercise: its name, or the beginning of it.
        path: the submission; the file in `exercises/` if not given.
        seed: of cases and inputs; random if not given.
        runner: a running one, to save its start.
        pictures: folder for heatmaps.
        compile_it: ask the compiler too.

    Returns:
        The grade, and the submission with everything that was seen.
    """
    name = find(exercise)
    grader = load_grader(graders()[name])
    own = runner is None
    runner = runner or Runner("sim")
    try:
        student = Student(
            grader.exercise,
            path or EXERCISES / f"{name}.py",
            runner,
            secrets.randbits(31) if seed is None else seed,
            no_gpu="this way of grading uses the simulator only",
            pictures=pictures,
            compile_it=compile_it,
        )
        return grade_student(student, grader), student
    finally:
        if own:
            runner.close()
