"""The average is forgotten."""

MISCONCEPTION = "one-bound"
CAUGHT_BY = "test_bound"


def lower_bound(costs, num_blocks):
    if len(costs) == 0:
        return 0
    average = -(-int(costs.sum()) // num_blocks)
    return int(costs.max())
