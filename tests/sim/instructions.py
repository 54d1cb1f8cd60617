"""Three instructions that prove the registry: mma.sync, a 128-bit load, an mbarrier with a copy."""

import numpy as np

from gemm_lessons.sim.registry import InstructionError, instruction

# --- mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 --------------------------------------------


def fragment_a(lane):
    """Rows and columns of the eight elements of A that a lane holds."""
    group, pair = divmod(lane, 4)
    return [(group + 8 * (i // 2 % 2), 2 * pair + i % 2 + 8 * (i // 4)) for i in range(8)]


def fragment_b(lane):
    """Rows (of K) and columns of the four elements of B that a lane holds."""
    group, pair = divmod(lane, 4)
    return [(2 * pair + i % 2 + 8 * (i // 2), group) for i in range(4)]


def fragment_c(lane):
    """Rows and columns of the four accumulators that a lane holds."""
    group, pair = divmod(lane, 4)
    return [(group + 8 * (i // 2), 2 * pair + i % 2) for i in range(4)]


@instruction("mma.sync.m16n8k16", scope="warp")
def mma_m16n8k16(ctx, calls):
    """r_c += A @ B, over the whole warp; arguments: local arrays r_a, r_b, r_c."""
    a, b = np.zeros((16, 16), np.float32), np.zeros((16, 8), np.float32)
    c = np.zeros((16, 8), np.float32)
    for lane, (own, (r_a, r_b, r_c)) in enumerate(zip(ctx.lanes, calls, strict=True)):
        for at, value in zip(fragment_a(lane), own.read(r_a), strict=True):
            a[at] = value
        for at, value in zip(fragment_b(lane), own.read(r_b), strict=True):
            b[at] = value
        for at, value in zip(fragment_c(lane), own.read(r_c), strict=True):
            c[at] = value
    c += a @ b
    for lane, (own, (_, _, r_c)) in enumerate(zip(ctx.lanes, calls, strict=True)):
        own.write(r_c, [c[at] for at in fragment_c(lane)])


# --- ld.global.v4.f32 ------------------------------------------------------------------------------


@instruction("ld.global.v4.f32")
def load_v4(ctx, r_out, array, index):
    """Four floats at once, into a local array; the address must be a multiple of 16."""
    ctx.write(r_out, ctx.load(ctx.address(array, index), np.float32, count=4))


# --- mbarrier ----------------------------------------------------------------------------------------


class Mbarrier:
    """The state behind the eight bytes: arrivals and bytes that the phase still waits for."""

    def __init__(self):
        self.count = self.pending = self.bytes = self.phase = 0

    def check(self):
        if self.pending == 0 and self.bytes == 0:
            self.phase += 1
            self.pending = self.count


def _state(ctx, bar):
    return ctx.state(("mbarrier", bar), Mbarrier)


@instruction("mbarrier.init")
def mbarrier_init(ctx, bar, count):
    """Start phase 0 with an arrival count."""
    if bar % 8:
        raise InstructionError("an mbarrier is 8 bytes, aligned to 8.")
    state = _state(ctx, bar)
    state.count = state.pending = count
    ctx.store(bar, np.uint64(count))


def _arrive(ctx, bar, tx_bytes):
    state = _state(ctx, bar)
    ctx.release((bar, state.phase))
    state.bytes += tx_bytes
    state.pending -= 1
    state.check()


@instruction("mbarrier.arrive")
def mbarrier_arrive(ctx, bar):
    """One arrival."""
    _arrive(ctx, bar, 0)


@instruction("mbarrier.arrive.expect_tx")
def mbarrier_arrive_expect(ctx, bar, tx_bytes):
    """One arrival, and so many bytes to wait for."""
    _arrive(ctx, bar, tx_bytes)


@instruction("mbarrier.try_wait.parity")
def mbarrier_wait(ctx, bar, parity):
    """True once the phase with this parity is complete."""
    state = _state(ctx, bar)
    ctx.wait_until(
        lambda: state.phase % 2 != parity,
        lambda: (
            f"mbarrier {bar:#x}, phase parity {parity} ({state.pending} arrivals and {state.bytes} "
            "bytes are missing)"
        ),
    )
    ctx.acquire((bar, state.phase - 1))
    return 1


@instruction("cp.async.bulk")
def bulk_copy(ctx, destination, source, size, bar):
    """Copy bytes from global to shared memory; the mbarrier counts them."""
    if size % 16:
        raise InstructionError("the size of a bulk copy is a multiple of 16.")
    state = _state(ctx, bar)
    phase = state.phase

    def copy(agent):
        agent.store(destination, agent.load(source, np.uint8, size, align=16), align=16)
        agent.release((bar, phase))
        state.bytes -= size
        state.check()

    ctx.later(copy, "the bulk copy")


@instruction("cvta.to.shared")
def shared_address(ctx, array, index):
    """32-bit address in the shared window."""
    return ctx.address(array, index)
