"""Wrong kernels. Each entry of KERNELS launches one; the simulator must name its kind."""

import math

import numpy as np
from numba import cuda, float32, int32

KERNELS = {}


def wrong(kind, text="", seeds=True):
    """Register a launcher: the kind of its finding, and an expression that the message quotes."""

    def register(launcher):
        KERNELS[launcher.__name__] = (kind, text, seeds, launcher)
        return launcher

    return register


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# --- races in shared memory ---------------------------------------------------------------------


@cuda.jit
def _reverse(x, y):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    y[t] = s[63 - t]


@wrong("race", "s[63 - t]")
def missing_barrier():
    _reverse[1, 64](ones(64), zeros(64))


@cuda.jit
def _second_barrier(x, y):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    for k in range(3):
        s[t] = x[t] + k
        cuda.syncthreads()
        y[t] += s[63 - t]


@wrong("race", "s[t]")
def missing_second_barrier():
    _second_barrier[1, 64](ones(64), zeros(64))


@cuda.jit
def _tile_race(a, b, c):
    s_a = cuda.shared.array((4, 4), float32)
    s_b = cuda.shared.array((4, 4), float32)
    ty, tx = cuda.threadIdx.y, cuda.threadIdx.x
    row, col = cuda.blockIdx.y * 4 + ty, cuda.blockIdx.x * 4 + tx
    acc = float32(0)
    for k in range(0, 8, 4):
        s_a[ty, tx] = a[row, k + tx]
        s_b[ty, tx] = b[k + ty, col]
        cuda.syncthreads()
        for i in range(4):
            acc += s_a[ty, i] * s_b[i, tx]
    c[row, col] = acc


@wrong("race", "s_a[ty, tx]")
def tile_refilled_too_early():
    _tile_race[(2, 2), (4, 4)](ones(8, 8), ones(8, 8), zeros(8, 8))


@cuda.jit
def _one_warp(x, y):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    y[t] = s[t ^ 1]


@wrong("race", "s[t ^ 1]")
def lanes_of_one_warp_without_syncwarp():
    _one_warp[1, 32](ones(32), zeros(32))


@cuda.jit
def _half_syncwarp(x, y):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncwarp()
    y[t] = s[63 - t]


@wrong("race", "s[63 - t]")
def syncwarp_where_two_warps_exchange():
    _half_syncwarp[1, 64](ones(64), zeros(64))


@cuda.jit
def _block_reduce(x, out):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    step = 32
    while step > 0:
        if t < step:
            s[t] += s[t + step]
        step //= 2
    if t == 0:
        out[0] = s[0]


@wrong("race", "s[t + step]")
def reduction_without_barrier_in_the_loop():
    _block_reduce[1, 64](ones(64), zeros(1))


@cuda.jit
def _broadcast_slot(counter, out):
    s_tile = cuda.shared.array(1, int32)
    while True:
        if cuda.threadIdx.x == 0:
            s_tile[0] = cuda.atomic.add(counter, 0, 1)
        cuda.syncthreads()
        tile = s_tile[0]
        if tile >= out.shape[0]:
            break
        if cuda.threadIdx.x == 0:
            out[tile] = tile


@wrong("race", "s_tile[0]")
def ticket_overwritten_while_it_is_read():
    _broadcast_slot[4, 32](zeros(1, dtype=np.int32), zeros(12, dtype=np.int32))


@cuda.jit
def _scan(x):
    s = cuda.shared.array(32, int32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    step = 1
    while step < 32:
        if t >= step:
            s[t] += s[t - step]
        cuda.syncthreads()
        step *= 2
    x[t] = s[t]


@wrong("race", "s[t - step]")
def scan_in_place_reads_what_is_being_written():
    _scan[1, 32](ones(32, dtype=np.int32))


@cuda.jit
def _dynamic_overlap(x, y):
    floats = cuda.shared.array(0, float32)
    ints = cuda.shared.array(0, int32)
    t = cuda.threadIdx.x
    floats[t] = x[t]
    ints[(t + 1) % 32] = t
    cuda.syncthreads()
    y[t] = floats[t]


@wrong("race", "ints[(t + 1) % 32]")
def two_dynamic_arrays_are_the_same_memory():
    _dynamic_overlap[1, 32, 0, 256](ones(32), zeros(32))


@cuda.jit
def _shared_histogram(v, h):
    s = cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    if t < 8:
        s[t] = 0
    cuda.syncthreads()
    s[v[t]] += 1
    cuda.syncthreads()
    if t < 8:
        h[t] = s[t]


@wrong("race", "s[v[t]]")
def shared_histogram_without_atomic():
    _shared_histogram[1, 64](np.arange(64, dtype=np.int32) % 8, zeros(8, dtype=np.int32))


@cuda.jit
def _atomic_then_plain(v, out):
    s = cuda.shared.array(1, int32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(s, 0, v[t])
    if t == 0:
        out[0] = s[0]


@wrong("race", "s[0]")
def plain_read_of_an_atomic_sum_without_barrier():
    _atomic_then_plain[1, 64](ones(64, dtype=np.int32), zeros(1, dtype=np.int32))


@cuda.jit(device=True)
def _put(s, t, value):
    s[t] = value


@cuda.jit
def _in_device_function(x, y):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    _put(s, t, x[t])
    y[t] = s[(t + 40) % 64]


@wrong("race", "s[t]")
def race_inside_a_device_function():
    _in_device_function[1, 64](ones(64), zeros(64))


# --- races in global memory ---------------------------------------------------------------------


@cuda.jit
def _histogram(v, h):
    i = cuda.grid(1)
    if i < v.size:
        h[v[i]] += 1


@wrong("race", "h[v[i]]")
def histogram_without_atomic_in_one_block():
    _histogram[1, 64](np.arange(64, dtype=np.int32) % 5, zeros(5, dtype=np.int32))


@wrong("race", "h[v[i]]")
def histogram_without_atomic_between_blocks():
    _histogram[8, 1](np.arange(8, dtype=np.int32) % 2, zeros(2, dtype=np.int32))


@cuda.jit
def _ticket(counter, done):
    while True:
        tile = counter[0]
        counter[0] = tile + 1
        if tile >= done.size:
            break
        done[tile] += 1


@wrong("race", "counter[0]")
def ticket_without_atomic():
    _ticket[4, 1](zeros(1, dtype=np.int32), zeros(12, dtype=np.int32))


@cuda.jit
def _publish(data, count, out):
    b = cuda.blockIdx.x
    data[b] = b + 1
    if cuda.atomic.add(count, 0, 1) == cuda.gridDim.x - 1:
        total = 0
        for i in range(cuda.gridDim.x):
            total += data[i]
        out[0] = total


@wrong("race", "data[i]")
def last_block_without_fence():
    _publish[4, 1](zeros(4, dtype=np.int32), zeros(1, dtype=np.int32), zeros(1, dtype=np.int32))


@cuda.jit
def _late_fence(data, flag, out):
    if cuda.blockIdx.x == 0:
        cuda.threadfence()
        data[0] = 7
        cuda.atomic.exch(flag, 0, 1)
    else:
        while cuda.atomic.add(flag, 0, 0) == 0:
            pass
        out[0] = data[0]


@wrong("race", "data[0]")
def fence_before_the_data():
    _late_fence[2, 1](zeros(1, dtype=np.int32), zeros(1, dtype=np.int32), zeros(1, dtype=np.int32))


@cuda.jit
def _neighbours(x):
    i = cuda.grid(1)
    if 0 < i < x.size:
        x[i] = x[i - 1] + 1


@wrong("race", "x[i - 1]")
def in_place_stencil():
    _neighbours[2, 32](ones(64))


@cuda.jit
def _all_write(out):
    out[0] = cuda.grid(1)


@wrong("race", "out[0]")
def every_thread_writes_one_element():
    _all_write[2, 32](zeros(1, dtype=np.int32))


@cuda.jit
def _split_k(a, out):
    i, part = cuda.threadIdx.x, cuda.blockIdx.x
    out[i] += a[part, i]


@wrong("race", "out[i]")
def split_k_without_atomic():
    _split_k[4, 32](ones(4, 32), zeros(32))


@cuda.jit
def _copied_row(x, y):
    i = cuda.grid(1)
    row = y[i // 4]
    row[0] = x[i]


@wrong("race", "row[0]")
def threads_share_a_row():
    _copied_row[1, 8](np.arange(8, dtype=np.float32), zeros(2, 4))


@cuda.jit
def _lock(lock, total):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    total[0] += 1
    cuda.atomic.exch(lock, 0, 0)


@wrong("race", "total[0]")
def lock_without_fence():
    _lock[6, 1](zeros(1, dtype=np.int32), zeros(1, dtype=np.int32))


# --- barriers -----------------------------------------------------------------------------------


@cuda.jit
def _early_return(x):
    i = cuda.grid(1)
    if i >= x.size:
        return
    s = cuda.shared.array(64, float32)
    s[cuda.threadIdx.x] = x[i]
    cuda.syncthreads()
    x[i] = s[cuda.threadIdx.x]


@wrong("barrier", "cuda.syncthreads()")
def return_before_a_barrier():
    _early_return[1, 64](ones(50))


@cuda.jit
def _two_branches(x):
    t = cuda.threadIdx.x
    if t < 32:
        x[t] = 1
        cuda.syncthreads()
    else:
        x[t] = 2
        cuda.syncthreads()


@wrong("barrier", "cuda.syncthreads()")
def barriers_in_two_branches():
    _two_branches[1, 64](zeros(64))


@cuda.jit
def _in_branch(x):
    t = cuda.threadIdx.x
    if t < 20:
        cuda.syncthreads()
    x[t] = t


@wrong("barrier", "cuda.syncthreads()")
def barrier_in_a_branch():
    _in_branch[1, 64](zeros(64))


@cuda.jit
def _uneven_loop(x):
    t = cuda.threadIdx.x
    for _ in range(1 + t // 32):
        cuda.syncthreads()
    x[t] = t


@wrong("barrier", "cuda.syncthreads()")
def loop_of_unequal_length():
    _uneven_loop[1, 64](zeros(64))


@cuda.jit
def _uneven_then_another(x):
    t = cuda.threadIdx.x
    for _ in range(1 + t // 32):
        cuda.syncthreads()
    cuda.syncthreads()
    x[t] = t


@wrong("barrier", "cuda.syncthreads()")
def one_group_is_a_barrier_ahead():
    _uneven_then_another[1, 64](zeros(64))


@cuda.jit(device=True)
def _sync_it():
    cuda.syncthreads()


@cuda.jit
def _two_calls(x):
    t = cuda.threadIdx.x
    if t < 32:
        _sync_it()
    else:
        _sync_it()
    x[t] = t


@wrong("barrier", "cuda.syncthreads()")
def one_barrier_reached_through_two_calls():
    _two_calls[1, 64](zeros(64))


# --- indices ------------------------------------------------------------------------------------


@cuda.jit
def _no_guard(x):
    x[cuda.grid(1)] = 1


@wrong("bounds", "x[cuda.grid(1)]")
def no_bounds_test():
    _no_guard[2, 64](zeros(100))


@cuda.jit
def _shift(x, y):
    i = cuda.grid(1)
    y[i] = x[i - 1]


@wrong("bounds", "x[i - 1]")
def negative_index():
    _shift[1, 32](ones(32), zeros(32))


@cuda.jit
def _swapped(x):
    row, col = cuda.grid(2)
    if row < x.shape[0] and col < x.shape[1]:
        x[col, row] = 1


@wrong("bounds", "x[col, row]")
def row_and_column_swapped():
    _swapped[1, (8, 8)](zeros(4, 8))


@cuda.jit
def _shared_too_small(x):
    s = cuda.shared.array(16, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    x[t] = s[t]


@wrong("bounds", "s[t]")
def shared_array_too_small():
    _shared_too_small[1, 32](ones(32))


@cuda.jit
def _dynamic_too_small(x):
    s = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    x[t] = s[t]


@wrong("bounds", "s[t]")
def dynamic_shared_memory_too_small():
    _dynamic_too_small[1, 32, 0, 64](ones(32))


@cuda.jit
def _local_too_small(x):
    r = cuda.local.array(4, float32)
    for i in range(5):
        r[i] = i
    x[0] = r[0]


@wrong("bounds", "r[i]")
def local_array_too_small():
    _local_too_small[1, 1](ones(1))


@cuda.jit
def _atomic_outside(x, h):
    cuda.atomic.add(h, x[cuda.grid(1)], 1)


@wrong("bounds", "cuda.atomic.add(h, x[cuda.grid(1)], 1)")
def atomic_outside():
    _atomic_outside[1, 8](np.arange(8, dtype=np.int32), zeros(7, dtype=np.int32))


@cuda.jit
def _third_axis(w, y):
    i = cuda.grid(1)
    y[i] = w[i // 4, i % 4, i]


@wrong("bounds", "w[i // 4, i % 4, i]")
def third_axis():
    _third_axis[1, 8](ones(2, 4, 4), zeros(8))


# --- memory that nobody has written -------------------------------------------------------------


@cuda.jit
def _unwritten_shared(x):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    if t < 32:
        s[t] = x[t]
    cuda.syncthreads()
    x[t] = s[t]


@wrong("uninitialized", "s[t]")
def tail_of_a_tile_is_not_zeroed():
    _unwritten_shared[1, 64](ones(64))


@cuda.jit
def _unwritten_local(x):
    r = cuda.local.array(4, float32)
    for i in range(4):
        r[i] += x[i]
    x[0] = r[0]


@wrong("uninitialized", "r[i]")
def accumulator_is_not_zeroed():
    _unwritten_local[1, 1](ones(4))


@cuda.jit
def _unwritten_dynamic(x):
    s = cuda.shared.array(0, float32)
    t = cuda.threadIdx.x
    if t:
        s[t] = x[t]
    cuda.syncthreads()
    x[t] = s[t]


@wrong("uninitialized", "s[t]")
def dynamic_memory_is_not_zeroed():
    _unwritten_dynamic[1, 32, 0, 128](ones(32))


@cuda.jit
def _unwritten_counter(x):
    s = cuda.shared.array(1, int32)
    cuda.atomic.add(s, 0, 1)
    cuda.syncthreads()
    x[cuda.threadIdx.x] = s[0]


@wrong("uninitialized", "cuda.atomic.add(s, 0, 1)")
def shared_counter_is_not_zeroed():
    _unwritten_counter[1, 32](zeros(32, dtype=np.int32))


# --- hanging ------------------------------------------------------------------------------------


@cuda.jit
def _no_step(x):
    i = 0
    while i < x.size:
        x[0] = 1


@wrong("endless", "")
def loop_without_a_step():
    _no_step[1, 1](zeros(4))


@cuda.jit
def _pure_loop(x):
    i = 0
    while i < 10:
        pass
    x[0] = i


@wrong("endless", "i < 10")
def loop_that_touches_nothing():
    _pure_loop[1, 1](zeros(1))


@cuda.jit
def _bad_search(offsets, out):
    low, high = 0, offsets.size - 1
    while low < high:
        middle = (low + high) // 2
        if offsets[middle] <= 5:
            low = middle
        else:
            high = middle
    out[0] = low


@wrong("endless", "")
def binary_search_that_never_ends():
    _bad_search[1, 1](np.arange(8, dtype=np.int32), zeros(1, dtype=np.int32))


@cuda.jit
def _wait_for_all(flag, x):
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(flag, 0, 1)
        while cuda.atomic.add(flag, 0, 0) < cuda.gridDim.x:
            pass
    cuda.syncthreads()
    x[cuda.blockIdx.x] = 1


@wrong("deadlock", "cuda.atomic.add(flag, 0, 0)")
def waits_for_blocks_that_cannot_be_resident():
    _wait_for_all[300, 1](zeros(1, dtype=np.int32), zeros(300))


@cuda.jit
def _nobody_sets(flag, x):
    while cuda.atomic.cas(flag, 0, 1, 1) == 0:
        pass
    x[0] = 1


@wrong("deadlock", "cuda.atomic.cas(flag, 0, 1, 1)")
def flag_that_nobody_sets():
    _nobody_sets[1, 1](zeros(1, dtype=np.int32), zeros(1))


@cuda.jit
def _lock_in_block(lock, total):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    total[0] += 1
    cuda.threadfence()
    cuda.syncthreads()
    cuda.atomic.exch(lock, 0, 0)


@wrong("deadlock", "cuda.atomic.cas(lock, 0, 0, 1)")
def barrier_inside_a_lock():
    _lock_in_block[1, 4](zeros(1, dtype=np.int32), zeros(1, dtype=np.int32))


# --- warps --------------------------------------------------------------------------------------


@cuda.jit
def _shuffle_in_branch(x):
    t = cuda.threadIdx.x
    v = x[t]
    if t < 16:
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, 8)
    x[t] = v


@wrong("collective", "cuda.shfl_down_sync(0xFFFFFFFF, v, 8)")
def shuffle_in_a_branch():
    _shuffle_in_branch[1, 32](ones(32))


@cuda.jit
def _not_in_mask(x):
    t = cuda.threadIdx.x
    x[t] = cuda.ballot_sync(0x0000FFFF, t > 3)


@wrong("collective", "cuda.ballot_sync(0x0000FFFF, t > 3)")
def lane_not_in_its_own_mask():
    _not_in_mask[1, 32](zeros(32))


@cuda.jit
def _syncwarp_or_barrier(x):
    t = cuda.threadIdx.x
    if t % 2:
        cuda.syncwarp()
    else:
        cuda.syncthreads()
    x[t] = t


@wrong("collective", "cuda.syncwarp()")
def half_a_warp_at_a_barrier():
    _syncwarp_or_barrier[1, 32](zeros(32))


# --- launches and misuse ------------------------------------------------------------------------


@wrong("launch", "")
def too_many_threads():
    _no_guard[1, 2048](zeros(2048))


@wrong("launch", "")
def grid_of_zero():
    _no_guard[0, 32](zeros(1))


@wrong("launch", "")
def too_much_dynamic_shared_memory():
    _dynamic_too_small[1, 32, 0, 300 * 1024](ones(32))


@cuda.jit
def _huge_static(x):
    s = cuda.shared.array((128, 128), float32)
    s[0, 0] = x[0]
    x[0] = s[0, 0]


@wrong("launch", "cuda.shared.array((128, 128), float32)")
def too_much_static_shared_memory():
    _huge_static[1, 1](ones(1))


@wrong("misuse", "")
def device_function_called_from_the_host():
    _put(zeros(4), 0, 1)


@cuda.jit
def _divide(x, n):
    x[0] = 7 // (n - n)


@wrong("arithmetic", "7 // (n - n)")
def integer_division_by_zero():
    _divide[1, 1](zeros(1, dtype=np.int32), 3)


@cuda.jit
def _float_index(x):
    x[math.floor(cuda.threadIdx.x / 2)] = 1
    x[cuda.threadIdx.x] = 2


@wrong("race", "x[cuda.threadIdx.x]")
def two_statements_without_order():
    _float_index[1, 32](zeros(32))


# --- from other courses -----------------------------------------------------------------------


@cuda.jit
def _zero_then_count(v, h):
    s = cuda.shared.array(8, int32)
    t = cuda.threadIdx.x
    if t < 8:
        s[t] = 0
    cuda.atomic.add(s, v[t], 1)
    cuda.syncthreads()
    if t < 8:
        h[t] = s[t]


@wrong("race", "cuda.atomic.add(s, v[t], 1)")
def counters_zeroed_without_barrier():
    _zero_then_count[1, 64](np.arange(64, dtype=np.int32) % 8, zeros(8, dtype=np.int32))


@cuda.jit
def _read_back(counter, out):
    cuda.atomic.add(counter, 0, 1)
    out[counter[0] - 1] = cuda.grid(1)


@wrong("race", "counter[0]")
def ticket_read_back_without_the_atomic():
    _read_back[4, 8](zeros(1, dtype=np.int32), zeros(32, dtype=np.int32))


@cuda.jit
def _plain_spin(flag, out):
    if cuda.blockIdx.x == 0:
        while flag[0] == 0:
            pass
        out[0] = 1
    else:
        flag[0] = 1


@wrong("race", "flag[0]")
def waiting_by_plain_reads():
    _plain_spin[2, 1](zeros(1, dtype=np.int32), zeros(1))


@cuda.jit
def _reverse_in_place(x):
    i = cuda.grid(1)
    x[x.size - 1 - i] = x[i]


@wrong("race", "x[x.size - 1 - i]")
def reverse_in_place():
    _reverse_in_place[2, 32](np.arange(64, dtype=np.float32))


@cuda.jit
def _barrier_in_guard(a, c):
    s = cuda.shared.array((8, 8), float32)
    x, y = cuda.grid(2)
    if x < a.shape[1] and y < a.shape[0]:
        s[cuda.threadIdx.y, cuda.threadIdx.x] = a[y, x]
        cuda.syncthreads()
        c[y, x] = s[cuda.threadIdx.y, cuda.threadIdx.x]


@wrong("barrier", "cuda.syncthreads()")
def barrier_behind_the_bounds_test():
    _barrier_in_guard[(2, 2), (8, 8)](ones(10, 10), zeros(10, 10))


@cuda.jit
def _never_released(lock, total):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    total[0] += 1


@wrong("deadlock", "cuda.atomic.cas(lock, 0, 0, 1)")
def lock_that_is_never_released():
    _never_released[3, 1](zeros(1, dtype=np.int32), zeros(1, dtype=np.int32))
