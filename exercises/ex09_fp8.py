"""Exercise 09: int8 in blocks of 16, scaled on the way out, with outliers clipped.

What differs from the lesson: codes are int8, whose numbers lie evenly; a block is 1 x 16 of x and 8 x 16
of w; and outliers do not set the scale alone. No scale is larger than CLIP / 127, so that what lies beyond
CLIP *saturates* at 127 or -127, and the others keep their digits.

    x         [total_tokens, K]            float32
    codes     [total_tokens, K]            int8: x / scale of its block, rounded to the nearest integer, ties
                                           to even, and never beyond -127 or 127
    scales    [total_tokens, ceil(K / 16)] float32: amax / 127, where amax is the largest magnitude in the
                                           block, but CLIP at most; and 1 for a block of zeros
    w         [num_experts, N, K]          int8, codes already
    w_scales  [num_experts, ceil(N / 8), ceil(K / 16)]   float32: one scale for 8 rows of w and 16 of K
    ends      [num_experts]                int32: where each expert's rows end
    y         [total_tokens, N]            float32

    y[row, n] = sum over blocks of K:  scale of x * scale of w * (sum over the block of code * w)

The second kernel is tried with the grader's codes and scales, too: it can be right without the first.

Budget: about 24 lines; one launch of each kernel; each code is read once for each output, and each scale
once for each block and output; arithmetic in float32 and integers.
"""

from numba import cuda, float32, int32

BLOCK_K = 16  # values of a row that share a scale
BLOCK_N = 8  # rows of w that share one
CLIP = 127 / 32
LANES, ROWS = 8, 4  # threads of a block, across and down


@cuda.jit
def quantize_kernel(x, codes, scales):
    """One thread for each block of 16 of each row."""
    # >>> fill (about 12 lines): the largest magnitude, the scale, the codes
    pass
    # <<< fill


@cuda.jit
def scaled_kernel(codes, scales, w, w_scales, ends, y):
    """One thread for each output."""
    # >>> fill (about 12 lines): a sum of integers for each block, scaled and added
    pass
    # <<< fill


def quantize_and_multiply(launch, x, codes, scales, w, w_scales, ends, y):
    """Launch both kernels, one after the other; given."""
    down = -(-x.shape[0] // ROWS)
    launch(quantize_kernel, (-(-scales.shape[1] // LANES), down), (LANES, ROWS), x, codes, scales)
    launch(scaled_kernel, (-(-y.shape[1] // LANES), down), (LANES, ROWS), codes, scales, w, w_scales, ends, y)
