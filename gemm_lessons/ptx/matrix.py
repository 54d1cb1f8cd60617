"""Matrix fragments of one warp: load, store and multiply 8 x 8 tiles of 16-bit values."""

from gemm_lessons.ptx.instruction import instruction


@instruction(
    "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [$0], {$1, $2, $3, $4};",
    "r,r,r,r,r",
    "void(uint32,uint32,uint32,uint32,uint32)",
    scope="warp",
)
def stmatrix_x4_trans(ctx, calls):
    """Store four 8 x 8 tiles, transposed; a whole warp.

    Operands: address, and one word of each tile.  Lane 8 * i + r gives the address of row r of tile i.
    The words of lane t hold column t // 4, rows 2 * (t % 4) and + 1.  PTX manual: stmatrix.
    """


@instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", "uint32(float32,float32)", memory=False)
def pack_bf16(ctx, low, high):
    """Round two float32 to bfloat16 and pack them in one word, the first in the low half; any thread.

    PTX manual: cvt.
    """
