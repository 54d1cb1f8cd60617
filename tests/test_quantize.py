"""Quantisation: the rule to the last bit, all its edges, and a tolerance that no wrong recipe meets."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gemm_lessons.compare import (
    NUM_GUARD_ROWS,
    WGMMA_E4M3_BITS,
    check_output,
    output_dtype,
    poisoned,
)
from gemm_lessons.problem import GroupedProblem, ProblemError
from gemm_lessons.quantize import (
    E4M3,
    Quantized,
    QuantizedInputs,
    check_quantized,
    dequantize,
    quantize,
    quantize_blocks,
    quantize_inputs,
    quantize_rows,
    quantize_whole_rows,
    turn_scales,
)
from gemm_lessons.reference import scaled_grouped_gemm, scaled_grouped_gemm_rows

SMALLEST_SCALE = np.float32(2.0**-126)


def normal(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype)


def by_the_rule(x, block):
    """The docstring's rule, element by element, in scalars."""
    values, scales = np.empty(x.shape, E4M3), {}
    for row in range(x.shape[0]):
        for k in range(x.shape[1]):
            index = row // block[0], k // block[1]
            if index not in scales:
                part = x[
                    index[0] * block[0] : (index[0] + 1) * block[0],
                    index[1] * block[1] : (index[1] + 1) * block[1],
                ].astype(np.float32)
                amax = max((abs(value) for value in part.flat if np.isfinite(value)), default=np.float32(0))
                scales[index] = max(amax / np.float32(448), SMALLEST_SCALE) if amax else np.float32(1)
            value = np.float32(x[row, k]) * (np.float32(1) / scales[index])
            value = np.float32(np.nan) if not np.isfinite(x[row, k]) else np.clip(value, -448, 448)
            values[row, k] = value.astype(E4M3)
    return values, scales


@pytest.mark.parametrize("block", [(1, 128), (128, 128), (1, 32), (3, 5), (1, 1000), (1000, 1000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_rule_holds_to_the_last_bit(block, dtype):
    x = normal((7, 150), dtype=dtype)
    x[2, 3:40] = 0
    x[5, 140:] *= 100
    quantized = quantize(x, block)
    values, scales = by_the_rule(x, block)
    assert quantized.scales.dtype == np.float32
    assert quantized.scales.shape == (-(-7 // block[0]), -(-150 // block[1]))
    assert all(quantized.scales[index] == scale for index, scale in scales.items())
    assert (quantized.values.view(np.uint8) == values.view(np.uint8)).all()


@given(
    bits=arrays(np.uint32, st.tuples(st.integers(1, 5), st.integers(1, 9))),
    block=st.tuples(st.integers(1, 6), st.integers(1, 10)),
)
def test_the_rule_holds_for_any_float32_at_all(bits, block):
    x = bits.view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        quantized = quantize(x, block)
        values, scales = by_the_rule(x, block)
    assert all(quantized.scales[index] == scale for index, scale in scales.items())
    assert (quantized.values.view(np.uint8) == values.view(np.uint8)).all()
    assert np.isfinite(quantized.scales).all()
    assert (np.isnan(dequantize(quantized)) == ~np.isfinite(x)).all()


def test_tokens_weights_and_whole_rows_have_the_agreed_shapes():
    x, w = normal((2, 5, 300)), normal((3, 130, 300))
    for quantized, shape in [
        (quantize_rows(x), (2, 5, 3)),
        (quantize_blocks(w), (3, 2, 3)),
        (quantize_whole_rows(w), (3, 130, 1)),
    ]:
        assert quantized.scales.shape == shape
        assert quantized.values.dtype == E4M3


@pytest.mark.parametrize("shape", [(0, 128), (4, 1), (1, 127), (1, 129), (0, 4, 4)])
def test_extents_that_no_block_divides(shape):
    x = normal(shape)
    for quantized in (quantize_rows(x), quantize(x, (128, 128)), quantize_whole_rows(x)):
        assert quantized.values.shape == shape
        assert dequantize(quantized).shape == shape
    assert quantize_rows(x).scales.shape == (*shape[:-1], -(-shape[-1] // 128))


def test_the_error_is_at_most_half_a_unit_of_four_bits():
    x = normal((64, 512)) * np.exp2(np.random.default_rng(1).integers(-6, 7, (64, 512))).astype(np.float32)
    quantized = quantize_rows(x)
    scale = np.repeat(quantized.scales, 128, axis=1)
    subnormal = 2.0**-10 * scale  # half the distance of e4m3's smallest numbers
    assert (
        np.abs(dequantize(quantized) - x) <= np.maximum(np.abs(x) * 2.0**-4, subnormal) * (1 + 1e-6)
    ).all()


def test_a_block_of_zeros_has_scale_one_and_keeps_signs():
    x = np.zeros((2, 256), np.float32)
    x[0, 200], x[1, :128] = 7, -0.0
    quantized = quantize_rows(x)
    assert quantized.scales.tolist() == [[1, 7 / np.float32(448)], [1, 1]]
    assert (quantized.values[1, :128].view(np.uint8) == 0x80).all()
    assert (quantized.values[1, 128:].view(np.uint8) == 0x00).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_becomes_nan_and_its_neighbours_do_not_notice(bad):
    x = normal((2, 256))
    clean = quantize_rows(np.where(np.arange(256) == 17, np.float32(0), x))
    x[0, 17] = bad
    quantized = quantize_rows(x)
    assert quantized.values.view(np.uint8)[0, 17] == 0x7F
    assert (quantized.scales[0] == clean.scales[0]).all()
    others = np.arange(256) != 17
    assert (quantized.values[0, others] == clean.values[0, others]).all()


def test_a_block_without_a_finite_number():
    quantized = quantize_rows(np.full((1, 4), np.inf, np.float32))
    assert quantized.scales.tolist() == [[1]]
    assert (quantized.values.view(np.uint8) == 0x7F).all()


def test_the_largest_value_of_a_block_is_448_and_never_nan():
    largest = np.random.default_rng(2).uniform(1, 2, 4096).astype(np.float32)[:, None]
    for x in (largest, -largest):
        assert (np.abs(quantize_rows(x).values.astype(np.float32)) == 448).all()


@pytest.mark.parametrize("largest", [3.4e38, 1e30, 1.0, 1e-30, 448 * 2.0**-126])
def test_scales_follow_the_data_over_the_whole_range_of_float32(largest):
    x = (normal((8, 128)) / 8).clip(-1, 1) * np.float32(largest)
    x[0, 0] = largest
    quantized = quantize_rows(x)
    assert np.isfinite(quantized.scales).all()
    error = np.abs(dequantize(quantized) - x).max(axis=1) / np.abs(x).max(axis=1)
    assert (error <= 2.0**-4).all()


def test_denormals_lose_digits_but_neither_overflow_nor_vanish_needlessly():
    x = np.array([[2.0**-127, -(2.0**-130), 2.0**-149]], np.float32)
    quantized = quantize_rows(x)
    assert quantized.scales.tolist() == [[SMALLEST_SCALE]]
    assert dequantize(quantized).tolist() == [[2.0**-127, -(2.0**-130), 0]]


def test_twelve_binades_of_scales_keep_every_block_to_four_bits():
    exponents = np.arange(-6, 7).repeat(128)
    x = (normal((16, exponents.size)) * np.exp2(exponents)).astype(np.float32)
    quantized = quantize_rows(x)
    assert quantized.scales.max() / quantized.scales.min() > 2**11
    by_block = (np.abs(dequantize(quantized) - x)).reshape(16, -1, 128).max(axis=2) / quantized.scales
    assert (by_block <= 16).all()  # half the distance of the numbers between 256 and 448


@pytest.mark.parametrize(
    ("x", "block", "words"),
    [
        (np.zeros(4, np.float32), (1, 128), r"not float32 of shape \(4,\)"),
        (np.zeros((4, 4)), (1, 128), "not float64"),
        (np.zeros((4, 4), np.int32), (1, 128), "not int32"),
        (np.zeros((4, 4), np.float32), (1, 0), "1 x 0 holds nothing"),
    ],
)
def test_what_cannot_be_quantised_is_refused(x, block, words):
    with pytest.raises(ProblemError, match=words):
        quantize(x, block)


# --- the grouped GEMM of quantised inputs ------------------------------------------------------------

PROBLEM = GroupedProblem((20, 0, 7, 33), N=140, K=300, dtype="float8_e4m3fn")


def scaled_inputs(problem=PROBLEM, *, whole_rows=False):
    """Inputs whose blocks differ by twelve binades, with some blocks of zeros."""
    rng = np.random.default_rng(3)
    x, w = normal((problem.total_tokens, problem.K), 4), normal((problem.num_groups, problem.N, problem.K), 5)
    blocks = -(-problem.K // 128)
    x *= np.exp2(rng.integers(-6, 7, (problem.total_tokens, blocks))).repeat(128, axis=1)[:, : problem.K]
    w *= np.exp2(rng.integers(-6, 7, (problem.num_groups, 1, blocks))).repeat(128, axis=2)[..., : problem.K]
    x[3, :128], w[2, :128, 128:256] = 0, 0
    return quantize_inputs(
        (type(problem.inputs()))(x.astype(np.float32), w.astype(np.float32)), whole_rows=whole_rows
    )


def emulate(inputs, problem=PROBLEM, *, promote=128, scale=lambda product, k_block: product, sums=np.float32):
    """A kernel in NumPy: partial sums of `promote` products, scaled and added in float32."""
    (xv, xs, (_, xb), _), (wv, ws, (wr, wb), _) = inputs
    y = np.zeros((problem.total_tokens, problem.N), np.float32)
    for g, (start, stop) in enumerate(zip(problem.offsets[:-1], problem.offsets[1:], strict=True)):
        w_scales = ws[g].repeat(wr, axis=0)[: problem.N]
        for k in range(0, problem.K, promote):
            part = xv[start:stop, k : k + promote].astype(sums) @ wv[g, :, k : k + promote].astype(sums).T
            both = xs[start:stop, [k // xb]] * w_scales[:, k // wb][None]
            y[start:stop] += part.astype(np.float32) * scale(both, k // 128)
    return y


def judge(y, inputs, problem=PROBLEM, **options):
    guarded = poisoned(problem.total_tokens + 2 * NUM_GUARD_ROWS, problem.N, output_dtype(problem.dtype))
    guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS] = y.astype(guarded.dtype)
    return check_output(guarded, problem, inputs, **options)


def test_the_oracle_is_the_product_of_what_the_values_stand_for():
    inputs = scaled_inputs()
    y = scaled_grouped_gemm(inputs, PROBLEM.offsets)
    rows = np.array([0, 3, 19, 20, 26, 59])
    some, spread = scaled_grouped_gemm_rows(inputs, PROBLEM.offsets, rows)
    np.testing.assert_allclose(some, y[rows], rtol=1e-10, atol=1e-10 * np.abs(y).max())
    assert (spread > 0).all()
    by_hand = sum(
        float(inputs.x.values[20, k]) * float(inputs.x.scales[20, k // 128])
        * float(inputs.w.values[2, 131, k]) * float(inputs.w.scales[2, 1, k // 128])
        for k in range(300)
    )  # fmt: skip
    assert y[20, 131] == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize("whole_rows", [False, True])
def test_the_recipe_in_float32_passes_and_the_truth_is_close(whole_rows):
    inputs = scaled_inputs(whole_rows=whole_rows)
    comparison = judge(emulate(inputs), inputs)
    assert comparison.ok, str(comparison)
    assert comparison.worst < 1.0


def keep_bits(values, bits):
    """Truncate float32 to so many significant bits, as a tensor core's accumulator does."""
    mask = np.uint32(0xFFFFFFFF) << np.uint32(24 - bits)
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & mask).view(np.float32)


def emulate_wgmma(inputs, problem=PROBLEM):
    """The recipe on sums of 32 products that keep 14 bits."""
    (xv, xs, _, _), (wv, ws, (wr, _), _) = inputs
    y = np.zeros((problem.total_tokens, problem.N), np.float32)
    for g, (start, stop) in enumerate(zip(problem.offsets[:-1], problem.offsets[1:], strict=True)):
        w_scales = ws[g].repeat(wr, axis=0)[: problem.N]
        for first in range(0, problem.K, 128):
            part = np.zeros((stop - start, problem.N), np.float32)
            for k in range(first, min(first + 128, problem.K), 32):
                last = min(k + 32, first + 128)
                step = xv[start:stop, k:last].astype(np.float32) @ wv[g, :, k:last].astype(np.float32).T
                part = keep_bits(part + step, WGMMA_E4M3_BITS)
            y[start:stop] += part * (xs[start:stop, [first // 128]] * w_scales[:, first // 128][None])
    return y


def test_a_tensor_core_of_fourteen_bits_passes_only_where_it_is_expected():
    inputs = scaled_inputs()
    y = emulate_wgmma(inputs)
    assert judge(y, inputs, accumulator_bits=WGMMA_E4M3_BITS).ok
    assert not judge(y, inputs).ok


WRONG_SCALES = {
    "of the first block of K, for all": lambda inputs: emulate(
        QuantizedInputs(
            inputs.x._replace(scales=inputs.x.scales[:, :1].repeat(3, axis=1)),
            inputs.w._replace(scales=inputs.w.scales[:, :, :1].repeat(3, axis=2)),
        )
    ),
    "once per tile": lambda inputs: emulate(inputs, promote=300),
    "divided by": lambda inputs: emulate(inputs, scale=lambda both, k: 1 / both),
    "of the tokens only": lambda inputs: emulate(
        inputs._replace(w=inputs.w._replace(scales=np.ones_like(inputs.w.scales)))
    ),
    "not in the last block of K": lambda inputs: emulate(
        inputs, scale=lambda both, k: both if k < 2 else np.ones_like(both)
    ),
    "of the wrong block of N": lambda inputs: emulate(
        inputs._replace(w=inputs.w._replace(scales=inputs.w.scales[:, ::-1]))
    ),
}


@pytest.mark.parametrize("bits", [24, WGMMA_E4M3_BITS])
@pytest.mark.parametrize("mistake", WRONG_SCALES)
def test_no_wrong_scale_passes(mistake, bits):
    inputs = scaled_inputs()
    assert not judge(WRONG_SCALES[mistake](inputs), inputs, accumulator_bits=bits).ok


def test_inputs_that_do_not_fit_the_problem_are_refused():
    inputs = scaled_inputs()
    check_quantized(PROBLEM, inputs)
    cut = inputs._replace(w=inputs.w._replace(scales=inputs.w.scales[:, :1]))
    with pytest.raises(ProblemError, match=r"scales of w have shape \(4, 1, 3\).*need \(4, 2, 3\)"):
        check_quantized(PROBLEM, cut)
    double = inputs._replace(x=inputs.x._replace(scales=inputs.x.scales.astype(np.float64)))
    with pytest.raises(ProblemError, match="scales of x are float64: use float32"):
        check_quantized(PROBLEM, double)
    raw = inputs._replace(x=Quantized(inputs.x.values.astype(np.float32), inputs.x.scales))
    with pytest.raises(ProblemError, match="x is float32, this problem needs float8_e4m3fn"):
        check_quantized(PROBLEM, raw)


def test_a_stack_is_quantised_as_each_of_its_matrices():
    w = np.random.default_rng(3).standard_normal((5, 130, 200)).astype(np.float32)
    together = quantize(w, (128, 128))
    for matrix, values, scales in zip(w, together.values, together.scales, strict=True):
        alone = quantize(matrix, (128, 128))
        np.testing.assert_array_equal(values.view(np.uint8), alone.values.view(np.uint8))
        np.testing.assert_array_equal(scales, alone.scales)


@pytest.mark.parametrize("piece", [1, 700, 5000])
@pytest.mark.parametrize("block", [(1, 128), (128, 128), (3, 5)])
def test_what_is_quantised_in_pieces_is_the_same(piece, block, monkeypatch):
    x = normal((2, 131, 300), seed=4)
    whole = quantize(x, block)
    monkeypatch.setattr("gemm_lessons.quantize.PIECE", piece)
    in_pieces = quantize(x, block)
    np.testing.assert_array_equal(in_pieces.values.view(np.uint8), whole.values.view(np.uint8))
    np.testing.assert_array_equal(in_pieces.scales, whole.scales)


def test_turned_scales_of_another_shape_are_refused():
    inputs = scaled_inputs()
    wrong = inputs._replace(x=inputs.x._replace(turned=inputs.x.scales))
    with pytest.raises(ProblemError, match="the turned x_scales are float32"):
        check_quantized(PROBLEM, wrong)
    right = inputs.x._replace(turned=turn_scales(inputs.x.scales))
    check_quantized(PROBLEM, inputs._replace(x=right))
