"""What quantisation is made of: the larger magnitude, and e4m3 (compute capability 8.9 on)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.ptx.instruction import instruction

E4M3 = ml_dtypes.float8_e4m3fn
LARGEST_E4M3 = np.float32(448)
NAN_E4M3 = np.uint8(0x7F)


@instruction(
    "{ .reg .f32 t; abs.f32 t, $2; max.f32 $0, $1, t; }",
    "=f,f,f",
    "float32(float32,float32)",
    memory=False,
)
def max_magnitude(ctx: Any, largest: Any, value: Any) -> Any:
    """The larger of a number and a magnitude; NaN does not count; any thread.

    One instruction of the machine, where a comparison and a choice would be two.
    PTX manual: abs, max.
    """
    return np.fmax(np.float32(largest), np.abs(np.float32(value)))


@instruction(
    "{ .reg .b16 t; cvt.rn.satfinite.e4m3x2.f32 t, $2, $1; cvt.u32.u16 $0, t; }",
    "=r,f,f",
    "uint32(float32,float32)",
    memory=False,
)
def pack_e4m3(ctx: Any, low: Any, high: Any) -> int:
    """Round two float32 to e4m3 and pack them in 16 bits, the first in the low byte; any thread.

    To the nearest, ties to even; what is larger than 448 becomes 448, infinities too; NaN is 0x7f.
    PTX manual: cvt.
    """
    pair = np.array([low, high], np.float32)
    rounded = np.clip(pair, -LARGEST_E4M3, LARGEST_E4M3).astype(E4M3).view(np.uint8)
    codes = np.where(np.isnan(pair), NAN_E4M3, rounded)
    return int(codes[0]) | int(codes[1]) << 8


@instruction(
    """{
    .reg .b16 pair, low, high;
    .reg .b32 halves;
    cvt.u16.u32 pair, $2;
    cvt.rn.f16x2.e4m3x2 halves, pair;
    mov.b32 {low, high}, halves;
    cvt.f32.f16 $0, low; cvt.f32.f16 $1, high;
    }""",
    "=f,=f,r",
    "UniTuple(float32, 2)(uint32)",
    memory=False,
)
def unpack_e4m3(ctx: Any, pair: Any) -> tuple[Any, ...]:
    """Two float32 from two e4m3 in the low 16 bits of a word, the low byte first; any thread.

    PTX manual: cvt.  By way of float16, which holds every e4m3.
    """
    codes = np.array([int(pair) & 0xFF, int(pair) >> 8 & 0xFF], np.uint8)
    return tuple(codes.view(E4M3).astype(np.float32))


@instruction(
    "{ .reg .b16 l, h; mov.b32 {l, h}, $2; cvt.rn.f16x2.e4m3x2 $0, l; cvt.rn.f16x2.e4m3x2 $1, h; }",
    "=r,=r,r",
    "UniTuple(uint32, 2)(uint32)",
    memory=False,
)
def e4m3_to_f16(ctx: Any, word: Any) -> tuple[int, int]:
    """The four e4m3 of a word as float16, exactly: two words of two; any thread.

    PTX manual: cvt.
    """
    low, high = np.array([int(word) & 0xFFFFFFFF], np.uint32).view(E4M3).astype(np.float16).view(np.uint32)
    return int(low), int(high)
