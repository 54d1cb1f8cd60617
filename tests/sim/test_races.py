"""The race detector against an oracle that compares all pairs of accesses."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda, int32

from gemm_lessons import sim

READ, WRITE = 1, 2
NOTHING, SYNCWARP, SYNCTHREADS = range(3)
ACTIVE = (0, 1, 33)  # two threads of the first warp and one of the second
THREADS, BLOCKS, ADDRESSES, SLOTS = 34, 2, 3, 3


@cuda.jit
def interpreter(program, ends, x, use_shared):
    """Each thread executes its column of the program; a phase ends as ``ends`` says."""
    s = cuda.shared.array(ADDRESSES, int32)
    t, b = cuda.threadIdx.x, cuda.blockIdx.x
    if t == 0:
        for i in range(ADDRESSES):
            s[i] = -1
    cuda.syncthreads()
    for phase in range(program.shape[0]):
        for slot in range(SLOTS):
            op = program[phase, b, t, slot, 0]
            at = program[phase, b, t, slot, 1]
            stamp = ((phase * BLOCKS + b) * THREADS + t) * SLOTS + slot
            if op == READ:
                if use_shared:
                    s[at]
                else:
                    x[at]
            elif op == WRITE:
                if use_shared:
                    s[at] = stamp
                else:
                    x[at] = stamp
        if ends[phase] == SYNCWARP:
            cuda.syncwarp()
        elif ends[phase] == SYNCTHREADS:
            cuda.syncthreads()


def has_race(accesses, ends, shared):
    """Whether two accesses conflict and nothing orders them."""
    for one, two in combinations(accesses, 2):
        (phase1, block1, thread1, op1, at1), (phase2, block2, thread2, op2, at2) = one, two
        if at1 != at2 or READ == op1 == op2 or (block1, thread1) == (block2, thread2):
            continue
        if block1 != block2:
            if not shared:
                return True
            continue
        between = [ends[p] for p in range(min(phase1, phase2), max(phase1, phase2))]
        same_warp = thread1 // 32 == thread2 // 32
        if SYNCTHREADS not in between and not (same_warp and SYNCWARP in between):
            return True
    return False


ACCESS = st.tuples(
    st.sampled_from([READ, WRITE]), st.sampled_from(range(BLOCKS)), st.sampled_from(ACTIVE),
    st.integers(0, ADDRESSES - 1),
)  # fmt: skip
PHASE = st.tuples(st.lists(ACCESS, max_size=3), st.sampled_from([NOTHING, SYNCWARP, SYNCTHREADS]))


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(PHASE, min_size=1, max_size=5), st.booleans(), st.integers(0, 3), st.booleans())
def test_a_race_is_reported_exactly_when_there_is_one(phases, shared, seed, cut):
    program = np.zeros((len(phases), BLOCKS, THREADS, SLOTS, 2), np.int32)
    accesses, ends = [], np.array([end for _, end in phases], np.int32)
    for phase, (ops, _) in enumerate(phases):
        used = {}
        for op, block, thread, at in ops:
            slot = used.get((block, thread), 0)
            used[block, thread] = slot + 1
            program[phase, block, thread, slot] = op, at
            accesses.append((phase, block, thread, op, at))
    from gemm_lessons.sim import engine

    x, batch = np.full(ADDRESSES, -1, np.int32), engine.BATCH
    kinds = set()
    with sim.configured(seed=seed):
        try:
            engine.BATCH = 50 if cut else batch
            interpreter[BLOCKS, THREADS](program, ends, x, shared)
        except sim.SimulatorError as error:
            kinds = {finding.kind for finding in error.findings}
        finally:
            engine.BATCH = batch
    assert kinds == ({"race"} if has_race(accesses, ends, shared) else set())


@pytest.mark.parametrize("blocks", [1, 3])
def test_many_threads_with_fences_and_one_counter(blocks):
    @cuda.jit
    def kernel(x, counter, out):
        i = cuda.grid(1)
        x[i] = i
        cuda.threadfence()
        if cuda.atomic.add(counter, 0, 1) == x.size - 1:
            total = 0
            for k in range(x.size):
                total += x[k]
            out[0] = total

    n = blocks * 256
    out = np.zeros(1, np.int64)
    kernel[blocks, 256](np.zeros(n, np.int32), np.zeros(1, np.int32), out)
    assert out[0] == n * (n - 1) // 2
