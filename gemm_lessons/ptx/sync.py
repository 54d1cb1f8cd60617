"""Fences, named barriers, register budgets and clusters."""

from __future__ import annotations

from typing import Any

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.ptx.mbarrier import show_barriers
from gemm_lessons.sim.registry import SHARED_WINDOW, InstructionError


@instruction("fence.proxy.async.shared::cta;", "", "void()")
def fence_proxy_async(ctx: Any) -> None:
    """Show this thread's shared-memory writes to the copy engine and the tensor cores; every writer.

    PTX manual: membar / fence.
    """
    ctx.fence("proxy.async")
    show_barriers(ctx)


@instruction("fence.acq_rel.gpu;", "", "void()")
def fence_acq_rel_gpu(ctx: Any) -> None:
    """Order this thread's memory accesses before it with those after it, for all of the GPU; any thread.

    With an atomic behind it, it hands data to another block; `cuda.threadfence` is the stronger fence.sc,
    which takes longer.  PTX manual: membar / fence.
    """
    ctx.fence("device")


class _NamedBarrier:
    def __init__(self) -> None:
        self.phase = 0
        self.arrived: set[int] = set()


@instruction("bar.sync $0, $1;", "r,r", "void(uint32,uint32)")
def bar_sync(ctx: Any, barrier: Any, num_threads: Any) -> None:
    """Wait for so many threads of the block at named barrier 1 to 15; whole warps.

    PTX manual: bar / barrier.
    """
    if not 1 <= barrier <= 15 or num_threads % 32:
        raise InstructionError("a named barrier has a number from 1 to 15 and waits for whole warps.")
    state = ctx.state(("bar", int(barrier)), _NamedBarrier, "block")
    phase = state.phase
    ctx.release(("bar", ctx.block, int(barrier), phase))
    state.arrived.add(ctx.thread)
    if len(state.arrived) == num_threads:
        state.phase, state.arrived = phase + 1, set()
    ctx.wait_until(
        lambda: state.phase != phase,
        lambda: f"named barrier {barrier}, where {len(state.arrived)} of {num_threads} threads are",
    )
    ctx.acquire(("bar", ctx.block, int(barrier), phase))


def _setmaxnreg(action: str, count: int) -> Any:
    @instruction(f"setmaxnreg.{action}.sync.aligned.u32 {count};", "", "void()", scope="warpgroup")
    def setmaxnreg(ctx: Any, calls: Any) -> None:
        """Give registers back to the block's pool, or wait for more from it; a whole warpgroup.

        PTX manual: setmaxnreg.
        """

    return setmaxnreg


#: setmaxnreg_dec[n](), setmaxnreg_inc[n](): n registers a thread from here on, a multiple of 8.
setmaxnreg_dec = {n: _setmaxnreg("dec", n) for n in range(24, 257, 8)}
setmaxnreg_inc = {n: _setmaxnreg("inc", n) for n in range(24, 257, 8)}


@instruction("mov.u32 $0, %cluster_ctarank;", "=r", "uint32()", memory=False)
def cluster_rank(ctx: Any) -> int:
    """Rank of this block in its cluster, 0 without clusters; any thread.

    PTX manual: %cluster_ctarank.
    """
    rank: int = ctx.cluster_rank
    return rank


@instruction("barrier.cluster.arrive; barrier.cluster.wait;", "", "void()", scope="cluster")
def cluster_sync(ctx: Any, calls: Any) -> None:
    """Wait for all threads of the cluster; all of them.

    PTX manual: barrier.cluster.
    """


@instruction("mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r", "uint32(uint32,uint32)", memory=False)
def mapa(ctx: Any, address: Any, rank: Any) -> int:
    """Window address of the same shared variable in the block of another rank; any thread.

    PTX manual: mapa.
    """
    if not 0 <= rank < ctx.cluster_size:
        raise InstructionError(f"the cluster has {ctx.cluster_size} blocks, and rank {rank} is asked for.")
    return int(address) % SHARED_WINDOW + (int(rank) + 1) * SHARED_WINDOW
