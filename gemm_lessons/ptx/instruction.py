"""How one PTX instruction becomes a Python function that kernels call.

    @instruction("ld.global.v4.f32 {$0, $1, $2, $3}, [$4];", "=f,=f,=f,=f,l",
                 "UniTuple(float32, 4)(uint64)")
    def ld_global_v4_f32(ctx, address):
        '''What it does, who executes it, where the PTX manual defines it.'''
        return ctx.load(address, ...)      # what it means in the simulator

On a GPU the decorated name is a Numba intrinsic that emits exactly the instruction.  In the simulator
it is the function's own body, run on a model of the machine.  No logic lives anywhere else.

An operand that is an array in the signature, as in "uint32(uint8[::1])", takes any array and passes the
64-bit address of its first element.
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
    accumulators: int = 0,
    adds: bool = True,
) -> Callable[[Callable[..., Any]], Any]:
    """Turn the simulator meaning of an instruction into a function for both paths.

    Args:
        template: PTX text; `$0`, `$1`, ... are the operands in the order of the constraints.
        constraints: LLVM inline-assembly constraints, outputs first, comma separated.
        signature: Numba signature, "result(argument, ...)"; a UniTuple result takes several outputs.
        scope: who executes it together: "thread", "warp" or "warpgroup".
        memory: it reads or orders memory, so the compiler must not move other accesses across it.
        accumulators: the first operand is a float32 local array, and its first so many elements are
            read and replaced in place: `$0` and on in the template, before all other operands, and
            not in the constraints.
        adds: the accumulators' old values count; if not, they are only written, and the compiler need
            not keep them.

    Returns:
        A decorator for the function that holds the simulator's meaning.  It takes the simulated
        machine, then the instruction's operands; one that several threads execute together takes the
        machine, then a list with the operands of each thread.
    """
    if accumulators:
        # why tied: input i must live in the very register of output i, for the hardware adds in place.
        tied = (str(i) for i in range(accumulators if adds else 0))
        constraints = ",".join((*["=f"] * accumulators, constraints, *tied))
    if memory:
        constraints = f"{constraints},~{{memory}}".lstrip(",")

    def decorate(meaning: Callable[..., Any]) -> Any:
        if SIMULATED:
            return Instruction(meaning.__name__, scope, meaning)
        return _emitted(meaning, template, constraints, signature, accumulators, adds)

    return decorate


def _emitted(
    meaning: Callable[..., Any],
    template: str,
    constraints: str,
    signature: str,
    accumulators: int,
    adds: bool,
) -> Any:
    """A Numba intrinsic that emits the template as inline assembly."""
    from llvmlite import ir
    from numba.core import cgutils, sigutils, types
    from numba.cuda.extending import intrinsic

    argument_types, result_type = sigutils.normalize_signature(signature)

    def data(context: Any, builder: Any, type_: Any, array: Any) -> Any:
        return context.make_array(type_)(context, builder, array).data

    def operand(context: Any, builder: Any, value: Any, have: Any, want: Any) -> Any:
        if isinstance(want, types.Array):
            return builder.ptrtoint(data(context, builder, have, value), ir.IntType(64))
        return context.cast(builder, value, have, want)

    def codegen(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        plain = list(zip(arguments, sig.args, argument_types, strict=True))
        slots = []
        if accumulators:
            value, have, _ = plain.pop(0)
            first = data(context, builder, have, value)
            # why constant indices: LLVM then keeps the whole array in registers.
            slots = [builder.gep(first, [ir.Constant(ir.IntType(64), i)]) for i in range(accumulators)]
        values = [operand(context, builder, *triple) for triple in plain]
        values += [builder.load(slot) for slot in slots if adds]
        if slots:
            gives = ir.LiteralStructType([ir.FloatType()] * accumulators)
        elif isinstance(result_type, types.UniTuple):  # type: ignore[attr-defined]
            gives = ir.LiteralStructType([context.get_value_type(result_type.dtype)] * result_type.count)
        elif result_type == types.void:
            gives = ir.VoidType()
        else:
            gives = context.get_value_type(result_type)
        function_type = ir.FunctionType(gives, [value.type for value in values])
        # why side_effect: without it LLVM may merge, hoist or drop the instruction.
        result = builder.asm(function_type, template, constraints, values, side_effect=True)
        if ".sync" in template:
            # why: without it LLVM may move the instruction into a branch that some of the threads take.
            result.attributes.add("convergent")
        for i, slot in enumerate(slots):
            builder.store(builder.extract_value(result, i), slot)
        if isinstance(result_type, types.UniTuple):  # type: ignore[attr-defined]
            return cgutils.pack_array(builder, cgutils.unpack_tuple(builder, result))
        return context.get_dummy_value() if result_type == types.void else result

    def accepts(have: Any, want: Any) -> bool:
        return isinstance(have, types.Array) == isinstance(want, types.Array)

    def typing(typing_context: Any, *arguments: Any) -> Any:
        if len(arguments) != len(argument_types) or not all(map(accepts, arguments, argument_types)):
            return None
        takes = (
            have if isinstance(want, types.Array) else want
            for have, want in zip(arguments, argument_types, strict=True)
        )
        return result_type(*takes), codegen

    typing.__name__ = meaning.__name__
    typing.__doc__ = meaning.__doc__
    # why: Numba folds call arguments by the function's declared parameters, and a *tuple is one parameter.
    names = ["typing_context", *(f"operand_{i}" for i in range(len(argument_types)))]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typing.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return intrinsic(typing)
