"""Experts are rarely full, so half of the slots get threads."""

MISCONCEPTION = "capacity-assumed"
CAUGHT_BY = "test_full"


def launch_shape(num_experts, capacity, N):
    columns, slots = -(-N // BLOCK_COLUMNS), -(-capacity // 2 // BLOCK_SLOTS)
    return (columns, slots, num_experts), (BLOCK_COLUMNS, BLOCK_SLOTS)
