"""PTX instructions as Python functions: one instruction, one function, named after it."""

from gemm_lessons import device

device.choose()  # before any of them imports Numba
