"""Matrix fragments of one warp: load, store and multiply 8 x 8 tiles of 16-bit values.

lane t holds two neighbours of one row, in one word:     row t // 4, columns 2 * (t % 4) and + 1
the .trans forms exchange rows and columns:              column t // 4, rows 2 * (t % 4) and + 1
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gemm_lessons.ptx.instruction import instruction

LANES = np.arange(32)
ROWS, COLUMNS = LANES // 4, 2 * (LANES % 4)


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
    addresses = [int(address) for address, *_ in calls]
    words = np.array([[int(word) & 0xFFFFFFFF for word in held] for _, *held in calls], np.uint32)
    for i in range(4):
        tile = np.empty((8, 8), np.uint16)
        tile[COLUMNS, ROWS], tile[COLUMNS + 1, ROWS] = words[:, i] & 0xFFFF, words[:, i] >> 16
        for row in range(8):
            ctx.lanes[8 * i + row].store(addresses[8 * i + row], tile[row], align=16)


@instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", "uint32(float32,float32)", memory=False)
def pack_bf16(ctx: Any, low: Any, high: Any) -> int:
    """Round two float32 to bfloat16 and pack them in one word, the first in the low half; any thread.

    PTX manual: cvt.
    """
    pair = np.array([low, high], np.float32).astype(ml_dtypes.bfloat16)
    return int(pair.view(np.uint32)[0])
