"""What the instructions do: the same kernels in the simulator and on a GPU, against NumPy, all lanes.

Inputs are small integers, so that sums are exact and results must be equal, not close.
"""

import ml_dtypes
import numpy as np
import pytest
from numba import cuda, float32, int32, uint8, uint32, uint64

from gemm_lessons import device, tensor_map
from gemm_lessons.launch import Launch, to_device
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.compiling import inlined, whole_kernel
from gemm_lessons.ptx.convert import e4m3_to_f16
from gemm_lessons.ptx.cp_async import (
    cp_async_4,
    cp_async_16,
    cp_async_16_stream,
    cp_async_commit,
    cp_async_wait,
    evict_first,
)
from gemm_lessons.ptx.global_memory import address_of, st_global_v4_f32
from gemm_lessons.ptx.integer import div_u32, late
from gemm_lessons.ptx.matrix import (
    ldmatrix_x4,
    mma_m16n8k8,
    mma_m16n8k16,
    pack_bf16,
    pack_f16,
    stmatrix_x2_trans,
    stmatrix_x4,
    stmatrix_x4_trans,
    unpack,
)
from gemm_lessons.ptx.mbarrier import (
    fence_mbarrier_init,
    mbarrier_arrive_cluster,
    mbarrier_arrive_expect_tx,
    mbarrier_init,
    mbarrier_try_wait,
)
from gemm_lessons.ptx.shared import (
    ld_shared_f32,
    ld_shared_v4,
    shared_address,
    st_global_v4,
    st_shared_f32,
    st_shared_v4,
)
from gemm_lessons.ptx.special_functions import ex2_approx, rcp_approx
from gemm_lessons.ptx.sync import bar_sync, cluster_rank, cluster_sync, fence_proxy_async, mapa
from gemm_lessons.ptx.tma import (
    cp_async_bulk,
    fence_proxy_tensormap,
    tma_load_2d,
    tma_load_2d_multicast,
    tma_prefetch_2d,
    tma_store_2d,
    tma_store_commit,
    tma_store_wait,
)
from gemm_lessons.ptx.wgmma import (
    STEP_K,
    matrix_descriptor,
    wgmma_bf16,
    wgmma_commit,
    wgmma_e4m3,
    wgmma_e4m3_begin,
    wgmma_fence,
    wgmma_wait,
)
from gemm_lessons.tensor_map import Box

if device.choose().compute_capability[0] != 9:
    pytest.skip("NOT RUN: these instructions need compute capability 9.0", allow_module_level=True)

pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
wait_all_copies, wait_all_stores, wait_all_products = cp_async_wait[0], tma_store_wait[0], wgmma_wait[0]


def integers(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype({**DTYPES, "float8_e4m3fn": E4M3}[dtype])


def zeros(shape, dtype=np.uint32):
    return to_device(np.zeros(shape, dtype))


# --- fragments ---------------------------------------------------------------------------------------


def make_mma(dtype, shape):
    mma = (mma_m16n8k16 if shape == 16 else mma_m16n8k8)[dtype]

    @cuda.jit
    def full_step(a, b, c, d):
        t = cuda.threadIdx.x
        d[t, 0], d[t, 1], d[t, 2], d[t, 3] = mma(
            a[t, 0], a[t, 1], a[t, 2], a[t, 3], b[t, 0], b[t, 1], c[t, 0], c[t, 1], c[t, 2], c[t, 3]
        )

    @cuda.jit
    def half_step(a, b, c, d):
        t = cuda.threadIdx.x
        d[t, 0], d[t, 1], d[t, 2], d[t, 3] = mma(
            a[t, 0], a[t, 1], b[t, 0], c[t, 0], c[t, 1], c[t, 2], c[t, 3]
        )

    return full_step if shape == 16 else half_step


@pytest.mark.parametrize(("dtype", "K"), [("float16", 16), ("bfloat16", 16), ("float16", 8)])
def test_mma(dtype, K):
    a, b = integers((16, K), dtype, 1), integers((8, K), dtype, 2)
    c = integers((16, 8), dtype, 3).astype(np.float32)
    words_a, words_b, words_c = np.zeros((32, K // 4), np.uint32), np.zeros((32, K // 8), np.uint32), c.copy()
    r_c = np.zeros((32, 4), np.float32)
    wanted = np.zeros((32, 4), np.float32)
    d = words_c + a.astype(np.float32) @ b.astype(np.float32).T
    for t in range(32):
        row, pair = t // 4, 2 * (t % 4)
        for i in range(K // 4):
            words_a[t, i] = a[row + 8 * (i % 2), pair + 8 * (i // 2) :][:2].copy().view(np.uint32)[0]
        for i in range(K // 8):
            words_b[t, i] = b[row, pair + 8 * i :][:2].copy().view(np.uint32)[0]
        for i in range(4):
            r_c[t, i] = c[row + 8 * (i // 2), pair + i % 2]
            wanted[t, i] = d[row + 8 * (i // 2), pair + i % 2]
    got = zeros((32, 4), np.float32)
    Launch(make_mma(dtype, K), 1, 32, (to_device(words_a), to_device(words_b), to_device(r_c), got))()
    np.testing.assert_array_equal(got.copy_to_host(), wanted)


@cuda.jit
def load_and_store_tiles(source, words, target):
    s_tiles = cuda.shared.array(
        (32, 8), uint32, alignment=16
    )  # four tiles, a row of eight values in 16 bytes
    t = cuda.threadIdx.x
    for i in range(4):
        s_tiles[t, i] = source[t, i]
    cuda.syncwarp()
    a, b, c, d = ldmatrix_x4(shared_address(s_tiles) + t * 32)
    words[t, 0], words[t, 1], words[t, 2], words[t, 3] = a, b, c, d
    cuda.syncwarp()
    stmatrix_x4_trans(shared_address(s_tiles) + t * 32, a, b, c, d)
    cuda.syncwarp()
    for i in range(4):
        target[t, i] = s_tiles[t, i]


def test_ldmatrix_and_stmatrix():
    tiles = np.random.default_rng(4).integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    words, target = zeros((32, 4)), zeros((32, 4))
    source = to_device(tiles.reshape(32, 8).view(np.uint32))
    Launch(load_and_store_tiles, 1, 32, (source, words, target))()
    got = words.copy_to_host()
    for t in range(32):
        for i in range(4):
            assert got[t, i] == tiles[i, t // 4, 2 * (t % 4) :][:2].copy().view(np.uint32)[0]
    stored = target.copy_to_host().view(np.uint16).reshape(4, 8, 8)
    np.testing.assert_array_equal(stored, tiles.transpose(0, 2, 1))


@cuda.jit
def store_tiles(words, target):
    s_tiles = cuda.shared.array((32, 4), uint32, alignment=16)
    t = cuda.threadIdx.x
    stmatrix_x4(shared_address(s_tiles) + t * 16, words[t, 0], words[t, 1], words[t, 2], words[t, 3])
    cuda.syncwarp()
    for i in range(4):
        target[t, i] = s_tiles[t, i]


def test_stmatrix_as_it_is():
    tiles = np.random.default_rng(8).integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    words = np.array(
        [[tiles[i, t // 4, 2 * (t % 4) :][:2].copy().view(np.uint32)[0] for i in range(4)] for t in range(32)]
    )
    target = zeros((32, 4))
    Launch(store_tiles, 1, 32, (to_device(words), target))()
    np.testing.assert_array_equal(target.copy_to_host().view(np.uint16).reshape(4, 8, 8), tiles)


@cuda.jit
def through_shared_memory(values, numbers, out, out_numbers):
    s_values = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    st_shared_f32(shared_address(s_values) + t * 4, values[t])
    cuda.syncwarp()
    out[t] = ld_shared_f32(shared_address(s_values) + (31 - t) * 4)
    out_numbers[t] = late(numbers[t])


def test_floats_through_shared_memory_and_numbers_that_stay_themselves():
    values = np.random.default_rng(9).standard_normal(32).astype(np.float32)
    numbers = np.random.default_rng(10).integers(-(2**31), 2**31, 32).astype(np.int32)
    out, out_numbers = zeros(32, np.float32), zeros(32, np.int32)
    Launch(through_shared_memory, 1, 32, (to_device(values), to_device(numbers), out, out_numbers))()
    np.testing.assert_array_equal(out.copy_to_host(), values[::-1])
    np.testing.assert_array_equal(out_numbers.copy_to_host(), numbers)


@cuda.jit
def store_two_tiles(words, target):
    s_tiles = cuda.shared.array((16, 4), uint32, alignment=16)
    t = cuda.threadIdx.x
    stmatrix_x2_trans(shared_address(s_tiles) + (t & 15) * 16, words[t, 0], words[t, 1])
    cuda.syncwarp()
    if t < 16:
        for i in range(4):
            target[t, i] = s_tiles[t, i]


def test_stmatrix_of_two_tiles():
    tiles = np.random.default_rng(6).integers(0, 1 << 16, (2, 8, 8)).astype(np.uint16)
    words = np.array(
        [[tiles[i, t // 4, 2 * (t % 4) :][:2].copy().view(np.uint32)[0] for i in range(2)] for t in range(32)]
    )
    target = zeros((16, 4))
    Launch(store_two_tiles, 1, 32, (to_device(words), target))()
    stored = target.copy_to_host().view(np.uint16).reshape(2, 8, 8)
    np.testing.assert_array_equal(stored, tiles.transpose(0, 2, 1))


@cuda.jit
def special_functions(values, out):
    t = cuda.threadIdx.x
    out[t, 0] = ex2_approx(values[t])
    out[t, 1] = rcp_approx(values[t])


def test_special_functions_are_close_and_flush():
    rng = np.random.default_rng(7)
    values = rng.uniform(-100, 100, 32).astype(np.float32)
    values[:8] = (0.0, -0.0, np.inf, -np.inf, 200.0, -200.0, np.nan, 1e-40)
    out = zeros((32, 2), np.float32)
    Launch(special_functions, 1, 32, (to_device(values), out))()
    got = out.copy_to_host()
    with np.errstate(all="ignore"):
        wanted = np.stack([np.exp2(values.astype(np.float64)), 1 / values.astype(np.float64)], 1)
    wanted[5, 0], wanted[7, 1] = 0.0, np.inf  # subnormal results and inputs count as zero
    wanted[4, 0] = np.inf  # above the largest float32
    np.testing.assert_allclose(got, wanted, rtol=2.0**-21)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unpacking(dtype):
    unpack_pair = unpack[dtype]

    @cuda.jit
    def unpack_words(words, out):
        t = cuda.threadIdx.x
        out[t, 0], out[t, 1] = unpack_pair(words[t])

    values = np.random.default_rng(8).standard_normal((32, 2)).astype(DTYPES[dtype])
    out = zeros((32, 2), np.float32)
    Launch(unpack_words, 1, 32, (to_device(values.view(np.uint32)[:, 0]), out))()
    np.testing.assert_array_equal(out.copy_to_host(), values.astype(np.float32))


@cuda.jit
def halve_words(words, out):
    t = cuda.threadIdx.x
    out[t] = as_word(as_float32(words[t]) * float32(0.5))


def test_bits_and_floats():
    values = np.random.default_rng(9).standard_normal(32).astype(np.float32)
    out = zeros(32)
    Launch(halve_words, 1, 32, (to_device(values.view(np.uint32)), out))()
    np.testing.assert_array_equal(out.copy_to_host().view(np.float32), values / 2)


@cuda.jit
def arithmetic(values, numbers, out):
    t = cuda.threadIdx.x
    out[t, 0] = pack_bf16(values[t, 0], values[t, 1])
    out[t, 1] = pack_f16(values[t, 0], values[t, 1])
    out[t, 2] = div_u32(numbers[t, 0], numbers[t, 1])


def test_packing_and_division():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((32, 2)).astype(np.float32)
    numbers = rng.integers(1, 1 << 31, (32, 2)).astype(np.uint32)
    numbers[::2, 1] %= 1000
    numbers[:, 1] += 1
    out = zeros((32, 3))
    Launch(arithmetic, 1, 32, (to_device(values), to_device(numbers), out))()
    got = out.copy_to_host()
    for i, dtype in enumerate((ml_dtypes.bfloat16, np.float16)):
        np.testing.assert_array_equal(got[:, i], values.astype(dtype).view(np.uint32)[:, 0])
    np.testing.assert_array_equal(got[:, 2], numbers[:, 0] // numbers[:, 1])


# --- asynchronous copies ------------------------------------------------------------------------------


@cuda.jit
def copy_pieces(source, out):
    s_pieces = cuda.shared.array((32, 4), uint32, alignment=16)
    t = cuda.threadIdx.x
    target = shared_address(s_pieces) + t * 16
    st_shared_v4(target, 7, 7, 7, 7)
    cp_async_16(target, address_of(source, (t, 0)), 16 if t % 3 else 0)
    cp_async_commit()
    wait_all_copies()
    a, b, c, d = ld_shared_v4(target)
    st_global_v4(address_of(out, (t, 0)), a, b, c, d)


def test_cp_async_copies_or_clears():
    source = np.random.default_rng(6).integers(0, 1 << 32, (32, 4), dtype=np.uint32)
    out = zeros((32, 4))
    Launch(copy_pieces, 1, 32, (to_device(source), out))()
    np.testing.assert_array_equal(out.copy_to_host(), np.where(np.arange(32)[:, None] % 3, source, 0))


@cuda.jit
def copy_words_and_streams(source, words, out):
    s_pieces = cuda.shared.array((32, 4), uint32, alignment=16)
    t = cuda.threadIdx.x
    target = shared_address(s_pieces) + t * 16
    st_shared_v4(target, 7, 7, 7, 7)
    cp_async_16_stream(target, address_of(source, (t, 0)), 16 if t % 5 else 0, evict_first())
    cp_async_commit()
    wait_all_copies()
    cp_async_4(target + 8, address_of(words, (t,)), 4 if t % 3 else 0)
    cp_async_commit()
    wait_all_copies()
    first = ld_shared_f32(target)
    third = ld_shared_f32(target + 8)
    st_global_v4_f32(
        address_of(out, (t, 0)), first, ld_shared_f32(target + 4), third, ld_shared_f32(target + 12)
    )


def test_streams_of_pieces_and_words_of_floats():
    source = np.random.default_rng(9).standard_normal((32, 4)).astype(np.float32)
    words = np.random.default_rng(10).standard_normal(32).astype(np.float32)
    out = zeros((32, 4), np.float32)
    Launch(copy_words_and_streams, 1, 32, (to_device(source.view(np.uint32)), to_device(words), out))()
    t = np.arange(32)
    want = np.where(t[:, None] % 5, source, 0)
    want[:, 2] = np.where(t % 3, words, 0)
    np.testing.assert_array_equal(out.copy_to_host(), want)


@cuda.jit
def all_codes(words, out):
    t = cuda.threadIdx.x
    out[t, 0], out[t, 1] = e4m3_to_f16(words[t])


def test_every_e4m3_is_a_float16():
    codes = np.arange(256, dtype=np.uint8)
    out = zeros((64, 2))
    Launch(all_codes, 1, 64, (to_device(codes.view(np.uint32)), out))()
    got = out.copy_to_host().view(np.float16).reshape(-1)
    want = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float16)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))


BOX_ROWS, BOX_BYTES = 16, 16 * 128


@cuda.jit
def move_boxes(maps, column, row, out):
    """Load a box, show how it lies in shared memory, and store it where the second map says.

    A load may start above the array; a store that does is an illegal instruction.
    """
    s_raw = cuda.shared.array(0, uint8)
    s_barrier = cuda.shared.array(1, uint64)
    t = cuda.threadIdx.x
    barrier, box = shared_address(s_barrier), (shared_address(s_raw) + 1023) & -1024
    if t == 0:
        mbarrier_init(barrier, 1)
        fence_mbarrier_init()
        for i in range(maps.shape[0]):
            fence_proxy_tensormap(address_of(maps, (i, 0)))
    cuda.syncthreads()
    if t == 0:
        mbarrier_arrive_expect_tx(barrier, BOX_BYTES)
        tma_load_2d(box, address_of(maps, (0, 0)), column, row, barrier)
    while mbarrier_try_wait(barrier, 0) == 0:
        pass
    for piece in range(t, BOX_BYTES // 16, 32):
        a, b, c, d = ld_shared_v4(box + piece * 16)
        st_global_v4(address_of(out, (piece, 0)), a, b, c, d)
    fence_proxy_async()
    bar_sync(1, 32)
    if t == 0:
        tma_store_2d(address_of(maps, (1, 0)), column, max(row, 0), box)
        tma_store_commit()
        wait_all_stores()


@pytest.mark.parametrize(("column", "row"), [(0, 0), (64, 8), (72, 0), (0, 24), (0, -3), (64, 24), (128, 0)])
def test_tma_loads_and_stores_what_lies_inside(column, row):
    source = integers((32, 104), "bfloat16", 7)
    target = to_device(np.full((32, 104), 99, source.dtype))
    kept = to_device(source)  # why: a map holds an address only, and does not keep the array alive
    maps = tensor_map.encode([(kept, Box(BOX_ROWS)), (target, Box(BOX_ROWS))])
    out = zeros((BOX_BYTES // 16, 4))
    Launch(move_boxes, 1, 32, (maps, np.int32(column), np.int32(row), out), shared_bytes=4096)()
    padded = np.zeros((64, 256), source.dtype)
    padded[8:40, :104] = source
    box = padded[8 + row : 8 + row + BOX_ROWS, column : column + 64]
    pieces = np.ascontiguousarray(box).view(np.uint32).reshape(BOX_ROWS, 8, 4)
    swizzled = np.empty_like(pieces)
    for i in range(BOX_ROWS):
        for piece in range(8):
            swizzled[i, piece ^ i % 8] = pieces[i, piece]
    np.testing.assert_array_equal(out.copy_to_host(), swizzled.reshape(-1, 4))
    wanted = np.full((64, 256), 99, source.dtype)
    wanted[max(row, 0) :][:BOX_ROWS, column : column + 64] = box
    wanted = np.ascontiguousarray(wanted[:32, :104])
    got = target.view(np.uint16).copy_to_host()
    np.testing.assert_array_equal(got, wanted.view(np.uint16))


@cuda.jit
def load_plain_box(maps, column, row, out):
    """Load a box of 2 rows and 36 columns as it is, and write it out."""
    s_raw = cuda.shared.array(0, uint8)
    s_barrier = cuda.shared.array(1, uint64)
    t = cuda.threadIdx.x
    barrier, box = shared_address(s_barrier), uint32((shared_address(s_raw) + 127) & -128)
    if t == 0:
        mbarrier_init(barrier, 1)
        fence_mbarrier_init()
        for i in range(maps.shape[0]):
            fence_proxy_tensormap(address_of(maps, (i, 0)))
        mbarrier_arrive_expect_tx(barrier, 2 * 36 * 4)
        tma_load_2d(box, address_of(maps, (0, 0)), column, row, barrier)
    cuda.syncthreads()
    while mbarrier_try_wait(barrier, 0) == 0:
        pass
    for i in range(t, 2 * 36, 32):
        out[i] = ld_shared_f32(uint32(box + 4 * i))


@pytest.mark.parametrize(("column", "row"), [(0, 0), (4, 1), (24, 2), (-4, 0)])
def test_a_box_without_a_swizzle_is_loaded_as_it_is(column, row):
    source = np.arange(1, 3 * 44 + 1, dtype=np.float32).reshape(3, 44)
    kept, out = to_device(source), to_device(np.full(2 * 36, -1, np.float32))
    maps = tensor_map.encode([(kept, Box(2, 36))])
    Launch(load_plain_box, 1, 32, (maps, np.int32(column), np.int32(row), out), shared_bytes=1024)()
    padded = np.zeros((8, 96), np.float32)
    padded[:3, 16:60] = source
    wanted = padded[row : row + 2, column + 16 : column + 52]
    np.testing.assert_array_equal(out.copy_to_host().reshape(2, 36), wanted)


@cuda.jit
def copy_bytes(source, first, num_bytes, out):
    """Copy bytes of a row of words to shared memory, and write them out."""
    s_words = cuda.shared.array(32, float32, alignment=16)
    s_barrier = cuda.shared.array(1, uint64)
    t, barrier = cuda.threadIdx.x, shared_address(s_barrier)
    if t == 0:
        mbarrier_init(barrier, 1)
        fence_mbarrier_init()
        mbarrier_arrive_expect_tx(barrier, num_bytes)
        cp_async_bulk(shared_address(s_words), address_of(source, (first,)), num_bytes, barrier)
    cuda.syncthreads()
    while mbarrier_try_wait(barrier, 0) == 0:
        pass
    if 4 * t < num_bytes:
        out[t] = s_words[t]


def test_bytes_in_a_row_are_copied():
    source, out = to_device(np.arange(64, dtype=np.float32)), to_device(np.full(32, -1, np.float32))
    Launch(copy_bytes, 1, 32, (source, np.int32(8), np.int32(80), out))()
    np.testing.assert_array_equal(out.copy_to_host(), [*range(8, 28), *[-1] * 12])


def test_a_map_that_lies_where_another_one_lay_is_read_anew():
    sources = [np.full((3, 44), value, np.float32) for value in range(1, 21)]
    kept, out = [to_device(source) for source in sources], to_device(np.zeros(2 * 36, np.float32))
    maps = [tensor_map.encode([(source, Box(2, 36))]) for source in kept]
    launch = Launch(load_plain_box, 1, 32, (maps[0], np.int32(0), np.int32(0), out), shared_bytes=1024)
    for value, other in enumerate(maps, 1):
        maps[0].copy_to_device(other.copy_to_host())
        launch()
        assert (out.copy_to_host() == value).all()


@cuda.jit
def share_a_box(maps, out, readers):
    """Rank 0 loads a box into both blocks of its cluster, and waits until both have read it."""
    s_raw = cuda.shared.array(0, uint8)
    s_barriers = cuda.shared.array(2, uint64)
    t = cuda.threadIdx.x
    barrier, box = shared_address(s_barriers), (shared_address(s_raw) + 1023) & -1024
    was_read = uint32(barrier + 8)
    if t == 0:
        mbarrier_init(barrier, 1)
        mbarrier_init(was_read, 2)
        fence_mbarrier_init()
        for i in range(maps.shape[0]):
            fence_proxy_tensormap(address_of(maps, (i, 0)))
        mbarrier_arrive_expect_tx(barrier, BOX_BYTES)
    cluster_sync()
    if t == 0 and cluster_rank() == 0:
        tma_prefetch_2d(address_of(maps, (0, 0)), 0, 0)
        tma_load_2d_multicast(box, address_of(maps, (0, 0)), 0, 0, barrier, 3)
    while mbarrier_try_wait(barrier, 0) == 0:
        pass
    a, b, c, d = ld_shared_v4(box + t * 16)
    st_global_v4(address_of(out, (cuda.blockIdx.x, t, 0)), a, b, c, d)
    cuda.syncwarp()
    if t == 0:
        mbarrier_arrive_cluster(mapa(was_read, 0))
        if cluster_rank() == 0:
            while mbarrier_try_wait(was_read, 0) == 0:
                pass
            readers[cuda.blockIdx.x] = 2
    cluster_sync()


def test_tma_multicast_reaches_every_block_of_the_cluster():
    source = integers((16, 64), "bfloat16", 8)
    kept = to_device(source)
    maps = tensor_map.encode([(kept, Box(BOX_ROWS))])
    out, readers = zeros((4, 32, 4)), to_device(np.zeros(4, np.int32))
    Launch(share_a_box, 4, 32, (maps, out, readers), shared_bytes=4096, cluster=2)()
    assert readers.copy_to_host().tolist() == [2, 0, 2, 0], "ranks 0 were told that both had read"
    first_rows = np.ascontiguousarray(source[:4]).view(np.uint32).reshape(4, 8, 4)
    for block in out.copy_to_host().reshape(4, 4, 8, 4):
        for row in range(4):
            np.testing.assert_array_equal(block[row, np.arange(8) ^ row], first_rows[row])


# --- wgmma --------------------------------------------------------------------------------------------


def make_wgmma(n, multiply, begin):
    num_accumulators, a_bytes, b_bytes = n // 2, 64 * 128, n * 128

    @whole_kernel(128)
    def multiply_tiles(maps, out):
        s_raw = cuda.shared.array(0, uint8)
        s_barrier = cuda.shared.array(1, uint64)
        acc = cuda.local.array(num_accumulators, float32)
        t = int32(cuda.threadIdx.x)
        barrier, tiles = shared_address(s_barrier), uint32((shared_address(s_raw) + 1023) & -1024)
        if t == 0:
            mbarrier_init(barrier, 1)
            fence_mbarrier_init()
            for i in range(maps.shape[0]):
                fence_proxy_tensormap(address_of(maps, (i, 0)))
        cuda.syncthreads()
        if t == 0:
            mbarrier_arrive_expect_tx(barrier, a_bytes + b_bytes)
            tma_load_2d(tiles, address_of(maps, (0, 0)), 0, 0, barrier)
            tma_load_2d(tiles + a_bytes, address_of(maps, (1, 0)), 0, 0, barrier)
        while mbarrier_try_wait(barrier, 0) == 0:
            pass
        a, b = matrix_descriptor(tiles), matrix_descriptor(tiles + a_bytes)
        for i in range(num_accumulators):
            acc[i] = float32(3)  # what a sum must not begin with
        wgmma_fence()
        begin(acc, a, b)
        for k in range(1, 4):
            multiply(acc, a + uint64(k * STEP_K), b + uint64(k * STEP_K), k)
        wgmma_commit()
        wait_all_products()
        for i in range(num_accumulators):
            out[t, i] = acc[i]

    return multiply_tiles


def made_of_no_addition(multiply):
    @inlined
    def begin(acc, a, b):
        multiply(acc, a, b, 0)

    return begin


KINDS = {
    "bf16": ("bfloat16", 64, wgmma_bf16, None),
    "e4m3": ("float8_e4m3fn", 128, wgmma_e4m3, None),
    "e4m3, begun": ("float8_e4m3fn", 128, wgmma_e4m3, wgmma_e4m3_begin),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [8, 16, 104, 256])
def test_wgmma(n, kind):
    dtype, K, multiply, begin = KINDS[kind]
    a, b = integers((64, K), dtype, 9), integers((n, K), dtype, 10)
    kept = [to_device(tile.view(np.uint8) if K == 128 else tile) for tile in (a, b)]
    maps = tensor_map.encode([(kept[0], Box(64)), (kept[1], Box(n))])
    out = zeros((128, n // 2), np.float32)
    kernel = make_wgmma(n, multiply[n], begin[n] if begin else made_of_no_addition(multiply[n]))
    Launch(kernel, 1, 128, (maps, out), shared_bytes=1024 + (64 + n) * 128)()
    product = a.astype(np.float32) @ b.astype(np.float32).T
    wanted = np.empty((128, n // 2), np.float32)
    for t in range(128):
        row, column = 16 * (t // 32) + t % 32 // 4, 2 * (t % 4)
        for j in range(n // 8):
            wanted[t, 4 * j : 4 * j + 2] = product[row, 8 * j + column :][:2]
            wanted[t, 4 * j + 2 : 4 * j + 4] = product[row + 8, 8 * j + column :][:2]
    np.testing.assert_array_equal(out.copy_to_host(), wanted)


def test_wgmma_reads_every_e4m3_but_nan():
    codes = np.arange(256, dtype=np.uint8).reshape(64, 4)
    a, b = np.zeros((64, 128), np.uint8), np.zeros((8, 128), np.uint8)
    a[:, ::32] = np.where(codes & 0x7F == 0x7F, 0, codes)  # one in each step of 32, so that no sum rounds
    b[np.arange(4), 32 * np.arange(4)] = np.float32(1).astype(E4M3).view(np.uint8)
    kept = to_device(a), to_device(b)
    maps = tensor_map.encode([(kept[0], Box(64)), (kept[1], Box(8))])
    out = zeros((128, 4), np.float32)
    kernel = make_wgmma(8, wgmma_e4m3[8], wgmma_e4m3_begin[8])
    Launch(kernel, 1, 128, (maps, out), shared_bytes=1024 + 72 * 128)()
    got, values = out.copy_to_host(), a[:, ::32].view(E4M3).astype(np.float32)
    for t in range(128):
        row, column = 16 * (t // 32) + t % 32 // 4, 2 * (t % 4)
        if column < 4:
            wanted = np.concatenate([values[row, column : column + 2], values[row + 8, column : column + 2]])
            np.testing.assert_array_equal(got[t], wanted)
