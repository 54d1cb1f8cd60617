"""The smaller of the two bounds."""

MISCONCEPTION = "one-bound"
CAUGHT_BY = "test_bound"


def lower_bound(costs, num_blocks):
    if len(costs) == 0:
        return 0
    average = -(-int(costs.sum()) // num_blocks)
    return min(average, int(costs.max()))
