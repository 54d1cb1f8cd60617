"""Instructions through the registry: meaning, checks, order, and what a mistake looks like."""

import numpy as np
import pytest
from numba import cuda, float32, uint8, uint64
from numba.types import float16

from gemm_lessons import sim
from gemm_lessons.sim.registry import SHARED_WINDOW, instruction

from .instructions import (
    bulk_copy,
    fragment_a,
    fragment_b,
    fragment_c,
    load_v4,
    mbarrier_arrive,
    mbarrier_arrive_expect,
    mbarrier_init,
    mbarrier_wait,
    mma_m16n8k16,
    shared_address,
)

FRAGMENT_A = np.array([fragment_a(lane) for lane in range(32)])
FRAGMENT_B = np.array([fragment_b(lane) for lane in range(32)])
FRAGMENT_C = np.array([fragment_c(lane) for lane in range(32)])


def found(kernel, *args, grid=1, block=32, shared=0, **settings):
    """The findings of a launch that must have some."""
    with sim.configured(**settings), pytest.raises(sim.SimulatorError) as caught:
        kernel[grid, block, 0, shared](*args)
    return caught.value.findings


# --- mma.sync ----------------------------------------------------------------------------------------


@cuda.jit
def one_mma(a, b, c, lanes):
    lane = cuda.threadIdx.x
    r_a = cuda.local.array(8, float16)
    r_b = cuda.local.array(4, float16)
    r_c = cuda.local.array(4, float32)
    for i in range(8):
        r_a[i] = a[FRAGMENT_A[lane, i, 0], FRAGMENT_A[lane, i, 1]]
    for i in range(4):
        r_b[i] = b[FRAGMENT_B[lane, i, 0], FRAGMENT_B[lane, i, 1]]
        r_c[i] = 0
    if lane < lanes:
        mma_m16n8k16(r_a, r_b, r_c)
    for i in range(4):
        c[FRAGMENT_C[lane, i, 0], FRAGMENT_C[lane, i, 1]] = r_c[i]


@pytest.mark.parametrize("mode", ["checked", "plain"])
def test_mma_multiplies(mode):
    rng = np.random.default_rng(0)
    a, b = rng.random((16, 16)).astype(np.float16), rng.random((16, 8)).astype(np.float16)
    c = np.zeros((16, 8), np.float32)
    with sim.configured(mode=mode):
        one_mma[1, 32](a, b, c, 32)
    np.testing.assert_allclose(c, a.astype(np.float32) @ b.astype(np.float32), rtol=1e-6)


def test_mma_is_counted_once_for_each_warp():
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    with sim.configured(mode="plain"):
        one_mma[3, 32](a, b, np.zeros((16, 8), np.float32), 32)
    assert sim.last_report().instructions == {mma_m16n8k16.name: 3}


def test_mma_without_all_lanes_is_reported():
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    (finding,) = found(one_mma, a, b, np.zeros((16, 8), np.float32), 16)
    assert finding.kind == "collective"
    assert "mma_m16n8k16(r_a, r_b, r_c)" in finding.message


# --- 128-bit load ----------------------------------------------------------------------------------


@cuda.jit
def copy_v4(x, y, start):
    r = cuda.local.array(4, float32)
    at = 4 * cuda.grid(1) + start
    load_v4(r, x, at)
    for i in range(4):
        y[at + i] = r[i]


def test_wide_load_is_one_request_of_whole_sectors():
    x, y = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    copy_v4[1, 32](x, y, 0)
    np.testing.assert_array_equal(x, y)
    line = sim.last_report().line("load_v4(r, x, at)")
    assert (line.requests, line.sectors) == (1, 16)


def test_misaligned_load_is_reported():
    x = np.zeros(256, np.float32)
    (finding,) = found(copy_v4, x, x.copy(), 1)
    assert finding.kind == "misuse"
    assert "not a multiple of 16" in finding.message


def test_load_past_the_end_is_reported():
    (finding,) = found(copy_v4, np.zeros(100, np.float32), np.zeros(128, np.float32), 0)
    assert finding.kind == "misuse"
    assert "copy_v4" in finding.kernel


@cuda.jit
def wide_race(x, y):
    r = cuda.local.array(4, float32)
    t = cuda.threadIdx.x
    x[t] = t
    load_v4(r, x, 4 * (t // 4))
    y[t] = r[0]


def test_a_wide_load_races_with_each_of_its_elements():
    (finding,) = found(wide_race, np.zeros(32, np.float32), np.zeros(32, np.float32))
    assert finding.kind == "race"
    assert "load_v4(r, x, 4 * (t // 4))" in finding.message


# --- mbarrier and asynchronous copies -----------------------------------------------------------------

STAGES, TILE = 2, 32


@cuda.jit
def pipeline(source, addresses, out, steps, bug):
    """Thread 0 of warp 0 fills a ring of stages; warp 1 uses them."""
    raw = cuda.shared.array(0, uint8)
    tiles = raw[:256].view(float32)
    bars = cuda.shared.array(2 * STAGES, uint64)
    t = cuda.threadIdx.x
    if t == 0:
        for s in range(STAGES):
            mbarrier_init(shared_address(bars, s), 1)
            mbarrier_init(shared_address(bars, STAGES + s), 32)
    cuda.syncthreads()
    if t == 0:
        for k in range(steps):
            s = k % STAGES
            if k >= STAGES:  # bug 1: waits until the stage is full, not until it is empty
                mbarrier_wait(shared_address(bars, s if bug == 1 else STAGES + s), (k // STAGES - 1) % 2)
            mbarrier_arrive_expect(shared_address(bars, s), TILE * 4 + (bug == 3) * 16)
            bulk_copy(
                shared_address(tiles, s * TILE),
                addresses[0] + k * TILE * 4,
                TILE * 4,
                shared_address(bars, s),
            )
    elif t >= 32:
        acc = float32(0)
        for k in range(steps):
            s = k % STAGES
            if bug != 2:
                mbarrier_wait(shared_address(bars, s), k // STAGES % 2)
            acc += tiles[s * TILE + 63 - t]
            mbarrier_arrive(shared_address(bars, STAGES + s))
        out[t - 32] = acc


def run_pipeline(bug=0, seed=0):
    source = cuda.to_device(np.arange(7 * TILE, dtype=np.float32))
    addresses = np.array([sim.address_of(source)])
    out = np.zeros(TILE, np.float32)
    with sim.configured(seed=seed):
        pipeline[1, 64, 0, 256](source, addresses, out, 7, bug)
    return out, source.copy_to_host().reshape(7, TILE).sum(axis=0)[::-1]


@pytest.mark.parametrize("seed", range(6))
def test_pipeline_of_stages_is_right_and_free_of_races(seed):
    out, wanted = run_pipeline(seed=seed)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_stage_refilled_before_it_is_released_is_a_race(seed):
    with pytest.raises(sim.SimulatorError) as caught:
        run_pipeline(bug=1, seed=seed)
    races = [f.message for f in caught.value.findings if f.kind == "race"]
    assert any(
        "the bulk copy of block (0, 0, 0) writes it" in race and "tiles[s * TILE + 63 - t]" in race
        for race in races
    )


@pytest.mark.parametrize("seed", range(4))
def test_reading_a_stage_without_waiting_is_a_race(seed):
    with pytest.raises(sim.SimulatorError) as caught:
        run_pipeline(bug=2, seed=seed)
    assert "race" in [f.kind for f in caught.value.findings]
    assert "uninitialized" not in [f.kind for f in caught.value.findings]


def test_too_many_expected_bytes_are_a_deadlock_that_says_so():
    with pytest.raises(sim.SimulatorError) as caught:
        run_pipeline(bug=3)
    (finding,) = caught.value.findings
    assert finding.kind == "deadlock"
    assert "phase parity 0 (0 arrivals and 16 bytes are missing)" in finding.message


# --- addresses -------------------------------------------------------------------------------------


@cuda.jit
def addresses_of(out):
    dynamic = cuda.shared.array(0, uint8)
    static = cuda.shared.array(4, float32)
    out[0] = shared_address(dynamic, 0)
    out[1] = shared_address(dynamic.view(float32), 3)
    out[2] = shared_address(static, 0)
    out[3] = shared_address(out, 1)


@pytest.mark.parametrize("mode", ["checked", "plain"])
def test_addresses(mode):
    out = cuda.to_device(np.zeros(4, np.int64))
    with sim.configured(mode=mode):
        addresses_of[1, 1, 0, 200 * 1024](out)
    dynamic, third, static, element = out.copy_to_host()
    assert dynamic % 1024 == 0
    assert SHARED_WINDOW <= dynamic < static < 2 * SHARED_WINDOW
    assert third == dynamic + 12
    assert static & 0x3FFFF == static - SHARED_WINDOW  # what a descriptor can hold
    assert element == sim.address_of(out) + 8
    assert sim.address_of(out) % 256 == 0


@instruction("mapa.shared::cluster")
def of_rank(ctx, address, rank):
    return address % SHARED_WINDOW + (rank + 1) * SHARED_WINDOW


@instruction("ld.shared::cluster.f32")
def load_remote(ctx, address):
    return ctx.load(address, np.float32)[0]


@instruction("barrier.cluster", scope="cluster")
def cluster_barrier(ctx, calls):
    return None


@cuda.jit
def neighbours(out, wait):
    s = cuda.shared.array(1, float32)
    s[0] = cuda.blockIdx.x
    if wait:
        cluster_barrier()
    out[cuda.blockIdx.x] = load_remote(of_rank(shared_address(s, 0), 1 - cuda.blockIdx.x % 2))
    cluster_barrier()


def test_blocks_of_a_cluster_read_each_others_shared_memory():
    out = np.zeros(6, np.float32)
    sim.launch(neighbours, 6, 1, (out, True), cluster=2)
    np.testing.assert_array_equal(out, [1, 0, 3, 2, 5, 4])


def test_cluster_without_a_barrier_is_a_race():
    with pytest.raises(sim.SimulatorError) as caught:
        sim.launch(neighbours, 2, 1, (np.zeros(2, np.float32), False), cluster=2)
    assert {f.kind for f in caught.value.findings} <= {"race", "uninitialized"}
    assert "race" in [f.kind for f in caught.value.findings]
