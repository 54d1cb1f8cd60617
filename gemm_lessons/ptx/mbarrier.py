"""mbarrier: a barrier in shared memory that counts arrivals and bytes.

A phase ends when as many arrivals came as `mbarrier_init` said and all bytes that were announced with
`expect_tx` have been written.  The barrier then starts its next phase by itself.  Waiters name the parity
of the phase that they wait for, 0, 1, 0, 1, ...: a wait for parity 1 on a fresh barrier returns at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.sim.registry import Context, InstructionError

MOST_ARRIVALS = MOST_BYTES = 2**20 - 1


class Mbarrier:
    """What the simulator knows behind a barrier's eight bytes."""

    def __init__(self, address: int, cluster: int) -> None:
        self.key = ("mbarrier", cluster, address)
        self.arrivals = 0  # of a phase; 0 until it is initialised
        self.phase = 0
        self.missing_arrivals = 0
        self.missing_bytes = 0  # below 0 while bytes have landed before they were announced
        self.shown = False  # to the copy engine

    def arrive(self, ctx: Context, num_bytes: int = 0) -> None:
        """Count one arrival, and bytes to wait for."""
        if not self.arrivals:
            raise InstructionError("this mbarrier was never initialised.")
        if not self.missing_arrivals:
            raise InstructionError(
                f"this is arrival {self.arrivals + 1} of a phase, and the mbarrier was initialised with"
                f" {self.arrivals}"
            )
        ctx.release((self.key, self.phase))
        self.missing_arrivals -= 1
        self.missing_bytes += num_bytes
        if self.missing_bytes > MOST_BYTES:
            raise InstructionError(f"an mbarrier counts {MOST_BYTES} bytes at most.")
        self._turn()

    def land(self, ctx: Context, num_bytes: int) -> None:
        """Count bytes that an asynchronous copy has written."""
        # why only its own: complete_tx is relaxed, and orders nothing that the thread which started it did
        ctx.release((self.key, self.phase), own=True)
        self.missing_bytes -= num_bytes
        self._turn()

    def _turn(self) -> None:
        if self.missing_arrivals == 0 and self.missing_bytes == 0:
            self.phase += 1
            self.missing_arrivals = self.arrivals


def mbarrier_at(ctx: Context, address: int) -> Mbarrier:
    """The barrier at a window address, in the simulator."""
    address, cluster = int(address), ctx.block // ctx.cluster_size
    if address % 8:
        raise InstructionError("an mbarrier is eight bytes, aligned to eight.")
    barrier: Mbarrier = ctx.state(
        ("mbarrier", cluster, address), lambda: Mbarrier(address, cluster), "launch"
    )
    return barrier


@instruction("mbarrier.init.shared::cta.b64 [$0], $1;", "r,r", "void(uint32,uint32)")
def mbarrier_init(ctx: Any, barrier: Any, arrivals: Any) -> None:
    """Start phase 0 of a barrier; one thread, then `fence_mbarrier_init` and a block barrier.

    PTX manual: mbarrier.init.
    """
    state = mbarrier_at(ctx, barrier)
    if not 1 <= arrivals <= MOST_ARRIVALS:
        raise InstructionError(f"an mbarrier counts 1 to {MOST_ARRIVALS} arrivals, not {arrivals}.")
    ctx.store(int(barrier), np.uint64(arrivals), np.uint64)
    state.arrivals = state.missing_arrivals = int(arrivals)
    state.shown = False
    _initialised(ctx).append(state)


def _initialised(ctx: Context) -> list[Mbarrier]:
    """The barriers that this thread has initialised and not shown."""
    barriers: list[Mbarrier] = ctx.state("new mbarriers", list, "thread")
    return barriers


def show_barriers(ctx: Context) -> None:
    """Show the barriers that this thread has initialised to the copy engine, in the simulator."""
    barriers = _initialised(ctx)
    for state in barriers:
        state.shown = True
    barriers.clear()


def mbarrier_of_copy(ctx: Context, address: int) -> Mbarrier:
    """The barrier that a copy counts its bytes on, in the simulator."""
    state = mbarrier_at(ctx, address)
    if state.arrivals and not state.shown:
        raise InstructionError(
            "the copy engine may not know this mbarrier: after mbarrier_init, the same thread calls"
            " fence_mbarrier_init."
        )
    return state


@instruction("fence.mbarrier_init.release.cluster;", "", "void()")
def fence_mbarrier_init(ctx: Any) -> None:
    """Show initialised barriers to the copy engine and to the cluster; the thread that initialised.

    PTX manual: membar / fence.
    """
    show_barriers(ctx)


@instruction("mbarrier.arrive.shared::cta.b64 _, [$0];", "r", "void(uint32)")
def mbarrier_arrive(ctx: Any, barrier: Any) -> None:
    """Arrive once; any thread.  What it did before is seen by whoever waits for this phase.

    PTX manual: mbarrier.arrive.
    """
    mbarrier_at(ctx, barrier).arrive(ctx)


@instruction("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r", "void(uint32,uint32)")
def mbarrier_arrive_expect_tx(ctx: Any, barrier: Any, num_bytes: Any) -> None:
    """Arrive once and announce bytes that asynchronous copies will write in this phase; any thread.

    PTX manual: mbarrier.arrive, mbarrier.expect_tx.
    """
    mbarrier_at(ctx, barrier).arrive(ctx, int(num_bytes))


@instruction("mbarrier.arrive.shared::cluster.b64 _, [$0];", "r", "void(uint32)")
def mbarrier_arrive_cluster(ctx: Any, barrier: Any) -> None:
    """Arrive once at a barrier of any block of the cluster, named by `mapa`; any thread.

    It says that this thread has read, not that others may read what it wrote: that takes the
    .release.cluster form, which first waits for all memory traffic of the GPU (measured: 40 % of a
    whole GEMM).  PTX manual: mbarrier.arrive.
    """
    mbarrier_at(ctx, barrier).arrive(ctx)


@instruction(
    "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2; selp.s32 $0, 1, 0, p; }",
    "=r,r,r",
    "int32(uint32,uint32)",
)
def mbarrier_try_wait(ctx: Any, barrier: Any, parity: Any) -> int:
    """Wait a while for the phase of this parity to end; any thread.  Returns 1 if it has, else 0.

    PTX manual: mbarrier.try_wait.
    """
    state = mbarrier_at(ctx, barrier)
    if parity not in (0, 1):
        raise InstructionError(f"the parity of a phase is 0 or 1, not {parity}.")
    if not state.arrivals:
        raise InstructionError("this mbarrier was never initialised.")
    ctx.wait_until(
        lambda: state.phase % 2 != parity,
        lambda: (
            f"the mbarrier at offset {int(barrier) & 0x3FFFF} to end a phase of parity {parity}"
            f" ({state.missing_arrivals} arrivals and {state.missing_bytes} bytes are missing)"
        ),
    )
    ctx.acquire((state.key, state.phase - 1))
    return 1
