"""Empty experts are left out before the experts are numbered."""

MISCONCEPTION = "experts-renumbered"
CAUGHT_BY = "test_ragged"


def launch_experts(launch, counts, x, w, bias, y):
    columns = -(-y.shape[1] // BLOCK_COLUMNS)
    first = 0
    for group, count in enumerate([count for count in counts if count]):
        last = first + count
        if count > 0:
            grid = (columns, -(-count // BLOCK_ROWS))
            block = (BLOCK_COLUMNS, BLOCK_ROWS)
            launch(expert_kernel, grid, block, x[first:last], w[group], bias[group], y[first:last])
        first = last
