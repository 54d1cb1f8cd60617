"""wgmma: 128 threads multiply a tile of 64 rows by a tile of n rows, straight from shared memory.

    acc[64, n] += a[64, 16] @ b[n, 16].T        bfloat16 in, float32 out
    acc[64, n] += a[64, 32] @ b[n, 32].T        e4m3 in, float32 out, of which the sum keeps some 14 bits

Both tiles lie in shared memory with K running fastest, 128 bytes to a row, in the 128-byte swizzle that
TMA writes; one wgmma takes 32 bytes of every row.  They are named by descriptors.  The accumulators are
spread over the warpgroup:

    thread t, warp = t // 32, row = 16 * warp + t % 32 // 4, column = 2 * (t % 4)
    acc[4 * j + 0], acc[4 * j + 1]      row,     columns 8 * j + column, + 1
    acc[4 * j + 2], acc[4 * j + 3]      row + 8, the same columns

The instruction only starts the work: nobody may touch the accumulators, or overwrite the tiles, before a
`wgmma_wait` that covers it.

How exact e4m3 sums are: a product of two e4m3 is exact, but to add them up Hopper shifts the products and
the old sum to the largest exponent among them and cuts off what falls below it by some 13 bits (DeepSeek-V3,
"Technical Report", 2024, section 3.3.2, says 14 bits in all).  Long sums must therefore move to float32
registers every so often.  The simulator adds in float32 and cuts nothing off.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numba import uint64

from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.ptx.swizzle import swizzled
from gemm_lessons.sim.registry import SHARED_WINDOW, Context, InstructionError

M = 64
ROW_BYTES = 128
STEP_BYTES = 32  # of every row, that one wgmma multiplies

# Matrix descriptor (PTX manual, "Matrix Descriptor Format"): addresses in units of 16 bytes.
# Leading dimension 1 (unused when swizzled), 1024 bytes from one group of eight rows to the next,
# swizzle mode 1: 128 bytes.
LAYOUT = 1 << 16 | (1024 >> 4) << 32 | 1 << 62
ADDRESS_BITS = 0x3FFFF
STEP_K = STEP_BYTES >> 4  # added to a descriptor: 16 bfloat16, or 32 e4m3, further along K


@inlined
def matrix_descriptor(address):
    """Name a tile of 128-byte rows that starts at a shared address, a multiple of 1024."""
    return uint64(LAYOUT | (address & ADDRESS_BITS) >> 4)


class _Warpgroup:
    """A warpgroup's matrix products in the simulator."""

    def __init__(self) -> None:
        self.fenced = False
        self.open: list[_Product] = []
        self.groups: list[list[_Product]] = []


class _Product:
    """One wgmma: started, and later its result [64, n]."""

    def __init__(self, add: bool) -> None:
        self.add = add
        self.completion: Any = None
        self.value: np.ndarray[Any, Any] = np.empty((0, 0))


def _warpgroup(ctx: Context) -> _Warpgroup:
    state: _Warpgroup = ctx.state(("wgmma", ctx.warp // 4), _Warpgroup, "block")
    return state


def _read_tile(ctx: Context, descriptor: int, num_rows: int, dtype: Any) -> np.ndarray[Any, Any]:
    """The tile [num_rows, 16 or 32] that a descriptor names, as float32."""
    if descriptor & ~(ADDRESS_BITS >> 4) != LAYOUT:
        raise InstructionError(f"the matrix descriptor {descriptor:#x} does not name 128-byte swizzled rows.")
    start = (descriptor & ADDRESS_BITS >> 4) << 4
    first_byte = start % ROW_BYTES
    base = (ctx.cluster_rank + 1) * SHARED_WINDOW + start - first_byte
    if base % 1024:
        raise InstructionError("a swizzled tile starts at a multiple of 1024 bytes, plus 32 a step along K.")
    size = num_rows * ROW_BYTES
    # why whole rows, though 32 bytes of each are used: they are filled and released together.
    plain = ctx.load(base, np.uint8, size, align=16)[swizzled(base, size)].reshape(num_rows, ROW_BYTES)
    columns = np.ascontiguousarray(plain[:, first_byte : first_byte + STEP_BYTES])
    return columns.view(dtype).astype(np.float32)


@instruction("wgmma.fence.sync.aligned;", "", "void()", scope="warpgroup")
def wgmma_fence(ctx: Any, calls: Any) -> None:
    """Order register accesses before the first wgmma that uses them; a whole warpgroup.

    PTX manual: wgmma.fence.
    """
    _warpgroup(ctx).fenced = True


@instruction("wgmma.commit_group.sync.aligned;", "", "void()", scope="warpgroup")
def wgmma_commit(ctx: Any, calls: Any) -> None:
    """Close the group of the warpgroup's wgmma since the last one; a whole warpgroup.

    PTX manual: wgmma.commit_group.
    """
    state = _warpgroup(ctx)
    state.groups.append(state.open)
    state.open = []


def _wait(most: int) -> Any:
    @instruction(f"wgmma.wait_group.sync.aligned {most};", "", "void()")
    def wgmma_wait(ctx: Any) -> None:
        """Wait until at most so many groups are unfinished; each thread of the warpgroup.

        PTX manual: wgmma.wait_group.
        """
        state = _warpgroup(ctx)
        state.fenced = False
        mine = ctx.state("wgmma", _Registers, "thread")
        while mine.num_groups < len(state.groups) - most:
            for product in state.groups[mine.num_groups]:
                ctx.join(product.completion, "a matrix product")
                mine.take(ctx, product)
            mine.num_groups += 1

    return wgmma_wait


class _Registers:
    """How many groups of products a thread has waited for, and which accumulators they belong to."""

    def __init__(self) -> None:
        self.num_groups = 0
        self.arrays: dict[int, Any] = {}

    def take(self, ctx: Context, product: _Product) -> None:
        """Add a finished product to this thread's accumulators."""
        array, (rows, columns) = self.arrays.pop(id(product)), _fragment(ctx.thread, product.value.shape[1])
        for i, value in enumerate(product.value[rows, columns]):
            ctx.write(array, value + (ctx.read(array, i) if product.add else np.float32(0)), i)


def _fragment(thread: int, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows and columns of the n // 2 accumulators that a thread holds."""
    i, lane, warp = np.arange(n // 2), thread % 32, thread % 128 // 32
    return 16 * warp + lane // 4 + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (lane % 4) + i % 2


#: wgmma_wait[n](): wait until at most n groups are unfinished.
wgmma_wait = {n: _wait(n) for n in range(2)}


# dtype, k of one instruction, and the operands that say "not transposed", which 8-bit tiles never are.
_KINDS = {"bf16": (ml_dtypes.bfloat16, 16, ", 0, 0"), "e4m3": (ml_dtypes.float8_e4m3fn, 32, "")}


def _wgmma(n: int, kind: str, *, begin: bool = False) -> Any:
    num_accumulators = n // 2
    dtype, k, transpositions = _KINDS[kind]
    registers = ", ".join(f"${i}" for i in range(num_accumulators))
    a, b, add = (f"${num_accumulators + i}" for i in range(3))
    name = f"wgmma.mma_async.sync.aligned.m64n{n}k{k}.f32.{kind}.{kind}"

    def enqueue(ctx: Any, operands: set[tuple[int, int, bool]], arrays: list[Any]) -> None:
        if len(operands) > 1:
            raise InstructionError("the threads of a warpgroup must agree on the operands of wgmma.")
        state = _warpgroup(ctx)
        if not state.fenced:
            raise InstructionError("wgmma_fence is missing between these accumulators' last use and wgmma.")
        a, b, add = operands.pop()
        product = _Product(add)

        def multiply(agent: Context) -> None:
            product.value = _read_tile(agent, a, M, dtype) @ _read_tile(agent, b, n, dtype).T

        product.completion = ctx.later(multiply, "the tensor core")
        state.open.append(product)
        for lane, array in zip(ctx.lanes, arrays, strict=True):
            lane.state("wgmma", _Registers, "thread").arrays[id(product)] = array

    def template(add: str) -> str:
        operands = f"{{{registers}}}, {a}, {b}, p, 1, 1{transpositions}"
        return f"{{ .reg .pred p; setp.ne.b32 p, {add}, 0; {name} {operands}; }}"

    if begin:

        @instruction(
            template("0"),
            "l,l",
            "void(float32[::1],uint64,uint64)",
            scope="warpgroup",
            accumulators=num_accumulators,
            adds=False,
        )
        def wgmma_begin(ctx: Any, calls: Any) -> None:
            """Start acc = a @ b.T, whatever acc was; a whole warpgroup.

            Operands: acc float32 local array, a and b descriptors.  PTX manual: wgmma.mma_async.
            """
            enqueue(ctx, {(int(a), int(b), False) for _, a, b in calls}, [acc for acc, *_ in calls])

        return wgmma_begin

    @instruction(
        template(add),
        "l,l,r",
        "void(float32[::1],uint64,uint64,int32)",
        scope="warpgroup",
        accumulators=num_accumulators,
    )
    def wgmma(ctx: Any, calls: Any) -> None:
        """Start acc = a @ b.T, plus the old acc if `add` is not 0; a whole warpgroup.

        Operands: acc float32 local array, a and b descriptors, add.  PTX manual: wgmma.mma_async.
        """
        enqueue(ctx, {(int(a), int(b), bool(add)) for _, a, b, add in calls}, [acc for acc, *_ in calls])

    return wgmma


#: wgmma_bf16[n](acc, a, b, add): m64 n k16 for n = 8, 16, ..., 256.
wgmma_bf16 = {n: _wgmma(n, "bf16") for n in range(8, 257, 8)}
#: wgmma_e4m3[n](acc, a, b, add): m64 n k32 for n = 8, 16, ..., 256.
wgmma_e4m3 = {n: _wgmma(n, "e4m3") for n in range(8, 257, 8)}
#: wgmma_e4m3_begin[n](acc, a, b): the same, where acc holds nothing yet.
wgmma_e4m3_begin = {n: _wgmma(n, "e4m3", begin=True) for n in range(8, 257, 8)}
