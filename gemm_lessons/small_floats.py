"""e4m3 and bfloat16 in plain arithmetic, for GPUs that have no instruction for them.

e4m3    s eeee mmm              value = (-1)**s * 1.mmm * 2**(eeee - 7), or 0.mmm * 2**-6 if eeee = 0
        0 1111 110    448       the largest
        0 0001 000    2**-6     the smallest normal number
        0 0000 001    2**-9     the smallest of all
        0 1111 111    NaN       the only one, with either sign; there is no infinity

float32 s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm
"""

from __future__ import annotations

import numpy as np

from gemm_lessons import device
from gemm_lessons.problem import DTYPES
from gemm_lessons.ptx.bits import as_float32, as_word

device.choose()

from numba import cuda, float32, uint32  # noqa: E402  why late: the device is chosen before

#: All 256 values of e4m3: a kernel decodes with table[code].
DECODED = np.arange(256, dtype=np.uint8).view(DTYPES["float8_e4m3fn"]).astype(np.float32)

_DROPPED = 20  # bits of the mantissa that e4m3 has not
_HALF = 1 << 19  # of the last bit that is kept
_EXPONENT_SHIFT = (127 - 7) << 3  # from float32's exponents to e4m3's, above three bits of mantissa
_SMALLEST_NORMAL = 121 << 23  # the bits of 2**-6
_LARGEST = 0x43E00000  # the bits of 448
_INFINITY = 0x7F800000
# A float32 of this size has its last bit at 2**-9, so adding it rounds to a multiple of e4m3's smallest.
_ROUNDER = 2.0**14
_ROUNDER_BITS = 141 << 23


@cuda.jit(device=True)
def encode_e4m3(value):
    """Round a float32 to e4m3, as `ptx.convert.pack_e4m3` does: nearest even, at most 448, NaN to 0x7f.

    Returns:
        The code, 0 to 255.
    """
    bits = as_word(value)
    sign = (bits >> 24) & 0x80
    magnitude = min(bits & 0x7FFFFFFF, _LARGEST)
    if bits & 0x7FFFFFFF > _INFINITY:
        return uint32(0x7F)
    if magnitude < _SMALLEST_NORMAL:
        # why an addition: the distance of e4m3's small numbers is fixed, and float32's adder rounds to it
        code = as_word(as_float32(uint32(magnitude)) + float32(_ROUNDER)) - _ROUNDER_BITS
    else:
        # Half a unit less one, and one more if the last bit kept is odd: ties go to the even neighbour.
        to_even = (magnitude >> _DROPPED) & 1
        code = ((magnitude + _HALF - 1 + to_even) >> _DROPPED) - _EXPONENT_SHIFT
    return uint32(sign | code)


@cuda.jit(device=True)
def encode_bfloat16(value):
    """Round a float32 to bfloat16, to the nearest, ties to even; any GPU.

    Returns:
        The 16 bits of it, in an integer.
    """
    bits = as_word(value)
    if bits & 0x7FFFFFFF > _INFINITY:
        return uint32(0x7FC0)
    return uint32(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF)
