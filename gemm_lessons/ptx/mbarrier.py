"""mbarrier: a barrier in shared memory that counts arrivals and bytes.

A phase ends when as many arrivals came as `mbarrier_init` said and all bytes that were announced with
`expect_tx` have been written.  The barrier then starts its next phase by itself.  Waiters name the parity
of the phase that they wait for, 0, 1, 0, 1, ...: a wait for parity 1 on a fresh barrier returns at once.
"""

from gemm_lessons.ptx.instruction import instruction


@instruction("mbarrier.init.shared::cta.b64 [$0], $1;", "r,r", "void(uint32,uint32)")
def mbarrier_init(ctx, barrier, arrivals):
    """Start phase 0 of a barrier; one thread, then `fence_mbarrier_init` and a block barrier.

    PTX manual: mbarrier.init.
    """


@instruction("fence.mbarrier_init.release.cluster;", "", "void()")
def fence_mbarrier_init(ctx):
    """Show initialised barriers to the copy engine and to the cluster; the thread that initialised.

    PTX manual: membar / fence.
    """


@instruction("mbarrier.arrive.shared::cta.b64 _, [$0];", "r", "void(uint32)")
def mbarrier_arrive(ctx, barrier):
    """Arrive once; any thread.  What it did before is seen by whoever waits for this phase.

    PTX manual: mbarrier.arrive.
    """


@instruction("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r", "void(uint32,uint32)")
def mbarrier_arrive_expect_tx(ctx, barrier, num_bytes):
    """Arrive once and announce bytes that asynchronous copies will write in this phase; any thread.

    PTX manual: mbarrier.arrive, mbarrier.expect_tx.
    """


@instruction(
    "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2; selp.s32 $0, 1, 0, p; }",
    "=r,r,r",
    "int32(uint32,uint32)",
)
def mbarrier_try_wait(ctx, barrier, parity):
    """Wait a while for the phase of this parity to end; any thread.  Returns 1 if it has, else 0.

    PTX manual: mbarrier.try_wait.
    """


@instruction("mbarrier.arrive.shared::cluster.b64 _, [$0];", "r", "void(uint32)")
def mbarrier_arrive_cluster(ctx, barrier):
    """Arrive once at a barrier of any block of the cluster, named by `mapa`; any thread.

    It says that this thread has read, not that others may read what it wrote: that would take the
    .release.cluster form, which waits for all memory of the GPU, or `st_async`, which does not.
    PTX manual: mbarrier.arrive.
    """


@instruction("mbarrier.arrive.expect_tx.shared::cluster.b64 _, [$0], $1;", "r,r", "void(uint32,uint32)")
def mbarrier_arrive_expect_tx_cluster(ctx, barrier, num_bytes):
    """`mbarrier_arrive_expect_tx` at a barrier of any block of the cluster, named by `mapa`; any thread.

    PTX manual: mbarrier.arrive, mbarrier.expect_tx.
    """
