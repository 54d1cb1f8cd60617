"""Grouped GEMM for Mixture-of-Experts in Numba CUDA, one idea per step.

Importing this package imports no Numba and chooses no device: `gemm_lessons.device` does, on first use.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `grouped_gemm` on first use: the function that takes arrays of any library."""
    if name != "grouped_gemm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.grouped_gemm")
