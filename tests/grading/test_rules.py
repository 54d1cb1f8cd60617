"""The rules refuse what exercises do not need, and nothing that they do."""

import pytest

from gemm_lessons.grading.rules import breaches


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import numba.cuda.simulator",
        "from gemm_lessons.steps import naive",
        "from . import solution",
        "from numba import cuda\ncuda.to_device(1)",
        "from numba import cuda as c\nc.simulator",
        "import numba\nnumba.cuda.simulator",
        "import numba as n\nn.core",
        "from numba import cuda\nd = cuda",
        "from numba import cuda\ncuda.grid = 1",
        "import numpy as np\nnp.dot(1, 2)",
        "from numpy import dot",
        "().__class__",
        "x._array",
        "getattr(x, 'a')",
        "eval('1')",
        "__import__('os')",
        "__builtins__",
        "open('x')",
        "class A:\n    def __eq__(self, other): return True",
        "class A(int): pass",
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept BaseException:\n    pass",
    ],
)
def test_refused(source):
    assert breaches(source, numpy_allowed=False)


@pytest.mark.parametrize(
    "source",
    [
        "import math\nmath.ceil(1.5)",
        "from numba import cuda, float32, int32\ncuda.shared.array(4, float32)\ncuda.atomic.add(x, 0, 1)",
        "import numba\nfrom numba import cuda as c\nc.grid(1)\nnumba.float32(0)\nnumba.cuda.grid(2)",
        "import numpy as np\nnp.float32(0)",
        "from numba.cuda import grid, jit",
        "try:\n    pass\nexcept (ValueError, TypeError):\n    pass",
        "print('hello')",
        "if __name__ == '__main__':\n    print('a student tries something')",
        "class Tile:\n    def __init__(self, rows):\n        self.rows = rows",
        "import numpy as np\ndef f(x: np.ndarray) -> None: ...",
        "from __future__ import annotations",
        "for i in range(3):\n    x[i] += min(1, 2)",
        "from typing import NamedTuple\nclass A(NamedTuple):\n    x: int",
    ],
)
def test_allowed(source):
    assert breaches(source, numpy_allowed=False) == []


INSTRUCTIONS = {"mma_m16n8k16", "pack"}
MATRIX = "gemm_lessons.ptx.matrix"


def test_an_exercise_may_name_instructions():
    source = f"from {MATRIX} import mma_m16n8k16, pack as p\nmma = mma_m16n8k16['bfloat16']"
    assert breaches(source, numpy_allowed=False, instructions=INSTRUCTIONS) == []
    assert breaches(source, numpy_allowed=False)


@pytest.mark.parametrize(
    "source",
    [
        f"from {MATRIX} import ldmatrix_x4",
        f"from {MATRIX} import mma_m16n8k16, np",
        f"from {MATRIX} import *",
        f"import {MATRIX}",
        f"import {MATRIX} as matrix",
        f"from .{MATRIX} import pack",
        "from gemm_lessons.ptx import matrix",
        "from gemm_lessons.steps import tensor_core",
        f"from {MATRIX} import pack\npack['bfloat16'].meaning(None, 1, 2)",
        f"from {MATRIX} import pack\npack.__class__",
    ],
)
def test_and_nothing_beside_them(source):
    assert breaches(source, numpy_allowed=False, instructions=INSTRUCTIONS)


BARRIERS = "from gemm_lessons.ptx.mbarrier import mbarrier_init"


def test_instructions_of_an_exercise_may_come_from_several_modules():
    source = f"{BARRIERS} as start\nfrom gemm_lessons.ptx.tma import cp_async_bulk"
    known = {"mbarrier_init", "cp_async_bulk"}
    assert breaches(source, numpy_allowed=False, instructions=known) == []
    assert len(breaches(source, numpy_allowed=False)) == 2


@pytest.mark.parametrize(
    "source",
    [
        "from gemm_lessons.ptx.mbarrier import mbarrier_at",
        "from gemm_lessons.ptx.mbarrier import np",
        "from gemm_lessons.ptx.instruction import mbarrier_init",
        "from gemm_lessons.steps.hopper import mbarrier_init",
        "import gemm_lessons.ptx.mbarrier",
        f"{BARRIERS}\nmbarrier_init.meaning(None, 0, 1)",
    ],
)
def test_and_no_others(source):
    assert breaches(source, numpy_allowed=False, instructions={"mbarrier_init"})


@pytest.mark.parametrize("source", ["import numpy as np\nnp.cumsum([1])", "from numpy import zeros"])
def test_numpy_is_for_host_code(source):
    assert breaches(source, numpy_allowed=True) == []
    assert breaches(source, numpy_allowed=False)


@pytest.mark.parametrize("name", ["save", "load", "memmap", "ctypeslib", "lib", "core", "random", "testing"])
def test_no_files_and_no_back_doors_in_numpy(name):
    assert breaches(f"import numpy as np\nnp.{name}", numpy_allowed=True)
