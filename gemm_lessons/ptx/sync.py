"""Fences, named barriers, register budgets and clusters."""

from gemm_lessons.ptx.instruction import instruction


@instruction("fence.proxy.async.shared::cta;", "", "void()")
def fence_proxy_async(ctx):
    """Show this thread's shared-memory writes to the copy engine and the tensor cores; every writer.

    PTX manual: membar / fence.
    """


@instruction("bar.sync $0, $1;", "r,r", "void(uint32,uint32)")
def bar_sync(ctx, barrier, num_threads):
    """Wait for so many threads of the block at named barrier 1 to 15; whole warps.

    PTX manual: bar / barrier.
    """


def _setmaxnreg(action, count):
    @instruction(f"setmaxnreg.{action}.sync.aligned.u32 {count};", "", "void()")
    def setmaxnreg(ctx):
        """Give registers back to the block's pool, or wait for more from it; a whole warpgroup.

        PTX manual: setmaxnreg.
        """

    return setmaxnreg


#: setmaxnreg_dec[n](), setmaxnreg_inc[n](): n registers a thread from here on, a multiple of 8.
setmaxnreg_dec = {n: _setmaxnreg("dec", n) for n in (24, 32, 40, 56)}
setmaxnreg_inc = {n: _setmaxnreg("inc", n) for n in (224, 232, 240)}


@instruction("mov.u32 $0, %cluster_ctarank;", "=r", "uint32()", memory=False)
def cluster_rank(ctx):
    """Rank of this block in its cluster, 0 without clusters; any thread.

    PTX manual: %cluster_ctarank.
    """


@instruction("barrier.cluster.arrive; barrier.cluster.wait;", "", "void()", scope="cluster")
def cluster_sync(ctx, calls):
    """Wait for all threads of the cluster; all of them.

    PTX manual: barrier.cluster.
    """


@instruction("mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r", "uint32(uint32,uint32)", memory=False)
def mapa(ctx, address, rank):
    """Window address of the same shared variable in the block of another rank; any thread.

    PTX manual: mapa.
    """
