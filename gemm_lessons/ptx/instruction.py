"""How one PTX instruction becomes a Python function that kernels call.

    @instruction("ld.global.v4.f32 {$0, $1, $2, $3}, [$4];", "=f,=f,=f,=f,l",
                 "UniTuple(float32, 4)(uint64)")
    def ld_global_v4_f32(ctx, address):
        '''What it does, who executes it, where the PTX manual defines it.'''
        return ctx.load(address, ...)      # what it means in the simulator

On a GPU the decorated name is a Numba intrinsic that emits exactly the instruction.  In the simulator
it is the function's own body, run on a model of the machine.  No logic lives anywhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from gemm_lessons import device
from gemm_lessons.sim.registry import Instruction, Scope

device.choose()  # why here: every line below decides by whether Numba simulates

SIMULATED = device.choose().kind == "sim"


def instruction(
    template: str,
    constraints: str,
    signature: str,
    *,
    scope: Scope = "thread",
    memory: bool = True,
) -> Callable[[Callable[..., Any]], Any]:
    """Turn the simulator meaning of an instruction into a function for both paths.

    Args:
        template: PTX text; `$0`, `$1`, ... are the operands in the order of the constraints.
        constraints: LLVM inline-assembly constraints, outputs first, comma separated.
        signature: Numba signature, "result(argument, ...)"; a UniTuple result takes several outputs.
        scope: who executes it together: "thread", "warp" or "warpgroup".
        memory: it reads or orders memory, so the compiler must not move other accesses across it.

    Returns:
        A decorator for the function that holds the simulator's meaning; it takes the simulated
        machine, then the instruction's operands.
    """

    def decorate(meaning: Callable[..., Any]) -> Any:
        if SIMULATED:
            return Instruction(meaning.__name__, scope, meaning)
        return _emitted(meaning, template, constraints + (",~{memory}" if memory else ""), signature)

    return decorate


def _emitted(meaning: Callable[..., Any], template: str, constraints: str, signature: str) -> Any:
    """A Numba intrinsic that emits the template as inline assembly."""
    from llvmlite import ir
    from numba.core import cgutils, sigutils, types
    from numba.cuda.extending import intrinsic

    argument_types, result_type = sigutils.normalize_signature(signature)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        values = [
            context.cast(builder, value, have, want)
            for value, have, want in zip(arguments, sig.args, argument_types, strict=True)
        ]
        takes = [context.get_value_type(type_) for type_ in argument_types]
        if isinstance(result_type, types.UniTuple):  # type: ignore[attr-defined]
            element = context.get_value_type(result_type.dtype)
            gives = ir.LiteralStructType([element] * result_type.count)
        elif result_type == types.void:
            gives = ir.VoidType()
        else:
            gives = context.get_value_type(result_type)
        # why side_effect: without it LLVM may merge, hoist or drop the instruction.
        result = builder.asm(ir.FunctionType(gives, takes), template, constraints, values, side_effect=True)
        if isinstance(result_type, types.UniTuple):  # type: ignore[attr-defined]
            return cgutils.pack_array(builder, cgutils.unpack_tuple(builder, result))
        return context.get_dummy_value() if result_type == types.void else result

    def typing(typing_context: Any, *arguments: Any) -> Any:
        if len(arguments) != len(argument_types):
            return None
        return result_type(*argument_types), codegen

    typing.__name__ = meaning.__name__
    typing.__doc__ = meaning.__doc__
    # why: Numba folds call arguments by the function's declared parameters, and a *tuple is one parameter.
    _, *operands = inspect.signature(meaning).parameters.values()
    first = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    typing.__signature__ = inspect.Signature([first, *operands])  # type: ignore[attr-defined]
    return intrinsic(typing)
