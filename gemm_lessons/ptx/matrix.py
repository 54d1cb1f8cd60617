"""Matrix fragments of one warp: load, multiply and store small tiles of 16-bit values.

an 8 x 8 tile: lane t holds two neighbours of a row in one word: row t // 4, columns 2 * (t % 4) and + 1
the .trans forms exchange rows and columns

mma.sync m16n8k16     d[16, 8] = a[16, 16] @ b[8, 16].T + c     words of 8 x 8 tiles:
    a0 rows 0-7, k 0-7    a1 rows 8-15, k 0-7    a2 rows 0-7, k 8-15    a3 rows 8-15, k 8-15
    b0 k 0-7              b1 k 8-15
    c0, c1 row t // 4, columns 2 * (t % 4) and + 1                      c2, c3 the same of row + 8
mma.sync m16n8k8 is the same with a0, a1 and b0 alone: Turing's half step.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.sim.registry import Context

LANES = np.arange(32)
ROWS, COLUMNS = LANES // 4, 2 * (LANES % 4)
Array = np.ndarray[Any, Any]


def _words(calls: Any, first: int, count: int) -> Array:
    """Operands first to first + count of each lane, uint32 [32, count]."""
    return np.array([[int(w) & 0xFFFFFFFF for w in call[first : first + count]] for call in calls], np.uint32)


def _tile_of(words: Array) -> Array:
    """The 8 x 8 tile that one word of each lane makes."""
    tile = np.empty((8, 8), np.uint16)
    tile[ROWS, COLUMNS], tile[ROWS, COLUMNS + 1] = words & 0xFFFF, words >> 16
    return tile


def _words_of(tile: Array) -> Array:
    """The word of each lane that an 8 x 8 tile makes."""
    words: Array = tile[ROWS, COLUMNS].astype(np.uint32) | tile[ROWS, COLUMNS + 1].astype(np.uint32) << 16
    return words


@instruction(
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];",
    "=r,=r,=r,=r,r",
    "UniTuple(uint32, 4)(uint32)",
    scope="warp",
)
def ldmatrix_x4(ctx: Any, calls: Any) -> Any:
    """Load four 8 x 8 tiles; a whole warp.  Lane 8 * i + r gives the address of row r of tile i.

    PTX manual: ldmatrix.
    """
    words = []
    for i in range(4):
        rows = [ctx.lanes[8 * i + row].load(int(calls[8 * i + row][0]), np.uint16, 8) for row in range(8)]
        words.append(_words_of(np.stack(rows)))
    return [tuple(int(word[lane]) for word in words) for lane in range(32)]


@instruction(
    "stmatrix.sync.aligned.m8n8.x4.shared.b16 [$0], {$1, $2, $3, $4};",
    "r,r,r,r,r",
    "void(uint32,uint32,uint32,uint32,uint32)",
    scope="warp",
)
def stmatrix_x4(ctx: Any, calls: Any) -> None:
    """Store four 8 x 8 tiles; a whole warp.

    Operands: address, and one word of each tile.  Lane 8 * i + r gives the address of row r of tile i.
    PTX manual: stmatrix.
    """
    _store_tiles(ctx, calls, 4, transposed=False)


@instruction(
    "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [$0], {$1, $2, $3, $4};",
    "r,r,r,r,r",
    "void(uint32,uint32,uint32,uint32,uint32)",
    scope="warp",
)
def stmatrix_x4_trans(ctx: Any, calls: Any) -> None:
    """Store four 8 x 8 tiles, transposed; a whole warp.

    Operands: address, and one word of each tile.  Lane 8 * i + r gives the address of row r of tile i.
    PTX manual: stmatrix.
    """
    _store_tiles(ctx, calls, 4, transposed=True)


@instruction(
    "stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [$0], {$1, $2};",
    "r,r,r",
    "void(uint32,uint32,uint32)",
    scope="warp",
)
def stmatrix_x2_trans(ctx: Any, calls: Any) -> None:
    """Store two 8 x 8 tiles, transposed; a whole warp, though only lanes 0 to 15 give addresses.

    Operands: address, and one word of each tile.  Lane 8 * i + r gives the address of row r of tile i.
    PTX manual: stmatrix.
    """
    _store_tiles(ctx, calls, 2, transposed=True)


def _store_tiles(ctx: Any, calls: Any, num_tiles: int, *, transposed: bool) -> None:
    words = _words(calls, 1, num_tiles)
    for i in range(num_tiles):
        tile = _tile_of(words[:, i])
        for row, values in enumerate(tile.T if transposed else tile):
            ctx.lanes[8 * i + row].store(int(calls[8 * i + row][0]), values.copy(), align=16)


def _multiply(ctx: Context, calls: Any, num_a: int, dtype: Any) -> Any:
    """Meaning of mma.sync with num_a words of A, half as many of B, and float32 sums."""
    num_b = num_a // 2
    a, b = _words(calls, 0, num_a), _words(calls, num_a, num_b)
    c = np.array([call[num_a + num_b :] for call in calls], np.float32)

    def join(words: Array, tiles: Any) -> Array:
        joined = np.block([[_tile_of(words[:, i]) for i in row] for row in tiles])
        return np.ascontiguousarray(joined).view(dtype).astype(np.float32)

    product = join(a, [[0, 2], [1, 3]] if num_a == 4 else [[0], [1]]) @ join(b, [list(range(num_b))]).T
    columns = np.stack([COLUMNS, COLUMNS + 1, COLUMNS, COLUMNS + 1], 1)
    rows = np.stack([ROWS, ROWS, ROWS + 8, ROWS + 8], 1)
    return [tuple(row) for row in c + product[rows, columns]]


def _mma(shape: str, dtype: str, num_a: int, numpy_dtype: Any) -> Any:
    num_b = num_a // 2
    operands = [f"${i}" for i in range(4 + num_a + num_b + 4)]
    a, b, c = operands[4 : 4 + num_a], operands[4 + num_a : 4 + num_a + num_b], operands[4 + num_a + num_b :]
    registers = ", ".join(f"{{{', '.join(group)}}}" for group in (operands[:4], a, b, c))

    @instruction(
        f"mma.sync.aligned.{shape}.row.col.f32.{dtype}.{dtype}.f32 {registers};",
        ",".join(["=f"] * 4 + ["r"] * (num_a + num_b) + ["f"] * 4),
        f"UniTuple(float32, 4)({','.join(['uint32'] * (num_a + num_b) + ['float32'] * 4)})",
        scope="warp",
        memory=False,
    )
    def mma(ctx: Any, calls: Any) -> Any:
        """Multiply fragments and add; a whole warp.

        Operands: words of a, words of b, c0 to c3; returns d0 to d3.  PTX manual: mma.
        """
        return _multiply(ctx, calls, num_a, numpy_dtype)

    return mma


#: mma_m16n8k16[dtype](a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), compute capability 8.0 on.
mma_m16n8k16 = {
    "float16": _mma("m16n8k16", "f16", 4, np.float16),
    "bfloat16": _mma("m16n8k16", "bf16", 4, ml_dtypes.bfloat16),
}
#: mma_m16n8k8[dtype](a0, a1, b0, c0, c1, c2, c3), Turing's; it knows no bfloat16.
mma_m16n8k8 = {"float16": _mma("m16n8k8", "f16", 2, np.float16)}


@instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", "uint32(float32,float32)", memory=False)
def pack_bf16(ctx: Any, low: Any, high: Any) -> int:
    """Round two float32 to bfloat16 and pack them in one word, the first in the low half; any thread.

    PTX manual: cvt.
    """
    pair = np.array([low, high], np.float32).astype(ml_dtypes.bfloat16)
    return int(pair.view(np.uint32)[0])


@instruction(
    "{ .reg .b16 l, h; cvt.rn.f16.f32 l, $1; cvt.rn.f16.f32 h, $2; mov.b32 $0, {l, h}; }",
    "=r,f,f",
    "uint32(float32,float32)",
    memory=False,
)
def pack_f16(ctx: Any, low: Any, high: Any) -> int:
    """Round two float32 to float16 and pack them in one word, the first in the low half; any thread.

    PTX manual: cvt.  Two conversions and a move, because Turing has no cvt.rn.f16x2.
    """
    pair = np.array([low, high], np.float32).astype(np.float16)
    return int(pair.view(np.uint32)[0])


@instruction(
    "{ .reg .b32 t; shl.b32 t, $2, 16; mov.b32 $0, t; and.b32 t, $2, 0xffff0000; mov.b32 $1, t; }",
    "=f,=f,r",
    "UniTuple(float32, 2)(uint32)",
    memory=False,
)
def unpack_bf16(ctx: Any, word: Any) -> tuple[Any, Any]:
    """The two bfloat16 of a word as float32, the low half first; any thread.

    A bfloat16 is the upper half of a float32, so no conversion is needed.  PTX manual: mov.
    """
    low, high = np.array([int(word) << 16 & 0xFFFFFFFF, int(word) & 0xFFFF0000], np.uint32).view(np.float32)
    return low, high


@instruction(
    "{ .reg .b16 l, h; mov.b32 {l, h}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h; }",
    "=f,=f,r",
    "UniTuple(float32, 2)(uint32)",
    memory=False,
)
def unpack_f16(ctx: Any, word: Any) -> tuple[Any, Any]:
    """The two float16 of a word as float32, the low half first; any thread.

    PTX manual: cvt.
    """
    low, high = np.array([int(word) & 0xFFFFFFFF], np.uint32).view(np.float16).astype(np.float32)
    return low, high


#: unpack[dtype](word): the way back.
unpack = {"float16": unpack_f16, "bfloat16": unpack_bf16}


#: pack[dtype](low, high): two float32 to one word of 16-bit values.
pack = {"float16": pack_f16, "bfloat16": pack_bf16}
