"""Global memory: where an array element lies, and loads and stores that ask whether it is there."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import SIMULATED, instruction
from gemm_lessons.sim.registry import Instruction


@instruction(
    """{
    .reg .pred inside;
    setp.ne.s32 inside, $5, 0;
    mov.f32 $0, 0f00000000; mov.f32 $1, 0f00000000; mov.f32 $2, 0f00000000; mov.f32 $3, 0f00000000;
    @inside ld.global.v4.f32 {$0, $1, $2, $3}, [$4];
    }""",
    "=&f,=&f,=&f,=&f,l,r",
    "UniTuple(float32, 4)(int64, int32)",
)
def ld_global_v4_f32(ctx, address, inside):
    """Load four neighbouring float32 at once, or zeros outside; each thread for itself.

    The instruction is predicated, not branched around: a branch would merge its result with the zeros
    in a register of its own, and that move waits for the load (numbers in `steps.tiled`).
    PTX ISA, "Data Movement and Conversion Instructions: ld".

    Args:
        ctx: the simulated machine.
        address: of the first, a multiple of 16 bytes; not looked at unless inside.
        inside: whether to load.

    Returns:
        The four values.
    """
    return tuple(ctx.load(address, np.float32, 4)) if inside else (np.float32(0),) * 4


@instruction(
    """{
    .reg .pred inside;
    setp.ne.s32 inside, $2, 0;
    mov.f32 $0, 0f00000000;
    @inside ld.global.f32 $0, [$1];
    }""",
    "=&f,l,r",
    "float32(int64, int32)",
)
def ld_global_f32(ctx, address, inside):
    """Load one float32, or zero outside; any thread.  `ld_global_v4_f32` for addresses that are not aligned.

    PTX ISA, "Data Movement and Conversion Instructions: ld".

    Args:
        ctx: the simulated machine.
        address: a multiple of 4 bytes; not looked at unless inside.
        inside: whether to load.

    Returns:
        The value.
    """
    return ctx.load(address, np.float32)[0] if inside else np.float32(0)


@instruction(
    """{
    .reg .pred inside;
    setp.ne.s32 inside, $2, 0;
    mov.u32 $0, 0;
    @inside ld.global.u32 $0, [$1];
    }""",
    "=&r,l,r",
    "uint32(int64, int32)",
)
def ld_global_u32(ctx, address, inside):
    """Load a word, or zero where there is nothing to load; each thread for itself.

    PTX ISA, "Data Movement and Conversion Instructions: ld".

    Args:
        ctx: the simulated machine.
        address: a multiple of 4 bytes; not looked at unless inside.
        inside: whether to load.

    Returns:
        The word.
    """
    return ctx.load(address, np.uint32)[0] if inside else np.uint32(0)


@instruction(
    """{
    .reg .pred inside;
    setp.ne.s32 inside, $2, 0;
    mov.u32 $0, 0;
    @inside ld.global.u8 $0, [$1];
    }""",
    "=&r,l,r",
    "uint32(int64, int32)",
)
def ld_global_u8(ctx, address, inside):
    """Load a byte, or zero where there is nothing to load; `ld_global_u32` for odd addresses.

    PTX ISA, "Data Movement and Conversion Instructions: ld".

    Args:
        ctx: the simulated machine.
        address: of the byte; not looked at unless inside.
        inside: whether to load.

    Returns:
        The byte, in a word.
    """
    return np.uint32(ctx.load(address, np.uint8)[0]) if inside else np.uint32(0)


@instruction("st.global.v2.u32 [$0], {$1, $2};", "l,r,r", "void(int64,uint32,uint32)")
def st_global_v2(ctx, address, low, high):
    """Store two words; each thread for itself, address a multiple of 8 bytes.

    PTX ISA, "Data Movement and Conversion Instructions: st".
    """
    words = [int(word) & 0xFFFFFFFF for word in (low, high)]
    ctx.store(int(address), np.array(words, np.uint32))


@instruction(
    "st.global.v4.f32 [$0], {$1, $2, $3, $4};", "l,f,f,f,f", "void(int64,float32,float32,float32,float32)"
)
def st_global_v4_f32(ctx, address, a, b, c, d):
    """Store four neighbouring float32 at once; each thread for itself, address a multiple of 16 bytes.

    PTX ISA, "Data Movement and Conversion Instructions: st".
    """
    ctx.store(int(address), np.array([a, b, c, d], np.float32))


if SIMULATED:

    def _address_of(ctx: Any, array: Any, index: Any) -> int:
        return ctx.address(array, index)

    address_of: Any = Instruction("address_of", "thread", _address_of)
else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.cuda.extending import intrinsic
    from numba.cuda.np.arrayobj import make_array

    @intrinsic
    def address_of(typing_context: Any, array: Any, index: Any) -> Any:
        """The generic address in bytes, int64, of array[index]; index is a tuple of one integer an axis.

        No instruction of its own, just the arithmetic that indexing does. Signed, because Numba turns
        the sum of an unsigned and a signed integer into a float.
        """

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            struct = make_array(signature.args[0])(context, builder, arguments[0])
            indices = [
                context.cast(builder, value, type_, types.intp)
                for value, type_ in zip(
                    cgutils.unpack_tuple(builder, arguments[1]), signature.args[1], strict=True
                )
            ]
            pointer = cgutils.get_item_pointer(context, builder, signature.args[0], struct, indices)
            return builder.ptrtoint(pointer, ir.IntType(64))

        return types.int64(array, index), codegen
