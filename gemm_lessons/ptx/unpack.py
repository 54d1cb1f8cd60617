"""One 32-bit word of memory as the float32 values that it holds; `matrix.pack` is the way back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.ptx.instruction import instruction


@instruction("mov.b32 $0, $1;", "=f,r", "float32(uint32)", memory=False)
def as_float32(ctx: Any, word: Any) -> Any:
    """The float32 that has these bits; any thread.

    PTX manual: mov.
    """
    return np.array([int(word) & 0xFFFFFFFF], np.uint32).view(np.float32)[0]


@instruction("mov.b32 $0, $1;", "=r,f", "uint32(float32)", memory=False)
def as_word(ctx: Any, value: Any) -> int:
    """The bits of a float32; any thread.

    PTX manual: mov.
    """
    return int(np.array([value], np.float32).view(np.uint32)[0])


@instruction(
    "{ .reg .b32 h; shl.b32 h, $2, 16; mov.b32 $0, h; and.b32 h, $2, 0xffff0000; mov.b32 $1, h; }",
    "=&f,=f,r",
    "UniTuple(float32, 2)(uint32)",
    memory=False,
)
def unpack_bf16(ctx: Any, word: Any) -> Any:
    """Two bfloat16 as float32, that of the low half first; any thread.

    A bfloat16 is the upper half of a float32, so a shift and a mask are all it takes.
    PTX manual: shl, and.
    """
    pair = np.array([int(word) & 0xFFFFFFFF], np.uint32).view(ml_dtypes.bfloat16)
    return tuple(pair.astype(np.float32))


@instruction(
    "{ .reg .b16 l, h; mov.b32 {l, h}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h; }",
    "=&f,=f,r",
    "UniTuple(float32, 2)(uint32)",
    memory=False,
)
def unpack_f16(ctx: Any, word: Any) -> Any:
    """Two float16 as float32, that of the low half first; any thread.

    PTX manual: cvt.
    """
    pair = np.array([int(word) & 0xFFFFFFFF], np.uint32).view(np.float16)
    return tuple(pair.astype(np.float32))


#: unpack[dtype](word): the two values of a word of 16-bit values.
unpack = {"float16": unpack_f16, "bfloat16": unpack_bf16}
