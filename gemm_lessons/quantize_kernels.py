"""Quantise on the device, to the last bit as `quantize` does: a plain kernel, and two at memory speed.

plain    any GPU, any block: a thread block for each scale's block; two passes over the data
rows     1 x 128: a warp, or half of one, for each block, all of it in registers; one pass
tiles    128 x 128: a thread block for each, all of it in registers; one pass

                    lane 0         lane 1                  lane 15
    row of bfloat16 [8 values]     [8 values]     ...      [8 values]        16 bytes a lane, one load
    amax            shuffles: after 4 exchanges every lane knows the largest of all
    row of e4m3     [8 codes]      [8 codes]      ...      [8 codes]         8 bytes a lane, one store

What bounds it: memory.  Each bfloat16 is read once (2 bytes) and written once (1 byte, and 1/32 of a scale),
so the goal is the speed of a copy of as many bytes.  A lane therefore starts several loads before it looks at
the first one, and rounds two values with one instruction where there is one (compute capability 8.9 on).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch, Stream, start_of
from gemm_lessons.problem import ProblemError
from gemm_lessons.ptx.bits import as_float32, as_word
from gemm_lessons.ptx.compiling import inlined
from gemm_lessons.ptx.convert import max_magnitude, pack_e4m3
from gemm_lessons.ptx.global_memory import address_of, st_global_v2
from gemm_lessons.ptx.integer import div_u32
from gemm_lessons.ptx.shared import ld_global_v4, st_global_u32
from gemm_lessons.quantize import BLOCK, E4M3, ROW_BLOCK, WEIGHT_BLOCK, Quantized, turned_shape
from gemm_lessons.schedule import ceil_div
from gemm_lessons.small_floats import encode_e4m3

device.choose()

from numba import cuda, float32, int32, uint32  # noqa: E402  why late: the device is chosen before

PLAIN_THREADS = 128
FAST_THREADS = 256
LOADS = 4  # 16-byte loads that a lane starts before it needs the first

TURN_THREADS, TURN_BLOCKS = 128, 8
TURN_SIGNATURE = "void(float32[:, ::1], float32[:, ::1])"

ALL_LANES = 0xFFFFFFFF
_WORD_BYTES = 4

WORDS = {4: "uint32", 2: "uint16"}  # how a kernel sees float32 and bfloat16
ROWS_SIGNATURE = "void({word}[:, ::1], uint8[:, ::1], float32[:, ::1])"
SIGNATURE = "void({word}[:, :, ::1], uint8[:, :, ::1], float32[:, :, ::1])"  # of plain and tiles


@inlined
def nan_if_infinite(value):
    """The value, or NaN for an infinity: e4m3 has none, and a maximum of magnitudes passes over NaN."""
    return float32(np.nan) if abs(value) == float32(np.inf) else value


@inlined
def scale_of(amax):
    """The scale of a block whose largest magnitude this is."""
    if amax == float32(0.0):
        return float32(1.0)
    return max(amax / float32(448.0), float32(2.0**-126))  # a float32 whose reciprocal is finite


def make_load(word_bytes: int) -> Any:
    """A device function: the float32 in one element of an array of float32's or bfloat16's bits."""
    if word_bytes == 4:

        @inlined
        def value_of(word):
            return as_float32(uint32(word))

    else:

        @inlined
        def value_of(word):
            return as_float32(uint32(word) << 16)  # why so simple: a bfloat16 is a float32's upper half

    return value_of


@cache
def make_plain_kernel(word_bytes: int, block: tuple[int, int]) -> Any:
    """Quantise x [E, R, K] in any blocks with the plainest means: a thread block for each scale."""
    BLOCK_ROWS, BLOCK_COLUMNS = block
    value_of = make_load(word_bytes)

    @cuda.jit(launch_bounds=PLAIN_THREADS)
    def quantize_kernel(x, values, scales):
        s_amax = cuda.shared.array(1, int32)
        slab = cuda.blockIdx.z
        first_row, first_col = cuda.blockIdx.x * BLOCK_ROWS, cuda.blockIdx.y * BLOCK_COLUMNS
        last_row = min(first_row + BLOCK_ROWS, x.shape[1])
        last_col = min(first_col + BLOCK_COLUMNS, x.shape[2])

        if cuda.threadIdx.x == 0:
            s_amax[0] = 0
        cuda.syncthreads()  # why: nobody may add to the maximum before it is set
        amax = float32(0.0)
        for row in range(first_row, last_row):
            for col in range(first_col + cuda.threadIdx.x, last_col, PLAIN_THREADS):
                amax = max_magnitude(amax, nan_if_infinite(value_of(x[slab, row, col])))
        cuda.atomic.max(s_amax, 0, int32(as_word(amax)))  # as integers, positive floats sort the same
        cuda.syncthreads()  # why: the maximum is complete only when every thread has added its own

        scale = scale_of(as_float32(uint32(s_amax[0])))
        inverse = float32(1.0) / scale
        for row in range(first_row, last_row):
            for col in range(first_col + cuda.threadIdx.x, last_col, PLAIN_THREADS):
                value = nan_if_infinite(value_of(x[slab, row, col]))
                values[slab, row, col] = encode_e4m3(value * inverse)
        if cuda.threadIdx.x == 0:
            scales[slab, cuda.blockIdx.x, cuda.blockIdx.y] = scale

    return quantize_kernel


def make_piece_functions(word_bytes: int, instruction: bool) -> tuple[Any, Any, Any]:
    """Three device functions on the four words that a lane loads at once.

    Args:
        word_bytes: 4 for float32, one to a word; 2 for bfloat16, two to a word.
        instruction: round with the GPU's instruction, not in integers.

    Returns:
        largest: of a magnitude so far and those of the values; NaN does not count.
        without_infinity: the words, with NaN for infinities.
        store: multiply by 1 / scale, round and write.
    """
    if instruction:

        @inlined
        def pair(low, high, inverse):
            return pack_e4m3(low * inverse, high * inverse)

    else:

        @inlined
        def pair(low, high, inverse):
            return encode_e4m3(low * inverse) | (encode_e4m3(high * inverse) << 8)

    if word_bytes == 4:

        @inlined
        def largest_of_word(amax, word):
            return max_magnitude(amax, as_float32(word))

        @inlined
        def clean_word(word):
            return uint32(as_word(nan_if_infinite(as_float32(word))))

        @inlined
        def store(address, a, b, c, d, inverse):
            low = pair(as_float32(a), as_float32(b), inverse)
            st_global_u32(address, low | (pair(as_float32(c), as_float32(d), inverse) << 16))

    else:

        @inlined
        def low_half(word):
            return as_float32(uint32(word << 16))

        @inlined
        def high_half(word):
            return as_float32(uint32(word & 0xFFFF0000))

        @inlined
        def largest_of_word(amax, word):
            return max_magnitude(max_magnitude(amax, low_half(word)), high_half(word))

        @inlined
        def clean_word(word):
            low, high = nan_if_infinite(low_half(word)), nan_if_infinite(high_half(word))
            return uint32((as_word(low) >> 16) & 0xFFFF | as_word(high) & 0xFFFF0000)

        @inlined
        def pair_of_word(word, inverse):
            return pair(low_half(word), high_half(word), inverse)

        @inlined
        def store(address, a, b, c, d, inverse):
            low = pair_of_word(a, inverse) | (pair_of_word(b, inverse) << 16)
            st_global_v2(address, low, pair_of_word(c, inverse) | (pair_of_word(d, inverse) << 16))

    @inlined
    def largest(amax, a, b, c, d):
        amax = largest_of_word(largest_of_word(amax, a), b)
        return largest_of_word(largest_of_word(amax, c), d)

    @inlined
    def without_infinity(a, b, c, d):
        return clean_word(a), clean_word(b), clean_word(c), clean_word(d)

    return largest, without_infinity, store


@cache
def make_rows_kernel(word_bytes: int, instruction: bool, whole_blocks: bool) -> Any:
    """Quantise x [T, K] by 1 x 128: lanes share a block, and exchange maxima by shuffles.

    Args:
        word_bytes: 4 for float32, 2 for bfloat16.
        instruction: round with the GPU's instruction, not in integers.
        whole_blocks: K is a multiple of 128, so blocks lie end to end and nothing need be divided.
    """
    PIECE = 16 // word_bytes  # values in the 16 bytes of a lane
    LANES = BLOCK // PIECE  # that share a block: 32, or 16
    BLOCKS_AT_ONCE = FAST_THREADS // LANES
    EXCHANGES = LANES.bit_length() - 1
    largest, without_infinity, store = make_piece_functions(word_bytes, instruction)

    @inlined
    def largest_of_block(a, b, c, d):
        amax = largest(float32(0.0), a, b, c, d)
        for exchange in range(EXCHANGES):
            amax = max_magnitude(amax, cuda.shfl_xor_sync(ALL_LANES, amax, 1 << exchange))
        return amax

    @cuda.jit(launch_bounds=FAST_THREADS)
    def quantize_rows_kernel(x, values, scales):
        r_words = cuda.local.array((LOADS, 4), uint32)
        num_k, row_blocks = x.shape[1], scales.shape[1]
        num_blocks = scales.shape[0] * row_blocks
        lane = cuda.threadIdx.x & (LANES - 1)
        first = cuda.blockIdx.x * (BLOCKS_AT_ONCE * LOADS) + cuda.threadIdx.x // LANES
        source, target = address_of(x, (0, 0)), address_of(values, (0, 0))
        scale_address = address_of(scales, (0, 0))

        for i in range(LOADS):
            block = first + i * BLOCKS_AT_ONCE
            inside = block < num_blocks
            element = block * BLOCK + lane * PIECE
            if not whole_blocks:
                row = div_u32(block, row_blocks)
                col = (block - row * row_blocks) * BLOCK + lane * PIECE
                inside = inside and col < num_k
                element = row * num_k + col
            words = ld_global_v4(source + element * word_bytes, inside)
            r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3] = words

        for i in range(LOADS):
            block = first + i * BLOCKS_AT_ONCE
            a, b, c, d = r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3]
            amax = largest_of_block(a, b, c, d)
            if cuda.any_sync(ALL_LANES, amax == float32(np.inf)):  # rare; the whole warp, for the shuffles
                a, b, c, d = without_infinity(a, b, c, d)
                amax = largest_of_block(a, b, c, d)
            scale = scale_of(amax)
            inverse = float32(1.0) / scale
            inside = block < num_blocks
            element = block * BLOCK + lane * PIECE
            if not whole_blocks:
                row = div_u32(block, row_blocks)
                col = (block - row * row_blocks) * BLOCK + lane * PIECE
                inside = inside and col < num_k
                element = row * num_k + col
            if inside:
                store(target + element, a, b, c, d, inverse)
                if lane == 0:
                    st_global_u32(scale_address + block * _WORD_BYTES, as_word(scale))

    return quantize_rows_kernel


@cache
def make_tiles_kernel(word_bytes: int, instruction: bool) -> Any:
    """Quantise w [E, N, K] by 128 x 128: a thread block for each tile, which it keeps in registers.

    Args:
        word_bytes: 4 for float32, 2 for bfloat16.
        instruction: round with the GPU's instruction, not in integers.
    """
    PIECE = 16 // word_bytes  # values in the 16 bytes of a lane
    PIECES = BLOCK // PIECE  # in a row of the tile
    ROWS_AT_ONCE = FAST_THREADS // PIECES
    NUM_LOADS = BLOCK // ROWS_AT_ONCE
    largest, without_infinity, store = make_piece_functions(word_bytes, instruction)

    @inlined
    def join_largest(amax, s_amax):
        for exchange in range(5):
            amax = max_magnitude(amax, cuda.shfl_xor_sync(ALL_LANES, amax, 1 << exchange))
        if cuda.threadIdx.x & 31 == 0:
            cuda.atomic.max(s_amax, 0, int32(as_word(amax)))  # as integers, positive floats sort the same
        cuda.syncthreads()  # why: the maximum is complete only when every warp has added its own
        return as_float32(uint32(s_amax[0]))

    @cuda.jit(launch_bounds=FAST_THREADS)
    def quantize_tiles_kernel(w, values, scales):
        s_amax, s_again = cuda.shared.array(1, int32), cuda.shared.array(1, int32)
        r_words = cuda.local.array((NUM_LOADS, 4), uint32)
        num_n, num_k = w.shape[1], w.shape[2]
        slab, tile_n, tile_k = cuda.blockIdx.z, cuda.blockIdx.x, cuda.blockIdx.y
        first_row = tile_n * BLOCK + cuda.threadIdx.x // PIECES
        col = tile_k * BLOCK + (cuda.threadIdx.x & (PIECES - 1)) * PIECE
        source, target = address_of(w, (slab, 0, 0)), address_of(values, (slab, 0, 0))

        if cuda.threadIdx.x == 0:
            s_amax[0], s_again[0] = 0, 0
        for i in range(NUM_LOADS):
            row = first_row + i * ROWS_AT_ONCE
            words = ld_global_v4(source + (row * num_k + col) * word_bytes, row < num_n and col < num_k)
            r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3] = words
        cuda.syncthreads()  # why: nobody may add to the maximum before it is set

        amax = float32(0.0)
        for i in range(NUM_LOADS):
            amax = largest(amax, r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3])
        amax = join_largest(amax, s_amax)
        if amax == float32(np.inf):  # rare, and the same in all threads
            amax = float32(0.0)
            for i in range(NUM_LOADS):
                a, b, c, d = r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3]
                a, b, c, d = without_infinity(a, b, c, d)
                r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3] = a, b, c, d
                amax = largest(amax, a, b, c, d)
            amax = join_largest(amax, s_again)

        scale = scale_of(amax)
        inverse = float32(1.0) / scale
        for i in range(NUM_LOADS):
            row = first_row + i * ROWS_AT_ONCE
            if row < num_n and col < num_k:
                address = target + row * num_k + col
                store(address, r_words[i, 0], r_words[i, 1], r_words[i, 2], r_words[i, 3], inverse)
        if cuda.threadIdx.x == 0:
            scales[slab, tile_n, tile_k] = scale

    return quantize_tiles_kernel


@cuda.jit(launch_bounds=TURN_THREADS)
def turn_kernel(scales, turned):
    """Turn scales [R, blocks of K] to [blocks of K, R rounded up]: a thread for a row and eight blocks."""
    row, first = cuda.grid(1), cuda.blockIdx.y * TURN_BLOCKS
    if row < turned.shape[1]:
        # why eight: 32 bytes of a row are what memory delivers at a time
        for block in range(first, min(first + TURN_BLOCKS, turned.shape[0])):
            turned[block, row] = scales[row, block] if row < scales.shape[0] else float32(0.0)


def prepare_turn(scales: Any, turned: Any) -> Launch | None:
    """Prepare the launch that turns scales on the device, see `quantize.turn_scales`; None if there are none.

    Raises:
        ProblemError: turned has another shape than the scales, turned.
    """
    wanted = turned_shape(tuple(scales.shape))
    if tuple(turned.shape) != wanted:
        raise ProblemError(f"turned scales are {tuple(turned.shape)}, and these need {wanted}")
    if 0 in wanted:
        return None
    grid = ceil_div(wanted[1], TURN_THREADS), ceil_div(wanted[0], TURN_BLOCKS)
    return Launch(turn_kernel, grid, TURN_THREADS, (scales, turned))


@dataclass(frozen=True)
class PreparedQuantize:
    """A quantisation with its buffers, ready to be launched again and again.

    Attributes:
        out: values float8_e4m3fn and float32 scales, on the device; what a launch fills.
        kernel: "plain", "rows" or "tiles".
        launch: enqueues it; None if x is empty.
    """

    out: Quantized
    kernel: str
    launch: Launch | None

    def __call__(self, stream: Stream = None) -> Quantized:
        """Enqueue it on a stream, the default one if none is given; returns `out`."""
        if self.launch is not None:
            self.launch(stream)
        return self.out


def choose_kernel(shape: tuple[int, ...], block: tuple[int, int], word_bytes: int, address: int) -> str:
    """Which kernel: "rows" or "tiles" where the block is theirs and 16-byte loads fit, else "plain"."""
    aligned = shape[-1] % (16 // word_bytes) == 0 and address % 16 == 0
    return {ROW_BLOCK: "rows", WEIGHT_BLOCK: "tiles"}.get(block, "plain") if aligned else "plain"


def prepare(
    x: Any,
    block: tuple[int, int] = ROW_BLOCK,
    out: Quantized | None = None,
    *,
    kernel: str | None = None,
    instruction: bool | None = None,
) -> PreparedQuantize:
    """Check everything, allocate and pick a kernel.

    Args:
        x: device array [R, K] or [E, R, K] of float32 or bfloat16.
        block: rows and columns that share a scale: (1, 128) for tokens, (128, 128) for weights.
        out: device arrays to fill, or None to allocate them.
        kernel: "plain", or None for the fastest one that fits.
        instruction: round with the GPU's instruction; None says yes from compute capability 8.9 on.

    Raises:
        ProblemError: x, its dtype, the block or the shapes of out do not fit.
    """
    extents = tuple(x.shape)
    if len(extents) not in (2, 3) or x.dtype.name not in ("float32", "bfloat16"):
        raise ProblemError(
            f"quantise float32 or bfloat16 [R, K] or [E, R, K], not {x.dtype} of shape {extents}"
        )
    if min(block) < 1:
        raise ProblemError(f"a block of {block[0]} x {block[1]} holds nothing: use at least 1 x 1")
    *stack, rows, columns = extents
    shape = (*stack, ceil_div(rows, block[0]), ceil_div(columns, block[1]))
    if out is None:
        values = cuda.device_array(extents, np.uint8).view(E4M3)
        out = Quantized(values, cuda.device_array(shape, np.float32), block)
    if tuple(out.values.shape) != extents or tuple(out.scales.shape) != shape or out.block != block:
        raise ProblemError(
            f"out holds values {tuple(out.values.shape)} and scales {tuple(out.scales.shape)} in blocks of"
            f" {out.block}, and this needs {extents} and {shape} in blocks of {block}"
        )
    word_bytes = x.dtype.itemsize
    kernel = kernel or choose_kernel(extents, block, word_bytes, start_of(x))
    if 0 in extents:
        return PreparedQuantize(out, kernel, None)
    if instruction is None:
        instruction = device.choose().compute_capability >= (8, 9)
    stacked = (1,) * (3 - len(extents))
    words, values = x.view(np.dtype(WORDS[word_bytes])), out.values.view(np.uint8)
    grid = (shape[-2], shape[-1], int(np.prod(stack, dtype=int)))
    if kernel == "rows":
        flat = int(np.prod(extents[:-1]))
        arrays = (words.reshape(flat, columns), values.reshape(flat, columns))
        arguments = (*arrays, out.scales.reshape(flat, shape[-1]))
        at_once = LOADS * FAST_THREADS * 16 // word_bytes // BLOCK
        rows_kernel = make_rows_kernel(word_bytes, instruction, columns % BLOCK == 0)
        return PreparedQuantize(
            out, kernel, Launch(rows_kernel, ceil_div(flat * shape[-1], at_once), FAST_THREADS, arguments)
        )
    cubes = tuple(array.reshape(*stacked, *array.shape) for array in (words, values, out.scales))
    if kernel == "tiles":
        tiles_kernel = make_tiles_kernel(word_bytes, instruction)
        return PreparedQuantize(out, kernel, Launch(tiles_kernel, grid, FAST_THREADS, cubes))
    plain_kernel = make_plain_kernel(word_bytes, block)
    return PreparedQuantize(out, kernel, Launch(plain_kernel, grid, PLAIN_THREADS, cubes))


def quantize_on_device(x: Any, block: tuple[int, int] = ROW_BLOCK, stream: Stream = None) -> Quantized:
    """Quantise a device array: allocate, launch, and return device arrays; see `prepare`."""
    return prepare(x, block)(stream)
