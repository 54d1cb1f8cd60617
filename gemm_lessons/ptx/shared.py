"""Addresses, and moving 16 bytes at a time.

Asynchronous instructions take addresses, not arrays: 32 bits for shared memory (an offset into a window
that every block of a cluster has), 64 bits for global memory.
"""

from gemm_lessons.ptx.instruction import instruction


@instruction(
    "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }", "=r,l", "uint32(uint8[::1])", memory=False
)
def shared_address(ctx, array):
    """Window address of a shared array's first element; any thread.

    PTX manual: cvta.
    """


@instruction("mov.u64 $0, $1;", "=l,l", "uint64(uint8[::1])", memory=False)
def global_address(ctx, array):
    """Address of a global array's first element; any thread."""


@instruction("ld.shared.v4.u32 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,r", "UniTuple(uint32, 4)(uint32)")
def ld_shared_v4(ctx, address):
    """Read 16 bytes of shared memory as four words; any thread, address a multiple of 16.

    PTX manual: ld.
    """


@instruction("st.shared.v4.u32 [$0], {$1, $2, $3, $4};", "r,r,r,r,r", "void(uint32,uint32,uint32,uint32,uint32)")
def st_shared_v4(ctx, address, a, b, c, d):
    """Write 16 bytes of shared memory from four words; any thread, address a multiple of 16.

    PTX manual: st.
    """


@instruction("st.global.v4.u32 [$0], {$1, $2, $3, $4};", "l,r,r,r,r", "void(uint64,uint32,uint32,uint32,uint32)")
def st_global_v4(ctx, address, a, b, c, d):
    """Write 16 bytes of global memory from four words; any thread, address a multiple of 16.

    PTX manual: st.
    """


@instruction(
    "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [$0], {$1, $2, $3, $4}, [$5];",
    "r,r,r,r,r,r",
    "void(uint32,uint32,uint32,uint32,uint32,uint32)",
)
def st_async_v4(ctx, address, a, b, c, d, barrier):
    """Write 16 bytes into a block of the cluster and count them on a barrier of that block; any thread.

    Address and barrier are named by `mapa`.  PTX manual: st.async.
    """
