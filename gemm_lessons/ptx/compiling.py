"""How kernels made of PTX instructions are compiled: always whole, so that ptxas sees every register.

Two things turn a good wgmma kernel into a slow one.  A call that is not inlined makes ptxas wait for all
matrix instructions around it (warning C7510), and code that is linked later, not as a whole, makes it
ignore setmaxnreg (C7504).  The decorators here avoid both; the simulator knows neither and needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemm_lessons.ptx.instruction import SIMULATED

from numba import cuda  # why below: the device is chosen before Numba is imported


def inlined(function: Callable[..., Any]) -> Any:
    """Make a device function that is always inlined into its callers."""
    if SIMULATED:
        return cuda.jit(device=True)(function)
    return cuda.jit(device=True, forceinline=True, lto=True)(function)


def whole_kernel(num_threads: int) -> Callable[[Callable[..., Any]], Any]:
    """Make a kernel that is optimised at link time, for blocks of exactly `num_threads`, one per SM.

    The bound on the threads is what tells ptxas how many registers each of them may have.
    """
    if SIMULATED:
        return cuda.jit
    return cuda.jit(lto=True, launch_bounds=(num_threads, 1))
