"""Rows and columns of the grid are swapped."""

MISCONCEPTION = "rows-and-columns-swapped"
CAUGHT_BY = "test_one_expert"


def launch_shape(num_experts, capacity, N):
    columns, slots = -(-N // BLOCK_COLUMNS), -(-capacity // BLOCK_SLOTS)
    return (slots, columns, num_experts), (BLOCK_COLUMNS, BLOCK_SLOTS)
