"""Counting, changing and profiling kernels that stand in a notebook's cell."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from gemm_lessons import device

device.choose()

from numba import cuda, float32, uint8, uint32, uint64  # noqa: E402

from gemm_lessons import cell_kernels, lesson  # noqa: E402
from gemm_lessons.lesson import LessonError  # noqa: E402
from gemm_lessons.problem import GroupedProblem  # noqa: E402
from gemm_lessons.ptx.matrix import ldmatrix_x4  # noqa: E402
from gemm_lessons.ptx.mbarrier import (  # noqa: E402
    fence_mbarrier_init,
    mbarrier_arrive,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import shared_address  # noqa: E402
from gemm_lessons.steps import tiled  # noqa: E402

pytestmark = pytest.mark.skipif(device.choose().is_gpu, reason="the simulator's counts")


@cuda.jit
def reverse(a, b):
    i = cuda.grid(1)
    s_a = cuda.shared.array(32, float32)
    s_a[cuda.threadIdx.x] = a[2 * i]
    cuda.syncthreads()
    b[i] = s_a[31 - cuda.threadIdx.x]


def arrays():
    return np.arange(64, dtype=np.float32), np.zeros(32, np.float32)


def wanted():
    return np.arange(62, -1, -2, dtype=np.float32)


def test_counts_sectors_and_passes(capsys):
    a, b = arrays()
    found = cell_kernels.count(reverse, 1, 32, a, b)
    np.testing.assert_array_equal(b, wanted())
    assert found["a[2 * i]"].sectors_per_request == 8
    assert found["s_a[31 - cuda.threadIdx.x]"].wavefronts_per_request == 1
    assert "| `a[2 * i]` | load, global | 1 | 8.0 |" in capsys.readouterr().out


def test_a_child_process_counts_the_same(tmp_path):
    a, b = arrays()
    path = cell_kernels._write(reverse, 1, 32, (a, b), tmp_path)
    child = cell_kernels._run([sys.executable, str(path)], "sim")
    counts = {one.place.text: one for one in cell_kernels._parse(child.stdout)}
    assert counts["a[2 * i]"].sectors_per_request == 8
    with np.load(path.with_suffix(".npz")) as stored:
        np.testing.assert_array_equal(stored["arr_1"], wanted())


@cuda.jit
def first_tile(words):
    s_slab = cuda.shared.array(8 * 16, uint8)
    for i in range(cuda.threadIdx.x, 8 * 16, 32):
        s_slab[i] = i // 16
    cuda.syncwarp()
    at = shared_address(s_slab) + cuda.threadIdx.x % 8 * 16
    words[cuda.threadIdx.x] = ldmatrix_x4(uint32(at))[0]


def test_a_child_process_knows_the_instructions_of_tensor_cores(monkeypatch):
    pretended = replace(device.choose(), kind="gpu")
    monkeypatch.setattr(device, "choose", lambda: pretended)
    words = np.zeros(32, np.uint32)
    found = cell_kernels.count(first_tile, 1, 32, words)
    np.testing.assert_array_equal(words, np.arange(32) // 4 * 0x01010101)
    assert found["ldmatrix_x4(uint32(at))"].wavefronts_per_request == 4


def test_a_step_is_counted_with_its_tiles_for_a_gpu():
    found = cell_kernels.count_step(tiled, GroupedProblem((5,), N=8, K=4))
    assert found["y[row, col]"].accesses == 40


def test_an_edited_kernel_is_another_kernel(capsys):
    a, b = arrays()
    other = cell_kernels.edited(reverse, ("a[2 * i]", "a[i]"))
    found = cell_kernels.count(other, 1, 32, a, b)
    assert found["a[i]"].sectors_per_request == 4
    assert "+    s_a[cuda.threadIdx.x] = a[i]" in capsys.readouterr().out
    with pytest.raises(LessonError, match="exactly once"):
        cell_kernels.edited(reverse, ("cuda", "cuda"))


def test_without_a_gpu_profiling_says_so(capsys):
    cell_kernels.profile(reverse, 1, 32, *arrays())
    assert "there is no GPU here" in capsys.readouterr().out


@cuda.jit
def wait_for_nobody(values):
    s_barrier = cuda.shared.array(1, uint64)
    barrier = shared_address(s_barrier)
    if cuda.threadIdx.x == 0:
        mbarrier_init(barrier, 2)
        fence_mbarrier_init()
        mbarrier_arrive(barrier)
    cuda.syncthreads()
    mbarrier_try_wait(barrier, 0)
    values[cuda.threadIdx.x] = 1


def test_a_child_process_knows_mbarriers(monkeypatch, capsys):
    pretended = replace(device.choose(), kind="gpu")
    monkeypatch.setattr(device, "choose", lambda: pretended)
    assert not lesson.try_kernel(wait_for_nobody, 1, 32, np.zeros(32, np.int32)).right
    assert "1 arrivals and 0 bytes are missing" in " ".join(capsys.readouterr().out.split())
