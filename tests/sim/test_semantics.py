"""The simulator computes what Numba would: njit on the CPU has the same typing rules."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda, float32, int8, int32, njit, uint8, uint32, uint64

from gemm_lessons import sim

LITERAL = 0.1
LARGE_INT = 2**31 - 1


def promote(x, out):
    out[0] = (x[0] + x[1]) // 2
    out[1] = x[0] * x[1]
    out[2] = x[0] - x[1] * 3


def narrow(x, out):
    out[0] = x[0] * x[1] + 5
    out[1] = x[0] << 7
    out[2] = x[0] - LARGE_INT


def hash_(x, out):
    h = x[0]
    for _ in range(4):
        h ^= h >> 16
        h *= 0x85EBCA6B
        h ^= h >> 13
        h *= 0xC2B2AE35
    out[0] = h
    out[1] = h >> 40
    out[2] = h & 0xFFFF


def casts(x, out):
    out[0] = int32(x[0] * x[1])
    out[1] = int8(x[0]) + uint8(x[1])
    out[2] = uint32(x[0]) // 3


def xorshift(x, out):
    s = uint64(x[0]) | uint64(1)
    for _ in range(5):
        s ^= s << uint64(13)
        s ^= s >> uint64(7)
        s ^= s << uint64(17)
    out[0] = s >> uint64(33)
    out[1] = s & uint64(1023)
    out[2] = s >> uint64(60)


def floor_division(x, out):
    d = x[1] if x[1] != 0 else 7
    out[0] = x[0] // d
    out[1] = x[0] % d
    out[2] = -(x[0] // d)


INTEGER_FUNCTIONS = (promote, narrow, hash_, casts, xorshift, floor_division)
INT32 = st.integers(-(2**31), 2**31 - 1)


@pytest.mark.parametrize("dtype", [np.int32, np.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("function", INTEGER_FUNCTIONS, ids=lambda f: f.__name__)
def test_integers_as_numba_computes_them(function, dtype):
    compiled, kernel = njit(function), cuda.jit(function)

    @settings(max_examples=12, deadline=None, database=None)
    @given(INT32, INT32, st.sampled_from(["checked", "plain"]))
    def check(a, b, mode):
        x = np.array([a, b], np.int32)
        wanted, got = np.zeros(3, dtype), np.zeros(3, dtype)
        compiled(x, wanted)
        with sim.configured(mode=mode):
            kernel[1, 1](x, got)
        np.testing.assert_array_equal(got, wanted)

    check()


def accumulate(x, out):
    acc = 0.0
    for i in range(x.size):
        acc += x[i] * 0.1
    out[0] = acc


def accumulate_single(x, out):
    acc = float32(0.0)
    for i in range(x.size):
        acc += x[i] * float32(0.1)
    out[0] = acc


def captured_literal(x, out):
    out[0] = (x[0] * LITERAL + x[1]) * LITERAL - x[2] / 3.0


def functions(x, out):
    out[0] = math.sqrt(x[0]) * math.exp(-x[1]) + math.pi * x[2]


def nothing_raises(x, out):
    zero = x[0] - x[0]
    out[0] = math.sqrt(zero - float32(1)) + x[1] / zero


FLOAT_FUNCTIONS = (accumulate, accumulate_single, captured_literal, functions, nothing_raises)


@pytest.mark.parametrize("function", FLOAT_FUNCTIONS, ids=lambda f: f.__name__)
def test_floats_as_numba_computes_them(function):
    compiled, kernel = njit(function, error_model="numpy"), cuda.jit(function)
    rng = np.random.default_rng(0)
    for mode in ("checked", "plain"):
        for _ in range(20):
            x = rng.random(9, dtype=np.float32) * 4
            wanted, got = np.zeros(1), np.zeros(1)
            compiled(x, wanted)
            with sim.configured(mode=mode):
                kernel[1, 1](x, got)
            # why: libm's single-precision exp may differ in the last bit from the rounded double.
            tolerance = 2e-7 if function is functions else 0
            np.testing.assert_allclose(got, wanted, rtol=tolerance)


@pytest.mark.parametrize("mode", ["checked", "plain"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_stores_wrap_around(mode, dtype):
    @cuda.jit
    def kernel(x):
        x[0] = 2**40 + 300
        x[1] = -1
        x[2] = 2.7

    x = np.zeros(3, dtype)
    with sim.configured(mode=mode):
        kernel[1, 1](x)
    wanted = np.array([2**40 + 300, -1], np.int64).astype(dtype)
    np.testing.assert_array_equal(x, [*wanted, 2])


def test_globals_are_frozen_and_live_objects_are_untouched():
    @cuda.jit
    def kernel(x):
        x[0] = LITERAL
        x[1] = isinstance(LITERAL, float)

    x = np.zeros(2)
    kernel[1, 1](x)
    assert x[0] == 0.1
    assert type(LITERAL) is float


def test_literal_in_the_message_is_the_students():
    @cuda.jit
    def kernel(x):
        x[5] = 0.25

    with pytest.raises(sim.SimulatorError, match=r"in 'x\[5\]'"):
        kernel[1, 1](np.zeros(2))


def test_atomics_compute_in_the_type_of_the_array():
    @cuda.jit
    def kernel(f, i, u):
        cuda.atomic.add(f, 0, 0.1)
        cuda.atomic.add(i, 0, 1)
        cuda.atomic.inc(u, 0, 2)
        cuda.atomic.dec(u, 1, 2)
        cuda.atomic.exch(i, 1, 7)
        cuda.atomic.and_(i, 2, 6)
        cuda.atomic.or_(i, 2, 8)
        cuda.atomic.xor(i, 2, 1)
        cuda.atomic.sub(f, 1, 1.5)
        cuda.atomic.max(f, 2, 3.0)
        cuda.atomic.min(f, 3, -3.0)
        cuda.atomic.nanmax(f, 4, 2.0)
        cuda.atomic.cas(i, 3, 0, 9)

    f, i = np.zeros(5, np.float32), np.array([2**31 - 1, 0, 7, 0], np.int32)
    f[4] = np.nan
    u = np.array([2, 0], np.uint32)
    kernel[1, 1](f, i, u)
    np.testing.assert_array_equal(f, np.array([0.1, -1.5, 3, -3, 2], np.float32))
    np.testing.assert_array_equal(i, [-(2**31), 7, 15, 9])
    np.testing.assert_array_equal(u, [0, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rounding_what_is_not_finite_gives_an_integer_and_no_exception(value):
    @cuda.jit
    def kernel(x, out):
        out[0] = round(x[0])
        out[1] = round(x[1])

    out = np.full(2, 7, np.int32)
    kernel[1, 1](np.array([value, 2.5], np.float32), out)
    assert out.tolist() == [0, 2]
