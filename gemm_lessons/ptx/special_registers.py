"""Special registers: where a thread runs, and what time it is."""

from __future__ import annotations

from gemm_lessons.ptx.instruction import instruction


@instruction("mov.u32 $0, %smid;", "=r", "uint32()")
def smid(ctx):
    """The number of the SM that this thread runs on; each thread for itself.

    PTX ISA, "Special Registers: %smid".
    """
    return ctx.sm


@instruction("mov.u64 $0, %globaltimer;", "=l", "uint64()")
def globaltimer(ctx):
    """Nanoseconds since some fixed time, the same clock on all SMs; each thread for itself.

    PTX ISA, "Special Registers: %globaltimer". The GPU advances it in steps, often of about a microsecond
    or 32 ns, so it can tell tiles apart, not instructions.  In the simulator it counts virtual ticks.
    """
    return ctx.ticks()


@instruction("mov.u32 $0, %tid.x;", "=r", "uint32()", memory=False)
def tid_x(ctx):
    """This thread's number in its block along x, read again at every call; each thread for itself.

    PTX ISA, "Special Registers: %tid".  `cuda.threadIdx.x` is the same number, but the compiler knows
    that it never changes, and keeps everything computed from it in registers through a persistent loop:
    60 bytes of them spill in `steps.persistent`, none with this.
    """
    return ctx.thread_idx[0]
