"""The pytest plugin: `pytest exercises`, one file, `--submission DIR`; a grade with reasons at the end.

A grader file has a module-level `exercise` and functions decorated with `check`, which get the fixture
`student`.  What such a function raises as `CheckFailedError` is the student's to read, so it is shown as
text; anything else is a fault of the grader and is shown as such.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemm_lessons import device
from gemm_lessons.grading import instructor, outputs
from gemm_lessons.grading.cases import Case
from gemm_lessons.grading.checks import declared
from gemm_lessons.grading.feedback import CheckFailedError, NotRunError
from gemm_lessons.grading.grade import CheckResult, Grade
from gemm_lessons.grading.runner import Runner, RunnerError
from gemm_lessons.grading.student import Student

_SESSION = pytest.StashKey["_Session"]()


class _Session:
    """What all checks of a run share."""

    def __init__(self, config: pytest.Config) -> None:
        self.instructor = instructor.load()
        self.secret = self.instructor.seed is not None
        given = config.getoption("seed")
        self.seed = given if given is not None else secrets.randbits(31)
        if self.instructor.seed is not None:
            self.seed = self.instructor.seed
        folder = config.getoption("submission")
        self.submission = Path(folder).resolve() if folder else None
        self.pictures = Path(config.getoption("pictures")).resolve()
        self.simulator = Runner("sim")
        self.gpu, self.no_gpu = _gpu_runner(os.environ.get("GEMM_LESSONS_DEVICE", "auto"))
        self.students: dict[str, Student] = {}

    def student(self, module: Any) -> Student:
        """The submission that a grader file examines, made once."""
        name = module.exercise.name
        if name not in self.students:
            folder = self.submission or Path(module.__file__).resolve().parent
            self.students[name] = Student(
                module.exercise,
                folder / f"{name}.py",
                self.simulator,
                self.seed,
                gpu=self.gpu,
                no_gpu=self.no_gpu,
                pictures=self.pictures,
            )
        return self.students[name]

    def close(self) -> None:
        """End the processes for submissions."""
        self.simulator.close()
        if self.gpu is not None:
            self.gpu.close()


def _gpu_runner(wanted: str) -> tuple[Runner | None, str]:
    if wanted == "sim":
        return None, "GEMM_LESSONS_DEVICE=sim"
    gpu, reason = device.probe_gpu()
    reason = reason or (device.why_unusable(gpu) if gpu else "")
    return (None, reason) if reason else (Runner("gpu"), "")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the grader."""
    group = parser.getgroup("grader")
    group.addoption("--submission", metavar="DIR", help="grade this folder, not the one of the grader files")
    group.addoption("--seed", type=int, help="seed of cases and inputs; random if not given")
    group.addoption("--grade-json", metavar="FILE", help="write the grade as JSON")
    group.addoption("--gradescope", metavar="FILE", help="write the JSON that Gradescope reads")
    group.addoption("--pictures", metavar="DIR", default=".grades", help="folder for heatmaps")


def _session(config: pytest.Config) -> _Session:
    if _SESSION not in config.stash:
        config.stash[_SESSION] = _Session(config)
        config.stash[_SESSION].simulator.start()
    return config.stash[_SESSION]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each of the instructor's hidden cases."""
    if "hidden_case" in metafunc.fixturenames:
        cases = _session(metafunc.config).instructor.cases(metafunc.module.exercise.name)
        names = [f"hidden-{number}" for number in range(1, len(cases) + 1)]
        metafunc.parametrize("hidden_case", cases, ids=names)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the hidden check where the instructor has no hidden cases."""
    items[:] = [item for item in items if not _is_empty_hidden(item)]


def _is_empty_hidden(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return "hidden_case" in names and not isinstance(item.callspec.params.get("hidden_case"), Case)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def student(request: pytest.FixtureRequest) -> Iterator[Student]:
    """The submission under examination."""
    return _session(request.config).student(request.module)  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """A check that cannot be made here is not run, and says why."""
    try:
        return (yield)
    except NotRunError as reason:
        pytest.skip(f"NOT RUN: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show a failed check as text, and keep its result for the grade."""
    report = yield
    check = declared(getattr(item, "function", None))
    if check is None:
        return report
    title = check.title
    if "hidden_case" in getattr(item, "fixturenames", ()):
        title = f"{title}: {item.callspec.id}"  # type: ignore[attr-defined]
    result = CheckResult(
        exercise=item.module.exercise.name,  # type: ignore[attr-defined]
        name=item.name,
        title=title,
        points=check.points,
        hidden="hidden_case" in getattr(item, "fixturenames", ()),
    )
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, CheckFailedError):
        report.longrepr = str(error)
        result.status, result.feedback = "failed", error.feedback.as_dict()
        result.text = str(error)
    elif isinstance(error, RunnerError):
        report.longrepr = result.text = f"The grader could not run: {error}"
        result.status = "error"
    elif report.skipped:
        result.status, result.text = "not run", str(error)
    elif error is not None:
        result.status, result.text = "error", f"the grader itself failed: {error!r}"
    else:
        result.status = "passed"
    if report.when == "call" or error is not None:
        result.seconds = report.duration
        report.user_properties.append(("check", result.as_dict()))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect results where pytest reports them: with xdist, in the process that the user started."""
    for key, value in report.user_properties:
        if key == "check":
            _collected.append(CheckResult(**value))  # type: ignore[arg-type]


_collected: list[CheckResult] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the grade."""
    if not _collected:
        return
    session = config.stash.get(_SESSION, None)
    grade = Grade(list(_collected), seed=None if session is None or session.secret else session.seed)
    terminalreporter.ensure_newline()
    outputs.print_grade(grade)
    for option, write in (("grade_json", outputs.write_json), ("gradescope", outputs.write_gradescope)):
        if config.getoption(option):
            write(grade, Path(config.getoption(option)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the processes for submissions."""
    if _SESSION in session.config.stash:
        session.config.stash[_SESSION].close()


def pytest_sessionstart() -> None:
    """Forget the checks of an earlier run in the same process."""
    _collected.clear()
