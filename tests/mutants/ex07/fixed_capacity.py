"""The grid is made for four slots, as in the picture."""

MISCONCEPTION = "capacity-assumed"
CAUGHT_BY = "test_experts"


def launch_shape(num_experts, capacity, N):
    columns, slots = -(-N // BLOCK_COLUMNS), 1
    return (columns, slots, num_experts), (BLOCK_COLUMNS, BLOCK_SLOTS)
