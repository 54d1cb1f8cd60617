"""Shared memory by address, and 16 bytes at a time.

Asynchronous instructions take addresses, not arrays: for shared memory, 32 bits, an offset into a window
that every block of a cluster has.  (`global_memory.address_of` gives the 64 bits of a global one.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.sim.registry import InstructionError, is_shared_address


@instruction(
    "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }",
    "=r,l",
    "uint32(uint8[::1])",
    memory=False,
)
def shared_address(ctx: Any, array: Any) -> int:
    """Window address of a shared array's first element; any thread.

    PTX manual: cvta.
    """
    address: int = ctx.address(array)
    if not is_shared_address(address):
        raise InstructionError("this array does not lie in shared memory.")
    return address


def _words(*values: Any) -> np.ndarray[Any, Any]:
    return np.array([int(value) & 0xFFFFFFFF for value in values], np.uint32)


@instruction("ld.shared.v4.u32 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,r", "UniTuple(uint32, 4)(uint32)")
def ld_shared_v4(ctx: Any, address: Any) -> tuple[int, ...]:
    """Read 16 bytes of shared memory as four words; any thread, address a multiple of 16.

    PTX manual: ld.
    """
    return tuple(int(word) for word in ctx.load(int(address), np.uint32, 4))


@instruction("ld.shared.f32 $0, [$1];", "=f,r", "float32(uint32)")
def ld_shared_f32(ctx: Any, address: Any) -> Any:
    """Read a float32 of shared memory; any thread, address a multiple of 4.

    PTX manual: ld.
    """
    return ctx.load(int(address), np.float32)[0]


@instruction("st.shared.f32 [$0], $1;", "r,f", "void(uint32,float32)")
def st_shared_f32(ctx: Any, address: Any, value: Any) -> None:
    """Write one float32 of shared memory; any thread, address a multiple of 4.

    PTX manual: st.
    """
    ctx.store(int(address), np.float32(value).reshape(1))


@instruction(
    "st.global.v4.u32 [$0], {$1, $2, $3, $4};", "l,r,r,r,r", "void(uint64,uint32,uint32,uint32,uint32)"
)
def st_global_v4(ctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Write 16 bytes of global memory from four words; any thread, address a multiple of 16.

    PTX manual: st.
    """
    ctx.store(int(address), _words(a, b, c, d))


@instruction(
    "st.shared.v4.u32 [$0], {$1, $2, $3, $4};", "r,r,r,r,r", "void(uint32,uint32,uint32,uint32,uint32)"
)
def st_shared_v4(ctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Write 16 bytes of shared memory from four words; any thread, address a multiple of 16.

    PTX manual: st.
    """
    ctx.store(int(address), _words(a, b, c, d))


@instruction(
    """{
    .reg .pred inside;
    setp.ne.s32 inside, $5, 0;
    mov.u32 $0, 0; mov.u32 $1, 0; mov.u32 $2, 0; mov.u32 $3, 0;
    @inside ld.global.v4.u32 {$0, $1, $2, $3}, [$4];
    }""",
    "=&r,=&r,=&r,=&r,l,r",
    "UniTuple(uint32, 4)(int64, int32)",
)
def ld_global_v4(ctx: Any, address: Any, inside: Any) -> tuple[int, ...]:
    """Read 16 bytes of global memory as four words, or zeros outside; any thread, a multiple of 16.

    PTX manual: ld.
    """
    return tuple(int(word) for word in ctx.load(int(address), np.uint32, 4)) if inside else (0, 0, 0, 0)


@instruction("st.global.u32 [$0], $1;", "l,r", "void(int64,uint32)")
def st_global_u32(ctx: Any, address: Any, word: Any) -> None:
    """Write a word of global memory; any thread, address a multiple of 4.

    PTX manual: st.
    """
    ctx.store(int(address), _words(word))
