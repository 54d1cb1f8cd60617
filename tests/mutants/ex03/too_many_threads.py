"""A thread for every row, and half of them have nothing to do."""

MISCONCEPTION = "too-many-threads"
CAUGHT_BY = "test_threads"


def launch_shape(total_tokens, N):
    pairs = total_tokens
    grid = (-(-N // BLOCK_COLUMNS), -(-pairs // BLOCK_PAIRS))
    return grid, (BLOCK_COLUMNS, BLOCK_PAIRS)
