"""N // BLOCK_COLUMNS columns of blocks."""

MISCONCEPTION = "grid-rounded-down"
CAUGHT_BY = "test_experts"


def launch_shape(num_experts, capacity, N):
    columns, slots = max(N // BLOCK_COLUMNS, 1), -(-capacity // BLOCK_SLOTS)
    return (columns, slots, num_experts), (BLOCK_COLUMNS, BLOCK_SLOTS)
