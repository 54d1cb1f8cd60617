"""The grid has its rows on x, while the kernel has columns there."""

MISCONCEPTION = "rows-and-columns-swapped"
CAUGHT_BY = "test_one_expert"


def launch_experts(launch, counts, x, w, bias, y):
    columns = -(-y.shape[1] // BLOCK_COLUMNS)
    first = 0
    for group, count in enumerate(counts):
        last = first + count
        if count > 0:
            grid = (-(-count // BLOCK_ROWS), columns)
            block = (BLOCK_COLUMNS, BLOCK_ROWS)
            launch(expert_kernel, grid, block, x[first:last], w[group], bias[group], y[first:last])
        first = last
