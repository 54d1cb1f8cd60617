"""The choice of a device, each in a process of its own, because it is made once."""

import os
import subprocess
import sys

import pytest

from gemm_lessons import device
from gemm_lessons.device import Gpu, why_unusable

H100 = Gpu("NVIDIA H100", (9, 0), 132, 232448, 80 << 30, (13, 0))


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GEMM_", "NUMBA_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=False
    )


def last_line(completed: subprocess.CompletedProcess) -> str:
    return completed.stderr.strip().splitlines()[-1]


def test_importing_the_package_imports_no_numba():
    code = (
        "import gemm_lessons, gemm_lessons.problem, gemm_lessons.device, sys; print('numba' in sys.modules)"
    )
    assert run(code).stdout.strip() == "False"


def test_the_simulator_is_chosen_on_request_and_runs():
    code = (
        "from gemm_lessons import device; d = device.choose(); from numba import cuda;"
        "from numba.cuda.core import config; print(d.kind, d.num_sms, bool(config.ENABLE_CUDASIM))"
    )
    assert run(code, GEMM_LESSONS_DEVICE="sim").stdout.split() == ["sim", "8", "True"]


def test_numba_imported_first_is_fine_as_long_as_numba_cuda_is_not():
    code = (
        "import numba; from gemm_lessons import device; device.choose();"
        "from numba import cuda; from numba.cuda.core import config; print(bool(config.ENABLE_CUDASIM))"
    )
    assert run(code, GEMM_LESSONS_DEVICE="sim").stdout.strip() == "True"


def test_numba_cuda_in_the_wrong_mode_is_one_clear_sentence():
    code = "from numba import cuda; from gemm_lessons import device; device.choose()"
    completed = run(code, GEMM_LESSONS_DEVICE="sim")
    assert completed.returncode != 0
    assert "numba.cuda was imported before gemm_lessons and is in GPU mode" in last_line(completed)


@pytest.mark.skipif(device.probe_gpu()[0] is not None, reason="NOT RUN: this machine has a GPU")
def test_a_gpu_that_is_demanded_and_missing_is_one_clear_sentence():
    completed = run(
        "from gemm_lessons import device; device.choose()", GEMM_LESSONS_DEVICE="gpu", CUDA_VISIBLE_DEVICES=""
    )
    assert completed.returncode != 0
    assert "GEMM_LESSONS_DEVICE=gpu, but" in last_line(completed)
    assert "gemm-lessons doctor" in last_line(completed)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    completed = run("from gemm_lessons import device; device.choose()", GEMM_LESSONS_DEVICE="cpu")
    assert "GEMM_LESSONS_DEVICE='cpu' is not known: use one of auto, gpu, sim, compile" in last_line(
        completed
    )


def test_a_good_gpu_is_usable():
    assert why_unusable(H100) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute_capability": (7, 0)}, "compute capability 7.0 and the lessons need 7.5"),
        ({"driver": (11, 8)}, "driver runs CUDA 11.8 and the lessons need 12.0"),
    ],
)
def test_an_old_gpu_or_driver_is_refused_with_what_to_do(changes, message):
    assert message in why_unusable(Gpu(**{**H100.__dict__, **changes}))


@pytest.mark.gpu
def test_what_the_driver_says_agrees_with_numba():
    chosen = device.choose()
    from numba import cuda

    numbas = cuda.get_current_device()
    assert chosen.num_sms == numbas.MULTIPROCESSOR_COUNT
    assert chosen.compute_capability == tuple(numbas.compute_capability)[:2]
    assert chosen.name in str(numbas.name)
