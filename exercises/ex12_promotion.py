"""Exercise 12: promotion of partial sums, with a scale for each block, for any GPU and none.

What differs from the lesson's kernel: the tensor core is a function that is given, which keeps 14 bits of a
sum and drops the others, as Hopper's does; and a tile is one warp's, 16 rows and 16 columns.

    x         [total_tokens, K]      float32; every value is one that e4m3 has
    x_scales  [ceil(K / 128), T]     float32, turned: the block of K comes first, then the row. A scale for
                                     128 values of a row. T is total_tokens or up to three more
    w         [num_experts, N, K]    float32; every value is one that e4m3 has
    w_scales  [num_experts, ceil(N / 128), ceil(K / 128)]   float32: a scale for 128 rows of w and 128 of K
    tiles     [num_tiles, 3]         int32: expert, its first row of the tile, and where the expert's rows end
    y         [total_tokens, N]      float32

    y[row, n] = sum over blocks of K:  scale of x * scale of w * (sum over the block of x * w)

Lane t holds eight sums of its tile, as behind wgmma:

    sum          0             1             2             3             4             5          6, 7
    row          t // 4        t // 4        t // 4 + 8    t // 4 + 8    t // 4        t // 4     t // 4 + 8
    column       2 * (t % 4)   the next      2 * (t % 4)   the next      8 columns further on, as 0 to 3

`tensor_core` adds 32 of K to all sums of a lane. A sum that goes on and on loses more and more, for its last
bit grows with it. So each 128 of K, a block of scales, have sums of their own, which then move to float32:

    K            0    32    64    96    128   160   192   224   256 ...
    tensor core  new  add   add   add   new   add   add   add   new ...
                                     promote               promote         acc += scales * part

Steps of a block are taken from its first to its last. The grader knows to the last bit which partial sums
come of that, so it sees a promotion too few, and one too many.

Budget: about 26 lines; a lane reads two scales of x and one of w for each block of K; float32 and integers.
"""

from numba import cuda, float32

from gemm_lessons.ptx.bits import as_float32, as_word

BLOCK = 128  # of K, and of N, that share a scale
STEP = 32  # of K, that the tensor core takes at a time
ROWS, COLUMNS, SUMS = 16, 16, 8
DROPPED = 24 - 14  # bits of a float32 that the tensor core does not keep


@cuda.jit(device=True)
def place(lane, i):
    """The row and the column, within the tile, of a lane's sum i; given."""
    return lane // 4 + i % 4 // 2 * 8, lane % 4 * 2 + i % 2 + i // 4 * 8


@cuda.jit(device=True)
def tensor_core(part, x, w, first_row, end, first_col, k, add):
    """Add 32 of K, from k on, to all sums of this lane; given.

    Args:
        part: the sums; if not add, new ones, whatever was there.
        x: all of it.
        w: of one expert.
        first_row: of the tile.
        end: where the expert's rows end; rows from there on get nothing.
        first_col: of the tile; columns that w does not have get nothing.
        k: where the step begins; what lies behind the end of K is not added.
        add: whether the old sums count, as of wgmma.
    """
    for i in range(SUMS):
        row, column = place(cuda.threadIdx.x, i)
        row += first_row
        column += first_col
        total = float32(0.0)
        if add:
            total = part[i]
        if row < end and column < w.shape[0]:
            for j in range(k, min(k + STEP, w.shape[1])):
                total += x[row, j] * w[column, j]
        part[i] = as_float32(as_word(total) >> DROPPED << DROPPED)


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    """Add a lane's partial sums to acc: upper is the factor of row t // 4, lower that of row t // 4 + 8."""
    # >>> fill (about 5 lines)
    pass
    # <<< fill


@cuda.jit
def promoted_kernel(x, x_scales, w, w_scales, tiles, y):
    """Block (i, j), one warp, computes columns 16 * j to 16 * j + 15 of tile i."""
    # >>> fill (about 25 lines): blocks of K, steps of a block, promotion; then the stores
    pass
    # <<< fill
