"""The same checks on a GPU: right solutions pass there, wrong ones do not, and nothing hangs."""

import pytest

from gemm_lessons.authoring import gpu_kills, mutants
from gemm_lessons.grading import api
from gemm_lessons.grading.cases import Case
from gemm_lessons.grading.runner import Runner
from grading.helpers import SOLUTIONS, TESTS, constants, on_solution, result, student_of

pytestmark = pytest.mark.gpu
KERNELS = gpu_kills.kernels()
UNUSUAL = [
    path for path in sorted((TESTS / "unusual").glob("*.py")) if constants(path)["EXERCISE"] in KERNELS
]


@pytest.fixture(scope="module")
def gpu():
    running = Runner("gpu")
    yield running
    running.close()


def on_gpu(exercise, source, folder, runner, gpu):
    student, grader = student_of(exercise, source, folder, runner, gpu=gpu)
    check = result(api.grade_student(student, grader, "test_on_gpu"), "test_on_gpu")
    if check.status == "not run":
        pytest.skip(check.text)
    return check


@pytest.mark.parametrize("name", KERNELS)
def test_solution_is_right(name, tmp_path, runner, gpu):
    check = on_gpu(name, SOLUTIONS[name].read_text("utf-8"), tmp_path, runner, gpu)
    assert check.status == "passed", check.text


@pytest.mark.parametrize("path", UNUSUAL, ids=lambda path: path.stem)
def test_unusual_is_right(path, tmp_path, runner, gpu):
    check = on_gpu(constants(path)["EXERCISE"], on_solution(path), tmp_path, runner, gpu)
    assert check.status == "passed", check.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant", list(gpu_kills.shown()), ids=lambda mutant: f"{mutant.exercise[:4]}-{mutant.name}"
)
def test_wrong_is_wrong(mutant, tmp_path, runner, gpu):
    check = on_gpu(mutant.exercise, mutant.source, tmp_path, runner, gpu)
    assert check.status == "failed"
    assert "Traceback" not in check.text


def test_a_kernel_that_never_ends_is_stopped_and_the_next_one_runs(tmp_path, runner, gpu):
    endless = next(mutant for mutant in mutants.mutants() if mutant.name == "endless")
    student, _ = student_of(endless.exercise, endless.source, tmp_path, runner, gpu=gpu)
    run = student.run(Case((4,), 16, 4), device="gpu")
    assert run.outcome.status == "time"
    check = on_gpu(endless.exercise, SOLUTIONS[endless.exercise].read_text("utf-8"), tmp_path, runner, gpu)
    assert check.status == "passed", check.text


def test_what_numba_cannot_compile_is_explained(tmp_path, runner, gpu):
    right = SOLUTIONS["ex04_tiles"].read_text("utf-8")
    wrong = right.replace("cuda.shared.array((BM, BK)", "cuda.shared.array((1 * BM, BK)")
    check = on_gpu("ex04_tiles", wrong, tmp_path, runner, gpu)
    assert check.status == "failed"
    assert "Numba cannot compile" in check.text
    assert "must be known when the kernel is compiled" in check.text
    assert "\033" not in check.text
