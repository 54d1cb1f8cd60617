"""Rows on x in the launch, columns on x in the kernel."""

MISCONCEPTION = "rows-and-columns-swapped"
CAUGHT_BY = "test_ragged"


def launch_shape(total_tokens, N):
    pairs = -(-total_tokens // 2)
    grid = (-(-pairs // BLOCK_PAIRS), -(-N // BLOCK_COLUMNS))
    return grid, (BLOCK_PAIRS, BLOCK_COLUMNS)
