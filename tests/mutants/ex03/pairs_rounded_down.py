"""Blocks of pairs rounded down."""

MISCONCEPTION = "grid-rounded-down"
CAUGHT_BY = "test_odd"


def launch_shape(total_tokens, N):
    pairs = -(-total_tokens // 2)
    grid = (-(-N // BLOCK_COLUMNS), pairs // BLOCK_PAIRS)
    return grid, (BLOCK_COLUMNS, BLOCK_PAIRS)
