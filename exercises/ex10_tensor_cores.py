"""Exercise 10: tensor cores by hand, for any N and K.

What differs from the lesson's kernel: nothing goes through shared memory, and no ldmatrix deals out the
operands. Each lane reads its own values of x and w from global memory, so it has to know which ones they are;
and N and K may be odd.

    y[rows of g] = x[rows of g] @ w[g].T

    x      [total_tokens, K]      bfloat16, as uint16 bits
    w      [num_experts, N, K]    bfloat16, as uint16 bits
    tiles  [num_tiles, 3]         int32: expert, its first row of the tile, and where the expert's rows end
    y      [total_tokens, N]      bfloat16, as uint16 bits

`mma` is one instruction of a whole warp: D = A @ B.T + C, with A [16 rows, 16 k] and B [8 n, 16 k] in
bfloat16, and C and D [16 rows, 8 n] in float32. No lane holds a matrix. Each has a few *words* of it:

    8 x 8 values: lane t has columns 2 * (t % 4) and the next one of row t // 4, in one word, the first of
    them in the low half                                       columns  0  1 | 2  3 | 4  5 | 6  7
                                                       row 0            t =  0      1      2      3
                                                       row 1                 4      5      6      7
                                                       ...
                                                       row 7                28     29     30     31

    A   word 0: rows 0-7,  k 0-7      word 2: rows 0-7,  k 8-15
        word 1: rows 8-15, k 0-7      word 3: rows 8-15, k 8-15
    B   word 0: n 0-7,     k 0-7      word 1: n 0-7,     k 8-15
    C   a float32 takes a word for itself: words 0 and 1 are the two columns in rows 0-7, and words 2 and 3
        the same columns in rows 8-15

The maps are graded by themselves first: all words of all 32 lanes.

Budget: about 36 lines; the grader launches a block of two warps for each tile of 16 rows and each 16
columns, 8 for each warp. A warp executes one mma for every 16 of K, and a lane reads nothing but its words.
"""

from numba import cuda, float32, uint32

from gemm_lessons.ptx.matrix import mma_m16n8k16, pack

MMA_M, MMA_N, MMA_K = 16, 8, 16
WARP, WARPS = 32, 2

mma = mma_m16n8k16["bfloat16"]  # d0, d1, d2, d3 = mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
pack_pair = pack["bfloat16"]


@cuda.jit(device=True)
def to_bfloat16(value):
    """A float32, rounded, as 16 bits; given."""
    return pack_pair(value, value) & 0xFFFF


@cuda.jit(device=True)
def a_place(lane, word):
    """The row and the k of the low half of a word of A, 0 to 3; the high half is the next k."""
    # >>> fill (about 1 line)
    return 0, 0
    # <<< fill


@cuda.jit(device=True)
def b_place(lane, word):
    """The n and the k of the low half of a word of B, 0 or 1; the high half is the next k."""
    # >>> fill (about 1 line)
    return 0, 0
    # <<< fill


@cuda.jit(device=True)
def c_place(lane, word):
    """The row and the n of a word of C, 0 to 3."""
    # >>> fill (about 1 line)
    return 0, 0
    # <<< fill


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    """A word: matrix[row, k] below, matrix[row, k + 1] above; 0 for each that is beyond end or K."""
    # >>> fill (about 6 lines): uint32(...) before you shift, for 16 bits shifted by 16 are gone
    return uint32(0)
    # <<< fill


@cuda.jit
def tensor_core_kernel(x, w, tiles, y):
    """Block (i, j) computes columns from 16 * j on of tile i: warp 0 the first eight, warp 1 the others."""
    # >>> fill (about 27 lines): walk along K in steps of 16; every lane takes part in every mma
    pass
    # <<< fill
