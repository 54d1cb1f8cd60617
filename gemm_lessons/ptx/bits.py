"""The bits of a float32 as an integer, and the float32 that has given bits."""

from __future__ import annotations

from typing import Any

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
