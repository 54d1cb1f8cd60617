"""The average is rounded down."""

MISCONCEPTION = "bound-rounded-down"
CAUGHT_BY = "test_bound"


def lower_bound(costs, num_blocks):
    if len(costs) == 0:
        return 0
    average = int(costs.sum()) // num_blocks
    return max(average, int(costs.max()))
