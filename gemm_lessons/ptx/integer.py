"""32-bit integers: a division that is no call, and a way to compute a number late."""

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


@instruction("mov.b32 $0, $1;", "=r,r", "int32(int32)", memory=False)
def late(ctx: Any, value: Any) -> int:
    """The same number, but known only from here on; any thread.

    The compiler moves what never changes to the start of a kernel and keeps it in a register ever after.
    Where registers are short, that is worse than computing it again.  PTX manual: mov.
    """
    return int(value)
