"""wgmma: 128 threads multiply a 64 x 16 tile by a 16 x n tile, straight from shared memory.

    acc[64, n] += a[64, 16] @ b[n, 16].T        bfloat16 in, float32 out

Both tiles lie in shared memory with K running fastest, 64 values (128 bytes) to a row, in the 128-byte
swizzle that TMA writes.  They are named by descriptors.  The accumulators are spread over the warpgroup:

    thread t, warp = t // 32, row = 16 * warp + t % 32 // 4, column = 2 * (t % 4)
    acc[4 * j + 0], acc[4 * j + 1]      row,     columns 8 * j + column, + 1
    acc[4 * j + 2], acc[4 * j + 3]      row + 8, the same columns

The instruction only starts the work: nobody may touch the accumulators, or overwrite the tiles, before a
`wgmma_wait` that covers it.
"""

from gemm_lessons.ptx.instruction import instruction

# Matrix descriptor (PTX manual, "Matrix Descriptor Format"): addresses in units of 16 bytes.
# Leading dimension 1 (unused when swizzled), 1024 bytes from one group of eight rows to the next,
# swizzle mode 1: 128 bytes.
DESCRIPTOR = 1 << 16 | (1024 >> 4) << 32 | 1 << 62
DESCRIPTOR_STEP_K = 32 >> 4  # 16 bfloat16 further along K


@instruction("wgmma.fence.sync.aligned;", "", "void()", scope="warpgroup")
def wgmma_fence(ctx, calls):
    """Order register accesses before the first wgmma that uses them; a whole warpgroup.

    PTX manual: wgmma.fence.
    """


@instruction("wgmma.commit_group.sync.aligned;", "", "void()", scope="warpgroup")
def wgmma_commit(ctx, calls):
    """Close the group of the warpgroup's wgmma since the last one; a whole warpgroup.

    PTX manual: wgmma.commit_group.
    """


def _wait(number):
    @instruction(f"wgmma.wait_group.sync.aligned {number};", "", "void()", scope="warpgroup")
    def wgmma_wait(ctx, calls):
        """Wait until at most so many groups are unfinished; a whole warpgroup.

        PTX manual: wgmma.wait_group.
        """

    return wgmma_wait


#: wgmma_wait[n](): wait until at most n groups are unfinished.
wgmma_wait = {n: _wait(n) for n in range(2)}


def _wgmma(n):
    num_accumulators = n // 2
    registers = ", ".join(f"${i}" for i in range(num_accumulators))
    a, b, add = (f"${num_accumulators + i}" for i in range(3))

    @instruction(
        f"{{ .reg .pred p; setp.ne.b32 p, {add}, 0;"
        f" wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{registers}}}, {a}, {b}, p, 1, 1, 0, 0; }}",
        "l,l,r",
        "void(float32[::1],uint64,uint64,int32)",
        scope="warpgroup",
        accumulators=num_accumulators,
    )
    def wgmma_bf16(ctx, calls):
        """Start acc = a @ b.T, plus the old acc if `add` is not 0; a whole warpgroup.

        Operands: acc float32 local array, a and b descriptors, add.  PTX manual: wgmma.mma_async.
        """

    return wgmma_bf16


#: wgmma_bf16[n](acc, a, b, add): m64 n k16 for n = 8, 16, ..., 256.
wgmma_bf16 = {n: _wgmma(n) for n in range(8, 257, 8)}
