"""32-bit integer division: Numba's // on int32 divides 64 bits, which is a slow call."""

from gemm_lessons.ptx.instruction import instruction


@instruction("div.u32 $0, $1, $2;", "=r,r,r", "int32(uint32,uint32)", memory=False)
def div_u32(ctx, dividend, divisor):
    """Quotient of two unsigned 32-bit integers; any thread.

    PTX manual: div.
    """
