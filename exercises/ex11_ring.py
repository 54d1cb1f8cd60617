"""Exercise 11: a ring of stages, filled by a copy engine and emptied by consumers.

What differs from the lesson's kernel: consumers do not multiply but add up, a copy takes the rows that are
there and no others, and the ring goes on from one expert to the next.

    y[expert] = the sum of the expert's rows of x, 0 if it has none     (the gradient of a bias)

    x      [total_tokens, pitch]   float32; pitch is K rounded up to a multiple of 4, so that every row is a
                                   multiple of 16 bytes, which the copy engine needs
    ends   [num_experts]           int32: where each expert's rows end
    y      [num_experts, K]        float32; K is MOST_K at most

An expert's rows are taken in pieces of BM rows; its last piece may have fewer. A block takes the experts
blockIdx.x, blockIdx.x + gridDim.x, ..., and every piece goes through the next stage of its ring:

    piece    0  1  2  3  4  5  6  7          a stage has two barriers:
    stage    0  1  2  0  1  2  0  1          full    its bytes have landed; consumers wait for it
    phase    0  0  0  1  1  1  0  0          empty   everybody has read it; the producer waits for it

    who          threads    what it does with a piece
    producer     1          waits for empty, announces bytes on full, asks for the copy
    consumers    64         wait for full, add the column of each thread, arrive at empty

A barrier counts phases 0, 1, 0, 1, ... `wait(barrier, parity)` returns when the phase of that parity has
ended, and at once for parity 1 on a fresh barrier, as if a phase 1 had ended before. A phase of `full` ends
when its arrivals came *and* as many bytes landed as were announced.

Stage s has the barriers at the addresses full + 8 * s and empty + 8 * s; a deadlock's message calls them
full[s] and empty[s].

Budget: about 32 lines; the grader launches two blocks of 96 threads; one copy for each piece.
"""

from numba import cuda, float32, uint64

from gemm_lessons.ptx.global_memory import address_of
from gemm_lessons.ptx.mbarrier import (
    fence_mbarrier_init,
    mbarrier_arrive,
    mbarrier_arrive_expect_tx,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import shared_address
from gemm_lessons.ptx.tma import cp_async_bulk

BM, STAGES, MOST_K = 4, 3, 64
CONSUMERS = 64
NUM_BARRIERS = 2 * STAGES
STAGE_NUMBERS = BM * MOST_K
STAGE_BYTES = 4 * STAGE_NUMBERS


@cuda.jit(device=True)
def wait(barrier, parity):
    """Wait until the phase of this parity has ended; given."""
    while mbarrier_try_wait(barrier, parity) == 0:
        pass


@cuda.jit(device=True)
def first_of(ends, expert):
    """The first row of an expert; given."""
    if expert == 0:
        return 0
    return ends[expert - 1]


@cuda.jit(device=True)
def next_place(stage, phase):
    """The stage and the phase of the next piece."""
    # >>> fill (about 3 lines)
    return 0, 0
    # <<< fill


@cuda.jit(device=True)
def open_ring(full, empty):
    """Start the barriers of all stages; one thread calls it, and a block barrier follows."""
    # >>> fill (about 4 lines): mbarrier_init(barrier, arrivals of a phase); at the end fence_mbarrier_init()
    pass
    # <<< fill


@cuda.jit(device=True)
def produce(x, ends, ring, full, empty):
    """Send every piece of this block's experts through the ring; one thread.

    Stage s begins at address ring + s * STAGE_BYTES and holds the rows of a piece, one behind the other.
    mbarrier_arrive_expect_tx(barrier, num_bytes) arrives and announces bytes;
    cp_async_bulk(destination, source, num_bytes, barrier) copies them; address_of(x, (row, 0)) is a source.
    """
    # >>> fill (about 10 lines)
    pass
    # <<< fill


@cuda.jit(device=True)
def consume(pitch, ends, s_ring, full, empty, y):
    """Add up every piece of this block's experts; thread t adds column t, if there is one.

    s_ring[s, r * pitch + column] is row r of the piece in stage s. mbarrier_arrive(barrier) arrives.
    """
    # >>> fill (about 13 lines): the same walk as the producer's, with a stage and a phase of its own
    pass
    # <<< fill


@cuda.jit
def ring_kernel(x, ends, y):
    """Deal out the roles; given."""
    s_barriers = cuda.shared.array(NUM_BARRIERS, uint64)
    s_ring = cuda.shared.array((STAGES, STAGE_NUMBERS), float32, alignment=16)
    full = shared_address(s_barriers)
    empty = full + 8 * STAGES
    if cuda.threadIdx.x == 0:
        open_ring(full, empty)
    cuda.syncthreads()
    if cuda.threadIdx.x < CONSUMERS:
        consume(x.shape[1], ends, s_ring, full, empty, y)
    elif cuda.threadIdx.x == CONSUMERS:
        produce(x, ends, shared_address(s_ring), full, empty)
