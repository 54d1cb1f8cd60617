"""32-bit integer division: Numba's // on int32 divides 64 bits, which is a slow call."""

from __future__ import annotations

from typing import Any

from gemm_lessons.ptx.instruction import instruction


@instruction("div.u32 $0, $1, $2;", "=r,r,r", "int32(uint32,uint32)", memory=False)
def div_u32(ctx: Any, dividend: Any, divisor: Any) -> int:
    """Quotient of two unsigned 32-bit integers; any thread.  By zero, it is all ones.

    PTX manual: div.
    """
    dividend, divisor = int(dividend) & 0xFFFFFFFF, int(divisor) & 0xFFFFFFFF
    return dividend // divisor if divisor else -1
