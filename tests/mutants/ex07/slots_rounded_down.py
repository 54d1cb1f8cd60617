"""capacity // BLOCK_SLOTS rows of blocks."""

MISCONCEPTION = "grid-rounded-down"
CAUGHT_BY = "test_full"


def launch_shape(num_experts, capacity, N):
    columns, slots = -(-N // BLOCK_COLUMNS), max(capacity // BLOCK_SLOTS, 1)
    return (columns, slots, num_experts), (BLOCK_COLUMNS, BLOCK_SLOTS)
