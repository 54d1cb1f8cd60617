"""FP8 with a scale per block: what is stored, how it is rounded, what happens at the edges; in NumPy.

    x [T, K]   0.9  -3.1  ...  0.2 | 41.  7.5 ...      one scale for each block of 128 columns of a row
    scales           3.1 / 448     |   41. / 448       the largest magnitude of a block becomes 448,
    values     130. -448  ...  29. | 448  82. ...      the largest that e4m3 has;  x ~ values * scale

Tokens get a scale for each 1 x 128 block and weights one for each 128 x 128 (DeepSeek-V3, "Technical
Report", 2024, section 3.3.2).  e4m3 keeps four significant bits and has its smallest normal number at 2**-6,
so the blocks are small to keep an outlier from pushing its neighbours below that.

The rule, in float32, the same on every device and to the last bit:

    amax   = the largest finite magnitude in the block
    scale  = 1 if amax == 0, else max(amax / 448, 2**-126)
    value  = x * (1 / scale), rounded to the nearest e4m3, ties to even, at most 448 either way

and what follows from it at the edges:

- A block of zeros has scale 1, not 0, so nothing ever divides by zero; -0 stays -0.
- Infinities and NaN become NaN, which is the only one of them that e4m3 has.  They do not count for the
  scale, so they spoil the sums that they take part in, and none else.
- A block of numbers near the smallest that float32 has gets the smallest normal scale, since 1 / scale
  must be finite, and its values lose digits.
- Rounding can lift a block's largest value over 448 by a unit of float32: it saturates.
- Blocks at the right and the lower edge are as large as what is left of the matrix.

Host only: this module imports no Numba.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs, ProblemError, pad

Array = np.ndarray[Any, Any]

E4M3 = DTYPES["float8_e4m3fn"]
LARGEST = np.float32(448)
SMALLEST_SCALE = np.float32(2.0**-126)  # the smallest normal float32; its reciprocal is finite
BLOCK = 128
PIECE = 2**19  # elements that one thread quantises at a time

ROW_BLOCK = (1, BLOCK)  # of tokens
WEIGHT_BLOCK = (BLOCK, BLOCK)


class Quantized(NamedTuple):
    """A matrix, or a stack of them, in e4m3 with a scale per block: x ~ values * scale of its block.

    Attributes:
        values: float8_e4m3fn [..., R, K].
        scales: float32 [..., ceil(R / block[0]), ceil(K / block[1])].
        block: rows and columns that share a scale.
        turned: the scales of a matrix once more, by `turn_scales`, for who reads them a block of K at a time;
            None if nobody has turned them.
    """

    values: Array
    scales: Array
    block: tuple[int, int] = ROW_BLOCK
    turned: Array | None = None


TURNED_ROWS = 4  # the copy engine wants rows of a multiple of 16 bytes, four scales


def turned_shape(scales_shape: tuple[int, ...]) -> tuple[int, int]:
    """Shape of [R, ceil(K / 128)] scales when they are turned: K slowest, and R rounded up to four."""
    rows, blocks = scales_shape
    return blocks, -(-rows // TURNED_ROWS) * TURNED_ROWS


def check_turned(turned: Any, scales_shape: tuple[int, ...]) -> None:
    """Check the shape and dtype of turned scales.

    Raises:
        ProblemError: naming what they are and what they should be.
    """
    wanted = turned_shape(scales_shape)
    if turned.dtype != np.float32 or tuple(turned.shape) != wanted:
        raise ProblemError(
            f"the turned x_scales are {turned.dtype} {tuple(turned.shape)}: use float32 {wanted},"
            " blocks of K slowest and tokens rounded up to four"
        )


def turn_scales(scales: Array) -> Array:
    """Turn the scales of a matrix: float32 [R, ceil(K / 128)] -> [ceil(K / 128), R and zeros]."""
    turned = np.zeros(turned_shape(scales.shape), np.float32)
    turned[:, : len(scales)] = scales.T
    return turned


class QuantizedInputs(NamedTuple):
    """Inputs of a grouped GEMM in FP8: x [total_tokens, K] and w [num_groups, N, K], both with scales."""

    x: Quantized
    w: Quantized


def quantize(x: Array, block: tuple[int, int]) -> Quantized:
    """Quantise a matrix, or each of a stack of them, with one scale per block, by the rule above.

    Args:
        x: [..., R, K], of any float dtype that float32 holds exactly.
        block: rows and columns that share a scale.

    Raises:
        ProblemError: x is not a matrix of floats, or a block has no rows or no columns.
    """
    x = _as_float32(x)
    if min(block) < 1:
        raise ProblemError(f"a block of {block[0]} x {block[1]} holds nothing: use at least 1 x 1")
    if x.size > PIECE:  # NumPy works without holding Python's lock, and small pieces stay in a core's cache
        rows = max(1, PIECE // (block[0] * x.shape[-1])) * block[0]
        matrices = x.reshape(-1, *x.shape[-2:])
        pieces = [matrix[i : i + rows] for matrix in matrices for i in range(0, x.shape[-2], rows)]
        with ThreadPoolExecutor() as pool:
            each = list(pool.map(lambda piece: _quantize(piece, block), pieces))
        values, scales = (np.concatenate(parts) for parts in zip(*each, strict=True))
        return Quantized(values.reshape(x.shape), scales.reshape(*x.shape[:-2], -1, scales.shape[-1]), block)
    return Quantized(*_quantize(x, block), block)


def _quantize(x: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    """Values and scales of float32 matrices, by the rule above."""
    finite = np.isfinite(x)
    scales = block_scales(np.where(finite, np.abs(x), np.float32(0)), block)
    inverse = spread_over_blocks(np.float32(1) / scales, block, x.shape)
    scaled = np.clip(np.where(finite, x, np.float32(0)) * inverse, -LARGEST, LARGEST)
    return np.where(finite, scaled, np.float32(np.nan)).astype(E4M3), scales


def quantize_rows(x: Array) -> Quantized:
    """Quantise tokens [..., T, K], one scale per 1 x 128 block: scales float32 [..., T, ceil(K / 128)]."""
    return quantize(x, ROW_BLOCK)


def quantize_blocks(w: Array) -> Quantized:
    """Quantise weights [E, N, K] by 128 x 128: scales float32 [E, ceil(N / 128), ceil(K / 128)]."""
    return quantize(w, WEIGHT_BLOCK)


def quantize_whole_rows(x: Array) -> Quantized:
    """Quantise [..., R, K] with one scale per row: scales float32 [..., R, 1].

    The recipe of `torch._scaled_grouped_mm`, for tokens and weights alike.
    """
    return quantize(x, (1, max(1, np.shape(x)[-1])))


def dequantize(quantized: Quantized) -> Array:
    """What the values stand for, float64 [..., R, K]; exact, since a product needs 28 bits."""
    values, scales, block, _ = quantized
    spread = spread_over_blocks(scales, block, values.shape)
    exact: Array = values.astype(np.float64) * spread.astype(np.float64)
    return exact


def block_scales(magnitudes: Array, block: tuple[int, int]) -> Array:
    """The scale of every block, float32 [..., ceil(R / block[0]), ceil(K / block[1])].

    Args:
        magnitudes: float32 [..., R, K], finite and not negative.
        block: rows and columns that share a scale.
    """
    amax = magnitudes
    for axis, extent in ((-2, block[0]), (-1, block[1])):
        if amax.shape[axis] and extent > 1:
            amax = np.maximum.reduceat(amax, np.arange(0, amax.shape[axis], extent), axis=axis)
    scales: Array = np.where(amax == 0, np.float32(1), np.maximum(amax / LARGEST, SMALLEST_SCALE))
    return scales


def spread_over_blocks(per_block: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """Repeat one number per block over the elements of its block: an array of the given shape."""
    rows, columns = shape[-2:]
    per_row = np.repeat(per_block, block[0], axis=-2)[..., :rows, :]
    return np.repeat(per_row, block[1], axis=-1)[..., :columns]


def quantize_inputs(inputs: Inputs, *, whole_rows: bool = False) -> QuantizedInputs:
    """Quantise tokens by 1 x 128 and weights by 128 x 128, or both with one scale per row."""
    if whole_rows:
        return QuantizedInputs(quantize_whole_rows(inputs.x), quantize_whole_rows(inputs.w))
    return QuantizedInputs(quantize_rows(inputs.x), quantize_blocks(inputs.w))


def draw_inputs(problem: GroupedProblem, seed: int = 0) -> Inputs | QuantizedInputs:
    """Random inputs in the problem's dtype; for FP8 they are float32 numbers, quantised."""
    if problem.dtype != "float8_e4m3fn":
        return problem.inputs(seed)
    return quantize_inputs(replace(problem, dtype="float32").inputs(seed))


def with_unit_scales(inputs: Inputs) -> QuantizedInputs:
    """FP8 values as they are, with scales of 1: what they stand for is what they are."""
    blocks = (ROW_BLOCK, WEIGHT_BLOCK)
    return QuantizedInputs(
        *(
            Quantized(values, block_scales(np.zeros(values.shape, np.float32), block), block)
            for values, block in zip(inputs, blocks, strict=True)
        )
    )


def pad_inputs(inputs: Inputs | QuantizedInputs, problem: GroupedProblem) -> Inputs | QuantizedInputs:
    """The inputs of `problem.as_padded()`: new tokens are zeros, weights are the same."""
    if isinstance(inputs, QuantizedInputs):
        values, scales = pad(inputs.x.values, problem), pad(inputs.x.scales, problem)
        return inputs._replace(x=Quantized(values, scales, inputs.x.block))
    return Inputs(pad(inputs.x, problem), inputs.w)


def check_quantized(problem: GroupedProblem, inputs: QuantizedInputs) -> None:
    """Check shapes and dtypes of values and scales against a problem.

    Raises:
        ProblemError: naming the array, what it is and what it should be.
    """
    problem.check_inputs(Inputs(inputs.x.values, inputs.w.values))
    for label, quantized in inputs._asdict().items():
        *stack, rows, columns = quantized.values.shape
        wanted = (*stack, -(-rows // quantized.block[0]), -(-columns // quantized.block[1]))
        if tuple(quantized.scales.shape) != wanted:
            raise ProblemError(
                f"the scales of {label} have shape {tuple(quantized.scales.shape)}, and blocks of"
                f" {quantized.block[0]} x {quantized.block[1]} need {wanted}"
            )
        if quantized.scales.dtype != np.float32:
            raise ProblemError(f"the scales of {label} are {quantized.scales.dtype}: use float32")
        if quantized.turned is not None:
            check_turned(quantized.turned, wanted)


def _as_float32(x: Array) -> Array:
    x = np.asarray(x)
    if x.ndim < 2 or x.dtype not in (DTYPES["float32"], DTYPES["float16"], DTYPES["bfloat16"]):
        raise ProblemError(
            f"quantise a matrix of float32, float16 or bfloat16, not {x.dtype} of shape {tuple(x.shape)}"
        )
    return x.astype(np.float32)
