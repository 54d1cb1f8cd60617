"""Right kernels that look suspicious. None may give a false alarm, whatever the seed."""

import math

import numpy as np
from numba import cuda, float32, float64, int32

KERNELS = {}


def right(launcher):
    """Register a launcher; it checks its own result."""
    KERNELS[launcher.__name__] = launcher
    return launcher


def ints(*shape):
    return np.zeros(shape, np.int32)


def floats(*shape):
    return np.zeros(shape, np.float32)


def expect(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


# --- blocks that hand over ----------------------------------------------------------------------


@cuda.jit
def _last_block(x, partial, count, out):
    s = cuda.shared.array(32, float32)
    s_last = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.grid(1)]
    cuda.syncthreads()
    step = 16
    while step:
        if t < step:
            s[t] += s[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        partial[cuda.blockIdx.x] = s[0]
        cuda.threadfence()
        s_last[0] = cuda.atomic.add(count, 0, 1) == cuda.gridDim.x - 1
    cuda.syncthreads()
    if s_last[0] and t == 0:
        total = float32(0)
        for b in range(cuda.gridDim.x):
            total += partial[b]
        out[0] = total


@right
def last_block_reduction():
    x, out = np.arange(128, dtype=np.float32), floats(1)
    _last_block[4, 32](x, floats(4), ints(1), out)
    expect(out, x.sum())


@cuda.jit
def _everybody_fences(y, count, out):
    t, b = cuda.threadIdx.x, cuda.blockIdx.x
    s_last = cuda.shared.array(1, int32)
    y[b, t] = b + t
    cuda.threadfence()
    cuda.syncthreads()
    if t == 0:
        s_last[0] = cuda.atomic.inc(count, 0, cuda.gridDim.x - 1) == cuda.gridDim.x - 1
    cuda.syncthreads()
    if s_last[0]:
        total = 0
        for i in range(cuda.gridDim.x):
            total += y[i, t]
        out[t] = total


@right
def fence_then_barrier_then_one_atomic():
    out = ints(32)
    count = np.zeros(1, np.uint32)
    _everybody_fences[4, 32](ints(4, 32), count, out)
    expect(out, 6 + 4 * np.arange(32))
    assert count[0] == 0


@cuda.jit
def _flag(data, flag, out):
    if cuda.blockIdx.x == 0:
        data[0] = 41
        data[1] = 1
        cuda.threadfence()
        cuda.atomic.exch(flag, 0, 1)
    elif cuda.blockIdx.x == 1:
        while cuda.atomic.add(flag, 0, 0) == 0:
            pass
        out[0] = data[0] + data[1]


@right
def flag_with_fence():
    out = ints(1)
    _flag[2, 1](ints(2), ints(1), out)
    expect(out, 42)


@cuda.jit
def _plain_flag(data, flag, out):
    if cuda.blockIdx.x == 1:
        data[0] = 42
        cuda.threadfence()
        flag[0] = 1
    elif cuda.blockIdx.x == 0:
        while cuda.atomic.cas(flag, 0, 2, 2) == 0:
            pass
        cuda.threadfence()
        out[0] = data[0]


@right
def flag_stored_after_a_fence():
    out = ints(1)
    _plain_flag[2, 1](ints(1), ints(1), out)
    expect(out, 42)


@cuda.jit
def _chain(x, flags, out):
    b = cuda.blockIdx.x
    if b > 0:
        while cuda.atomic.add(flags, b - 1, 0) == 0:
            pass
        cuda.threadfence()
        out[b] = out[b - 1] + x[b]
    else:
        out[0] = x[0]
    cuda.threadfence()
    cuda.atomic.exch(flags, b, 1)


@right
def chained_scan():
    x, out = np.arange(20, dtype=np.int32), ints(20)
    _chain[20, 1](x, ints(20), out)
    expect(out, np.cumsum(x))


@cuda.jit
def _lock(lock, total):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    cuda.threadfence()
    total[0] += 1
    cuda.threadfence()
    cuda.atomic.exch(lock, 0, 0)


@right
def lock_with_fences():
    total = ints(1)
    _lock[6, 4](ints(1), total)
    expect(total, 24)


@cuda.jit
def _software_grid_barrier(x, y, count):
    t, b = cuda.threadIdx.x, cuda.blockIdx.x
    x[b] = b + 1
    if t == 0:
        cuda.threadfence()
        cuda.atomic.add(count, 0, 1)
        while cuda.atomic.add(count, 0, 0) < cuda.gridDim.x:
            pass
    cuda.syncthreads()
    if t == 0:
        y[b] = x[(b + 1) % cuda.gridDim.x]


@right
def software_barrier_of_resident_blocks():
    y = ints(20)
    _software_grid_barrier[20, 1](ints(20), y, ints(1))
    expect(y, (np.arange(20) + 1) % 20 + 1)


@cuda.jit
def _cooperative(x, y):
    i = cuda.grid(1)
    group = cuda.cg.this_grid()
    for _ in range(3):
        if i < x.size:
            y[i] = x[(i + 1) % x.size]
        group.sync()
        if i < x.size:
            x[i] = y[i]
        group.sync()


@right
def grid_sync():
    x = np.arange(100, dtype=np.int32)
    _cooperative[4, 32](x, ints(100))
    expect(x, np.roll(np.arange(100), -3))


# --- work queues --------------------------------------------------------------------------------


@cuda.jit
def _queue(counter, done):
    s_tile = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    while True:
        if t == 0:
            s_tile[0] = cuda.atomic.add(counter, 0, 1)
        cuda.syncthreads()
        tile = s_tile[0]
        cuda.syncthreads()
        if tile >= done.shape[0]:
            break
        done[tile, t] += tile


@right
def persistent_queue():
    done = ints(30, 32)
    _queue[5, 32](ints(1), done)
    expect(done, np.arange(30)[:, None] + ints(30, 32))


@cuda.jit
def _queue_alternating(counter, done):
    s_tile = cuda.shared.array(2, int32)
    t = cuda.threadIdx.x
    side = 0
    while True:
        if t == 0:
            s_tile[side] = cuda.atomic.add(counter, 0, 1)
        cuda.syncthreads()
        tile = s_tile[side]
        side ^= 1
        if tile >= done.shape[0]:
            break
        done[tile, t] = 1


@right
def queue_with_two_slots_and_one_barrier():
    done = ints(30, 64)
    _queue_alternating[3, 64](ints(1), done)
    assert done.all()


@cuda.jit
def _compact(x, count, out):
    i = cuda.grid(1)
    if i < x.size and x[i] % 3 == 0:
        out[cuda.atomic.add(count, 0, 1)] = x[i]


@right
def compaction_by_atomic_index():
    x, count, out = np.arange(100, dtype=np.int32), ints(1), ints(100)
    _compact[4, 32](x, count, out)
    assert sorted(out[: count[0]]) == list(range(0, 100, 3))


# --- warps --------------------------------------------------------------------------------------


@cuda.jit
def _warp_reduce(x, out):
    v = x[cuda.grid(1)]
    for delta in (16, 8, 4, 2, 1):
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, delta)
    if cuda.threadIdx.x % 32 == 0:
        cuda.atomic.add(out, 0, v)


@right
def warp_reduction_by_shuffles():
    x, out = np.arange(128, dtype=np.float32), floats(1)
    _warp_reduce[2, 64](x, out)
    expect(out, x.sum())


@cuda.jit
def _warp_exchange(x, y):
    s = cuda.shared.array(128, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncwarp()
    v = s[t ^ 5]
    cuda.syncwarp()
    s[t] = v + 1
    cuda.syncwarp()
    y[t] = s[t ^ 3]


@right
def warp_synchronous_exchange():
    x, y = np.arange(128, dtype=np.float32), floats(128)
    _warp_exchange[1, 128](x, y)
    expect(y, (np.arange(128) ^ 3 ^ 5) + 1)


@cuda.jit
def _warp_tail_reduction(x, out):
    s = cuda.shared.array(128, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    if t < 64:
        s[t] += s[t + 64]
    cuda.syncthreads()
    if t < 32:
        s[t] += s[t + 32]
        cuda.syncwarp()
        for step in (16, 8, 4, 2, 1):
            v = s[(t + step) % 64]
            cuda.syncwarp()
            s[t] += v
            cuda.syncwarp()
    if t == 0:
        out[0] = s[0]


@right
def last_warp_without_barriers():
    x, out = np.arange(128, dtype=np.float32), floats(1)
    _warp_tail_reduction[1, 128](x, out)
    expect(out, x.sum())


@cuda.jit
def _partial_masks(x):
    t = cuda.threadIdx.x
    if t < 8:
        v = cuda.shfl_xor_sync(0xFF, x[t], 1)
        cuda.syncwarp(0xFF)
        x[t] = v


@right
def shuffle_of_eight_lanes():
    x = np.arange(32, dtype=np.int32)
    _partial_masks[1, 32](x)
    expect(x[:8], np.arange(8) ^ 1)


@cuda.jit
def _aggregated(x, count):
    i = cuda.grid(1)
    if x[i] % 2:
        mask = cuda.activemask()
        leader = cuda.ffs(mask) - 1
        if cuda.laneid == leader:
            cuda.atomic.add(count, 0, cuda.popc(mask))


@right
def warp_aggregated_atomic():
    count = ints(1)
    _aggregated[2, 64](np.arange(128, dtype=np.int32), count)
    expect(count, 64)


@cuda.jit
def _votes(x, out):
    t = cuda.threadIdx.x
    out[0, t] = cuda.all_sync(0xFFFFFFFF, x[t] >= 0)
    out[1, t] = cuda.any_sync(0xFFFFFFFF, x[t] == 7)
    out[2, t] = cuda.popc(cuda.ballot_sync(0xFFFFFFFF, x[t] < 4))
    out[3, t] = cuda.popc(cuda.match_any_sync(0xFFFFFFFF, x[t] % 4))
    out[4, t] = cuda.match_all_sync(0xFFFFFFFF, 5)[1]
    out[5, t] = cuda.eq_sync(0xFFFFFFFF, x[t] == 7)


@right
def votes_and_matches():
    out = ints(6, 32)
    _votes[1, 32](np.arange(32, dtype=np.int32), out)
    expect(out, np.array([1, 1, 4, 8, 1, 0])[:, None] + ints(6, 32))


@cuda.jit
def _partial_warp(x):
    t = cuda.threadIdx.x
    x[t] = cuda.shfl_down_sync(0xFFFFFFFF, x[t], 1)


@right
def full_mask_in_a_block_of_twenty():
    x = np.arange(20, dtype=np.int32)
    _partial_warp[1, 20](x)
    expect(x, [*range(1, 20), 19])


# --- shared memory ------------------------------------------------------------------------------


@cuda.jit
def _same_value(x, found):
    s_any = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s_any[0] = 0
    cuda.syncthreads()
    if x[t] > 3:
        s_any[0] = 1
    cuda.syncthreads()
    found[t] = s_any[0]


@right
def several_threads_store_the_same_value():
    found = ints(64)
    _same_value[1, 64](np.arange(64, dtype=np.int32), found)
    assert found.all()


@cuda.jit
def _double_buffer(x, y):
    s = cuda.shared.array((2, 32), float32)
    t = cuda.threadIdx.x
    s[0, t] = x[0, t]
    cuda.syncthreads()
    acc = float32(0)
    for k in range(x.shape[0]):
        if k + 1 < x.shape[0]:
            s[(k + 1) % 2, t] = x[k + 1, t]
        acc += s[k % 2, 31 - t]
        cuda.syncthreads()
    y[t] = acc


@right
def double_buffer_with_one_barrier():
    x, y = np.arange(160, dtype=np.float32).reshape(5, 32), floats(32)
    _double_buffer[1, 32](x, y)
    expect(y, x.sum(axis=0)[::-1])


@cuda.jit
def _reuse(x, y):
    a = cuda.shared.array(0, float32)
    b = cuda.shared.array(0, int32)
    t = cuda.threadIdx.x
    a[t] = x[t]
    cuda.syncthreads()
    v = a[31 - t]
    cuda.syncthreads()
    b[t] = int(v)
    cuda.syncthreads()
    y[t] = b[31 - t]


@right
def dynamic_memory_used_twice():
    y = ints(32)
    _reuse[1, 32, 0, 128](np.arange(32, dtype=np.float32), y)
    expect(y, np.arange(32))


@cuda.jit(device=True)
def _block_sum(value):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = value
    cuda.syncthreads()
    step = 32
    while step:
        if t < step:
            s[t] += s[t + step]
        cuda.syncthreads()
        step //= 2
    total = s[0]
    cuda.syncthreads()
    return total


@cuda.jit
def _softmax(x, y):
    e = math.exp(x[cuda.blockIdx.x, cuda.threadIdx.x])
    y[cuda.blockIdx.x, cuda.threadIdx.x] = e / _block_sum(e)
    y[cuda.blockIdx.x, cuda.threadIdx.x] *= _block_sum(float32(1)) / 64


@right
def barriers_in_a_device_function_called_twice():
    x, y = np.random.default_rng(0).random((3, 64), dtype=np.float32), floats(3, 64)
    _softmax[3, 64](x, y)
    expect(y, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))


@cuda.jit
def _counts(x, out):
    t = cuda.threadIdx.x
    total = cuda.syncthreads_count(x[t] > 9)
    some = cuda.syncthreads_or(x[t] == 3)
    every = cuda.syncthreads_and(x[t] >= 0)
    out[t] = total * 100 + some * 10 + every


@right
def counting_barriers():
    out = ints(40)
    _counts[1, 40](np.arange(40, dtype=np.int32), out)
    expect(out, 3011)


@cuda.jit
def _uniform_branch(x, n):
    t = cuda.threadIdx.x
    for k in range(n):
        if k % 2:
            cuda.syncthreads()
        else:
            x[t] += 1
            cuda.syncthreads()


@right
def barrier_in_a_branch_that_all_take():
    x = ints(64)
    _uniform_branch[1, 64](x, 5)
    expect(x, 3)


@cuda.jit
def _atomic_histogram(v, h):
    s = cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    if t < 8:
        s[t] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, v[cuda.grid(1)], 1)
    cuda.syncthreads()
    if t < 8:
        cuda.atomic.add(h, t, s[t])


@right
def histogram_with_atomics():
    v = np.arange(256, dtype=np.int32) % 8
    h = ints(8)
    _atomic_histogram[4, 64](v, h)
    expect(h, 32)


@cuda.jit
def _no_change(x, best):
    for i in range(cuda.threadIdx.x, x.size, cuda.blockDim.x):
        cuda.atomic.max(best, 0, x[i])


@right
def atomic_that_seldom_changes_anything():
    best = floats(1)
    _no_change[1, 8](-np.arange(4000, dtype=np.float32), best)
    expect(best, 0)


@cuda.jit
def _early_return_without_barrier(x, n):
    i = cuda.grid(1)
    if i >= n:
        return
    x[i] = i


@right
def early_return_in_a_kernel_without_barriers():
    x = ints(50)
    _early_return_without_barrier[2, 32](x, 50)
    expect(x, np.arange(50))


@cuda.jit
def _ping_pong(a, b, steps):
    t = cuda.threadIdx.x
    n = a.size
    for _ in range(steps):
        b[t] = a[(t + 1) % n]
        cuda.syncthreads()
        a, b = b, a


@right
def ping_pong_in_global_memory():
    a, b = np.arange(64, dtype=np.int32), ints(64)
    _ping_pong[1, 64](a, b, 3)
    expect(b, (np.arange(64) + 3) % 64)


@cuda.jit
def _local_patch(a, b, c):
    r_acc = cuda.local.array((2, 2), float32)
    for i in range(2):
        for j in range(2):
            r_acc[i, j] = 0
    for k in range(a.shape[1]):
        for i in range(2):
            for j in range(2):
                r_acc[i, j] += a[i, k] * b[k, j]
    for i in range(2):
        for j in range(2):
            c[i, j] = r_acc[i, j]


@right
def register_patch():
    rng = np.random.default_rng(0)
    a, b, c = rng.random((2, 9)), rng.random((9, 2)), np.zeros((2, 2))
    _local_patch[1, 1](a, b, c)
    expect(c, a @ b)


_TABLE = np.arange(10, dtype=np.float64) ** 2


@cuda.jit
def _constants(out):
    t = cuda.threadIdx.x
    table = cuda.const.array_like(_TABLE)
    out[t] = table[t] + _TABLE[t]


@right
def constant_arrays():
    out = np.zeros(10)
    _constants[1, 10](out)
    expect(out, 2 * _TABLE)


_PARTICLE = np.dtype([("x", np.float32), ("cell", np.int32), ("v", np.float32, (3,))])


@cuda.jit
def _records(p):
    i = cuda.grid(1)
    if i < p.size:
        p[i].x += p[i].v[1]
        p[i]["cell"] = i
        p.v[i, 2] = 5


@right
def structured_arrays():
    p = np.zeros(10, _PARTICLE)
    p["v"][:, 1] = 2
    _records[1, 32](p)
    expect(p["x"], 2)
    expect(p["cell"], np.arange(10))
    expect(p["v"][:, 2], 5)


@cuda.jit
def _views(x, y):
    i = cuda.grid(1)
    row = x[i]
    part = y[i, 2:6]
    for k in range(part.shape[0]):
        part[k] = row[k] * 2


@right
def rows_and_slices():
    x, y = np.arange(32, dtype=np.float32).reshape(4, 8), floats(4, 8)
    _views[1, 4](x, y)
    expect(y[:, 2:6], 2 * x[:, :4])


@cuda.jit
def _aligned(x):
    s = cuda.shared.array(32, float64, alignment=128)
    r = cuda.local.array(2, float32, alignment=16)
    t = cuda.threadIdx.x
    r[0] = x[t]
    s[t] = r[0]
    cuda.syncthreads()
    x[t] = s[31 - t]


@right
def aligned_arrays():
    x = np.arange(32, dtype=np.float32)
    _aligned[1, 32](x)
    expect(x, np.arange(32)[::-1])


@cuda.jit
def _halves(x, y):
    i = cuda.grid(1)
    y[i] = cuda.fp16.hfma(x[i], x[i], x[i])


@right
def float16():
    x = np.arange(8, dtype=np.float16)
    y = np.zeros(8, np.float16)
    _halves[1, 8](x, y)
    expect(y, x * x + x)


@cuda.jit
def _vectors(x):
    v = cuda.float32x4(1, 2, 3, 4)
    x[0] = v.x + v.w


@right
def vector_types():
    x = floats(1)
    _vectors[1, 1](x)
    expect(x, 5)


@cuda.jit
def _on_a_stream(x):
    i = cuda.grid(1)
    if i < x.size:
        x[i] += 1


@right
def streams_and_forall():
    stream = cuda.stream()
    x = cuda.to_device(ints(100), stream=stream)
    _on_a_stream[4, 32, stream](x)
    _on_a_stream.forall(100, stream=stream)(x)
    stream.synchronize()
    expect(x.copy_to_host(), 2)


# --- from other courses -----------------------------------------------------------------------


@cuda.jit
def _lookback(x, out, status, total, prefix, counter):
    """Decoupled look-back: a scan in one pass, blocks ordered by a ticket."""
    s = cuda.shared.array(32, int32)
    s_block = cuda.shared.array(2, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s_block[0] = cuda.atomic.add(counter, 0, 1)
    cuda.syncthreads()
    b = s_block[0]
    s[t] = x[b * 32 + t]
    cuda.syncthreads()
    step = 1
    while step < 32:
        v = s[t - step] if t >= step else 0
        cuda.syncthreads()
        s[t] += v
        cuda.syncthreads()
        step *= 2
    if t == 0:
        running = 0
        if b > 0:
            total[b] = s[31]
            cuda.threadfence()
            cuda.atomic.exch(status, b, 1)
            j = b - 1
            while True:
                seen = cuda.atomic.add(status, j, 0)
                cuda.threadfence()
                if seen == 2:
                    running += prefix[j]
                    break
                if seen == 1:
                    running += total[j]
                    j -= 1
        prefix[b] = running + s[31]
        cuda.threadfence()
        cuda.atomic.exch(status, b, 2)
        s_block[1] = running
    cuda.syncthreads()
    out[b * 32 + t] = s[t] + s_block[1]


@right
def decoupled_lookback():
    x, out = np.arange(640, dtype=np.int32), ints(640)
    _lookback[20, 32](x, out, ints(20), ints(20), ints(20), ints(1))
    expect(out, np.cumsum(x))


@cuda.jit
def _slot(slot, out, full, empty):
    """Two blocks hand values over through one slot."""
    if cuda.blockIdx.x == 0:
        for k in range(out.size):
            while cuda.atomic.cas(empty, 0, 1, 0) != 1:
                pass
            slot[0] = k * k
            cuda.threadfence()
            cuda.atomic.exch(full, 0, 1)
    else:
        for k in range(out.size):
            while cuda.atomic.cas(full, 0, 1, 0) != 1:
                pass
            out[k] = slot[0]
            cuda.threadfence()
            cuda.atomic.exch(empty, 0, 1)


@right
def one_slot_between_two_blocks():
    out = ints(6)
    _slot[2, 1](ints(1), out, ints(1), np.ones(1, np.int32))
    expect(out, np.arange(6) ** 2)


@cuda.jit
def _flag_in_block(out):
    s_flag = cuda.shared.array(1, int32)
    s_data = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s_flag[0] = 0
    cuda.syncthreads()
    if t == 40:
        s_data[0] = 5
        cuda.threadfence_block()
        cuda.atomic.exch(s_flag, 0, 1)
    if t == 0:
        while cuda.atomic.add(s_flag, 0, 0) == 0:
            pass
        out[0] = s_data[0]


@right
def flag_between_two_warps():
    out = ints(1)
    _flag_in_block[1, 64](out)
    expect(out, 5)


@cuda.jit
def _volatile_flag(data, flag, out):
    if cuda.blockIdx.x == 1:
        data[0] = 3
        cuda.threadfence()
        cuda.atomic.exch(flag, 0, 1)
    else:
        while cuda.ldcv(flag, 0) == 0:
            pass
        out[0] = data[0]


@right
def flag_read_by_a_volatile_load():
    out = ints(1)
    _volatile_flag[2, 1](ints(1), ints(1), out)
    expect(out, 3)


@cuda.jit
def _bitonic(x):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    k = 2
    while k <= 64:
        j = k // 2
        while j > 0:
            other = t ^ j
            if other > t and ((t & k) == 0) == (s[t] > s[other]):
                s[t], s[other] = s[other], s[t]
            cuda.syncthreads()
            j //= 2
        k *= 2
    x[t] = s[t]


@right
def bitonic_sort():
    x = np.random.default_rng(0).random(64, dtype=np.float32)
    wanted = np.sort(x)
    _bitonic[1, 64](x)
    expect(x, wanted)
