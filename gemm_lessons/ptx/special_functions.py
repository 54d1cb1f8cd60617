"""The special function unit: powers of two and reciprocals, a bit or two short of exact, in one instruction.

Numba's `math.exp` and `/` on float32 are exact to a bit and take dozens of instructions; a division even
calls a subroutine for rare cases, which a kernel full of wgmma must not do (see `ptx.compiling`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction


def _flushed(value: Any) -> Any:
    """A float32 with subnormal numbers flushed to zero, as .ftz does."""
    value = np.float32(value)
    return np.copysign(np.float32(0), value) if abs(value) < np.finfo(np.float32).tiny else value


@instruction("ex2.approx.ftz.f32 $0, $1;", "=f,f", "float32(float32)", memory=False)
def ex2_approx(ctx: Any, exponent: Any) -> Any:
    """Two to the power of a float32, within 2 units in the last place; any thread.

    PTX manual: ex2.
    """
    with np.errstate(over="ignore", under="ignore"):
        return _flushed(np.exp2(_flushed(exponent)))


@instruction("rcp.approx.ftz.f32 $0, $1;", "=f,f", "float32(float32)", memory=False)
def rcp_approx(ctx: Any, value: Any) -> Any:
    """One over a float32, within 1 unit in the last place; any thread.

    PTX manual: rcp.
    """
    with np.errstate(divide="ignore", under="ignore"):
        return _flushed(np.float32(1) / _flushed(value))
