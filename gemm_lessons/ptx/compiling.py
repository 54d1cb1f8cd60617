"""How kernels made of PTX instructions are compiled: always whole, so that ptxas sees every register.

Two things turn a good wgmma kernel into a slow one.  A call that is not inlined makes ptxas wait for all
matrix instructions around it (warning C7510), and code that is linked later, not as a whole, makes it
ignore setmaxnreg (C7504).  The decorators here avoid both; the simulator knows neither and needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numba import cuda

from gemm_lessons.ptx.instruction import SIMULATED


def inlined(function: Callable[..., Any]) -> Any:
    """Make a device function that is always inlined into its callers."""
    if SIMULATED:
        return cuda.jit(device=True)(function)
    return cuda.jit(device=True, forceinline=True, lto=True)(function)


def whole_kernel(num_threads: int, blocks_per_sm: int = 1) -> Callable[[Callable[..., Any]], Any]:
    """Make a kernel that is optimised at link time, for blocks of `num_threads`, so many to an SM.

    The number of threads is what tells ptxas how many registers each of them may have.
    """
    if SIMULATED:
        return cuda.jit
    return cuda.jit(lto=True, launch_bounds=(num_threads, blocks_per_sm))


def one_of(functions: Mapping[int, Any]) -> Any:
    """Make a device function `call(key, *arguments)` that calls one of several device functions.

    An instruction's sizes are part of its name, so a size that is known only at run time needs one
    copy of the code for each.  This is the if-else chain over them; the last one needs no test.
    """
    (key, function), *others = functions.items()
    if not others:

        @inlined
        def call_it(wanted, *arguments):
            return function(*arguments)

        return call_it
    other = one_of(dict(others))

    @inlined
    def call(wanted, *arguments):
        if wanted == key:
            return function(*arguments)
        return other(wanted, *arguments)

    return call
