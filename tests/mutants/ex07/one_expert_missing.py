"""The last expert gets no blocks."""

MISCONCEPTION = "last-expert-missing"
CAUGHT_BY = "test_experts"


def launch_shape(num_experts, capacity, N):
    columns, slots = -(-N // BLOCK_COLUMNS), -(-capacity // BLOCK_SLOTS)
    return (columns, slots, max(num_experts - 1, 1)), (BLOCK_COLUMNS, BLOCK_SLOTS)
