"""Quantisation on the device: to the last bit what NumPy does, on every edge, by every kernel."""

import ml_dtypes
import numpy as np
import pytest
from numba import cuda, float32

from gemm_lessons import device
from gemm_lessons.launch import Launch, to_device
from gemm_lessons.problem import ProblemError
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.convert import pack_e4m3, unpack_e4m3
from gemm_lessons.quantize import (
    E4M3,
    Quantized,
    quantize,
    quantize_blocks,
    quantize_rows,
    turn_scales,
    turned_shape,
)
from gemm_lessons.quantize_kernels import choose_kernel, prepare, prepare_turn, quantize_on_device
from gemm_lessons.small_floats import DECODED, encode_bfloat16, encode_e4m3

pytestmark = [pytest.mark.gpu] if device.choose().is_gpu else []  # the same tests on both
HAS_INSTRUCTION = device.choose().compute_capability >= (8, 9)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def interesting_floats():
    """Every e4m3, the middle between neighbours, one bit to each side, and all edges of float32."""
    exact = np.unique(np.abs(DECODED[np.isfinite(DECODED)]))
    middle = ((exact[1:].astype(np.float64) + exact[:-1]) / 2).astype(np.float32)
    base = np.concatenate([exact, middle, np.float32([448, 464, 480, 1e30, 3.4e38, np.inf])])
    near = [base, np.nextafter(base, np.float32(0)), np.nextafter(base, np.float32(np.inf))]
    odd = np.float32([np.nan, 2.0**-126, 2.0**-149, 1e-40, np.pi])
    random = np.random.default_rng(0).integers(0, 2**32, 400, dtype=np.uint32).view(np.float32)
    positive = np.concatenate([*near, odd])
    return np.concatenate([positive, -positive, random])


def wanted_codes(values):
    rounded = np.clip(values, -448, 448).astype(E4M3).view(np.uint8)
    return np.where(np.isnan(values), np.uint8(0x7F), rounded)


@cuda.jit
def encode_all(values, codes, halves):
    i = cuda.grid(1)
    if i < values.shape[0]:
        codes[i] = encode_e4m3(values[i])
        halves[i] = encode_bfloat16(values[i])


@cuda.jit
def convert_all(values, codes, decoded, copies):
    i = cuda.grid(1)
    if i < values.shape[0] // 2:
        low, high = values[2 * i], values[2 * i + 1]
        pair = pack_e4m3(low, high)
        codes[2 * i], codes[2 * i + 1] = pair & 0xFF, pair >> 8
        decoded[2 * i], decoded[2 * i + 1] = unpack_e4m3(pair)
        copies[2 * i], copies[2 * i + 1] = as_float32(as_word(low)), high + float32(0)


def launch(kernel, num, *arrays):
    on_device = [to_device(array) for array in arrays]
    Launch(kernel, -(-num // 64), 64, tuple(on_device))()
    cuda.synchronize()
    return [array.copy_to_host() for array in on_device]


def test_integers_round_as_numpy_does():
    values = interesting_floats()
    codes, halves = np.zeros(len(values), np.uint8), np.zeros(len(values), np.uint16)
    _, codes, halves = launch(encode_all, len(values), values, codes, halves)
    assert (codes == wanted_codes(values)).all()
    number = ~np.isnan(values)
    assert (halves[number] == values.astype(BFLOAT16).view(np.uint16)[number]).all()
    assert np.isnan(halves.view(BFLOAT16).astype(np.float32)[~number]).all()


@pytest.mark.skipif(not HAS_INSTRUCTION, reason="NOT RUN: e4m3 instructions need compute capability 8.9")
def test_the_instruction_rounds_as_numpy_does_and_reads_all_values_back():
    values = interesting_floats()
    values = values[: len(values) // 2 * 2]
    arrays = np.zeros(len(values), np.uint8), *(np.zeros(len(values), np.float32) for _ in range(2))
    _, codes, decoded, copies = launch(convert_all, len(values), values, *arrays)
    assert (codes == wanted_codes(values)).all()
    np.testing.assert_array_equal(decoded, DECODED[codes])
    np.testing.assert_array_equal(copies[::2].view(np.uint32), values[::2].view(np.uint32))


def test_the_table_holds_every_value():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(DECODED, every.view(E4M3).astype(np.float32))


def hard(shape, dtype, seed=0):
    """Random numbers over twelve binades, with blocks of zeros, signed zeros, denormals, NaN and infinity."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32) * np.exp2(rng.integers(-6, 7, shape)).astype(np.float32)
    flat = x.reshape(-1, shape[-1])
    flat[0] = 0
    flat[-1, ::3] = -0.0
    if flat.shape[0] > 4 and shape[-1] > 8:
        flat[1] *= np.float32(2.0**-125)
        flat[2, 5], flat[3, 7] = np.inf, np.nan
        flat[4, :128] = -np.inf
    return x.astype(dtype)


def same(got, want):
    values = got.values.view(np.uint8).copy_to_host()
    np.testing.assert_array_equal(values, want.values.view(np.uint8))
    np.testing.assert_array_equal(got.scales.copy_to_host(), want.scales)


SHAPES = [
    (5, 128),
    (9, 256),
    (7, 136),
    (6, 24),
    (33, 512),
    (2, 3, 200),
    (1, 1),
    (3, 131),
    (0, 128),
    (3, 0, 64),
]


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("instruction", [False, True])
def test_tokens_to_the_last_bit(shape, dtype, instruction):
    if instruction and not HAS_INSTRUCTION:
        pytest.skip("NOT RUN: e4m3 instructions need compute capability 8.9")
    x = hard(shape, dtype) if 0 not in shape else np.zeros(shape, dtype)
    prepared = prepare(to_device(x), instruction=instruction)
    assert prepared.kernel == ("rows" if shape[-1] % (16 // x.itemsize) == 0 else "plain")
    same(prepared(), quantize_rows(x))


WEIGHTS = [
    (1, 128, 128),
    pytest.param((2, 130, 136), marks=pytest.mark.slow),
    (3, 5, 24),
    (1, 200, 131),
    (2, 256, 64),
]


@pytest.mark.parametrize(
    "dtype",
    [np.float32, pytest.param(BFLOAT16, marks=pytest.mark.slow)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("shape", WEIGHTS, ids=str)
def test_weights_to_the_last_bit(shape, dtype):
    w = hard(shape, dtype)
    prepared = prepare(to_device(w), (128, 128))
    assert prepared.kernel == ("tiles" if shape[-1] % (16 // w.itemsize) == 0 else "plain")
    same(prepared(), quantize_blocks(w))


@pytest.mark.parametrize("block", [(1, 128), (1, 200), (3, 7), (1000, 1000)], ids=str)
def test_the_plain_kernel_takes_any_block(block):
    x = hard((10, 200), np.float32)
    same(prepare(to_device(x), block, kernel="plain")(), quantize(x, block))


def test_a_launch_fills_the_arrays_that_are_given_and_nothing_beside_them():
    x = hard((6, 136), np.float32)
    values, scales = np.full((8, 136), 0xEE, np.uint8), np.full((8, 2), 7, np.float32)
    values, scales = to_device(values), to_device(scales)
    out = Quantized(values.view(E4M3)[1:7], scales[1:7])
    prepared = prepare(to_device(x), out=out)
    for _ in range(2):
        prepared()
    same(prepared.out, quantize_rows(x))
    assert (values.copy_to_host()[[0, 7]] == 0xEE).all()
    assert (scales.copy_to_host()[[0, 7]] == 7).all()


def test_rows_that_no_wide_load_fits_take_the_plain_kernel():
    assert choose_kernel((4, 128), (1, 128), 2, 512) == "rows"
    assert choose_kernel((4, 132), (1, 128), 2, 512) == "plain"
    assert choose_kernel((4, 128), (1, 128), 2, 514) == "plain"
    assert choose_kernel((4, 128), (1, 64), 2, 512) == "plain"


def test_what_cannot_be_quantised_is_refused():
    x = to_device(np.zeros((4, 128), np.float32))
    with pytest.raises(ProblemError, match="not float16 of shape"):
        quantize_on_device(to_device(np.zeros((4, 128), np.float16)))
    with pytest.raises(ProblemError, match=r"not float32 of shape \(4,\)"):
        quantize_on_device(to_device(np.zeros(4, np.float32)))
    with pytest.raises(ProblemError, match="1 x 0 holds nothing"):
        prepare(x, (1, 0))
    with pytest.raises(ProblemError, match=r"this needs \(4, 128\) and \(1, 1\) in blocks of \(128, 128\)"):
        prepare(x, (128, 128), prepare(x).out)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (130, 9), (128, 16), (0, 2)])
def test_scales_are_turned_like_numpy_turns_them(shape):
    scales = np.random.default_rng(0).random(shape, np.float32)
    turned = to_device(np.full(turned_shape(shape), np.nan, np.float32))
    launch = prepare_turn(to_device(scales), turned)
    if launch:
        launch()
    np.testing.assert_array_equal(turned.copy_to_host(), turn_scales(scales))
    assert (launch is None) == (0 in shape)


def test_room_for_turned_scales_is_checked():
    scales, room = (to_device(np.zeros(shape, np.float32)) for shape in ((6, 3), (3, 6)))
    with pytest.raises(ProblemError, match=r"turned scales are \(3, 6\), and these need \(3, 8\)"):
        prepare_turn(scales, room)
